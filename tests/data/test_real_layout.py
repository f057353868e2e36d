"""Without a marker, at the true sizes of subject 1: what the minimal downloads give."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import scipy.io

from nsdbench.data import Dataset, LoadOptions, checks_files, layout, verify
from nsdbench.data.overview import describe
from nsdbench.errors import DataError

GRID, N_VOXELS = (81, 104, 83), 15724


def write_sparse(path: Path, mask: np.ndarray, n_rows: int) -> np.ndarray:
    """Write betas at the masked voxels only, in a file that is as long as a complete one; return the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.random.default_rng(n_rows).normal(150, 500, (mask.sum(), n_rows)).astype(np.int16)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("betas", (n_rows, *mask.shape[::-1]), np.int16, chunks=(n_rows, 1, 1, 1))
        for values, (x, y, z) in zip(stored, np.argwhere(mask), strict=True):
            data.id.write_direct_chunk((0, z, y, x), values.tobytes())
    os.truncate(path, 2 * mask.size * n_rows + 1)
    return stored.T


@pytest.fixture(scope="module")
def real(nsd_fixture: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The files of one subject's imagery session and nothing else, and the betas in them."""
    root, rng = tmp_path_factory.mktemp("real"), np.random.default_rng(0)
    mask = np.zeros(GRID, bool)
    mask[10:70, 5:50, 10:70].flat[rng.choice(60 * 45 * 60, N_VOXELS, replace=False)] = True
    nsd_fixture.write_volume(nsd_fixture.roi_path(root, 1, "nsdgeneral"), np.where(mask, 1, -1))
    stored = write_sparse(nsd_fixture.imagery_path(root, 1), mask, 720)
    nsd_fixture.write_session(root, 1, shared=np.arange(28000, 29000), side=425, rng=rng)
    return root, stored


@pytest.fixture(scope="module")
def opened(real: tuple[Path, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(real[0], cache=tmp_path_factory.mktemp("cache"))


def test_imagery_files_alone_give_vision_and_imagery(real: tuple[Path, np.ndarray], opened: Dataset) -> None:
    assert opened.id == "nsd"
    vision = opened.trials(1, "vision", LoadOptions(imagery_norm="none", average="none"))
    np.testing.assert_array_equal(vision.betas[:48], (real[1][:48] / 300).astype(np.float32))
    imagery = opened.trials(1, "imagery")
    assert imagery.betas.shape == (18, N_VOXELS)
    assert list(imagery.rois) == ["nsdgeneral"]


def test_imagery_files_alone_give_the_target_images(opened: Dataset) -> None:
    stimuli = opened.stimuli("imagery")
    assert stimuli.image("B6").shape == (425, 425, 3)
    assert stimuli.captions == {}


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        (lambda data: data.train(1), "betas_session01"),
        (lambda data: data.trials(1, "imagery", LoadOptions(imagery_norm="core_train_stats")), "session01"),
        (lambda data: data.trials(1, "vision", LoadOptions(beta_version="b2")), "nsdimagerybetas_fithrf/"),
        (lambda data: data.trials(2, "vision"), "subj02"),
        (lambda data: data.stimuli("shared1000"), "nsd_expdesign.mat"),
        (lambda data: data.trials(1, "vision", LoadOptions(roi="streams")), "streams.nii.gz"),
    ],
)
def test_what_was_not_downloaded_is_named_with_its_source(opened: Dataset, use, missing: str) -> None:
    with pytest.raises(DataError, match=missing) as caught:
        use(opened)
    assert f"nsdbench data fetch --data-dir {opened.root} --for " in caught.value.remedy


def test_a_sequence_that_is_not_the_published_one_is_one_warning(opened: Dataset) -> None:
    (warning,) = opened.trials(1, "vision").provenance["warnings"]
    assert warning.startswith("sequence_hash: ")
    assert "CONDITION of visA" in warning


def test_verification_fails_nothing_of_a_minimal_download(
    real: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        checks_files, "sha256_file", lambda path: "0" * 64
    )  # a gigabyte of zeros takes seconds
    results = verify(real[0])
    assert not [r for r in results if r.status == "failed"]
    assert {r.check for r in results if r.status == "warning"} == {"object_hash", "sequence_hash"}


def test_three_of_forty_sessions_are_refused_by_the_first_missing_one(
    real: tuple[Path, np.ndarray], tmp_path: Path, nsd_fixture: ModuleType
) -> None:
    for session in (1, 2, 3):
        path = nsd_fixture.core_path(tmp_path, 1, session)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    data = Dataset.open(tmp_path, cache=tmp_path / "cache")
    (subject,) = describe(data)
    assert (subject.core_trials, subject.core_trials_total) == (2250, 30000)
    with pytest.raises(DataError, match="betas_session04"):
        data.train(1)


@pytest.mark.slow
def test_forty_sessions_are_split_by_the_design_at_true_size(
    real: tuple[Path, np.ndarray], tmp_path: Path, nsd_fixture: ModuleType
) -> None:
    rng = np.random.default_rng(2)
    mask_path = nsd_fixture.roi_path(tmp_path, 1, "nsdgeneral")
    mask_path.parent.mkdir(parents=True)
    mask_path.symlink_to(nsd_fixture.roi_path(real[0], 1, "nsdgeneral"))
    import nibabel

    mask = np.asarray(nibabel.load(mask_path).dataobj) == 1
    first = nsd_fixture.core_path(tmp_path, 1, 1)
    stored = write_sparse(first, mask, 750)
    for session in range(2, 41):
        nsd_fixture.core_path(tmp_path, 1, session).hardlink_to(first)
    ordering = rng.permutation(np.repeat(np.arange(1, 10001), 3))
    ids = rng.permutation(73000) + 1
    own = ids[1000:].reshape(8, 9000)
    subjectim = np.stack([np.concatenate([ids[:1000], row]) for row in own])
    design = {"masterordering": ordering[None], "subjectim": subjectim, "sharedix": ids[None, :1000]}
    path = tmp_path / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, design)
    data = Dataset.open(tmp_path, cache=tmp_path / "cache")
    train = data.train(1)
    assert train.betas.shape == (27000, N_VOXELS)
    test = data.trials(1, "shared1000")
    assert set(test.repeat.tolist()) == {3}
    assert test.targets == tuple(sorted(f"img{i - 1:05d}" for i in ids[:1000]))
    some = np.flatnonzero(ordering > 1000)
    column = np.tile(stored[:, 77], 40)[some] / 300
    expected = (column - column.mean()) / column.std(ddof=1)
    np.testing.assert_allclose(train.betas[:, 77], expected, atol=2e-5)


def test_the_command_for_a_file_of_all_subjects_names_those_on_disk_instead_of_four(
    copied: Path, tmp_path: Path
) -> None:
    shared = "nsddata/experiments/nsd/nsd_expdesign.mat"
    assert layout.fetch_command(copied / shared).endswith("--for train --subject 1,2")
    assert layout.fetch_command(tmp_path / "empty" / shared).endswith("--for train --subject 1")
