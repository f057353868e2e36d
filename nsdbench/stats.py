"""Statistics of benchmark scores: intervals over targets, permutation tests, rank agreement. NumPy only.

The unit of inference is the target. Samples of a target are averaged before anything here is called, subjects are
fixed, and the pool of ground truths a reconstruction is compared with stays the same in every resample.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_RESAMPLES = 10_000
EXACT_UP_TO = 8  # 8! = 40,320 arrangements are enumerated; above that, arrangements are drawn
TIE = 1e-9  # similarities closer than this count as equal
_BLOCK = 500  # resamples per matrix product: 4 MB of weights for 1,000 targets


@dataclass(frozen=True)
class Intervals:
    """Estimates with confidence limits, one entry per score matrix; limits are NaN where none exists."""

    estimate: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class RankAgreement:
    """Spearman rank correlation of ``n`` pairs with a two-sided permutation p."""

    rho: float
    p: float
    n: int
    exact: bool


@dataclass(frozen=True)
class PermutationTest:
    """Observed two-way score and the one-sided permutation p of reaching it without information."""

    observed: float
    p: float
    n_permutations: int
    exact: bool


def subject_means(scores: Floats) -> Floats:
    """Average targets within subjects, then subjects.

    Parameters
    ----------
    scores : float array of shape (..., n_subjects, n_targets)
        Sample-averaged scores; NaN where a subject lacks a target.

    Returns
    -------
    float array of shape (...)
    """
    present = ~np.isnan(scores)
    sums = np.where(present, scores, 0.0).sum(axis=-1)
    return _mean_present(sums, present.sum(axis=-1))


def _mean_present(sums: Floats, counts: NDArray[np.int64] | Floats) -> Floats:
    """Divide sums by counts and average the last axis over the subjects that have any target."""
    has = counts > 0
    means = np.divide(sums, counts, out=np.zeros(sums.shape), where=has)
    return np.asarray(means.sum(axis=-1) / has.sum(axis=-1), dtype=np.float64)


def bca(scores: Floats, *, level: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Intervals:
    """Bias-corrected and accelerated bootstrap interval of the subject mean, resampling targets jointly.

    The limits are the quantiles ``Phi(z0 + (z0 + z) / (1 - a (z0 + z)))`` of the bootstrap distribution with bias
    ``z0`` and jackknife acceleration ``a`` (Efron and Tibshirani 1993, chapter 14). Every resample draws the same
    targets for all subjects, which stay fixed: the claim is "these subjects, new targets".

    Parameters
    ----------
    scores : float array of shape (n_rows, n_subjects, n_targets)
        One matrix of sample-averaged scores per interval; NaN where a subject lacks a target.
    level : float
        Two-sided coverage. A one-sided 95 % bound is one of the limits at 0.90.
    n_resamples : int
        Bootstrap resamples.
    seed : int
        Seed; the draws depend on it and on the number of targets only.

    Returns
    -------
    Intervals
        Constant scores give limits equal to the estimate; a single target gives NaN limits.
    """
    scores = np.asarray(scores, dtype=np.float64)
    estimate = subject_means(scores)
    low, high = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    if scores.shape[2] >= 2:
        draws = _bootstrap_means(scores, n_resamples, seed)
        jackknife = _jackknife_means(scores)
        for row in range(len(scores)):
            if np.ptp(jackknife[row]) <= 1e-12 * max(1.0, abs(estimate[row])):
                low[row] = high[row] = estimate[row]
            else:
                low[row], high[row] = _bca_limits(draws[row], jackknife[row], estimate[row], level)
    return Intervals(estimate, low, high)


def _bootstrap_means(scores: Floats, n_resamples: int, seed: int) -> Floats:
    """Return the subject mean of every resample, shape (n_rows, n_resamples)."""
    n_rows, n_subjects, n_targets = scores.shape
    present = ~np.isnan(scores)
    values = np.where(present, scores, 0.0).reshape(-1, n_targets).T
    mask = None if present.all() else present.reshape(-1, n_targets).T.astype(np.float64)
    out = np.empty((n_rows, n_resamples))
    for start, weights in _resampling_weights(n_targets, n_resamples, seed):
        sums = (weights @ values).reshape(-1, n_rows, n_subjects)
        counts = (
            np.full(sums.shape, float(n_targets)) if mask is None else (weights @ mask).reshape(sums.shape)
        )
        out[:, start : start + len(weights)] = _mean_present(sums, counts).T
    return out


def _resampling_weights(n_targets: int, n_resamples: int, seed: int) -> Iterator[tuple[int, Floats]]:
    """Yield blocks of how often each target is drawn, shape (<= block, n_targets)."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, n_targets]))
    for start in range(0, n_resamples, _BLOCK):
        size = min(_BLOCK, n_resamples - start)
        drawn = rng.integers(n_targets, size=(size, n_targets)) + n_targets * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_targets)
        yield start, counts.reshape(size, n_targets).astype(np.float64)


def _jackknife_means(scores: Floats) -> Floats:
    """Return the subject mean without each target, shape (n_rows, n_targets)."""
    present = ~np.isnan(scores)
    values = np.where(present, scores, 0.0)
    sums = values.sum(axis=2, keepdims=True) - values
    counts = present.sum(axis=2, keepdims=True) - present
    return _mean_present(sums.transpose(0, 2, 1), counts.transpose(0, 2, 1))


