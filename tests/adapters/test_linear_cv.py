"""Cross-validated penalties: equality with refitting every fold, and with himalaya's rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import KFold

from nsdbench.adapters.ridge_cv import choose_penalties, cross_validated_errors
from nsdbench.adapters.targets import Targets
from nsdbench.errors import DataError, UsageError

PENALTIES = np.array([1e-2, 1.0, 100.0, 1e4])


def problem(rng: np.random.Generator, n: int, v: int, t: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Targets from clean to hopeless, with means."""
    x = rng.normal(size=(n, v)) + 0.3
    return x, x @ rng.normal(size=(v, t)) + rng.normal(size=(n, t)) * np.geomspace(0.01, 1000, t) + 3


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "v"), [(33, 60), (61, 12)])
def test_errors_equal_refitting_scikit_learn_on_every_fold(
    rng: np.random.Generator, n: int, v: int, intercept: bool
) -> None:
    x, y = problem(rng, n, v)
    expected = np.zeros((len(PENALTIES), 6))
    for train, held in KFold(5).split(x):
        for i, penalty in enumerate(PENALTIES):
            model = SklearnRidge(alpha=penalty, fit_intercept=intercept).fit(x[train], y[train])
            expected[i] += np.mean((model.predict(x[held]) - y[held]) ** 2, axis=0) / 5
    ours = cross_validated_errors(x, Targets(y, width=4), PENALTIES, intercept=intercept)
    np.testing.assert_allclose(ours, expected, rtol=1e-8)


def test_each_target_gets_the_penalty_of_its_smallest_error(rng: np.random.Generator) -> None:
    x, y = problem(rng, 60, 30)
    errors = cross_validated_errors(x, y, PENALTIES)
    chosen = choose_penalties(x, y, PENALTIES)
    np.testing.assert_array_equal(chosen, PENALTIES[errors.argmin(axis=0)])
    assert chosen[0] < chosen[-1]


def test_ties_go_to_the_larger_penalty(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 5))
    np.testing.assert_array_equal(choose_penalties(x, np.zeros((20, 3)), PENALTIES), np.full(3, 1e4))


def test_repeated_rows_by_index_equal_repeated_targets(rng: np.random.Generator) -> None:
    x, _ = problem(rng, 40, 15)
    images, rows = rng.normal(size=(10, 4)), rng.integers(0, 10, 40)
    np.testing.assert_allclose(
        cross_validated_errors(x, Targets(images, rows), PENALTIES),
        cross_validated_errors(x, images[rows], PENALTIES),
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 8), target=st.integers(0, 5))
def test_neither_block_size_nor_other_targets_change_an_error(seed: int, width: int, target: int) -> None:
    x, y = problem(np.random.default_rng(seed), 25, 10)
    whole = cross_validated_errors(x, Targets(y, width=width), PENALTIES)
    alone = cross_validated_errors(x, y[:, target : target + 1], PENALTIES)
    np.testing.assert_allclose(whole[:, target : target + 1], alone, rtol=1e-9)


def test_duplicate_rows_and_constant_voxels_do_not_break_the_smallest_penalties(
    rng: np.random.Generator,
) -> None:
    x, y = problem(rng, 40, 100)
    x[20:], y[20:], x[:, 0] = x[:20], y[:20], 0.0
    assert np.isfinite(cross_validated_errors(x, y, np.array([1e-6, 1.0]))).all()


def test_misuse_is_named(rng: np.random.Generator) -> None:
    x, y = problem(rng, 20, 5)
    with pytest.raises(DataError, match="positive"):
        choose_penalties(x, y, np.array([1.0, -1.0]))
    with pytest.raises(DataError, match="positive"):
        choose_penalties(x, y, np.array([]))
    with pytest.raises(UsageError, match="folds"):
        choose_penalties(x, y, PENALTIES, n_folds=1)
    with pytest.raises(DataError, match="19 training rows"):
        choose_penalties(x, y[:19], PENALTIES)
    x[4, 2] = np.nan
    with pytest.raises(DataError, match="voxel 2"):
        choose_penalties(x, y, PENALTIES)
