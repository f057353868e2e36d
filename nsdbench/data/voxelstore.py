"""The compact copy of a subject's core betas: the voxels of one ROI, all sessions, as stored in the release.

One array file ``betas.npy``, int16, one row per trial and one column per voxel in ``xyz_c`` order, and ``store.json``,
which says what it is and lists the sessions that count. A session counts once its rows are on disk, were read back,
and its entry is in that file; so a process may be killed at any point.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from nsdbench.data.betas import read_betas
from nsdbench.data.cache import fingerprint
from nsdbench.data.rois import Grid, Voxels
from nsdbench.errors import DataError, IntegrityError, NoRoom
from nsdbench.store import digest, locked, read_json, write_json

FORMAT = 1
SIDECAR = "store.json"  # the store exists once this file does
_BETAS = "betas.npy"
Stored = NDArray[np.int16]
_ANEW = "delete this folder and run `nsdbench data prepare` again (with --fetch where raw session files are gone)."


@dataclass(frozen=True)
class Outline:
    """What a store is a copy of, and its sizes; ``mask`` identifies the voxels (:func:`mask_hash`)."""

    dataset: str
    content_hash: str
    subject: int
    beta_version: str
    roi: str
    grid: Grid
    mask: str
    n_voxels: int
    sessions: int
    trials_per_session: int

    @property
    def n_bytes(self) -> int:
        """Size of all values in bytes."""
        return 2 * self.sessions * self.trials_per_session * self.n_voxels

    def difference(self, other: Outline) -> str | None:
        """Return the first field by which the other names other betas, None if both name the same.

        The content hash of the real NSD covers what nsdbench expects of it, so it may change with the version of
        nsdbench; betas that were prepared once remain what they are.
        """
        fields = [name for name in asdict(self) if name != "content_hash" or self.dataset != "nsd"]
        return next((name for name in fields if getattr(self, name) != getattr(other, name)), None)


@dataclass(frozen=True)
class Source:
    """A raw session file as it was when it was read."""

    name: str
    n_bytes: int
    fingerprint: str
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Look at a file."""
        found = path.stat()
        return cls(path.name, found.st_size, fingerprint(path), found.st_mtime_ns)

    def same_content(self, other: Source) -> bool:
        """Return True if size and fingerprint agree, whatever the times say."""
        return (self.n_bytes, self.fingerprint) == (other.n_bytes, other.fingerprint)


@dataclass(frozen=True)
class Block:
    """A session that counts: the SHA-256 of its rows, where they came from, and what the header checks warned of."""

    sha256: str
    source: Source
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class VoxelStore:
    """A store on disk, as its sidecar described it when it was opened."""

    folder: Path
    outline: Outline
    blocks: Mapping[int, Block]

    @property
    def n_bytes(self) -> int:
        """Space that the store takes; all of it is reserved from the start."""
        return (self.folder / _BETAS).stat().st_size

    def holds(self, sessions: Collection[int]) -> bool:
        """Return True if all these sessions count."""
        return all(session in self.blocks for session in sessions)

    def read(self, session: int) -> Stored:
        """Return the rows of a session, shape (trials_per_session, n_voxels), after comparing their hash.

        Raises
        ------
        IntegrityError
            ``prepared_store`` if they are not what was written.
        """
        rows = self._rows(session)
        if _sha256(rows) != self.blocks[session].sha256:
            raise _damaged(self.folder, f"the rows of session {session} are not those that were written")
        return rows

    def source(self, session: int, path: Path) -> Source:
        """Return the raw file that a session came from: as it is now if ``path`` is there, else as it was.

        Raises
        ------
        IntegrityError
            ``prepared_store`` if it is there with another content.
        """
        recorded = self.blocks[session].source
        try:
            now = Source.of(path)
        except (DataError, OSError):
            if path.is_file():
                raise
            return recorded  # also if another process prunes it at this moment
        if not now.same_content(recorded):
            raise _contradiction(path, self.folder)
        return now

    def verified(self, session: int, path: Path, voxels: Voxels) -> Stored:
        """Return the rows of a session at the voxels, in their order, after comparing hash and raw file.

        A raw file that is there with the same content as far as a fingerprint sees it, but another time, is read
        and compared value by value.
        """
        rows = self.read(session)[:, voxels.xyz_ranks()]
        unchanged = self.source(session, path) == self.blocks[session].source
        if not unchanged and not np.array_equal(read_betas(path, voxels), rows):
            raise _contradiction(path, self.folder)
        return rows

    def put(self, session: int, rows: Stored, source: Source, warnings: tuple[str, ...]) -> VoxelStore:
        """Write the rows of a session, flush them, read them back, and let the session count.

        Raises
        ------
        IntegrityError
            ``prepared_store`` if the disk gives back something else; the session does not count then.
        DataError
            If the disk refuses.
        """
        block = Block(_sha256(rows), source, warnings)
        with _refusals(self.folder), (self.folder / _BETAS).open("r+b") as handle:
            handle.seek(self._offset(session))
            handle.write(np.ascontiguousarray(rows).data)
            handle.flush()
            os.fsync(handle.fileno())
            if hasattr(os, "posix_fadvise"):  # so that the disk answers below, not memory
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if _sha256(self._rows(session)) != block.sha256:
            raise _damaged(
                self.folder,
                f"session {session} reads back differently from what was written; the disk is failing",
            )
        grown = replace(self, blocks={**self.blocks, session: block})
        with _refusals(self.folder):
            _write_sidecar(grown)
        return grown

    def _rows(self, session: int) -> Stored:
        shape = (self.outline.trials_per_session, self.outline.n_voxels)
        rows = np.empty(shape, "<i2")
        with (self.folder / _BETAS).open("rb") as handle:
            handle.seek(self._offset(session))
            if handle.readinto(rows.data) != rows.nbytes:
                raise _damaged(self.folder, f"{_BETAS} ends before session {session} does")
        return rows

    def _offset(self, session: int) -> int:
        per_session = self.outline.n_bytes // self.outline.sessions
        return self.n_bytes - self.outline.n_bytes + (session - 1) * per_session


