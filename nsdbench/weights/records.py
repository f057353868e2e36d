"""What is remembered of weights files: which content a name stands for, where it came from, and hashes once computed.

``pins.json`` lies beside the files and belongs to them: by file name, the SHA-256, alone or with the facts of a download.
``.hashes.json`` only saves time: hashes by file name (of files elsewhere, by path), size and time of modification.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsdbench.errors import DataError, WeightsError
from nsdbench.store import locked, read_json, sha256_file, write_json

PINS, HASHES = "pins.json", ".hashes.json"


@dataclass(frozen=True)
class Pin:
    """What the name of a file stands for in a folder.

    Attributes
    ----------
    sha256 : str
    facts : mapping
        Of the download, as far as known: ``url``, ``date``, ``size``; of the hub also ``commit`` and ``hub_sha256``.
    """

    sha256: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told_by_hub(self) -> bool:
        """Whether the hub itself had said beforehand what the content is."""
        return self.facts.get("hub_sha256") == self.sha256


def pin_of(folder: Path, filename: str) -> Pin | None:
    """Return what a folder has recorded about one of its files.

    Raises
    ------
    WeightsError
        If the record cannot be understood.
    """
    found = _read(folder / PINS).get(filename)
    facts = found if isinstance(found, dict) else {"sha256": found}
    sha256 = facts.get("sha256")
    if found is None:
        return None
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise WeightsError(
            f"{folder / PINS}: {filename} has no sha256", remedy="Delete the entry; it is made again."
        )
    return Pin(sha256, {name: value for name, value in facts.items() if name != "sha256"})


def pin(folder: Path, filename: str, record: Pin) -> bool:
    """Record what a file is; return False where the folder cannot be written."""
    value = {"sha256": record.sha256, **record.facts} if record.facts else record.sha256
    return _update(folder / PINS, filename, value)


def remembered_sha256(path: Path, home: Path) -> str:
    """Return the SHA-256 of a file, computed once per size and time of modification.

    It is remembered beside the file, or in ``home`` where that folder cannot be written.
    """
    if (known := known_sha256(path, home)) is not None:
        return known
    sha256 = sha256_file(path)
    remember_sha256(path, sha256, home)
    return sha256


def known_sha256(path: Path, home: Path) -> str | None:
    """Return the remembered SHA-256 of a file; None if it was not computed since the file has changed."""
    stamp = _stamp(path)
    for table, name in _places(path, home):
        known = _read(table).get(name)
        if isinstance(known, dict) and known.get("stamp") == stamp and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
    return None


def remember_sha256(path: Path, sha256: str, home: Path) -> None:
    """Remember a hash that was computed elsewhere, such as during a download."""
    value = {"stamp": _stamp(path), "sha256": sha256}
    for table, name in _places(path, home):
        if _update(table, name, value):
            return


def _places(path: Path, home: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
    return (path.parent / HASHES, path.name), (home / HASHES, str(path.absolute()))


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path) if path.exists() else {}
    except DataError as error:
        raise WeightsError(error.message, remedy=error.remedy or "Delete it; it is made again.") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is not a table of file names", remedy="Delete it; it is made again.")
    return found


def _update(path: Path, name: str, value: Any) -> bool:
    if _read(path).get(name) == value:
        return True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            write_json(path, _read(path) | {name: value})
    except OSError as error:
        if not is_refusal(error):
            raise
        return False  # a folder shared by an administrator: results carry the hash anyway
    return True


def is_refusal(error: OSError) -> bool:
    """Whether an error says that a place cannot be written, rather than that something broke."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the tables of a folder; where the lock belongs to another user, try anyway."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(PermissionError):
            stack.enter_context(locked(folder))
        yield
