"""Files of features of training images: complete or absent, checked before use, written by several processes at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.rows import Rows
from nsdbench.adapters.stimuli import BATCH, LABEL, batches
from nsdbench.errors import DataError, NoRoom
from nsdbench.store import atomic_path, digest, free_bytes, read_json, sha256_file, write_json
from nsdbench.types import JsonScalar, Progress, Stimuli

FORMAT = 1
SHARD = 256
"""Most images in one file."""
LARGE = 500_000_000
"""Features of so many bytes are announced with their size."""
LOG = logging.getLogger(__name__)
Compute = Callable[[tuple[str, ...]], Mapping[str, NDArray[Any]]]
"""From 16 stimulus ids to arrays (16, ...) by name."""
Found = Mapping[str, Any]
"""Arrays or :class:`Rows` by name."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True)
class Kind:
    """What features are, apart from the images they are of: whatever could change a number.

    Attributes
    ----------
    name : str
        Stands in the name of the folder.
    version : int
        Grows by one whenever the same input can give other features.
    weights : tuple of str
        Ids of the weights behind them; their SHA-256 is part of the key.
    settings : mapping of str to JSON scalar
    captions : bool
        Whether they depend on the captions of an image.
    exact : bool
        Whether every device computes the same; if not, those of a CPU and of a GPU are kept apart.
    item_bytes : int
        Bytes per image, if they are known beforehand; 0 if not.
    """

    name: str
    version: int
    weights: tuple[str, ...] = ()
    settings: Mapping[str, JsonScalar] = field(default_factory=dict)
    captions: bool = False
    exact: bool = False
    item_bytes: int = 0


