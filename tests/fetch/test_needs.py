"""Which files a purpose needs: the sizes of the documentation, and exactly what the loader reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nsdbench.data import Dataset, LoadOptions
from nsdbench.data.facts import nsd_expectations
from nsdbench.data.needs import missing, needs, total
from nsdbench.errors import DataError, ProtocolError, UsageError

REAL = nsd_expectations()
NOWHERE = Path("/nonexistent")
MIB, GIB = 2**20, 2**30


def size(wanted, part: str) -> int:
    return sum(need.about for need in wanted if part in need.key)


@pytest.mark.parametrize(
    ("subject", "mib"),
    [(1, 1003.74), (2, 1048.15), (3, 1010.71), (4, 966.42), (5, 858.06), (6, 1144.46)],
)
def test_imagery_betas_have_the_sizes_that_others_observed(subject: int, mib: float) -> None:
    wanted = needs(NOWHERE, REAL, ["imagery"], subject)
    assert size(wanted, "betas_nsdimagery.hdf5") / MIB == pytest.approx(mib, abs=0.01)


def test_imagery_needs_its_betas_tables_pair_lists_pictures_and_the_mask() -> None:
    required = [need.key for need in needs(NOWHERE, REAL, ["imagery"], 1) if not need.optional]
    assert len(required) == 1 + 1 + 12 + 3 + 12
    assert "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz" in required
    assert sum(key.endswith(".png") for key in required) == 12


def test_training_needs_40_sessions_of_40_77_gib_and_images_of_36_8_gib() -> None:
    wanted = needs(NOWHERE, REAL, ["train"], 1)
    assert sum("betas_session" in need.key for need in wanted) == 40
    assert size(wanted, "betas_session") / GIB == pytest.approx(40.77, abs=0.005)
    assert size(wanted, "nsd_stimuli.hdf5") / GIB == pytest.approx(36.84, abs=0.005)


@pytest.mark.parametrize(
    ("subject", "shared", "sessions"),
    [(1, 982, 37), (1, 515, 30), (3, 1000, 32), (8, 1000, 30), (8, 515, 30)],
)
def test_the_test_set_decides_how_many_sessions_are_needed(subject: int, shared: int, sessions: int) -> None:
    wanted = needs(NOWHERE, REAL, ["shared1000"], subject, LoadOptions(shared=shared))
    assert sum("betas_session" in need.key for need in wanted) == sessions


def test_prepared_betas_have_the_sizes_of_the_hub() -> None:
    gb = {1: 1.89, 2: 1.71, 3: 1.46, 4: 1.18, 5: 1.56, 6: 1.72, 7: 1.52, 8: 1.29}
    for subject, expected in gb.items():
        wanted = needs(NOWHERE, REAL, ["train"], subject, source="mindeye2")
        assert size(wanted, "betas_all") / 1e9 == pytest.approx(expected, abs=0.006)
        assert size(wanted, "coco_images") / 1e9 == pytest.approx(22, abs=0.03)
        assert not size(wanted, "betas_session")


@pytest.mark.parametrize("options", [LoadOptions(beta_version="b2"), LoadOptions(roi="streams")])
def test_what_mindeye2_did_not_prepare_is_refused(options: LoadOptions) -> None:
    with pytest.raises(ProtocolError, match="cannot be made from them"):
        needs(NOWHERE, REAL, ["train"], 1, options, source="mindeye2")


def test_statistics_of_core_trials_for_imagery_need_the_sessions_but_no_images() -> None:
    wanted = needs(NOWHERE, REAL, ["imagery"], 1, LoadOptions(imagery_norm="core_train_stats"))
    assert sum("betas_session" in need.key for need in wanted) == 40
    assert not size(wanted, "nsd_stimuli.hdf5")


def test_a_region_volume_is_required_where_it_selects_the_voxels() -> None:
    streams = "nsddata/ppdata/subj01/func1pt8mm/roi/streams.nii.gz"
    for roi, optional in (("nsdgeneral", True), ("streams", False)):
        wanted = {need.key: need for need in needs(NOWHERE, REAL, ["imagery"], 1, LoadOptions(roi=roi))}
        assert wanted[streams].optional is optional


def test_no_file_is_named_twice() -> None:
    keys = [need.key for need in needs(NOWHERE, REAL, ["imagery", "train", "shared1000"], 2)]
    assert len(keys) == len(set(keys))


def test_unknown_subjects_versions_and_imagery_of_b1_are_refused() -> None:
    with pytest.raises(DataError, match="no subject 9"):
        needs(NOWHERE, REAL, ["imagery"], 9)
    with pytest.raises(UsageError, match="b1"):
        needs(NOWHERE, REAL, ["imagery"], 1, LoadOptions(beta_version="b1"))


@pytest.mark.parametrize("purpose", ["imagery", "train"])
def test_the_required_files_alone_are_enough_for_the_loader(built, tmp_path, purpose: str) -> None:
    dataset = Dataset.open(built.root)
    wanted = needs(built.root, dataset.expectations, [purpose], 1)
    (tmp_path / "few").mkdir()
    shutil.copy(built.root / "nsdbench-dataset.json", tmp_path / "few")
    for need in wanted:
        if not need.optional:
            (tmp_path / "few" / need.key).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(built.root / need.key, tmp_path / "few" / need.key)
    few = Dataset.open(tmp_path / "few", cache=tmp_path / "cache")
    if purpose == "imagery":
        assert len(few.trials(1, "vision").stimulus) == len(few.trials(1, "imagery").stimulus) == 18
        assert few.stimuli("imagery").image("B1").any()
    else:
        assert len(few.train(1).stimulus) and len(few.trials(1, "shared1000").stimulus)
        stimuli = few.stimuli("train", 1)
        assert stimuli.image(stimuli.ids[0]).any()


def test_a_complete_data_set_misses_nothing_and_a_removed_file_is_missed(built, tmp_path) -> None:
    root = shutil.copytree(built.root, tmp_path / "copy")
    expectations = Dataset.open(root).expectations
    wanted = needs(root, expectations, ["imagery", "train"], 1)
    assert not [need for need in missing(root, wanted) if not need.optional]
    (root / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink()
    assert [n.key for n in missing(root, wanted) if not n.optional] == [
        "nsddata/experiments/nsd/nsd_expdesign.mat"
    ]


def test_a_nifti_twin_stands_in_for_betas(built, tmp_path) -> None:
    root = shutil.copytree(built.root, tmp_path / "copy")
    wanted = needs(root, Dataset.open(root).expectations, ["imagery"], 1)
    betas = next(root.glob("nsddata_betas/ppdata/subj01/*/nsdimagery*/betas_nsdimagery.hdf5"))
    betas.rename(betas.with_suffix("").with_suffix(".nii.gz"))
    assert not [need for need in missing(root, wanted) if need.key.endswith("betas_nsdimagery.hdf5")]


def test_prepared_betas_on_disk_are_followed_unless_the_bucket_is_asked_for(tmp_path) -> None:
    folder = tmp_path / "mindeyev2"
    folder.mkdir()
    (folder / "betas_all_subj01_fp32_renorm.hdf5").touch()
    assert not size(needs(tmp_path, REAL, ["train"], 1), "betas_session")
    assert size(needs(tmp_path, REAL, ["train"], 1, source="bucket"), "betas_session")
    assert size(needs(tmp_path, REAL, ["train"], 2), "betas_session")


def test_totals_count_optional_files_on_request() -> None:
    wanted = needs(NOWHERE, REAL, ["imagery"], 1)
    assert total(wanted) - total(wanted, optional=False) == sum(n.about for n in wanted if n.optional) > 0
