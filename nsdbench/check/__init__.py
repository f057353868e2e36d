"""Regression check: do new item scores still reach those of a baseline?

Identical reconstructions must give identical scores, item by item, up to rounding. Regenerated reconstructions may
differ; they fail only if a loss beyond the tolerated one is certain, all metrics of a model and split considered.
What the baseline has and the new result lacks is a failure too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from nsdbench import leaderboard
from nsdbench.check import identical, regenerated
from nsdbench.check.cells import Cell, Name, cells
from nsdbench.check.findings import ALPHA, Change, Failure, Item, Report, Rules
from nsdbench.comparison import results
from nsdbench.errors import LeaderboardError, UsageError

__all__ = ["ALPHA", "Change", "Failure", "Item", "Name", "Report", "Rules", "check", "save_baseline"]


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
    old, new = cells(old_items), cells(new_items)
    unknown = sorted(rules.losses.keys() - {name.metric for name in old})
    if unknown:
        raise UsageError(
            f"--tolerance names {unknown[0]!r}, which is not in {baseline}",
            remedy=f"Choose from: {', '.join(sorted({name.metric for name in old}))}.",
        )
    same = _same_runs(old_items, new_items)
    report = Report()
    contrasts: dict[tuple[str, ...], list[tuple[Cell, Cell]]] = {}
    for name, cell in sorted(old.items()):
        contrasts.setdefault(name.contrast, []).append((cell, new.get(name, Cell(name))))
    for pairs in contrasts.values():
        report += _contrast(pairs, same, rules)
    return report


def save_baseline(paths: Sequence[Path], baseline: Path) -> int:
    """Write all item scores below ``paths`` to one file that later results can be checked against.

    Returns
    -------
    int
        How many item scores it holds.

    Raises
    ------
    UsageError
        If the baseline is a folder.
    LeaderboardError
        If there are no item scores, or a file is unreadable; the old baseline is then kept.
    """
    if baseline.is_dir():
        raise UsageError(
            f"a baseline is written to a file, and {baseline} is a folder",
            remedy="Name a file, such as baseline_items.parquet.",
        )
    items = results.items(paths)
    if not len(items):
        raise LeaderboardError(
            f"{', '.join(map(str, paths))}: no item scores found", remedy="Run or score first."
        )
    leaderboard.write_items(baseline, items)
    return len(items)


def _same_runs(old_items: pa.Table, new_items: pa.Table) -> set[tuple[str, str]]:
    """Return the pairs of an old and a new run id whose reconstructions have the same SHA-256."""
    runs: dict[str, list[str]] = {}
    for run_id, sha256 in leaderboard.reconstructions(new_items).items():
        runs.setdefault(sha256, []).append(run_id)
    old = leaderboard.reconstructions(old_items)
    return {(run_id, other) for run_id, sha256 in old.items() for other in runs.get(sha256, ())}


def _contrast(pairs: Sequence[tuple[Cell, Cell]], same: set[tuple[str, str]], rules: Rules) -> Report:
    """Check the cells of one model and split, which share subjects and targets."""
    found = Report()
    family = []
    for old, new in pairs:
        shared = old.runs.keys() & new.runs.keys()
        equal = {s for s in shared if rules.exact or (old.runs[s], new.runs[s]) in same}
        found += Report(
            failures=tuple(_missing(old, new, equal, rules)),
            compared=len(old.values.keys() & new.values.keys()),
            cells=int(bool(new.values)),
        )
        if new.values and old.versions == new.versions:
            found += identical.check(old, new, equal)
            family.append((old, new, shared - equal))
    return found + regenerated.check(family, rules)


def _missing(old: Cell, new: Cell, equal: set[int], rules: Rules) -> list[Failure]:
    """Compare what is present: targets of regenerated subjects, single samples of identical ones."""
    if new.values and old.versions != new.versions:
        before, after = (", ".join(map(str, sorted(cell.versions))) for cell in (old, new))
        return [Failure("version", old.name, f"metric version {before} became {after}; renew the baseline")]
    if rules.allow_missing:
        return []
    if not new.values:
        return [Failure("missing", old.name, "no scores at all")]
    absent = [key for key in old.values.keys() - new.values.keys() if key[0] in equal]
    targets = {key[:2] for key, value in old.values.items() if value is not None and key[0] not in equal}
    targets -= {key[:2] for key, value in new.values.items() if value is not None}
    found = sorted(
        [f"subject {s} {t} sample {k}" for s, t, k in absent] + [f"subject {s} {t}" for s, t in targets]
    )
    if not found:
        return []
    return [Failure("missing", old.name, f"{len(found)} scores are missing, first: {found[0]}")]
