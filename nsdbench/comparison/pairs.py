"""Model against model: paired differences on the same subjects and targets, and who cannot be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nsdbench import stats, summary
from nsdbench.comparison.blocks import Line
from nsdbench.comparison.scores import SHARED, Record, ScoreIndex, better, by_shape, family, holm_within, name

_NUMBERS = (
    "value", "low", "high", "superiority", "p", "p_contrast", "p_column", "n_targets", "n_subjects",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two models on one metric and split.

    Attributes
    ----------
    first, second : dict
        Their leaderboard rows.
    value : float
        First minus second, the sign turned so that positive means the first is better.
    low, high : float
        95 % limits, targets resampled jointly for both models and all subjects.
    superiority : float
        Probability that the first is better on a target; ties count half.
    p : float
        Two-sided sign flips over targets.
    p_contrast : float
        Holm over the metrics of these two models: may they be said to differ in this metric?
    p_column : float
        Holm over all pairs of models in this metric: the letters of a table.
    n_targets, n_subjects : int
    """

    first: Record
    second: Record
    value: float
    low: float
    high: float
    superiority: float
    p: float
    n_targets: int
    n_subjects: int
    p_contrast: float = 1.0
    p_column: float = 1.0

    @property
    def differ(self) -> bool:
        """Whether the two can be told apart in this metric among all pairs of models."""
        return self.p_column <= summary.ALPHA

    def document(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {
            **{name: self.first[name] for name in SHARED},
            "first": name(self.first),
            "second": name(self.second),
            **numbers,
        }


def pairs(
    index: ScoreIndex, models: Sequence[Line], floors: Sequence[Line] = (), *, seed: int = 0
) -> list[Pair]:
    """Compare every two models, or every model with every floor, in every metric that both have with item scores.

    Parameters
    ----------
    index : ScoreIndex
    models : sequence of Line
        Lines of one block, so that their protocol keys agree.
    floors : sequence of Line
        Of the same block; if given, models are compared with them and not with each other.
    seed : int
    """
    couples = itertools.product(models, floors) if floors else itertools.combinations(models, 2)
    wanted = [
        (a.rows[metric], b.rows[metric])
        for a, b in couples
        for metric in a.rows
        if metric in b.rows and "untrained" not in (a.rows[metric]["status"], b.rows[metric]["status"])
    ]
    differences: dict[int, stats.Floats] = {}
    for i, rows in enumerate(wanted):
        sides = [index.of(row) for row in rows]
        if sides[0] and sides[1] and sides[0].subjects == sides[1].subjects:
            targets = sorted({*sides[0].targets, *sides[1].targets})
            a, b = (side.on(targets) for side in sides if side)
            differences[i] = stats.paired_differences(a, b, lower_is_better=better(rows[0]) < 0)
    found: dict[int, Pair] = {}
    for places in by_shape(differences):
        found |= _compared(places, np.stack([differences[i] for i in places]), wanted, seed)
    return _corrected([found[i] for i in sorted(found)])


def _compared(
    places: Sequence[int], differences: stats.Floats, wanted: Sequence[tuple[Record, Record]], seed: int
) -> dict[int, Pair]:
    if differences.shape[2] < 2 or np.isnan(differences).all():
        return {}
    limits = stats.bca(differences, level=summary.LEVEL, seed=seed)
    p = stats.sign_flips(differences, seed=seed).p_two_sided()
    wins = stats.superiority(differences)
    columns = np.stack([limits.estimate, limits.low, limits.high, wins, p], axis=1).tolist()
    n_subjects, n_targets = differences.shape[1:]
    return {
        place: Pair(*wanted[place], value, low, high, superiority, one, n_targets, n_subjects)
        for place, (value, low, high, superiority, one) in zip(places, columns, strict=True)
    }


def _corrected(found: Sequence[Pair]) -> list[Pair]:
    p = [pair.p for pair in found]
    contrasts = holm_within(p, [(family(one.first), _name(one.first), _name(one.second)) for one in found])
    columns = holm_within(p, [(one.first["metric"], one.first["pool"]) for one in found])
    return [
        replace(pair, p_contrast=a, p_column=b) for pair, a, b in zip(found, contrasts, columns, strict=True)
    ]


def _name(row: Record) -> tuple[Any, ...]:
    return (row["run_id"], row["source"], row["model"])


def letters(ordered: Sequence[Line], metric: str, found: Sequence[Pair]) -> Mapping[int, str]:
    """Return the letters of a column by ``id`` of row: models that share one cannot be told apart.

    Empty where fewer than two models can be compared, or a model lacks item scores: no letter says anything then.
    """
    rows = sorted(
        (line.rows[metric] for line in ordered if metric in line.rows),
        key=lambda row: -better(row) * row["value"],
    )
    place = {id(row): i for i, row in enumerate(rows)}
    here = [pair for pair in found if id(pair.first) in place and id(pair.second) in place]
    if len(rows) < 2 or len(here) < len(rows) * (len(rows) - 1) // 2:
        return {}
    differ = np.zeros((len(rows), len(rows)), bool)
    for pair in here:
        i, j = place[id(pair.first)], place[id(pair.second)]
        differ[i, j] = differ[j, i] = pair.differ
    return dict(zip(place, stats.tie_letters(differ), strict=True))