def _bca_limits(draws: Floats, jackknife: Floats, estimate: float, level: float) -> tuple[float, float]:
    normal = NormalDist()
    # scores are often multiples of 1/11, so many resamples equal the estimate but for rounding; they count half
    rounding = 1e-9 * float(np.ptp(draws))
    below = (
        np.count_nonzero(draws < estimate - rounding) + np.count_nonzero(draws <= estimate + rounding)
    ) / (2 * len(draws))
    # an estimate outside all resamples has an infinite bias correction; one half resample keeps it finite
    z0 = normal.inv_cdf(min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws)))
    deviation = jackknife.mean() - jackknife
    acceleration = np.sum(deviation**3) / (6 * np.sum(deviation**2) ** 1.5)
    quantiles = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = z0 + normal.inv_cdf(tail)
        quantiles.append(normal.cdf(z0 + z / (1 - acceleration * z)))
    low, high = np.quantile(draws, quantiles)
    return float(low), float(high)


@functools.cache
def _arrangements(n: int) -> NDArray[np.int64]:
    """Return all permutations of ``range(n)``, shape (n!, n), identity first."""
    if n == 1:
        return np.zeros((1, 1), np.int64)
    shorter = _arrangements(n - 1) + 1
    blocks = []
    for first in range(n):
        rest = np.where(shorter <= first, shorter - 1, shorter)
        blocks.append(np.column_stack([np.full(len(rest), first), rest]))
    return np.concatenate(blocks)


def _permutations(n: int, n_draws: int, seed: int) -> tuple[NDArray[np.int64], bool]:
    """Return permutations of ``range(n)`` by row and whether they are all of them."""
    if n <= EXACT_UP_TO:
        return _arrangements(n), True
    rng = np.random.default_rng(np.random.SeedSequence([seed, n]))
    return rng.permuted(np.tile(np.arange(n), (n_draws, 1)), axis=1), False


def _p_value(permuted: Floats, observed: float, exact: bool) -> float:
    """Share of permutations that reach ``observed``; drawn ones count the observation itself.

    Phipson and Smyth 2010 (Stat. Appl. Genet. Mol. Biol. 9, 39): ``(1 + #) / (1 + B)`` is never zero.
    """
    reached = int(np.count_nonzero(permuted >= observed - 1e-12))
    return reached / len(permuted) if exact else (1 + reached) / (1 + len(permuted))


def average_ranks(values: Sequence[float] | Floats) -> Floats:
    """Return ranks 1 ... n, equal values sharing the mean of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def spearman(
    x: Sequence[float] | Floats, y: Sequence[float] | Floats, *, n_draws: int = N_RESAMPLES, seed: int = 0
) -> RankAgreement | None:
    """Spearman rank correlation with a two-sided permutation p, exact up to 8 pairs.

    Returns
    -------
    RankAgreement or None
        None when it is undefined: fewer than three pairs or a constant side.
    """
    a, b = average_ranks(x), average_ranks(y)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    observed = float(a @ b) / scale
    order, exact = _permutations(len(a), n_draws, seed)
    p = _p_value(np.abs(a[order] @ b) / scale, abs(observed), exact)
    return RankAgreement(rho=observed, p=p, n=len(a), exact=exact)


def two_way_quantiles(similarity: Floats) -> Floats:
    """Two-way score that each reconstruction would get with each ground truth as its target.

    ``Q[i, j] = (#{i' != i: R[i', j] < R[i, j]} + #{ties} / 2) / (N - 1)``, differences up to 1e-9 being ties.

    Parameters
    ----------
    similarity : float array of shape (n_targets, n_reconstructions)
        ``R``: rows are ground truths, columns reconstructions.

    Returns
    -------
    float array of shape (n_targets, n_reconstructions)
    """
    n = len(similarity)
    out = np.empty(similarity.shape)
    for j, column in enumerate(np.asarray(similarity, dtype=np.float64).T):
        ordered = np.sort(column)
        less = np.searchsorted(ordered, column - TIE, side="left")
        tied = np.searchsorted(ordered, column + TIE, side="right") - less - 1
        out[:, j] = (less + tied / 2) / (n - 1)
    return out


def label_permutation_test(
    similarity: Floats, target: NDArray[np.int64], *, n_draws: int = N_RESAMPLES, seed: int = 0
) -> PermutationTest:
    """Test mean two-way identification against chance by permuting the target labels.

    Comparisons share features, so they are not independent trials; exchanging whole target labels is valid. All
    samples of a target move together. The permutation mean is exactly 0.5.

    Parameters
    ----------
    similarity : float array of shape (n_targets, n_reconstructions)
        Rows are ground truths, columns reconstructions (several samples of a target are several columns).
    target : int array of shape (n_reconstructions,)
        Row of each column's true target.

    Returns
    -------
    PermutationTest
        Exact for up to 8 targets, otherwise from ``n_draws`` permutations.
    """
    n = len(similarity)
    quantiles = two_way_quantiles(similarity)
    # by_target[t, i]: mean score of target t's reconstructions if ground truth i were the target, over all columns
    by_target = np.zeros((n, n))
    np.add.at(by_target, target, quantiles.T / len(target))
    observed = float(np.trace(by_target))
    order, exact = _permutations(n, n_draws, seed)
    permuted = by_target[np.arange(n), order].sum(axis=1)
    return PermutationTest(observed, _p_value(permuted, observed, exact), len(order), exact)


def paired_differences(new: Floats, old: Floats, *, lower_is_better: bool = False) -> Floats:
    """Return ``new - old`` with the sign turned so that positive means better.

    Both are of shape (n_subjects, n_targets) in the same order; a pair with a missing side is NaN. Handing the
    result to :func:`bca` gives the paired interval, or the vision-imagery gap with joint resampling.
    """
    difference = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    return -difference if lower_is_better else difference
