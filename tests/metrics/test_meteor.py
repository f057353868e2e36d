"""METEOR: WordNet read from the archive that NLTK publishes, scores counted by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsdbench import weights
from nsdbench.errors import WeightsError
from nsdbench.metrics.meteor import WordNet, load
from nsdbench.schema import RunKey
from nsdbench.scoring import ScoreSettings, score
from nsdbench.types import Reconstructions, Stimuli

SYNSETS = {
    "noun": [["dog", "hound", "domestic_dog"], ["cat"], ["axis"], ["axe", "ax"], ["glass"]],
    "verb": [["run", "race"], ["axe"]],
    "adj": [["fast", "quick"], ["galore(ip)"]],
    "adv": [["quick"]],
}
IRREGULAR = {"noun": "axes axe axis\n", "verb": "ran run\nwent go\n"}
LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def _files() -> dict[str, str]:
    """WordNet of few words in the format of wndb(5WN)."""
    files = {f"{part}.exc": IRREGULAR.get(part, "") for part in SYNSETS}
    for part, synsets in SYNSETS.items():
        data, index = "  1 the licence\n", dict[str, list[str]]()
        for words in synsets:
            offset = f"{len(data):08d}"
            named = " ".join(f"{word} 0" for word in words)
            data += f"{offset} 05 {LETTERS[part]} {len(words):02x} {named} 001 @ 00000009 n 0000 | what it means\n"
            for word in words:
                index.setdefault(word.partition("(")[0], []).append(offset)
        entries = (
            f"{w} {LETTERS[part]} {len(o)} 1 @ {len(o)} 0 {' '.join(o)}  \n" for w, o in sorted(index.items())
        )
        files |= {f"data.{part}": data, f"index.{part}": "  1 the licence\n" + "".join(entries)}
    return files


def write(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"wordnet/{name}", text)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write(tmp_path / "wordnet.zip", _files())


def found(wordnet: WordNet, word: str) -> list[tuple[str, ...]]:
    return [tuple(lemma.name() for lemma in synset.lemmas()) for synset in wordnet.synsets(word)]


@pytest.mark.parametrize(
    ("word", "synsets"),
    [
        ("Dog", [("dog", "hound", "domestic_dog")]),
        ("hounds", [("dog", "hound", "domestic_dog")]),
        ("dogses", [("dog", "hound", "domestic_dog")]),  # endings are taken off until something is found
        ("glasses", [("glass",)]),
        ("running", []),  # only endings are replaced, and there is no "runn"
        ("ran", [("run", "race")]),
        ("raced", [("run", "race")]),
        ("went", []),  # irregular, but its base form is unknown
        ("axes", [("axe", "ax"), ("axis",), ("axe",)]),  # as noun irregular, as verb regular
        ("quickest", [("fast", "quick")]),
        ("quick", [("fast", "quick"), ("quick",)]),
        ("galore", [("galore",)]),
        ("zebra", []),
    ],
)
def test_synsets_of_a_word_and_its_base_forms(
    archive: Path, word: str, synsets: list[tuple[str, ...]]
) -> None:
    assert found(WordNet(archive), word) == synsets


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files.pop("data.verb"),
        lambda files: files.update({"index.noun": "dog n many\n"}),
        lambda files: files.update({"index.noun": "dog\n"}),
        lambda files: files.update({"data.noun": "  1 another file\n"}),
        lambda files: files.update({"data.noun": ""}),
    ],
)
def test_an_archive_that_is_not_wordnet_is_refused_by_name(tmp_path: Path, damage: Any) -> None:
    files = _files()
    damage(files)
    with pytest.raises(WeightsError, match=r"wordnet\.zip"):
        WordNet(write(tmp_path / "wordnet.zip", files)).synsets("dog")


def test_a_truncated_archive_is_refused_by_name(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"wordnet\.zip"):
        WordNet(archive)


@pytest.mark.parametrize(
    ("reference", "caption", "expected"),
    [
        # all four words in one chunk: F 1, penalty 0.5 / 4 ** 3
        ("a dog can swim", "a dog can swim", 1 - 0.5 / 64),
        # "dogs" has the stem of "dog", "hound" is its synonym
        ("the dog", "the dogs", 1 - 0.5 / 8),
        ("the dog", "the hound", 1 - 0.5 / 8),
        # three matches of four words and of three: P 3/4, R 1, F = P R / (0.9 P + 0.1 R); two chunks
        ("a red bird", "a big red bird", 0.75 / 0.775 * (1 - 0.5 * (2 / 3) ** 3)),
        ("a red bird", "two green boats", 0),
        ("a red bird", "", 0),
    ],
)
def test_meteor_by_hand(archive: Path, reference: str, caption: str, expected: float) -> None:
    pytest.importorskip("nltk")
    measure = load(archive)
    assert measure.compare(*measure.prepare([reference, caption])) == pytest.approx(expected)


def test_sentences_and_punctuation_become_words_of_their_own(archive: Path) -> None:
    pytest.importorskip("nltk")
    assert load(archive).prepare(["A dog runs. It's fast!"]) == [
        ["A", "dog", "runs", ".", "It", "'s", "fast", "!"]
    ]


@pytest.fixture
def registered(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive, whose hash the registry knows."""
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    known = dataclasses.replace(weights.REGISTRY["nltk-wordnet"], md5=md5)
    monkeypatch.setattr(weights.registry, "REGISTRY", {**weights.REGISTRY, known.id: known})
    return archive


def _run(folder: Path) -> Any:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    captions = {"img1": ("the dog",), "img2": ("a cat",)}
    stimuli = Stimuli(("img1", "img2"), ("core",) * 2, frozenset(captions), lambda _: image, "hash", captions)
    recon = Reconstructions(
        np.zeros((2, 1, 4, 4, 3), np.uint8), stimuli.ids, captions=(("the hound",), ("a dog",))
    )
    key = RunKey("run", "sim", "model", "mini", 1, "shared1000")
    return score(recon, stimuli, key, settings=ScoreSettings(metrics=("caption_meteor",), weights_dir=folder))


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)
    with pytest.raises(WeightsError, match=r"caption_meteor needs the package nltk.*nsdbench\[captions\]"):
        _run(registered.parent)


def test_the_archive_is_named_in_the_results(registered: Path) -> None:
    pytest.importorskip("nltk")
    scored = _run(registered.parent)
    assert scored.items["value"].to_pylist() == pytest.approx([1 - 0.5 / 8, 0.5 * 0.5])
    assert scored.weights == {"nltk-wordnet": weights.locate("nltk-wordnet", registered.parent).sha256}
