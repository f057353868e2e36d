"""Core betas of a subject, one raw session file of a gigabyte after the other, into the compact store.

Memory is a few copies of one session at the voxels of the ROI, whatever the number of sessions and the size of the
raw files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench.data import Dataset, LoadOptions
from nsdbench.data.betas import to_percent
from nsdbench.data.checks_files import Warnings
from nsdbench.data.core import RawCore, check_session_values, checked_split
from nsdbench.data.layout import Layout, forms
from nsdbench.data.needs import beta_bytes
from nsdbench.data.prepared import PreparedCore
from nsdbench.data.stored import StoredCore, outline_of
from nsdbench.data.voxelstore import (
    Outline,
    Source,
    Stored,
    VoxelStore,
    begin_store,
    exclusive,
    open_store,
    require_outline,
)
from nsdbench.errors import DataError, IntegrityError
from nsdbench.store import cache_root, nearest
from nsdbench.transfer import require_room
from nsdbench.types import Progress, Silent

Fetcher = Callable[[int], Path]
_SILENT = Silent()


@dataclass(frozen=True)
class BetasPlan:
    """What preparing a subject's core betas will do.

    Attributes
    ----------
    folder : Path
        Where the store lies or will lie.
    wanted : tuple of int
        Sessions that the options use.
    done : tuple of int
        Sessions of these that count in the store already.
    absent : tuple of int
        Sessions that are neither in the store nor on disk.
    read_bytes : int
        Size of the raw files that will be read from disk.
    store_bytes, new_bytes : int
        Size of the store, and how much of it is not reserved yet.
    cache_bytes : int
        Size of the standardized trials that follow; 0 if they are there.
    prunable_bytes : int
        Size of the raw files, now on disk, of all wanted sessions.
    """

    subject: int
    folder: Path
    wanted: tuple[int, ...]
    done: tuple[int, ...]
    absent: tuple[int, ...]
    read_bytes: int
    store_bytes: int
    new_bytes: int
    cache_bytes: int
    prunable_bytes: int


@dataclass(frozen=True)
class SessionOutcome:
    """One session: seconds spent, whether it was read now, size of the raw file, what was deleted, and warnings."""

    session: int
    seconds: float
    added: bool
    raw_bytes: int
    pruned_bytes: int
    warnings: tuple[str, ...]


def needs_none(dataset: Dataset, subject: int, options: LoadOptions) -> bool:
    """Return True if the loader reads MindEye2's prepared betas, which need no preparation."""
    return isinstance(dataset.core_source(subject, options), PreparedCore)


def plan_betas(dataset: Dataset, subject: int, options: LoadOptions) -> BetasPlan:
    """Look at what is there, after every check of masks and design, and return what is to be done.

    Raises
    ------
    DataError, IntegrityError
        If the mask or the design file is missing or wrong, or the store belongs to other betas.
    """
    raw, outline = _source(dataset, subject, options)
    checked_split(raw)
    stored = StoredCore(dataset.layout, dataset.expectations, subject, raw.options)
    if stored.found is not None:
        _ = stored.voxels  # compares the mask
    wanted = tuple(range(1, raw.sessions + 1))
    done = tuple(k for k in wanted if stored.found is not None and k in stored.found.blocks)
    files = {k: found[0] for k in wanted if (found := forms(raw.stem(k)))}
    readable = stored.complete() or len(files) == len(wanted)
    cached = readable and dataset.core_is_cached(subject, options)
    return BetasPlan(
        subject=subject,
        folder=stored.folder,
        wanted=wanted,
        done=done,
        absent=tuple(k for k in wanted if k not in done and k not in files),
        read_bytes=_size(path for k, path in files.items() if k not in done),
        store_bytes=outline.n_bytes,
        new_bytes=0 if stored.found is not None else outline.n_bytes,
        cache_bytes=0 if cached else 4 * len(wanted) * outline.trials_per_session * outline.n_voxels,
        prunable_bytes=_size(path for path in files.values() if _is_ours(raw.layout, path)),
    )


