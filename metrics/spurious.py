"""Numbers that tell a reconstruction from a guess: what categories, retrieval or a collapsed output would score.

The questions are those of Shirakawa et al. 2024 ("Spurious reconstruction from brain activity", arXiv 2405.10078). In
all functions, ``r`` holds similarities with ground truths or training images in rows and reconstructions in columns,
and NaN (a constant feature vector) counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsdbench.metrics.correlation import mismatched_mean, own
from nsdbench.metrics.identification import TIE

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

TARGETS_PER_CLUSTER = 25
"""40 clusters for 1,000 images, as in the publication."""
_FLAT = 1e-5  # deviation from the mean relative to its norm: about a hundred float32 roundings
_SEED = 0


def n_clusters(n_images: int) -> int:
    """Return the number of clusters for so many images: 40 for 1,000, in proportion for fewer, at least 2."""
    return max(2, round(n_images / TARGETS_PER_CLUSTER))


def clusters(features: NDArray[np.float32], k: int) -> tuple[Rows, ...]:
    """Return the rows of each of ``k`` clusters of images, the largest cluster first.

    k-means on feature vectors without their mean and scaled to norm 1, so that distances are ordered as correlations
    are; ten starts, fixed seed.

    Parameters
    ----------
    features : float32 array of shape (n, ...)
        ``n >= k``; trailing axes are flattened.
    """
    from sklearn.cluster import KMeans

    flat = features.reshape(len(features), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(float).tiny)
    label = KMeans(n_clusters=k, n_init=10, random_state=_SEED).fit(flat).labels_
    groups = (np.flatnonzero(label == one).astype(np.int64) for one in range(k))
    return tuple(sorted((rows for rows in groups if len(rows)), key=lambda rows: (-len(rows), rows[0])))


def group_sizes(n: int, groups: Sequence[Rows]) -> NDArray[np.int64]:
    """Return how many members the group of each of ``n`` images has; ``groups`` cover all of them."""
    sizes = np.zeros(n, np.int64)
    for rows in groups:
        sizes[rows] = len(rows)
    return sizes


def two_way_between(all_: Floats, within: Floats, size: NDArray[np.int64], n: int) -> Floats:
    """Return two-way identification with distractors of other groups only.

    It follows from the scores among all and within groups: a score times its number of distractors is a number of
    wins, and wins add up. NaN where there is no other group.

    Parameters
    ----------
    all_, within : float64 arrays of shape (m,)
        Scores among all ``n`` ground truths, and from :func:`nsdbench.metrics.identification.two_way_within`.
    size : int array of shape (m,)
        Members of the group of each target.
    n : int
        Ground truths in the pool.
    """
    wins = all_ * (n - 1) - np.where(size > 1, within, 0.0) * (size - 1)
    between: Floats = np.divide(wins, n - size, out=np.full(len(wins), np.nan), where=size < n)
    return between


def category_two_way(size: NDArray[np.int64], n: int, between: float | Floats = 1.0) -> Floats:
    """Return the two-way score of a decoder that knows the group of each target and nothing else.

    ``((s - 1) / 2 + (n - s) q) / (n - 1)`` for a group of ``s``: distractors of the same group are beaten half of the
    time, others at the rate ``q``. With twelve targets in two groups of six and q = 1 that is 8.5/11 = .773.
    For an infinite pool with k equal groups it becomes :func:`equal_categories_two_way`.

    Parameters
    ----------
    size : int array of shape (m,)
        Members of the group of each target.
    n : int
        Ground truths in the pool.
    between : float or float64 array of shape (m,)
        The rate q.
    """
    rate = np.where(size < n, between, 0.0)
    return np.asarray(((size - 1) / 2 + (n - size) * rate) / (n - 1), np.float64)


def equal_categories_two_way(k: int, q: float = 1.0) -> float:
    """Return ``0.5/k + (1 - 1/k) q``: k equally likely categories, told apart at the rate q, chance within them.

    Shirakawa et al. 2024; ten categories told apart without error give .95.
    """
    return 0.5 / k + (1 - 1 / k) * q


@dataclass(frozen=True)
class AgainstTraining:
    """How the training images compare with the target of each reconstruction; arrays of shape (m,).

    Attributes
    ----------
    nearest : int array
        Row of the training image most like the reconstruction, the first one where several are equal.
    beaten : float64 array
        Share of training images that are less like the reconstruction than its target is, ties counting half: the
        percentile of the target among target and training images. Chance is 0.5 if targets are like training images.
    mismatched : float64 array
        The same for the other ground truths of the pool, averaged: what a target gets that has nothing to do with the
        reconstruction. Unlike 0.5, it stays right where targets and training images differ in kind. NaN without others.
    first : float64 array
        1 where the target is more like the reconstruction than every training image, else 0; a tie is a 0. By chance
        ``1 / (1 + n_train)``.
    """

    nearest: Rows
    beaten: Floats
    mismatched: Floats
    first: Floats


def against_training(r: Floats, target: Rows, r_train: Floats) -> AgainstTraining:
    """Compare reconstructions with training images.

    Parameters
    ----------
    r : float64 array of shape (n, m)
        Similarities with the ground truths.
    target : int array of shape (m,)
        Row of the ground truth of every column.
    r_train : float64 array of shape (n_train, m)
        Similarities with the training images.
    """
    truth, train = np.nan_to_num(r, nan=0.0), np.nan_to_num(r_train, nan=0.0)
    ordered = np.sort(train, axis=0)
    shares = np.empty(truth.shape)
    for column, rivals in enumerate(ordered.T):
        below = np.searchsorted(rivals, truth[:, column] - TIE, side="left")
        not_above = np.searchsorted(rivals, truth[:, column] + TIE, side="right")
        shares[:, column] = (below + not_above) / (2 * len(rivals))
    own_r, beaten = own(truth, target), own(shares, target)
    return AgainstTraining(
        nearest=train.argmax(axis=0).astype(np.int64),
        beaten=beaten,
        mismatched=mismatched_mean(shares, target),
        first=(own_r - ordered[-1] > TIE).astype(np.float64),
    )


def centred_gram(features: NDArray[np.float32]) -> Floats:
    """Return the inner products of feature vectors after their mean was taken away; all 0 where they are equal.

    Vectors whose deviations from the mean are rounding errors are taken to be equal.

    Parameters
    ----------
    features : float32 array of shape (n, ...)
    """
    flat = features.reshape(len(features), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    flat -= mean
    gram: Floats = flat @ flat.T
    if np.trace(gram) <= len(flat) * _FLAT**2 * float(mean @ mean):
        return np.zeros_like(gram)
    return gram


def participation_ratio(gram: Floats) -> float:
    """Return the effective number of dimensions, ``(sum of eigenvalues)^2 / sum of squared eigenvalues``.

    1 where everything varies along one line, at most ``n - 1`` for n vectors, and 0 where nothing varies. The
    eigenvalues of a covariance are those of :func:`centred_gram` up to a factor, which cancels.
    """
    return float(_ratio(np.trace(gram), np.sum(gram**2))[0])


def participation_without_each(gram: Floats) -> Floats:
    """Return the participation ratio of all vectors but one, for each one; shape (n,).

    Without vector i, at x from the mean, the scatter loses ``n/(n-1) x x'``; trace and squared norm follow.
    """
    n = len(gram)
    factor, own = n / (n - 1), np.diag(gram)
    trace = np.trace(gram) - factor * own
    square = np.sum(gram**2) - 2 * factor * np.sum(gram**2, axis=1) + factor**2 * own**2
    return _ratio(trace, square)


def jackknife_interval(value: float, without_each: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return limits of a positive quantity from its values without each of the n targets.

    The jackknife standard error of its logarithm, ``sqrt((n - 1)/n sum (log v_i - mean)^2)``, times Student's t with
    n - 1 degrees of freedom (Efron and Tibshirani 1993, chapter 11). For what is no mean over targets. Both limits are
    NaN where a value is 0.
    """
    from scipy.special import stdtrit

    n = len(without_each)
    if value <= 0 or np.any(without_each <= 0):
        return float("nan"), float("nan")
    error = np.sqrt((n - 1) * np.var(np.log(without_each)))
    reach = float(np.exp(stdtrit(n - 1, (1 + level) / 2) * error))
    return value / reach, value * reach


