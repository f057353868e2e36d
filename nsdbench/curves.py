"""Identification curves of a finished run: how often the target wins among m alternatives, for every m."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsdbench.errors import UsageError
from nsdbench.metrics.identification import m_way, median_rank_percentile, ranks, top_q
from nsdbench.metrics.profiles import DEFAULT
from nsdbench.scoring import load_similarity


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
    path = folder / f"similarity-{profile}.npz"
    matrices = load_similarity(path)
    if metric not in matrices:
        known = ", ".join(sorted(matrices)) or "none"
        raise UsageError(f"{path} holds no similarities of {metric!r}", remedy=f"There are: {known}.")
    similarity = matrices[metric]
    n, _, n_samples = similarity.shape
    if n < 2:
        raise UsageError(f"{path}: identification needs two ground truths or more")
    with np.load(path, allow_pickle=False) as archive:
        row = np.searchsorted(archive["pool_ids"], archive["targets"])  # both are in ascending order
    k = ranks(similarity.reshape(n, -1), np.repeat(row, n_samples))
    m = tuple(range(2, n + 1))
    return Curve(
        m,
        tuple(float(m_way(k, n, size).mean()) for size in m),
        tuple(float(top_q(k, n, size, min(q, size)).mean()) for size in m),
        q,
        median_rank_percentile(k, n),
    )