def prepare_betas(
    dataset: Dataset,
    subject: int,
    options: LoadOptions,
    *,
    prune: bool = False,
    fetch: Fetcher | None = None,
    progress: Progress = _SILENT,
    report: Callable[[SessionOutcome], None] = lambda outcome: None,
) -> VoxelStore:
    """Bring every wanted session into the store of a subject, oldest first, and return the store.

    A session that counts already is not read again. Where another process prepares the same store, the two take
    turns, session by session.

    Parameters
    ----------
    prune : bool
        Delete a raw file once its session counts and its rows, read back from disk, have the hash of what was read.
        A file outside the data directory (behind a link) is kept.
    fetch : callable, optional
        ``fetch(session)`` brings the raw file just before it is read and returns its path.
    report : callable
        Called after every session.

    Raises
    ------
    DataError
        At the first session that is damaged or contradicts the data set: what was prepared before stays, nothing of
        that session counts or is deleted. After the last session, if raw files were absent.
    """
    raw, outline = _source(dataset, subject, options)
    checked_split(raw)
    absent = []
    folder = dataset.layout.store(subject, options.beta_version, options.roi)
    before = open_store(folder)
    if before is not None and before.holds(range(1, raw.sessions + 1)) and not prune:
        require_outline(before, outline)  # and nothing to write: the directory may be somebody else's
        return before
    for session in progress.track(range(1, raw.sessions + 1), f"preparing sessions of subject {subject}"):
        if fetch is None and not forms(raw.stem(session)) and not _is_stored(folder, session):
            absent.append(session)
            continue
        start = time.perf_counter()
        with exclusive(folder):
            store = begin_store(folder, outline)  # anew: another process may have come further
            added = session not in store.blocks
            notes: Warnings = ()
            if added:
                store, notes = _add(store, raw, session, fetch)
            pruned = _prune(store, raw, session) if prune else 0
        size, seconds = store.blocks[session].source.n_bytes, time.perf_counter() - start
        report(SessionOutcome(session, seconds, added, size, pruned, notes))
    if absent:
        raise _absent(raw, absent)
    return store


def _is_stored(folder: Path, session: int) -> bool:
    store = open_store(folder)
    return store is not None and session in store.blocks


def _source(dataset: Dataset, subject: int, options: LoadOptions) -> tuple[RawCore, Outline]:
    """Return the raw source in the column order of the store, and what the store must be."""
    dataset.require(subject, options)
    raw = RawCore(dataset.layout, dataset.expectations, subject, replace(options, voxel_order="xyz_c"))
    return raw, outline_of(raw, raw.voxels)


def _add(store: VoxelStore, raw: RawCore, session: int, fetch: Fetcher | None) -> tuple[VoxelStore, Warnings]:
    """Read a raw session, run every check on it, and let it count; return the grown store and warnings."""
    if fetch is not None:
        fetch(session)
    path = raw.path(session)
    before = Source.of(path)
    stored, notes = raw.stored(session)
    found = check_session_values(to_percent(stored), path, session)  # found again whenever the store is read
    rows = _whole(stored, path)
    if Source.of(path) != before:
        raise DataError(
            f"{path} changed while it was read", remedy="Wait until it is complete, then run again."
        )
    return store.put(session, rows, before, notes), notes + found


def _whole(stored: NDArray[np.generic], path: Path) -> Stored:
    """Return the stored values as int16, unchanged."""
    rows = stored.astype(np.int16)
    if not np.array_equal(rows, stored):
        raise IntegrityError(
            "prepared_store",
            f"{path} holds values that are not whole numbers; the store keeps int16 as released",
            remedy="Use the betas as released (round(300 x percent)), or read these without preparing them.",
        )
    return rows


def _prune(store: VoxelStore, raw: RawCore, session: int) -> int:
    """Delete the raw file that a session came from, after comparing the store with it; return the bytes freed."""
    path = raw.stem(session).with_name(store.blocks[session].source.name)
    if not _is_ours(raw.layout, path):
        return 0
    store.verified(session, path, raw.voxels)
    size = path.stat().st_size
    try:
        path.unlink()
    except OSError as error:
        raise DataError(
            f"{path} cannot be deleted ({error.strerror})",
            remedy="Leave out --prune, or check its permissions.",
        ) from error
    return size


def _is_ours(layout: Layout, path: Path) -> bool:
    """Return True if a file is there and lies below the data directory itself, not behind a link out of it."""
    return path.is_file() and path.resolve().is_relative_to(layout.root.resolve())


def _absent(raw: RawCore, sessions: list[int]) -> DataError:
    first = raw.stem(sessions[0])
    return DataError(
        f"{len(sessions)} of {raw.sessions} sessions of subject {raw.subject} are neither prepared nor on disk, first "
        f"{first}.hdf5",
        remedy="What was there is prepared. Add --fetch, or download these with `nsdbench data fetch` and run again.",
    )


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def require_space(plans: Sequence[BetasPlan], dataset: Dataset, *, prune: bool, fetch: bool) -> None:
    """Raise NoRoom before anything starts unless the disks can hold the stores and the standardized trials.

    Raw files that are pruned make room for the trials. Files to be fetched count with the size of the release: one at
    a time where they are pruned, else all.
    """
    root, cache = nearest(dataset.root), nearest(cache_root(dataset.cache))
    stores = sum(plan.new_bytes for plan in plans)
    if fetch and dataset.expectations.real:
        for plan in plans:
            size = beta_bytes(
                dataset.expectations.of(plan.subject).grid, dataset.expectations.trials_per_session
            )
            stores += size * (min(len(plan.absent), 1) if prune else len(plan.absent))
    trials = sum(plan.cache_bytes for plan in plans)
    if stores:
        require_room(root, stores)
    if root.stat().st_dev != cache.stat().st_dev:
        require_room(cache, trials)
    else:
        freed = sum(plan.prunable_bytes for plan in plans) if prune else 0
        require_room(cache, stores + max(trials - freed, 0))