def between_share(features: NDArray[np.float32]) -> float:
    """Return which part of the variance of samples is between targets: the intraclass correlation.

    ``(B - W) / (B + (S - 1) W)`` with the mean squares B between and W within targets, summed over features. 1 where
    all samples of a target are equal; 0 in expectation where a sample has nothing to do with its target; it can be
    negative.

    Parameters
    ----------
    features : float32 array of shape (n_targets, n_samples, ...)
        At least two of each.

    Returns
    -------
    float
        NaN where nothing varies.
    """
    n, s = features.shape[:2]
    flat = features.reshape(n, s, -1).astype(np.float64)
    means = flat.mean(axis=1)
    between = s * float(np.sum((means - means.mean(axis=0)) ** 2)) / (n - 1)
    within = float(np.sum((flat - means[:, None]) ** 2)) / (n * (s - 1))
    total = between + (s - 1) * within
    return (between - within) / total if total > 0 else float("nan")


def _ratio(trace: float | Floats, square: float | Floats) -> Floats:
    trace, square = np.atleast_1d(trace), np.atleast_1d(square)
    return np.divide(trace**2, square, out=np.zeros(len(trace)), where=square > 1e-12 * trace**2)


def span_share(training: NDArray[np.floating], vectors: NDArray[np.floating]) -> float:
    """Return the share of the variance of ``vectors`` that lies in the span of training features.

    The span is that of the deviations of training features from their mean; predictions of a linear decoder with an
    intercept vary inside it and nowhere else, which gives 1. So does anything where training features fill the space.

    Parameters
    ----------
    training : float array of shape (n, ...)
    vectors : float array of shape (m, ...)
        Trailing axes as in ``training``.

    Returns
    -------
    float
        NaN where all vectors are equal.
    """
    basis = training.reshape(len(training), -1).astype(np.float64)
    basis -= basis.mean(axis=0)
    deviation = vectors.reshape(len(vectors), -1).astype(np.float64)
    deviation -= deviation.mean(axis=0)
    total = float(np.sum(deviation**2))
    if total == 0:
        return float("nan")
    values, directions = np.linalg.eigh(basis @ basis.T)
    kept = values > len(basis) * np.finfo(np.float32).eps ** 2 * values[-1]  # the rest is float32 rounding
    inside = (deviation @ basis.T) @ directions[:, kept] / np.sqrt(values[kept])
    return min(1.0, float(np.sum(inside**2)) / total)
