"""Vision against imagery: the same targets, the same decoder, the same beta preparation, only the eyes closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nsdbench import stats, summary
from nsdbench.comparison.scores import (
    SHARED,
    Record,
    ScoreIndex,
    TargetScores,
    better,
    by_shape,
    family,
    floors,
    holm_within,
)

_Sides = tuple[TargetScores, TargetScores, tuple[str, ...]]  # vision, imagery, targets of either
_SAME_DECODER = (
    "dataset", "model", "preset", "subject", "stimulus_set", "metric", "metric_version", "metric_profile", "pool",
    "n_targets", "n_subjects", "beta_version", "normalization", "label_source", "weights_id", "status",
    "decoder_train_trials",
)  # fmt: skip

ROUNDING = 1e-9  # a limit this close to chance is at chance
_NUMBERS = ("value", "low", "high", "p", "p_corrected", "retention", "retention_low", "retention_high")


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
        95 % limits from resampling targets jointly in both splits and all subjects; None without item scores.
    p, p_corrected : float or None
        Two-sided sign flips over targets; Holm over the metrics of the model. None for networks without training.
    retention, retention_low, retention_high : float or None
        Share of the vision score above chance that is left on imagery, with 95 % limits. None where it is not sure
        that vision is above chance (the ratio would be unbounded), chance is unknown, or networks are untrained.
    """

    vision: Record
    imagery: Record
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    retention: float | None = None
    retention_low: float | None = None
    retention_high: float | None = None

    @property
    def metric(self) -> str:
        """Metric of both rows."""
        return str(self.vision["metric"])

    @property
    def certain(self) -> bool:
        """Whether a difference is established at the 5 % level."""
        return self.p_corrected is not None and self.p_corrected <= summary.ALPHA

    def document(self) -> dict[str, Any]:
        """Return the gap as a JSON object."""
        shared = {name: self.vision[name] for name in ("model", "preset", *SHARED) if name != "split"}
        sides = {"vision": self.vision["value"], "imagery": self.imagery["value"]}
        return shared | sides | {name: getattr(self, name) for name in _NUMBERS}


def gaps(index: ScoreIndex, rows: Iterable[Record], *, seed: int = 0) -> list[Gap]:
    """Pair the vision and imagery rows of each model and metric that differ in nothing but the split.

    Where item scores are at hand and show that the two rows are about different targets, there is no gap.

    Parameters
    ----------
    index : ScoreIndex
        Item scores, for everything but the difference itself.
    rows : iterable of dict
        Leaderboard rows to pair.
    """
    rows = [row for row in rows if row["value"] is not None]
    seen: dict[tuple[Any, ...], list[Record]] = {}
    for row in rows:
        if row["split"] == "vision":
            seen.setdefault(_decoder(row), []).append(row)
    plain, sides = [], []
    for imagery in (row for row in rows if row["split"] == "imagery"):
        vision = _counterpart(imagery, seen.get(_decoder(imagery), []))
        if vision is None:
            continue
        side = _sides(index, vision, imagery)
        if side is None or _same_targets(side):
            plain.append(Gap(vision, imagery, better(vision) * (vision["value"] - imagery["value"])))
            sides.append(side)
    return _corrected(_with_retention(_with_limits(plain, sides, seed), sides, seed))


def _decoder(row: Record) -> tuple[Any, ...]:
    # where somebody's own reconstructions lay is no property of the decoder; which publication a row is from, is
    source = row["source"] if row["status"] == "published" else None
    # one of the two imagery runs ("mean of imagery run 2") has a vision side too: as many trials as were seen
    averaging = (row["averaging"] or "").partition(" of imagery run")[0]
    return (*(row[name] for name in _SAME_DECODER), source, averaging)


def _counterpart(imagery: Record, seen: Sequence[Record]) -> Record | None:
    """Return the vision row of a decoder; of several, whose reconstructions lay elsewhere, the one from the same place."""
    if len(seen) > 1:
        seen = [row for row in seen if row["source"] == imagery["source"]]
    return seen[0] if len(seen) == 1 else None


def _means_something(gap: Gap) -> bool:
    return bool(gap.vision["status"] != "untrained")


def _sides(index: ScoreIndex, vision: Record, imagery: Record) -> _Sides | None:
    a, b = index.of(vision), index.of(imagery)
    if a is None or b is None or a.subjects != b.subjects:
        return None
    return a, b, tuple(sorted({*a.targets, *b.targets}))


def _same_targets(sides: _Sides) -> bool:
    a, b, targets = sides
    return np.array_equal(np.isnan(a.on(targets)), np.isnan(b.on(targets)))


def _with_limits(found: Sequence[Gap], sides: Sequence[_Sides | None], seed: int) -> list[Gap]:
    out = list(found)
    stacks = {
        i: stats.paired_differences(
            side[0].values, side[1].values, lower_is_better=better(found[i].vision) < 0
        )
        for i, side in enumerate(sides)
        if side and len(side[2]) > 1
    }
    for places in by_shape(stacks):
        differences = np.stack([stacks[i] for i in places])
        limits = stats.bca(differences, level=summary.LEVEL, seed=seed)
        p = stats.sign_flips(differences, seed=seed).p_two_sided()
        for i, low, high, one in zip(places, limits.low, limits.high, p, strict=True):
            tested = float(one) if _means_something(out[i]) else None
            out[i] = replace(out[i], low=float(low), high=float(high), p=tested)
    return out


def _with_retention(found: Sequence[Gap], sides: Sequence[_Sides | None], seed: int) -> list[Gap]:
    out = list(found)
    stacks: dict[int, stats.Floats] = {}
    for i, side in enumerate(sides):
        if side and len(side[2]) > 1 and _means_something(found[i]):
            rows = (found[i].vision, found[i].imagery)
            above = np.stack(
                [better(r) * (s.values - floors(r, s)) for r, s in zip(rows, side[:2], strict=True)]
            )
            if not np.isnan(above).all(axis=(1, 2)).any():
                stacks[i] = above
    for places in by_shape(stacks):
        vision, imagery = (np.stack([stacks[i][k] for i in places]) for k in (0, 1))
        sure = stats.bca(vision, level=summary.LEVEL, seed=seed).low > ROUNDING
        kept = [i for i, yes in zip(places, sure, strict=True) if yes]
        if kept:
            ratio = stats.bca_ratio(imagery[sure], vision[sure], level=summary.LEVEL, seed=seed)
            for i, *limits in zip(kept, ratio.estimate, ratio.low, ratio.high, strict=True):
                value, low, high = map(float, limits)
                out[i] = replace(out[i], retention=value, retention_low=low, retention_high=high)
    return out


def _corrected(found: Sequence[Gap]) -> list[Gap]:
    """Correct the p-values of each model over its metrics, identification within sets apart from the rest."""
    tested = {i: gap.p for i, gap in enumerate(found) if gap.p is not None}
    corrected = holm_within(list(tested.values()), [_family(found[i]) for i in tested])
    out = list(found)
    for i, p in zip(tested, corrected, strict=True):
        out[i] = replace(out[i], p_corrected=p)
    return out


def _family(gap: Gap) -> tuple[Any, ...]:
    row = gap.vision
    return (family(row), row["run_id"], gap.imagery["run_id"], row["stimulus_set"], row["metric_profile"])
