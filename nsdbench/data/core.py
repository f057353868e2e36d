"""Core NSD: session files become standardized training and test trials, one session in memory at a time."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from nsdbench.data.betas import read_betas, read_header, to_percent
from nsdbench.data.cache import Entry, fingerprints, stamps
from nsdbench.data.checks_core import (
    check_design,
    check_leakage,
    check_prepared_scale,
    check_test_set,
    check_trial_repeats,
)
from nsdbench.data.checks_files import Warnings, check_dead_voxels, check_header, check_values
from nsdbench.data.checks_masks import checked_voxels
from nsdbench.data.design import CoreTrials, core_trials, image_ids, read_design, sessions_used, split_rows
from nsdbench.data.facts import Expectations, SubjectFacts
from nsdbench.data.layout import Layout, find_betas, forms
from nsdbench.data.normalize import Moments, standardize
from nsdbench.data.options import LoadOptions
from nsdbench.data.rois import Voxels
from nsdbench.data.session import scene_rows
from nsdbench.data.voxelstore import open_store
from nsdbench.errors import DataError
from nsdbench.types import Progress

_BLOCK_ROWS = 512


@dataclass(frozen=True)
class CoreSource(abc.ABC):
    """Where the core trials of one subject come from: raw session files, our copy of them, or a prepared file."""

    layout: Layout
    expectations: Expectations
    subject: int
    options: LoadOptions

    normalized = False  # True if the stored betas are standardized already

    @property
    def facts(self) -> SubjectFacts:
        """Expected sizes of the subject."""
        return self.expectations.of(self.subject)

    @property
    def sessions(self) -> int:
        """Number of sessions that the test-set definition uses."""
        return sessions_used(self.options.shared, self.facts.sessions)

    @property
    @abc.abstractmethod
    def trials(self) -> CoreTrials:
        """All trials of the subject."""

    @property
    @abc.abstractmethod
    def voxels(self) -> Voxels:
        """The voxel columns."""

    @abc.abstractmethod
    def files(self) -> list[Path]:
        """Return every file that is read."""

    def fingerprints(self) -> list[str]:
        """Return what identifies the content: equal for equal content, wherever it is read from."""
        return fingerprints(self.files())

    def stamps(self) -> list[int]:
        """Return the times on which cached arrays depend besides; see :func:`nsdbench.data.cache.stamps`."""
        return stamps(self.files())

    @abc.abstractmethod
    def read(self, session: int) -> tuple[NDArray[np.float32], Warnings]:
        """Return the checked betas of a session, shape (trials_per_session, n_voxels), and warnings."""


class SessionCore(CoreSource):
    """Core trials as the public bucket has them: named by the design file, one beta file per session."""

    def stem(self, session: int) -> Path:
        """Return the raw file of a session, without suffix."""
        return self.layout.core_betas(self.subject, session, self.options.beta_version)

    def files(self) -> list[Path]:
        return [self.layout.design, self.layout.pair_list("B"), *self.layout.rois(self.subject)]

    @cached_property
    def trials(self) -> CoreTrials:
        design = read_design(self.layout.design)
        check_design(design, self.expectations, self.subject)
        return core_trials(design, self.subject, self.facts.sessions, self.expectations.trials_per_session)

    @cached_property
    def voxels(self) -> Voxels:
        return checked_voxels(self.layout, self.subject, self.facts, self.options)


class RawCore(SessionCore):
    """Core trials from the session files of the public bucket (HDF5, or NIfTI where that is absent)."""

    def available(self) -> bool:
        """Return True if a file of the first session is there."""
        return bool(forms(self.stem(1)))

    def files(self) -> list[Path]:
        return [*super().files(), *(self.path(k) for k in range(1, self.sessions + 1))]

    def path(self, session: int) -> Path:
        """Return the file of a session.

        Raises
        ------
        DataError
            If there is none; where it was deleted after its session was prepared, the message says so.
        """
        if not forms(self.stem(session)):
            folder = self.layout.store(self.subject, self.options.beta_version, self.options.roi)
            store = open_store(folder)
            if store is not None and session in store.blocks:
                raise DataError(
                    f"raw betas of session {session} were deleted after they were prepared, but {folder} holds only "
                    f"{len(store.blocks)} of {self.sessions} sessions",
                    remedy="Run `nsdbench data prepare` again; it goes on with the other sessions (--fetch brings "
                    "those that are not on disk).",
                )
        return find_betas(self.stem(session))

    def stored(self, session: int) -> tuple[NDArray[np.generic], Warnings]:
        """Return the values of a session as they are on disk, after the checks of its header."""
        path = self.path(session)
        header = read_header(path)
        n_rows = self.expectations.trials_per_session
        notes = check_header(header, n_rows, self.facts.grid, kind="core", real=self.expectations.real)
        return read_betas(path, self.voxels), notes

    def read(self, session: int) -> tuple[NDArray[np.float32], Warnings]:
        stored, notes = self.stored(session)
        percent = to_percent(stored)
        return percent, notes + check_session_values(percent, self.path(session), session)


def check_session_values(percent: NDArray[np.float32], path: Path, session: int) -> Warnings:
    """Run every check of the values of a core session, shape (trials_per_session, n_voxels)."""
    empty = np.logical_not(percent.any(axis=0))
    dead = check_dead_voxels(empty, f"are all zero in session {session}", may_fail=False)
    return check_values(percent, path) + dead


def build_core(directory: Path, source: CoreSource, progress: Progress) -> dict[str, Any]:
    """Write ``train_*.npy`` and ``test_*.npy`` of a subject and return facts about them.

    Sessions are read once and written as percent signal change while the moments of the training rows
    accumulate in float64; a second pass over the written file standardizes it in place. Peak memory is a few
    copies of one session, whatever the number of sessions.

    Returns
    -------
    dict
        ``rois`` (names, in the order of ``rois.npy``) and ``warnings``.
    """
    trials, n_voxels = source.trials, len(source.voxels)
    train, test = checked_split(source)
    stores = {name: directory / f"{name}_betas.npy" for name in ("train", "test")}
    for name, rows in (("train", train), ("test", test)):
        _create(stores[name], (int(rows.sum()), n_voxels))
    notes, moments = _stream(source, (train, test), stores, progress)
    if source.normalized:
        notes += check_prepared_scale(moments.mean, moments.std)
    else:
        notes += check_dead_voxels(moments.std == 0, "do not vary over the training trials")
    if source.options.core_norm == "train_stats" and not source.normalized:
        for path in stores.values():
            _standardize_file(path, moments, progress)
    np.save(directory / "mean.npy", moments.mean)
    np.save(directory / "std.npy", moments.std)
    for name, rows in (("train", train), ("test", test)):
        np.save(directory / f"{name}_stimulus.npy", image_ids(trials.image[rows]))
        np.save(directory / f"{name}_repeat.npy", trials.repeat[rows])
        np.save(directory / f"{name}_run.npy", trials.session[rows])
    return save_rois(directory, source.voxels) | {"warnings": list(notes)}


def checked_split(source: CoreSource) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the training and the test rows (:func:`split_rows`) after every check of the design."""
    trials = source.trials
    check_trial_repeats(trials)
    train, test = split_rows(trials, source.options.shared, source.facts.sessions)
    held_out = {*trials.image[trials.shared].tolist(), *scene_rows(source.layout)}
    check_leakage(trials.image[train].tolist(), held_out)
    tested = len(np.unique(trials.image[test]))
    check_test_set(tested, int(test.sum()), source.options.shared, source.facts)
    return train, test


