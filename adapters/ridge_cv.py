"""The ridge penalty of each target by k-fold cross-validation, as himalaya's ``RidgeCV`` chooses it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.linear import factorize, gram_matrix
from nsdbench.adapters.targets import Float, Matrix, Targets, as_targets
from nsdbench.errors import DataError, UsageError
from nsdbench.types import Progress, Silent

TIE_SLOPE = 1e-10  # himalaya adds this times log(lambda) to the score, so that ties go to the larger penalty


def choose_penalties(
    x: Float,
    y: Targets | Matrix,
    penalties: Float,
    *,
    n_folds: int = 5,
    intercept: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the penalty with the smallest cross-validated error for each target, float64 of shape (n_targets,).

    ``argmin_lambda CV(lambda) - 1e-10 log(lambda)`` with CV of :func:`cross_validated_errors`. Use the result as the
    ``penalty`` of :func:`nsdbench.adapters.linear.predict_blocks`, which refits on all rows.

    Parameters
    ----------
    x : array of shape (n, v)
        Training betas.
    y : Targets or matrix of shape (n, n_targets)
    penalties : array of shape (n_penalties,)
        Candidates, all positive.
    n_folds : int
        Contiguous folds in the order of the rows, default 5. Repeats of one image may fall into different folds, as in
        the published pipeline.
    intercept : bool
        Default False, himalaya's default: neither betas nor targets are centred.
    progress : Progress, optional

    Raises
    ------
    DataError
        If shapes disagree, a value is not finite or a penalty is not positive.
    """
    errors = cross_validated_errors(x, y, penalties, n_folds=n_folds, intercept=intercept, progress=progress)
    candidates = np.asarray(penalties, np.float64)
    best = np.argmin(errors - TIE_SLOPE * np.log(candidates)[:, None], axis=0)
    return np.asarray(candidates[best])


def cross_validated_errors(
    x: Float,
    y: Targets | Matrix,
    penalties: Float,
    *,
    n_folds: int = 5,
    intercept: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the squared error of held-out rows per penalty and target, shape (n_penalties, n_targets).

    The mean over rows within a fold, then over folds. One eigendecomposition per fold serves all penalties and targets:
    ``P = A (B / (values + lambda))`` with ``A`` from the held-out and ``B`` from the other rows. Arguments as in
    :func:`choose_penalties`.

    Memory beside ``x`` (n x v), with d the smaller of n and v: a copy of the training rows, 24 d^2 bytes for the
    decomposition, ``16 (n / n_folds) (n + v)`` for the held-out rows, ``8 w (6 n + 3 v)`` for a block of w targets and
    16,384 max(n, v) for slices.
    """
    y = as_targets(y)
    candidates = np.asarray(penalties, np.float64)
    _check(x, y, candidates, n_folds)
    errors = np.zeros((len(candidates), y.n_targets))
    folds = np.array_split(np.arange(len(x)), n_folds)
    for held in (progress or Silent()).track(folds, "choosing penalties"):
        errors += _fold_errors(x, y, candidates, held, intercept)
    return errors / n_folds


def _fold_errors(
    x: Float, y: Targets, penalties: NDArray[np.float64], held: NDArray[np.int64], intercept: bool
) -> NDArray[np.float64]:
    """Return the mean squared error of the rows ``held``, shape (n_penalties, n_targets)."""
    others = np.delete(np.arange(len(x)), held)
    factors = factorize(gram_matrix(x[others], intercept=intercept))
    projected = factors.project(x[held])
    errors = np.empty((len(penalties), y.n_targets))
    start = 0
    for block in y.blocks():
        values = y.of_samples(block)
        train, truth = values[others], values[held]
        if intercept:
            mean = train.mean(axis=0)
            train, truth = train - mean, truth - mean
        rotated = factors.rotate(train)
        part = slice(start, start + block.shape[1])
        for i, penalty in enumerate(penalties):
            predicted = projected @ (rotated / (factors.values + penalty)[:, None])
            errors[i, part] = np.mean((truth - predicted) ** 2, axis=0)
        start = part.stop
    return errors


def _check(x: Float, y: Targets, penalties: NDArray[np.float64], n_folds: int) -> None:
    if y.n_samples != len(x):
        raise DataError(f"targets serve {y.n_samples} training rows, the betas have {len(x)}")
    if penalties.ndim != 1 or not len(penalties) or not (penalties > 0).all():
        raise DataError("ridge penalties must be a list of positive numbers")
    if not 2 <= n_folds <= len(x) // 2:
        raise UsageError(f"{n_folds} folds of {len(x)} rows: use between 2 and {len(x) // 2}")
