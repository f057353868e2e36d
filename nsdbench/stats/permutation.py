"""Permutation tests: scores against chance, one model against another, several metrics at once, several subjects.

Every test keeps its statistic under all arrangements (:class:`Arranged`), so that one set of arrangements serves the
single p-values, the correction for several metrics, and the prevalence over subjects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsdbench.stats.arrangements import Floats, p_values, permutations, sign_patterns
from nsdbench.stats.intervals import N_RESAMPLES, target_shares

LISTED_IN_GROUPS = 1_000_000  # within the two sets of six targets there are 6! * 6! = 518,400 permutations
TIE = 1e-9  # similarities closer than this count as equal


@dataclass(frozen=True)
class Arranged:
    """A statistic as observed and under rearrangement, one row per metric.

    Attributes
    ----------
    observed : float array of shape (n_rows,)
    draws : float array of shape (n_rows, n_arrangements)
        All rows are rearranged alike.
    exact : bool
        Whether the arrangements are all there are.
    """

    observed: Floats
    draws: Floats
    exact: bool

    def p(self) -> Floats:
        """Return the one-sided p of each row: how often chance alone gives as much."""
        return p_values(self.draws, self.observed, exact=self.exact)

    def p_two_sided(self) -> Floats:
        """Return the two-sided p of each row, for statistics whose mean without an effect is zero."""
        return p_values(np.abs(self.draws), np.abs(self.observed), exact=self.exact)

    def p_family(self, *, two_sided: bool = False) -> Floats:
        """Return p-values corrected for all rows together by the distribution of their maximum.

        Rows are standardized by mean and spread over the arrangements, so that each weighs the same; a row that never
        varies gets 1. The family-wise error is controlled whatever the dependence of the rows (Nichols and Holmes
        2002, Hum. Brain Mapp. 15, 1-25).
        """
        mean, spread = self.draws.mean(axis=1, keepdims=True), self.draws.std(axis=1, keepdims=True)
        varies = spread[:, 0] > TIE
        spread = np.where(spread > TIE, spread, np.inf)
        draws, observed = (self.draws - mean) / spread, (self.observed - mean[:, 0]) / spread[:, 0]
        if two_sided:
            draws, observed = np.abs(draws), np.abs(observed)
        if not varies.any():
            return np.ones(len(observed))
        most = np.broadcast_to(draws[varies].max(axis=0), draws.shape)
        return np.where(varies, p_values(most, observed, exact=self.exact), 1.0)


@dataclass(frozen=True)
class Prevalence:
    """In how many people an effect is, judged from a few of them.

    Attributes
    ----------
    p_global : float
        p of the hypothesis that no subject has the effect.
    bound : float or None
        The share of the population in which the effect is at least, at the level asked for; None if not even one
        subject can be claimed.
    highest : float
        The greatest bound that so many subjects and arrangements could give.
    n_subjects : int
    """

    p_global: float
    bound: float | None
    highest: float
    n_subjects: int


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
        NaN for a single target, which has nothing to be confused with.
    """
    n = len(similarity)
    out = np.full(similarity.shape, np.nan)
    if n < 2:
        return out
    columns = np.asarray(similarity, dtype=np.float64).T
    for j, (column, order) in enumerate(zip(columns, np.argsort(columns, axis=1), strict=True)):
        ordered = column[order]  # searching in order is several times as fast
        less = np.searchsorted(ordered, ordered - TIE, side="left")
        tied = np.searchsorted(ordered, ordered + TIE, side="right") - less - 1
        out[order, j] = (less + tied / 2) / (n - 1)
    return out


def label_permutations(
    tables: Floats,
    groups: Sequence[Sequence[int]] | None = None,
    *,
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
    subject: int = 0,
    listed: bool = True,
) -> Arranged:
    """Exchange whole target labels of one subject: the mean score with true and with permuted targets.

    The comparisons behind a two-way score share features, so they are not independent trials; exchanging labels is
    valid whatever they share. All samples of a target and all metrics move together. For two-way scores the mean over
    all permutations is exactly 0.5.

    Parameters
    ----------
    tables : float array of shape (n_metrics, n_targets, n_targets)
        ``tables[m, t, i]``: score of metric m, higher is better, that the reconstructions of target t would get (mean
        over samples) if i were their target.
    groups : sequence of sequence of int, optional
        Targets whose labels are exchanged among themselves only; together all targets. Default: one group.
    n_draws, seed : int
        Draws where there are too many permutations to list.
    subject : int
        Part of the seed: subjects are permuted independently.
    listed : bool
        Whether to list all permutations where there are few enough. Turn it off for what is combined over subjects.
    """
    n = tables.shape[1]
    groups = groups or [range(n)]
    observed = np.trace(tables, axis1=1, axis2=2) / n
    if len(groups) == 1:
        order, exact = permutations(n, n_draws, (seed, subject), listed=listed)
        return Arranged(observed, _permuted_means(tables, order), exact)
    blocks = [tables[:, np.asarray(members)[:, None], np.asarray(members)] for members in groups]
    exact = listed and math.prod(math.factorial(len(members)) for members in groups) <= LISTED_IN_GROUPS
    total = np.zeros((len(tables), 1 if exact else n_draws))
    for number, block in enumerate(blocks):
        size = block.shape[1]
        order, _ = permutations(size, n_draws, (seed, subject, number), listed=exact)
        sums = size * _permuted_means(block, order)
        # groups are permuted independently: all sums of a permutation of each, or draw by draw
        total = (total[:, :, None] + sums[:, None, :]).reshape(len(tables), -1) if exact else total + sums
    return Arranged(observed, total / n, exact)


