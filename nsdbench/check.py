"""Regression check: do new item scores still reach those of a baseline?

Identical reconstructions must give identical scores, item by item, up to rounding. Regenerated reconstructions may
differ; they fail only if the one-sided 95 % interval of the paired difference lies below a tolerated loss. What the
baseline has and the new result lacks is a failure too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nsdbench import leaderboard, stats, summary
from nsdbench.comparison import results
from nsdbench.comparison.tables import number
from nsdbench.errors import LeaderboardError, UsageError

TWO_WAY_LOSS, OTHER_LOSS = 0.02, 0.01
ROUNDING = 1e-6
SSIM_ROUNDING = 1e-5  # float32 variances of flat regions cancel
WORST = 5

ItemKey = tuple[int, str, int]  # subject, stimulus, sample


@dataclass(frozen=True)
class Failure:
    """One reason why the check fails.

    Attributes
    ----------
    kind : {"missing", "version", "changed", "worse"}
        Something is absent; the metric's definition changed; identical reconstructions score otherwise; regenerated
        reconstructions score worse.
    cell : str
        Data set, model, preset, split, metric, profile and pool.
    message : str
        What happened, in numbers.
    worst : tuple of dict
        The items that lost most: subject, stimulus, sample (None for averages), old, new.
    """

    kind: str
    cell: str
    message: str
    worst: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Report:
    """Outcome of a check: failures, and how many item scores were compared in how many cells."""

    failures: tuple[Failure, ...]
    compared: int
    cells: int

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def document(self) -> dict[str, Any]:
        """Return the JSON document of the command line."""
        return {"ok": self.ok, "failures": [asdict(f) for f in self.failures], "compared": self.compared}


@dataclass(frozen=True)
class Rules:
    """How strict a check is.

    Attributes
    ----------
    losses : mapping of str to float
        Tolerated loss by metric; otherwise 0.02 for identification and retrieval, and 0.01 for the rest.
    exact : bool
        Require equal items even where it is not known that the reconstructions are identical.
    allow_missing : bool
        Compare what is there and do not fail for the rest.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    exact: bool = False
    allow_missing: bool = False

    def loss(self, metric: str, pool: str) -> float:
        """Return the tolerated loss of a metric."""
        return self.losses.get(metric, OTHER_LOSS if pool == "none" else TWO_WAY_LOSS)


@dataclass(frozen=True)
class _Cell:
    """The items of one model, split, metric, profile and pool."""

    name: tuple[str, ...]
    versions: set[int] = field(default_factory=set)
    runs: dict[int, str] = field(default_factory=dict)
    values: dict[ItemKey, float | None] = field(default_factory=dict)

    @property
    def label(self) -> str:
        dataset, model, preset, split, metric, profile, pool = self.name
        where = f"{metric} ({profile}{'' if pool == 'none' else f', {pool}'})"
        return f"{dataset} {model}-{preset} {split} {where}"


def check(paths: Sequence[Path], baseline: Path, rules: Rules | None = None) -> Report:
    """Compare the item scores below ``paths`` with those of ``baseline``.

    Reconstructions count as identical if the SHA-256 stored with both item tables agree.

    Raises
    ------
    LeaderboardError
        If a file is unreadable or there are no item scores.
    UsageError
        If a tolerance names a metric that the baseline lacks.
    """
    rules = rules or Rules()
    old_items, new_items = leaderboard.read_items(baseline), results.items(paths)
    if not len(old_items) or not len(new_items):
        raise LeaderboardError(
            f"{baseline if not len(old_items) else ', '.join(map(str, paths))}: no item scores found",
            remedy="Give run folders or files of item scores; leaderboards hold only averages.",
        )
    old, new = _cells(old_items), _cells(new_items)
    unknown = sorted(rules.losses.keys() - {cell.name[4] for cell in old.values()})
    if unknown:
        raise UsageError(f"--tolerance names {unknown[0]!r}, which is not in {baseline}")
    hashes = leaderboard.reconstructions(old_items), leaderboard.reconstructions(new_items)
    failures: list[Failure] = []
    compared = 0
    for name, cell in sorted(old.items()):
        other = new.get(name, _Cell(name))
        failures += _compare(cell, other, _identical(cell, other, hashes, rules), rules)
        compared += len(cell.values.keys() & other.values.keys())
    return Report(tuple(failures), compared, len(old.keys() & new.keys()))


def save_baseline(paths: Sequence[Path], baseline: Path) -> int:
    """Write all item scores below ``paths`` to one file that later results can be checked against.

    Returns
    -------
    int
        How many item scores it holds.

    Raises
    ------
    LeaderboardError
        If there are no item scores, or a file is unreadable; the old baseline is then kept.
    """
    items = results.items(paths)
    if not len(items):
        raise LeaderboardError(
            f"{', '.join(map(str, paths))}: no item scores found", remedy="Run or score first."
        )
    leaderboard.write_items(baseline, items)
    return len(items)


def _cells(items: pa.Table) -> dict[tuple[str, ...], _Cell]:
    cells: dict[tuple[str, ...], _Cell] = {}
    names = ("dataset", "model", "preset", "split", "metric", "metric_profile", "pool")
    more = ("metric_version", "run_id", "subject", "stimulus", "sample", "value")
    columns = (items[name].to_pylist() for name in (*names, *more))
    for *name, version, run_id, subject, stimulus, sample, value in zip(*columns, strict=True):
        cell = cells.setdefault(tuple(name), _Cell(tuple(name)))
        if cell.runs.setdefault(subject, run_id) != run_id:
            raise LeaderboardError(
                f"{cell.label}: two runs of subject {subject} ({cell.runs[subject]}, {run_id})",
                remedy="Check one run per model, subject and split.",
            )
        cell.versions.add(version)
        cell.values[subject, stimulus, sample] = value
    return cells


