"""Every damaged variant of a data set is refused or warned about by name, by the loader and by verify alike."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from nsdbench.data import LoadOptions, verify
from nsdbench.errors import DataError, IntegrityError


def _exchange(path_a, path_b):
    a, b = path_a.read_bytes(), path_b.read_bytes()
    path_a.write_bytes(b)
    path_b.write_bytes(a)


def _edit(field, trial, value):
    def change(rows):
        rows[trial][field] = value

    return change


def _cue_labelled(rows):
    for row in rows:
        row["CONDITION"] = row["CUE"]


def _rename_runs(fixture, root):
    """Number the runs in the wrong order that some code assumes."""
    wrong = {"imgA_2": 4, "attB": 5, "visB": 6, "imgB_1": 7, "attC": 8, "imgB_2": 9, "visC": 10, "imgC_1": 11}
    for run, number in wrong.items():
        fixture.edit_table(
            fixture.table_path(root, 1, run), lambda rows, n=number: [r.__setitem__("RUN", n) for r in rows]
        )


# name of the check -> damage(fixture module, root of the copy, truth)
IMAGERY_POISON = {
    "swapped run order": ("run_order", lambda f, root, b: _rename_runs(f, root)),
    "two tables exchanged": (
        "run_order",
        lambda f, root, b: _exchange(f.table_path(root, 1, "imgA_1"), f.table_path(root, 1, "imgA_2")),
    ),
    "cue-labelled vision": (
        "cue_match",
        lambda f, root, b: f.edit_table(f.table_path(root, 1, "visB"), _cue_labelled),
    ),
    "duplicate trial": (
        "trial_numbers",
        lambda f, root, b: f.edit_table(f.table_path(root, 1, "attA"), _edit("TRIAL", 3, "3")),
    ),
    "missing trial": (
        "trial_numbers",
        lambda f, root, b: f.edit_table(f.table_path(root, 1, "visA"), lambda r: r.pop()),
    ),
    "onset out of order": (
        "trial_onsets",
        lambda f, root, b: f.edit_table(f.table_path(root, 1, "visA"), _edit("TRIALONSET", 5, "12.0")),
    ),
    "foreign letter": (
        "run_letters",
        lambda f, root, b: f.edit_table(f.table_path(root, 1, "imgC_2"), _edit("CONDITION", 5, "Q")),
    ),
    "frame of another target": (
        "frame_files",
        lambda f, root, b: f.edit_table(
            f.table_path(root, 1, "visA"), _edit("FRAMEFILE", 5, f"other_cue{b.labels['visA'][1][5]}.png")
        ),
    ),
    "missing table": ("run_files", lambda f, root, b: f.table_path(root, 1, "imgB_2").unlink()),
    "719 rows": ("beta_rows", lambda f, root, b: f.write_hdf5(f.imagery_path(root, 1), b.imagery[1][:719])),
    "(Z, Y, X) voxel order": (
        "beta_grid",
        lambda f, root, b: f.write_hdf5(f.imagery_path(root, 1), b.imagery[1].transpose(0, 3, 2, 1)),
    ),
    "truncated file": (
        "beta_file",
        lambda f, root, b: f.imagery_path(root, 1).write_bytes(
            f.imagery_path(root, 1).read_bytes()[:1_000_000]
        ),
    ),
    "no HDF5 at all": (
        "beta_file",
        lambda f, root, b: f.imagery_path(root, 1).write_bytes(b"<html>not found"),
    ),
    "mask of another subject": (
        "roi_grid",
        lambda f, root, b: f.write_volume(f.roi_path(root, 1, "nsdgeneral"), b.volumes[2]["nsdgeneral"]),
    ),
    "mask of another count": (
        "roi_count",
        lambda f, root, b: f.write_volume(
            f.roi_path(root, 1, "nsdgeneral"), (b.volumes[1]["nsdgeneral"] >= 0).astype(int)
        ),
    ),
    "mask with other values": (
        "roi_values",
        lambda f, root, b: f.write_volume(f.roi_path(root, 1, "nsdgeneral"), b.volumes[1]["streams"]),
    ),
    "many dead voxels": (
        "dead_voxels",
        lambda f, root, b: f.write_hdf5(f.imagery_path(root, 1), _dead(b, 20)),
    ),
}


def _dead(built, n):
    stored = built.imagery[1].copy()
    for x, y, z in np.argwhere(built.volumes[1]["nsdgeneral"] == 1)[:n]:
        stored[:, x, y, z] = 0
    return stored


def failed(root, **options):
    return {r.check for r in verify(root, [1], options=LoadOptions(**options)) if r.status == "failed"}


@pytest.mark.parametrize(("check", "damage"), IMAGERY_POISON.values(), ids=IMAGERY_POISON.keys())
@pytest.mark.parametrize("split", ["vision", "imagery"])
def test_a_damaged_imagery_session_is_refused_by_name(
    check, damage, split, nsd_fixture, built, copied, open_copy
):
    damage(nsd_fixture, copied, built)
    with pytest.raises(IntegrityError) as caught:
        open_copy().trials(1, split)
    assert caught.value.check == check
    assert str(copied) in caught.value.message or check in ("roi_count", "dead_voxels")
    assert caught.value.kind == f"IntegrityError:{check}"
    assert check in failed(copied)


CORE_POISON = {
    "0-based 10k ids": ("core_design", "masterordering", lambda a: a - 1),
    "0-based 73k ids": ("core_design", "subjectim", lambda a: np.where(a > 0, a - 1, a)),
    "shared images differ": (
        "core_design",
        "subjectim",
        lambda a: np.vstack([a[:1], np.roll(a[1:2], 1), a[2:]]),
    ),
    "too few trials": ("core_design", "masterordering", lambda a: a[:, :50]),
    "a fourth repeat": ("trial_repeats", "masterordering", lambda a: np.where(a == 20, 21, a)),
}


@pytest.mark.parametrize(("check", "variable", "change"), CORE_POISON.values(), ids=CORE_POISON.keys())
def test_a_damaged_core_design_is_refused_by_name(check, variable, change, copied, open_copy):
    path = copied / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    scipy.io.savemat(path, design | {variable: change(design[variable])})
    with pytest.raises(IntegrityError) as caught:
        open_copy().train(1)
    assert caught.value.check == check
    assert check in failed(copied)


def test_a_target_scene_among_the_training_images_is_leakage(built, copied, open_copy, nsd_fixture):
    own = int(built.subjectim[0, built.plan.n_shared])  # 73k id of an image only subject 1 saw
    path = copied / "nsddata/experiments/nsdimagery/B_pair_list.mat"
    pairs = scipy.io.loadmat(path)["pair_list"]
    pairs[0, 1] = f"shared0001_nsd{own:05d}"
    scipy.io.savemat(path, {"pair_list": pairs})
    with pytest.raises(IntegrityError) as caught:
        open_copy().train(1)
    assert caught.value.check == "leakage"
    assert "leakage" in failed(copied)


def test_responses_with_0_based_ids_fail_verification(copied):
    path = copied / "nsddata/ppdata/subj01/behav/responses.tsv"
    lines = path.read_text().splitlines()
    at = lines[0].split("\t").index("73KID")
    cells = [line.split("\t") for line in lines[1:]]
    for row in cells:
        row[at] = str(int(row[at]) - 1)
    path.write_text("\n".join([lines[0], *("\t".join(row) for row in cells)]) + "\n")
    assert failed(copied) == {"responses"}


# values: integers cannot hold NaN, so these come as NIfTI


@pytest.fixture
def as_nifti(copied, built, nsd_fixture):
    """Replace subject 1's imagery HDF5 by a NIfTI of given values."""

    def replace(stored, **header):
        path = nsd_fixture.imagery_path(copied, 1)
        path.unlink()
        nsd_fixture.write_nifti(path.with_name("betas_nsdimagery.nii.gz"), stored, **header)

    return replace


