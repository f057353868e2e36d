"""Preparation at the true grid of subject 1, on generated sparse files: values, memory, and a decoder that learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import prepare_speed
import pytest
import synthetic_nsd

from nsdbench.data import Dataset, LoadOptions, verify
from nsdbench.preparation.betas import prepare_betas

BOUND_MB = 400  # peak memory of preparing and loading 40 sessions at 15724 voxels


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, synthetic_nsd.World]:
    """Two sessions at 500 of the voxels, prepared and pruned."""
    root = tmp_path_factory.mktemp("grid") / "nsd"
    world = synthetic_nsd.write(root, synthetic_nsd.Plan(sessions=2, n_voxels=500, ncsnr=1.0))
    prepare_betas(Dataset.open(root, cache=root / "cache"), 1, LoadOptions(), prune=True)
    return root, world


def test_sparse_files_of_the_true_grid_are_prepared_as_written(
    small: tuple[Path, synthetic_nsd.World],
) -> None:
    root, world = small
    rows = np.load(root / "nsdbench_prepared/subj01/b3-nsdgeneral/betas.npy")
    np.testing.assert_array_equal(rows, np.concatenate([world.core(1), world.core(2)]))
    assert not list(root.rglob("betas_session*"))


def test_standardized_trials_follow_the_textbook(small: tuple[Path, synthetic_nsd.World]) -> None:
    root, world = small
    train = Dataset.open(root, cache=root / "cache").train(1)
    percent = np.concatenate([world.core(1), world.core(2)]) / 300
    percent = percent[world.ordering > world.plan.n_shared]
    expected = (percent - percent.mean(axis=0)) / percent.std(axis=0, ddof=1)
    np.testing.assert_allclose(train.betas, expected, atol=2e-6)
    assert train.stimulus.tolist() == [
        f"img{row:05d}" for row in world.image[world.ordering > world.plan.n_shared]
    ]


def test_the_generated_data_set_passes_every_check(small: tuple[Path, synthetic_nsd.World]) -> None:
    results = verify(small[0])
    assert {(r.check, r.status) for r in results if r.status not in ("ok", "skipped")} == set()
    assert ("prepared_store", "ok") in {(r.check, r.status) for r in results}


def test_betas_carry_a_code_of_pictures_that_also_holds_in_imagery(
    small: tuple[Path, synthetic_nsd.World],
) -> None:
    root, world = small
    data = Dataset.open(root, cache=root / "cache")
    train = data.train(1)
    rows = [int(name.removeprefix("img")) for name in train.stimulus]
    colours = synthetic_nsd.code(world.pictures[rows])
    weights = np.linalg.lstsq(train.betas, colours - colours.mean(axis=0), rcond=None)[0]
    for split, least in (("shared1000", 0.8), ("vision", 0.6), ("imagery", 0.5)):
        trials, stimuli = data.trials(1, split), data.stimuli(split, 1)
        seen = np.array([i in stimuli.has_image for i in trials.stimulus])
        shown = np.concatenate([synthetic_nsd.code(stimuli.image(i)[None]) for i in trials.stimulus[seen]])
        decoded = trials.betas[seen] @ weights
        assert np.corrcoef(decoded.ravel(), (shown - shown.mean(axis=0)).ravel())[0, 1] > least


@pytest.mark.slow
def test_forty_sessions_are_prepared_in_bounded_memory(tmp_path: Path) -> None:
    root = tmp_path / "nsd"
    world = synthetic_nsd.write(root)
    command = [sys.executable, prepare_speed.__file__, str(root), "--prune", "--alone"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert found["sessions"] == 40
    assert found["mb_cache"] < BOUND_MB
    assert not list(root.rglob("betas_session*"))
    rows = np.load(root / "nsdbench_prepared/subj01/b3-nsdgeneral/betas.npy", mmap_mode="r")
    assert rows.shape == (30000, synthetic_nsd.N_VOXELS)
    for session in (1, 17, 40):
        np.testing.assert_array_equal(rows[(session - 1) * 750 : session * 750], world.core(session))
    columns = np.arange(0, synthetic_nsd.N_VOXELS, 311)
    train = Dataset.open(root, cache=root / "cache").train(1)
    percent = rows[:, columns][world.ordering > 1000] / 300
    expected = (percent - percent.mean(axis=0)) / percent.std(axis=0, ddof=1)
    np.testing.assert_allclose(train.betas[:, columns], expected, atol=2e-5)
