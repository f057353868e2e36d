"""Voxelwise standardization. Statistics are float64; a voxel without variance becomes 0, never NaN."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Moments:
    """Mean and standard deviation (ddof 1) per voxel over blocks of rows that arrive one at a time.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1983), which stays exact to rounding for
    any number of blocks; memory is two float64 vectors plus one block.
    """

    def __init__(self, n_voxels: int) -> None:
        self.n = 0
        self._mean = np.zeros(n_voxels)
        self._squares = np.zeros(n_voxels)

    def add(self, block: NDArray[np.float32]) -> None:
        """Take in rows, shape (n_rows, n_voxels)."""
        if not len(block):
            return
        mean = block.mean(axis=0, dtype=np.float64)
        centred = block - mean
        shift = mean - self._mean
        total = self.n + len(block)
        self._squares += np.einsum("ij,ij->j", centred, centred) + shift**2 * (self.n * len(block) / total)
        self._mean += shift * (len(block) / total)
        self.n = total

    @property
    def mean(self) -> Floats:
        """Mean per voxel."""
        return self._mean

    @property
    def std(self) -> Floats:
        """Standard deviation per voxel; 0 with fewer than two rows.

        It is exactly 0 for a constant voxel: sums of equal float32 values are exact in float64.
        """
        return np.sqrt(self._squares / max(self.n - 1, 1))


def standardize(rows: NDArray[np.float32], mean: Floats, std: Floats) -> NDArray[np.float32]:
    """Return ``(rows - mean) / std`` per voxel, 0 where ``std`` is 0."""
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    return ((rows - mean) * inverse).astype(np.float32)


def zscore(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``rows`` standardized by their own mean and standard deviation (ddof 1)."""
    moments = Moments(rows.shape[1])
    moments.add(rows)
    return standardize(rows, moments.mean, moments.std)


def zscore_runs(rows: NDArray[np.float32], runs: Iterable[slice]) -> NDArray[np.float32]:
    """Return ``rows`` with every run standardized by itself, over all its rows.

    This is the NSD-Imagery preparation of the MindEye lineage, with zero-variance voxels set to exactly 0 instead
    of an epsilon of 1e-6 in the denominator (a relative difference below 1e-6).
    """
    normalized = np.empty_like(rows)
    for run in runs:
        normalized[run] = zscore(rows[run])
    return normalized
