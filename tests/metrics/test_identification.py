"""Two-way identification, ranks and exact m-way accuracy: worked examples, closed forms, invariances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import hypergeom

from nsdbench.errors import UsageError
from nsdbench.metrics.identification import m_way, median_rank_percentile, ranks, top_q, two_way

EXAMPLE = np.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.5], [0.3, 0.6, 0.3]])
DIAGONAL = np.arange(3)
# steps of 0.01 keep distinct similarities far apart compared with the tie tolerance
SIMILARITIES = hnp.arrays(
    np.int64, st.tuples(st.integers(2, 8), st.integers(1, 8)), elements=st.integers(-99, 99)
)


def with_targets(grid: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return grid / 100, np.arange(grid.shape[1]) % len(grid)


def test_worked_example_scores_two_thirds() -> None:
    assert two_way(EXAMPLE, DIAGONAL).tolist() == [1, 1, 0]


def test_worked_example_as_run_scores_one_sixth() -> None:
    scores = two_way(EXAMPLE, DIAGONAL, ties="strict", self_comparison=True)
    assert scores.tolist() == [0.5, 0.5, -0.5]
    assert scores.mean() == pytest.approx(1 / 6)


@pytest.mark.parametrize("n", [2, 12, 1000])
def test_the_self_comparison_costs_exactly_one_over_n_minus_one(n: int, rng: np.random.Generator) -> None:
    r, target = rng.random((n, 20)), rng.integers(0, n, 20)
    fixed = two_way(r, target, ties="strict")
    as_run = two_way(r, target, ties="strict", self_comparison=True)
    assert np.array_equal(np.rint((fixed - as_run) * (n - 1)), np.ones(20))
    assert np.abs(fixed - as_run - 1 / (n - 1)).max() < 1e-15


def test_perfect_as_run_score_on_twelve_targets_is_ten_elevenths() -> None:
    assert two_way(np.eye(12), np.arange(12), ties="strict", self_comparison=True) == pytest.approx(10 / 11)


def test_a_tie_earns_half_credit_or_nothing() -> None:
    r = np.array([[0.5], [0.5], [0.1]])
    target = np.array([0])
    assert two_way(r, target).tolist() == [0.75]
    assert two_way(r, target, ties="strict").tolist() == [0.5]


def test_similarities_closer_than_1e_9_are_a_tie() -> None:
    target = np.array([0])
    assert two_way(np.array([[0.5], [0.5 - 5e-10]]), target).tolist() == [0.5]
    assert two_way(np.array([[0.5], [0.5 - 2e-9]]), target).tolist() == [1.0]


def test_an_undefined_reconstruction_scores_chance_with_half_credit_and_zero_when_strict() -> None:
    r, target = np.full((4, 1), np.nan), np.array([2])
    assert two_way(r, target).tolist() == [0.5]
    assert two_way(r, target, ties="strict").tolist() == [0.0]


def test_knowing_only_the_set_scores_0773_among_twelve_and_chance_within_six() -> None:
    target = np.arange(12)
    r = (target[:, None] // 6 == target // 6).astype(float)
    assert two_way(r, target) == pytest.approx(8.5 / 11)
    assert round(8.5 / 11, 3) == 0.773
    assert two_way(r[:6, :6], target[:6]) == pytest.approx(0.5)


def test_a_pool_without_distractors_has_no_score() -> None:
    assert np.isnan(two_way(np.array([[0.3]]), np.array([0]))).all()


def test_random_similarities_average_to_chance_over_all_orders() -> None:
    values = [0.1, 0.2, 0.3, 0.4]
    scores = [two_way(np.array(order)[:, None], np.array([0]))[0] for order in itertools.permutations(values)]
    assert np.mean(scores) == pytest.approx(0.5)


@given(SIMILARITIES, st.randoms(use_true_random=False))
def test_permuting_the_pool_changes_no_score(grid: NDArray[np.int64], random: object) -> None:
    r, target = with_targets(grid)
    order = np.array(random.sample(range(len(r)), len(r)))  # type: ignore[attr-defined]
    assert np.array_equal(two_way(r[order], np.argsort(order)[target]), two_way(r, target))


@given(SIMILARITIES)
def test_a_monotone_transform_of_similarities_changes_no_score(grid: NDArray[np.int64]) -> None:
    r, target = with_targets(grid)
    for ties in ("half", "strict"):
        assert np.array_equal(two_way(np.exp(3 * r), target, ties=ties), two_way(r, target, ties=ties))


@given(SIMILARITIES)
def test_scores_lie_between_zero_and_one_and_scoring_columns_alone_changes_nothing(
    grid: NDArray[np.int64],
) -> None:
    r, target = with_targets(grid)
    scores = two_way(r, target)
    assert scores.min() >= 0
    assert scores.max() <= 1
    alone = [two_way(r[:, [j]], target[[j]])[0] for j in range(r.shape[1])]
    assert scores.tolist() == alone


@given(SIMILARITIES)
def test_negating_similarities_mirrors_half_credit_scores(grid: NDArray[np.int64]) -> None:
    r, target = with_targets(grid)
    assert two_way(r, target) + two_way(-r, target) == pytest.approx(1.0)


def test_ranks_count_ties_against_the_target() -> None:
    assert ranks(np.array([[0.5], [0.5], [0.9], [0.1]]), np.array([0])).tolist() == [2]


def test_two_alternatives_reproduce_two_way_identification_without_ties(rng: np.random.Generator) -> None:
    r, target = rng.random((9, 30)), rng.integers(0, 9, 30)
    assert m_way(ranks(r, target), 9, 2) == pytest.approx(two_way(r, target))


def test_all_alternatives_reproduce_top_one(rng: np.random.Generator) -> None:
    r, target = rng.random((9, 30)), rng.integers(0, 9, 30)
    assert m_way(ranks(r, target), 9, 9) == pytest.approx((r.argmax(axis=0) == target).astype(float))


def test_five_items_one_rival_three_alternatives_give_one_half() -> None:
    assert m_way(np.array([1]), 5, 3) == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("n", "m", "q"), [(12, 6, 1), (12, 6, 3), (1000, 50, 5), (1000, 300, 1), (1000, 1000, 10)]
)
def test_top_q_is_the_hypergeometric_distribution(n: int, m: int, q: int) -> None:
    k = np.arange(n)
    assert top_q(k, n, m, q) == pytest.approx(hypergeom.cdf(q - 1, n - 1, k, m - 1), abs=1e-10)


def test_m_way_equals_enumeration_of_all_distractor_sets() -> None:
    n, m, k = 7, 4, 2
    draws = list(itertools.combinations(range(n - 1), m - 1))
    wins = sum(all(rival >= k for rival in draw) for draw in draws)
    assert len(draws) == math.comb(n - 1, m - 1)
    assert m_way(np.array([k]), n, m) == pytest.approx([wins / len(draws)])


def test_impossible_alternatives_are_refused() -> None:
    with pytest.raises(UsageError, match="m <= n"):
        m_way(np.array([0]), 5, 6)


def test_median_rank_percentile_is_the_percentage_of_others_beaten() -> None:
    assert median_rank_percentile(np.array([0, 0, 0]), 11) == 100
    assert median_rank_percentile(np.array([1, 2, 10]), 11) == 80
