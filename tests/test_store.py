"""Hashes tell content apart; writes are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.errors import DataError
from nsdbench.store import atomic_directory, atomic_path, digest, read_json, write_json

parts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3), max_leaves=6
)


@given(st.lists(parts, max_size=4), st.lists(parts, max_size=4))
def test_equal_hashes_mean_equal_content(a: list, b: list) -> None:
    # JSON text separates True from 1 and "1" from 1, as Python's == does not
    assert (digest(*a) == digest(*b)) == ([json.dumps(x) for x in a] == [json.dumps(x) for x in b])


def test_arrays_are_hashed_by_dtype_shape_and_values() -> None:
    x = np.arange(6)
    hashes = {
        digest(x),
        digest(x.reshape(2, 3)),
        digest(x.astype(np.int32)),
        digest(x[::-1]),
        digest(x.tolist()),
    }
    assert len(hashes) == 5
    assert digest(x.reshape(2, 3).T) == digest(np.ascontiguousarray(x.reshape(2, 3).T))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_directory_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_of_one_directory_the_first_is_kept(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "folder") as late:
        (late / "a").write_text("late")
        with atomic_directory(tmp_path / "folder") as early:
            (early / "a").write_text("early")
    assert (tmp_path / "folder" / "a").read_text() == "early"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_nan_never_reaches_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_unreadable_json_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "y.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder cannot be read"):
        read_json(tmp_path / "folder")
