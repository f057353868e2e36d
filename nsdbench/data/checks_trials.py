"""Integrity checks 9 to 15: the trial tables of the NSD-Imagery session."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nsdbench.data.checks_files import OK, Warnings
from nsdbench.data.facts import IMAGERY_ROWS, letters, runs, table
from nsdbench.data.foreign import read_mat
from nsdbench.data.layout import Layout
from nsdbench.data.session import RunTable
from nsdbench.errors import DataError, IntegrityError

_AGAIN = "Download nsddata/bdata/nsdimagery again; the tables must stay as released."
TRIALS = 48
REPEATS = 8
MATCHES = 24


def check_trial_numbers(tables: Sequence[RunTable]) -> Warnings:
    """Check 9, ``trial_numbers``: TRIAL is 1 ... 48, each once."""
    for t in tables:
        if t.trials != tuple(range(1, TRIALS + 1)):
            twice = [n for n, k in Counter(t.trials).items() if k > 1]
            detail = f"TRIAL {twice[0]} twice" if twice else f"{len(t.trials)} trials"
            raise IntegrityError(
                "trial_numbers",
                f"{t.path} has {detail}; TRIAL must be 1 ... {TRIALS}, each once",
                remedy=_AGAIN,
            )
    return OK


def check_onsets(tables: Sequence[RunTable]) -> Warnings:
    """Check 9, ``trial_onsets``: TRIALONSET increases with TRIAL."""
    for t in tables:
        if not np.all(np.diff(t.onsets) > 0):
            at = int(np.argmin(np.diff(t.onsets))) + 2
            raise IntegrityError(
                "trial_onsets",
                f"{t.path}: TRIALONSET of trial {at} is not after the one before",
                remedy=_AGAIN,
            )
    return OK


def check_run_order(tables: Sequence[RunTable]) -> Warnings:
    """Check 9, ``run_order``: column RUN is the acquisition number.

    Block lengths alone cannot tell a wrong order from the right one.
    """
    for t in tables:
        if set(t.numbers) != {t.run.number}:
            raise IntegrityError(
                "run_order",
                f"{t.path}: RUN is {sorted(set(t.numbers))}, run {t.run.name} was acquired as number {t.run.number}",
                remedy="With another run order every label would belong to another beta row. " + _AGAIN,
            )
    return OK


def check_row_table() -> Warnings:
    """Check 10, ``row_table``: the 12 row ranges tile 720 rows, 432 of them vision or imagery."""
    covered = np.concatenate([np.arange(run.start, run.stop) for run in runs()])
    used = sum(run.n_betas for run in runs() if run.task != "attention")
    if not np.array_equal(covered, np.arange(IMAGERY_ROWS)) or used != 432:
        raise IntegrityError("row_table", "the row ranges of facts/runs.csv do not tile 720 rows")
    return OK


def check_run_letters(tables: Sequence[RunTable]) -> Warnings:
    """Check 11, ``run_letters``: CONDITION holds the six letters of the set, eight times each."""
    for t in tables:
        expected = dict.fromkeys(letters(t.run.stimulus_set), REPEATS)
        if t.run.task != "attention" and Counter(t.conditions) != expected:
            raise IntegrityError(
                "run_letters",
                f"{t.path}: CONDITION holds {dict(sorted(Counter(t.conditions).items()))}, "
                f"expected {REPEATS} each of {letters(t.run.stimulus_set)}",
                remedy=_AGAIN,
            )
    return OK


def check_cue_match(tables: Sequence[RunTable]) -> Warnings:
    """Check 11, ``cue_match``: CUE equals CONDITION on every imagery trial and on 24 vision trials per run."""
    for t in tables:
        matches = sum(a == b for a, b in zip(t.conditions, t.cues, strict=True))
        expected = {"vision": MATCHES, "imagery": TRIALS}.get(t.run.task, matches)
        if matches != expected:
            raise IntegrityError(
                "cue_match",
                f"{t.path}: CUE equals CONDITION on {matches} trials, expected {expected}",
                remedy="CONDITION must name the image shown, not the letter on the screen. " + _AGAIN,
            )
    return OK


def check_repeat_sequence(tables: Sequence[RunTable]) -> Warnings:
    """Section 3.1, ``repeat_sequence``: the first imagery run of a set repeats the vision run's target order."""
    by_name = {t.run.name: t for t in tables}
    notes = []
    for s in "ABC":
        seen, first, second = (by_name[n].conditions for n in (f"vis{s}", f"img{s}_1", f"img{s}_2"))
        if first != seen:
            raise IntegrityError(
                "repeat_sequence",
                f"img{s}_1 does not follow the target order of vis{s}",
                remedy="CONDITION of one of the two is wrong, or two tables were exchanged. " + _AGAIN,
            )
        if second == seen:
            notes.append(f"repeat_sequence: img{s}_2 has the order of vis{s}; the release has another one")
    return tuple(notes)


