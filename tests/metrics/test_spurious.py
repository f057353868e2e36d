"""Categories, retrieval and collapse, on cases whose numbers can be derived by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsdbench.metrics import spurious
from nsdbench.metrics.identification import two_way, two_way_within


def groups_of(*sizes: int) -> tuple[np.ndarray, ...]:
    """Rows 0, 1, 2, ... dealt out to groups of the given sizes."""
    ends = np.cumsum(sizes)
    return tuple(np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True))


# clusters


@pytest.mark.parametrize(("n", "k"), [(1000, 40), (982, 39), (515, 21), (100, 4), (12, 2)])
def test_forty_clusters_for_a_thousand_images_and_in_proportion_for_fewer(n: int, k: int) -> None:
    assert spurious.n_clusters(n) == k


def test_images_that_correlate_share_a_cluster_whatever_their_scale_and_offset(
    rng: np.random.Generator,
) -> None:
    prototypes = rng.standard_normal((3, 50))
    label = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    features = prototypes[label] + 0.1 * rng.standard_normal((9, 50))
    features = (features * rng.uniform(0.1, 10, (9, 1)) + rng.uniform(-5, 5, (9, 1))).astype(np.float32)
    found = spurious.clusters(features, 3)
    assert [rows.tolist() for rows in found] == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]


def test_clusters_are_the_same_every_time(rng: np.random.Generator) -> None:
    features = rng.standard_normal((60, 8)).astype(np.float32)
    once, again = (spurious.clusters(features, 5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert sorted(np.concatenate(once).tolist()) == list(range(60))


# two-way identification inside and outside of groups


def test_distractors_of_other_groups_do_not_count_within() -> None:
    r = np.array([[0.5], [0.1], [0.9], [0.8]])  # the target loses to rows 2 and 3 only
    assert two_way_within(r, np.array([0]), groups_of(2, 2)).tolist() == [1.0]
    assert two_way_within(r, np.array([0]), groups_of(1, 3)).tolist() == pytest.approx([np.nan], nan_ok=True)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_wins_within_and_between_groups_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = groups_of(*rng.integers(1, 6, size=3))
    n = sum(map(len, groups))
    r, target = rng.integers(0, 4, (n, 7)).astype(np.float64), rng.integers(0, n, 7)
    every, within = two_way(r, target), two_way_within(r, target, groups)
    size = spurious.group_sizes(n, groups)[target]
    between = spurious.two_way_between(every, within, size, n)
    for column, row in enumerate(target):
        others = np.concatenate([rows for rows in groups if row not in rows])
        beaten = np.sign(r[row, column] - r[others, column])
        assert between[column] == pytest.approx(np.mean((beaten + 1) / 2))


def test_knowing_only_the_set_scores_773_among_the_twelve_targets() -> None:
    floors = spurious.category_two_way(np.full(12, 6), 12)
    assert floors == pytest.approx(np.full(12, (6 + 2.5) / 11))
    assert floors.mean() == pytest.approx(0.773, abs=5e-4)


@pytest.mark.parametrize("sizes", [(6, 6), (5, 3, 1), (2, 2, 2, 2), (9,)])
def test_the_floor_of_a_category_is_what_a_decoder_of_categories_scores(sizes: tuple[int, ...]) -> None:
    groups = groups_of(*sizes)
    n = sum(sizes)
    label = np.repeat(np.arange(len(sizes)), sizes)
    r = (label[:, None] == label).astype(np.float64)  # alike within a category, unlike across
    expected = spurious.category_two_way(spurious.group_sizes(n, groups), n)
    assert two_way(r, np.arange(n)) == pytest.approx(expected)


def test_ten_categories_without_error_give_95_percent() -> None:
    assert spurious.equal_categories_two_way(10) == pytest.approx(0.95)
    assert spurious.equal_categories_two_way(4, 0.5) == pytest.approx(0.5)


def test_the_floor_of_a_large_pool_is_that_of_equal_categories() -> None:
    n, k = 1_000_000, 8
    assert spurious.category_two_way(np.array([n // k]), n, 0.9)[0] == pytest.approx(
        spurious.equal_categories_two_way(k, 0.9), abs=1e-6
    )


# training images


def test_a_target_is_ranked_among_the_training_images() -> None:
    r = np.array([[0.5, 0.1], [0.9, 0.5]])  # two ground truths, two reconstructions
    train = np.array([[0.4, 0.5], [0.6, 0.2], [0.1, np.nan], [0.5, -0.3]])
    found = spurious.against_training(r, np.array([0, 1]), train)
    assert found.nearest.tolist() == [1, 0]
    assert found.beaten.tolist() == [2.5 / 4, 3.5 / 4]  # a tie counts half; NaN is 0
    assert found.mismatched.tolist() == [1.0, 2 / 4]
    assert found.first.tolist() == [0.0, 0.0]  # a tie is not first


def test_a_target_nearer_than_every_training_image_is_first() -> None:
    found = spurious.against_training(np.array([[0.7]]), np.array([0]), np.array([[0.6], [0.2]]))
    assert found.first.tolist() == [1.0] and found.beaten.tolist() == [1.0]
    assert np.isnan(found.mismatched).all()


def test_a_target_like_any_training_image_is_first_once_in_n_plus_one(rng: np.random.Generator) -> None:
    values = rng.standard_normal(9)  # every value is the target once, the others are training images
    first, beaten = [], []
    for i in range(9):
        found = spurious.against_training(
            values[i : i + 1, None], np.array([0]), np.delete(values, i)[:, None]
        )
        first.append(found.first[0])
        beaten.append(found.beaten[0])
    assert np.mean(first) == pytest.approx(1 / 9)
    assert np.mean(beaten) == pytest.approx(0.5)


def test_one_picture_for_all_targets_is_no_nearer_to_right_ones_than_to_wrong_ones(
    rng: np.random.Generator,
) -> None:
    r = np.repeat(rng.standard_normal((12, 1)) + 3, 12, axis=1)  # targets in general unlike training images
    train = np.repeat(rng.standard_normal((40, 1)), 12, axis=1)
    found = spurious.against_training(r, np.arange(12), train)
    assert found.beaten.mean() > 0.9
    assert found.beaten.mean() == pytest.approx(found.mismatched.mean())


# effective dimensions


def dimensions(features: np.ndarray) -> float:
    return spurious.participation_ratio(spurious.centred_gram(features.astype(np.float32)))


def test_points_on_a_line_have_one_dimension() -> None:
    assert dimensions(np.outer([-3, 0, 1, 7], [1, 2, -1])) == pytest.approx(1)


def test_a_simplex_has_as_many_dimensions_as_it_can() -> None:
    assert dimensions(np.eye(7)) == pytest.approx(6)


def test_two_orthogonal_variances_give_the_closed_form() -> None:
    a, b = 3.0, 1.0
    points = np.array([[a, 0], [-a, 0], [0, b], [0, -b]])
    assert dimensions(points) == pytest.approx((a**2 + b**2) ** 2 / (a**4 + b**4))


def test_dimensions_do_not_depend_on_rotation_scale_and_offset(rng: np.random.Generator) -> None:
    points = rng.standard_normal((10, 6)) * [5, 3, 2, 1, 1, 0.5]
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert dimensions(points @ rotation * 4 + 2) == pytest.approx(dimensions(points), rel=1e-4)


def test_equal_vectors_have_no_dimension_even_after_rounding(rng: np.random.Generator) -> None:
    vector = rng.standard_normal(50).astype(np.float32)
    rounded = np.tile(vector, (6, 1)) * (1 + 1e-7 * rng.standard_normal((6, 50)).astype(np.float32))
    assert dimensions(rounded) == 0
    assert spurious.participation_without_each(np.zeros((6, 6))).tolist() == [0.0] * 6


def test_leaving_out_a_vector_needs_no_second_pass(rng: np.random.Generator) -> None:
    points = rng.standard_normal((8, 5)).astype(np.float32)
    fast = spurious.participation_without_each(spurious.centred_gram(points))
    slow = [dimensions(np.delete(points, i, axis=0)) for i in range(8)]
    assert fast == pytest.approx(slow, rel=1e-6)


def test_the_jackknife_of_a_geometric_mean_is_the_t_interval_of_the_logarithms(
    rng: np.random.Generator,
) -> None:
    from scipy import stats

    logs = rng.standard_normal(9)
    without = [np.exp(np.delete(logs, i).mean()) for i in range(9)]
    low, high = spurious.jackknife_interval(float(np.exp(logs.mean())), np.array(without))
    expected = stats.t.interval(0.95, 8, loc=logs.mean(), scale=stats.sem(logs))
    assert np.log([low, high]) == pytest.approx(expected)


def test_there_are_no_limits_where_nothing_varies() -> None:
    assert np.isnan(spurious.jackknife_interval(0.0, np.zeros(5))).all()


# samples, spans


def test_equal_samples_vary_between_targets_only(rng: np.random.Generator) -> None:
    features = np.repeat(rng.standard_normal((5, 1, 4)), 3, axis=1).astype(np.float32)
    assert spurious.between_share(features) == pytest.approx(1)
    assert np.isnan(spurious.between_share(np.ones((3, 2, 4), np.float32)))


def test_the_share_between_targets_is_the_intraclass_correlation() -> None:
    # targets 0 and 10 with samples +-1: B = 2 * 50 / 1, W = 4 / 2
    features = np.array([[[-1.0], [1.0]], [[9.0], [11.0]]], np.float32)
    assert spurious.between_share(features) == pytest.approx((100 - 2) / (100 + 2))


def test_samples_that_ignore_their_target_share_nothing(rng: np.random.Generator) -> None:
    assert abs(spurious.between_share(rng.standard_normal((200, 4, 50)).astype(np.float32))) < 0.01


def test_what_a_linear_decoder_can_reach_lies_in_the_span(rng: np.random.Generator) -> None:
    training = rng.standard_normal((6, 30)).astype(np.float32)
    weights = rng.standard_normal((4, 6))
    weights /= weights.sum(axis=1, keepdims=True)  # affine combinations
    assert spurious.span_share(training, weights @ training) == pytest.approx(1)


def test_what_is_orthogonal_to_the_training_features_lies_outside() -> None:
    training = np.array([[1, 0, 7], [-1, 0, 7], [2, 0, 7], [-2, 0, 7]], np.float32)
    assert spurious.span_share(training, np.array([[0, 5, 0], [0, -5, 0]])) == pytest.approx(0)
    assert spurious.span_share(training, np.array([[3, 4, 1], [-3, -4, 1]])) == pytest.approx(9 / 25)
    assert np.isnan(spurious.span_share(training, np.ones((2, 3))))