def mask_hash(voxels: Voxels) -> str:
    """Return a hash of which voxels these are, whatever their order."""
    return digest(list(voxels.grid), voxels.coordinates[np.argsort(voxels.xyz_ranks())])


def open_store(folder: Path) -> VoxelStore | None:
    """Return the store in ``folder``, None where none was begun.

    Raises
    ------
    IntegrityError
        ``prepared_store`` if the sidecar cannot be read or the array file has another size or shape.
    """
    if not (folder / SIDECAR).is_file():
        return None
    try:
        document = read_json(folder / SIDECAR)
        if document["format"] != FORMAT:
            raise IntegrityError(
                "prepared_store",
                f"prepared store {folder} has format {document['format']}, this nsdbench reads format {FORMAT}",
                remedy="Use the version of nsdbench that wrote it.",
            )
        outline = Outline(**{**document["outline"], "grid": tuple(document["outline"]["grid"])})
        blocks = {int(k): _block(entry) for k, entry in document["sessions"].items()}
        array = np.load(folder / _BETAS, mmap_mode="r", allow_pickle=False)
    except IntegrityError:
        raise
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise _damaged(folder, f"it cannot be read ({error})") from error
    expected = (outline.sessions * outline.trials_per_session, outline.n_voxels)
    if array.shape != expected or array.dtype != np.dtype("<i2") or not array.flags.c_contiguous:
        raise _damaged(folder, f"{_BETAS} is {array.dtype} {array.shape}, expected int16 {expected}")
    if not set(blocks) <= set(range(1, outline.sessions + 1)):
        raise _damaged(folder, f"it names sessions beyond {outline.sessions}")
    return VoxelStore(folder, outline, blocks)


def begin_store(folder: Path, outline: Outline) -> VoxelStore:
    """Return the store in ``folder``, creating it with its space reserved if there is none. Hold the lock.

    Raises
    ------
    IntegrityError
        ``prepared_store`` if a store of other betas lies there.
    DataError
        If the disk has no room or refuses.
    """
    found = open_store(folder)
    if found is not None:
        require_outline(found, outline)
        return found
    with _refusals(folder):
        _reserve(folder / _BETAS, (outline.sessions * outline.trials_per_session, outline.n_voxels))
        store = VoxelStore(folder, outline, {})
        _write_sidecar(store)
    return store


def require_outline(store: VoxelStore, outline: Outline) -> None:
    """Raise an IntegrityError ``prepared_store`` if the store is not a copy of these betas."""
    field = store.outline.difference(outline)
    if field is not None:
        raise IntegrityError(
            "prepared_store",
            f"prepared store {store.folder} was made with {field} {getattr(store.outline, field)}; the data set now "
            f"has {getattr(outline, field)}",
            remedy=f"Is the data set complete and the right one (its mask, its marker)? If it is, {_ANEW}",
        )


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Create the folder of a store and wait until no other process writes in it."""
    with _refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    with locked(folder):
        for litter in folder.glob(f".{Path(SIDECAR).stem}.*.tmp.json"):  # of a process that was killed
            litter.unlink(missing_ok=True)
        yield


def _reserve(path: Path, shape: tuple[int, int]) -> None:
    """Create an array file with its space reserved: a disk that fills up midway would leave holes."""
    open_memmap(path, mode="w+", dtype="<i2", shape=shape)
    with path.open("r+b") as handle:
        try:
            if hasattr(os, "posix_fallocate"):  # absent on some systems
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot reserve
                path.unlink()
                raise
        os.fsync(handle.fileno())


def _write_sidecar(store: VoxelStore) -> None:
    sessions = {str(k): asdict(block) for k, block in sorted(store.blocks.items())}
    document = {"format": FORMAT, "outline": asdict(store.outline), "sessions": sessions}
    write_json(store.folder / SIDECAR, document)


def _block(entry: Mapping[str, Any]) -> Block:
    return Block(str(entry["sha256"]), Source(**entry["source"]), tuple(map(str, entry["warnings"])))


def _sha256(rows: Stored) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _damaged(folder: Path, what: str) -> IntegrityError:
    return IntegrityError("prepared_store", f"prepared store {folder}: {what}", remedy=_ANEW.capitalize())


def _contradiction(path: Path, folder: Path) -> IntegrityError:
    return IntegrityError(
        "prepared_store",
        f"{path} is not the file from which {folder} was prepared",
        remedy="If the raw file is the right one, delete the prepared folder and run `nsdbench data prepare` again; "
        "if the prepared betas are, delete the raw file.",
    )


@contextlib.contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a named error that says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoRoom(
                f"the disk of {folder} is full ({error.strerror})", remedy="Free some space."
            ) from error
        raise DataError(
            f"{folder} cannot be written ({error.strerror})",
            remedy="Make it writable, or give a directory of your own with links to the data (`mkdir my-nsd; "
            "ln -s /shared/nsd/* my-nsd/`): prepared betas are written below the data directory.",
        ) from error
