from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io

from nsdbench.sim.files import cell, write_betas, write_mat, write_nifti, write_table


def test_a_volume_has_the_header_of_the_real_files(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "v.nii.gz", volume)
    image = nib.load(tmp_path / "v.nii.gz")
    header = image.header
    assert np.array_equal(np.asarray(image.dataobj), volume)
    assert (int(header["datatype"]), int(header["bitpix"])) == (4, 16)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    assert np.allclose(header["pixdim"][1:4], 1.8)
    assert np.allclose(image.affine[:3, 3], [(1 - (n + 1) / 2) * 1.8 for n in (2, 3, 4)])
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_a_volume_stores_slope_zero(tmp_path: Path) -> None:
    import gzip

    write_nifti(tmp_path / "v.nii.gz", np.zeros((2, 3, 4), np.int16))
    raw = gzip.decompress((tmp_path / "v.nii.gz").read_bytes())
    assert np.frombuffer(raw, "<f4", count=1, offset=112)[0] == 0


def test_betas_are_rounded_half_away_from_zero_and_saturate(tmp_path: Path) -> None:
    psc = np.array([[0.5 / 300, -0.5 / 300, 1.0, 500.0, -500.0]], np.float32)
    write_betas(tmp_path / "b.hdf5", psc, np.arange(5), (1, 1, 5))
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["betas"][0].ravel().tolist() == [1, -1, 300, 32767, -32767]


def test_betas_have_reversed_axes_and_one_chunk_per_voxel(tmp_path: Path) -> None:
    psc = np.arange(8, dtype=np.float32).reshape(2, 4)
    where = np.ravel_multi_index(([0, 0, 1, 2], [0, 3, 1, 2], [1, 4, 0, 3]), (3, 4, 5))
    write_betas(tmp_path / "b.hdf5", psc, where, (3, 4, 5))
    with h5py.File(tmp_path / "b.hdf5") as file:
        betas = file["betas"]
        assert (betas.shape, betas.chunks, betas.dtype) == ((2, 5, 4, 3), (2, 1, 1, 1), np.int16)
        assert betas[1, 3, 2, 2] == 300 * psc[1, 3]
        assert np.count_nonzero(betas[1]) == 4


def test_mat_files_carry_no_time_of_writing(tmp_path: Path) -> None:
    write_mat(tmp_path / "m.mat", {"pair_list": cell([(1.0, "a", "H"), (2.0, "b", "R")])})
    assert (tmp_path / "m.mat").read_bytes()[:116].rstrip() == b"MATLAB 5.0 MAT-file, simulated by nsdbench"
    pairs = scipy.io.loadmat(tmp_path / "m.mat")["pair_list"]
    assert pairs.shape == (2, 3)
    assert str(pairs[1, 2][0]) == "R"


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (float("nan"), "NaN"), (3, "3"), (0.1, f"{0.1:.20g}"), ("A", "A")]
)
def test_table_fields_are_written_as_in_the_real_tables(tmp_path: Path, value: object, text: str) -> None:
    write_table(tmp_path / "t.tsv", ["X", "Y"], [[value, 1]])
    assert (tmp_path / "t.tsv").read_text() == f"X\tY\n{text}\t1\n"
