"""Lists and draws of permutations and signs, and p-values, against itertools and hand-computed cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nsdbench import stats
from nsdbench.stats import arrangements


def test_a_p_value_from_draws_counts_the_observation_itself() -> None:
    draws = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]])
    found = stats.p_values(draws, np.array([0.3, 1.0]), exact=False)
    assert found.tolist() == [(1 + 2) / 5, 1 / 5]


def test_a_p_value_from_all_arrangements_is_their_share() -> None:
    assert stats.p_values(np.array([1.0, 2.0, 3.0, 4.0]), np.array(3.0), exact=True) == 0.5


def test_equal_statistics_count_whatever_rounding_made_of_them() -> None:
    draws = np.array([[0.1 + 0.2, 0.0]])
    assert stats.p_values(draws, np.array([0.3]), exact=True).tolist() == [0.5]
    assert stats.p_values(np.array([[0.3, 0.0]]), np.array([0.1 + 0.2]), exact=True).tolist() == [0.5]


def test_an_undefined_statistic_is_never_significant() -> None:
    assert stats.p_values(np.zeros((1, 99)), np.array([np.nan]), exact=False).tolist() == [1]
    assert stats.p_values(np.full((1, 99), np.nan), np.array([0.5]), exact=False).tolist() == [1]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_all_permutations_are_listed_once_with_the_identity_first(n: int) -> None:
    found, exact = arrangements.permutations(n, 10, (0,))
    assert exact
    assert found[0].tolist() == list(range(n))
    assert sorted(map(tuple, found.tolist())) == sorted(itertools.permutations(range(n)))


def test_permutations_are_listed_up_to_eight_things_and_drawn_above() -> None:
    assert arrangements.permutations(8, 10, (0,))[0].shape == (40_320, 8)
    drawn, exact = arrangements.permutations(9, 10, (0,))
    assert not exact
    assert drawn.shape == (10, 9)


def test_drawn_permutations_are_permutations_and_all_are_equally_frequent() -> None:
    drawn, exact = arrangements.permutations(3, 60_000, (0,), listed=False)
    assert not exact
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert sorted(map(tuple, orders.tolist())) == sorted(itertools.permutations(range(3)))
    assert counts == pytest.approx(10_000, rel=0.05)


def test_draws_depend_on_every_part_of_the_seed() -> None:
    one, same, other = (arrangements.permutations(12, 5, seed)[0] for seed in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_all_sign_patterns_are_listed_once(n: int) -> None:
    found, exact = arrangements.sign_patterns(n, 10, 0)
    assert exact
    assert sorted(map(tuple, found.tolist())) == sorted(itertools.product((-1.0, 1.0), repeat=n))


def test_sign_patterns_are_listed_up_to_fourteen_targets_and_drawn_above() -> None:
    assert arrangements.sign_patterns(14, 10, 0)[0].shape == (2**14, 14)
    drawn, exact = arrangements.sign_patterns(15, 20_000, 0)
    assert not exact
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn.mean(axis=0)).max() < 0.04
    assert np.abs(np.corrcoef(drawn.T) - np.eye(15)).max() < 0.04
