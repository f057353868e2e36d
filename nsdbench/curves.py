"""Identification curves of a finished run: how often the target wins among m alternatives, for every m."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsdbench import similarity
from nsdbench.errors import UsageError
from nsdbench.metrics.identification import m_way, median_rank_percentile, ranks, top_q
from nsdbench.metrics.profiles import DEFAULT


@dataclass(frozen=True)
class Curve:
    """Exact expected accuracy among m alternatives; nothing is sampled.

    Attributes
    ----------
    m : tuple of int
        Numbers of alternatives, 2 to the size of the pool.
    accuracy : tuple of float
        Share of reconstructions whose target is the most similar of m ground truths; ties are lost. Chance is 1/m.
    top : tuple of float
        Share whose target is among the ``q`` most similar (all of them where m <= q). Chance is q/m.
    q : int
        As asked for.
    median_rank_percentile : float
        Median percentage of the other ground truths that the target beats.
    """

    m: tuple[int, ...]
    accuracy: tuple[float, ...]
    top: tuple[float, ...]
    q: int
    median_rank_percentile: float


def curve(folder: Path, metric: str, *, profile: str = DEFAULT, q: int = 5) -> Curve:
    """Return the identification curve of one run, from the similarities that scoring left in its folder.

    Parameters
    ----------
    folder : Path
        Run folder; all ground truths of its split form the pool.
    metric : str
        A metric that is a function of correlations, such as ``clip`` or ``gabor_2way``.
    profile : str
        Metric profile of the scores.
    q : int
        Length of the short list of ``Curve.top``.

    Raises
    ------
    DataError
        If the folder holds no readable similarities of this profile.
    UsageError
        If the metric was not scored, or compares single pairs only, or the pool has one image.
    """
    path = folder / similarity.file_name(profile)
    found = similarity.read(path)
    if metric not in found.matrices:
        known = ", ".join(sorted(found.matrices)) or "none"
        raise UsageError(f"{path} holds no similarities of {metric!r}", remedy=f"There are: {known}.")
    r = found.matrices[metric]
    n, _, n_samples = r.shape
    if n < 2:
        raise UsageError(f"{path}: identification needs two ground truths or more")
    k = ranks(r.reshape(n, -1), np.repeat(found.truth_row, n_samples))
    rivals, counts = np.unique(k, return_counts=True)  # few differ, so that a pool of 1000 takes no time
    share = counts / len(k)
    m = tuple(range(2, n + 1))
    return Curve(
        m,
        tuple(float(m_way(rivals, n, size) @ share) for size in m),
        tuple(float(top_q(rivals, n, size, min(q, size)) @ share) for size in m),
        q,
        median_rank_percentile(k, n),
    )
