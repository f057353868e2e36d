"""Ridge regression for very many targets from one Gram matrix.

Predictions of ridge regression are linear in the targets, ``P = S Y``, and the smoother ``S`` depends on the betas and
the penalty alone. So one Gram matrix, one Cholesky factor per penalty and one (m x n) smoother per set of query rows
serve every target of every feature space; targets pass by in blocks and weights are never formed unless asked for.

Memory, with n training rows, v voxels, d = min(n, v), m query rows, r rows of targets and blocks of w targets: the
betas as given (4 n v bytes in float32) and at most ``16 d^2 + 8 m (3 n + v) + 33 r w + 16,384 max(n, v)`` bytes, the
Gram matrix and one factor of it first; several penalties keep one smoother of 8 m r each. At n = 27,000, v = 15,724,
m = 1,000, r = 8,859, w = 1,024 these are 1.7 and 5.5 GB, whatever the number of targets. The weights for 310,000
targets would take 19.5 GB, the targets themselves 11 GB in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, eigh

from nsdbench.adapters.blocked import add_gram, cholesky
from nsdbench.adapters.targets import Float, Matrix, Targets, as_targets
from nsdbench.errors import DataError, UsageError
from nsdbench.types import Progress, Silent

Space = Literal["sample", "feature"]
Penalty = float | Float
SLICE = 1024  # rows or columns of the betas that are float64 at a time


@dataclass(frozen=True)
class RidgeModel:
    """A fitted ridge regression, ``y = (x - x_mean) @ coef + y_mean``.

    Attributes
    ----------
    coef : float32 array of shape (n_features, n_targets)
    x_mean : float32 array of shape (n_features,)
    y_mean : float32 array of shape (n_targets,)
    penalty : float, or float64 array of shape (n_targets,)
        The lambda of every target.
    """

    coef: NDArray[np.float32]
    x_mean: NDArray[np.float32]
    y_mean: NDArray[np.float32]
    penalty: Penalty

    def __post_init__(self) -> None:
        if self.coef.shape != (len(self.x_mean), len(self.y_mean)):
            raise DataError(
                f"ridge weights are {self.coef.shape}, their means {len(self.x_mean)} and {len(self.y_mean)}"
            )

    def predict(self, x: Float) -> NDArray[np.float32]:
        """Return predictions, float32 of shape (n, n_targets), for ``x`` of shape (n, n_features)."""
        check_betas(x, len(self.x_mean))
        centred = np.asarray(x, np.float32) - self.x_mean
        return np.asarray(centred @ self.coef + self.y_mean, np.float32)


@dataclass(frozen=True)
class Gram:
    """Inner products of the training rows, all that targets and penalties share.

    Attributes
    ----------
    x : float array of shape (n, v)
        Training betas, as given: they are centred slice by slice when used.
    x_mean : float64 array of shape (v,)
        Column means, or zeros without intercept.
    matrix : float64 array of shape (d, d)
        ``Xc Xc'`` in sample space (d = n), ``Xc' Xc`` in feature space (d = v). Only the lower triangle is filled.
    space : {"sample", "feature"}
    intercept : bool
        Whether the model has an intercept, which is not penalized.
    """

    x: Float
    x_mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    space: Space
    intercept: bool

    def __post_init__(self) -> None:
        d = self.x.shape[0 if self.space == "sample" else 1]
        if self.matrix.shape != (d, d) or self.x_mean.shape != self.x.shape[1:]:
            raise DataError(
                f"a Gram matrix {self.matrix.shape} in {self.space} space does not belong to betas {self.x.shape}"
            )

    def centred(self, x: Float) -> NDArray[np.float64]:
        """Return ``x - x_mean`` in float64 after checking that ``x`` is (m, v) and finite."""
        check_betas(x, self.x.shape[1])
        return np.asarray(x - self.x_mean, np.float64)

    def times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``left @ Xc'``, shape (m, n), for ``left`` of shape (m, v)."""
        product = np.empty((len(left), len(self.x)))
        for rows, centred in _centred_rows(self.x, self.x_mean):
            np.matmul(left, centred.T, out=product[:, rows])
        return product

    def transposed_times(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``Xc' @ right``, shape (v, w), for ``right`` of shape (n, w)."""
        product = np.zeros((self.x.shape[1], right.shape[1]))
        for rows, centred in _centred_rows(self.x, self.x_mean):
            product += centred.T @ right[rows]
        return product

    def factor(self, penalty: float) -> tuple[NDArray[np.float64], bool]:
        """Return the Cholesky factor of ``matrix + penalty I`` for :func:`scipy.linalg.cho_solve`."""
        if not penalty > 0:
            raise DataError(f"ridge penalties must be positive, got {penalty}")
        shifted = self.matrix.copy(order="F")
        shifted[np.diag_indices_from(shifted)] += penalty
        try:
            cholesky(shifted)
        except np.linalg.LinAlgError:
            raise DataError(
                f"the Gram matrix plus {penalty:g} is not positive definite in float64",
                remedy="Rows or voxels repeat each other; use a larger penalty.",
            ) from None
        return shifted, True


def gram_matrix(x: Float, *, intercept: bool = True, space: Literal["auto"] | Space = "auto") -> Gram:
    """Return the Gram matrix of ``x``, accumulated in float64 over slices.

    Parameters
    ----------
    x : array or memmap of shape (n, v)
        Training betas, float32 or float64.
    intercept : bool
        Centre the columns, which is what an unpenalized intercept amounts to. Default True, as in scikit-learn's
        ``Ridge``; himalaya's default is False. For a *penalized* intercept append a column of ones and pass False.
    space : {"auto", "sample", "feature"}
        Which products to form; "auto", the default, takes the smaller matrix. Predictions agree up to rounding.

    Raises
    ------
    DataError
        If ``x`` is not a finite real matrix with at least two rows and one column.
    """
    x = np.asarray(x)
    check_betas(x)
    if len(x) < 2 or x.shape[1] < 1:
        raise DataError(f"ridge needs at least two rows and one voxel, got {x.shape}")
    n, v = x.shape
    mean = x.mean(axis=0, dtype=np.float64) if intercept else np.zeros(v)
    if space == "auto":
        space = "sample" if n <= v else "feature"
    d = n if space == "sample" else v
    matrix = np.zeros((d, d), order="F")
    if space == "sample":
        for columns in _slices(v):
            add_gram(matrix, (x[:, columns] - mean[columns]).T)
    else:
        for _, centred in _centred_rows(x, mean):
            add_gram(matrix, centred)
    return Gram(x, mean, matrix, space, intercept)


def smoother(gram: Gram, x: Float, penalty: float) -> NDArray[np.float64]:
    """Return S with ridge predictions ``P = S Y`` for the rows of ``x``.

    ``S = Xq Xc' (Xc Xc' + lambda I)^-1 = Xq (Xc' Xc + lambda I)^-1 Xc'``; the two forms are equal (Henderson & Searle
    1981, SIAM Review 23:53). With an intercept ``(1 - S 1) 1' / n`` is added: rows sum to one and carry the means along.

    Parameters
    ----------
    gram : Gram
    x : array of shape (m, v)
        Query betas, prepared as the training betas were.
    penalty : float
        lambda, positive.

    Returns
    -------
    float64 array of shape (m, n)
    """
    return _smooth(gram, _left(gram, x), penalty)


def _left(gram: Gram, x: Float) -> NDArray[np.float64]:
    """Return what stands left of the inverse in the smoother, the same for every penalty."""
    query = gram.centred(x)
    return gram.times(query) if gram.space == "sample" else query


def _smooth(gram: Gram, left: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    solved = cho_solve(gram.factor(penalty), left.T, check_finite=False).T
    weights = solved if gram.space == "sample" else gram.times(solved)
    if gram.intercept:
        weights += (1.0 - weights.sum(axis=1, keepdims=True)) / weights.shape[1]
    return weights


def predict_blocks(
    gram: Gram, x: Float, y: Targets | Matrix, penalty: Penalty, progress: Progress | None = None
) -> Iterator[Float]:
    """Yield ridge predictions for ``x`` block by block of targets, without weights.

    Parameters
    ----------
    gram : Gram
    x : array of shape (m, v)
        Query betas, prepared as the training betas were.
    y : Targets or matrix of shape (n, n_targets)
    penalty : float, or array of shape (n_targets,)
        One lambda for all targets or one for each.
    progress : Progress, optional

    Yields
    ------
    array of shape (m, at most ``y.width``)
        Accumulated in float64; float64 for float64 targets, else float32.

    Raises
    ------
    DataError
        If shapes disagree, a value is not finite or a penalty is not positive.
    """
    y = _matching(gram, y)
    penalties = _penalties(penalty, y)
    left = _left(gram, x)
    smoothers = {a: y.pool(_smooth(gram, left, a).T).T for a in np.unique(penalties).tolist()}
    start = 0
    memory = np.empty((y.n_rows, min(y.width, y.n_targets)))
    for block in (progress or Silent()).track(y.blocks(), "predicting features"):
        wide = memory[:, : block.shape[1]]
        wide[:] = block
        chosen = penalties[start : start + wide.shape[1]]
        result = np.empty((len(left), wide.shape[1]), np.promote_types(block.dtype, np.float32))
        for a in np.unique(chosen).tolist():
            columns = slice(None) if (chosen == a).all() else chosen == a
            result[:, columns] = smoothers[a] @ wide[:, columns]
        yield result
        start += wide.shape[1]


def predict(
    gram: Gram, x: Float, y: Targets | Matrix, penalty: Penalty, progress: Progress | None = None
) -> Float:
    """Return the blocks of :func:`predict_blocks` side by side, shape (m, n_targets)."""
    y = as_targets(y)
    dtype = np.result_type(np.float32, *(matrix.dtype for matrix in y.matrices))
    found = np.empty((len(x), y.n_targets), dtype)
    start = 0
    for block in predict_blocks(gram, x, y, penalty, progress):
        found[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return found


def fit_weights(gram: Gram, y: Targets | Matrix, penalty: Penalty) -> RidgeModel:
    """Return the ridge model with explicit weights, for outputs small enough to store (4 v n_targets bytes).

    ``coef = Xc' (Xc Xc' + lambda I)^-1 Yc = (Xc' Xc + lambda I)^-1 Xc' Yc``. Arguments as in
    :func:`predict_blocks`. Keeps one factor, 8 d^2 bytes, per distinct penalty.
    """
    y = _matching(gram, y)
    penalties = _penalties(penalty, y)
    factors = {a: gram.factor(a) for a in np.unique(penalties).tolist()}
    coef = np.empty((gram.x.shape[1], y.n_targets), np.float32)
    mean = np.zeros(y.n_targets)
    start = 0
    for block in y.blocks():
        part = slice(start, start + block.shape[1])
        wide = y.of_samples(block)
        if gram.intercept:
            mean[part] = wide.mean(axis=0)
            wide = wide - mean[part]
        right = wide if gram.space == "sample" else gram.transposed_times(wide)
        solved = np.empty_like(right)
        for a in np.unique(penalties[part]).tolist():
            columns = penalties[part] == a
            solved[:, columns] = cho_solve(factors[a], right[:, columns], check_finite=False)
        coef[:, part] = gram.transposed_times(solved) if gram.space == "sample" else solved
        start = part.stop
    return RidgeModel(coef, gram.x_mean.astype(np.float32), mean.astype(np.float32), penalty)


@dataclass(frozen=True)
class Factorization:
    """Eigendecomposition ``matrix = vectors diag(values) vectors'`` of a Gram matrix: all penalties at once.

    About 15 times the work of one Cholesky factor, so it pays for choosing penalties, not for using one.
    """

    gram: Gram
    values: NDArray[np.float64]  # (d,), not negative
    vectors: NDArray[np.float64]  # (d, d)

    def project(self, x: Float) -> NDArray[np.float64]:
        """Return A (m, d) such that centred predictions are ``A (rotate(Yc) / (values + lambda))``."""
        query = self.gram.centred(x)
        return (self.gram.times(query) if self.gram.space == "sample" else query) @ self.vectors

    def rotate(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``vectors' Y`` or ``vectors' Xc' Y``, shape (d, w), for ``y`` of shape (n, w)."""
        return self.vectors.T @ (y if self.gram.space == "sample" else self.gram.transposed_times(y))


def factorize(gram: Gram) -> Factorization:
    """Decompose a Gram matrix in float64; memory 24 d^2 bytes beside ``gram``."""
    values, vectors = eigh(gram.matrix, lower=True, driver="evr", check_finite=False)
    return Factorization(gram, np.maximum(values, 0.0), vectors)


def loo_errors(factors: Factorization, y: Float, penalties: Float) -> NDArray[np.float64]:
    """Return the mean squared leave-one-out error of each penalty, shape (n_penalties,).

    Closed form: with hat matrix ``H = K (K + lambda I)^-1 + 11'/n`` on centred data the left-out residual of row i
    is ``(y - H y)_i / (1 - H_ii)`` (Golub, Heath & Wahba 1979, Technometrics 21:215, for the ridge case).
    """
    gram, n = factors.gram, len(y)
    constant = 1.0 / n if gram.intercept else 0.0
    yc = np.asarray(y - y.mean(axis=0, dtype=np.float64) if gram.intercept else y, np.float64)
    rotated = factors.rotate(yc)
    # In sample space I - H is formed directly, since 1 - H_ii would cancel for small penalties.
    basis = factors.vectors if gram.space == "sample" else factors.project(gram.x)
    squared = basis**2
    errors = np.empty(len(penalties))
    for i, penalty in enumerate(penalties):
        shrink = 1.0 / (factors.values + penalty)
        if gram.space == "sample":
            residual = penalty * (basis @ (shrink[:, None] * rotated))
            remainder = penalty * (squared @ shrink) - constant
        else:
            residual = yc - basis @ (shrink[:, None] * rotated)
            remainder = 1.0 - squared @ shrink - constant
        errors[i] = np.mean((residual / remainder[:, None]) ** 2)
    return errors


def fit_ridge(x: Float, y: Float, penalties: Float, *, select_on: Float | None = None) -> RidgeModel:
    """Fit ``min |y - xb|^2 + lambda |b|^2`` with the penalty that has the smallest leave-one-out error.

    Parameters
    ----------
    x : array of shape (n_samples, n_features)
    y : array of shape (n_samples, n_targets)
    penalties : array of shape (n_penalties,)
        Candidates for lambda, all positive.
    select_on : array of shape (n_samples, n_selection), optional
        Targets on which the penalty is chosen; default ``y``. A coarse version of ``y`` makes selection cheap.

    Returns
    -------
    RidgeModel

    Raises
    ------
    DataError
        If there are fewer than three samples or a penalty is not positive.
    """
    if len(x) < 3 or len(x) != len(y):
        raise DataError(f"ridge needs at least three samples and equal lengths, got {len(x)} and {len(y)}")
    if np.min(penalties) <= 0:
        raise DataError("ridge penalties must be positive")
    gram = gram_matrix(x)
    errors = loo_errors(factorize(gram), y if select_on is None else select_on, penalties)
    return fit_weights(gram, y, float(penalties[int(np.argmin(errors))]))


def check_betas(x: Float, n_voxels: int | None = None) -> None:
    """Raise DataError unless ``x`` is a finite floating-point matrix, with ``n_voxels`` columns if given."""
    if x.ndim != 2 or x.dtype.kind != "f":
        raise DataError(f"betas must be floating point (n_rows, n_voxels), got {x.dtype} {x.shape}")
    if n_voxels is not None and x.shape[1] != n_voxels:
        raise DataError(f"the decoder was fitted on {n_voxels} voxels, these betas have {x.shape[1]}")
    for rows in _slices(len(x)):
        finite = np.isfinite(x[rows])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise DataError(
                f"betas hold {x[rows][row, column]} in row {rows.start + row}, voxel {column}",
                remedy="Drop voxels without data before the fit.",
            )


def _centred_rows(x: Float, mean: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield slices of rows and ``x - mean`` there, in float64 memory that the next slice takes over."""
    memory = np.empty((min(SLICE, len(x)), x.shape[1]))
    for rows in _slices(len(x)):
        yield rows, np.subtract(x[rows], mean, out=memory[: rows.stop - rows.start])


def _slices(n: int) -> Iterator[slice]:
    """Cut 0..n into slices of at most SLICE."""
    for start in range(0, n, SLICE):
        yield slice(start, min(start + SLICE, n))


def _matching(gram: Gram, y: Targets | Matrix) -> Targets:
    y = as_targets(y)
    if y.n_samples != len(gram.x):
        raise DataError(f"targets serve {y.n_samples} training rows, the betas have {len(gram.x)}")
    return y


def _penalties(penalty: Penalty, y: Targets) -> NDArray[np.float64]:
    """Return one penalty per target."""
    given = np.asarray(penalty, np.float64)
    if given.ndim and given.shape != (y.n_targets,):
        raise UsageError(f"penalties have shape {given.shape}, expected one or ({y.n_targets},)")
    return np.broadcast_to(given, (y.n_targets,))
