"""The values that travel between rooms refuse nonsense and average exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsdbench.errors import DataError, ReconstructionError
from nsdbench.types import Reconstructions, Stimuli, Trials


def trials(stimulus: list[str], betas: np.ndarray) -> Trials:
    n = len(stimulus)
    return Trials(
        betas.astype(np.float32),
        np.array(stimulus),
        "vision",
        np.full(n, "A"),
        np.arange(n),
        np.ones(n, np.int64),
        1,
        {},
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["A1", "A2", "B1", "B6"]), min_size=1, max_size=20), st.integers(0, 1000))
def test_averaging_equals_the_mean_over_the_rows_of_each_stimulus(names: list[str], seed: int) -> None:
    betas = np.random.default_rng(seed).normal(size=(len(names), 3))
    averaged = trials(names, betas).average_repeats()
    assert averaged.stimulus.tolist() == sorted(set(names))
    for row, name in zip(averaged.betas, averaged.stimulus, strict=True):
        rows = betas[[i for i, n in enumerate(names) if n == name]].astype(np.float32)
        np.testing.assert_allclose(row, rows.mean(axis=0), atol=1e-6)
    assert averaged.repeat.tolist() == [names.count(n) for n in sorted(set(names))]


def test_averaging_over_runs_forgets_the_run_number() -> None:
    t = replace(trials(["A1", "A1", "A2"], np.eye(3)), run=np.array([3, 10, 3]))
    assert t.average_repeats().run.tolist() == [0, 3]


def test_averages_keep_the_single_trials_behind_them() -> None:
    t = trials(["A2", "A1", "A2", "B1"], np.arange(8).reshape(4, 2))
    averaged = t.average_repeats()
    assert averaged.singles is t
    assert t.singles is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["A1", "A2", "B1", "B6"]), min_size=1, max_size=20),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_selected_averages_keep_the_single_trials_of_their_stimuli(
    names: list[str], keep: list[bool]
) -> None:
    averaged = trials(names, np.arange(2 * len(names)).reshape(-1, 2)).average_repeats()
    mask = np.array(keep[: len(averaged)])
    for kept in (averaged.select(mask), averaged.select(np.flatnonzero(mask)[::-1])):
        assert kept.singles is not None
        assert set(kept.singles.stimulus) == set(kept.stimulus)
        again = kept.singles.average_repeats()
        order = np.argsort(kept.stimulus)
        assert np.array_equal(again.betas, kept.betas[order])
        assert np.array_equal(again.repeat, kept.repeat[order])


def test_a_selection_of_single_trials_has_none_behind_it() -> None:
    assert trials(["A1", "A2"], np.eye(2)).select(np.array([1])).singles is None


def test_selecting_stimuli_keeps_rows_and_labels_together() -> None:
    t = trials(["A1", "B1", "A1", "B6"], np.arange(8).reshape(4, 2))
    kept = t.of_stimuli(["B1", "B6"])
    assert kept.stimulus.tolist() == ["B1", "B6"]
    assert kept.betas.tolist() == [[2, 3], [6, 7]]


@pytest.mark.parametrize(
    "broken", [{"betas": np.zeros((3, 2))}, {"repeat": np.zeros(2)}, {"rois": {"V1": np.ones(5, bool)}}]
)
def test_trials_of_the_wrong_shape_or_type_are_refused(broken: dict) -> None:
    with pytest.raises(DataError):
        replace(trials(["A1", "A2", "A3"], np.zeros((3, 2))), **broken)


@pytest.mark.parametrize(
    ("shape", "dtype", "targets", "words"),
    [
        ((2, 1, 8, 8, 3), np.float32, ("A1", "A2"), "uint8"),
        ((2, 1, 8, 9, 3), np.uint8, ("A1", "A2"), "stretches"),
        ((2, 8, 8, 3), np.uint8, ("A1", "A2"), "n_samples"),
        ((2, 1, 8, 8, 4), np.uint8, ("A1", "A2"), "uint8"),
        ((2, 1, 8, 8, 3), np.uint8, ("A1",), "1 target ids for 2"),
        ((2, 1, 8, 8, 3), np.uint8, ("A1", "A1"), "twice"),
        ((2, 1, 8, 8, 3), np.uint8, ("A1", "A\n2"), "cannot be shown"),
        ((2, 1, 8, 8, 3), np.uint8, ("A1", ""), "is empty"),
        ((2, 0, 8, 8, 3), np.uint8, ("A1", "A2"), "empty"),
    ],
)
def test_malformed_reconstructions_are_refused(shape: tuple, dtype: type, targets: tuple, words: str) -> None:
    with pytest.raises(ReconstructionError, match=words):
        Reconstructions(np.zeros(shape, dtype), targets)


def test_a_subset_of_stimuli_has_its_own_hash_and_set_c_has_no_image() -> None:
    stimuli = Stimuli(
        ("A1", "A2", "C1"),
        ("A", "A", "C"),
        frozenset({"A1", "A2"}),
        lambda s: np.zeros((4, 4, 3), np.uint8),
        "h",
    )
    assert stimuli.of(["A2", "A1", "C1"]) is stimuli
    part = stimuli.of(["A2"])
    assert part.ids == ("A2",) and part.content_hash not in ("h", stimuli.of(["A1"]).content_hash)
    with pytest.raises(DataError, match="no fixed image"):
        stimuli.image("C1")
    with pytest.raises(DataError, match="not one of these"):
        stimuli.image("B1")
    with pytest.raises(DataError, match="unknown"):
        stimuli.of(["B9"])
