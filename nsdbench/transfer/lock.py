"""One at a time: threads and processes that want the same file."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from nsdbench.transfer.room import disk_error

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait until nobody else, thread or process, brings the same file.

    Where the file system knows no locks, or where the file is there and nobody can write, nothing is waited for.

    Raises
    ------
    NoRoom
        If the folder cannot be made or written to.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(lock)
    except OSError as error:
        if error.errno in _READ_ONLY and path.is_file():  # a shared folder that others fill
            yield
            return
        raise disk_error(error, lock) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()  # while it is ours, so that nobody holds a file without a name
        os.close(handle)


def _locked(lock: Path) -> int:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            with contextlib.suppress(ImportError, OSError):
                import fcntl  # not on Windows

                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is(lock, handle):
                return handle
        except BaseException:  # Ctrl-C while waiting
            os.close(handle)
            raise
        os.close(handle)  # its owner has removed it meanwhile


def _is(lock: Path, handle: int) -> bool:
    try:
        return lock.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
