"""NIfTI betas equal HDF5 betas; both are read in the same voxel order."""

from __future__ import annotations

import numpy as np
import pytest

from nsdbench.data import LoadOptions, verify
from nsdbench.data.betas import read_betas
from nsdbench.data.rois import Voxels


@pytest.fixture
def voxels(built):
    where = np.argwhere(built.volumes[1]["nsdgeneral"] == 1)
    order = np.random.default_rng(1).permutation(len(where))  # any column order must be honoured
    return Voxels(built.plan.grids[1], where[order], {})


@pytest.mark.parametrize("suffix", [".hdf5", ".nii.gz"])
def test_values_come_in_the_order_of_the_voxels(built, voxels, nsd_fixture, tmp_path, suffix):
    path = tmp_path / f"betas{suffix}"
    write = nsd_fixture.write_hdf5 if suffix == ".hdf5" else nsd_fixture.write_nifti
    write(path, built.imagery[1])
    x, y, z = voxels.coordinates.T
    np.testing.assert_array_equal(read_betas(path, voxels), built.imagery[1][:, x, y, z])


def test_a_subject_with_nifti_betas_only_gives_the_same_trials(
    built, dataset, copied, open_copy, nsd_fixture
):
    path = nsd_fixture.imagery_path(copied, 1)
    path.unlink()
    nsd_fixture.write_nifti(path.with_name("betas_nsdimagery.nii.gz"), built.imagery[1])
    n = built.plan.trials_per_session
    for session in range(1, built.plan.sessions + 1):
        path = nsd_fixture.core_path(copied, 1, session)
        path.unlink()
        block = built.core[1][(session - 1) * n : session * n]
        nsd_fixture.write_nifti(path.with_name(f"betas_session{session:02d}.nii.gz"), block, step=4 / 3)
    data = open_copy()
    for split in ("vision", "imagery", "shared1000"):
        np.testing.assert_array_equal(data.trials(1, split).betas, dataset.trials(1, split).betas)
    np.testing.assert_array_equal(data.train(1).betas, dataset.train(1).betas)
    assert data.trials(1, "vision").provenance["warnings"] == []


def _check(results, name):
    return next(r for r in results if r.check == name)


def test_verify_compares_the_two_forms(built, copied, nsd_fixture):
    twin = nsd_fixture.imagery_path(copied, 1).with_name("betas_nsdimagery.nii.gz")
    nsd_fixture.write_nifti(twin, built.imagery[1])
    assert _check(verify(copied, [1]), "formats_agree").status == "ok"
    nsd_fixture.write_nifti(twin, np.roll(built.imagery[1], 1, axis=1))
    found = _check(verify(copied, [1]), "formats_agree")
    assert found.status == "failed"
    assert "50 of 50 voxels" in found.message


def test_the_hdf5_is_read_where_both_forms_are_there(built, dataset, copied, open_copy, nsd_fixture):
    twin = nsd_fixture.imagery_path(copied, 1).with_name("betas_nsdimagery.nii.gz")
    nsd_fixture.write_nifti(twin, np.roll(built.imagery[1], 1, axis=1))
    loaded = open_copy().trials(1, "vision", LoadOptions())
    np.testing.assert_array_equal(loaded.betas, dataset.trials(1, "vision").betas)
