"""How much lower precision changes identification: two-way comparisons that end otherwise than in full precision."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench import similarity
from nsdbench.errors import DataError
from nsdbench.metrics import registry
from nsdbench.metrics.identification import TIE
from nsdbench.metrics.profiles import base_name
from nsdbench.similarity import Similarities

PREFIX = "bf16: "
"""What notes on flipped comparisons begin with; there is one per profile, the latest."""


@dataclass(frozen=True)
class Flips:
    """How many of ``n`` two-way comparisons of one metric are ``flipped``: won, tied and lost are different ends."""

    flipped: int
    n: int


def count(reduced: Similarities, full: Similarities) -> dict[str, Flips]:
    """Compare every two-way comparison of two precisions, for the metrics that both have.

    A comparison is that of one reconstruction with its target and one other ground truth of the pool; similarities
    within 1e-9 are tied.

    Parameters
    ----------
    reduced, full : Similarities
        Of the same reconstructions.

    Returns
    -------
    mapping of str to Flips
        Nothing if the two are about other ground truths or targets.
    """
    if (reduced.pool_ids, reduced.targets) != (full.pool_ids, full.targets):
        return {}
    row = reduced.truth_row
    return {
        metric: _count(reduced.matrices[metric], full.matrices[metric], row)
        for metric in _through_networks(reduced.matrices)
        if metric in full.matrices and full.matrices[metric].shape == reduced.matrices[metric].shape
    }


def _through_networks(matrices: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Return the identification metrics that look through a network; the others do not depend on precision."""
    known = ((metric, registry.METRICS.get(metric)) for metric in sorted(matrices))
    return [metric for metric, entry in known if entry and entry.kind == "identification" and entry.nets]


def _count(reduced: NDArray[np.float64], full: NDArray[np.float64], row: NDArray[np.int64]) -> Flips:
    flipped = 0
    for target, own in enumerate(row):  # a target at a time: a pool of 1000 needs no copies of whole matrices
        ends = [_ends(r[:, target], own) for r in (reduced, full)]
        flipped += int((ends[0] != ends[1]).sum())
    return Flips(flipped, full.size - full[0].size)


def _ends(r: NDArray[np.float64], own: int) -> NDArray[np.int8]:
    """Return 1, 0 or -1 where the target wins, ties or loses; ``r`` has shape (n_pool, n_samples)."""
    margin = r[own] - r
    return np.asarray((margin > TIE).astype(np.int8) - (margin < -TIE).astype(np.int8))


def notes(folder: Path) -> list[str]:
    """Say, for every profile scored in bfloat16 in a run folder, how many comparisons differ from full precision.

    Full precision is what the same folder was scored with under the same profile, before or afterwards. Where it was
    not, the note says that the figure is not known and how to get it.
    """
    found = []
    for path in sorted(folder.glob(similarity.file_name("*"))):
        profile = path.stem.removeprefix("similarity-")
        if profile != base_name(profile) and (note := _note(folder, profile, similarity.read(path))):
            found.append(PREFIX + note)
    return found


def _note(folder: Path, profile: str, reduced: Similarities) -> str:
    """Return the note on one profile; nothing if no metric depends on precision."""
    asked = _through_networks(reduced.matrices)
    path = folder / similarity.file_name(base_name(profile))
    counts: dict[str, Flips] = {}
    with contextlib.suppress(DataError):  # missing or damaged: not known
        counts = count(reduced, similarity.read(path))
    unknown = [metric for metric in asked if metric not in counts]
    parts = []
    if counts:
        flipped, n = sum(c.flipped for c in counts.values()), sum(c.n for c in counts.values())
        each = ", ".join(f"{metric} {c.flipped}" for metric, c in counts.items())
        share = f" ({flipped / n:.2%})" if n else ""
        parts.append(f"{flipped} of {n}{share} two-way comparisons end otherwise than in fp32: {each}")
    if unknown:
        parts.append(
            f"how many two-way comparisons of {', '.join(unknown)} end otherwise than in fp32 is not known; "
            f"`nsdbench score --precision fp32` of the run folder finds it out"
        )
    return f"{base_name(profile)}, " + "; ".join(parts) if parts else ""
