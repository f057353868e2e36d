"""The loader on simulated data: it finds what an independent reader finds, and what was put in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsdbench.data import Dataset, LoadOptions
from nsdbench.data.facts import table
from nsdbench.sim.decoders import average, read_subject, two_way, zscore_runs
from nsdbench.sim.truths import task_rows

LETTERS = [row["cue"] for row in table("targets")]
SUBJECTS = (1, 7)


@pytest.fixture(scope="module")
def loaded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(tiny, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def identify(tiny: Path) -> Callable[[int, str, np.ndarray], float]:
    """Return how well averaged patterns identify the 18 noise-free patterns that were put in."""

    def score(subject: int, task: str, patterns: np.ndarray) -> float:
        signal = np.load(tiny / f"sim_truth/subj{subject:02d}.npz")["imagery_signal"].astype(np.float32)
        rows = task_rows(task, "ABC")
        truth = average(signal[rows], read_subject(tiny, subject).condition[rows], LETTERS)
        return two_way(patterns - patterns.mean(axis=0), truth - truth.mean(axis=0))

    return score


@pytest.mark.parametrize("task", ["vision", "imagery"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_loader_finds_the_patterns_of_an_independent_reader(
    tiny: Path, loaded: Dataset, subject: int, task: str
) -> None:
    data, rows = read_subject(tiny, subject), task_rows(task, "ABC")
    expected = average(zscore_runs(data.session)[rows], data.condition[rows], LETTERS)
    found = loaded.trials(subject, task)
    assert found.stimulus.tolist() == [row["stimulus_set"] + row["target_number"] for row in table("targets")]
    np.testing.assert_allclose(found.betas, expected, atol=1e-5)


def test_core_trials_show_the_images_of_an_independent_reader(tiny: Path, loaded: Dataset) -> None:
    images = read_subject(tiny, 7).images
    assert loaded.trials(7, "shared1000").targets == tuple(sorted(f"img{i:05d}" for i in images[:60]))
    assert loaded.train(7).targets == tuple(sorted(f"img{i:05d}" for i in images[60:]))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_s9_aligned_rows_identify_their_targets_and_misaligned_rows_do_not(
    tiny: Path, loaded: Dataset, identify: Callable[[int, str, np.ndarray], float], subject: int
) -> None:
    data = read_subject(tiny, subject)
    for task, floor in (("vision", 0.95), ("imagery", 0.7)):
        rows = task_rows(task, "ABC")
        assert identify(subject, task, loaded.trials(subject, task).betas) > floor
        for shift in (-1, 1):
            moved = np.roll(zscore_runs(data.session), shift, axis=0)[rows]
            assert identify(subject, task, average(moved, data.condition[rows], LETTERS)) < 0.55


@pytest.mark.parametrize("subject", SUBJECTS)
def test_s9_labels_by_cue_letter_or_by_trial_number_identify_worse(
    tiny: Path, loaded: Dataset, identify: Callable[[int, str, np.ndarray], float], subject: int
) -> None:
    data = read_subject(tiny, subject)
    right = identify(subject, "vision", loaded.trials(subject, "vision").betas)
    by_cue = loaded.trials(subject, "vision", LoadOptions(label_source="cue")).betas
    assert identify(subject, "vision", by_cue) < right - 0.1
    # one beta per trial, attention trials included: every run after the first attention run lies too early
    starts = [48 * k for k, run in enumerate(table("runs")) if run["task"] == "vision"]
    wrong = np.concatenate([np.arange(start, start + 48) for start in starts])
    labels = data.condition[task_rows("vision", "ABC")]
    patterns = average(zscore_runs(data.session)[wrong], labels, LETTERS)
    assert identify(subject, "vision", patterns) < right - 0.2
