"""NSD-Imagery: one beta file and twelve trial tables become 432 labelled, standardized rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.betas import read_betas, read_header, to_percent
from nsdbench.data.cache import Entry
from nsdbench.data.checks_files import Warnings, check_dead_voxels, check_header, check_values
from nsdbench.data.checks_masks import check_valid_volumes, checked_voxels
from nsdbench.data.checks_trials import check_session
from nsdbench.data.core import load_rois, save_rois
from nsdbench.data.design import count_repeats
from nsdbench.data.facts import IMAGERY_ROWS, Expectations, runs, targets
from nsdbench.data.layout import Layout, find_betas
from nsdbench.data.normalize import standardize, zscore_runs
from nsdbench.data.options import LoadOptions
from nsdbench.data.session import label_rows, read_session, run_slices, shown_names, target_names
from nsdbench.store import digest
from nsdbench.types import Trials

Stats = tuple[NDArray[np.float64], NDArray[np.float64]]  # mean and deviation per voxel


def imagery_files(layout: Layout, subject: int, options: LoadOptions) -> list[Path]:
    """Return every file whose content determines the rows of a subject."""
    volumes = [*layout.rois(subject)]
    volumes += [layout.anatomy(subject) / f"{name}.nii.gz" for name in ("brainmask", "valid_nsdimagery")]
    tables = [layout.run_table(subject, run.name) for run in runs()]
    pairs = [layout.pair_list(s) for s in "ABC"]
    return [find_betas(layout.imagery_betas(subject, options.beta_version)), *volumes, *tables, *pairs]


def build_imagery(
    directory: Path,
    layout: Layout,
    expectations: Expectations,
    subject: int,
    *,
    options: LoadOptions,
    stats: Stats | None,
) -> dict[str, Any]:
    """Write the vision and imagery rows of a subject and return facts about them.

    Parameters
    ----------
    stats : pair of float64 arrays or None
        Mean and deviation of the core training trials, for ``imagery_norm="core_train_stats"``.

    Returns
    -------
    dict
        ``rois``, ``warnings``, and hashes of the letter sequence and of the target order.
    """
    names, shown = target_names(layout), shown_names(layout)
    tables = read_session(layout, subject)
    notes = check_session(tables, shown, real=expectations.real)
    labels = label_rows(tables)

    facts = expectations.of(subject)
    voxels = checked_voxels(layout, subject, facts, options)
    path = find_betas(layout.imagery_betas(subject, options.beta_version))
    notes += check_header(read_header(path), IMAGERY_ROWS, facts.grid, kind="imagery", real=expectations.real)
    percent = to_percent(read_betas(path, voxels))
    notes += (
        check_values(percent, path) + check_dead_rows(percent) + check_valid_volumes(layout, subject, voxels)
    )

    np.save(directory / "betas.npy", _normalize(percent, options, stats)[labels.rows])
    np.save(directory / "run.npy", labels.run)
    np.save(directory / "condition.npy", labels.condition)
    np.save(directory / "cue.npy", labels.cue)
    hashes = {
        "sequence": digest("".join(labels.condition), "".join(labels.cue)),
        "targets": digest([(i, name) for i, name in names.items()]),
    }
    return save_rois(directory, voxels) | {"warnings": list(notes), "hashes": hashes}


def imagery_trials(
    entry: Entry, split: str, subject: int, options: LoadOptions, provenance: dict[str, Any]
) -> Trials:
    """Return the single trials of ``"vision"`` or ``"imagery"``, labelled as the options say.

    ``repeat`` counts over the whole session, so that the second imagery run holds repeats 8 ... 15.
    """
    run = np.array(entry.arrays["run"])
    of_split = {r.number for r in runs() if r.task == split}
    rows = np.flatnonzero(np.isin(run, list(of_split)))
    by_letter = {t.cue: t.id for t in targets()}
    stimulus = np.array([by_letter[str(c)] for c in entry.arrays[options.label_source][rows]])
    trials = Trials(
        betas=np.asarray(entry.arrays["betas"][rows]),
        stimulus=stimulus,
        split=split,
        stimulus_set=np.array([i[0] for i in stimulus]),
        repeat=count_repeats(stimulus),
        run=run[rows],
        subject=subject,
        rois=load_rois(entry),
        provenance=provenance,
    )
    if split == "vision" or options.imagery_runs == "all":
        return trials
    chosen = [r.number for r in runs() if r.task == split and r.name.endswith(f"_{options.imagery_runs}")]
    return trials.select(np.isin(trials.run, chosen))


def _normalize(
    percent: NDArray[np.float32], options: LoadOptions, stats: Stats | None
) -> NDArray[np.float32]:
    if options.imagery_norm == "run_z":
        return zscore_runs(percent, run_slices())
    return percent if stats is None else standardize(percent, *stats)


def check_dead_rows(percent: NDArray[np.float32]) -> Warnings:
    """Check 7, ``dead_voxels``: voxels without data in the session, or without variance in a run."""
    empty = np.logical_not(percent.any(axis=0))
    constant = np.any([np.ptp(percent[run], axis=0) == 0 for run in run_slices()], axis=0) & ~empty
    return check_dead_voxels(empty, "are all zero in the NSD-Imagery session") + check_dead_voxels(
        constant, "do not vary within a run"
    )
