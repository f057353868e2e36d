"""Finding results on disk: run folders, leaderboards and item scores below any path, and what shipped with nsdbench."""

from __future__ import annotations

import datetime
import importlib.resources
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from nsdbench import groups, leaderboard, summary
from nsdbench.errors import LeaderboardError
from nsdbench.schema import Provenance
from nsdbench.store import digest
from nsdbench.types import SPLITS

T = TypeVar("T")
PUBLISHED_ITEMS = "nsd_imagery_items.parquet"
# Rows that agree in these are the same result at different times; the newest one counts.
_SAME_RESULT = (
    "dataset", "model", "preset", "split", "subject", "stimulus_set", "metric", "metric_profile", "pool", "status",
    "source", "beta_version", "normalization", "averaging", "label_source", "weights_id",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """Leaderboard rows together with the item scores behind them, as far as these are at hand.

    Attributes
    ----------
    rows : list of dict
        Leaderboard rows, one per result: older duplicates are left out.
    items : pa.Table
        Item scores of the runs that were found.
    notes : tuple of str
        What was left out and why.
    folders : mapping of str to Path
        Folder of each run that was found as one, by run id.
    groups : tuple of mapping of int to str
        Runs (subject -> run id) that were averaged.
    """

    rows: list[dict[str, Any]]
    items: pa.Table
    notes: tuple[str, ...]
    folders: Mapping[str, Path] = field(default_factory=dict)
    groups: tuple[Mapping[int, str], ...] = ()

    def runs(self) -> dict[str, dict[int, str]]:
        """Return, per run id of a row, the runs (subject -> run id) whose items it summarizes."""
        names = ["dataset", "model", "preset", "split", "subject", "run_id"]
        first = groups.take(self.items.select(names), groups.starts(self.items, ["run_id"]))
        found: dict[str, dict[int, str]] = {}
        members: dict[tuple[str, ...], dict[int, str]] = {}
        for *key, subject, run_id in zip(*(first[name].to_pylist() for name in names), strict=True):
            found[run_id] = {subject: run_id}
            members.setdefault(tuple(key), {})[subject] = run_id
        wanted = {row["run_id"] for row in self.rows}
        for group in (*members.values(), *self.groups):
            if len(group) > 1 and (joint := digest(*sorted(group.values()))) in wanted:
                found[joint] = dict(group)
        return found


def published_directory() -> Path:
    """Return the folder of the leaderboards that ship with nsdbench.

    Raises
    ------
    LeaderboardError
        If this installation lacks them.
    """
    folder = Path(str(importlib.resources.files("nsdbench"))) / "leaderboards"
    if not (folder / PUBLISHED_ITEMS).is_file():
        raise LeaderboardError(
            f"{folder} does not hold the published leaderboards", remedy="Install nsdbench again."
        )
    return folder


def published_files() -> list[Path]:
    """Return the published leaderboards and the authors' item scores that ship with nsdbench."""
    folder = published_directory()
    return [*(folder / f"{split}.parquet" for split in SPLITS), folder / PUBLISHED_ITEMS]


def collect(paths: Iterable[Path]) -> Results:
    """Read everything below ``paths``: run folders, leaderboard files and directories, item files.

    Rows of run folders are computed from their item scores, jointly over subjects; of several runs of the same
    model, subject, split and settings the newest counts. Unfinished runs are left out with a note.

    Raises
    ------
    LeaderboardError
        If a path is missing, or a file is not a table of nsdbench.
    """
    found = _find(paths)
    runs = found.newest_runs()
    averaged = _grouped(runs, lambda run: run.settings)
    for group in averaged:
        joined = leaderboard.merge_items(run.items for run in group)
        found.rows.append(leaderboard.summarize(joined, {run.run_id: run.provenance for run in group}))
    rows = _newest(
        # what is computed now comes last and wins over what an older version wrote about the same scores
        chain.from_iterable(table.to_pylist() for table in found.rows),
        key=lambda row: tuple(row[name] for name in _SAME_RESULT),
        age=lambda row: (row["metric_version"], row["n_subjects"] or 0, row["created_at"] or ""),
    )
    rows.sort(key=lambda row: [(row[name] is None, row[name]) for name in leaderboard.LEADERBOARD_KEY])
    notes = []
    if found.unfinished:
        notes.append(f"{len(found.unfinished)} unfinished run(s) left out, first: {found.unfinished[0]}")
    if older := len(found.runs) - len(runs):
        notes.append(f"{older} older run(s) of the same model, subject, split and settings left out")
    if early := [run.folder for run in runs if _is_future(run.provenance.created_at)]:
        notes.append(
            f"{len(early)} run(s) dated in the future, when a clock was wrong; they hide later ones, first: {early[0]}"
        )
    return Results(
        rows,
        _joined(found, runs),
        tuple(notes),
        {run.run_id: run.folder for run in runs},
        tuple({run.subject: run.run_id for run in group} for group in averaged),
    )


def items(paths: Iterable[Path]) -> pa.Table:
    """Return all item scores that :func:`collect` would find, without computing anything from them."""
    found = _find(paths)
    return _joined(found, found.newest_runs())


def _joined(found: _Found, runs: list[_Run]) -> pa.Table:
    return leaderboard.merge_items([*found.items, *(run.items for run in runs)])


def _find(paths: Iterable[Path]) -> _Found:
    found = _Found()
    for path in paths:
        found.add(path)
    return found


@dataclass(frozen=True)
class _Found:
    """What lies below the given paths."""

    runs: list[_Run] = field(default_factory=list)
    rows: list[pa.Table] = field(default_factory=list)
    items: list[pa.Table] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)

    def add(self, path: Path) -> None:
        if not path.is_dir():
            self._add_file(path)
        elif (path / "run.json").is_file():
            self.runs.append(_run(path))  # named by the user: an unfinished one is an error
        else:
            for document in sorted(path.rglob("run.json")):
                self._add_folder(document.parent)
            for file in leaderboard.parquet_files(path):
                if not (file.parent / "run.json").is_file():
                    self._add_file(file)

    def _add_folder(self, folder: Path) -> None:
        if leaderboard.run_document(folder).get("status") == "complete":
            self.runs.append(_run(folder))
        else:
            self.unfinished.append(folder)

    def _add_file(self, path: Path) -> None:
        table = leaderboard.read_file(path)
        (self.items if "stimulus" in table.column_names else self.rows).append(table)

    def newest_runs(self) -> list[_Run]:
        return _newest(
            self.runs,
            key=lambda run: (*run.settings, run.subject),
            age=lambda run: run.provenance.created_at or "",
        )


