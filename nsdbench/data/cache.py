"""Content-addressed store of normalized trials: memory-mapped arrays with a checked inventory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.errors import DataError
from nsdbench.store import atomic_directory, cache_root, read_json, remove_directory, write_json

_WHOLE = 8 * 2**20  # files up to this size are hashed completely
_BLOCK = 4096
_BLOCKS = 16
_INVENTORY = "entry.json"


@dataclass(frozen=True)
class Entry:
    """One cache entry: arrays (memory-mapped, read-only) and JSON facts about them."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


def fingerprint(path: Path) -> str:
    """Return a digest of a file's content that costs milliseconds at any size.

    Small files are hashed completely, larger ones by their size and 16 blocks spread from the first byte to the
    last. Name, place and times do not enter.
    """
    try:
        size = path.stat().st_size
        hasher = hashlib.sha256(str(size).encode())
        with path.open("rb") as handle:
            if size <= _WHOLE:
                hasher.update(handle.read())
            else:
                for offset in np.linspace(0, size - _BLOCK, _BLOCKS).astype(int).tolist():
                    handle.seek(offset)
                    hasher.update(handle.read(_BLOCK))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", remedy="Check its permissions."
        ) from error
    return hasher.hexdigest()[:16]


def fingerprints(paths: Iterable[Path]) -> list[str]:
    """Return the fingerprint of each path, ``"absent"`` where there is no file."""
    return [fingerprint(path) if path.is_file() else "absent" for path in paths]


def stamps(paths: Iterable[Path]) -> list[int]:
    """Return when each file was last changed, for those of which a fingerprint sees a sample only; 0 for others.

    Cached arrays depend on it, so that a large file edited in place or completed later is read again; the identity
    of a data set (:func:`fingerprints`) does not, because copies of a file differ in it.
    """
    found = [path.stat() if path.is_file() else None for path in paths]
    return [stamp(s.st_size, s.st_mtime_ns) if s else 0 for s in found]


def stamp(size: int, mtime_ns: int) -> int:
    """Return the stamp of one file by its size and time; see :func:`stamps`."""
    return mtime_ns if size > _WHOLE else 0


def load_or_build(cache: Path | None, key: str, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
    """Return the cache entry of ``key``, building it first if it is absent or damaged.

    Parameters
    ----------
    cache : Path or None
        Cache directory; None means the default.
    key : str
        Digest of everything that determines the content.
    build : callable
        ``build(directory)`` writes ``*.npy`` files into an empty directory and returns JSON facts.
    """
    folder = _folder(cache, key)
    existed = folder.is_dir()
    found = _load(folder)
    if found is not None:
        return found
    try:
        if existed:  # damaged; an entry that another process finished meanwhile is left alone
            remove_directory(folder)
        with atomic_directory(folder) as directory:
            facts = build(directory)
            inventory = {path.stem: _describe(path) for path in sorted(directory.glob("*.npy"))}
            write_json(directory / _INVENTORY, {"arrays": inventory, "facts": dict(facts)})
    except OSError as error:
        raise DataError(
            f"trials could not be cached in {folder.parent}: {error}",
            remedy="Free space there, or name another directory (--cache, NSDBENCH_CACHE).",
        ) from error
    built = _load(folder)
    if built is None:
        raise DataError(
            f"cache entry {folder} cannot be read back", remedy="Is another program changing the cache?"
        )
    return built


def is_built(cache: Path | None, key: str) -> bool:
    """Return True if :func:`load_or_build` would read no more than the entry of ``key``."""
    return _load(_folder(cache, key)) is not None


def _folder(cache: Path | None, key: str) -> Path:
    return cache_root(cache) / "trials" / key


def _describe(path: Path) -> dict[str, Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return {"shape": list(array.shape), "dtype": array.dtype.str, "bytes": path.stat().st_size}


def _load(folder: Path) -> Entry | None:
    """Return the entry in ``folder``, or None if it is absent or does not match its inventory."""
    try:
        document = read_json(folder / _INVENTORY)
        paths = {name: folder / f"{name}.npy" for name in document["arrays"]}
        if any(_describe(path) != document["arrays"][name] for name, path in paths.items()):
            return None
        arrays = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in paths.items()}
        return Entry(arrays, document["facts"])
    except (DataError, OSError, ValueError, KeyError, TypeError, EOFError):
        return None
