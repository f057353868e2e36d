"""What a comparison concludes: chance, models against each other, what imagery keeps, whether orders agree."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from nsdbench import leaderboard, similarity
from nsdbench.compare import Comparison, Selection, compare
from nsdbench.errors import UsageError
from nsdbench.metrics.identification import two_way
from nsdbench.schema import ITEMS

TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
SETS = np.repeat([0, 1], 6)
Floats = Any
Write = Callable[..., Path]
Decoder = Callable[..., None]
PAPER = ("mindeye1", "brain_diffuser", "icnn", "mindeye2")


@pytest.fixture
def write_decoder(write_run: Write) -> Decoder:
    """Factory of runs whose two-way scores come from a similarity matrix that lies beside them."""

    def write(r: Floats, *, stored: bool = True, **more: Any) -> None:
        n_samples = r.shape[2]
        flat, truth = r.reshape(12, -1), np.repeat(np.arange(12), n_samples)
        scores = {"AB12": two_way(flat, truth)}
        halves = [
            two_way(r[i : i + 6, i : i + 6].reshape(6, -1), np.repeat(np.arange(6), n_samples))
            for i in (0, 6)
        ]
        scores["within6"] = np.concatenate(halves)
        for pool, values in scores.items():
            table = {
                (t, k): values[i * n_samples + k] for i, t in enumerate(TARGETS) for k in range(n_samples)
            }
            scores[pool] = table
        metrics = (("clip", "AB12"), ("clip", "within6"))
        folder = write_run(0.5, metrics=metrics, n_samples=n_samples, **more)
        _set_values(folder, scores)
        if stored:
            similarity.write(
                folder / similarity.file_name("nsdbench-v1"),
                similarity.Similarities({"clip": r}, TARGETS, TARGETS),
            )

    return write


def _set_values(folder: Path, scores: dict[str, Any]) -> None:
    rows = leaderboard.read_items(folder).to_pylist()
    for row in rows:
        row["value"] = float(scores[row["pool"]][row["stimulus"], row["sample"]])
    leaderboard.write_items(folder / "scores.parquet", pa.Table.from_pylist(rows, schema=ITEMS))


def noise(rng: np.random.Generator, n_samples: int = 2) -> Floats:
    return rng.normal(size=(12, 12, n_samples))


def knows_sets(rng: np.random.Generator) -> Floats:
    return 5.0 * (SETS[:, None] == SETS)[:, :, None] + noise(rng)


def knows_targets(rng: np.random.Generator) -> Floats:
    return 5.0 * np.eye(12)[:, :, None] + noise(rng)


def whole(found: Comparison, pool: str, subject: str = "1") -> dict[str, Any]:
    (row,) = [r for r in found.rows if (r["pool"], r["subject"], r["stimulus_set"]) == (pool, subject, "AB")]
    return row


def test_knowing_only_the_set_is_above_chance_among_all_targets_and_not_within_sets(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    write_decoder(knows_sets(rng))
    found = compare([tmp_path / "runs"])
    assert whole(found, "AB12")["p_corrected"] < 0.01
    assert whole(found, "within6")["p_corrected"] > 0.05
    (sentence,) = [one for one in found.conclusions if "better than chance" in one]
    assert "among those of their own set" in sentence
    assert "not shown for ridge" in sentence


def test_knowing_the_target_is_above_chance_within_sets(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    write_decoder(knows_targets(rng))
    found = compare([tmp_path / "runs"])
    assert whole(found, "within6")["p"] == pytest.approx(1 / math.factorial(6) ** 2)
    assert any("ridge (1 of 1 metrics)" in sentence for sentence in found.conclusions)


def test_the_test_statistic_is_the_score_of_the_row_and_its_null_mean_one_half(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    """With six targets all label permutations can be counted by hand."""
    r = noise(rng)
    write_decoder(r)
    row = whole(compare([tmp_path / "runs"]), "AB12")
    scores = np.array([[_two_way_of(r, t, i) for i in range(12)] for t in range(12)])
    assert row["value"] == pytest.approx(np.trace(scores) / 12)
    assert row["test"] == "label permutation"
    drawn = [scores[np.arange(12), rng.permutation(12)].mean() for _ in range(4_000)]
    assert row["p"] == pytest.approx(np.mean(np.array(drawn) >= row["value"] - 1e-12), abs=0.03)


def _two_way_of(r: Floats, target: int, candidate: int) -> float:
    column = r[:, target]
    return float(
        np.mean(
            [(column[candidate, k] > np.delete(column[:, k], candidate)).mean() for k in range(r.shape[2])]
        )
    )


def test_correcting_by_the_maximum_of_one_metric_changes_nothing_and_of_one_family_never_lowers_p(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    write_decoder(noise(rng))
    row = whole(compare([tmp_path / "runs"], correction="max"), "AB12")
    assert row["p_corrected"] == pytest.approx(row["p"], abs=1e-3)


def test_without_similarities_chance_is_tested_by_sign_flips(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    write_decoder(knows_targets(rng), stored=False)
    row = whole(compare([tmp_path / "runs"]), "AB12")
    assert (row["test"], row["n_arrangements"]) == ("sign flips", 2**12)
    assert row["p"] == pytest.approx(1 / 2**12)


def test_one_subject_without_similarities_takes_the_mean_to_sign_flips(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    write_decoder(knows_targets(rng), subject=1)
    write_decoder(knows_targets(rng), subject=2, stored=False)
    found = compare([tmp_path / "runs"])
    tests = {subject: whole(found, "AB12", subject)["test"] for subject in ("1", "2", "mean")}
    assert tests == {"1": "label permutation", "2": "sign flips", "mean": "sign flips"}


def test_means_of_subjects_say_in_how_many_people_the_information_is(
    tmp_path: Path, write_decoder: Decoder, rng: np.random.Generator
) -> None:
    for subject in (1, 2, 5, 7):
        write_decoder(knows_targets(rng), subject=subject)
    found = compare([tmp_path / "runs"])
    row = whole(found, "within6", "mean")
    best = (0.05**0.25 - (1 / 10_001) ** 0.25) / (1 - (1 / 10_001) ** 0.25)
    assert row["prevalence_highest"] == pytest.approx(best)
    assert row["prevalence_bound"] == pytest.approx(best)
    assert any(
        "share of people" in sentence and "ridge 41 % (1 metric)" in sentence
        for sentence in found.conclusions
    )


def test_the_interval_over_new_subjects_is_wider_where_subjects_differ(
    tmp_path: Path, write_run: Write, noisy: Any
) -> None:
    for subject in (1, 2, 5, 7):
        write_run(lambda t, k, s, of=subject: noisy(t, k, s) + of / 10, subject=subject)
    found = compare([tmp_path / "runs"])
    (row,) = [
        r
        for r in found.rows
        if r["subject"] == "mean" and r["metric"] == "pixcorr" and r["stimulus_set"] == "AB"
    ]
    assert row["ci_subjects_high"] - row["ci_subjects_low"] > 3 * (row["ci_high"] - row["ci_low"])


def test_an_untrained_network_gets_no_star(tmp_path: Path, write_run: Write, origin: Any) -> None:
    random = replace(origin, weights_id="random-alexnet")
    write_run(lambda t, k, s: 0.9, metrics=(("alexnet2", "AB12"),), provenance=random)
    found = compare([tmp_path / "runs"])
    assert "*" not in "".join(cell for band in found.grids[0].bands for row in band.rows for cell in row)
    assert not any("better than chance" in sentence for sentence in found.conclusions)


def test_looking_at_one_metric_makes_nothing_more_certain(
    tmp_path: Path, write_run: Write, noisy: Any
) -> None:
    metrics = (("pixcorr", "none"), ("ssim", "none"), ("rmse", "none"))
    for split, shift in (("vision", 0.1), ("imagery", 0.0)):
        for model in ("first", "second"):
            write_run(
                lambda t, k, s, by=shift, of=model: noisy(t, (k + len(of)) % 10, s) + by,
                model=model, split=split, metrics=metrics,
            )  # fmt: skip
    everything = compare([tmp_path / "runs"])
    one = compare([tmp_path / "runs"], selection=Selection(metrics=("pixcorr",)))
    assert one.rows == [row for row in everything.rows if row["metric"] == "pixcorr"]
    assert one.evidence.pairs == [
        pair for pair in everything.evidence.pairs if pair.first["metric"] == "pixcorr"
    ]
    assert one.evidence.gaps == [gap for gap in everything.evidence.gaps if gap.metric == "pixcorr"]
    assert len(one.evidence.gaps) == 2
    assert one.conclusions == ()


def cells(found: Comparison, metric: int = 1) -> dict[str, str]:
    (band, *_) = found.grids[0].bands
    return {row[0].split("\n")[0]: row[metric].split("\n")[0] for row in band.rows}


def test_models_that_cannot_be_told_apart_share_a_letter(
    tmp_path: Path, write_run: Write, noisy: Any
) -> None:
    metrics = (("pixcorr", "none"),)
    write_run(lambda t, k, s: noisy(t, k, s), model="first", metrics=metrics)
    write_run(lambda t, k, s: noisy(t, 1 - k, s), model="second", metrics=metrics)
    write_run(lambda t, k, s: noisy(t, k, s) - 0.3, model="third", metrics=metrics)
    found = cells(compare([tmp_path / "runs"]))
    assert {model: cell.split()[-1] for model, cell in found.items()} == {
        "first": "a",
        "second": "a",
        "third": "b",
    }


def test_no_letters_where_a_model_has_no_item_scores(
    tmp_path: Path, write_run: Write, noisy: Any, make_items: Any, origin: Any
) -> None:
    metrics = (("pixcorr", "none"),)
    write_run(lambda t, k, s: noisy(t, k, s), model="first", metrics=metrics)
    items = make_items(lambda t, k, s: noisy(t, k, s), model="second", metrics=metrics)
    leaderboard.append(tmp_path / "runs" / "leaderboard", leaderboard.summarize(items, origin))
    found = compare([tmp_path / "runs"])
    assert found.evidence.pairs == []
    assert not any(cell.endswith(("a", "b")) for cell in cells(found).values())


def test_a_pair_has_difference_probability_and_exact_p(tmp_path: Path, write_run: Write, noisy: Any) -> None:
    metrics = (("effnet", "none"),)
    write_run(lambda t, k, s: noisy(t, k, s), model="first", metrics=metrics)
    write_run(lambda t, k, s: noisy(t, k, s) - 0.1, model="second", metrics=metrics)
    (pair,) = compare([tmp_path / "runs"]).evidence.pairs
    assert (pair.first["model"], pair.second["model"]) == ("first", "second")
    assert pair.value == pytest.approx(-0.1)  # a distance: the first is worse
    assert pair.superiority == 0.0
    assert pair.p == pytest.approx(2 / 2**12)


def test_differences_to_one_model_have_its_sign_and_unknown_models_are_named(
    tmp_path: Path, write_run: Write, noisy: Any
) -> None:
    metrics = (("pixcorr", "none"),)
    write_run(lambda t, k, s: noisy(t, k, s), model="first", metrics=metrics)
    write_run(lambda t, k, s: noisy(t, k, s) - 0.1, model="second", metrics=metrics)
    for model, other, shown in (("first", "second", "-.100*"), ("second", "first", ".100*")):
        grid = compare([tmp_path / "runs"], against=model).grids[-1]
        ((name, cell),) = grid.bands[0].rows
        assert (name, cell.split("\n")[0]) == (other, shown)
    with pytest.raises(UsageError, match="'third'"):
        compare([tmp_path / "runs"], against="third")


def test_models_are_compared_with_floors_without_sharing_letters_with_them(
    tmp_path: Path, write_run: Write, noisy: Any
) -> None:
    metrics = (("pixcorr", "none"),)
    for model, shift in (("ridge", 0.1), ("icnn", 0.2), ("mean_image", 0.0)):
        write_run(lambda t, k, s, by=shift: noisy(t, k, s) + by, model=model, metrics=metrics)
    found = compare([tmp_path / "runs"], against="mean_image")
    (contest,) = next(iter(found.evidence.contests.values()))
    assert len(contest.pairs) == 1
    assert {(p.first["model"], round(p.value, 9)) for p in contest.floor_pairs} == {
        ("ridge", 0.1),
        ("icnn", 0.2),
    }
    assert contest.pairs[0].p_column == contest.pairs[0].p  # floors do not count as further models
    assert [row[0] for row in found.grids[-1].bands[0].rows] == ["icnn", "ridge"]


def test_a_metric_that_only_incomparable_runs_have_stands_in_their_table(
    tmp_path: Path, write_run: Write, origin: Any
) -> None:
    """Also in the table of gaps, which is built in the same way."""
    for split in ("vision", "imagery"):
        for model in ("ridge", "icnn"):
            write_run(0.2, model=model, split=split, metrics=(("pixcorr", "none"),))
        apart = replace(origin, normalization="none")
        write_run(
            0.3,
            model="takagi",
            split=split,
            provenance=apart,
            metrics=(("pixcorr", "none"), ("ssim", "none")),
        )
    for grid in compare([tmp_path / "runs"]).grids:
        assert any(cell.startswith("ssim") for cell in grid.header)


def test_results_without_item_scores_say_that_nothing_is_tested(
    tmp_path: Path, make_items: Any, origin: Any
) -> None:
    for split in ("vision", "imagery"):
        leaderboard.append(tmp_path, leaderboard.summarize(make_items(0.5, split=split), origin))
    found = compare([tmp_path])
    assert any("Nothing is tested" in note for note in found.notes)
    assert not any("*" in note for grid in found.grids for note in grid.notes)


def test_imagery_keeps_half_of_what_vision_has_above_chance(tmp_path: Path, write_run: Write) -> None:
    metrics = (("clip", "AB12"),)
    for split, height in (("vision", 0.4), ("imagery", 0.2)):
        write_run(lambda t, k, s, h=height: 0.5 + h * (1 + int(t[1]) / 6), split=split, metrics=metrics)
    (gap,) = compare([tmp_path / "runs"]).evidence.gaps
    assert gap.retention == pytest.approx(0.5)
    assert (gap.retention_low, gap.retention_high) == pytest.approx((0.5, 0.5))


def test_nothing_is_kept_of_a_vision_score_that_may_be_chance(
    tmp_path: Path, write_run: Write, noisy: Any
) -> None:
    metrics = (("clip", "AB12"),)
    write_run(lambda t, k, s: noisy(t, k, s), split="vision", metrics=metrics)
    write_run(lambda t, k, s: noisy(t, k, s) - 0.1, split="imagery", metrics=metrics)
    (gap,) = compare([tmp_path / "runs"]).evidence.gaps
    assert gap.retention is None
    assert gap.low is not None


@pytest.fixture(scope="module")
def published() -> Comparison:
    return compare([], published=True)


def test_orders_of_published_models_agree_as_in_the_reference_figures(
    published: Comparison, shared: Path
) -> None:
    with (shared / "data" / "published" / "derived_decoupling.csv").open(encoding="utf-8") as handle:
        expected = {
            row["metric"]: float(row["value"])
            for row in csv.DictReader(handle)
            if row["statistic"] == "spearman" and row["n"] == "8" and row["stimulus_set"] == "simple+complex"
        }
    ours = {one.metric: one.rho for one in agreements(published)}
    checked = [metric for metric in ours if metric in expected]
    assert len(checked) == 8
    for metric in checked:
        assert ours[metric] == pytest.approx(expected[metric], abs=5e-4)


def agreements(found: Comparison) -> list[Any]:
    return [
        one
        for place, orders in found.quoted.orders.items()
        if place.source and place.source[0].startswith("mirage")
        for order in orders
        for one in order.agreements
    ]


def test_the_mean_rank_of_published_models_gives_one_answer_with_its_exact_p(published: Comparison) -> None:
    (overall,) = [one for one in agreements(published) if one.metric == "mean rank"]
    rows = {
        (r["model"], r["split"], r["metric"]): r["value"] * (-1 if r["direction"] == "lower" else 1)
        for r in published.rows
        if r["run_id"] and r["subject"] == "mean" and r["stimulus_set"] == "AB" and r["metric"] in HEADLINE
    }
    models = sorted({model for model, _, _ in rows})
    sides = [
        np.mean(
            [scipy.stats.rankdata([rows[m, split, metric] for m in models]) for metric in HEADLINE], axis=0
        )
        for split in ("vision", "imagery")
    ]
    assert overall.rho == pytest.approx(scipy.stats.spearmanr(*sides).statistic)
    ranks = [scipy.stats.rankdata(side) - 4.5 for side in sides]
    products = [ranks[0][list(order)] @ ranks[1] for order in itertools.permutations(range(8))]
    observed = ranks[0] @ ranks[1]
    assert overall.p == pytest.approx(np.mean(np.abs(products) >= abs(observed) - 1e-9))
    assert overall.exact


HEADLINE = ("pixcorr", "ssim", "alexnet2", "alexnet5", "inception", "clip", "effnet", "swav")


def test_the_published_scores_answer_whether_imagery_is_decoupled(published: Comparison) -> None:
    said = [one for one in published.conclusions if "decoupled" in one and "mirage_repo" in one]
    assert len(said) == 1
    assert "Not in general: the order of 8 models" in said[0]
    assert "rho = .75" in said[0]
    assert "exact p = .038" in said[0]


def test_four_models_cannot_answer_it() -> None:
    found = compare([], published=True, selection=Selection(models=PAPER))
    (said,) = [one for one in found.conclusions if "decoupled" in one]
    assert "4 models cannot tell" in said
    assert f"p = {2 / math.factorial(4):.3f}".replace("0.", ".") in said


def test_printed_scores_below_one_half_are_set_right(published: Comparison) -> None:
    rows = [
        r
        for r in published.rows
        if r["metric"] in ("alexnet2", "alexnet5", "inception", "clip")
        and (r["split"], r["subject"], r["stimulus_set"]) == ("imagery", "mean", "AB")
        and r["source"].startswith("mirage_repo_results")
    ]
    below, still = sum(r["value"] < 0.5 for r in rows), sum(r["value"] + 1 / 11 < 0.5 for r in rows)
    assert (len(rows), below > 0, still) == (32, True, 0)
    (said,) = [
        one
        for one in published.conclusions
        if "printed" in one and one.startswith("Imagery") and "mirage" in one
    ]
    assert f"{below} of 32 printed means lie below .500" in said
    assert f"{still} lie below .500" in said


def test_the_offset_changes_neither_gap_nor_order(published: Comparison) -> None:
    gaps = {
        (g.vision["model"], g.metric): g
        for g in published.quoted.gaps
        if g.vision["source"].startswith("mirage")
    }
    for model in PAPER:
        for metric in ("alexnet2", "alexnet5", "inception", "clip"):
            printed, corrected = gaps[model, metric], gaps[model, f"{metric}_corrected"]
            assert corrected.value == pytest.approx(printed.value, abs=1e-5)
            if printed.retention is not None:
                assert corrected.retention == pytest.approx(printed.retention, abs=1e-3)
