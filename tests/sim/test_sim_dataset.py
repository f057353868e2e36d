from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from nsdbench.data import facts
from nsdbench.errors import UsageError
from nsdbench.sim import SIM_VERSION, SimConfig, dataset, ensure, generate
from nsdbench.types import Silent

SUBJECT_FILES = [
    "nsddata/bdata/nsdimagery/nsdimagery_subj{s}_{run}.tsv",
    "nsddata/ppdata/subj{s}/behav/responses.tsv",
    "nsddata/ppdata/subj{s}/func1pt8mm/brainmask.nii.gz",
    "nsddata/ppdata/subj{s}/func1pt8mm/roi/nsdgeneral.nii.gz",
    "nsddata/ppdata/subj{s}/func1pt8mm/roi/prf-visualrois.nii.gz",
    "nsddata/ppdata/subj{s}/func1pt8mm/roi/streams.nii.gz",
    "nsddata/ppdata/subj{s}/func1pt8mm/valid.nii.gz",
    "nsddata/ppdata/subj{s}/func1pt8mm/valid_nsdimagery.nii.gz",
    "nsddata/ppdata/subj{s}/func1pt8mm/valid_session01.nii.gz",
    "nsddata_betas/ppdata/subj{s}/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5",
    "nsddata_betas/ppdata/subj{s}/func1pt8mm/betas_fithrf_GLMdenoise_RR/ncsnr.nii.gz",
    "nsddata_betas/ppdata/subj{s}/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR/betas_nsdimagery.hdf5",
    "sim_truth/subj{s}.npz",
]
COMMON_FILES = [
    "nsdbench-dataset.json",
    "nsddata/experiments/nsd/nsd_expdesign.mat",
    "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
    "nsddata/experiments/nsdimagery/A_pair_list.mat",
    "nsddata/experiments/nsdimagery/B_pair_list.mat",
    "nsddata/experiments/nsdimagery/C_pair_list.mat",
    "nsddata/experiments/nsdimagery/designmatrixGLMsingle.mat",
    "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    "sim_truth/params.json",
    "sim_truth/stimuli.npz",
]


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def run_table(root: Path, subject: int, run: str) -> pd.DataFrame:
    path = root / f"nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{run}.tsv"
    return pd.read_csv(path, sep="\t", keep_default_na=False)


def pairs(root: Path, stimulus_set: str) -> dict[str, str]:
    """Target name by cue letter, from the pair list."""
    path = root / f"nsddata/experiments/nsdimagery/{stimulus_set}_pair_list.mat"
    return {str(row[2][0]): str(row[1][0]) for row in scipy.io.loadmat(path)["pair_list"]}


def bricks(root: Path) -> np.ndarray:
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        return file["imgBrick"][:]


def test_the_file_set_is_complete_and_holds_nothing_else(tiny: Path) -> None:
    runs = [row["run_name"] for row in facts.table("runs")]
    expected = set(COMMON_FILES)
    expected |= {name.format(s=s, run=run) for name in SUBJECT_FILES for s in ("01", "07") for run in runs}
    found = {name for name in contents(tiny) if "rawtargetimages" not in name}
    assert found == expected


def test_twelve_target_pictures_have_the_names_of_the_pair_lists(tiny: Path) -> None:
    folder = tiny / "nsddata/experiments/nsdimagery/rawtargetimages"
    for stimulus_set in "AB":
        names = {path.name for path in (folder / f"set{stimulus_set}").iterdir()}
        assert names == set(pairs(tiny, stimulus_set).values())