def in_full_batch(compute: Compute, ids: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Compute features of up to 16 images in a batch of 16; what is not finite is refused, or it would be kept."""
    found = compute((*ids, *[ids[-1]] * (BATCH - len(ids))))
    for name, part in found.items():
        if not np.isfinite(part).all():
            bad = next(id for id, row in zip(ids, part, strict=False) if not np.isfinite(row).all())
            raise DataError(
                f"{name} of training image {bad} holds values that are not finite",
                remedy="Half precision can overflow: compute on the CPU, and check the weights "
                "(nsdbench weights verify).",
            )
    return {name: part[: len(ids)] for name, part in found.items()}


class _Damaged(Exception):
    """A file is not what was written, or its images have changed since; the message says which."""


class FeatureFiles:
    """The files of one kind of features, and the rows in them that are wanted.

    ``NAME.npy`` has one record per image, with a field for each array. ``NAME.json`` is written after it and says whose they
    are; a file without it does not count.

    Parameters
    ----------
    folder : Path
    kind : Kind
    stimuli : Stimuli
    ids : sequence of str
        What is wanted.
    """

    def __init__(self, folder: Path, kind: Kind, stimuli: Stimuli, ids: Sequence[str]) -> None:
        self.folder, self.kind, self.stimuli, self.ids = folder, kind, stimuli, ids
        self.keys = {stimulus: self._row_key(stimulus) for stimulus in ids}
        self.wanted = set(self.keys.values())
        self.parts: list[NDArray[Any]] = []
        self.places: dict[str, tuple[int, int]] = {}  # by row key: part, row
        self.seen: set[str] = set()

    def _row_key(self, stimulus: str) -> str:
        """Hash what is special of one image: its pixels, as the data set identifies them, and its captions."""
        captions = self.stimuli.captions.get(stimulus, ()) if self.kind.captions else ()
        return digest(self.stimuli.source or self.stimuli.content_hash, stimulus, captions)

    def rows(self) -> Found:
        """Return what is wanted, by name.

        Raises
        ------
        DataError
            If a file that was just written cannot be read back.
        """
        lost = [stimulus for stimulus, key in self.keys.items() if key not in self.places]
        if lost:
            raise DataError(
                f"features of {len(lost)} images cannot be read back from {self.folder}",
                remedy="Is another program changing that folder? Delete it; it is made again.",
            )
        places = np.array([self.places[self.keys[stimulus]] for stimulus in self.ids])
        names = self.parts[0].dtype.names or ()
        return {name: Rows([part[name] for part in self.parts], places) for name in names}

    def fill(self, compute: Compute, progress: Progress) -> None:
        """Compute and keep whatever is not there yet."""
        self._look()
        ids = list(self.keys)
        chunks = [ids[start : start + SHARD] for start in range(0, len(ids), SHARD)]
        todo = [missing for chunk in chunks if (missing := self._missing(chunk))]
        if not todo:
            return
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        n_bytes = self.kind.item_bytes * sum(map(len, todo))
        self._require_room(n_bytes)
        n_batches = sum(-(-len(chunk) // BATCH) for chunk in todo)
        label = LABEL if n_bytes < LARGE else f"{LABEL} ({n_bytes / 1e9:.1f} GB)"
        for _ in progress.track(self._filling(todo, compute), label, total=n_batches):
            pass
        self._look()

    def _missing(self, ids: Sequence[str]) -> list[str]:
        return [stimulus for stimulus in ids if self.keys[stimulus] not in self.places]

    def _filling(self, todo: Sequence[Sequence[str]], compute: Compute) -> Iterator[None]:
        """Write files, and yield after every batch; those on which other processes work come last."""
        busy: list[Sequence[str]] = []
        for wait, chunks in ((False, todo), (True, busy)):
            for chunk in chunks:
                with self._claimed(self._name(chunk), wait=wait) as mine:
                    if not mine:
                        busy.append(chunk)
                        continue
                    self._look(keep_damaged=True)  # another process may have been faster
                    if missing := self._missing(chunk):
                        yield from self._write(missing, compute)

    def _name(self, ids: Sequence[str]) -> str:
        return digest(*(self.keys[stimulus] for stimulus in ids))

    def _write(self, ids: Sequence[str], compute: Compute) -> Iterator[None]:
        path = self.folder / f"{self._name(ids)}.npy"
        with self._writing():
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                sink = _Sink(file, len(ids))
                for some in batches(ids):
                    sink.put(in_full_batch(compute, some))
                    yield
            write_json(
                path.with_suffix(".json"),
                {
                    "format": FORMAT,
                    "kind": self.kind.name,
                    "weights": self.kind.weights,
                    "settings": self.kind.settings,
                    "ids": ids,
                    "keys": [self.keys[stimulus] for stimulus in ids],
                    "sha256": sink.hasher.hexdigest(),
                    "source_changed": self.stimuli.source_changed,
                    "pixels": [self._pixels(stimulus) for stimulus in ids],
                },
            )

    def _pixels(self, stimulus: str) -> str:
        return digest(self.stimuli.image(stimulus))

    def _look(self, *, keep_damaged: bool = False) -> None:
        """Take up the files that hold some of what is wanted, and delete damaged ones."""
        for path in sorted(self.folder.glob("*.json")):
            if path.name in self.seen or path.name.startswith("."):
                continue
            try:
                self._take_up(path)
            except _Damaged:
                if not keep_damaged:
                    self._delete(path)
                continue
            self.seen.add(path.name)

    def _take_up(self, path: Path) -> None:
        try:
            document = read_json(path)
            keys = document["keys"]
            if self.wanted.isdisjoint(keys):
                return
            records = path.with_suffix(".npy")
            if sha256_file(records) != document["sha256"]:
                raise _Damaged("its checksum is wrong")
            values = np.load(records, mmap_mode="r", allow_pickle=False)
            pixels = list(zip(document["ids"], document["pixels"], strict=True))
            if not values.shape == (len(keys),) == (len(pixels),):
                raise _Damaged("it has another number of rows")
            unchanged = document["source_changed"] == self.stimuli.source_changed
        except (DataError, FileNotFoundError, ValueError, KeyError, TypeError, EOFError) as error:
            raise _Damaged(str(error)) from error
        for stimulus, known in (pixels[0], pixels[-1]) if unchanged else pixels:
            if stimulus in self.stimuli.has_image and self._pixels(stimulus) != known:
                raise _Damaged(f"image {stimulus} has changed since")
        self.parts.append(values)
        self.places |= {key: (len(self.parts) - 1, row) for row, key in enumerate(keys)}

    def _delete(self, path: Path) -> None:
        """Delete a damaged file, unless another process has written it anew meanwhile."""
        with self._claimed(path.stem, wait=True), self._writing():
            try:
                self._take_up(path)
            except _Damaged as reason:
                LOG.info("features in %s are computed again: %s", path.with_suffix(".npy"), reason)
                path.unlink(missing_ok=True)
                path.with_suffix(".npy").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _claimed(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Give whether file ``name`` may be written now; nobody else may until then. Do not nest.

        Where the system or the file system knows no locks, two processes may compute the same, and one result is kept.
        """
        with self._writing():
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.fdopen(os.open(self.folder / ".lock", flags, 0o666), "wb")
        with handle:
            held = _lock(handle, name, wait=wait)
            if held:
                for left in self.folder.glob(f".{name}.*"):  # by a process that was killed
                    left.unlink(missing_ok=True)
            yield held is not False

    def _require_room(self, needed: int) -> None:
        free = free_bytes(self.folder)
        if needed > free:
            raise self._no_room(f"they take {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are left")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK:
                raise
            raise self._no_room(str(error.strerror)) from error

    def _no_room(self, why: str) -> NoRoom:
        return NoRoom(
            f"features of training images could not be kept in {self.folder}: {why}",
            remedy="Free space, name another place with --cache, or compute them anew in every fit with "
            "--no-keep-features. Those that are complete will be used.",
        )


def _lock(handle: BinaryIO, name: str, *, wait: bool) -> bool | None:
    """Lock one byte of a file, whose place is the name: so no lock file has to be left behind for every name.

    Returns whether it is held, or None where there are no locks.
    """
    try:
        import fcntl  # not on Windows

        fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, int(name, 16) >> 2)
    except (BlockingIOError, PermissionError):  # systems differ
        return False
    except (ImportError, OSError):
        return None
    return True


class _Sink:
    """Writes records into a ``.npy`` file as they come; plain writes, because a full disk kills who writes a map."""

    def __init__(self, file: BinaryIO, n_rows: int) -> None:
        self.file, self.n_rows = file, n_rows
        self.hasher = hashlib.sha256()
        self.dtype: np.dtype[Any] | None = None

    def put(self, parts: Mapping[str, NDArray[Any]]) -> None:
        """Append rows."""
        if self.dtype is None:
            self.dtype = np.dtype([(name, part.dtype, part.shape[1:]) for name, part in parts.items()])
            self._bytes(_header(self.dtype, self.n_rows))
        records = np.empty(len(next(iter(parts.values()))), self.dtype)
        for name, part in parts.items():
            records[name] = part
        self._bytes(records.tobytes())

    def _bytes(self, data: bytes) -> None:
        self.file.write(data)
        self.hasher.update(data)


def _header(dtype: np.dtype[Any], n_rows: int) -> bytes:
    buffer = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows,)}
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()
