"""From items to rows: averages, chance, groups, protocol keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nsdbench import leaderboard, stats, summary
from nsdbench.errors import LeaderboardError
from nsdbench.schema import Provenance

Make = Callable[..., pa.Table]
TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))


def rows_of(table: pa.Table, **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows whose columns have the wanted values."""
    return [row for row in table.to_pylist() if all(row[k] == v for k, v in wanted.items())]


def row_of(table: pa.Table, **wanted: Any) -> dict[str, Any]:
    """Return the only such row."""
    (row,) = rows_of(table, **wanted)
    return row


def test_samples_are_averaged_before_targets_and_targets_before_subjects(
    make_items: Make, origin: Provenance
) -> None:
    one = make_items(lambda t, k, s: float(k), targets=("A1",), n_samples=3, metrics=(("pixcorr", "none"),))
    two = make_items(lambda t, k, s: 5.0, targets=("A2",), n_samples=1, metrics=(("pixcorr", "none"),))
    row = row_of(leaderboard.summarize(pa.concat_tables([one, two]), origin))
    assert row["value"] == pytest.approx((1.0 + 5.0) / 2)  # not the mean (0 + 1 + 2 + 5) / 4 of all items
    assert (row["n_targets"], row["n_samples"]) == (2, 3)


def test_the_mean_row_is_the_mean_of_subject_means(make_items: Make, noisy: Any, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(noisy, subjects=(1, 2, 5, 7)), origin)
    singles = [
        row_of(rows, subject=str(s), metric="pixcorr", stimulus_set="AB")["value"] for s in (1, 2, 5, 7)
    ]
    mean = row_of(rows, subject="mean", metric="pixcorr", stimulus_set="AB")
    assert mean["value"] == pytest.approx(np.mean(singles))
    assert mean["n_subjects"] == 4


def test_a_single_subject_has_no_mean_row(make_items: Make, origin: Provenance) -> None:
    assert not rows_of(leaderboard.summarize(make_items(), origin), subject="mean")


def test_nsd_imagery_is_reported_for_both_sets_and_each(make_items: Make, origin: Provenance) -> None:
    items = make_items(lambda t, k, s: 1.0 if t[0] == "A" else 0.0)
    rows = leaderboard.summarize(items, origin)
    values = {
        row["stimulus_set"]: (row["value"], row["n_targets"]) for row in rows_of(rows, metric="pixcorr")
    }
    assert values == {"AB": (0.5, 12), "A": (1.0, 6), "B": (0.0, 6)}


def test_core_images_are_reported_as_one_set_named_by_its_size(make_items: Make, origin: Provenance) -> None:
    items = make_items(split="shared1000", targets=("img00001", "img00002"), metrics=(("alexnet2", "all2"),))
    assert row_of(leaderboard.summarize(items, origin))["stimulus_set"] == "shared2"