def _permuted_means(tables: Floats, order: NDArray[np.int64]) -> Floats:
    """Return the mean of ``tables[:, t, order[b, t]]`` over t, shape (n_metrics, n_orders)."""
    n = tables.shape[1]
    by_target = np.ascontiguousarray(tables.transpose(1, 2, 0))  # metrics lie together
    total = np.zeros((len(order), len(tables)))
    for table, places in zip(by_target, np.ascontiguousarray(order.T), strict=True):
        total += table[places]  # one target at a time stays in the processor's cache
    return np.asarray(total.T / n, dtype=np.float64)


def subject_mean(parts: Sequence[Arranged]) -> Arranged:
    """Average independent arrangements of several subjects, draw by draw."""
    if len(parts) == 1:
        return parts[0]
    return Arranged(
        np.mean([part.observed for part in parts], axis=0),
        np.mean([part.draws for part in parts], axis=0),
        exact=False,
    )


def prevalence(parts: Sequence[Arranged], *, level: float = 0.95) -> list[Prevalence]:
    """In how large a share of people is there information? One answer per row.

    The statistic is that of the poorest subject. If no subject has the effect, its p is the share of draws whose
    minimum over subjects reaches it; if at most a share g of the population has it, that p grows to
    ``((1 - g) p^(1/N) + g)^N``, and the bound is the largest g that is still refused (Allefeld, Goergen and Haynes
    2016, NeuroImage 141, 378-392). A t-test over subjects cannot say this: it is about the mean.

    Parameters
    ----------
    parts : sequence of Arranged
        One per subject, independently drawn, the same number of draws.
    level : float
        Confidence of the bound.
    """
    n = len(parts)
    least = np.min([part.observed for part in parts], axis=0)
    draws = np.min([part.draws for part in parts], axis=0)
    alpha_root = (1 - level) ** (1 / n)

    def bound(p: float) -> float:
        root = p ** (1 / n)
        return (alpha_root - root) / (1 - root) if root < 1 else -1.0

    found = p_values(draws, least, exact=False).tolist()
    highest = bound(1 / (1 + draws.shape[1]))
    return [Prevalence(p, bound(p) if p <= 1 - level else None, highest, n) for p in found]


def sign_flips(differences: Floats, *, n_draws: int = N_RESAMPLES, seed: int = 0) -> Arranged:
    """Turn the signs of paired differences, target by target.

    If two models are equally good, each target's differences could as well have come out the other way round. A
    target keeps one sign for all subjects, because what makes it easier for one of the models does so in every
    subject; turning subjects separately would take their number for independent evidence.

    Parameters
    ----------
    differences : float array of shape (n_rows, n_subjects, n_targets)
        Paired differences of sample-averaged scores; NaN where a pair is incomplete.

    Returns
    -------
    Arranged
        Of the subject mean; exact for up to 14 targets.
    """
    shares = target_shares(np.asarray(differences, dtype=np.float64))
    signs, exact = sign_patterns(shares.shape[1], n_draws, seed)
    return Arranged(shares.sum(axis=1), (signs @ shares.T).T, exact)


def paired_differences(new: Floats, old: Floats, *, lower_is_better: bool = False) -> Floats:
    """Return ``new - old`` with the sign turned so that positive means better.

    Both are of the same shape (..., n_subjects, n_targets) and order; a pair with a missing side is NaN. Handing the
    result to :func:`~nsdbench.stats.bca` gives the paired interval, or the vision-imagery gap with joint resampling.
    """
    difference = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    return -difference if lower_is_better else difference


def superiority(differences: Floats) -> Floats:
    """Return the probability that one model beats the other on a target: wins plus half the ties.

    Parameters
    ----------
    differences : float array of shape (n_rows, n_subjects, n_targets)
    """
    present = ~np.isnan(differences)
    wins = np.where(present, 0.5 + 0.5 * np.sign(np.round(differences, 9)), 0.0).sum(axis=(-2, -1))
    n_pairs = present.sum(axis=(-2, -1))
    share = np.divide(wins, n_pairs, out=np.full(n_pairs.shape, np.nan), where=n_pairs > 0)
    return np.asarray(share, dtype=np.float64)