def _stream(
    source: CoreSource,
    split: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    stores: Mapping[str, Path],
    progress: Progress,
) -> tuple[Warnings, Moments]:
    """Read every session once, write its rows to the stores, and collect the moments of the training rows."""
    n = source.expectations.trials_per_session
    moments = Moments(len(source.voxels))
    notes: Warnings = ()
    filled = dict.fromkeys(stores, 0)
    label = f"reading sessions of subject {source.subject}"
    for session in progress.track(range(1, source.sessions + 1), label):
        betas, found = source.read(session)
        notes += found
        here = slice((session - 1) * n, session * n)
        chosen = dict(zip(stores, (rows[here] for rows in split), strict=True))
        if source.options.core_norm == "session_z":
            # shared images stay out of the statistics, unlike in some published notebooks
            own = Moments(betas.shape[1])
            own.add(betas[chosen["train"]])
            betas = standardize(betas, own.mean, own.std)
        moments.add(betas[chosen["train"]])
        for name, rows in chosen.items():
            start, filled[name] = filled[name], filled[name] + int(rows.sum())
            _writable(stores[name])[start : filled[name]] = betas[rows]
    return notes, moments


def _standardize_file(path: Path, moments: Moments, progress: Progress) -> None:
    """Standardize a written array in place, block by block."""
    starts = range(0, len(_writable(path)), _BLOCK_ROWS)
    for start in progress.track(starts, f"standardizing {path.stem.replace('_', ' ')}"):
        block = _writable(path)[start : start + _BLOCK_ROWS]
        block[:] = standardize(block, moments.mean, moments.std)


def _create(path: Path, shape: tuple[int, int]) -> None:
    """Create a float32 array file with its space reserved: writing to a map of a full disk would kill the process."""
    open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):  # absent on some systems
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def _writable(path: Path) -> NDArray[np.float32]:
    """Map an array for writing. Mapped anew for each block: pages of a released map leave our memory."""
    mapped: NDArray[np.float32] = np.load(path, mmap_mode="r+")
    return mapped


def save_rois(directory: Path, voxels: Voxels) -> dict[str, Any]:
    """Write the ROI masks as one array and return their names."""
    np.save(directory / "rois.npy", np.stack(list(voxels.rois.values())))
    return {"rois": list(voxels.rois)}


def load_rois(entry: Entry) -> dict[str, NDArray[np.bool_]]:
    """Return the ROI masks that :func:`save_rois` wrote."""
    return {
        name: np.array(mask) for name, mask in zip(entry.facts["rois"], entry.arrays["rois"], strict=True)
    }
