"""Grouping without pandas, compared with pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from nsdbench import groups

CELLS = st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2), st.sampled_from([0.5, -1.0, None]))


def table_of(rows: list[tuple[str | None, int, float | None]]) -> pa.Table:
    names = pa.schema([("name", pa.string()), ("number", pa.int16()), ("value", pa.float64())])
    return pa.Table.from_pylist([dict(zip(names.names, row, strict=True)) for row in rows], schema=names)


@settings(max_examples=50, deadline=None)
@given(st.lists(CELLS, max_size=20))
def test_starts_mark_each_group_of_a_sorted_table_once(
    rows: list[tuple[str | None, int, float | None]],
) -> None:
    table = groups.sort(table_of(rows), ["name", "number"])
    found = groups.starts(table, ["name", "number"])
    assert len(found) == len({row[:2] for row in rows})
    if rows:
        sizes = table.to_pandas().groupby(["name", "number"], dropna=False).size()
        assert np.diff([*found, len(rows)]).tolist() == sizes.tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(CELLS, max_size=20))
def test_distinct_keeps_one_of_each_row(rows: list[tuple[str | None, int, float | None]]) -> None:
    found = groups.distinct(table_of(rows), ["name", "number", "value"])
    assert len(found) == len(pd.DataFrame(rows).drop_duplicates()) if rows else len(found) == 0


def test_floats_are_nan_where_the_column_is_null_also_in_slices_and_chunks() -> None:
    column = pa.chunked_array(
        [pa.array([9.0, 1.0, None]).slice(1), pa.array([2.5]), pa.array([None], pa.float64())]
    )
    assert groups.floats(column).tolist()[0::2] == [1.0, 2.5]
    assert np.isnan(groups.floats(column)).tolist() == [False, True, False, True]
    assert len(groups.floats(pa.chunked_array([], pa.float64()))) == 0
