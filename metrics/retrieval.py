"""Retrieval: is the embedding decoded from a brain nearest to that of the image it saw, among many?

Both directions of the MindEye papers (Scotti et al. 2023, arXiv 2305.18274, and 2024, arXiv 2403.11207), with the exact
expectation over galleries in place of their 30 random ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nsdbench.metrics.identification import m_way, ranks
from nsdbench.metrics.metric import ByEmbedding
from nsdbench.types import Embeddings

GALLERY = 300  # alternatives, as in the publications; all of them where there are fewer
IMAGE_TOP1 = ByEmbedding("brain")  # named by what is retrieved
BRAIN_TOP1 = ByEmbedding("image")
_BLOCK_VALUES = 1 << 19  # values of the larger operand converted to float64 at a time: 4 MiB, stays in cache


def cosine_matrix(truth: Embeddings, brain: Embeddings) -> NDArray[np.float64]:
    """Return the cosine similarity of every pair of embeddings.

    Sums run in float64 over blocks of features, so that large embeddings are never held in float64 as a whole.

    Parameters
    ----------
    truth : float32 or float16 array of shape (n, ...)
    brain : float32 or float16 array of shape (m, ...)
        Trailing axes as in ``truth``; they are flattened.

    Returns
    -------
    float64 array of shape (n, m)
        NaN where one of the two vectors is zero.
    """
    a, b = truth.reshape(len(truth), -1), brain.reshape(len(brain), -1)
    products = np.zeros((len(a), len(b)))
    squares_a, squares_b = np.zeros(len(a)), np.zeros(len(b))
    step = max(1, _BLOCK_VALUES // max(len(a), len(b)))
    for start in range(0, a.shape[1], step):
        block_a = a[:, start : start + step].astype(np.float64)
        block_b = b[:, start : start + step].astype(np.float64)
        products += block_a @ block_b.T
        squares_a += np.einsum("ij,ij->i", block_a, block_a)
        squares_b += np.einsum("ij,ij->i", block_b, block_b)
    norms = np.sqrt(squares_a)[:, None] * np.sqrt(squares_b)
    cosines: NDArray[np.float64] = np.divide(
        products, norms, out=np.full_like(products, np.nan), where=norms > 0
    )
    return cosines


def top1(
    similarity: NDArray[np.float64], target: NDArray[np.int64], groups: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how often the target is the most similar of :data:`GALLERY` alternatives, and how often by chance.

    The exact expectation over all galleries that hold the target and others of its group, drawn without replacement
    (:func:`nsdbench.metrics.identification.m_way`); all of the group where it has at most :data:`GALLERY`. A tie is a
    failure.

    Parameters
    ----------
    similarity : float64 array of shape (n, m)
        Alternatives in rows, queries in columns; NaN counts as 0.
    target : int array of shape (m,)
        Row of the right alternative of every query.
    groups : sequence of int arrays
        Ascending rows that are alternatives of each other.

    Returns
    -------
    values, chance : float64 arrays of shape (m,)
        NaN for queries whose target is alone in its group.
    """
    values, chance = np.full((2, len(target)), np.nan)
    for rows in groups:
        if len(rows) < 2:
            continue
        columns = np.flatnonzero(np.isin(target, rows))
        k = ranks(similarity[np.ix_(rows, columns)], np.searchsorted(rows, target[columns]))
        m = min(GALLERY, len(rows))
        values[columns], chance[columns] = m_way(k, len(rows), m), 1 / m
    return values, chance
