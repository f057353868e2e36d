"""A file with the true shape of subject 1, written only at its mask: values and memory."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest

from nsdbench.data.betas import read_betas, read_header
from nsdbench.data.checks_files import check_grid, check_rows, check_size
from nsdbench.data.facts import nsd_expectations
from nsdbench.data.rois import Voxels
from nsdbench.errors import IntegrityError

N_VOXELS = 3000


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Betas of shape (720, 83, 104, 81) with 3000 allocated voxels."""
    x, y, z = nsd_expectations().of(1).grid
    rng = np.random.default_rng(5)
    flat = np.sort(rng.choice(x * y * z, N_VOXELS, replace=False))
    coordinates = np.stack(np.unravel_index(flat, (x, y, z)), axis=1)
    stored = rng.integers(-3000, 3000, (720, N_VOXELS), dtype=np.int16)
    path = tmp_path_factory.mktemp("full") / "betas_nsdimagery.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("betas", (720, z, y, x), np.int16, chunks=(720, 1, 1, 1))
        for column, (i, j, k) in enumerate(coordinates):
            data.id.write_direct_chunk((0, k, j, i), stored[:, column].tobytes())
    return path, Voxels((x, y, z), coordinates, {}), stored


def test_masked_voxels_are_read_with_memory_of_the_result(sparse):
    path, voxels, stored = sparse
    read_betas(path, voxels.subset(np.arange(10)))  # imports and caches
    tracemalloc.start()
    values = read_betas(path, voxels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(values, stored)
    assert peak < 2 * stored.nbytes  # the whole volume would be 230 times the result


def test_the_header_is_that_of_subject_1_and_no_other(sparse):
    header = read_header(sparse[0])
    assert check_rows(header, 720) == ()
    assert check_grid(header, nsd_expectations().of(1).grid) == ()
    with pytest.raises(IntegrityError):
        check_grid(header, nsd_expectations().of(2).grid)


def test_unallocated_voxels_are_refused_where_a_complete_download_is_expected(sparse):
    with pytest.raises(IntegrityError) as caught:
        check_size(read_header(sparse[0]), real=True)
    assert caught.value.check == "beta_size"


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (30, 1, 1, 1)},
        {"chunks": (30, 1, 1, 1), "compression": "gzip"},
        {"chunks": (30, 1, 1, 1), "shuffle": True},
        {"chunks": (10, 2, 2, 2)},
        {},
    ],
)
def test_values_do_not_depend_on_how_the_file_lays_them_out(tmp_path, layout):
    rng = np.random.default_rng(1)
    stored = rng.integers(-3000, 3000, (30, 4, 5, 6), dtype=np.int16)
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file.create_dataset("betas", data=stored, **layout)
    coordinates = rng.permutation(np.argwhere(rng.random((6, 5, 4)) < 0.5))
    x, y, z = coordinates.T
    read = read_betas(tmp_path / "betas.hdf5", Voxels((6, 5, 4), coordinates, {}))
    np.testing.assert_array_equal(read, stored[:, z, y, x])


def test_voxels_that_were_never_written_read_as_zero_beside_others(tmp_path):
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        data = file.create_dataset("betas", (30, 2, 2, 4), np.int16, chunks=(30, 1, 1, 1))
        data.id.write_direct_chunk((0, 1, 0, 2), np.arange(30, dtype=np.int16).tobytes())
    coordinates = np.array([[1, 0, 1], [2, 0, 1], [3, 0, 1], [0, 1, 0]])
    read = read_betas(tmp_path / "betas.hdf5", Voxels((4, 2, 2), coordinates, {}))
    assert read[:, 1].tolist() == list(range(30))
    assert not read[:, [0, 2, 3]].any()
