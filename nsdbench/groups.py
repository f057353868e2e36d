"""Sorting and grouping Arrow tables with NumPy.

``Table.group_by``, ``Table.sort_by``, ``Array.to_numpy`` and ``pa.array`` would do, but they load pandas wherever it is
installed, and that alone costs as much as all of ``nsdbench compare``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def sort(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return ``table`` sorted by the columns ``names``, ascending, nulls last."""
    return table.take(
        pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])
    ).combine_chunks()


def starts(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows at which a run of rows with equal values in the columns ``names`` begins; nulls are equal."""
    if not len(table):
        return np.zeros(0, np.int64)
    begins = np.zeros(len(table), bool)
    begins[0] = True
    for name in names:
        column = pa.concat_arrays(table[name].chunks).dictionary_encode(null_encoding="encode")
        codes = np.from_dlpack(column.indices)
        begins[1:] |= codes[1:] != codes[:-1]
    return np.flatnonzero(begins)


def take(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return the rows of ``table`` at the positions ``rows``."""
    return table.take(
        pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])
    )


def distinct(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return ``table`` sorted by ``names`` without rows that repeat another one in every column."""
    ordered = sort(table, names)
    return take(ordered, starts(ordered, ordered.column_names))


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a float64 column as an array, NaN where it is null."""
    if not len(column):
        return np.zeros(0)
    array = pa.concat_arrays(column.chunks)
    values = np.frombuffer(array.buffers()[1], np.float64)[array.offset : array.offset + len(array)]
    if not array.null_count:
        return values
    present = np.from_dlpack(pc.is_valid(array).cast(pa.int8())).astype(bool)
    return np.where(present, values, np.nan)