def _first_voxel(built):
    return tuple(np.argwhere(built.volumes[1]["nsdgeneral"] == 1)[0])


def test_one_nan_voxel_is_refused(as_nifti, built, copied, open_copy):
    stored = built.imagery[1].astype(np.float32)
    stored[(100, *_first_voxel(built))] = np.nan
    as_nifti(stored)
    with pytest.raises(IntegrityError, match="row 100, voxel column 0") as caught:
        open_copy().trials(1, "vision")
    assert caught.value.check == "finite"
    assert failed(copied) == {"finite"}


def test_the_factor_300_applied_twice_is_refused(as_nifti, built, copied, open_copy):
    as_nifti(built.imagery[1].astype(np.float32) * 300)
    with pytest.raises(IntegrityError) as caught:
        open_copy().trials(1, "vision")
    assert caught.value.check == "psc_range"
    assert "psc_range" in failed(copied)


def test_values_of_the_size_of_forgotten_division_are_warned_about(copied, built, open_copy, nsd_fixture):
    rng = np.random.default_rng(0)
    large = rng.choice(np.array([-1, 1], np.int16), built.imagery[1].shape) * rng.integers(
        16000, 32000, built.imagery[1].shape
    )
    nsd_fixture.write_hdf5(nsd_fixture.imagery_path(copied, 1), large.astype(np.int16))
    warnings = open_copy().trials(1, "vision").provenance["warnings"]
    assert any(w.startswith("psc_scale") and "not removed" in w for w in warnings)