def test_chance_of_two_way_identification_is_one_half(make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    assert {row["chance"] for row in rows_of(rows, metric="alexnet2")} == {0.5}


def test_chance_of_the_as_run_profile_is_lower_by_one_eleventh(make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(metric_profile="imagery-asrun"), origin)
    assert row_of(rows, metric="alexnet2", stimulus_set="AB")["chance"] == pytest.approx(0.5 - 1 / 11)


def test_chance_of_pair_metrics_is_the_mean_floor(make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    assert row_of(rows, metric="pixcorr", stimulus_set="AB")["chance"] == pytest.approx(0.1)


def test_chance_of_retrieval_is_one_over_the_number_of_alternatives(
    make_items: Make, origin: Provenance
) -> None:
    items = make_items(metrics=(("retrieval_image_top1", "AB12"),), n_samples=1, floor=1 / 12)
    row = row_of(leaderboard.summarize(items, origin), stimulus_set="AB")
    assert row["chance"] == pytest.approx(1 / 12)
    assert (row["n_samples"], row["n_targets"], row["direction"]) == (1, 12, "higher")


@pytest.mark.parametrize(
    ("metric", "direction"), [("effnet", "lower"), ("mini_swav", "lower"), ("clip", "higher")]
)
def test_the_direction_of_a_metric_is_that_of_the_registry(metric: str, direction: str) -> None:
    assert summary.direction(metric) == direction


def test_intervals_are_those_of_the_target_scores(make_items: Make, noisy: Any, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(noisy, subjects=(1, 2)), origin, seed=3, n_resamples=1000)
    row = row_of(rows, subject="mean", metric="pixcorr", stimulus_set="A")
    scores = [[np.mean([noisy(f"A{i}", k, s) for k in range(2)]) for i in range(1, 7)] for s in (1, 2)]
    found = stats.bca(np.array([scores]), seed=3, n_resamples=1000)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((found.low[0], found.high[0]))
    assert (row["ci_method"], row["ci_unit"], row["n_resamples"], row["stats_seed"]) == (
        "bca_t",
        "target",
        1000,
        3,
    )


def test_a_single_target_has_a_value_without_interval(make_items: Make, origin: Provenance) -> None:
    row = row_of(leaderboard.summarize(make_items(targets=("A1",)), origin), metric="pixcorr")
    assert row["value"] == 0.5
    assert row["ci_low"] is None
    assert row["ci_method"] is None


def test_undefined_items_are_counted_and_left_out(make_items: Make, origin: Provenance) -> None:
    rows = make_items(lambda t, k, s: 0.2, metrics=(("pixcorr", "none"),)).to_pylist()
    for row in rows:
        if row["stimulus"] == "B6":
            row |= {"value": None, "reason": "constant image"}
    row = row_of(leaderboard.summarize(pa.Table.from_pylist(rows), origin), stimulus_set="AB")
    assert (row["n_items_null"], row["n_targets"], row["value"]) == (2, 11, pytest.approx(0.2))


def test_two_runs_of_one_subject_are_not_averaged(make_items: Make, origin: Provenance) -> None:
    items = pa.concat_tables([make_items(), make_items(run_id="again")])
    with pytest.raises(LeaderboardError, match="items mix the runs"):
        leaderboard.summarize(items, origin)


def test_equal_protocols_give_equal_keys_for_different_models(make_items: Make, origin: Provenance) -> None:
    keys = [
        {
            row["metric"]: row["protocol_key"]
            for row in rows_of(leaderboard.summarize(items, origin), stimulus_set="AB")
        }
        for items in (make_items(0.1, model="ridge"), make_items(0.9, model="icnn", n_samples=5))
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"stimulus_hash": "x"}, {"dataset_hash": "x"}, {"beta_version": "b2"}, {"normalization": "none"},
        {"averaging": "none"}, {"label_source": "x"},
    ],
)  # fmt: skip
def test_whatever_makes_values_incomparable_changes_the_key(
    make_items: Make, origin: Provenance, changes: dict[str, str]
) -> None:
    ours, theirs = (leaderboard.summarize(make_items(), p) for p in (origin, replace(origin, **changes)))
    assert not set(ours["protocol_key"].to_pylist()) & set(theirs["protocol_key"].to_pylist())


@pytest.mark.parametrize(
    "changes",
    [
        {"metric_version": 2},
        {"metric_profile": "mindeye"},
        {"split": "vision"},
        {"dataset": "nsd"},
        {"subjects": (2,)},
    ],
)
def test_metric_definition_split_data_and_subject_are_part_of_the_key(
    make_items: Make, origin: Provenance, changes: dict[str, Any]
) -> None:
    ours, theirs = (
        leaderboard.summarize(make_items(), origin),
        leaderboard.summarize(make_items(**changes), origin),
    )
    assert not set(ours["protocol_key"].to_pylist()) & set(theirs["protocol_key"].to_pylist())


def test_weights_matter_to_the_metrics_that_look_through_them_only(
    make_items: Make, origin: Provenance
) -> None:
    all_weights = replace(origin, weights_id="alexnet-imagenet1k-v1,efficientnet-b1-imagenet1k-v2")
    random = replace(origin, weights_id="efficientnet-b1-imagenet1k-v2,random-alexnet")
    keys = {}
    for name, provenance in (("all", all_weights), ("random", random)):
        row = {
            r["metric"]: r
            for r in rows_of(leaderboard.summarize(make_items(), provenance), stimulus_set="AB")
        }
        keys[name] = {metric: (r["protocol_key"], r["weights_id"]) for metric, r in row.items()}
    assert keys["all"]["pixcorr"] == keys["random"]["pixcorr"]
    assert keys["all"]["pixcorr"][1] is None
    assert keys["all"]["alexnet2"][0] != keys["random"]["alexnet2"][0]
    assert keys["all"]["alexnet2"][1] == "alexnet-imagenet1k-v1"


