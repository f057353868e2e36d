"""Core trials from the compact store: the same numbers, warnings and keys as from the raw session files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.betas import to_percent
from nsdbench.data.cache import stamp
from nsdbench.data.checks_files import Warnings
from nsdbench.data.core import CoreSource, SessionCore, check_session_values
from nsdbench.data.rois import Voxels
from nsdbench.data.voxelstore import (
    SIDECAR,
    Outline,
    Source,
    VoxelStore,
    mask_hash,
    open_store,
    require_outline,
)
from nsdbench.errors import DataError


class StoredCore(SessionCore):
    """Core trials of one subject from :class:`VoxelStore`.

    Raw session files are not needed. Those that are still there must be the ones that were prepared: one of another
    size or fingerprint is refused, one of another time is compared voxel by voxel when its session is read.
    """

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self.layout.store(self.subject, self.options.beta_version, self.options.roi)

    @property
    def begun(self) -> bool:
        """Whether there is a store, sound or not, complete or not."""
        return (self.folder / SIDECAR).is_file()

    @cached_property
    def found(self) -> VoxelStore | None:
        """The store as it was first looked at; None where none was begun."""
        return open_store(self.folder)

    @property
    def store(self) -> VoxelStore:
        """The store; DataError where there is none."""
        if self.found is None:
            raise DataError(
                f"there is no prepared store in {self.folder}", remedy="Run `nsdbench data prepare`."
            )
        return self.found

    def complete(self) -> bool:
        """Return True if every session that the options use counts in the store."""
        return self.found is not None and self.found.holds(range(1, self.sessions + 1))

    @cached_property
    def voxels(self) -> Voxels:
        voxels = super().voxels
        require_outline(self.store, outline_of(self, voxels))
        return voxels

    def fingerprints(self) -> list[str]:
        return super().fingerprints() + [self.source(k).fingerprint for k in range(1, self.sessions + 1)]

    def stamps(self) -> list[int]:
        sources = (self.source(k) for k in range(1, self.sessions + 1))
        return super().stamps() + [stamp(source.n_bytes, source.mtime_ns) for source in sources]

    def raw(self, session: int) -> Path:
        """Return where the raw file of a session was, or still is."""
        return self.stem(session).with_name(self.store.blocks[session].source.name)

    def source(self, session: int) -> Source:
        """Return the raw file that a session came from; see :meth:`VoxelStore.source`."""
        return self.store.source(session, self.raw(session))

    def read(self, session: int) -> tuple[NDArray[np.float32], Warnings]:
        path = self.raw(session)
        percent = to_percent(self.store.verified(session, path, self.voxels))
        notes = check_session_values(percent, path, session)
        return percent, self.store.blocks[session].warnings + notes


def outline_of(source: CoreSource, voxels: Voxels) -> Outline:
    """Return what the store of a subject's betas must be a copy of."""
    return Outline(
        dataset=source.expectations.dataset,
        content_hash=source.expectations.content_hash,
        subject=source.subject,
        beta_version=source.options.beta_version,
        roi=source.options.roi,
        grid=voxels.grid,
        mask=mask_hash(voxels),
        n_voxels=len(voxels),
        sessions=source.facts.sessions,
        trials_per_session=source.expectations.trials_per_session,
    )
