"""Vision against imagery: the same targets, the same decoder, the same beta preparation, only the eyes closed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nsdbench import stats, summary
from nsdbench.comparison.results import Results

Record = dict[str, Any]
_Sides = tuple[stats.Floats, stats.Floats]  # vision, imagery
_SAME_DECODER = (
    "dataset", "model", "preset", "subject", "stimulus_set", "metric", "metric_version", "metric_profile", "pool",
    "n_targets", "n_subjects", "beta_version", "normalization", "label_source", "weights_id", "status",
    "decoder_train_trials",
)  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """One model and metric on both splits.

    Attributes
    ----------
    vision, imagery : dict
        The two leaderboard rows.
    value : float
        Vision minus imagery with the sign turned so that positive means vision is better.
    low, high : float or None
        95 % BCa limits from resampling targets jointly in both splits and all subjects; None without item scores.
    """

    vision: Record
    imagery: Record
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def metric(self) -> str:
        """Metric of both rows."""
        return str(self.vision["metric"])


def gaps(found: Results, rows: Iterable[Record], *, seed: int = 0) -> list[Gap]:
    """Pair the vision and imagery rows of each model and metric that differ in nothing but the split.

    Where item scores are at hand and show that the two rows are about different targets, there is no gap.

    Parameters
    ----------
    found : Results
        Where the rows come from; its item scores give the intervals.
    rows : iterable of dict
        Leaderboard rows to pair.
    """
    rows = [row for row in rows if row["value"] is not None]
    seen = {_decoder(row): row for row in rows if row["split"] == "vision"}
    imagined = [row for row in rows if row["split"] == "imagery"]
    pairs = [(seen[_decoder(row)], row) for row in imagined if _decoder(row) in seen]
    same = [
        (pair, sides)
        for pair, sides in zip(pairs, _scores(found, pairs), strict=True)
        if _same_targets(sides)
    ]
    limits = _limits([_differences(vision, sides) for (vision, _), sides in same], seed)
    return [
        Gap(vision, imagery, _sign(vision) * (vision["value"] - imagery["value"]), *limits[index])
        for index, ((vision, imagery), _) in enumerate(same)
    ]


def _decoder(row: Record) -> tuple[Any, ...]:
    # where somebody's own reconstructions lay is no property of the decoder; which publication a row is from, is
    source = row["source"] if row["status"] == "published" else None
    # one of the two imagery runs ("mean of imagery run 2") has a vision side too: as many trials as were seen
    averaging = (row["averaging"] or "").partition(" of imagery run")[0]
    return (*(row[name] for name in _SAME_DECODER), source, averaging)


def _sign(row: Record) -> int:
    return -1 if row["direction"] == "lower" else 1


def _limits(matrices: Sequence[stats.Floats | None], seed: int) -> list[tuple[float | None, float | None]]:
    limits: list[tuple[float | None, float | None]] = [(None, None)] * len(matrices)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        if matrix is not None and matrix.shape[1] >= 2:
            by_shape.setdefault(matrix.shape, []).append(index)
    for indices in by_shape.values():
        found = stats.bca(np.stack([matrices[i] for i in indices]), level=summary.LEVEL, seed=seed)  # type: ignore[misc]
        for i, low, high in zip(indices, found.low, found.high, strict=True):
            limits[i] = (float(low), float(high))
    return limits


def _scores(found: Results, pairs: Sequence[tuple[Record, Record]]) -> list[_Sides | None]:
    """Return the scores (n_subjects, n_targets) of both sides of each pair; None where item scores are missing."""
    runs = found.runs()
    scores = _target_scores(found.items, {vision["metric"] for vision, _ in pairs})
    return [_sides(vision, imagery, runs, scores) for vision, imagery in pairs]


def _target_scores(items: pa.Table, metrics: Collection[str]) -> dict[tuple[Any, ...], dict[str, float]]:
    """Return sample-averaged scores: (run, metric, version, profile, pool) -> stimulus -> value."""
    means = summary.target_means(items)
    names = ("run_id", "metric", "metric_version", "metric_profile", "pool")
    scores: dict[tuple[Any, ...], dict[str, float]] = {}
    for *key, stimulus, value in zip(*(means[name] for name in (*names, "stimulus", "value")), strict=True):
        if key[1] in metrics and not np.isnan(value):
            scores.setdefault(tuple(key), {})[stimulus] = value
    return scores


def _sides(
    vision: Record,
    imagery: Record,
    runs: Mapping[str, Mapping[int, str]],
    scores: Mapping[tuple[Any, ...], Mapping[str, float]],
) -> _Sides | None:
    members = [runs.get(row["run_id"], {}) for row in (vision, imagery)]
    subjects = sorted(members[0])
    if not subjects or subjects != sorted(members[1]):
        return None
    definition = tuple(vision[name] for name in ("metric", "metric_version", "metric_profile", "pool"))
    sides = [[scores.get((runs_of[s], *definition), {}) for s in subjects] for runs_of in members]
    targets = sorted({t for side in sides for of_subject in side for t in of_subject})
    if vision["stimulus_set"] in ("A", "B"):
        targets = [t for t in targets if t.startswith(vision["stimulus_set"])]
    if not all(of_subject for side in sides for of_subject in side):
        return None
    seen, imagined = (np.array([[one.get(t, np.nan) for t in targets] for one in side]) for side in sides)
    return seen, imagined


def _same_targets(sides: _Sides | None) -> bool:
    return sides is None or np.array_equal(np.isnan(sides[0]), np.isnan(sides[1]))


def _differences(vision: Record, sides: _Sides | None) -> stats.Floats | None:
    """Return the sign-adjusted differences (n_subjects, n_targets) of a pair."""
    if sides is None:
        return None
    return stats.paired_differences(*sides, lower_is_better=vision["direction"] == "lower")
