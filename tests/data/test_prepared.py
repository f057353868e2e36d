"""MindEye2's prepared core data give the trials of the raw files they were made from."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from nsdbench.data import Dataset, LoadOptions, verify
from nsdbench.errors import DataError, IntegrityError, ProtocolError


@pytest.fixture
def prepared(copied, built, nsd_fixture):
    """A copy whose core data are the prepared files; NSD-Imagery stays raw."""
    nsd_fixture.write_prepared(copied / "mindeyev2", built)
    for session in range(1, built.plan.sessions + 1):
        for subject in built.plan.grids:
            nsd_fixture.core_path(copied, subject, session).unlink()
    return copied


@pytest.fixture
def opened(prepared, tmp_path):
    return Dataset.open(prepared, cache=tmp_path / "cache")


@pytest.mark.parametrize("order", ["xyz_c", "zyx_c"])
def test_prepared_trials_equal_the_raw_ones(opened, dataset, order):
    options = LoadOptions(voxel_order=order, average="none")
    for subject in (1, 2):
        for ours, raw in (
            (opened.train(subject, options), dataset.train(subject, options)),
            (opened.trials(subject, "shared1000", options), dataset.trials(subject, "shared1000", options)),
        ):
            np.testing.assert_allclose(ours.betas, raw.betas, atol=2e-5)
            assert ours.stimulus.tolist() == raw.stimulus.tolist()
            assert ours.repeat.tolist() == raw.repeat.tolist()
            assert ours.rois.keys() == raw.rois.keys()
            assert ours.provenance["core_layout"] == "mindeye2"


def test_without_design_file_and_masks_the_prepared_files_are_enough(prepared, dataset, tmp_path):
    (prepared / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink()
    for path in (prepared / "nsddata/ppdata").glob("subj*/func1pt8mm/roi/*"):
        path.unlink()
    train = Dataset.open(prepared, cache=tmp_path / "cache").train(1)
    np.testing.assert_allclose(train.betas, dataset.train(1).betas, atol=2e-5)
    assert train.stimulus.tolist() == dataset.train(1).stimulus.tolist()
    assert list(train.rois) == ["nsdgeneral"]


def test_raw_sessions_are_preferred_where_both_are_there(copied, built, nsd_fixture, tmp_path):
    nsd_fixture.write_prepared(copied, built)
    train = Dataset.open(copied, cache=tmp_path / "cache").train(1)
    assert train.provenance["core_layout"] == "nsd"


@pytest.mark.parametrize(
    "options", [LoadOptions(core_norm="none"), LoadOptions(core_norm="session_z"), LoadOptions(roi="streams")]
)
def test_preparations_that_cannot_be_made_are_refused(opened, options):
    with pytest.raises(ProtocolError, match="cannot be made"):
        opened.train(1, options)


def test_standardized_betas_give_no_statistics_for_imagery(opened):
    with pytest.raises(ProtocolError, match="core_train_stats"):
        opened.trials(1, "imagery", LoadOptions(imagery_norm="core_train_stats"))


def test_images_at_224_stand_in_for_the_brick(opened, prepared, dataset):
    (prepared / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    ours, native = opened.stimuli("shared1000"), dataset.stimuli("shared1000")
    assert ours.ids == native.ids
    for i in ours.ids:
        np.testing.assert_array_equal(ours.image(i), native.image(i))  # float16 keeps all 256 levels


def test_captions_come_from_a_plain_array_where_the_table_has_none(opened, prepared, built):
    (prepared / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").unlink()
    captions = np.array([[f"caption {k}", ""] for k in range(built.plan.n_images)])
    np.save(prepared / "mindeyev2/COCO_73k_annots_curated.npy", captions)
    stimuli = opened.stimuli("shared1000")
    assert stimuli.captions[stimuli.ids[0]] == (f"caption {int(stimuli.ids[0][3:])}",)


def test_pickled_captions_are_never_loaded(opened, prepared, built):
    (prepared / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").unlink()
    captions = np.array([["a"]] * built.plan.n_images, dtype=object)
    np.save(prepared / "mindeyev2/COCO_73k_annots_curated.npy", captions, allow_pickle=True)
    with pytest.raises(DataError, match="plain array"):
        opened.stimuli("shared1000")


def _betas(root):
    return root / "mindeyev2/betas_all_subj01_fp32_renorm.hdf5"


def _rewrite(path, name, change):
    with h5py.File(path, "r+") as file:
        values = change(file[name][:])
        del file[name]
        file[name] = values


def _with_nan(values):
    values[3, 2] = np.nan
    return values


POISON = {
    "missing rows": ("prepared_rows", _betas, "betas", lambda v: v[:-1]),
    "missing voxels": ("prepared_rows", _betas, "betas", lambda v: v[:, :-1]),
    "one NaN": ("finite", _betas, "betas", _with_nan),
    "integers": ("beta_file", _betas, "betas", lambda v: v.astype(np.int16)),
    "1-based images": (
        "prepared_rows",
        lambda root: root / "mindeyev2/COCO_73k_subj_indices.hdf5",
        "subj01",
        lambda v: v + 1,
    ),
}


@pytest.mark.parametrize(("check", "path", "name", "change"), POISON.values(), ids=POISON.keys())
def test_damaged_prepared_files_are_refused_by_name(prepared, opened, check, path, name, change):
    _rewrite(path(prepared), name, change)
    with pytest.raises(IntegrityError) as caught:
        opened.train(1)
    assert caught.value.check == check
    assert check in {r.check for r in verify(prepared, [1]) if r.status == "failed"}


def test_a_shared_mask_of_another_size_is_refused(prepared, opened, built):
    (prepared / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink()
    np.save(prepared / "mindeyev2/shared1000.npy", np.ones(built.plan.n_images, bool))
    with pytest.raises(IntegrityError) as caught:
        opened.train(1)
    assert caught.value.check == "test_set"


def test_betas_that_are_not_standardized_are_warned_about(prepared, opened):
    _rewrite(_betas(prepared), "betas", lambda v: v * 1.2)
    train = opened.train(1)
    assert any(w.startswith("prepared_scale") for w in train.provenance["warnings"])
    assert train.betas.std(axis=0).mean() == pytest.approx(
        1.2, abs=0.02
    )  # warned about, not standardized again
    assert [r.check for r in verify(prepared, [1]) if r.status == "warning"] == ["prepared_scale"]


def test_sound_prepared_files_pass_verification(prepared):
    results = verify(prepared)
    assert {r.status for r in results} == {"ok"}
    assert {"prepared_rows", "prepared_scale", "prepared_behav"} <= {r.check for r in results}


def test_behaviour_rows_of_another_index_fail_verification(prepared, built, nsd_fixture):
    nsd_fixture.write_behaviour(prepared / "mindeyev2/wds/subj01/train/0.tar", np.roll(built.image[1], 1))
    assert {r.check for r in verify(prepared, [1]) if r.status == "failed"} == {"prepared_behav"}