def test_two_generations_are_byte_identical_with_and_without_a_pool(
    tiny: Path, tiny_config: SimConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_IN_PROCESS", 0)
    generate(tiny_config, tmp_path / "again", workers=2)
    assert contents(tmp_path / "again") == contents(tiny)


def test_the_marker_says_what_a_loader_needs(tiny: Path, tiny_config: SimConfig) -> None:
    marker = json.loads((tiny / "nsdbench-dataset.json").read_text())
    grid = nib.load(tiny / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz").shape
    assert marker["dataset"] == "sim"
    assert (marker["hash"], marker["version"]) == (tiny_config.hash(), SIM_VERSION)
    assert (marker["n_shared"], marker["n_images"], marker["trials_per_session"]) == (60, 440, 750)
    assert marker["beta_versions"] == ["b3"]
    assert marker["subjects"]["1"] == {"grid": list(grid), "nsdgeneral": 655, "sessions": 1}
    assert list(marker["subjects"]) == ["1", "7"]


def test_a_second_call_generates_nothing(
    tiny: Path, tiny_config: SimConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(dataset, "write_dataset", refuse)
    assert ensure(tiny_config, tiny.parents[1]) == tiny


def test_a_failed_generation_leaves_nothing(
    tiny_config: SimConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: SimConfig, root: Path, progress: Silent, workers: int) -> None:
        (root / "half.txt").write_text("half")
        raise RuntimeError("stopped")

    monkeypatch.setattr(dataset, "write_dataset", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        ensure(tiny_config, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_generating_over_existing_files_is_refused(tiny: Path, tiny_config: SimConfig) -> None:
    with pytest.raises(UsageError, match="exists already"):
        generate(tiny_config, tiny)


def test_a_smaller_preset_shows_the_first_images_of_a_larger_one(tiny: Path) -> None:
    from nsdbench.sim.stimuli import ImageKey, render_block

    design = scipy.io.loadmat(tiny / "nsddata/experiments/nsd/nsd_expdesign.mat")
    rows = design["subjectim"][6, [0, 59, 60, 249]].astype(int) - 1
    keys = [ImageKey(0, 0), ImageKey(0, 59), ImageKey(7, 0), ImageKey(7, 189)]
    assert np.array_equal(bricks(tiny)[rows], render_block(0, keys).images)


def test_ids_agree_between_design_responses_and_image_table(tiny: Path) -> None:
    design = scipy.io.loadmat(tiny / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order, images = design["masterordering"][0].astype(int), design["subjectim"].astype(int)
    table = pd.read_csv(tiny / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", index_col=0)
    assert np.array_equal(table.index, table["nsdId"])
    assert set(table.index[table["shared1000"]] + 1) == set(design["sharedix"][0].astype(int))
    for subject in (1, 7):
        path = tiny / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"
        responses = pd.read_csv(path, sep="\t")
        assert len(responses.columns) == 19
        assert np.array_equal(responses["10KID"], order)
        assert np.array_equal(responses["73KID"], images[subject - 1, order - 1])
        for rep in range(3):
            trials = table.loc[table[f"subject{subject}"] == 1, f"subject{subject}_rep{rep}"]
            assert np.array_equal(responses["73KID"].to_numpy()[trials - 1] - 1, trials.index)
    assert not table["subject2"].any()


def test_old_images_are_the_ones_seen_before(tiny: Path) -> None:
    responses = pd.read_csv(tiny / "nsddata/ppdata/subj01/behav/responses.tsv", sep="\t")
    assert np.array_equal(responses["ISOLD"], responses["73KID"].duplicated().astype(int))
    assert responses.groupby("RUN").size().tolist() == [63, 62] * 6


def test_run_tables_have_the_real_columns_and_labels(tiny: Path) -> None:
    for row in facts.table("runs"):
        table = run_table(tiny, 1, row["run_name"])
        assert len(table.columns) == 20
        assert table["TRIAL"].tolist() == list(range(1, 49))
        assert set(table["RUN"]) == {int(row["run_number"])}
        assert np.sum(table["CONDITION"] == table["CUE"]) == (24 if row["task"] == "vision" else 48)


def test_frame_files_name_the_picture_and_the_cue(tiny: Path) -> None:
    for key in "AB":
        names, table = pairs(tiny, key), run_table(tiny, 7, f"vis{key}")
        stems = [names[letter].removesuffix(".png") for letter in table["CONDITION"]]
        expected = [f"{stem}_cue{cue}.png" for stem, cue in zip(stems, table["CUE"], strict=True)]
        assert table["FRAMEFILE"].tolist() == expected
    imagery = run_table(tiny, 7, "imgB_2")
    assert imagery["FRAMEFILE"].tolist() == [f"blank00000_00000000_cue{c}.png" for c in imagery["CUE"]]


def test_set_b_pictures_are_the_images_their_names_say(tiny: Path) -> None:
    images = bricks(tiny)
    for name in pairs(tiny, "B").values():
        picture = np.asarray(Image.open(tiny / "nsddata/experiments/nsdimagery/rawtargetimages/setB" / name))
        row = int(name[14:19]) - 1
        if row >= 0:
            assert np.array_equal(picture, images[row])
        else:
            assert not (images == picture).all(axis=(1, 2, 3)).any()


def test_set_c_frames_are_shared_images_that_satisfy_the_concept(tiny: Path) -> None:
    with (tiny / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").open() as file:
        images = list(csv.DictReader(file))
    table = run_table(tiny, 1, "visC")
    yellow = table[table["CONDITION"] == "Y"]["FRAMEFILE"]
    rows = [images[int(name[14:19]) - 1] for name in yellow]
    assert all(row["shared1000"] == "True" for row in rows)
    assert all(json.loads(row["sim_objects"])[-1]["colour"] == "yellow" for row in rows)


def test_betas_are_zero_exactly_outside_the_brain(tiny: Path) -> None:
    brain = nib.load(tiny / "nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz").get_fdata() == 1
    folder = tiny / "nsddata_betas/ppdata/subj01/func1pt8mm"
    for path in sorted(folder.rglob("*.hdf5")):
        with h5py.File(path) as file:
            varies = file["betas"][:].any(axis=0).transpose(2, 1, 0)
        assert np.array_equal(varies, brain)


def test_percent_signal_change_has_the_scale_of_real_betas(tiny: Path) -> None:
    general = nib.load(tiny / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz").get_fdata() == 1
    folder = tiny / "nsddata_betas/ppdata/subj01/func1pt8mm"
    with h5py.File(folder / "nsdimagerybetas_fithrf_GLMdenoise_RR/betas_nsdimagery.hdf5") as file:
        psc = file["betas"][:].transpose(0, 3, 2, 1)[:, general] / 300
    assert psc.mean() == pytest.approx(0.676, abs=0.3)  # the real session of subj01: mean 0.676, sd 1.909
    assert psc.std() == pytest.approx(1.909, abs=0.4)


def test_the_design_matrix_has_one_onset_per_event(tiny: Path) -> None:
    path = tiny / "nsddata/experiments/nsdimagery/designmatrixGLMsingle.mat"
    runs = scipy.io.loadmat(path)["stimulus"][0]
    shapes = [(int(r["design_rows_1s"]), 36, int(r["n_betas"])) for r in facts.table("runs")]
    assert [(*run.shape, int(run.sum())) for run in runs] == shapes
    assert {int(run.any(axis=0).sum()) for run in runs} == {6, 12}