def check_frame_files(tables: Sequence[RunTable], names: Mapping[str, str]) -> Warnings:
    """Check 12, ``frame_files``: the frame shown fits CONDITION and CUE.

    ``names`` maps the cue letter of a set A or B target to its file stem.
    """
    for t in tables:
        for trial, (frame, condition, cue) in enumerate(
            zip(t.frames, t.conditions, t.cues, strict=True), start=1
        ):
            stem, _, shown = frame.removesuffix(".png").rpartition("_cue")
            if t.run.task == "attention":
                continue
            if t.run.task == "imagery":
                right = stem.startswith("blank")
            else:
                right = t.run.stimulus_set == "C" or stem == names.get(condition)
            if not right or shown != cue:
                raise IntegrityError(
                    "frame_files",
                    f"{t.path}, trial {trial}: FRAMEFILE {frame!r} does not fit CONDITION {condition} and CUE {cue}",
                    remedy=_AGAIN,
                )
    return OK


def check_sequence_hash(tables: Sequence[RunTable]) -> Warnings:
    """Check 13, ``sequence_hash``: the design is the one of the real experiment, compared by hash only."""
    known = {row["run_name"]: row for row in table("design_sequence_sha256")}
    other = []
    for t in tables:
        for column, text in (("CONDITION", t.conditions), ("CUE", t.cues)):
            expected = known[t.run.name][f"sha256_of_{column}_letters"]
            if expected and hashlib.sha256(text.encode()).hexdigest() != expected:
                other.append(f"{column} of {t.run.name}")
    return (f"sequence_hash: not the published sequence: {', '.join(other)}",) if other else OK


def check_session(tables: Sequence[RunTable], names: Mapping[str, str], *, real: bool) -> Warnings:
    """Run every check on the 12 trial tables that the loader needs before it labels rows."""
    notes = check_row_table()
    for check in (
        check_trial_numbers,
        check_onsets,
        check_run_order,
        check_run_letters,
        check_cue_match,
        check_repeat_sequence,
    ):
        notes += check(tables)
    notes += check_frame_files(tables, names)
    return notes + check_sequence_hash(tables) if real else notes


def check_label_source(label_source: str) -> Warnings:
    """Check 14, ``label_source``: vision labels taken from the cue letter are recorded."""
    if label_source == "cue":
        return ("label_source: vision rows are labelled by the cue letter, which is wrong on half of them",)
    return OK


def check_design_matrix(layout: Layout) -> Warnings:
    """Check 15, ``design_matrix``: 48 onsets per vision or imagery run, 96 per attention run."""
    path = layout.imagery_design
    (cells,) = read_mat(path, ["stimulus"])
    try:
        onsets = [int(np.count_nonzero(_dense(cell))) for cell in np.reshape(cells, -1)]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} has no cell array stimulus ({error})", remedy="Download it again."
        ) from error
    expected = [run.n_betas for run in runs()]
    if onsets != expected:
        raise IntegrityError("design_matrix", f"{path} has {onsets} onsets per run, expected {expected}")
    return OK


def _dense(cell: Any) -> Any:
    return cell.toarray() if hasattr(cell, "toarray") else np.asarray(cell)
