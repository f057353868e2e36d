"""The trial tables of the NSD-Imagery session: twelve TSV files become labels for 720 beta rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.facts import Run, letters, runs, targets
from nsdbench.data.foreign import read_mat, read_rows
from nsdbench.data.layout import Layout, again, fetch_command
from nsdbench.errors import DataError, IntegrityError

_COLUMNS = ("RUN", "TRIAL", "CONDITION", "CUE", "FRAMEFILE", "TRIALONSET")
_FILE_NAME = re.compile(r"[\w.+ -]+")
_NSD_NAME = re.compile(r"shared\d{4}_nsd(\d{5})$")


@dataclass(frozen=True)
class RunTable:
    """The behavioural trials of one run, sorted by trial number."""

    path: Path
    run: Run
    numbers: tuple[int, ...]  # column RUN
    trials: tuple[int, ...]
    conditions: str  # one letter per trial
    cues: str
    frames: tuple[str, ...]
    onsets: tuple[float, ...]


@dataclass(frozen=True)
class SessionLabels:
    """Labels of the 432 vision and imagery rows of the beta file, in row order.

    Attributes
    ----------
    rows : int array of shape (432,)
        0-based beta rows; attention rows are left out.
    run : int array of shape (432,)
        Acquisition run number, 1 ... 12.
    condition, cue : str arrays of shape (432,)
        Letter of the target seen or imagined, and letter on the screen.
    """

    rows: NDArray[np.int64]
    run: NDArray[np.int64]
    condition: NDArray[np.str_]
    cue: NDArray[np.str_]


def read_session(layout: Layout, subject: int) -> tuple[RunTable, ...]:
    """Read the 12 trial tables of a subject in acquisition order.

    Raises
    ------
    IntegrityError
        ``run_files`` if there are not exactly the 12 tables.
    DataError
        If a table lacks a column or holds an unreadable number.
    """
    found = {p.name for p in layout.run_folder().glob(f"nsdimagery_subj{subject:02d}_*.tsv")}
    expected = {layout.run_table(subject, run.name).name for run in runs()}
    if found != expected:
        odd = ", ".join(sorted(found ^ expected)[:3])
        raise IntegrityError(
            "run_files",
            f"{layout.run_folder()} holds {len(found & expected)} of the 12 trial tables of subject {subject} "
            f"(missing or unexpected: {odd})",
            remedy=f"Fetch them: `{fetch_command(layout.run_table(subject, runs()[0].name))}`.",
        )
    return tuple(read_run(layout.run_table(subject, run.name), run) for run in runs())


def read_run(path: Path, run: Run) -> RunTable:
    """Read one trial table and sort it by trial number (a beta block follows TRIAL, blanks have no row)."""
    try:
        records = sorted((_record(row) for row in read_rows(path, _COLUMNS)), key=lambda r: r["TRIAL"])
    except (ValueError, OverflowError) as error:  # infinite numbers overflow
        raise DataError(f"{path} holds an unreadable number: {error}", remedy=again(path)) from error

    def column(name: str) -> tuple[Any, ...]:
        return tuple(record[name] for record in records)

    return RunTable(
        path=path,
        run=run,
        numbers=column("RUN"),
        trials=column("TRIAL"),
        conditions="".join(map(_letter, column("CONDITION"))),
        cues="".join(map(_letter, column("CUE"))),
        frames=column("FRAMEFILE"),
        onsets=column("TRIALONSET"),
    )


def _letter(cell: str) -> str:
    """Return a cell that holds one letter; anything else (empty, ``NaN``) becomes ``?`` so that trials stay aligned."""
    return cell if len(cell) == 1 else "?"


def _record(row: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: int(float(row[name])) for name in ("RUN", "TRIAL")}
    texts = {name: row[name].strip() for name in ("CONDITION", "CUE", "FRAMEFILE")}
    return {**numbers, **texts, "TRIALONSET": float(row["TRIALONSET"])}


def label_rows(tables: tuple[RunTable, ...]) -> SessionLabels:
    """Return the labels of all vision and imagery rows: row k of a block is behavioural trial k + 1.

    The tables must have passed the trial checks.
    """
    kept = [t for t in tables if t.run.task != "attention"]
    return SessionLabels(
        rows=np.concatenate([np.arange(t.run.start, t.run.stop) for t in kept]),
        run=np.concatenate([np.full(t.run.n_betas, t.run.number) for t in kept]),
        condition=np.array(list("".join(t.conditions for t in kept))),
        cue=np.array(list("".join(t.cues for t in kept))),
    )


def read_pair_list(layout: Layout, stimulus_set: str) -> dict[str, str]:
    """Return target name by cue letter from ``X_pair_list.mat`` (6 x 3: number, name, letter), in target order.

    Raises
    ------
    IntegrityError
        ``pair_lists`` if the letters are not the documented ones in the documented order.
    DataError
        If the file is missing or has another structure.
    """
    path = layout.pair_list(stimulus_set)
    (rows,) = read_mat(path, ["pair_list"])
    try:
        pairs = sorted((int(_scalar(n)), str(_scalar(c)), str(_scalar(name))) for n, name, c in rows)
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path} is not a 6 x 3 cell ({error})", remedy=again(path)) from error
    if "".join(letter for _, letter, _ in pairs) != letters(stimulus_set):
        raise IntegrityError(
            "pair_lists",
            f"{path} assigns the letters {[letter for _, letter, _ in pairs]}, "
            f"the published order is {letters(stimulus_set)}",
            remedy=f"{again(path)} The order of the targets must not change.",
        )
    names = {letter: name.removesuffix(".png") for _, letter, name in pairs}
    odd = [name for name in names.values() if not _FILE_NAME.fullmatch(name)]
    if odd:
        raise DataError(f"{path} names {odd[0]!r}, which is no file name", remedy=again(path))
    return names


def _scalar(cell: Any) -> Any:
    return np.asarray(cell).reshape(-1)[0]


def target_names(layout: Layout) -> dict[str, str]:
    """Return the name of each of the 18 targets by its id, from the three pair lists."""
    by_letter = {s: read_pair_list(layout, s) for s in "ABC"}
    return {t.id: by_letter[t.stimulus_set][t.cue] for t in targets()}


def shown_names(layout: Layout) -> dict[str, str]:
    """Return the name of each target of sets A and B by its cue letter; frames of vision runs carry it."""
    names = target_names(layout)
    return {t.cue: names[t.id] for t in targets() if t.has_image}


def nsd_row(name: str) -> int | None:
    """Return the 0-based ``imgBrick`` row that a file name ``sharedAAAA_nsdBBBBB`` (1-based) stands for.

    ``nsd00000`` marks the artwork of set B, which is no NSD image: None, as for any other name.
    """
    match = _NSD_NAME.search(name)
    return int(match.group(1)) - 1 if match and int(match.group(1)) > 0 else None


def scene_rows(layout: Layout) -> set[int]:
    """Return the 0-based ``imgBrick`` rows of the set B scenes; empty where the pair lists are not there."""
    if not layout.pair_list("B").is_file():
        return set()
    rows = (nsd_row(name) for name in read_pair_list(layout, "B").values())
    return {row for row in rows if row is not None}


def run_slices() -> tuple[slice, ...]:
    """Return the row range of each of the 12 runs."""
    return tuple(slice(run.start, run.stop) for run in runs())
