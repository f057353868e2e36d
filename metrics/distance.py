"""Correlation distances between network features; lower is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nsdbench.metrics.correlation import mismatched_mean, own
from nsdbench.metrics.metric import ByCorrelation, Features

EFFNET = ByCorrelation(Features("effnet", ("avgpool",)), "distance")
SWAV = ByCorrelation(Features("swav", ("avgpool",)), "distance")
MINI_EFFNET = ByCorrelation(Features("mini_effnet", ("avgpool",)), "distance")
MINI_SWAV = ByCorrelation(Features("mini_swav", ("avgpool",)), "distance")


def correlation_distance(r: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``1 - R[target[j], j]`` for every reconstruction j; 1 where the correlation is undefined.

    Parameters
    ----------
    r : float64 array of shape (n_truth, m)
        Correlations, NaN where undefined.
    target : int array of shape (m,)
        Row of the ground truth of every column.
    """
    return 1.0 - np.nan_to_num(own(r, target), nan=0.0)


def mismatched_distance(r: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean distance of every reconstruction to all ground truths but its own (NaN if none)."""
    return 1.0 - mismatched_mean(np.nan_to_num(r, nan=0.0), target)
