"""Rank agreement, corrections and tie letters against SciPy, hand-computed cases and their defining properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nsdbench import stats

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=9)


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


@pytest.mark.parametrize("ties", [False, True])
def test_an_exact_spearman_p_is_the_share_of_all_permutations(rng: np.random.Generator, ties: bool) -> None:
    x, y = rng.normal(size=(2, 6)).round(0 if ties else 9)
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


def test_unequal_numbers_of_models_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 and 4"):
        stats.spearman([1, 2, 3], [1, 2, 3, 4])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_ranks_are_those_of_scipy(values: list[int]) -> None:
    assert stats.average_ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


def test_ranks_within_columns_are_those_of_scipy(rng: np.random.Generator) -> None:
    values = rng.normal(size=(6, 40)).round(0)
    assert np.array_equal(stats.column_ranks(values), scipy.stats.rankdata(values, axis=0))


def test_models_far_apart_have_a_certain_order(rng: np.random.Generator) -> None:
    scores = np.arange(5)[:, None] + rng.uniform(0, 0.1, size=(5, 200))
    assert stats.spearman_interval(scores, 2 * scores) == pytest.approx((1, 1))
    assert stats.spearman_interval(scores, -scores) == pytest.approx((-1, -1))


def test_the_rank_interval_holds_the_quantiles_of_the_correlations_of_scipy(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 5, 300)).round(1) + np.arange(5)[:, None]
    each = [scipy.stats.spearmanr(x[:, b], y[:, b]).statistic for b in range(300)]
    found = stats.spearman_interval(x, y, level=0.9)
    assert found == pytest.approx(tuple(np.quantile(each, [0.05, 0.95])))


@pytest.mark.filterwarnings("error")
def test_a_side_without_order_has_no_rank_interval(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 100))
    assert stats.spearman_interval(x, np.ones((4, 100))) is None
    mostly = np.where(np.arange(100) < 60, 1.0, x)
    assert stats.spearman_interval(x, mostly) is None


def test_holm_reproduces_a_hand_computed_case() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES, st.floats(0.001, 0.999))
def test_holm_refuses_what_stepping_down_refuses(p: list[float], alpha: float) -> None:
    refused = set()
    for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[index] * (len(p) - step) > alpha:
            break
        refused.add(index)
    assert {i for i, adjusted in enumerate(stats.holm(p)) if adjusted <= alpha} == refused


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_raises_p_values_keeps_their_order_and_ignores_how_they_are_listed(
    p: list[float], random: object
) -> None:
    found = stats.holm(p)
    assert (found >= p).all()
    assert (found <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert (np.diff(found[np.argsort(p)]) >= 0).all()
    order = np.random.default_rng(len(p)).permutation(len(p))
    assert stats.holm(np.array(p)[order]) == pytest.approx(found[order])


def test_a_family_of_none_or_one_needs_no_correction() -> None:
    assert stats.holm([]).tolist() == []
    assert stats.holm([0.04]).tolist() == [0.04]


@st.composite
def differences(draw: st.DrawFn) -> np.ndarray:
    """Return a symmetric relation of two to seven models."""
    n = draw(st.integers(1, 7))
    upper = np.triu(np.array(draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n))).reshape(n, n), 1)
    return upper | upper.T


@given(differences())
def test_two_models_share_a_letter_exactly_if_they_do_not_differ(differ: np.ndarray) -> None:
    letters = stats.tie_letters(differ)
    assert letters[0].startswith("a")
    for i, j in itertools.combinations(range(len(differ)), 2):
        assert bool(set(letters[i]) & set(letters[j])) == (not differ[i, j])


@given(differences())
def test_every_letter_stands_for_a_largest_possible_group_and_none_is_left_out(differ: np.ndarray) -> None:
    letters = stats.tie_letters(differ)
    groups = {frozenset(i for i, own in enumerate(letters) if one in own) for one in set("".join(letters))}
    models = range(len(differ))
    alike = [
        frozenset(group)
        for size in range(1, len(differ) + 1)
        for group in itertools.combinations(models, size)
        if not any(differ[i, j] for i, j in itertools.combinations(group, 2))
    ]
    assert groups == {group for group in alike if not any(group < other for other in alike)}


def test_letters_follow_the_order_of_the_models() -> None:
    differ = np.zeros((4, 4), bool)
    differ[0, 2] = differ[2, 0] = differ[0, 3] = differ[3, 0] = differ[1, 3] = differ[3, 1] = True
    assert stats.tie_letters(differ) == ["a", "ab", "bc", "c"]


def test_no_models_have_no_letters() -> None:
    assert stats.tie_letters(np.zeros((0, 0), bool)) == []
