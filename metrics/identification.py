"""Identification: is a reconstruction closer to its own ground truth than to others of the pool?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from nsdbench.errors import UsageError
from nsdbench.metrics.correlation import own
from nsdbench.metrics.metric import ByCorrelation, Features

TIE = 1e-9  # similarities closer than this are equal

ALEXNET2 = ByCorrelation(Features("alexnet", ("features.4",)), "identification")
ALEXNET5 = ByCorrelation(Features("alexnet", ("features.11",)), "identification")
INCEPTION = ByCorrelation(Features("inception", ("avgpool",)), "identification")
CLIP = ByCorrelation(Features("clip", ("image_embeds",)), "identification")
MINI_ALEXNET2 = ByCorrelation(Features("mini_alexnet", ("features.4",)), "identification")
MINI_ALEXNET5 = ByCorrelation(Features("mini_alexnet", ("features.11",)), "identification")
MINI_INCEPTION = ByCorrelation(Features("mini_inception", ("avgpool",)), "identification")
MINI_CLIP = ByCorrelation(Features("mini_clip", ("image_embeds",)), "identification")


def two_way(
    r: NDArray[np.float64],
    target: NDArray[np.int64],
    *,
    ties: Literal["half", "strict"] = "half",
    self_comparison: bool = False,
) -> NDArray[np.float64]:
    """Return the two-way identification score of every reconstruction.

    ``score[j] = (#{i: R[i,j] < R[t,j]} + 1/2 #{i: R[i,j] = R[t,j]}) / (N - 1)`` over the ground truths
    ``i != t = target[j]``: the probability that a reconstruction is closer to its target than to a random other
    ground truth, with chance 0.5 and maximum 1. Distractors are ground truths, never other reconstructions.

    Parameters
    ----------
    r : float64 array of shape (N, m)
        Similarities, ground truths in rows. NaN marks an undefined one.
    target : int array of shape (m,)
        Row of the ground truth of every column.
    ties : {"half", "strict"}
        ``"half"``: similarities within 1e-9 count one half and undefined ones are 0. ``"strict"``: only
        ``<`` counts, and a comparison with an undefined similarity is lost, as in the published scripts.
    self_comparison : bool
        Subtract one success, as the published imagery evaluation does; the result is ``1/(N - 1)`` lower.

    Returns
    -------
    float64 array of shape (m,)
        NaN if the pool has no distractor.
    """
    others = len(r) - 1
    if others < 1:
        return np.full(r.shape[1], np.nan)
    if ties == "strict":
        wins = (r < own(r, target)).sum(axis=0).astype(np.float64)
    else:
        margin = _margin(r, target)
        wins = (margin > TIE).sum(axis=0) + (np.abs(margin) <= TIE).sum(axis=0) / 2 - 0.5  # not its own tie
    scores: NDArray[np.float64] = (wins - self_comparison) / others
    return scores


def two_way_within(
    r: NDArray[np.float64],
    target: NDArray[np.int64],
    groups: Sequence[NDArray[np.int64]],
    *,
    ties: Literal["half", "strict"] = "half",
    self_comparison: bool = False,
) -> NDArray[np.float64]:
    """Return two-way identification among the group of each target; NaN for a target alone in its group.

    Parameters
    ----------
    r, target, ties, self_comparison
        As for :func:`two_way`.
    groups : sequence of int arrays
        Ascending rows that are distractors of each other.

    Returns
    -------
    float64 array of shape (m,)
    """
    scores = np.full(len(target), np.nan)
    for rows in groups:
        columns = np.flatnonzero(np.isin(target, rows))
        own_row = np.searchsorted(rows, target[columns])
        among = r[np.ix_(rows, columns)]
        scores[columns] = two_way(among, own_row, ties=ties, self_comparison=self_comparison)
    return scores


def ranks(r: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return k, the number of other ground truths at least as similar as the target (ties included).

    Shapes as in :func:`two_way`; 0 means that the target is the nearest ground truth.
    """
    k: NDArray[np.int64] = (_margin(r, target) <= TIE).sum(axis=0) - 1  # the target is not its own rival
    return k


def _margin(r: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    defined = np.nan_to_num(r, nan=0.0)
    return own(defined, target) - defined


def m_way(k: NDArray[np.int64], n: int, m: int) -> NDArray[np.float64]:
    """Return the exact expected accuracy of m-way identification.

    With ``m - 1`` distractors drawn without replacement from the ``n - 1`` others, of which k are at least as
    similar as the target, the target wins with probability ``C(n-1-k, m-1) / C(n-1, m-1)``. Ties are lost.
    ``m = n`` is top-1 accuracy in the whole pool.

    Parameters
    ----------
    k : int array
        From :func:`ranks`.
    n, m : int
        Pool size and number of alternatives, ``2 <= m <= n``.
    """
    return top_q(k, n, m, 1)


def top_q(k: NDArray[np.int64], n: int, m: int, q: int) -> NDArray[np.float64]:
    """Return the exact probability that the target is among the q best of m alternatives.

    The number of drawn distractors that beat the target is hypergeometric (``n - 1`` items, k of them better,
    ``m - 1`` draws); the result is ``P[X <= q - 1]``. Parameters as in :func:`m_way`.
    """
    if not 2 <= m <= n or not 1 <= q <= m:
        raise UsageError(f"need 2 <= m <= n and 1 <= q <= m, got n={n}, m={m}, q={q}")
    rivals = np.asarray(k, np.float64)[..., None]
    drawn = np.arange(q, dtype=np.float64)
    all_draws = _log_choose(np.array(n - 1.0), np.array(m - 1.0))
    terms = np.exp(_log_choose(rivals, drawn) + _log_choose(n - 1 - rivals, m - 1 - drawn) - all_draws)
    probability: NDArray[np.float64] = np.minimum(terms.sum(axis=-1), 1.0)
    return probability


def _log_choose(n: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``log C(n, k)``, minus infinity where k is not between 0 and n."""
    inside = (k >= 0) & (k <= n)
    n, k = np.where(inside, n, 0.0), np.where(inside, k, 0.0)
    return np.where(inside, gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), -np.inf)


def median_rank_percentile(k: NDArray[np.int64], n: int) -> float:
    """Return the median over reconstructions of ``100 (n - 1 - k) / (n - 1)``, the percentage of others beaten."""
    return float(np.median(100.0 * (n - 1 - k) / (n - 1)))
