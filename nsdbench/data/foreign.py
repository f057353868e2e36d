"""Reading files that others wrote: damage becomes a DataError that names the file."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nsdbench.data.layout import again, require
from nsdbench.errors import DataError


def read_mat(path: Path, names: Sequence[str]) -> list[Any]:
    """Return variables of a MATLAB v5 file.

    Raises
    ------
    DataError
        If the file is missing or damaged, or lacks a variable.
    """
    import scipy.io
    from scipy.io.matlab import MatReadError

    require(path)
    # scipy's parser meets damaged bytes with whatever they happen to trigger
    damage = (MatReadError, ValueError, TypeError, OSError, LookupError, MemoryError, NotImplementedError)
    try:
        loaded = scipy.io.loadmat(path, variable_names=list(names))
        return [loaded[name] for name in names]
    except (*damage, zlib.error, struct.error, ArithmeticError) as error:
        raise DataError(
            f"{path} is not a readable MATLAB file with {', '.join(names)} ({error!r})", remedy=again(path)
        ) from error


def own_dataset(file: Any, name: str) -> Any:
    """Return a member of an open HDF5 file, whose numbers are in this very file; HDF5 can also point into other files.

    Raises
    ------
    KeyError
        If there is none.
    OSError
        If it leads elsewhere; the message does not name the file.
    """
    import h5py

    if name not in file.keys():  # noqa: SIM118 - `in file` would follow a link
        raise KeyError(f"it has no {name}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise OSError(f"{name} is a link to somewhere else")
    found = file[name]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise OSError(f"the numbers of {name} lie in another file")
    return found


def nifti_damage() -> tuple[type[Exception], ...]:
    """Return what nibabel raises for a NIfTI file that is damaged or none."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    return (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, MemoryError)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table with a header, tab-separated (``.tsv``) or comma-separated.

    Raises
    ------
    DataError
        If the file is missing, is not text, lacks one of ``columns``, or has a row without a value for one.
    """
    try:
        with require(path).open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle, delimiter="\t" if path.suffix == ".tsv" else ",")
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {missing[0]}", remedy=again(path))
            for number, row in enumerate(reader, start=1):
                if any(row[c] is None for c in columns):
                    raise DataError(f"{path}: row {number} is cut off", remedy=again(path))
                yield row
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path} is not a readable table ({error})", remedy=again(path)) from error


def table_columns(path: Path) -> tuple[str, ...]:
    """Return the column names of a comma-separated table."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return tuple(csv.DictReader(handle).fieldnames or ())
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path} is not a readable table ({error})", remedy=again(path)) from error
