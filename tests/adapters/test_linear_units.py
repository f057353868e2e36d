"""FastL2LiR: equality with the definition, unit by unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsdbench.adapters.fastl2lir import UnitDecoders, fit_units
from nsdbench.adapters.targets import Targets
from nsdbench.errors import DataError

PENALTY = 100.0


def problem(rng: np.random.Generator, n: int = 60, v: int = 40, units: int = 9) -> tuple[np.ndarray, ...]:
    """z-scored betas of trials, features of images with three trials each, query betas."""
    images = rng.normal(size=(n // 3, units)) * np.geomspace(0.1, 100, units) + 5
    rows = rng.permutation(np.repeat(np.arange(n // 3), 3))
    x = rng.normal(size=(n, v)) + images[rows] @ rng.normal(size=(units, v)) * 0.02
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    return x, images, rows, rng.normal(size=(5, v))


def definition(x: np.ndarray, y: np.ndarray, rows: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Correlate, select, extend by ones and solve the normal equations of one unit after the other."""
    mean, sd = y.mean(axis=0), y.std(axis=0, ddof=1)
    z = ((y - mean) / sd)[rows]
    out = np.empty((len(query), y.shape[1]))
    for u in range(y.shape[1]):
        with np.errstate(invalid="ignore"):
            r = np.nan_to_num([np.corrcoef(column, z[:, u])[0, 1] for column in x.T])
        keep = np.argsort(-np.abs(r), kind="stable")[:k]
        extended = np.column_stack([x[:, keep], np.ones(len(x))])
        w = np.linalg.solve(extended.T @ extended + PENALTY * np.eye(k + 1), extended.T @ z[:, u])
        out[:, u] = np.column_stack([query[:, keep], np.ones(len(query))]) @ w
    return out * sd + mean


def predictions(x: np.ndarray, y: Targets, query: np.ndarray, k: int, workers: int = 1) -> np.ndarray:
    fitted = fit_units(x, y, penalty=PENALTY, n_selected=k, workers=workers)
    return np.hstack([decoders.predict(query) for decoders in fitted])


@pytest.mark.parametrize("k", [1, 7, 39, 40])
def test_predictions_equal_the_definition(rng: np.random.Generator, k: int) -> None:
    x, y, rows, query = problem(rng)
    ours = predictions(x, Targets(y, rows, width=4), query, k)
    np.testing.assert_allclose(ours, definition(x, y, rows, query, k), rtol=1e-5, atol=1e-4)


def test_fewer_rows_than_selected_voxels_and_repeated_rows_are_solved(rng: np.random.Generator) -> None:
    x, y, rows, query = problem(rng, n=12, v=80)
    x[6:], rows[6:] = x[:6], rows[:6]
    ours = predictions(x, Targets(y, rows), query, 50)
    np.testing.assert_allclose(ours, definition(x, y, rows, query, 50), rtol=1e-5, atol=1e-4)


def test_systems_larger_than_a_strip_are_gathered_whole(rng: np.random.Generator) -> None:
    x, y, rows, query = problem(rng, n=300, v=220, units=3)
    ours = predictions(x, Targets(y, rows), query, 150)
    np.testing.assert_allclose(ours, definition(x, y, rows, query, 150), rtol=1e-5, atol=1e-4)


def test_the_bias_is_penalized_too() -> None:
    x = np.zeros((4, 2))
    x[:, 0] = [1, -1, 1, -1]
    images, rows = np.array([[0.0], [2.0]]), np.array([1, 1, 1, 0])
    # z = +-1/sqrt(2) with trial mean sqrt(2)/4; bias = sum(z) / (4 + 100) = sqrt(2) / 104, sd = sqrt(2), mean = 1
    (decoders,) = fit_units(x, Targets(images, rows), n_selected=1)
    np.testing.assert_allclose(decoders.predict(np.zeros((1, 2))), [[1 + 2 / 104]], rtol=1e-6)


def test_selection_finds_the_voxels_that_carry_the_unit(rng: np.random.Generator) -> None:
    x = rng.normal(size=(200, 50))
    y = x[:, [31, 4]] @ np.array([[1.0], [-1.0]])
    (decoders,) = fit_units(x, y, n_selected=2)
    np.testing.assert_array_equal(decoders.voxels, [[4, 31]])


def test_a_constant_unit_is_predicted_by_its_value(rng: np.random.Generator) -> None:
    x, y, rows, query = problem(rng)
    y[:, 2] = 0.1
    ours = predictions(x, Targets(y, rows), query, 10)
    np.testing.assert_allclose(ours[:, 2], 0.1, rtol=1e-6)
    assert np.isfinite(ours).all()


def test_a_constant_voxel_is_taken_last(rng: np.random.Generator) -> None:
    x, y, rows, query = problem(rng)
    x[:, 0] = 0.0
    ours = list(fit_units(x, Targets(y, rows), n_selected=39))
    assert all(0 not in decoders.voxels for decoders in ours)
    np.testing.assert_allclose(
        predictions(x, Targets(y, rows), query, 40), definition(x, y, rows, query, 40), rtol=1e-5, atol=1e-4
    )


def test_threads_change_nothing(rng: np.random.Generator) -> None:
    x, y, rows, query = problem(rng)
    one, three = (predictions(x, Targets(y, rows), query, 12, workers) for workers in (1, 3))
    np.testing.assert_array_equal(one, three)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), width=st.integers(1, 9), scale=st.floats(0.01, 100), shift=st.floats(-9, 9)
)
def test_units_are_independent_and_follow_shift_and_scale(
    seed: int, width: int, scale: float, shift: float
) -> None:
    x, y, rows, query = problem(np.random.default_rng(seed))
    whole = predictions(x, Targets(y, rows), query, 12)
    moved = predictions(x, Targets(scale * y + shift, rows, width=width), query, 12)
    np.testing.assert_allclose(moved, scale * whole + shift, rtol=1e-4, atol=1e-3 * scale)


def test_misuse_is_named(rng: np.random.Generator) -> None:
    x, y, rows, query = problem(rng)
    with pytest.raises(DataError, match="59 training rows, the betas have 60"):
        next(fit_units(x, Targets(y, rows[:59])))
    with pytest.raises(DataError, match="positive"):
        next(fit_units(x, Targets(y, rows), penalty=0.0))
    with pytest.raises(DataError, match="positive"):
        next(fit_units(x, Targets(y, rows), n_selected=0))
    with pytest.raises(DataError, match="two rows"):
        next(fit_units(x, Targets(y[:1], np.zeros(60, np.int64))))
    with pytest.raises(DataError, match="fitted on 40 voxels"):
        next(fit_units(x, Targets(y, rows))).predict(query[:, :9])
    y[3, 1] = np.nan
    with pytest.raises(DataError, match="target 1 is nan in row 3"):
        next(fit_units(x, Targets(y, rows)))


def test_stored_decoders_must_fit_together() -> None:
    ones = np.ones(2, np.float32)
    with pytest.raises(DataError, match=r"outside 0\.\.4"):
        UnitDecoders(np.array([[0], [5]], np.int32), np.ones((2, 1), np.float32), ones, ones, ones, 5)
    with pytest.raises(DataError, match="parts of"):
        UnitDecoders(np.array([[0], [1]], np.int32), np.ones((2, 1), np.float32), ones, ones, ones[:1], 5)
