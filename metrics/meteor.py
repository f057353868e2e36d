"""METEOR of two sentences as NLTK computes it, with synonyms from WordNet as NLTK ships it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nsdbench.archives import REMEDY, contents
from nsdbench.errors import WeightsError
from nsdbench.metrics.metric import TextMeasure

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# Endings that an inflected word may have, and those of its base form (morphy(7WN)).
_ENDINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip


def load(archive: Path) -> TextMeasure:
    """Return METEOR with the synonyms of ``archive``, NLTK's ``wordnet.zip``.

    Needs the package ``nltk`` and none of its data. Sentences end at ``.``, ``!`` or ``?`` before a blank, which is
    where NLTK's trained splitter ends them in captions; abbreviations in mid-sentence may differ.

    Raises
    ------
    ImportError
        If NLTK is not installed.
    WeightsError
        If the archive is damaged or holds something else.
    """
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import single_meteor_score

    wordnet, split = WordNet(archive), NLTKWordTokenizer().tokenize

    def prepare(texts: Sequence[str]) -> list[list[str]]:
        return [[word for part in _SENTENCE_END.split(text) for word in split(part)] for text in texts]

    def compare(reference: list[str], caption: list[str]) -> float:
        return float(single_meteor_score(reference, caption, wordnet=wordnet))

    return TextMeasure(prepare, compare)


class Lemma(str):
    """A word of a synset, with the method by which NLTK asks for its name."""

    __slots__ = ()

    def name(self) -> str:
        """Return the word; blanks in it are underscores."""
        return str(self)


class Synset(tuple[Lemma, ...]):
    """Words of one meaning, with the method by which NLTK asks for them."""

    __slots__ = ()

    def lemmas(self) -> Synset:
        """Return the words."""
        return self


class WordNet:
    """As much of WordNet as synonyms need: files of the format wndb(5WN) in a zip archive.

    Raises
    ------
    WeightsError
        If the archive is damaged or is not WordNet.
    """

    def __init__(self, archive: Path) -> None:
        self._data: dict[str, bytes] = {}
        self._index: dict[str, dict[str, list[int]]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}
        self._archive = archive
        for part in _ENDINGS:
            self._data[part] = contents(archive, f"data.{part}")
            index, exceptions = (contents(archive, name) for name in (f"index.{part}", f"{part}.exc"))
            try:
                self._index[part] = dict(map(_entry, _lines(index)))
                self._exceptions[part] = {line[0]: line[1:] for line in map(str.split, _lines(exceptions))}
            except (ValueError, IndexError) as error:
                raise self._damaged(error) from error

    def synsets(self, word: str) -> list[Synset]:
        """Return all meanings of a word: as noun, verb, adjective and adverb, and of the forms it may be inflected from."""
        return [
            self._synset(part, offset)
            for part, index in self._index.items()
            for base in self.bases(word.lower(), part)
            for offset in index[base]
        ]

    def bases(self, word: str, part: str) -> list[str]:
        """Return the base forms of ``word`` as a part of speech, itself included where WordNet has it.

        Irregular forms are looked up; for others, endings are replaced until something is found.
        """
        irregular = self._exceptions[part].get(word)
        forms = _shorter([word], part) if irregular is None else irregular
        found = self._known([word, *forms], part)
        while forms and not found and irregular is None:
            forms = _shorter(forms, part)
            found = self._known(forms, part)
        return found

    def _known(self, forms: Sequence[str], part: str) -> list[str]:
        return [form for form in dict.fromkeys(forms) if form in self._index[part]]

    def _synset(self, part: str, offset: int) -> Synset:
        """Read one line of a data file: offset, file, type, number of words in hexadecimal, words with sense numbers."""
        data = self._data[part]
        try:
            fields = data[offset : data.index(b"\n", offset)].decode().split()
            names = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            if int(fields[0]) != offset:
                raise ValueError(f"no synset at {offset} of data.{part}")
        except (ValueError, IndexError) as error:
            raise self._damaged(error) from error
        # adjectives may have a mark: "galore(ip)"
        return Synset(Lemma(name.partition("(")[0]) for name in names)

    def _damaged(self, error: Exception) -> WeightsError:
        return WeightsError(f"{self._archive} does not hold WordNet ({error})", remedy=REMEDY)


def _lines(text: bytes) -> Iterator[str]:
    """Yield the lines of an index or exception file; those of the licence begin with a blank."""
    return (line for line in text.decode().split("\n") if line and not line.startswith(" "))


def _entry(line: str) -> tuple[str, list[int]]:
    """Read one line of an index file: word, part of speech, number of synsets, ..., their offsets."""
    fields = line.split()
    return fields[0], [int(offset) for offset in fields[-int(fields[2]) :]]


def _shorter(forms: Sequence[str], part: str) -> list[str]:
    return [
        form.removesuffix(old) + new for form in forms for old, new in _ENDINGS[part] if form.endswith(old)
    ]
