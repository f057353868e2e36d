"""Standardized betas: statistics of the training rows, and when they apply to other rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsdbench.types import Trials

RUNWISE = "run_z"
"""``normalization`` of trials that were standardized within their own runs."""
COLUMNS = 1024
"""Voxels whose deviations are computed together: all of them would need the betas once more, in float64."""


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation per voxel.

    Attributes
    ----------
    mean, sd : float32 array of shape (v,)
        A voxel that does not vary has ``sd`` 1.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def of(cls, betas: NDArray[np.float32], *, ddof: int) -> Scaling:
        """Return the statistics of the rows of ``betas``, computed in float64."""
        mean, sd = np.empty((2, betas.shape[1]))
        for start in range(0, betas.shape[1], COLUMNS):
            some = slice(start, start + COLUMNS)
            mean[some] = betas[:, some].mean(axis=0, dtype=np.float64)
            sd[some] = betas[:, some].std(axis=0, ddof=ddof, dtype=np.float64)
        return cls(mean.astype(np.float32), np.where(sd > 0, sd, 1).astype(np.float32))

    def __call__(self, betas: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(betas - mean) / sd``."""
        return (betas - self.mean) / self.sd


def is_standardized(trials: Trials) -> bool:
    """Return whether the rows have been standardized by statistics of their own session.

    NSD-Imagery rows are, run by run, as the data are prepared by default; training statistics are those of other sessions
    and must not be applied on top.
    """
    return trials.provenance.get("normalization") == RUNWISE
