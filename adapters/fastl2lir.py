"""Ridge regression on the voxels that correlate best with each target: FastL2LiR, the decoder of iCNN.

Shen, Horikawa, Majima & Kamitani 2019, PLOS Computational Biology 15:e1006633; the formula is that of the PyFastL2LiR
package, version 0.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dposv
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from nsdbench.adapters.blocked import cholesky
from nsdbench.adapters.linear import check_betas, gram_matrix
from nsdbench.adapters.targets import Float, Matrix, Targets, as_targets
from nsdbench.errors import DataError
from nsdbench.types import Progress, Silent

FLAT = 1e-8  # a voxel whose variance is smaller is never preferred
N_VOXELS = 500
PENALTY = 100.0
STRIP = 64  # rows of a matrix that are moved at a time


@dataclass(frozen=True)
class UnitDecoders:
    """Sparse linear decoders, ``y = (x[:, voxels] @ weights + bias) * y_sd + y_mean`` for each unit.

    Attributes
    ----------
    voxels : int32 array of shape (n_units, k)
        Voxels of each unit, ascending.
    weights : float32 array of shape (n_units, k)
    bias, y_mean, y_sd : float32 arrays of shape (n_units,)
    n_voxels : int
        Columns that betas must have.
    """

    voxels: NDArray[np.int32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    y_mean: NDArray[np.float32]
    y_sd: NDArray[np.float32]
    n_voxels: int

    def __post_init__(self) -> None:
        n_units = len(self.voxels)
        lengths = {len(values) for values in (self.weights, self.bias, self.y_mean, self.y_sd)}
        if self.voxels.shape != self.weights.shape or lengths != {n_units}:
            raise DataError(f"decoders of {n_units} units have parts of {sorted(lengths)} units")
        if self.voxels.size and not 0 <= self.voxels.min() <= self.voxels.max() < self.n_voxels:
            raise DataError(f"decoders refer to voxels outside 0..{self.n_voxels - 1}")

    def predict(self, x: Float) -> NDArray[np.float32]:
        """Return predictions in the units of the targets, float32 of shape (m, n_units), for betas (m, n_voxels)."""
        check_betas(x, self.n_voxels)
        n_units, k = self.voxels.shape
        starts = np.arange(0, n_units * k + 1, k)
        sparse = csr_array(
            (self.weights.ravel(), self.voxels.ravel(), starts), shape=(n_units, self.n_voxels)
        )
        scores = (sparse @ np.asarray(x.T, np.float64)).T + self.bias
        return np.asarray(scores * self.y_sd + self.y_mean, np.float32)


def fit_units(
    x: Float,
    y: Targets | Matrix,
    *,
    penalty: float = PENALTY,
    n_selected: int = N_VOXELS,
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[UnitDecoders]:
    """Yield decoders block by block of targets; predict and drop each, or store it.

    With z-scored target y: keep the ``n_selected`` voxels with the largest |Pearson r| (0 for voxels of variance below
    1e-8; ties go to the lower index), ``X~ = [X_selected, 1]`` and ``w = (X~' X~ + penalty I)^-1 X~' y``. The identity
    covers the bias too, so the intercept is shrunk, as in the original. A constant target is predicted by its value,
    where the original returns NaN.

    ``X~' X~`` over all voxels and ``y' X~`` are formed once; a unit costs one gather and one Cholesky solve of its
    ``n_selected + 1`` equations.

    Parameters
    ----------
    x : array of shape (n, v)
        Training betas, z-scored by the caller (the original divides by the SD with ddof 1 over trials).
    y : Targets or matrix of shape (n, n_units)
        Each unit is z-scored with mean and SD (ddof 1) over the *rows of* ``y.values``: with ``rows`` given these are
        unique images, as in the original pipeline.
    penalty : float
        Default 100.
    n_selected : int
        Voxels per unit, default 500; at least v means all of them.
    workers : int
        Threads over units, default 1. The result does not depend on it.
    progress : Progress, optional

    Yields
    ------
    UnitDecoders
        Of at most ``y.width`` units, in the order of the targets.

    Raises
    ------
    DataError
        If shapes disagree, a value is not finite or the penalty is not positive.

    Notes
    -----
    Memory beside ``x`` (n x v): a copy of it with its ones, ``8 v^2`` and ``8 r v`` bytes for r rows of targets,
    ``8 w (4 r + 6 v)`` for a block of w units, 16,384 max(n, v) for slices and ``9 n_selected^2`` per worker.
    At n = 24,980, v = 15,724, r = 8,859, w = 1,024 in float32: 1.6 + 2.0 + 1.1 + 1.1 + 0.4 GB.
    """
    y = as_targets(y)
    if y.n_samples != len(x):
        raise DataError(f"targets serve {y.n_samples} training rows, the betas have {len(x)}")
    if y.n_rows < 2:
        raise DataError("targets need at least two rows to be z-scored")
    if not penalty > 0 or n_selected < 1 or workers < 1:
        raise DataError(
            "penalty, selected voxels and workers must be positive, "
            f"got {penalty:g}, {n_selected} and {workers}"
        )
    system = _share(x, y, penalty, n_selected)
    for block in (progress or Silent()).track(y.blocks(), "fitting units"):
        yield _fit_block(system, np.asarray(block, np.float64), workers)


@dataclass(frozen=True)
class _System:
    """What all units share; X~ is the betas with a column of ones appended, v + 1 columns."""

    # (v + 1, v + 1): X~' X~ + penalty I, symmetric; its lower Cholesky factor if all voxels are selected
    matrix: NDArray[np.float64]
    pooled: NDArray[np.float64]  # (r, v + 1): rows of X~ summed per row of the targets
    x_mean: NDArray[np.float64]  # (v,)
    x_sd: NDArray[np.float64]  # (v,), infinite for flat voxels
    n_samples: int
    n_selected: int


def _share(x: Float, y: Targets, penalty: float, n_selected: int) -> _System:
    check_betas(x)
    n, v = x.shape
    extended = np.concatenate([x, np.ones((n, 1), x.dtype)], axis=1)
    matrix = gram_matrix(extended, intercept=False, space="feature").matrix
    _mirror(matrix)
    mean = matrix[:v, v] / n
    variance = matrix.diagonal()[:v] / n - mean**2
    sd = np.where(variance < FLAT, np.inf, np.sqrt(np.maximum(variance, FLAT)))
    matrix[np.diag_indices(v + 1)] += penalty
    if n_selected >= v:
        _factor(matrix)
    return _System(matrix, y.pool(extended), mean, sd, n, min(n_selected, v))


def _factor(matrix: NDArray[np.float64]) -> None:
    try:
        cholesky(matrix)
    except np.linalg.LinAlgError:
        raise _not_definite() from None


def _not_definite() -> DataError:
    return DataError(
        "the selected voxels repeat each other beyond float64 precision", remedy="Use a larger penalty."
    )


def _mirror(matrix: NDArray[np.float64]) -> None:
    """Copy the lower triangle to the upper one in place."""
    n = len(matrix)
    for start in range(0, n, STRIP):
        rows = slice(start, start + STRIP)
        matrix[rows, start + STRIP :] = matrix[start + STRIP :, rows].T
        square = np.tril(matrix[rows, rows])
        matrix[rows, rows] = square + np.tril(square, -1).T


def _fit_block(system: _System, block: NDArray[np.float64], workers: int) -> UnitDecoders:
    mean, sd = block.mean(axis=0), block.std(axis=0, ddof=1)
    constant = (block == block[0]).all(axis=0)
    mean[constant], sd[constant] = block[0, constant], 1.0
    products = ((block - mean) * ~constant / sd).T @ system.pooled  # y' X~, shape (w, v + 1)
    voxels = _select(system, products)
    right = np.take_along_axis(products, voxels, axis=1)
    if system.n_selected == len(system.x_mean):
        solved = cho_solve((system.matrix, True), right.T, check_finite=False).T
    else:
        solved = _solve(system.matrix, voxels, right, workers)
    return UnitDecoders(
        voxels[:, :-1].astype(np.int32),
        solved[:, :-1].astype(np.float32),
        solved[:, -1].astype(np.float32),
        mean.astype(np.float32),
        sd.astype(np.float32),
        len(system.x_mean),
    )


def _select(system: _System, products: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the voxels with the largest |r| per unit, ascending, and the bias: shape (w, n_selected + 1)."""
    v, k = len(system.x_mean), system.n_selected
    if k == v:
        return np.broadcast_to(np.arange(v + 1), (len(products), v + 1))
    y_mean = products[:, v:] / system.n_samples
    # |r| but for the SD of the unit, which does not change the order
    relation = np.abs(products[:, :v] / system.n_samples - y_mean * system.x_mean) / system.x_sd
    least = np.partition(relation, v - k, axis=1)[:, v - k]
    chosen = np.full((len(products), k + 1), v)
    for unit, (row, bound) in enumerate(zip(relation, least, strict=True)):
        above = np.flatnonzero(row > bound)
        ties = np.flatnonzero(row == bound)[: k - len(above)]
        chosen[unit, :k] = np.sort(np.concatenate([above, ties]))
    return chosen


def _solve(
    matrix: NDArray[np.float64], voxels: NDArray[np.int64], right: NDArray[np.float64], workers: int
) -> NDArray[np.float64]:
    """Solve ``matrix[voxels_u, voxels_u] w = right_u`` for every unit u, shape as ``right``."""
    flat, size = matrix.ravel(order="K"), voxels.shape[1]
    solved = np.empty_like(right)

    def solve_units(units: NDArray[np.int64]) -> None:
        system = np.zeros((size, size))
        for unit in units:
            picked = voxels[unit]
            # Only the lower triangle is gathered, strip by strip: half the memory traffic of the whole.
            for start in range(0, size, STRIP):
                rows = picked[start : start + STRIP]
                columns = picked[: start + len(rows)]
                system[start : start + len(rows), : len(columns)] = flat.take(
                    rows[:, None] * len(matrix) + columns
                )
            _, solved[unit], info = dposv(system.T, right[unit], lower=0, overwrite_a=1)
            if info:
                raise _not_definite()

    # The systems are too small for threads inside BLAS to help.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(solve_units, np.array_split(np.arange(len(voxels)), workers)))
    return solved