def _identical(
    old: _Cell, new: _Cell, hashes: tuple[dict[str, str], dict[str, str]], rules: Rules
) -> set[int]:
    """Return the subjects whose reconstructions are known, or required, to be identical."""
    shared = old.runs.keys() & new.runs.keys()
    if rules.exact:
        return set(shared)
    pairs = {s: (hashes[0].get(old.runs[s]), hashes[1].get(new.runs[s])) for s in shared}
    return {s for s, (a, b) in pairs.items() if a is not None and a == b}


def _compare(old: _Cell, new: _Cell, identical: set[int], rules: Rules) -> Iterator[Failure]:
    if not new.values:
        if not rules.allow_missing:
            yield Failure("missing", old.label, "no scores at all")
        return
    if old.versions != new.versions:
        versions = [", ".join(map(str, sorted(cell.versions))) for cell in (old, new)]
        yield Failure(
            "version", old.label, f"metric version {versions[0]} became {versions[1]}; renew the baseline"
        )
        return
    if not rules.allow_missing:
        yield from _missing(old, new, identical)
    yield from _changed(old, new, identical)
    yield from _worse(old, new, set(old.runs) - identical, rules)


def _missing(old: _Cell, new: _Cell, identical: set[int]) -> Iterator[Failure]:
    """Compare what is present: targets of regenerated subjects, single samples of identical ones."""
    absent = [key for key in old.values.keys() - new.values.keys() if key[0] in identical]
    targets = {key[:2] for key, value in old.values.items() if value is not None and key[0] not in identical}
    targets -= {key[:2] for key, value in new.values.items() if value is not None}
    found = sorted(
        [f"subject {s} {t} sample {k}" for s, t, k in absent] + [f"subject {s} {t}" for s, t in targets]
    )
    if found:
        yield Failure("missing", old.label, f"{len(found)} scores are missing, first: {found[0]}")


def _changed(old: _Cell, new: _Cell, identical: set[int]) -> Iterator[Failure]:
    """Compare identical reconstructions item by item."""
    rounding = SSIM_ROUNDING if old.name[4] == "ssim" else ROUNDING
    keys = [key for key in old.values.keys() & new.values.keys() if key[0] in identical]
    moved = [key for key in keys if _distance(old.values[key], new.values[key]) > rounding]
    if moved:
        moved.sort(key=lambda key: (-_distance(old.values[key], new.values[key]), key))
        worst = tuple(_item(*key, old.values[key], new.values[key]) for key in moved[:WORST])
        message = f"{len(moved)} of {len(keys)} scores of identical reconstructions changed (more than {rounding:g})"
        yield Failure("changed", old.label, message, worst)


def _distance(old: float | None, new: float | None) -> float:
    if old is None or new is None:
        return 0.0 if old is new else float("inf")
    return abs(new - old)


def _item(
    subject: int, stimulus: str, sample: int | None, old: float | None, new: float | None
) -> dict[str, Any]:
    return {"subject": subject, "stimulus": stimulus, "sample": sample, "old": old, "new": new}


def _worse(old: _Cell, new: _Cell, subjects: set[int], rules: Rules) -> Iterator[Failure]:
    """Compare regenerated reconstructions: mean over samples per target, paired over subjects and targets."""
    before, after = (_target_means(cell, subjects) for cell in (old, new))
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return
    lower = summary.direction(old.name[4]) == "lower"
    difference = stats.paired_differences(
        _matrix(after, shared), _matrix(before, shared), lower_is_better=lower
    )
    found = stats.bca(difference[None], level=0.90)  # its upper limit is the one-sided 95 % bound
    estimate, bound = float(found.estimate[0]), float(found.high[0])
    loss = rules.loss(old.name[4], old.name[6])
    if (estimate if np.isnan(bound) else bound) < -loss:
        order = sorted(
            shared, key=lambda key: (before[key] - after[key]) if lower else (after[key] - before[key])
        )
        worst = tuple(_item(*key, None, before[key], after[key]) for key in order[:WORST])
        limit = "a single target" if np.isnan(bound) else f"95 % sure of at least {number(-bound)}"
        yield Failure(
            "worse", old.label, f"worse by {number(-estimate)}, {limit}; tolerated {number(loss)}", worst
        )


def _matrix(values: Mapping[tuple[int, str], float], keys: Sequence[tuple[int, str]]) -> stats.Floats:
    """Return the values of ``keys`` as (n_subjects, n_targets), NaN where a pair is not among them."""
    subjects, targets = (
        {name: i for i, name in enumerate(dict.fromkeys(side))} for side in zip(*keys, strict=True)
    )
    matrix = np.full((len(subjects), len(targets)), np.nan)
    for subject, target in keys:
        matrix[subjects[subject], targets[target]] = values[subject, target]
    return matrix


def _target_means(cell: _Cell, subjects: set[int]) -> dict[tuple[int, str], float]:
    samples: dict[tuple[int, str], list[float]] = {}
    for (subject, stimulus, _), value in cell.values.items():
        if subject in subjects and value is not None:
            samples.setdefault((subject, stimulus), []).append(value)
    return {key: float(np.mean(values)) for key, values in samples.items()}
