"""What a data set holds, without reading it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nsdbench.data.dataset import Dataset
from nsdbench.data.facts import IMAGERY_ROWS
from nsdbench.data.layout import Layout, forms
from nsdbench.data.stimuli import find_images
from nsdbench.data.voxelstore import open_store

NSD_TERMS = (
    "NSD data (betas, masks, trial tables, stimuli, and anything cached from them) must not be passed on to others; "
    "everyone who uses them accepts the terms of the Natural Scenes Dataset."
)


@dataclass(frozen=True)
class SubjectOverview:
    """What is on disk of one subject.

    Attributes
    ----------
    grid : (X, Y, Z)
        Shape of the volumes.
    n_voxels : int
        Voxels of nsdgeneral.
    core_layout : {"store", "nsd", "mindeye2", "absent"}
        Where core trials would be read from: the compact store if it is complete, raw session files, MindEye2's file.
    core_trials, core_trials_total : int
        Trials on disk (raw or in the store) and trials of the complete subject.
    stored_sessions, stored_bytes : int
        Sessions in the compact store of nsdgeneral, and its size.
    imagery_rows : int
        Betas of the NSD-Imagery session, 720 or 0.
    n_bytes : int
        Size of the beta files in bytes.
    """

    subject: int
    grid: tuple[int, int, int]
    n_voxels: int
    core_layout: str
    core_trials: int
    core_trials_total: int
    imagery_rows: int
    n_bytes: int
    stored_sessions: int = 0
    stored_bytes: int = 0


def describe(dataset: Dataset, beta_version: str = "b3") -> tuple[SubjectOverview, ...]:
    """Return one overview per subject that has betas."""
    return tuple(_describe(dataset, subject, beta_version) for subject in dataset.subjects)


def _describe(dataset: Dataset, subject: int, version: str) -> SubjectOverview:
    layout, facts = dataset.layout, dataset.expectations.of(subject)
    per_session = dataset.expectations.trials_per_session
    sessions = {
        k: found[0]
        for k in range(1, facts.sessions + 1)
        if (found := forms(layout.core_betas(subject, k, version)))
    }
    imagery = forms(layout.imagery_betas(subject, version))[:1]
    store = open_store(layout.store(subject, version, "nsdgeneral"))
    stored = set(store.blocks) if store else set()
    kind, files, present = "nsd", list(sessions.values()), len({*sessions, *stored})
    if len(stored) == facts.sessions:
        kind = "store"
    elif not present:
        kind, files, present = _prepared(layout.prepared_betas(subject), facts.sessions)
    return SubjectOverview(
        subject=subject,
        grid=facts.grid,
        n_voxels=facts.n_voxels,
        core_layout=kind,
        core_trials=present * per_session,
        core_trials_total=facts.sessions * per_session,
        imagery_rows=IMAGERY_ROWS if imagery else 0,
        n_bytes=_size([*files, *imagery]),
        stored_sessions=len(stored),
        stored_bytes=store.n_bytes if store else 0,
    )


def _prepared(path: Path | None, sessions: int) -> tuple[str, list[Path], int]:
    return ("absent", [], 0) if path is None else ("mindeye2", [path], sessions)


def stimulus_bytes(layout: Layout) -> int:
    """Return the size of the core image file (of MindEye2's copy without it), 0 if there is none."""
    return _size([find_images(layout).path])


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
