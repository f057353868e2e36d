"""Regenerated reconstructions may differ from those of the baseline, but must not be worse beyond doubt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nsdbench import stats, summary
from nsdbench.check.cells import Cell
from nsdbench.check.findings import ALPHA, BOUNDS, WORST, Change, Failure, Item, Report, Rules
from nsdbench.comparison.tables import number

ROUNDING = 1e-6

Means = dict[tuple[int, str], float]  # subject and target -> mean over samples
Pair = tuple[Cell, Means, Means]  # a cell before and after


def check(family: Iterable[tuple[Cell, Cell, set[int]]], rules: Rules) -> Report:
    """Compare all metrics and pools of one model and split, paired over subjects and targets.

    A loss fails only if two things say that it is greater than tolerated: the one-sided 95 % bound of its own
    interval, and sign flips corrected for the whole family by the distribution of their maximum. Bounds alone give every
    metric its own chance of a false alarm; docs/regression-check.md says how many that makes.

    Parameters
    ----------
    family : iterable of (Cell, Cell, set of int)
        Old and new cell, and the subjects whose reconstructions were regenerated.
    rules : Rules
    """
    pairs = [(old, _means(old, subjects), _means(new, subjects)) for old, new, subjects in family]
    pairs = [pair for pair in pairs if pair[1].keys() & pair[2].keys()]
    if not pairs:
        return Report()
    differences = _differences(pairs)
    losses = np.array([rules.loss(old.name) for old, _, _ in pairs])
    changes = _changes(differences, losses)
    found = Report(notes=_notes(pairs, differences.shape[2]))
    for (old, before, after), change in zip(pairs, changes, strict=True):
        if change.verdict == "failed":
            found += Report(failures=(_failure(old, before, after, change),))
        elif abs(change.value) > ROUNDING or change.verdict != "uncertain":
            found += Report(moved=((old.name, change),))
    return found


def _means(cell: Cell, subjects: set[int]) -> Means:
    samples: dict[tuple[int, str], list[float]] = {}
    for (subject, stimulus, _), value in cell.values.items():
        if subject in subjects and value is not None:
            samples.setdefault((subject, stimulus), []).append(value)
    return {key: sum(values) / len(values) for key, values in samples.items()}


def _differences(pairs: Sequence[Pair]) -> stats.Floats:
    """Return new minus old, positive for better, as (n_cells, n_subjects, n_targets); NaN where a side is missing."""
    shared = [before.keys() & after.keys() for _, before, after in pairs]
    subjects, targets = (
        {name: i for i, name in enumerate(sorted(set(side)))}
        for side in zip(*set().union(*shared), strict=True)
    )
    out = np.full((len(pairs), len(subjects), len(targets)), np.nan)
    for row, (keys, (old, before, after)) in enumerate(zip(shared, pairs, strict=True)):
        sign = -1.0 if summary.direction(old.name.metric) == "lower" else 1.0
        for subject, target in keys:
            key = subject, target
            out[row, subjects[subject], targets[target]] = sign * (after[key] - before[key])
    return out


def _changes(differences: stats.Floats, losses: NDArray[np.float64]) -> list[Change]:
    low, high = _bounds(differences)
    p = stats.sign_flips(-(differences + losses[:, None, None])).p_family()
    values = stats.subject_means(differences)
    counts = (~np.isnan(differences)).sum(axis=2)
    return [
        Change(
            value=float(values[i]),
            low=None if np.isnan(low[i]) else float(low[i]),
            high=None if np.isnan(high[i]) else float(high[i]),
            p=float(p[i]),
            n_metrics=len(values),
            n_targets=int(counts[i][counts[i] > 0].min()),
            n_subjects=int((counts[i] > 0).sum()),
            tolerated=float(losses[i]),
        )
        for i in range(len(values))
    ]


def _bounds(differences: stats.Floats) -> tuple[stats.Floats, stats.Floats]:
    """Return both one-sided 95 % bounds of every row, rows of the same targets together."""
    present = ~np.isnan(differences)
    low, high = np.empty((2, len(differences)))
    groups: dict[bytes, list[int]] = {}
    for row, mask in enumerate(present):
        groups.setdefault(mask.tobytes(), []).append(row)
    for rows in groups.values():
        targets = present[rows[0]].any(axis=0)
        found = stats.bca(differences[rows][:, :, targets], level=BOUNDS)
        low[rows], high[rows] = found.low, found.high
    return low, high


def _notes(pairs: Sequence[Pair], n_targets: int) -> tuple[str, ...]:
    """Say where there are too few targets for any p-value to be small."""
    if 2.0**-n_targets <= ALPHA:
        return ()
    return (
        f"{pairs[0][0].name.where}: {n_targets} target(s) are too few for a loss to be certain; nothing can fail",
    )


def _failure(old: Cell, before: Means, after: Means, change: Change) -> Failure:
    sign = -1 if summary.direction(old.name.metric) == "lower" else 1
    order = sorted(before.keys() & after.keys(), key=lambda key: (sign * (after[key] - before[key]), key))
    worst = tuple(Item(*key, None, before[key], after[key]) for key in order[:WORST])
    sure = f"95 % sure of at least {number(-(change.high or 0.0))}, tolerated {number(change.tolerated)}"
    message = f"worse by {number(-change.value)} ({sure}; {change.evidence}; {change.sizes})"
    return Failure("worse", old.name, message, worst, change)
