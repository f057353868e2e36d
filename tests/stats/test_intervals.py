"""Intervals against closed forms, SciPy and naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nsdbench import stats
from nsdbench.stats import intervals

GAUSSIAN_LIKE = st.floats(-3, 3, allow_nan=False, width=32)
WITH_GAPS = arrays(
    float,
    array_shapes(min_dims=3, max_dims=3, max_side=5),
    elements=st.one_of(GAUSSIAN_LIKE, st.just(np.nan)),
)


def plain_level(n: int, level: float = 0.95) -> float:
    """Return the level at which BCa without small-sample correction has the limits of ours for ``n`` targets."""
    z = scipy.stats.t.ppf((1 + level) / 2, n - 1) * math.sqrt(n / (n - 1))
    return float(2 * scipy.stats.norm.cdf(z) - 1)


def test_subject_means_average_targets_first_and_skip_what_is_missing() -> None:
    scores = np.array([[[1.0, 3.0, np.nan], [2.0, 4.0, 6.0]], [[np.nan] * 3, [1.0, 1.0, 4.0]]])
    assert stats.subject_means(scores).tolist() == [(2.0 + 4.0) / 2, 2.0]


@pytest.mark.filterwarnings("error")
@given(WITH_GAPS)
def test_target_shares_sum_to_the_subject_mean(scores: np.ndarray) -> None:
    means = stats.subject_means(scores)
    assert stats.target_shares(scores).sum(axis=1) == pytest.approx(np.nan_to_num(means), abs=1e-12)
    assert np.isnan(means).tolist() == np.isnan(scores).all(axis=(1, 2)).tolist()


def test_bca_limits_are_those_of_scipy_at_the_corrected_level(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = rng.lognormal(size=12)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, method="BCa", n_resamples=5_000, rng=rng, confidence_level=plain_level(12)
    )
    monkeypatch.setattr(intervals, "bootstrap_means", lambda *_, **__: theirs.bootstrap_distribution[None])
    ours = stats.bca(scores[None, None])
    assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=1e-9)
    assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=1e-9)


def test_with_thousands_of_targets_the_correction_vanishes(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = rng.exponential(size=5_000)
    theirs = scipy.stats.bootstrap((scores,), np.mean, method="BCa", n_resamples=1_000, rng=rng, batch=100)
    monkeypatch.setattr(intervals, "bootstrap_means", lambda *_, **__: theirs.bootstrap_distribution[None])
    ours = stats.bca(scores[None, None])
    limits = theirs.confidence_interval
    assert (ours.low[0], ours.high[0]) == pytest.approx(limits, abs=0.01 * (limits.high - limits.low))


def test_symmetric_scores_get_the_interval_of_student(rng: np.random.Generator) -> None:
    half = rng.normal(size=20)
    scores = np.concatenate([half, -half])
    expected = scipy.stats.t.ppf(0.975, 39) * scores.std(ddof=1) / math.sqrt(40)
    found = stats.bca(scores[None, None], n_resamples=40_000)
    assert (found.low[0], found.high[0]) == pytest.approx((-expected, expected), rel=0.03)


def test_a_one_sided_bound_is_a_limit_at_twice_the_error(rng: np.random.Generator) -> None:
    half = rng.normal(size=20)
    scores = np.concatenate([half, -half])
    expected = scipy.stats.t.ppf(0.95, 39) * scores.std(ddof=1) / math.sqrt(40)
    assert stats.bca(scores[None, None], level=0.9).high[0] == pytest.approx(expected, rel=0.04)


def test_the_bootstrap_spread_is_the_closed_form_of_the_mean(rng: np.random.Generator) -> None:
    scores = rng.normal(size=40)
    draws = stats.bootstrap_means(scores[None, None], n_resamples=20_000)[0]
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
    scores = np.full((1, 3, 7), value)
    for found in (stats.bca(scores), stats.pigeonhole(scores, n_resamples=100)):
        assert found.estimate[0] == pytest.approx(value)
        assert (found.low[0], found.high[0]) == pytest.approx((found.estimate[0],) * 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scores", [[[0.7]], [[np.nan, 0.7, np.nan]], [[np.nan, np.nan]], [[np.nan]]])
def test_fewer_than_two_targets_with_a_score_have_no_interval(scores: list[list[float]]) -> None:
    found = stats.bca(np.array([scores]))
    assert found.estimate[0] == pytest.approx(np.nan if np.isnan(scores).all() else 0.7, nan_ok=True)
    assert np.isnan([found.low[0], found.high[0]]).all()


def test_two_targets_give_finite_limits_within_them() -> None:
    found = stats.bca(np.array([[[0.2, 0.8]]]))
    assert 0.2 <= found.low[0] < 0.5 < found.high[0] <= 0.8


@pytest.mark.filterwarnings("error")
def test_targets_that_nobody_has_hardly_widen_the_interval(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(1, 2, 12))
    padded = np.concatenate([scores, np.full((1, 2, 5), np.nan)], axis=2)
    plain, wider = (stats.bca(one, n_resamples=40_000) for one in (scores, padded))
    assert wider.estimate[0] == pytest.approx(plain.estimate[0])
    width = plain.high[0] - plain.low[0]
    assert (wider.low[0], wider.high[0]) == pytest.approx((plain.low[0], plain.high[0]), abs=0.08 * width)


@pytest.mark.filterwarnings("error")
def test_few_scores_among_many_gaps_still_have_an_interval() -> None:
    scores = np.full((1, 1, 6), np.nan)
    scores[0, 0, :3] = [0.2, 0.5, 0.9]  # one resample in 64 draws gaps only
    found = stats.bca(scores)
    assert 0.2 <= found.low[0] < found.estimate[0] < found.high[0] <= 0.9


def test_limits_do_not_depend_on_which_other_rows_are_computed_along(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(5, 3, 12))
    for method in (stats.bca, stats.pigeonhole):
        together, alone = method(scores), method(scores[3:4])
        assert together.low[3] == pytest.approx(alone.low[0], abs=1e-12)


def test_two_seeds_give_different_draws_and_one_seed_the_same(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(1, 3, 12))
    for method in (stats.bca, stats.pigeonhole):
        assert method(scores, seed=1).low[0] == method(scores, seed=1).low[0]
        assert method(scores, seed=1).low[0] != method(scores, seed=2).low[0]


@settings(max_examples=30, deadline=None)
@given(arrays(float, 8, elements=GAUSSIAN_LIKE, unique=True), st.floats(0.1, 5), st.floats(-2, 2))
def test_intervals_follow_a_change_of_scale(scores: np.ndarray, factor: float, shift: float) -> None:
    plain = stats.bca(scores[None, None], n_resamples=500)
    moved = stats.bca((factor * scores + shift)[None, None], n_resamples=500)
    assert moved.low[0] == pytest.approx(factor * plain.low[0] + shift, abs=1e-6)
    assert moved.high[0] == pytest.approx(factor * plain.high[0] + shift, abs=1e-6)


def test_a_ratio_has_the_interval_of_scipy_at_the_corrected_level(rng: np.random.Generator) -> None:
    below = rng.normal(2, 0.5, size=30)
    above = 0.6 * below + rng.exponential(0.3, size=30)
    theirs = scipy.stats.bootstrap(
        (above, below),
        lambda a, b, axis=-1: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        method="BCa",
        n_resamples=20_000,
        confidence_level=plain_level(30),
        rng=rng,
    )
    ours = stats.bca_ratio(above[None, None], below[None, None], n_resamples=20_000)
    assert ours.estimate[0] == above.mean() / below.mean()
    limits = theirs.confidence_interval
    assert (ours.low[0], ours.high[0]) == pytest.approx(limits, abs=0.08 * theirs.standard_error)


def test_proportional_scores_have_a_certain_ratio(rng: np.random.Generator) -> None:
    scores = rng.uniform(0.2, 1, size=(1, 4, 12))
    found = stats.bca_ratio(0.4 * scores, scores)
    assert (found.estimate[0], found.low[0], found.high[0]) == pytest.approx((0.4, 0.4, 0.4))


@pytest.mark.filterwarnings("error")
def test_a_ratio_to_nothing_has_no_interval(rng: np.random.Generator) -> None:
    found = stats.bca_ratio(rng.normal(size=(1, 1, 12)), np.zeros((1, 1, 12)))
    assert np.isnan([found.low[0], found.high[0]]).all()


def effects(scores: np.ndarray) -> tuple[float, float, float]:
    """Return the sums of squares of subjects, of targets and of their interaction, as cell effects."""
    grand = scores.mean()
    subject, target = scores.mean(axis=1) - grand, scores.mean(axis=0) - grand
    rest = scores - grand - subject[:, None] - target
    return (subject**2).sum(), (target**2).sum(), (rest**2).sum()


def test_pigeonhole_variances_are_the_closed_form_of_balanced_data(rng: np.random.Generator) -> None:
    s, t = 4, 12
    scores = rng.normal(size=(s, 1)) + rng.normal(size=t) + rng.normal(size=(s, t))
    subject, target, rest = effects(scores)
    expected = (subject / s**2, target / t**2, rest / (s * t) ** 2)
    found = intervals._pigeonhole_variances(scores[None], 40_000, seed=0)
    assert [float(one[0]) for one in found] == pytest.approx(expected, rel=0.03)


def test_pigeonhole_variances_are_those_of_a_naive_loop_where_scores_are_missing(
    rng: np.random.Generator,
) -> None:
    scores = rng.normal(size=(4, 6)) + rng.normal(size=(4, 1))
    scores[0, 2:] = np.nan
    scores[2, 0] = np.nan
    draws = []
    for _ in range(8_000):
        people, targets = rng.integers(4, size=4), rng.integers(6, size=6)
        means = [
            [np.nanmean(scores[p][chosen]) for p in group if not np.isnan(scores[p][chosen]).all()]
            for group, chosen in ((people, np.arange(6)), (np.arange(4), targets), (people, targets))
        ]
        of_subjects, of_targets, both = (np.mean(one) if one else np.nan for one in means)
        draws.append([of_subjects, of_targets, both - of_subjects - of_targets])
    found = intervals._pigeonhole_variances(scores[None], 40_000, seed=0)
    assert [float(one[0]) for one in found] == pytest.approx(np.nanvar(draws, axis=0), rel=0.06)


def test_limits_for_new_subjects_are_those_of_the_analysis_of_variance(rng: np.random.Generator) -> None:
    s, t = 4, 12
    scores = 2 * rng.normal(size=(s, 1)) + 2 * rng.normal(size=t) + rng.normal(size=(s, t))
    subject, target, rest = effects(scores)
    a, b = subject / (s * (s - 1)), target / (t * (t - 1))
    variance = a + b - rest / (s * (s - 1) * t * (t - 1))
    of_subjects, of_targets = scipy.stats.t.ppf(0.975, [s - 1, t - 1])
    half = (a * of_subjects + b * of_targets) / (a + b) * math.sqrt(variance)
    found = stats.pigeonhole(scores[None], n_resamples=40_000)
    assert found.estimate[0] == pytest.approx(scores.mean())
    assert (found.high[0] - found.low[0]) / 2 == pytest.approx(half, rel=0.02)


def test_subjects_alike_on_all_targets_get_the_interval_of_student_over_subjects(
    rng: np.random.Generator,
) -> None:
    people = rng.normal(size=5)
    found = stats.pigeonhole(np.tile(people[:, None], (1, 1, 30)), n_resamples=40_000)
    half = scipy.stats.t.ppf(0.975, 4) * people.std(ddof=1) / math.sqrt(5)
    assert (found.low[0], found.high[0]) == pytest.approx(
        (people.mean() - half, people.mean() + half), rel=0.03
    )


def test_an_interval_for_new_subjects_needs_three_of_them(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(2, 4, 12))
    scores[1, 2:] = np.nan  # two subjects have scores
    assert np.isnan(stats.pigeonhole(scores, n_resamples=200).low).tolist() == [False, True]
    assert np.isnan(stats.pigeonhole(scores[:, :2], n_resamples=200).low).all()


@pytest.mark.filterwarnings("error")
def test_an_interval_for_new_subjects_needs_two_targets(rng: np.random.Generator) -> None:
    scores = np.full((1, 4, 3), np.nan)
    scores[0, :, 1] = rng.normal(size=4)
    assert np.isnan(stats.pigeonhole(scores, n_resamples=200).low).all()
    assert np.isnan(stats.pigeonhole(scores * np.nan, n_resamples=200).estimate).all()
