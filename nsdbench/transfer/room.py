"""Disk space, looked at before anything is transferred."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nsdbench.errors import NoRoom
from nsdbench.store import free_bytes, nearest

SPARE = 64 * 2**20
"""Left free for journals, records and other programs."""


def require_room(folder: Path, n_bytes: int) -> None:
    """Check that ``folder`` (or where it will be made) is writable and takes ``n_bytes`` more.

    Raises
    ------
    NoRoom
        If it does not.
    """
    existing = nearest(folder)
    if not os.access(existing, os.W_OK):
        raise NoRoom(
            f"{existing} cannot be written to", remedy="Check its permissions, or name another directory."
        )
    free = free_bytes(existing)
    if n_bytes and n_bytes + SPARE > free:
        raise NoRoom(
            f"{existing} has {amount(free)} free, {amount(n_bytes)} and {amount(SPARE)} to spare are needed",
            remedy="Free some disk space, or name a directory on another disk.",
        )


def amount(n_bytes: float) -> str:
    """Return a number of bytes in words, such as ``"1.05 GB"``."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def disk_error(error: OSError, path: Path) -> NoRoom:
    """Return the named error for a failed write to ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(
            f"the disk of {path.parent} is full",
            remedy="Free some space and run the same command again: it continues from what has arrived.",
        )
    return NoRoom(
        f"{path} cannot be written ({error.strerror})", remedy="Check the permissions of its directory."
    )
