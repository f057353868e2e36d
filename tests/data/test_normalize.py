"""Standardization against NumPy and closed forms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nsdbench.data.betas import to_percent
from nsdbench.data.normalize import Moments, standardize, zscore, zscore_runs

ROWS = arrays(np.int16, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=st.integers(-32767, 32767))


@given(ROWS, st.data())
def test_moments_do_not_depend_on_how_rows_are_cut_into_blocks(stored, data):
    rows = to_percent(stored)
    cut = data.draw(st.integers(0, len(rows)))
    moments = Moments(rows.shape[1])
    moments.add(rows[:cut])
    moments.add(rows[cut:])
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.std, rows.std(axis=0, ddof=1, dtype=np.float64), rtol=1e-9, atol=1e-9)


@given(ROWS)
def test_standardized_columns_have_mean_0_and_deviation_1_or_are_all_zero(stored):
    z = zscore(to_percent(stored)).astype(np.float64)
    constant = np.all(stored == stored[0], axis=0)
    assert np.all(z[:, constant] == 0)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z[:, ~constant].std(axis=0, ddof=1), 1, atol=1e-5)


def test_a_constant_voxel_far_from_zero_becomes_exactly_zero_over_many_rows():
    rows = np.full((30000, 1), 109.2233, np.float32)
    assert np.all(zscore(rows) == 0)


@given(st.integers(-32767, 32767), st.lists(st.integers(1, 800), min_size=1, max_size=6))
def test_a_constant_voxel_has_deviation_0_however_its_rows_arrive(value, sizes):
    moments = Moments(1)
    for size in sizes:
        moments.add(np.full((size, 1), to_percent(np.array([value], np.int16))))
    assert moments.std[0] == 0


def test_one_deviating_count_in_many_rows_is_variance():
    stored = np.full((30000, 1), 32767, np.int16)
    stored[7] -= 1
    assert np.all(np.isfinite(z := zscore(to_percent(stored))))
    assert abs(z[7, 0] + np.sqrt(29999**2 / 30000)) < 1  # closed form of a single outlier, float32 input


def test_runs_are_standardized_apart():
    rows = np.array([[1.0], [3.0], [10.0], [30.0]], np.float32)
    z = zscore_runs(rows, (slice(0, 2), slice(2, 4)))
    np.testing.assert_allclose(z[:, 0], np.array([-1, 1, -1, 1]) / np.sqrt(2), rtol=1e-6)


def test_given_statistics_are_applied_and_zero_deviation_gives_zero():
    rows = np.array([[3.0, 5.0]], np.float32)
    out = standardize(rows, np.array([1.0, 2.0]), np.array([4.0, 0.0]))
    np.testing.assert_array_equal(out, np.array([[0.5, 0.0]], np.float32))


@given(st.integers(-32767, 32767))
def test_percent_is_the_stored_integer_over_300(value):
    assert to_percent(np.array([value], np.int16))[0] == np.float32(value) / np.float32(300)
