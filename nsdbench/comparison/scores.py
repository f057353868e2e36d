"""The sample-averaged scores behind leaderboard rows, as far as item scores are at hand."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsdbench import stats, summary
from nsdbench.comparison.results import Results
from nsdbench.itemscores import IMAGERY_TARGETS, pools
from nsdbench.metrics.registry import METRICS
from nsdbench.metrics.spurious import category_two_way, group_sizes
from nsdbench.schema import VARIANT

Record = dict[str, Any]
BYPRODUCTS = ("retrieval", "caption")
"""Kinds of metrics that only some models have; they get tables and corrections of their own."""

SHARED = (
    "dataset", "split", "subject", "stimulus_set", "metric", "metric_profile", "pool", "source",
)  # fmt: skip
"""What says where a comparison of two rows belongs."""

_DEFINITION = ("metric", "metric_version", "metric_profile", "pool")


@dataclass(frozen=True)
class TargetScores:
    """Scores of one leaderboard row before they were averaged.

    Attributes
    ----------
    subjects : tuple of int
    targets : tuple of str
        Ascending.
    values, floors : float64 arrays of shape (n_subjects, n_targets)
        Means over samples, NaN where there is no score: of the reconstruction against its target, and against wrong
        ones.
    """

    subjects: tuple[int, ...]
    targets: tuple[str, ...]
    values: stats.Floats
    floors: stats.Floats

    def on(self, targets: Collection[str]) -> stats.Floats:
        """Return the values of ``targets`` in their order, NaN for those that are not here."""
        place = {target: column for column, target in enumerate(self.targets)}
        out = np.full((len(self.subjects), len(targets)), np.nan)
        for column, target in enumerate(targets):
            if target in place:
                out[:, column] = self.values[:, place[target]]
        return out


class ScoreIndex:
    """Finds the target scores of any row of some results."""

    def __init__(self, found: Results) -> None:
        """Index all item scores."""
        self._runs = found.runs()
        self._made: dict[tuple[Any, ...], TargetScores | None] = {}
        self._scores: dict[tuple[Any, ...], dict[str, tuple[float, float]]] = {}
        means = summary.target_means(found.items)
        columns = (means[name] for name in ("run_id", *_DEFINITION, "stimulus", "value", "floor"))
        for *key, stimulus, value, floor in zip(*columns, strict=True):
            if not np.isnan(value):
                self._scores.setdefault(tuple(key), {})[stimulus] = (value, floor)

    def runs(self, row: Record) -> dict[int, str]:
        """Return the runs (subject -> run id) that a row summarizes; empty without item scores."""
        return self._runs.get(row["run_id"], {})

    def of(self, row: Record) -> TargetScores | None:
        """Return the scores behind a row; None where those of any of its subjects are missing."""
        key = tuple(row[name] for name in ("run_id", "stimulus_set", *_DEFINITION))
        if key not in self._made:  # a row is compared with many others
            self._made[key] = self._make(row)
        return self._made[key]

    def _make(self, row: Record) -> TargetScores | None:
        runs = self.runs(row)
        definition = tuple(row[name] for name in _DEFINITION)
        found = {subject: self._scores.get((run, *definition), {}) for subject, run in sorted(runs.items())}
        if not found or not all(found.values()):
            return None
        targets = sorted({t for of_subject in found.values() for t in of_subject if in_set(t, row)})
        none = (np.nan, np.nan)
        pairs = np.array([[one.get(t, none) for t in targets] for one in found.values()])
        if not targets:
            return None
        return TargetScores(tuple(found), tuple(targets), pairs[..., 0], pairs[..., 1])


def names(rows: Iterable[Record]) -> dict[tuple[str, str], str]:
    """Return the name of every model and preset: the model id, with the preset where a model has several of them."""
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["status"] != "published":
            found.setdefault(row["model"], set()).add(row["preset"])
    return {
        (model, preset): f"{model} {preset}" if len(presets) > 1 else model
        for model, presets in found.items()
        for preset in presets
    }


def name(row: Record) -> str:
    """Return the name under which the model of a row is shown; its id unless :func:`names` says more."""
    return str(row.get("name", row["model"]))


def short_name(row: Record) -> str:
    """Return the name without what is unusual about the fit, for places where labels say it."""
    return name(row).partition(VARIANT)[0]


def in_set(target: str, row: Record) -> bool:
    """Return whether a target belongs to the target set of a row: A and B are parts of the twelve, others are whole."""
    return row["stimulus_set"] not in ("A", "B") or target.startswith(row["stimulus_set"])


def better(row: Record) -> int:
    """Return the sign that makes greater better."""
    return -1 if row["direction"] == "lower" else 1


def family(row: Record) -> tuple[int, bool, bool]:
    """Return what kind of metrics a row belongs to: by-product or image, corrected or not, within sets or not.

    Metrics of one kind stand in one table and are one family for corrections of p-values. Kinds are ordered.
    """
    kind = summary.kind(row["metric"])
    number = BYPRODUCTS.index(kind) + 1 if kind in BYPRODUCTS else 0
    return (number, row["metric"].endswith("_corrected"), row["pool"].startswith("within"))


def floors(row: Record, scores: TargetScores) -> stats.Floats:
    """Return what each target would score by chance: the constant of two-way identification, else the stored floors.

    NaN where nothing is known, as in published scores of single pairs.
    """
    two_way = summary.kind(row["metric"]) != "retrieval"  # which has a pool as well, but another chance level
    level = summary.chance(row["metric_profile"], row["pool"]) if two_way else None
    return scores.floors if level is None else np.full(scores.values.shape, level)


def holm_within(p: Sequence[float], families: Sequence[Hashable]) -> list[float]:
    """Return p-values after Holm's correction within each family."""
    out = [1.0] * len(p)
    members: dict[Hashable, list[int]] = {}
    for i, one in enumerate(families):
        members.setdefault(one, []).append(i)
    for places in members.values():
        for i, corrected in zip(places, stats.holm([p[i] for i in places]), strict=True):
            out[i] = float(corrected)
    return out


def by_shape(arrays: Mapping[int, stats.Floats]) -> list[list[int]]:
    """Return the keys of arrays of equal shape together, so that one call serves all of them."""
    found: dict[tuple[int, ...], list[int]] = {}
    for key, array in arrays.items():
        found.setdefault(array.shape, []).append(key)
    return list(found.values())


def column_order(metric: str) -> tuple[int, str]:
    """Return a sorting key that puts metrics in the order of the registry, others after them by name."""
    known, base = list(METRICS), summary.base_name(metric)
    return (known.index(base) if base in known else len(known), metric)


def knows_sets(row: Record) -> bool:
    """Whether knowing the set of a target, and nothing else, would help in this score."""
    return (
        row["pool"] == "AB12"
        and row["stimulus_set"] == "AB"
        and summary.kind(row["metric"]) == "identification"
    )


def set_score(row: Record) -> float:
    """Return the two-way score of a decoder that tells the sets apart and guesses within them."""
    n = len(IMAGERY_TARGETS)
    best = float(np.mean(category_two_way(group_sizes(n, pools(IMAGERY_TARGETS)["within6"]), n)))
    return best - (0.5 - (row["chance"] or 0.5))  # published scores may all lie lower