def test_values_divided_by_300_before_are_warned_about(as_nifti, built, copied, open_copy):
    as_nifti(built.imagery[1].astype(np.float32) / 300)
    warnings = open_copy().trials(1, "vision").provenance["warnings"]
    assert any(w.startswith("psc_scale") and "twice" in w for w in warnings)
    assert {r.check for r in verify(copied, [1]) if r.status == "warning"} == {"psc_scale"}


def test_a_voxel_without_variance_becomes_zero_and_is_listed_not_dropped(
    copied, built, open_copy, nsd_fixture
):
    x, y, z = _first_voxel(built)
    stored = built.imagery[1].copy()
    stored[:, x, y, z] = 77
    nsd_fixture.write_hdf5(nsd_fixture.imagery_path(copied, 1), stored)
    trials = open_copy().trials(1, "vision", LoadOptions(average="none"))
    assert trials.n_voxels == int((built.volumes[1]["nsdgeneral"] == 1).sum())
    assert np.all(trials.betas[:, 0] == 0)
    assert [w for w in trials.provenance["warnings"] if "columns 0)" in w and w.startswith("dead_voxels")]


def test_a_rescaled_nifti_is_refused(as_nifti, built, copied, open_copy):
    as_nifti(built.imagery[1], slope=0.5)
    with pytest.raises(IntegrityError) as caught:
        open_copy().trials(1, "vision")
    assert caught.value.check == "nifti_header"


@pytest.mark.parametrize(("offset", "value"), [(70, np.int16(152)), (108, np.float32(1))])
def test_a_nifti_with_an_impossible_header_is_refused(
    as_nifti, built, copied, open_copy, nsd_fixture, offset, value
):
    as_nifti(built.imagery[1])
    betas = nsd_fixture.imagery_path(copied, 1).with_name("betas_nsdimagery.nii.gz")
    nsd_fixture.patch_header(betas, offset, value)
    with pytest.raises(IntegrityError) as caught:
        open_copy().trials(1, "vision")
    assert caught.value.check == "beta_file"
    nsd_fixture.patch_header(nsd_fixture.roi_path(copied, 1, "nsdgeneral"), offset, value)
    with pytest.raises(DataError, match=r"nsdgeneral\.nii\.gz cannot be read"):
        open_copy().trials(1, "vision")


def test_a_cut_nifti_is_refused(as_nifti, built, copied, open_copy, nsd_fixture):
    as_nifti(built.imagery[1])
    path = nsd_fixture.imagery_path(copied, 1).with_name("betas_nsdimagery.nii.gz")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(IntegrityError) as caught:
        open_copy().trials(1, "vision")
    assert caught.value.check == "beta_values"
    assert "beta_values" in failed(copied)


def test_a_nifti_with_another_time_step_is_warned_about(as_nifti, built, copied, open_copy):
    as_nifti(built.imagery[1], step=1.6)
    warnings = open_copy().trials(1, "vision").provenance["warnings"]
    assert any(w.startswith("nifti_header") and "1.6" in w for w in warnings)


def test_a_file_smaller_than_its_values_is_refused_on_real_data(copied, built, nsd_fixture):
    from nsdbench.data.betas import read_header
    from nsdbench.data.checks_files import check_size

    header = read_header(nsd_fixture.imagery_path(copied, 1))
    sparse = nsd_fixture.imagery_path(copied, 1)
    sparse.write_bytes(sparse.read_bytes()[:1_000_000])
    assert check_size(header, real=False) == ()
    with pytest.raises(IntegrityError) as caught:
        check_size(header, real=True)
    assert caught.value.check == "beta_size"


