"""Content hashes and atomic writes: what makes runs resumable and caches honest."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import math
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nsdbench.errors import DataError

CACHE_VARIABLE = "NSDBENCH_CACHE"
MAX_JSON_BYTES = 2**28
ABANDONED_S = 24 * 3600.0
"""Temporary files of other machines count as abandoned if nothing was written to them for so long."""


def cache_root(given: Path | None = None) -> Path:
    """Return the cache directory: ``given``, else ``$NSDBENCH_CACHE``, else ``~/.cache/nsdbench``."""
    if given is not None:
        return given
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "nsdbench")


def digest(*parts: Any) -> str:
    """Return a 16-hex-digit SHA-256 prefix of ``parts``.

    Accepts strings, bytes, numbers, None, NumPy arrays and nested lists, tuples or mappings of these; every
    part is tagged with its type and length, so ``digest("ab", "c") != digest("a", "bc")``.
    """
    hasher = hashlib.sha256()
    for part in parts:
        _feed(hasher, part)
    return hasher.hexdigest()[:16]


def _feed(hasher: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        hasher.update(f"array:{part.dtype.str}:{part.shape}:".encode())
        hasher.update(np.ascontiguousarray(part).tobytes())
        return
    if isinstance(part, bytes):
        hasher.update(f"bytes:{len(part)}:".encode())
        hasher.update(part)
        return
    text = json.dumps(part, sort_keys=True, ensure_ascii=False, default=_jsonable)
    hasher.update(f"json:{len(text)}:{text}".encode())


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot hash a {type(value).__name__}")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits, reading it in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it over ``path``.

    A reader sees the old file or the whole new one, never a part. On an exception the temporary file is removed
    and ``path`` keeps its old content. The directory itself is fsynced too, so that the rename survives a crash.
    What a killed process has left of an earlier write of ``path`` is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # keep the suffix: some writers choose their format by it
    temporary = _temporary(path.parent, path.stem, path.suffix)
    try:
        with _naming(path):
            yield temporary
            _fsync(temporary)
            temporary.replace(path)
            _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``path``; on success rename it to ``path``.

    If another process created ``path`` meanwhile, its result is kept and ours is dropped: callers use
    content-addressed names, so both are equal. Killed processes are cleaned up after as by :func:`atomic_path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent, path.name, "")
    temporary.mkdir()
    try:
        with _naming(path):
            yield temporary
            for inside in (*temporary.rglob("*"), temporary):  # folders too: else a crash may empty them
                if not inside.is_symlink():
                    _fsync(inside)
            try:
                temporary.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
            _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the system say which file they are about; those of a full disk do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def remove_directory(path: Path) -> None:
    """Remove a directory, if it is there, so that nobody ever sees it half removed."""
    aside = _temporary(path.parent, path.name, "")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _temporary(folder: Path, stem: str, suffix: str) -> Path:
    """Return a new hidden name that says whose it is, after the removal of what killed processes left of others like it."""
    for left in folder.glob(f".{glob.escape(stem)}.*.tmp{glob.escape(suffix)}"):
        if _is_abandoned(left, left.name.removeprefix(f".{stem}.").partition(".")[0]):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    left.unlink()
    return folder / f".{stem}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}"


def _is_abandoned(temporary: Path, owner: str) -> bool:
    """Say whether the process that writes a temporary file is gone; of other machines only time can tell."""
    machine, _, process = owner.partition("-")
    pid = process.partition("-")[0]
    if machine == _machine() and pid.isdecimal():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # somebody else's
        return False
    try:
        newest = max(path.lstat().st_mtime for path in (temporary, *temporary.rglob("*")))
    except OSError:
        return False  # it is being written, or removed
    return time.time() - newest > ABANDONED_S


@functools.cache
def _machine() -> str:
    """Return a name of the space in which process ids count: this start of this machine, or of a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return digest(boot, str(Path("/proc/self/ns/pid").readlink()))[:8]
    except OSError:  # not Linux
        return digest(platform.node())[:8]


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder that need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same folder. A killed process leaves no lock behind.

    Where the system or the file system knows no locks (Windows, some network mounts), nothing is waited for.
    """
    # nothing is emptied, and a link is not followed: the folder may come from somebody else
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(folder / ".lock", flags, 0o666), "wb") as handle:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # not on Windows

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=_jsonable, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    DataError
        If the file is missing or unreasonably large, is not JSON, or leaves open what it means: a name given twice, a
        number that is not finite.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for ever
            raise DataError(f"{path} is not a regular file")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path} has {path.stat().st_size} bytes, too many for what it should hold")
        return json.loads(
            path.read_text(encoding="utf-8"),
            parse_constant=_not_finite,
            parse_float=_finite,
            object_pairs_hook=_unambiguous,
        )
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", remedy="Check its permissions."
        ) from error
    except (ValueError, RecursionError) as error:  # of which damaged JSON and text are kinds
        raise DataError(f"{path} is not valid JSON ({error})") from error


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} is given twice")
    return found
