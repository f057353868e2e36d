"""Results that are not all alike: several presets, profiles, sources, missing scores, networks without training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nsdbench import leaderboard, similarity
from nsdbench.compare import Comparison, Selection, compare
from nsdbench.errors import DataError, UsageError
from nsdbench.metrics.identification import two_way
from nsdbench.schema import ITEMS

Write = Callable[..., Path]
PIXCORR = (("pixcorr", "none"),)
CLIP = (("clip", "AB12"),)
SPLITS = ("vision", "imagery")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def first_cells(found: Comparison, grid: int = 0) -> list[str]:
    return [row[0].split("\n")[0] for band in found.grids[grid].bands for row in band.rows]


def said(found: Comparison, words: str) -> list[str]:
    return [one for one in found.conclusions if words in one]


def test_two_profiles_of_one_run_stand_in_blocks_of_their_own(results: Path, write_run: Write) -> None:
    folder = write_run(0.6, metrics=CLIP)
    rows = leaderboard.read_items(folder).to_pylist()
    others = [row | {"metric_profile": "imagery-asrun", "value": 0.7} for row in rows]
    leaderboard.write_items(folder / "scores.parquet", pa.Table.from_pylist(rows + others, schema=ITEMS))
    found = compare([results])
    bands = found.grids[0].bands
    captions = {band.caption for band in bands}
    values = {row[1].split("\n")[0].rstrip("*") for band in bands for row in band.rows if row[0] != "chance"}
    assert {".600", ".700"} <= values
    assert any("metric_profile" in caption for caption in captions)
    assert all("; metric_profile " in one for one in said(found, "better than chance"))


def test_presets_of_one_model_are_told_apart_in_tables_sentences_and_json(
    results: Path, write_run: Write, noisy: Any
) -> None:
    for preset, shift in (("mini", 0.0), ("standard", 0.3)):
        write_run(
            lambda t, k, s, by=shift: noisy(t, k, s) + by, preset=preset, name=preset, metrics=CLIP
        )  # fmt: skip
    write_run(lambda t, k, s: noisy(t, 1 - k, s) + 0.1, model="icnn", metrics=CLIP)
    found = compare([results])
    assert first_cells(found)[:3] == ["ridge standard", "icnn", "ridge mini"]
    (chance,) = said(found, "better than chance")
    assert "icnn, ridge standard (1 of 1 metrics); not shown for ridge mini" in chance
    (best,) = said(found, "told from the best")
    assert "all 1 metrics: ridge standard; behind the best on some: icnn, ridge mini" in best
    named = {(one["first"], one["second"]) for one in found.document()["pairs"]}
    assert {frozenset(one) for one in named} == {
        frozenset(two) for two in itertools.combinations(("icnn", "ridge mini", "ridge standard"), 2)
    }


def test_differences_to_a_model_of_several_presets_need_one_of_them(
    results: Path, write_run: Write, noisy: Any
) -> None:
    for preset, shift in (("mini", 0.0), ("standard", 0.3)):
        write_run(
            lambda t, k, s, by=shift: noisy(t, k, s) + by, preset=preset, name=preset, metrics=PIXCORR
        )  # fmt: skip
    with pytest.raises(UsageError, match="several presets of 'ridge'") as caught:
        compare([results], against="ridge")
    assert "'ridge mini' or 'ridge standard'" in caught.value.remedy
    (row,) = compare([results], against="ridge mini").grids[-1].bands[0].rows
    assert (row[0], row[1].split("\n")[0]) == ("ridge standard", ".300*")


def test_what_retrieval_keeps_is_measured_from_its_own_chance_level(results: Path, write_run: Write) -> None:
    for split, height in (("vision", 0.3), ("imagery", 0.2)):
        write_run(
            lambda t, k, s, h=height: h + int(t[1]) / 100,
            split=split, metrics=(("retrieval_image_top1", "AB12"),), n_samples=1, floor=0.1,
        )  # fmt: skip
    (gap,) = compare([results]).evidence.gaps
    assert gap.retention == pytest.approx(0.135 / 0.235)


def test_a_vision_score_at_chance_but_for_rounding_has_no_retention(results: Path, write_run: Write) -> None:
    for split in SPLITS:
        write_run(0.1 + 1e-15, split=split, metrics=PIXCORR)
    (gap,) = compare([results]).evidence.gaps
    assert gap.retention is None


def test_nobody_is_called_best_on_metrics_in_which_some_models_cannot_be_compared(
    results: Path, write_run: Write, noisy: Any, make_items: Any, origin: Any
) -> None:
    write_run(noisy, model="first", metrics=PIXCORR)
    write_run(lambda t, k, s: noisy(t, k, s) - 0.3, model="second", metrics=PIXCORR)
    items = make_items(noisy, model="third", metrics=PIXCORR)
    leaderboard.append(results / "leaderboard", leaderboard.summarize(items, origin))
    found = compare([results])
    assert any(pair.differ for pair in found.evidence.pairs)
    assert not said(found, "told from the best")
    assert not said(found, "can be told apart")


def test_a_model_without_some_metrics_is_not_among_the_best_on_all(
    results: Path, write_run: Write, noisy: Any
) -> None:
    both = (*PIXCORR, ("ssim", "none"))
    write_run(noisy, model="first", metrics=both)
    write_run(lambda t, k, s: noisy(t, k, s) - 0.3, model="second", metrics=both)
    write_run(lambda t, k, s: noisy(t, 1 - k, s), model="third", metrics=PIXCORR)
    (best,) = said(compare([results]), "told from the best")
    assert "on all 2 metrics: first; behind the best on some: second (2 of 2)" in best


def test_each_model_is_counted_out_of_its_own_metrics(results: Path, write_run: Write) -> None:
    write_run(0.8, model="first", metrics=(*CLIP, ("inception", "AB12")))
    write_run(0.8, model="second", metrics=CLIP)
    (chance,) = said(compare([results]), "better than chance")
    assert "first (2 of 2 metrics); second (1 of 1 metrics)" in chance


def test_gaps_of_untrained_networks_are_shown_and_not_tested(
    results: Path, write_run: Write, noisy: Any, origin: Any
) -> None:
    for split, shift in (("vision", 0.4), ("imagery", 0.1)):
        write_run(
            lambda t, k, s, by=shift: noisy(t, k, s) + by,
            split=split, metrics=CLIP, provenance=replace(origin, weights_id="random-clip"),
        )  # fmt: skip
    found = compare([results])
    (gap,) = found.evidence.gaps
    assert gap.value == pytest.approx(0.3)
    assert (gap.p, gap.p_corrected, gap.retention) == (None, None, None)
    assert not said(found, "imagined images")
    assert "*" not in "".join(row[2] for band in found.grids[-1].bands for row in band.rows)


def test_floors_get_no_star(results: Path, write_run: Write) -> None:
    write_run(0.9, model="random_image", metrics=CLIP)
    found = compare([results])
    assert min(row.get("p_corrected", 1.0) for row in found.rows) < 0.05
    assert "*" not in "".join(cell for band in found.grids[0].bands for row in band.rows for cell in row)


def test_sentences_and_captions_say_which_of_two_ways_of_averaging_they_are_about(
    results: Path, write_run: Write, noisy: Any, origin: Any
) -> None:
    other = replace(origin, averaging="mean of imagery run 2")
    for model in ("ridge", "icnn"):
        for split in SPLITS:
            write_run(noisy, model=model, split=split, metrics=CLIP)
        write_run(noisy, model=model, name=f"{model}-2", provenance=other, metrics=CLIP)
    found = compare([results])
    for words in ("better than chance", "told apart", "imagined images"):
        sentences = [one for one in said(found, words) if not one.startswith("Vision (")]
        assert len(sentences) == 2
        assert sum("(sim; averaging mean)" in one for one in sentences) == 1
        assert sum("(sim; averaging mean of imagery run 2)" in one for one in sentences) == 1
    (_, second) = found.grids[-1].bands
    assert "not comparable with the rows above: averaging" in second.caption


def test_a_gap_joins_only_reconstructions_from_the_same_place(
    results: Path, make_items: Any, origin: Any
) -> None:
    height = {None: 0.5, "/one": 0.6, "/two": 0.7}
    for (source, value), split in itertools.product(height.items(), SPLITS):
        items = make_items(value, split=split, metrics=CLIP, run_id=f"{split}{value}")
        leaderboard.append(results, leaderboard.summarize(items, replace(origin, source=source)))
    gaps = compare([results]).evidence.gaps
    assert {(gap.vision["source"], gap.imagery["source"]) for gap in gaps} == {(one, one) for one in height}
    assert [gap.value for gap in gaps] == [0.0] * 3


def test_selecting_two_models_makes_no_difference_between_them_more_certain(
    results: Path, write_run: Write, noisy: Any
) -> None:
    for number, model in enumerate(("first", "second", "third", "fourth")):
        write_run(
            lambda t, k, s, by=number: noisy(t, (k + by) % 10, s) - by / 30, model=model, metrics=PIXCORR
        )  # fmt: skip
    everything = compare([results])
    two = compare([results], selection=Selection(models=("first", "fourth")))
    (pair,) = two.evidence.pairs
    assert pair in everything.evidence.pairs
    assert pair.p_column > pair.p
    assert first_cells(two)[:2] == ["first", "fourth"]


def test_letters_of_a_selection_start_with_a(results: Path, write_run: Write, noisy: Any) -> None:
    for number, model in enumerate(("first", "second", "third")):
        write_run(lambda t, k, s, by=number: noisy(t, k, s) - by / 3, model=model, metrics=PIXCORR)
    found = compare([results], selection=Selection(models=("second", "third")))
    letters = [row[1].split("\n")[0].split()[-1] for row in found.grids[0].bands[0].rows]
    assert letters == ["a", "b"]


def test_orders_that_are_the_reverse_of_each_other_are_called_so(results: Path, write_run: Write) -> None:
    metrics = (*PIXCORR, ("ssim", "none"))
    for number in range(6):
        for split, sign in (("vision", 1), ("imagery", -1)):
            write_run(0.5 + sign * number / 20, model=f"model{number}", split=split, metrics=metrics)
    found = compare([results])
    (overall,) = said(found, "decoupled")
    assert "In general one is the reverse of the other" in overall
    (single,) = said(found, "metric by metric")
    assert "agreement is shown on no metric; they are opposite on pixcorr (rho -1.0, p .003), ssim" in single
    assert "neither agreement" not in single


@pytest.fixture
def write_stored(write_run: Write) -> Callable[..., None]:
    """Factory of runs on ``n`` shared images with the similarities of one metric beside them."""

    def write(r: Any, *, other: Any = None, **more: Any) -> None:
        targets = tuple(f"{i:05d}" for i in range(len(r)))
        scores = dict(zip(targets, two_way(r[:, :, 0], np.arange(len(r))).tolist(), strict=True))
        folder = write_run(
            lambda t, k, s: scores[t],
            split="shared1000", targets=targets, n_samples=1, metrics=(("clip", f"all{len(r)}"),), **more,
        )  # fmt: skip
        stored = similarity.Similarities({"clip": r if other is None else other}, targets, targets)
        similarity.write(folder / similarity.file_name("nsdbench-v1"), stored)

    return write


def test_similarities_of_other_scores_are_refused(
    results: Path, write_stored: Callable[..., None], rng: np.random.Generator
) -> None:
    write_stored(rng.normal(size=(20, 20, 1)), other=10 * np.eye(20)[:, :, None])
    with pytest.raises(
        DataError, match=r"clip, pool all20, is .*, but the similarities beside it give 1\.0000"
    ):
        compare([results])


def test_similarities_without_a_target_of_the_set_are_refused(results: Path, write_run: Write) -> None:
    pool = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
    folder = write_run(0.5, metrics=CLIP, targets=pool[:6], metric_profile="mindeye")
    stored = similarity.Similarities({"clip": np.zeros((12, 6, 1))}, pool, pool[6:])
    similarity.write(folder / similarity.file_name("mindeye"), stored)
    with pytest.raises(DataError, match="none of the targets of set A"):
        compare([results])


def test_a_similarity_file_of_many_targets_is_read_once(
    results: Path,
    write_stored: Callable[..., None],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for subject in (1, 2, 5):
        write_stored(rng.normal(size=(20, 20, 1)), subject=subject)
    read: list[Path] = []
    plain = similarity.read

    def counted(path: Path) -> similarity.Similarities:
        read.append(path)
        return plain(path)

    monkeypatch.setattr(similarity, "read", counted)
    found = compare([results])
    assert {row["test"] for row in found.rows} == {"label permutation"}
    assert len(read) == 3


def test_in_how_many_people_is_said_only_of_what_is_above_chance_after_correction(
    results: Path, write_stored: Callable[..., None], origin: Any
) -> None:
    clear = 10 * np.eye(20)[:, :, None]
    for subject in (1, 2, 5):
        write_stored(clear, subject=subject)
        untrained = replace(origin, weights_id="random-clip")
        write_stored(clear, subject=subject, model="icnn", provenance=untrained)
    found = compare([results])
    assert all(row["prevalence_bound"] for row in found.rows if row["subject"] == "mean")
    (people,) = said(found, "share of people")
    assert "ridge" in people
    assert "icnn" not in people
