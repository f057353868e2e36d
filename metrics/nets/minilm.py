"""The sentence encoder all-MiniLM-L6-v2: a BERT of six layers whose states are averaged (Reimers & Gurevych 2019).

BERT (Devlin et al. 2019, arXiv 1810.04805) with the parameter names of the published file, and its word pieces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.errors import WeightsError
from nsdbench.metrics.nets.loading import filled
from nsdbench.safeload import load_state

LONGEST = 256  # word pieces, with those for start and end
_LONGEST_WORD = 100
_PIECES = 30522
_UNUSED = ("pooler.", "embeddings.position_ids")


@dataclass(frozen=True)
class BertConfig:
    """Size of a BERT; the defaults are those of all-MiniLM-L6-v2."""

    vocabulary: int = _PIECES
    positions: int = 512
    width: int = 384
    inner: int = 1536
    heads: int = 12
    layers: int = 6
    epsilon: float = 1e-12


def load(path: Path, vocabulary: Path, *, device: str) -> Callable[[Sequence[str]], Tensor]:
    """Return the function from texts to float32 embeddings (n, 384): the mean of the states of all word pieces.

    Raises
    ------
    WeightsError
        If a file is damaged or holds something else.
    """
    pieces = read_vocabulary(vocabulary)
    with torch.device("meta"):
        empty = Bert(BertConfig())
    state = {name: value for name, value in load_state(path).items() if not name.startswith(_UNUSED)}
    model = filled(empty, state, path, device)

    def embed(texts: Sequence[str]) -> Tensor:
        numbers = [encode(text, pieces) for text in texts]
        lengths = torch.tensor([len(row) for row in numbers])
        padded = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in numbers], batch_first=True)
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        with torch.no_grad():
            return mean_state(model(padded.to(device), real.to(device)), real.to(device))

    return embed


def mean_state(states: Tensor, real: Tensor) -> Tensor:
    """Return the mean (n, width) of those of the states (n, length, width) that ``real`` (n, length) marks."""
    marked = real[..., None].float()
    return (states * marked).sum(dim=1) / marked.sum(dim=1)


class Bert(nn.Module):
    """A BERT without a head: word pieces (n, length) to states (n, length, width)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocabulary, width),
                "position_embeddings": nn.Embedding(config.positions, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, config.epsilon),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.layers))})

    def forward(self, pieces: Tensor, real: Tensor) -> Tensor:
        """``real`` (n, length) is False for padding, which nothing attends to."""
        parts = self.embeddings
        positions = torch.arange(pieces.shape[1], device=pieces.device)
        states = parts["word_embeddings"](pieces) + parts["position_embeddings"](positions)
        first_kind: Tensor = parts["token_type_embeddings"].weight[0]  # type: ignore[index]
        states = parts["LayerNorm"](states + first_kind)
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            states = layer(states, real)
        return states  # type: ignore[no-any-return]


class _Layer(nn.Module):
    """Attention and two linear layers, each added to its input and normalized afterwards."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, inner = config.width, config.inner
        self._heads = config.heads
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"self": nn.ModuleDict(projections), "output": _sum(width, width, config.epsilon)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _sum(inner, width, config.epsilon)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        own = self.attention["self"]
        q, k, v = (
            own[name](states).unflatten(-1, (self._heads, -1)).transpose(1, 2)  # type: ignore[index]
            for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        states = _added(self.attention["output"], mixed.transpose(1, 2).flatten(2), states)
        return _added(self.output, functional.gelu(self.intermediate["dense"](states)), states)


def _sum(inputs: int, width: int, epsilon: float) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, width), "LayerNorm": nn.LayerNorm(width, epsilon)})


def _added(part: nn.Module, change: Tensor, states: Tensor) -> Tensor:
    normalized: Tensor = part["LayerNorm"](part["dense"](change) + states)  # type: ignore[index]
    return normalized


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return the numbers of the word pieces of ``vocab.txt``, which has one per line.

    Raises
    ------
    WeightsError
        If the file is not that of BERT's uncased models.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read as a list of word pieces ({error})") from error
    pieces = {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
    if len(pieces) != _PIECES or not {"[UNK]", "[CLS]", "[SEP]"} <= pieces.keys():
        raise WeightsError(
            f"{path} holds {len(pieces)} word pieces, not the {_PIECES} of BERT",
            remedy="Delete it and get it again.",
        )
    return pieces


def encode(text: str, pieces: Mapping[str, int]) -> list[int]:
    """Return a text as numbers of word pieces between start and end; the rest of a long text is cut off."""
    found = [number for word in split(text) for number in _word(word, pieces)]
    return [pieces["[CLS]"], *found[: LONGEST - 2], pieces["[SEP]"]]


def _word(word: str, pieces: Mapping[str, int]) -> list[int]:
    """Return the longest pieces of a word from left to right, or the one for unknown words."""
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in pieces), None)
        if end is None or len(word) > _LONGEST_WORD:
            return [pieces["[UNK]"]]
        found.append(pieces[prefix + word[start:end]])
        start = end
    return found


def split(text: str) -> list[str]:
    """Return the words of a text as BERT's uncased models see them: lower case, no accents, punctuation by itself.

    >>> split("A café's sign!")
    ['a', 'cafe', "'", 's', 'sign', '!']
    """
    plain = unicodedata.normalize("NFD", "".join(_cleaned(text)).lower())
    spaced = (f" {c} " if _stands_alone(c) else c for c in plain if unicodedata.category(c) != "Mn")
    return "".join(spaced).split()


def _cleaned(text: str) -> Iterator[str]:
    for c in text:
        category = unicodedata.category(c)
        if c in "\t\n\r" or category == "Zs":
            yield " "
        elif c not in "\0\ufffd" and not category.startswith("C"):
            yield c


def _stands_alone(c: str) -> bool:
    """Whether a character is a word: punctuation, ASCII symbols, Chinese characters."""
    ascii_symbol = "!" <= c <= "~" and not c.isalnum()
    return (
        ascii_symbol or unicodedata.category(c).startswith("P") or any(a <= ord(c) <= b for a, b in _CHINESE)
    )


_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
