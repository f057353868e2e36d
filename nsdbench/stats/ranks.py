"""Orders of models: ranks, their agreement, corrections for many comparisons, and groups that cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from nsdbench.stats.arrangements import Floats, p_values, permutations
from nsdbench.stats.intervals import N_RESAMPLES


@dataclass(frozen=True)
class RankAgreement:
    """Spearman rank correlation of ``n`` pairs with a two-sided permutation p."""

    rho: float
    p: float
    n: int
    exact: bool


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
    order, exact = permutations(len(a), n_draws, (seed,))
    p = p_values(np.abs(a[order] @ b) / scale, np.array(abs(observed)), exact=exact)
    return RankAgreement(rho=observed, p=float(p), n=len(a), exact=exact)


def spearman_interval(x: Floats, y: Floats, *, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of the rank correlation over resamples of the scores behind it.

    The p-value of :func:`spearman` takes the scores as given and asks about the order of models; this interval says
    how far the order itself is uncertain. Noise in the scores pulls it towards zero.

    Parameters
    ----------
    x, y : float arrays of shape (n_models, n_resamples)
        Mean scores in jointly drawn resamples, as from :func:`~nsdbench.stats.bootstrap_means`.

    Returns
    -------
    (low, high) or None
        None if a correlation is undefined in most resamples.
    """
    a, b = (column_ranks(side) - (len(side) + 1) / 2 for side in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    rho = rho[np.isfinite(rho)]
    if 2 * len(rho) < x.shape[1]:
        return None
    low, high = np.quantile(rho, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def column_ranks(values: Floats) -> Floats:
    """Return average ranks within columns, by counting, since there are few rows."""
    rounded = np.round(values, 12)
    less = (rounded[:, None, :] > rounded[None, :, :]).sum(axis=1)
    equal = (rounded[:, None, :] == rounded[None, :, :]).sum(axis=1)
    return np.asarray(less + (equal + 1) / 2, dtype=np.float64)


def holm(p: Sequence[float] | Floats) -> Floats:
    """Correct p-values of one family so that the chance of any false claim stays below the level.

    The k-th smallest of n is multiplied by ``n - k + 1`` and raised to its predecessors (Holm 1979, Scand. J. Stat. 6,
    65-70); no assumption about dependence is made.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(values) else scaled
    return adjusted


def tie_letters(differ: NDArray[np.bool_]) -> list[str]:
    """Return letters so that two models share one if, and only if, they cannot be told apart.

    Each letter stands for a largest possible group of models without a difference between any two (compact letter
    display; Piepho 2004, J. Comput. Graph. Stat. 13, 456-466). The first model has the letter ``a``.

    Parameters
    ----------
    differ : bool array of shape (n_models, n_models)
        Symmetric: whether two models differ; models in the order of the display.
    """
    groups: list[set[int]] = [set(range(len(differ)))]
    for i, j in np.argwhere(np.triu(differ, 1)):
        split: list[set[int]] = []
        for group in groups:
            split += [group - {i}, group - {j}] if {i, j} <= group else [group]
        groups = [
            g
            for k, g in enumerate(split)
            if not any(g < o or (g == o and k > m) for m, o in enumerate(split))
        ]
    ordered = sorted(groups, key=sorted)
    return ["".join(_letter(k) for k, group in enumerate(ordered) if i in group) for i in range(len(differ))]


def _letter(k: int) -> str:
    return ascii_lowercase[k % 26] * (k // 26 + 1)
