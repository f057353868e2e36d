"""Statistics against closed forms and against SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nsdbench import stats

GAUSSIAN_LIKE = st.floats(-3, 3, allow_nan=False, width=32)


def test_a_bca_interval_agrees_with_scipy(rng: np.random.Generator) -> None:
    scores = rng.exponential(size=30)
    ours = stats.bca(scores[None, None], n_resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, method="BCa", n_resamples=20_000, rng=rng
    ).confidence_interval
    assert ours.low[0] == pytest.approx(theirs.low, abs=0.01)
    assert ours.high[0] == pytest.approx(theirs.high, abs=0.01)


def test_bca_limits_agree_with_scipy_on_the_same_resamples(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = rng.lognormal(size=12)
    theirs = scipy.stats.bootstrap((scores,), np.mean, method="BCa", n_resamples=5_000, rng=rng)
    monkeypatch.setattr(stats, "_bootstrap_means", lambda *_: theirs.bootstrap_distribution[None])
    ours = stats.bca(scores[None, None])
    assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=1e-9)
    assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=1e-9)


def test_the_bootstrap_spread_is_the_closed_form_of_the_mean(rng: np.random.Generator) -> None:
    scores = rng.normal(size=40)
    draws = stats._bootstrap_means(scores[None, None], 20_000, seed=0)[0]
    assert draws.mean() == pytest.approx(scores.mean(), abs=0.005)
    assert draws.std() == pytest.approx(scores.std() / math.sqrt(40), rel=0.03)


def test_subjects_are_resampled_jointly_so_opposite_subjects_cancel(rng: np.random.Generator) -> None:
    one = rng.normal(size=12)
    found = stats.bca(np.stack([one, -one])[None])
    assert (found.estimate[0], found.low[0], found.high[0]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_identical_subjects_give_the_interval_of_one_subject(rng: np.random.Generator) -> None:
    one = rng.normal(size=12)
    single, double = stats.bca(one[None, None]), stats.bca(np.stack([one, one])[None])
    assert double.low[0] == pytest.approx(single.low[0], abs=1e-12)
    assert double.high[0] == pytest.approx(single.high[0], abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, -0.3, 1e6])
def test_constant_scores_give_limits_equal_to_the_estimate(value: float) -> None:
    found = stats.bca(np.full((1, 3, 7), value))
    assert found.low[0] == found.high[0] == found.estimate[0]
    assert found.estimate[0] == pytest.approx(value)


def test_a_single_target_has_no_interval() -> None:
    found = stats.bca(np.array([[[0.7]]]))
    assert found.estimate[0] == 0.7
    assert np.isnan(found.low[0])
    assert np.isnan(found.high[0])


def test_a_target_that_one_subject_lacks_counts_for_the_others_only() -> None:
    scores = np.array([[[1.0, 3.0, np.nan], [2.0, 4.0, 6.0]]])
    assert stats.bca(scores).estimate[0] == pytest.approx((2.0 + 4.0) / 2)


def test_limits_do_not_depend_on_which_other_rows_are_computed_along(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(5, 2, 12))
    together, alone = stats.bca(scores), stats.bca(scores[3:4])
    assert together.low[3] == pytest.approx(alone.low[0], abs=1e-12)


def test_two_seeds_give_different_draws_and_one_seed_the_same(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(1, 1, 12))
    assert stats.bca(scores, seed=1).low[0] == stats.bca(scores, seed=1).low[0]
    assert stats.bca(scores, seed=1).low[0] != stats.bca(scores, seed=2).low[0]


@settings(max_examples=30, deadline=None)
@given(arrays(float, 8, elements=GAUSSIAN_LIKE, unique=True), st.floats(0.1, 5), st.floats(-2, 2))
def test_intervals_follow_a_change_of_scale(scores: np.ndarray, factor: float, shift: float) -> None:
    plain = stats.bca(scores[None, None], n_resamples=500)
    moved = stats.bca((factor * scores + shift)[None, None], n_resamples=500)
    assert moved.low[0] == pytest.approx(factor * plain.low[0] + shift, abs=1e-6)
    assert moved.high[0] == pytest.approx(factor * plain.high[0] + shift, abs=1e-6)


@pytest.mark.slow
def test_bca_covers_the_true_mean_about_as_often_as_promised(rng: np.random.Generator) -> None:
    samples = rng.exponential(size=(400, 1, 30))
    found = stats.bca(samples, n_resamples=2_000)
    covered = np.mean((found.low <= 1) & (found.high >= 1))
    assert 0.88 <= covered <= 0.98


def test_spearman_agrees_with_scipy_including_ties(rng: np.random.Generator) -> None:
    x, y = rng.integers(0, 5, 20), rng.integers(0, 5, 20)
    found = stats.spearman(x, y)
    assert found is not None
    assert found.rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


def test_four_models_in_perfect_order_have_an_exact_p_of_two_in_24() -> None:
    for y in ([1, 2, 3, 4], [4, 3, 2, 1]):
        found = stats.spearman([1, 2, 3, 4], y)
        assert found is not None
        assert found.exact
        assert found.p == pytest.approx(2 / 24)


def test_an_exact_spearman_p_is_the_share_of_all_permutations(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=6), rng.normal(size=6)
    found = stats.spearman(x, y)
    reached = [abs(scipy.stats.spearmanr(x, p).statistic) for p in itertools.permutations(y)]
    observed = abs(scipy.stats.spearmanr(x, y).statistic)
    assert found is not None
    assert found.p == pytest.approx(np.mean(np.array(reached) >= observed - 1e-12))


def test_more_than_eight_models_get_a_drawn_p_that_is_never_zero() -> None:
    found = stats.spearman(range(12), range(12))
    assert found is not None
    assert not found.exact
    assert found.p == pytest.approx(1 / 10_001)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])])
def test_a_rank_correlation_that_is_undefined_is_none(x: list[float], y: list[float]) -> None:
    assert stats.spearman(x, y) is None


def test_ranks_are_averaged_over_ties() -> None:
    assert stats.average_ranks([10, 20, 20, 5]).tolist() == [2, 3.5, 3.5, 1]


def test_all_arrangements_are_listed_once_with_the_identity_first() -> None:
    found = stats._arrangements(5)
    assert found[0].tolist() == [0, 1, 2, 3, 4]
    assert {tuple(row) for row in found.tolist()} == set(itertools.permutations(range(5)))


def test_two_way_quantiles_reproduce_the_worked_example() -> None:
    similarity = np.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.5], [0.3, 0.6, 0.3]])
    assert np.diag(stats.two_way_quantiles(similarity)).tolist() == [1, 1, 0]


def test_equal_similarities_earn_half_a_win() -> None:
    assert stats.two_way_quantiles(np.ones((4, 1))).ravel().tolist() == [0.5] * 4
    nearly = np.array([[0.5], [0.5 + 1e-10], [0.1]])
    assert stats.two_way_quantiles(nearly)[0, 0] == 0.75


def test_the_permutation_mean_of_two_way_identification_is_exactly_half(rng: np.random.Generator) -> None:
    quantiles = stats.two_way_quantiles(rng.normal(size=(6, 6)))
    order = stats._arrangements(6)
    assert quantiles.T[np.arange(6), order].mean() == pytest.approx(0.5, abs=1e-12)


def test_perfect_identification_of_six_targets_has_p_one_in_720() -> None:
    found = stats.label_permutation_test(
        np.eye(6) + 0.1 * np.arange(6)[:, None] * (1 - np.eye(6)), np.arange(6)
    )
    assert found.exact
    assert found.observed == pytest.approx(1)
    assert found.p == pytest.approx(1 / 720)


def test_samples_of_a_target_move_together_under_permutation(rng: np.random.Generator) -> None:
    similarity = rng.normal(size=(6, 6))
    once = stats.label_permutation_test(similarity, np.arange(6))
    ten = stats.label_permutation_test(np.repeat(similarity, 10, axis=1), np.repeat(np.arange(6), 10))
    assert ten.p == pytest.approx(once.p)
    assert ten.observed == pytest.approx(once.observed)


def test_the_null_spread_for_twelve_targets_is_the_closed_form(rng: np.random.Generator) -> None:
    scores = [np.trace(stats.two_way_quantiles(rng.normal(size=(12, 12)))) / 12 for _ in range(2_000)]
    assert np.std(scores) == pytest.approx(math.sqrt(13 / (12 * 12 * 11)), rel=0.06)


def test_twelve_targets_are_tested_by_drawn_permutations(rng: np.random.Generator) -> None:
    found = stats.label_permutation_test(rng.normal(size=(12, 12)) + 10 * np.eye(12), np.arange(12))
    assert not found.exact
    assert found.p == pytest.approx(1 / 10_001)


def test_a_paired_difference_is_positive_where_the_new_score_is_better() -> None:
    new, old = np.array([[0.3, 0.5]]), np.array([[0.2, 0.7]])
    assert stats.paired_differences(new, old)[0].tolist() == pytest.approx([0.1, -0.2])
    assert stats.paired_differences(new, old, lower_is_better=True)[0].tolist() == pytest.approx([-0.1, 0.2])
