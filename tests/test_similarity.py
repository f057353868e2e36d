"""Similarity matrices on disk: what is written is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsdbench import similarity
from nsdbench.errors import DataError
from nsdbench.similarity import Similarities


@pytest.fixture
def found(rng: np.random.Generator) -> Similarities:
    """Three ground truths, two of them targets, four samples."""
    return Similarities({"clip": rng.normal(size=(3, 2, 4))}, ("A1", "A2", "B1"), ("A1", "B1"))


def test_matrices_survive_a_round_trip(found: Similarities, tmp_path: Path) -> None:
    similarity.write(tmp_path / "r.npz", found)
    loaded = similarity.read(tmp_path / "r.npz")
    assert (loaded.pool_ids, loaded.targets) == (found.pool_ids, found.targets)
    assert np.array_equal(loaded.matrices["clip"], found.matrices["clip"])


def test_the_row_of_a_target_is_its_place_in_the_pool(found: Similarities) -> None:
    assert found.truth_row.tolist() == [0, 2]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04K\x01."])
def test_a_damaged_file_is_a_data_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"r\.npz"):
        similarity.read(tmp_path / "r.npz")


@pytest.mark.parametrize(
    ("shape", "targets"), [((3, 3, 4), ("A1", "B1")), ((3, 2), ("A1", "B1")), ((3, 2, 4), ("A1", "C1"))]
)
def test_matrices_that_do_not_fit_their_ids_are_refused(
    shape: tuple[int, ...], targets: tuple[str, ...], tmp_path: Path
) -> None:
    wrong = Similarities({"clip": np.zeros(shape)}, ("A1", "A2", "B1"), targets)
    similarity.write(tmp_path / "r.npz", wrong)
    with pytest.raises(DataError, match=r"shapes do not fit|not in the pool"):
        similarity.read(tmp_path / "r.npz")


def test_a_file_without_ids_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", **{"r/clip": np.zeros((2, 2, 1))})
    with pytest.raises(DataError, match="pool_ids"):
        similarity.read(tmp_path / "r.npz")


@pytest.mark.parametrize(
    ("matrix", "fault"),
    [
        (np.full((3, 2, 1), np.nan), "finite numbers"),
        (np.zeros((3, 2, 1), np.complex128), "finite numbers"),
        (np.zeros((3, 2, 1)).astype(str), "finite numbers"),
        (np.zeros((3, 2, 0)), "shapes do not fit"),
    ],
)
def test_similarities_that_are_no_numbers_are_refused(matrix: Any, fault: str, tmp_path: Path) -> None:
    similarity.write(tmp_path / "r.npz", Similarities({"clip": matrix}, ("A1", "A2", "B1"), ("A1", "B1")))
    with pytest.raises(DataError, match=fault):
        similarity.read(tmp_path / "r.npz")


@pytest.mark.parametrize(
    ("pool", "targets", "fault"),
    [
        (("A1", "A2"), (), "no targets"),
        ((1, 2), (1, 2), "no text"),
        (("A1", "A1"), ("A1",), "not ascending"),
        (("A2", "A1"), ("A1", "A2"), "not ascending"),
    ],
)
def test_ids_that_are_no_ascending_names_are_refused(
    pool: tuple[Any, ...], targets: tuple[Any, ...], fault: str, tmp_path: Path
) -> None:
    matrix = np.zeros((len(pool), len(targets), 1))
    similarity.write(tmp_path / "r.npz", Similarities({"clip": matrix}, pool, targets))
    with pytest.raises(DataError, match=fault):
        similarity.read(tmp_path / "r.npz")


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "r.npz").open("wb") as file:
        np.save(file, np.zeros((2, 2, 1)))
    with pytest.raises(DataError, match="one array"):
        similarity.read(tmp_path / "r.npz")
