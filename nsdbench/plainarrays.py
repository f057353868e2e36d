"""NumPy's files, read without unpickling, and without taking more memory than the file has bytes."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def load_npy(path: Path) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, mapped and read-only.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is anything else than one plain array; the message says why, without the name of the file.
    """
    _require_regular(path)
    if zipfile.is_zipfile(path):
        raise ValueError("an archive instead of one array")
    found: NDArray[Any] = _guarded(lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    return found


def load_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file that was written uncompressed, or those of some names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is anything else, or lacks a name; the message says why, without the name of the file.
    """
    _require_regular(path)
    return _guarded(lambda: _read_npz(path, names))


def _read_npz(path: Path, names: Iterable[str] | None) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("not an archive of arrays, such as one array alone")
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("one name stands for several arrays")
        wanted = list(entries if names is None else names)
        if lacking := [name for name in wanted if name not in entries]:
            raise ValueError(f"it has no array {lacking[0]}")
        # of stored entries, no more can come than the file has bytes
        if any(entries[name].compress_type != zipfile.ZIP_STORED for name in wanted):
            raise ValueError("its arrays are compressed")
        if sum(entries[name].file_size for name in wanted) > path.stat().st_size:
            raise ValueError("its arrays overlap")
        return {name: _read_entry(archive, entries[name]) for name in wanted}


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as handle:
        found: NDArray[Any] = np.lib.format.read_array(handle, allow_pickle=False)
        handle.read()  # to the end, where the checksum is compared
    return found


def _require_regular(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if not path.is_file():  # opening a pipe would wait for ever
        raise ValueError("not a regular file")


def _guarded(read: Callable[[], T]) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except Exception as error:  # foreign bytes break NumPy's parser in many ways; all are one news
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return one line; NumPy's advice, to unpickle after all, is not passed on."""
    text = str(error).strip() or type(error).__name__
    if "pickle" in text or "Python objects" in text or "Object arrays" in text:
        return "it holds pickled Python objects, which are never loaded"
    return text.splitlines()[0]
