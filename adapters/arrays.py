"""Fitted models on disk: one ``.npz`` of plain arrays per model, nothing that could run code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nsdbench.errors import DataError
from nsdbench.plainarrays import load_npz
from nsdbench.store import atomic_path

T = TypeVar("T")


def save_arrays(path: Path, model: Any) -> None:
    """Write every field of the dataclass ``model`` to ``path`` (``.npz``), atomically.

    Fields are arrays, numbers, strings or booleans and keep their dtype.
    """
    fields = {field.name: np.asarray(getattr(model, field.name)) for field in dataclasses.fields(model)}
    for name, array in fields.items():
        if array.dtype.hasobject:
            raise TypeError(f"{type(model).__name__}.{name} is not an array, a number or a string")
    with atomic_path(path) as temporary:
        np.savez(temporary, **fields)  # type: ignore[arg-type]


def load_arrays(path: Path, kind: type[T]) -> T:
    """Return the dataclass ``kind`` that :func:`save_arrays` wrote to ``path``.

    Raises
    ------
    DataError
        If the file is missing or damaged, lacks a field, holds pickled objects, NaN or infinity.
    """
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    try:
        fields = load_npz(path, names)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a stored {kind.__name__} ({error})", remedy="Delete it and fit the model again."
        ) from error
    for name, array in fields.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path} holds NaN or infinity in {name}", remedy="Fit the model again.")
    return kind(**{name: array if array.ndim else array.item() for name, array in fields.items()})
