"""Loaded trials against a naive computation from the values the fixture wrote."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import DataError, ProtocolError, UsageError

LETTERS = {"A": "HRVLPE", "B": "WKBCDT", "C": "SZMYNF"}
TARGET = {letter: f"{s}{k}" for s, letters in LETTERS.items() for k, letter in enumerate(letters, start=1)}
RUN_ROWS = [0, 48, 144, 192, 240, 336, 384, 432, 528, 576, 624, 672, 720]
RUN_NAMES = [
    "visA",
    "attA",
    "imgA_1",
    "visB",
    "attB",
    "imgB_1",
    "visC",
    "attC",
    "imgC_1",
    "imgA_2",
    "imgB_2",
    "imgC_2",
]


def walk(mask: np.ndarray, order: str = "xyz") -> list[tuple[int, int, int]]:
    """Voxels of a mask in nested loops, the last letter of ``order`` fastest."""
    sizes = dict(zip("xyz", mask.shape, strict=True))
    found = []
    for i in range(sizes[order[0]]):
        for j in range(sizes[order[1]]):
            for k in range(sizes[order[2]]):
                at = dict(zip(order, (i, j, k), strict=True))
                if mask[at["x"], at["y"], at["z"]] == 1:
                    found.append((at["x"], at["y"], at["z"]))
    return found


def percent(stored: np.ndarray, voxels: list[tuple[int, int, int]]) -> np.ndarray:
    return np.stack([stored[:, x, y, z].astype(np.float64) / 300 for x, y, z in voxels], axis=1)


def naive_z(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)


def task_rows(task: str) -> np.ndarray:
    prefix = {"vision": "vis", "imagery": "img"}[task]
    blocks = [
        np.arange(a, b)
        for name, a, b in zip(RUN_NAMES, RUN_ROWS, RUN_ROWS[1:], strict=False)
        if name.startswith(prefix)
    ]
    return np.concatenate(blocks)


def expected_ids(built, task: str, column: int = 0) -> list[str]:
    prefix = {"vision": "vis", "imagery": "img"}[task]
    return [TARGET[c] for name in RUN_NAMES if name.startswith(prefix) for c in built.labels[name][column]]


@pytest.fixture(params=["vision", "imagery"])
def task(request):
    return request.param


def test_unnormalized_rows_are_the_stored_values_over_300_at_the_mask_in_c_order(dataset, built, task):
    trials = dataset.trials(1, task, LoadOptions(imagery_norm="none", average="none"))
    voxels = walk(built.volumes[1]["nsdgeneral"])
    np.testing.assert_allclose(trials.betas, percent(built.imagery[1], voxels)[task_rows(task)], rtol=1e-6)


def test_takagi_order_walks_x_fastest(dataset, built):
    trials = dataset.trials(
        1, "vision", LoadOptions(imagery_norm="none", average="none", voxel_order="zyx_c")
    )
    voxels = walk(built.volumes[1]["nsdgeneral"], "zyx")
    np.testing.assert_allclose(
        trials.betas, percent(built.imagery[1], voxels)[task_rows("vision")], rtol=1e-6
    )
    assert trials.provenance["voxel_order"] == "zyx_c"


def test_rows_are_standardized_within_their_run_with_ddof_1(dataset, built, task):
    trials = dataset.trials(1, task, LoadOptions(average="none"))
    raw = percent(built.imagery[1], walk(built.volumes[1]["nsdgeneral"]))
    expected = np.concatenate([naive_z(raw[a:b]) for a, b in itertools.pairwise(RUN_ROWS)])
    np.testing.assert_allclose(trials.betas, expected[task_rows(task)], atol=2e-5)


def test_vision_rows_carry_the_target_shown_not_the_letter_on_screen(dataset, built, task):
    trials = dataset.trials(1, task, LoadOptions(average="none"))
    assert trials.stimulus.tolist() == expected_ids(built, task)
    assert trials.provenance["label_source"] == "condition"


def test_labels_by_cue_differ_on_half_of_the_vision_rows_and_are_recorded(dataset, built):
    by_cue = dataset.trials(1, "vision", LoadOptions(average="none", label_source="cue"))
    by_condition = dataset.trials(1, "vision", LoadOptions(average="none"))
    assert by_cue.stimulus.tolist() == expected_ids(built, "vision", column=1)
    assert np.mean(by_cue.stimulus == by_condition.stimulus) == 0.5
    assert by_cue.provenance["label_source"] == "cue"
    assert any(w.startswith("label_source") for w in by_cue.provenance["warnings"])


def test_averages_are_plain_means_over_8_vision_and_16_imagery_rows(dataset, task):
    single = dataset.trials(1, task, LoadOptions(average="none"))
    mean = dataset.trials(1, task)
    assert mean.targets == tuple(sorted(TARGET.values()))
    assert set(mean.repeat.tolist()) == {8 if task == "vision" else 16}
    for row, target in zip(mean.betas, mean.stimulus, strict=True):
        np.testing.assert_allclose(row, single.betas[single.stimulus == target].mean(axis=0), atol=1e-6)


def test_averaged_patterns_sum_to_zero_over_a_set_because_runs_are_balanced(dataset, task):
    mean = dataset.trials(1, task)
    for s in "ABC":
        np.testing.assert_allclose(mean.betas[mean.stimulus_set == s].sum(axis=0), 0, atol=1e-5)


def test_a_single_imagery_run_can_be_chosen(dataset, built):
    second = dataset.trials(1, "imagery", LoadOptions(imagery_runs="2", average="none"))
    assert set(second.run.tolist()) == {10, 11, 12}
    assert second.stimulus.tolist() == [TARGET[c] for s in "ABC" for c in built.labels[f"img{s}_2"][0]]
    assert set(second.repeat.tolist()) == set(range(8, 16))


def test_regions_follow_the_label_volumes(dataset, built):
    trials = dataset.trials(1, "vision")
    voxels = walk(built.volumes[1]["nsdgeneral"])
    area = np.array([built.volumes[1]["prf-visualrois"][v] for v in voxels])
    stream = np.array([built.volumes[1]["streams"][v] for v in voxels])
    expected = {
        "nsdgeneral": np.ones(len(voxels), bool),
        "V1": (area == 1) | (area == 2),
        "V2": (area == 3) | (area == 4),
        "V3": (area == 5) | (area == 6),
        "hV4": area == 7,
        "early": area >= 1,
        "high": area < 1,
        "stream_early": stream == 1,
        "stream_ventral": stream == 5,
    }
    for name, mask in expected.items():
        np.testing.assert_array_equal(trials.rois[name], mask, err_msg=name)


def test_streams_can_select_the_voxels(dataset, built):
    trials = dataset.trials(1, "vision", LoadOptions(roi="streams", imagery_norm="none", average="none"))
    voxels = walk((built.volumes[1]["streams"] > 0).astype(int))
    np.testing.assert_allclose(
        trials.betas, percent(built.imagery[1], voxels)[task_rows("vision")], rtol=1e-6
    )
    np.testing.assert_array_equal(
        trials.rois["nsdgeneral"], [built.volumes[1]["nsdgeneral"][v] == 1 for v in voxels]
    )


def test_areas_lie_inside_nsdgeneral_whatever_selects_the_voxels(dataset, built):
    rois = dataset.trials(1, "vision", LoadOptions(roi="streams")).rois
    voxels = walk((built.volumes[1]["streams"] > 0).astype(int))
    area = np.array([built.volumes[1]["prf-visualrois"][v] for v in voxels])
    inside = np.array([built.volumes[1]["nsdgeneral"][v] == 1 for v in voxels])
    np.testing.assert_array_equal(rois["V1"], np.isin(area, (1, 2)) & inside)
    np.testing.assert_array_equal(rois["early"] | rois["high"], inside)


def test_streams_without_nsdgeneral_are_refused(copied, open_copy, nsd_fixture):
    nsd_fixture.roi_path(copied, 1, "nsdgeneral").unlink()
    with pytest.raises(DataError, match="nsdgeneral"):
        open_copy().trials(1, "vision", LoadOptions(roi="streams"))


def test_rows_of_a_trial_table_may_come_in_any_order(built, copied, open_copy, nsd_fixture, task):
    for run in RUN_NAMES:
        nsd_fixture.edit_table(nsd_fixture.table_path(copied, 1, run), lambda rows: rows.reverse())
    options = LoadOptions(average="none")
    assert open_copy().trials(1, task, options).stimulus.tolist() == expected_ids(built, task)


@pytest.mark.parametrize("cell", ["", "NaN", "HR"])
def test_odd_conditions_of_attention_trials_shift_no_label(built, copied, open_copy, nsd_fixture, task, cell):
    def blank(rows):
        for row in rows:
            row["CONDITION"] = cell

    for run in ("attA", "attB", "attC"):
        nsd_fixture.edit_table(nsd_fixture.table_path(copied, 1, run), blank)
    options = LoadOptions(average="none")
    assert open_copy().trials(1, task, options).stimulus.tolist() == expected_ids(built, task)


# core NSD


def core_truth(built, subject=1):
    raw = percent(built.core[subject], walk(built.volumes[subject]["nsdgeneral"]))
    shared = np.isin(np.arange(len(raw)), np.flatnonzero(built.ordering <= built.plan.n_shared))
    return raw, shared


def test_training_trials_are_all_trials_of_images_that_are_not_shared(dataset, built):
    train = dataset.train(2)
    _, shared = core_truth(built, 2)
    assert train.stimulus.tolist() == [f"img{i:05d}" for i in built.image[2][~shared]]
    assert train.split == "train"
    assert train.run.tolist() == (np.flatnonzero(~shared) // built.plan.trials_per_session + 1).tolist()
    assert not set(train.stimulus) & set(dataset.stimuli("shared1000").ids)


def test_core_betas_are_standardized_by_pooled_training_trials(dataset, built):
    raw, shared = core_truth(built)
    mean, sd = raw[~shared].mean(axis=0), raw[~shared].std(axis=0, ddof=1)
    np.testing.assert_allclose(dataset.train(1).betas, (raw[~shared] - mean) / sd, atol=2e-5)
    test = dataset.trials(1, "shared1000", LoadOptions(average="none"))
    np.testing.assert_allclose(test.betas, (raw[shared] - mean) / sd, atol=2e-5)


def test_session_statistics_leave_shared_images_out(dataset, built):
    raw, shared = core_truth(built)
    n = built.plan.trials_per_session
    expected = []
    for a in range(0, len(raw), n):
        block, keep = raw[a : a + n], ~shared[a : a + n]
        expected.append((block[keep] - block[keep].mean(axis=0)) / block[keep].std(axis=0, ddof=1))
    betas = dataset.train(1, LoadOptions(core_norm="session_z")).betas
    np.testing.assert_allclose(betas, np.concatenate(expected), atol=5e-5)


def test_changing_a_shared_trial_changes_no_training_value(dataset, built, copied, open_copy, nsd_fixture):
    n = built.plan.trials_per_session
    changed = built.core[1][:n].copy()
    changed[built.ordering[:n] <= built.plan.n_shared] += 500
    nsd_fixture.write_hdf5(nsd_fixture.core_path(copied, 1, 1), changed)
    np.testing.assert_array_equal(open_copy().train(1).betas, dataset.train(1).betas)


def test_unnormalized_core_betas_are_percent_signal_change(dataset, built):
    raw, shared = core_truth(built)
    np.testing.assert_allclose(dataset.train(1, LoadOptions(core_norm="none")).betas, raw[~shared], rtol=1e-6)


def test_test_trials_average_three_repeats_per_shared_image(dataset, built):
    single = dataset.trials(1, "shared1000", LoadOptions(average="none"))
    mean = dataset.trials(1, "shared1000")
    assert mean.targets == dataset.stimuli("shared1000").ids
    assert sorted(single.repeat.tolist()) == sorted([0, 1, 2] * built.plan.n_shared)
    first = single.betas[single.stimulus == mean.stimulus[0]]
    np.testing.assert_allclose(mean.betas[0], first.mean(axis=0), atol=1e-6)


def test_imagery_can_be_standardized_by_core_training_trials(dataset, built):
    raw, shared = core_truth(built)
    imagery = percent(built.imagery[1], walk(built.volumes[1]["nsdgeneral"]))[task_rows("imagery")]
    expected = (imagery - raw[~shared].mean(axis=0)) / raw[~shared].std(axis=0, ddof=1)
    trials = dataset.trials(1, "imagery", LoadOptions(imagery_norm="core_train_stats", average="none"))
    np.testing.assert_allclose(trials.betas, expected, atol=2e-5)


def test_training_betas_are_a_read_only_memory_map(dataset):
    betas = dataset.train(1).betas
    assert isinstance(betas, np.memmap)
    assert not betas.flags.writeable


@pytest.fixture(scope="module")
def long(nsd_fixture, tmp_path_factory):
    """32 sessions of six trials: long enough for every test-set definition."""
    plan = nsd_fixture.Plan(grids={1: (6, 10, 4)}, sessions=32, trials_per_session=6, seed=3)
    return nsd_fixture.build(tmp_path_factory.mktemp("long"), plan)


@pytest.mark.parametrize(("definition", "n_trials"), [(982, 29 * 6), (515, 30 * 6), (1000, 32 * 6)])
def test_test_set_definitions_fix_the_sessions_and_the_images(long, tmp_path, definition, n_trials):
    data = Dataset.open(long.root, cache=tmp_path)
    options = LoadOptions(shared=definition, average="none")
    images = long.image[1][:n_trials]
    shared = long.ordering[:n_trials] <= long.plan.n_shared
    wanted = set(images[shared].tolist())
    if definition == 515:
        wanted = {i for i in wanted if (images == i).sum() == 3}
        assert 0 < len(wanted) < long.plan.n_shared  # the definition bites on this fixture
    test = data.trials(1, "shared1000", options)
    assert set(test.stimulus) == {f"img{i:05d}" for i in wanted}
    assert len(test) == sum(int((images == i).sum()) for i in wanted)
    assert len(data.train(1, options)) == int((~shared).sum())
    assert data.stimuli("shared1000", options=options).ids == tuple(sorted(set(test.stimulus)))
    assert test.provenance["shared_set"] == f"shared{definition}"


def test_short_data_sets_have_no_shared515(dataset):
    with pytest.raises(ProtocolError, match="shared515"):
        dataset.trials(1, "shared1000", LoadOptions(shared=515))


# what is refused, and what is recorded


def test_provenance_names_every_choice(dataset, built):
    provenance = dataset.trials(1, "imagery").provenance
    expected = {
        "dataset": "nsd-synthetic",
        "beta_version": "b3",
        "normalization": "run_z",
        "averaging": "mean",
        "label_source": "condition",
        "voxel_order": "xyz_c",
        "roi": "nsdgeneral",
        "n_voxels": int((built.volumes[1]["nsdgeneral"] == 1).sum()),
        "imagery_runs": "all",
        "warnings": [],
    }
    assert {k: provenance[k] for k in expected} == expected
    assert {"content", "sequence", "targets"} <= set(provenance["hashes"])
    assert isinstance(provenance["loader_version"], int)


def test_an_unknown_option_value_is_refused():
    with pytest.raises(UsageError, match="imagery_norm"):
        LoadOptions(imagery_norm="zscore")


def test_an_unknown_split_is_refused(dataset):
    with pytest.raises(UsageError, match="seen"):
        dataset.trials(1, "seen")


def test_an_absent_subject_is_refused(dataset):
    with pytest.raises(DataError, match="no subject 5"):
        dataset.train(5)


def test_an_absent_beta_version_is_refused(dataset):
    with pytest.raises(DataError, match="b2"):
        dataset.trials(1, "vision", LoadOptions(beta_version="b2"))


def test_a_directory_without_nsd_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(DataError) as caught:
        Dataset.open(tmp_path)
    assert "--dataset sim" in caught.value.remedy


def test_a_marker_cannot_pass_for_the_real_nsd(copied):
    path = copied / "nsdbench-dataset.json"
    path.write_text(path.read_text().replace("nsd-synthetic", "nsd"))
    with pytest.raises(DataError, match="the name of the real one"):
        Dataset.open(copied)


def test_a_data_set_that_lost_its_betas_is_refused(copied):
    shutil.rmtree(copied / "nsddata_betas")
    with pytest.raises(DataError, match="holds no betas"):
        Dataset.open(copied)


def test_a_file_that_may_not_be_read_is_named(copied, open_copy, nsd_fixture, monkeypatch):
    path = nsd_fixture.table_path(copied, 1, "visA")
    opens = Path.open

    def refuse(self, *args, **kwargs):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opens(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"visA\.tsv cannot be read \(Permission denied\)"):
        open_copy().trials(1, "vision")


def test_a_data_set_without_marker_is_held_to_the_real_nsd(copied, tmp_path):
    (copied / "nsdbench-dataset.json").unlink()
    data = Dataset.open(copied, cache=tmp_path / "cache")
    assert data.id == "nsd"
    with pytest.raises(DataError, match=r"grid|files"):
        data.trials(1, "vision")


def test_a_missing_session_is_named(copied, open_copy, nsd_fixture):
    nsd_fixture.core_path(copied, 1, 3).unlink()
    with pytest.raises(DataError, match="betas_session03"):
        open_copy().train(1)
