"""Correlations between two sets of feature vectors, streamed over the features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK_VALUES = 1 << 19  # values of the larger operand converted to float64 at a time: 4 MiB, stays in cache
_FLAT = 1e-6  # standard deviation relative to the root mean square, about ten float32 roundings


def correlation_matrix(truth: NDArray[np.float32], recon: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return R with ``R[i, j]`` the Pearson correlation of ``truth[i]`` and ``recon[j]``.

    Sums run in float64 over blocks of features, so neither matrix is ever held in float64 as a whole and
    ``truth`` may be a memory map. Rounded means are removed before products are formed, and what the rounding left
    afterwards, which keeps the result accurate for features with a large offset.

    Parameters
    ----------
    truth : float32 array of shape (n, ...)
    recon : float32 array of shape (m, ...)
        Same number of features per row as ``truth``; trailing axes are flattened.

    Returns
    -------
    float64 array of shape (n, m)
        NaN where one of the two vectors is constant, for which a correlation does not exist.
    """
    a, b = truth.reshape(len(truth), -1), recon.reshape(len(recon), -1)
    n_features = a.shape[1]
    near_a, near_b = a.mean(axis=1)[:, None], b.mean(axis=1)[:, None]  # float32: near the means is enough
    cross = np.zeros((len(a), len(b)))
    moments_a, moments_b = np.zeros((2, len(a))), np.zeros((2, len(b)))
    step = max(1, _BLOCK_VALUES // max(len(a), len(b)))
    for start in range(0, n_features, step):
        block_a = _shifted(a[:, start : start + step], near_a, moments_a)
        block_b = _shifted(b[:, start : start + step], near_b, moments_b)
        cross += block_a @ block_b.T
    rest_a, rest_b = moments_a[0] / n_features, moments_b[0] / n_features  # means minus what was subtracted
    cross -= n_features * rest_a[:, None] * rest_b
    norm_a = _norm(moments_a[1], near_a[:, 0], rest_a, n_features)
    norm_b = _norm(moments_b[1], near_b[:, 0], rest_b, n_features)
    return np.clip(cross / norm_a[:, None] / norm_b, -1.0, 1.0)


def _shifted(
    block: NDArray[np.float32], shift: NDArray[np.float32], moments: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``block - shift`` in float64 and add its sums and sums of squares per row to ``moments``."""
    shifted = block.astype(np.float64)
    shifted -= shift
    moments[0] += shifted.sum(axis=1)
    moments[1] += np.einsum("ij,ij->i", shifted, shifted)
    return shifted


def _norm(
    square: NDArray[np.float64], near: NDArray[np.float32], rest: NDArray[np.float64], n_features: int
) -> NDArray[np.float64]:
    """Return the norms of centred vectors, NaN for vectors that are constant up to float32 rounding."""
    mean = near.astype(np.float64) + rest
    centred = square - n_features * rest**2
    flat = centred <= _FLAT**2 * (centred + n_features * mean**2)
    return np.where(flat, np.nan, np.sqrt(np.maximum(centred, 0.0)))


def own(r: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the correlation of every reconstruction j with its own ground truth, ``R[target[j], j]``."""
    return r[target, np.arange(r.shape[1])]


def mismatched_mean(r: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean correlation of every reconstruction with all ground truths but its own (NaN if none)."""
    others = len(r) - 1
    if others == 0:
        return np.full(r.shape[1], np.nan)
    mean: NDArray[np.float64] = (r.sum(axis=0) - own(r, target)) / others
    return mean
