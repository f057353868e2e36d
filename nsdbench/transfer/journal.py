"""The part of a file that has arrived, and the record of it that survives a killed process."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nsdbench.errors import DataError, FetchError
from nsdbench.store import read_json
from nsdbench.transfer.client import Remote
from nsdbench.transfer.room import disk_error

Span = tuple[int, int]  # first byte, and the one after the last
_FORMAT = "part/1"


class Part:
    """The growing copy of a remote file, ``.NAME.part``, and beside it ``.NAME.part.json``: which spans are written.

    A span counts once its bytes are on the disk and the journal says so; bytes beyond are downloaded again. The
    journal of another file, or of another version of it, is not used.

    Parameters
    ----------
    path : Path
        Where the whole file will be.
    remote : Remote
    provable : bool
        Whether a hash known beforehand will show that the parts belong together; else only the server's validator can.

    Raises
    ------
    NoRoom
        If the disk is full or read-only; what has arrived stays.
    """

    def __init__(self, path: Path, remote: Remote, *, provable: bool) -> None:
        self.path = path.with_name(f".{path.name}.part")
        self.journal = _journal(path)
        self.remote = remote
        self._lock = threading.Lock()
        self._open = False
        self.spans = self._known(provable)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fresh(self.journal).unlink(missing_ok=True)
            if not self.spans:
                self.journal.unlink(missing_ok=True)  # before the bytes that it counts
            flags = os.O_RDWR | os.O_CREAT | (0 if self.spans else os.O_TRUNC)
            self._file = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._open = True

    @property
    def arrived(self) -> int:
        """Bytes that count."""
        return sum(stop - start for start, stop in self.spans)

    def gaps(self, longest: int) -> list[Span]:
        """Return what is missing, in pieces of at most ``longest`` bytes; the size must be known."""
        assert self.remote.size is not None
        edges = [0, *(edge for span in self.spans for edge in span), self.remote.size]
        holes = zip(edges[::2], edges[1::2], strict=True)
        return [(at, min(at + longest, stop)) for start, stop in holes for at in range(start, stop, longest)]

    def write(self, data: bytes, offset: int) -> None:
        """Put bytes where they belong; :meth:`keep` makes them count."""
        with self._writing():
            view = memoryview(data)
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written

    def keep(self, span: Span) -> None:
        """Make written bytes count."""
        if span[0] == span[1]:
            return
        with self._writing():
            os.fsync(self._file)
            self.spans = _merged([*self.spans, span])
            self._record()

    def forget(self) -> int:
        """Throw everything away and return how much counted."""
        with self._writing():
            lost, self.spans = self.arrived, []
            self.journal.unlink(missing_ok=True)  # before the bytes that it counts
            os.ftruncate(self._file, 0)
        return lost

    def become(self, path: Path) -> None:
        """Give the file its name."""
        with self._writing():
            os.fsync(self._file)
            self.path.replace(path)
            self.journal.unlink(missing_ok=True)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """Close the file; what counts stays, and nothing is written any more."""
        with self._lock:
            self._open = False
            os.close(self._file)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One thread at a time, none after the end: after Ctrl-C, threads may still hear from their servers."""
        with self._lock:
            if not self._open:
                raise FetchError("the transfer was stopped")
            try:
                yield
            except OSError as error:
                raise disk_error(error, self.path) from error

    def _record(self) -> None:
        """Write the journal anew, by a fixed name and a rename: a killed process leaves nothing that nobody removes."""
        fresh = _fresh(self.journal)
        with fresh.open("w", encoding="utf-8") as handle:
            json.dump(self._document(), handle)
            handle.flush()
            os.fsync(handle.fileno())
        fresh.replace(self.journal)

    def _document(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "url": self.remote.url,
            "size": self.remote.size,
            "etag": self.remote.etag,
            "spans": [list(span) for span in self.spans],
        }

    def _known(self, provable: bool) -> list[Span]:
        """Return the spans of an earlier attempt at the same version of the same file."""
        remote = self.remote
        if not remote.ranges or remote.size is None or not self.path.is_file():
            return []
        found, spans = _recorded(self.journal)
        same = (found.get("format"), found.get("size")) == (_FORMAT, remote.size) and (
            provable or (remote.etag is not None and found.get("etag") == remote.etag)
        )
        if same and spans and spans[0][0] >= 0 and spans[-1][1] <= min(remote.size, self.path.stat().st_size):
            return spans
        return []


def arrived(path: Path) -> int:
    """Return how many bytes of an interrupted transfer to ``path`` its journal counts."""
    _, spans = _recorded(_journal(path))
    return max(sum(stop - start for start, stop in spans), 0)


def discard(path: Path) -> None:
    """Delete the part of a file and its journal."""
    journal, part = _journal(path), path.with_name(f".{path.name}.part")
    for leftover in (_fresh(journal), journal, part):
        leftover.unlink(missing_ok=True)


def _journal(path: Path) -> Path:
    return path.with_name(f".{path.name}.part.json")


def _recorded(journal: Path) -> tuple[dict[str, Any], list[Span]]:
    """Return what a journal says and the spans in it; nothing if it is absent or damaged."""
    with contextlib.suppress(DataError, TypeError, KeyError, ValueError, OverflowError):
        found = read_json(journal)
        spans = _merged([(int(start), int(stop)) for start, stop in found["spans"]])
        return dict(found), spans
    return {}, []


def _fresh(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.new")


def _merged(spans: list[Span]) -> list[Span]:
    """Return the same bytes as few sorted spans."""
    out: list[Span] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return out
