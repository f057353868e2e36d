"""Captions: how much a decoded caption says of what a reference caption says.

ROUGE (Lin 2004) as the package rouge_score defines it, without stemming; METEOR (Lavie & Agarwal 2007) as NLTK does; cosines
of sentence embeddings. One reference per image, one score per caption.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nsdbench.metrics.metric import ByCaption, TextMeasure

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 64  # captions per forward pass


def words(text: str) -> list[str]:
    """Return the runs of ASCII letters and digits of a text in lower case.

    >>> words("A bird's nest, 2 eggs")
    ['a', 'bird', 's', 'nest', '2', 'eggs']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge1(reference: Sequence[str], caption: Sequence[str]) -> float:
    """Return ROUGE-1: the F1 of the words that both have, counted as often as both have them."""
    return _f1((Counter(reference) & Counter(caption)).total(), len(reference), len(caption))


def rouge_l(reference: Sequence[str], caption: Sequence[str]) -> float:
    """Return ROUGE-L: the F1 of the longest sequence of words that both have in the same order, gaps allowed."""
    return _f1(_longest_common(reference, caption), len(reference), len(caption))


def _f1(hits: int, n_reference: int, n_caption: int) -> float:
    return 2 * hits / (n_reference + n_caption) if hits else 0.0


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    lengths = [0] * (
        len(b) + 1
    )  # of the longest common subsequence of what was read of a, and each beginning of b
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if word == other else max(above, lengths[j - 1])
            diagonal = above
    return lengths[-1]


def _by_words(compare: Callable[[Sequence[str], Sequence[str]], float]) -> ByCaption:
    measure = TextMeasure(lambda texts: [words(text) for text in texts], compare)
    return ByCaption(lambda paths, device: measure)


def _meteor(paths: Sequence[Path], device: str) -> TextMeasure:
    from nsdbench.metrics.meteor import load

    return load(paths[0])


def _by_cosine(load: Callable[[Sequence[Path], str], Callable[[Sequence[str]], Tensor]]) -> ByCaption:
    """Return the metric that compares the embeddings of two texts, (n, channels), by their cosine."""

    def measure(paths: Sequence[Path], device: str) -> TextMeasure:
        embed = load(paths, device)

        def prepare(texts: Sequence[str]) -> NDArray[np.float64]:
            batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
            vectors = np.concatenate([embed(batch).double().cpu().numpy() for batch in batches])
            unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return unit

        return TextMeasure(prepare, lambda reference, caption: float(reference @ caption))  # type: ignore[arg-type]

    return ByCaption(measure)


def _clip(width: int, heads: int) -> Callable[[Sequence[Path], str], Callable[[Sequence[str]], Tensor]]:
    def load(paths: Sequence[Path], device: str) -> Callable[[Sequence[str]], Tensor]:
        from nsdbench.metrics.nets.clip_text import load

        return load(paths[0], width=width, heads=heads, device=device)

    return load


def _minilm(paths: Sequence[Path], device: str) -> Callable[[Sequence[str]], Tensor]:
    from nsdbench.metrics.nets.minilm import load

    return load(paths[0], paths[1], device=device)


ROUGE1, ROUGEL = _by_words(rouge1), _by_words(rouge_l)
METEOR = ByCaption(_meteor)
SENTENCE = _by_cosine(_minilm)
CLIP_B, CLIP_L = _by_cosine(_clip(512, 8)), _by_cosine(_clip(768, 12))
ROUGE1_GIT, ROUGEL_GIT, METEOR_GIT, SENTENCE_GIT, CLIP_B_GIT, CLIP_L_GIT = (
    replace(metric, reference="machine") for metric in (ROUGE1, ROUGEL, METEOR, SENTENCE, CLIP_B, CLIP_L)
)
