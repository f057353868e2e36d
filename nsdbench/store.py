"""Content hashes and atomic writes: what makes runs resumable and caches honest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nsdbench.errors import DataError

CACHE_VARIABLE = "NSDBENCH_CACHE"


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # keep the suffix: some writers choose their format by it
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
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
    content-addressed names, so both are equal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    with (folder / ".lock").open("w") as handle:
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
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", remedy="Check its permissions."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error})") from error
