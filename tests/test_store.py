"""Hashes tell content apart; writes are whole or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.errors import DataError
from nsdbench.store import (
    ABANDONED_S,
    atomic_directory,
    atomic_path,
    digest,
    read_json,
    remove_directory,
    write_json,
    write_text,
)

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


def _killed_writer(path: Path, kind: str) -> None:
    """Leave what a process leaves that is killed while it writes ``path``."""
    code = (
        "import os, signal, sys; from pathlib import Path; from nsdbench import store\n"
        f"with store.{kind}(Path(sys.argv[1])) as temporary:\n"
        "    (temporary / 'part' if temporary.is_dir() else temporary).write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)


@pytest.mark.parametrize("kind", ["atomic_path", "atomic_directory"])
def test_what_a_killed_writer_left_goes_with_the_next_write_of_the_same_name(
    tmp_path: Path, kind: str
) -> None:
    path, write = (
        tmp_path / "name.txt",
        {"atomic_path": atomic_path, "atomic_directory": atomic_directory}[kind],
    )
    _killed_writer(path, kind)
    assert len(list(tmp_path.glob(".name*.tmp*"))) == 1
    with write(path) as temporary:
        (temporary / "part" if temporary.is_dir() else temporary).write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_living_writer_has_written_so_far_stays(tmp_path: Path) -> None:
    path = tmp_path / "name.txt"
    with atomic_path(path) as slow:
        slow.write_text("slow")
        with atomic_path(path) as fast:
            fast.write_text("fast")
        assert slow.read_text() == "slow"
    assert path.read_text() == "slow"


def test_files_of_a_writer_on_another_machine_stay_for_a_day(tmp_path: Path) -> None:
    path, foreign = tmp_path / "name.txt", tmp_path / ".name.0123abcd-77-89ef.tmp.txt"
    for age, stays in ((ABANDONED_S - 600, True), (ABANDONED_S + 600, False)):
        foreign.write_text("half")
        os.utime(foreign, (time.time() - age,) * 2)
        write_text(path, "whole")
        assert foreign.exists() == stays


def test_a_directory_is_removed_at_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    monkeypatch.setattr("shutil.rmtree", lambda path, **how: None)  # killed before it could begin
    remove_directory(folder)
    assert not folder.exists()
    monkeypatch.undo()
    remove_directory(folder)  # nothing is there any more
    with atomic_directory(folder) as temporary:
        (temporary / "new").mkdir()
    # a name of this process, which lives: it goes with the next write of another one
    assert [p.name for p in folder.iterdir()] == ["new"]
