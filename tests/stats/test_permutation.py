"""Permutation tests against brute force over itertools and hand-computed cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nsdbench import stats
from nsdbench.stats import Arranged


def two_way_tables(rng: np.random.Generator, n_metrics: int, n: int) -> np.ndarray:
    """Return tables of two-way scores without information."""
    return np.stack([stats.two_way_quantiles(rng.normal(size=(n, n))).T for _ in range(n_metrics)])


def test_two_way_quantiles_reproduce_the_worked_example() -> None:
    similarity = np.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.5], [0.3, 0.6, 0.3]])
    assert np.diag(stats.two_way_quantiles(similarity)).tolist() == [1, 1, 0]


def test_two_way_quantiles_are_those_of_a_loop_over_distractors(rng: np.random.Generator) -> None:
    similarity = rng.integers(0, 4, size=(6, 9)).astype(float)
    expected = np.empty_like(similarity)
    for i, j in itertools.product(range(6), range(9)):
        others = np.delete(similarity[:, j], i)
        expected[i, j] = np.mean((others < similarity[i, j]) + 0.5 * (others == similarity[i, j]))
    assert stats.two_way_quantiles(similarity) == pytest.approx(expected)


def test_equal_similarities_earn_half_a_win() -> None:
    assert stats.two_way_quantiles(np.ones((4, 1))).ravel().tolist() == [0.5] * 4
    nearly = np.array([[0.5], [0.5 + 1e-10], [0.1]])
    assert stats.two_way_quantiles(nearly)[0, 0] == 0.75


@pytest.mark.filterwarnings("error")
def test_a_single_target_cannot_be_identified() -> None:
    assert np.isnan(stats.two_way_quantiles(np.array([[0.3, 0.4]]))).all()


def test_all_permutations_of_labels_give_the_draws_of_brute_force(rng: np.random.Generator) -> None:
    tables = rng.normal(size=(3, 5, 5))
    found = stats.label_permutations(tables)
    expected = np.array(
        [
            [np.mean([table[t, order[t]] for t in range(5)]) for order in itertools.permutations(range(5))]
            for table in tables
        ]
    )
    assert found.exact
    assert found.observed == pytest.approx(expected[:, 0])
    assert np.sort(found.draws) == pytest.approx(np.sort(expected))
    assert found.p() == pytest.approx(np.mean(expected >= expected[:, :1] - 1e-12, axis=1))


def test_all_metrics_are_permuted_alike(rng: np.random.Generator) -> None:
    table = rng.normal(size=(12, 12))
    found = stats.label_permutations(np.stack([table, 2 * table + 1]), n_draws=50)
    assert found.draws[1] == pytest.approx(2 * found.draws[0] + 1)


def test_within_groups_labels_are_drawn_from_the_permutations_of_the_groups(rng: np.random.Generator) -> None:
    table = rng.normal(size=(5, 5))
    found = stats.label_permutations(table[None], [[0, 3, 4], [1, 2]], n_draws=12_000, listed=False)
    expected = [
        (sum(table[t, i] for t, i in zip((0, 3, 4, 1, 2), (*first, *second), strict=True))) / 5
        for first in itertools.permutations((0, 3, 4))
        for second in itertools.permutations((1, 2))
    ]
    values, counts = np.unique(found.draws.round(9), return_counts=True)
    assert not found.exact
    assert found.observed[0] == pytest.approx(np.trace(table) / 5)
    assert values == pytest.approx(np.sort(expected))
    assert counts == pytest.approx(1_000, rel=0.15)
    every = stats.label_permutations(table[None], [[0, 3, 4], [1, 2]])
    assert every.exact
    assert np.sort(every.draws[0]) == pytest.approx(np.sort(expected))


def test_the_permutation_mean_of_two_way_identification_is_exactly_half(rng: np.random.Generator) -> None:
    found = stats.label_permutations(two_way_tables(rng, 4, 6))
    assert found.draws.mean(axis=1) == pytest.approx(0.5, abs=1e-12)


def test_perfect_identification_of_six_targets_has_p_one_in_720() -> None:
    similarity = np.eye(6) + 0.1 * np.arange(6)[:, None] * (1 - np.eye(6))
    found = stats.label_permutations(stats.two_way_quantiles(similarity).T[None])
    assert found.observed[0] == pytest.approx(1)
    assert found.p()[0] == pytest.approx(1 / math.factorial(6))


def test_a_decoder_that_always_draws_the_same_image_has_p_one(rng: np.random.Generator) -> None:
    similarity = np.repeat(rng.normal(size=(6, 1)), 6, axis=1)
    found = stats.label_permutations(stats.two_way_quantiles(similarity).T[None])
    assert found.observed[0] == pytest.approx(0.5)
    assert found.p()[0] == 1
    assert found.p_family()[0] == 1


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_targets_are_tested_exactly(n: int) -> None:
    found = stats.label_permutations(np.eye(n)[None])
    assert found.exact
    assert found.p()[0] == 1 / n


def test_an_undefined_score_is_never_significant(rng: np.random.Generator) -> None:
    tables = rng.normal(size=(2, 5, 5))
    tables[0, 2, 2] = np.nan
    found = stats.label_permutations(tables)
    assert found.p()[0] == 1
    assert found.p_family()[0] == 1
    assert found.p_family()[1] == pytest.approx(found.p()[1])


def test_the_null_spread_for_twelve_targets_is_the_closed_form(rng: np.random.Generator) -> None:
    scores = [np.trace(stats.two_way_quantiles(rng.normal(size=(12, 12)))) / 12 for _ in range(2_000)]
    assert np.std(scores) == pytest.approx(math.sqrt(13 / (12 * 12 * 11)), rel=0.06)


def test_twelve_targets_are_tested_by_drawn_permutations(rng: np.random.Generator) -> None:
    found = stats.label_permutations((rng.normal(size=(12, 12)) + 10 * np.eye(12))[None])
    assert not found.exact
    assert found.p()[0] == pytest.approx(1 / 10_001)


def test_subjects_are_permuted_independently(rng: np.random.Generator) -> None:
    table = rng.normal(size=(1, 12, 12))
    parts = [stats.label_permutations(table, n_draws=4_000, subject=s) for s in (1, 2)]
    assert abs(np.corrcoef(parts[0].draws[0], parts[1].draws[0])[0, 1]) < 0.06


def test_a_mean_over_subjects_is_taken_draw_by_draw() -> None:
    parts = [
        Arranged(np.array([0.6]), np.array([[0.1, 0.5]]), exact=True),
        Arranged(np.array([0.8]), np.array([[0.3, 0.2]]), exact=True),
    ]
    found = stats.subject_mean(parts)
    assert found.observed == pytest.approx([0.7])
    assert found.draws == pytest.approx(np.array([[0.2, 0.35]]))
    assert not found.exact  # pairs of draws are not all pairs
    assert stats.subject_mean(parts[:1]) is parts[0]


def test_the_mean_of_four_subjects_has_half_the_null_spread_of_one(rng: np.random.Generator) -> None:
    parts = [stats.label_permutations(two_way_tables(rng, 1, 12), subject=s) for s in range(4)]
    expected = np.sqrt(np.mean([p.draws.var() for p in parts])) / 2
    assert stats.subject_mean(parts).draws.std() == pytest.approx(expected, rel=0.03)


def test_family_wise_p_values_are_those_of_the_brute_force_maximum(rng: np.random.Generator) -> None:
    tables = rng.normal(size=(3, 5, 5)) * np.array([1, 5, 0.2])[:, None, None] + 0.5 * np.eye(5)
    orders = list(itertools.permutations(range(5)))
    means = np.array([[np.mean(table[np.arange(5), list(order)]) for order in orders] for table in tables])
    z = (means - means.mean(axis=1, keepdims=True)) / means.std(axis=1, keepdims=True)
    expected = [np.mean(z.max(axis=0) >= one - 1e-12) for one in z[:, 0]]
    assert stats.label_permutations(tables).p_family() == pytest.approx(expected)
    two_sided = [np.mean(np.abs(z).max(axis=0) >= abs(one) - 1e-12) for one in z[:, 0]]
    assert stats.label_permutations(tables).p_family(two_sided=True) == pytest.approx(two_sided)


@given(arrays(float, 8, elements=st.integers(0, 9).map(float)), st.integers(0, 999))
def test_family_wise_p_values_lie_between_the_single_ones_and_bonferroni(
    values: np.ndarray, seed: int
) -> None:
    rows = np.random.default_rng(seed).permuted(np.tile(values, (4, 1)), axis=1)
    found = Arranged(rows[:, 0], rows, exact=True)  # rows of one distribution, so that Bonferroni is exact
    assert (found.p_family() >= found.p() - 1e-12).all()
    if np.ptp(values):
        assert (found.p_family() <= 4 * found.p() + 1e-12).all()


def test_identical_metrics_need_no_correction(rng: np.random.Generator) -> None:
    table = rng.normal(size=(6, 6)) + 0.3 * np.eye(6)
    found = stats.label_permutations(np.stack([table] * 8))
    assert found.p_family() == pytest.approx(found.p())


def parts_of(observed: list[float], draws: list[list[float]]) -> list[Arranged]:
    """Return one metric of several subjects."""
    return [Arranged(np.array([o]), np.array([d]), exact=False) for o, d in zip(observed, draws, strict=True)]


def test_prevalence_reproduces_a_hand_computed_case() -> None:
    # the minima over the subjects are .4, .5, .3 and 96 times 0; the observed one, .7, is never reached
    draws = [[0.4, 0.5, 0.9] + [0.0] * 96, [0.6, 0.5, 0.3] + [0.9] * 96]
    found = stats.prevalence(parts_of([0.8, 0.7], draws))[0]
    assert found.p_global == pytest.approx(1 / 100)
    # largest g with ((1 - g) .01^(1/2) + g)^2 <= .05: g = (.05^(1/2) - .1) / .9
    assert found.bound == pytest.approx((math.sqrt(0.05) - 0.1) / 0.9)
    assert found.highest == found.bound
    assert found.n_subjects == 2


def test_the_prevalence_bound_is_where_the_p_of_allefeld_reaches_the_level(rng: np.random.Generator) -> None:
    draws = rng.uniform(0.3, 0.7, size=(4, 199)).tolist()
    found = stats.prevalence(parts_of([0.6, 0.58, 0.66, 0.55], draws))[0]
    assert found.bound is not None
    root = found.p_global**0.25
    assert ((1 - found.bound) * root + found.bound) ** 4 == pytest.approx(0.05)
    assert found.bound < found.highest == pytest.approx((0.05**0.25 - 0.005**0.25) / (1 - 0.005**0.25))


def test_without_a_global_effect_there_is_no_prevalence_bound() -> None:
    found = stats.prevalence(parts_of([0.9, 0.5], [[0.5] * 19 + [0.4] * 20] * 2))[0]
    assert found.p_global == pytest.approx(0.5)
    assert found.bound is None


def test_better_subjects_never_lower_the_prevalence(rng: np.random.Generator) -> None:
    draws = rng.normal(size=(3, 999)).tolist()
    found = [stats.prevalence(parts_of([x, 2.0, 3.0], draws))[0] for x in np.linspace(-2, 3, 20)]
    ps = [one.p_global for one in found]
    bounds = [-1 if one.bound is None else one.bound for one in found]
    assert ps == sorted(ps, reverse=True)
    assert bounds == sorted(bounds)


def test_sign_flips_are_those_of_brute_force_over_incomplete_subjects(rng: np.random.Generator) -> None:
    differences = rng.normal(size=(2, 3, 6)) + 0.3
    differences[0, 1, 2:] = np.nan  # this subject has two targets, each of which weighs more
    differences[:, 0, 4] = np.nan
    found = stats.sign_flips(differences)
    flipped = np.array(
        [
            [np.mean([np.nanmean(one * signs) for one in row]) for row in differences]
            for signs in itertools.product((1, -1), repeat=6)
        ]
    ).T
    assert found.exact
    assert found.observed == pytest.approx(flipped[:, 0])
    assert np.sort(found.draws) == pytest.approx(np.sort(flipped))
    assert found.p() == pytest.approx(np.mean(flipped >= flipped[:, :1] - 1e-12, axis=1))
    reached = np.abs(flipped) >= np.abs(flipped[:, :1]) - 1e-12
    assert found.p_two_sided() == pytest.approx(reached.mean(axis=1))


def test_which_of_two_models_comes_first_does_not_change_a_two_sided_p(rng: np.random.Generator) -> None:
    differences = rng.normal(size=(3, 2, 12))
    there, back = stats.sign_flips(differences), stats.sign_flips(-differences)
    assert there.p_two_sided() == pytest.approx(back.p_two_sided())
    assert there.p_family(two_sided=True) == pytest.approx(back.p_family(two_sided=True))


def test_a_model_that_wins_on_all_twelve_targets_reaches_the_smallest_p() -> None:
    found = stats.sign_flips(np.linspace(0.1, 0.2, 12)[None, None])
    assert found.p()[0] == 2.0**-12
    assert found.p_two_sided()[0] == 2.0**-11


def test_copies_of_a_subject_add_no_evidence(rng: np.random.Generator) -> None:
    one = rng.normal(0.3, 1, size=(1, 1, 12))
    four = np.repeat(one, 4, axis=1)
    assert stats.sign_flips(four).p() == pytest.approx(stats.sign_flips(one).p())


def test_many_targets_are_tested_by_drawn_signs(rng: np.random.Generator) -> None:
    found = stats.sign_flips(rng.normal(1, 1, size=(1, 4, 100)))
    assert not found.exact
    assert found.p()[0] == pytest.approx(1 / 10_001)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_no_difference_at_all_has_p_one(value: float) -> None:
    found = stats.sign_flips(np.full((1, 4, 12), value))
    assert found.p()[0] == found.p_two_sided()[0] == found.p_family(two_sided=True)[0] == 1


def test_a_paired_difference_is_positive_where_the_new_score_is_better() -> None:
    new, old = np.array([[0.3, 0.5]]), np.array([[0.2, 0.7]])
    assert stats.paired_differences(new, old)[0].tolist() == pytest.approx([0.1, -0.2])
    assert stats.paired_differences(new, old, lower_is_better=True)[0].tolist() == pytest.approx([-0.1, 0.2])


@pytest.mark.filterwarnings("error")
def test_superiority_counts_wins_and_half_of_the_ties() -> None:
    differences = np.array([[[0.1, -0.2, 1e-12, np.nan], [0.3, 0.4, np.nan, 0.5]], np.full((2, 4), np.nan)])
    found = stats.superiority(differences)
    assert found[0] == pytest.approx((4 + 0.5) / 6)
    assert np.isnan(found[1])