@dataclass(frozen=True)
class _Run:
    """One complete run folder."""

    folder: Path
    items: pa.Table
    provenance: Provenance

    @property
    def run_id(self) -> str:
        return str(self.items["run_id"][0].as_py())

    @property
    def subject(self) -> int:
        return int(self.items["subject"][0].as_py())

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the runs of different subjects must share to be averaged."""
        p = self.provenance
        facts = (
            p.status,
            p.stimulus_hash,
            p.beta_version,
            p.normalization,
            p.averaging,
            p.label_source,
            summary.is_untrained(
                p.weights_id
            ),  # which trained networks were used differs by metric, not by run
        )
        return (*(self.items[name][0].as_py() for name in ("dataset", "model", "preset", "split")), *facts)


def _run(folder: Path) -> _Run:
    items = leaderboard.read_items(folder)
    if not len(items):
        raise LeaderboardError(
            f"{folder / 'scores.parquet'} holds no scores", remedy="Run or score it again."
        )
    return _Run(folder, items, leaderboard.run_provenance(folder))


def _is_future(date: str | None) -> bool:
    """Say whether a date in ISO 8601 is later than tomorrow; one that cannot be read is not."""
    try:
        then = datetime.datetime.fromisoformat(date or "")
    except ValueError:
        return False
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return then > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)


def _newest(things: Iterable[T], *, key: Callable[[T], Any], age: Callable[[T], Any]) -> list[T]:
    """Return one of the things that share a key: the one of the greatest age mark, the last among equals."""
    best: dict[Any, T] = {}
    for thing in things:
        name = key(thing)
        if name not in best or age(thing) >= age(best[name]):
            best[name] = thing
    return list(best.values())


def _grouped(things: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    groups: dict[Any, list[T]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.values())