def test_runs_with_their_own_provenance_keep_it_and_the_mean_keeps_what_they_share(
    make_items: Make, origin: Provenance
) -> None:
    origins = {
        "ridge-1-imagery": replace(origin, n_voxels=100, created_at="2026-01-01"),
        "ridge-2-imagery": replace(origin, n_voxels=200, created_at="2026-02-01"),
    }
    rows = leaderboard.summarize(make_items(subjects=(1, 2)), origins)
    voxels = {row["subject"]: row["n_voxels"] for row in rows.to_pylist()}
    assert voxels == {"1": 100, "2": 200, "mean": None}
    mean = rows_of(rows, subject="mean")[0]
    assert (mean["beta_version"], mean["created_at"]) == ("b3", "2026-02-01")


def test_a_mean_with_untrained_members_is_untrained(origin: Provenance) -> None:
    assert summary.combine([origin, replace(origin, status="untrained")]).status == "untrained"


def test_results_that_lack_different_targets_have_different_keys(
    make_items: Make, origin: Provenance
) -> None:
    without_a1, without_b6 = (
        leaderboard.summarize(make_items(targets=kept), origin) for kept in (TARGETS[1:], TARGETS[:-1])
    )
    a, b = (row_of(table, stimulus_set="AB", metric="pixcorr") for table in (without_a1, without_b6))
    assert a["n_targets"] == b["n_targets"] == 11
    assert a["protocol_key"] != b["protocol_key"]


def test_a_mean_is_as_complete_as_its_poorest_subject(make_items: Make, origin: Provenance) -> None:
    items = pa.concat_tables([make_items(), make_items(subjects=(2,), targets=TARGETS[1:])])
    rows = leaderboard.summarize(items, origin)
    assert row_of(rows, subject="mean", stimulus_set="AB", metric="pixcorr")["n_targets"] == 11


def test_targets_without_any_item_count_as_missing_items(make_items: Make, origin: Provenance) -> None:
    items = make_items(split="shared1000", targets=("img1", "img2"), metrics=(("pixcorr", "none"),))
    row = row_of(leaderboard.summarize(items, replace(origin, n_stimuli=5)))
    assert row["n_items_null"] == 3 * 2
    assert row_of(leaderboard.summarize(items, replace(origin, n_stimuli=2)))["n_items_null"] == 0


def test_weights_are_those_of_the_profile(make_items: Make, origin: Provenance) -> None:
    both = replace(origin, weights_id="efficientnet-b1-imagenet1k-v1,efficientnet-b1-imagenet1k-v2")
    only = replace(origin, weights_id="efficientnet-b1-imagenet1k-v2")
    items = make_items(metrics=(("effnet", "none"),))
    alone, beside = (row_of(leaderboard.summarize(items, o), stimulus_set="AB") for o in (only, both))
    assert beside["weights_id"] == "efficientnet-b1-imagenet1k-v2"
    assert beside["protocol_key"] == alone["protocol_key"]
    old = leaderboard.summarize(
        make_items(metrics=(("effnet", "none"),), metric_profile="brain-diffuser"), both
    )
    assert row_of(old, stimulus_set="AB")["weights_id"] == "efficientnet-b1-imagenet1k-v1"


def test_a_mean_stays_untrained_if_the_subjects_have_different_other_metrics(
    make_items: Make, origin: Provenance
) -> None:
    origins = {
        "ridge-1-imagery": replace(origin, weights_id="random-alexnet,random-clip"),
        "ridge-2-imagery": replace(origin, weights_id="random-alexnet"),
    }
    rows = leaderboard.summarize(make_items(subjects=(1, 2)), origins)
    status = {row["metric"]: row["status"] for row in rows_of(rows, subject="mean", stimulus_set="AB")}
    assert status == {"alexnet2": "untrained", "pixcorr": "simulated"}