def test_a_missing_target_image_is_refused_by_name(copied, open_copy):
    next((copied / "nsddata/experiments/nsdimagery/rawtargetimages/setB").glob("*.png")).unlink()
    with pytest.raises(IntegrityError) as caught:
        open_copy().stimuli("vision")
    assert caught.value.check == "target_images"
    assert "target_images" in failed(copied)


def test_a_target_image_of_the_neighbouring_id_fails_verification(copied, built, nsd_fixture):
    name = built.names["B1"]
    path = copied / f"nsddata/experiments/nsdimagery/rawtargetimages/setB/{name}.png"
    neighbour = f"shared0001_nsd{int(name[-5:]) % built.plan.n_images + 1:05d}"
    nsd_fixture.target_picture("B1", neighbour, built.plan.side).save(path)
    assert failed(copied) == {"target_pixels"}


def test_a_blank_target_image_fails_verification(copied, built, nsd_fixture):
    path = copied / f"nsddata/experiments/nsdimagery/rawtargetimages/setB/{built.names['B1']}.png"
    nsd_fixture.target_picture("A1", "", built.plan.side).save(path)
    assert failed(copied) == {"target_pixels"}


def test_exchanged_cue_letters_are_refused_by_name(copied, open_copy):
    path = copied / "nsddata/experiments/nsdimagery/A_pair_list.mat"
    pairs = scipy.io.loadmat(path)["pair_list"]
    pairs[[0, 1], 2] = pairs[[1, 0], 2]
    scipy.io.savemat(path, {"pair_list": pairs})
    with pytest.raises(IntegrityError) as caught:
        open_copy().trials(1, "imagery")
    assert caught.value.check == "pair_lists"
    assert "pair_lists" in failed(copied)


def test_an_artwork_resolved_to_an_nsd_image_fails_verification(copied):
    folder = copied / "nsddata/experiments/nsdimagery"
    pairs = scipy.io.loadmat(folder / "B_pair_list.mat")["pair_list"]
    pairs[5, 1] = "shared0006_nsd00001"
    scipy.io.savemat(folder / "B_pair_list.mat", {"pair_list": pairs})
    assert "artwork" in failed(copied)


def test_a_design_matrix_with_a_missing_onset_fails_verification(copied):
    path = copied / "nsddata/experiments/nsdimagery/designmatrixGLMsingle.mat"
    cells = scipy.io.loadmat(path)["stimulus"]
    cells[0, 0][10] = 0
    scipy.io.savemat(path, {"stimulus": cells})
    assert failed(copied) == {"design_matrix"}


def test_a_stimulus_table_with_1_based_ids_fails_verification(copied):
    path = copied / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    lines = path.read_text().splitlines()
    rows = [line.split(",", 3) for line in lines[1:]]
    path.write_text(
        "\n".join([lines[0], *(",".join([a, b, str(int(c) + 1), d]) for a, b, c, d in rows)]) + "\n"
    )
    assert failed(copied) == {"stim_info"}


def test_a_sound_data_set_passes_every_check(built):
    results = verify(built.root)
    assert {r.status for r in results} == {"ok"}
    assert {r.where.partition(",")[0] for r in results} == {"data set", "subject 1", "subject 2"}


def test_a_broken_pair_list_stops_no_other_check(copied):
    (copied / "nsddata/experiments/nsdimagery/B_pair_list.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    results = {(r.check, r.where): r.status for r in verify(copied)}
    assert results["pair_lists", "data set"] == "failed"
    assert results["target_pixels", "data set"] == "skipped"
    assert results["finite", "subject 2, core"] == "ok"


def test_what_was_not_downloaded_is_skipped_not_failed(copied, built, nsd_fixture):
    (copied / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    for session in range(1, built.plan.sessions + 1):
        nsd_fixture.core_path(copied, 1, session).unlink()
    results = verify(copied, [1])
    assert {r.check for r in results if r.status == "skipped"} == {
        "image_brick",
        "target_pixels",
        "core_design",
    }
    assert not [r for r in results if r.status == "failed"]


def test_reported_file_hashes_are_compared_on_real_data(tmp_path):
    from nsdbench.data.checks_files import check_object_hashes

    assert check_object_hashes(tmp_path) == ()
    path = tmp_path / "nsddata/experiments/nsdimagery/A_pair_list.mat"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert "A_pair_list.mat has e3b0c44298fc" in check_object_hashes(tmp_path)[0]  # SHA-256 of nothing
