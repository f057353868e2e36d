"""What may stand beside what, vision against imagery, and the tables people read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from nsdbench import leaderboard
from nsdbench.compare import Comparison, Selection, compare
from nsdbench.comparison import results, tables
from nsdbench.comparison.blocks import labels
from nsdbench.comparison.gap import gaps
from nsdbench.comparison.scores import ScoreIndex
from nsdbench.comparison.tables import Band, Grid
from nsdbench.errors import LeaderboardError, UsageError
from nsdbench.schema import Provenance

TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))

Make = Callable[..., pa.Table]
Write = Callable[..., Path]


def text_of(found: Comparison) -> str:
    return "\n".join(tables.text(grid) for grid in found.grids)


def test_means_over_subjects_are_computed_from_run_folders(tmp_path: Path, write_run: Write) -> None:
    write_run(0.2, subject=1)
    write_run(0.4, subject=2)
    found = compare([tmp_path / "runs"])
    values = {
        row["subject"]: row["value"]
        for row in found.rows
        if row["metric"] == "pixcorr" and row["stimulus_set"] == "AB"
    }
    assert values == {"1": pytest.approx(0.2), "2": pytest.approx(0.4), "mean": pytest.approx(0.3)}
    assert "mean of 2 subjects" in found.grids[0].title


def test_vision_and_imagery_never_share_a_table_of_models(tmp_path: Path, write_run: Write) -> None:
    for split in ("vision", "imagery", "shared1000"):
        write_run(0.2, split=split)
    titles = [grid.title.split(":")[0] for grid in compare([tmp_path / "runs"]).grids]
    assert titles == ["VISION", "IMAGERY", "SHARED1000", "VISION AGAINST IMAGERY"]


def test_floors_stand_below_the_models_and_get_no_rank(tmp_path: Path, write_run: Write) -> None:
    for model, value in (("mean_image", 0.9), ("ridge", 0.2), ("icnn", 0.3)):
        write_run(value, model=model)
    models, floors = compare([tmp_path / "runs"]).grids[0].bands
    assert [(row[0].split("\n")[0], row[-1]) for row in models.rows] == [("icnn", "1.0"), ("ridge", "2.0")]
    assert [(row[0].split("\n")[0], row[-1]) for row in floors.rows] == [
        ("mean_image", ""), ("chance", ""), ("set only", ""),
    ]  # fmt: skip


def test_lower_is_better_for_distances_in_ranks(tmp_path: Path, write_run: Write) -> None:
    for model, value in (("ridge", 0.9), ("icnn", 0.3)):
        write_run(value, model=model, metrics=(("effnet", "none"),))
    models = compare([tmp_path / "runs"]).grids[0].bands[0]
    assert [row[0].split("\n")[0] for row in models.rows] == ["icnn", "ridge"]


def test_other_protocols_stand_apart_and_say_what_differs(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.2, model="ridge")
    write_run(0.3, model="icnn")
    write_run(0.9, model="takagi", provenance=replace(origin, normalization="none"))
    bands = compare([tmp_path / "runs"]).grids[0].bands
    apart = next(band for band in bands if band.caption)
    assert apart.caption == "not comparable with the rows above: normalization none instead of run_z"
    assert [(row[0].split("\n")[0], row[-1]) for row in apart.rows] == [("takagi", "")]


def test_other_data_behind_equal_settings_stand_apart_too(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.2, model="ridge")
    write_run(0.3, model="icnn", provenance=replace(origin, dataset_hash="other"))
    caption = compare([tmp_path / "runs"]).grids[0].bands[2].caption
    assert caption.endswith("other stimuli, data or subjects behind the same settings")


def test_the_newest_of_two_equal_runs_counts_and_the_note_says_so(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.2, name="old", provenance=replace(origin, created_at="2026-01-01"))
    write_run(0.7, name="new", provenance=replace(origin, created_at="2026-01-02"))
    found = compare([tmp_path / "runs"])
    assert {row["run_id"] for row in found.rows} == {"new"}
    assert "1 older run(s)" in found.notes[0]


def test_leaderboard_rows_of_the_same_runs_are_not_shown_twice(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    folder = write_run(0.2)
    rows = leaderboard.summarize(leaderboard.read_items(folder), origin)
    leaderboard.append(tmp_path / "runs" / "leaderboard" / "imagery", rows)
    assert len(compare([tmp_path / "runs"]).rows) == len(rows)


def test_a_leaderboard_directory_alone_can_be_compared(
    tmp_path: Path, make_items: Make, origin: Provenance
) -> None:
    for model in ("ridge", "icnn"):
        leaderboard.append(tmp_path, leaderboard.summarize(make_items(0.2, model=model), origin))
    models = compare([tmp_path]).grids[0].bands[0]
    assert [row[0].split("\n")[0] for row in models.rows] == ["icnn", "ridge"]


def test_unfinished_runs_are_left_out_with_a_note(tmp_path: Path, write_run: Write) -> None:
    write_run(0.2)
    write_run(0.9, model="icnn", status="failed")
    found = compare([tmp_path / "runs"])
    assert {row["model"] for row in found.rows} == {"ridge"}
    assert "1 unfinished run(s)" in found.notes[0]


def test_an_unfinished_run_named_directly_is_an_error(write_run: Write) -> None:
    with pytest.raises(LeaderboardError, match="status 'started'"):
        compare([write_run(status="started")])


def test_a_selection_that_matches_nothing_says_what_there_is(tmp_path: Path, write_run: Write) -> None:
    write_run()
    with pytest.raises(UsageError) as caught:
        compare([tmp_path / "runs"], selection=Selection(metrics=("clip",)))
    assert "alexnet2, pixcorr" in caught.value.remedy


@pytest.mark.parametrize(
    ("selection", "name"),
    [(Selection(metrics=("pixcorr", "pixcor")), "pixcor"), (Selection(pools=("AB21",)), "AB21")],
)
def test_a_name_that_no_result_has_is_refused_even_beside_one_that_exists(
    tmp_path: Path, write_run: Write, selection: Selection, name: str
) -> None:
    write_run()
    with pytest.raises(UsageError) as caught:
        compare([tmp_path / "runs"], selection=selection)
    assert caught.value.message == f"no result has {name}"
    assert "pixcorr" in caught.value.remedy


def test_pools_select_identification_and_keep_pair_metrics(tmp_path: Path, write_run: Write) -> None:
    write_run(metrics=(("pixcorr", "none"), ("alexnet2", "AB12"), ("alexnet2", "within6")))
    found = compare([tmp_path / "runs"], selection=Selection(pools=("within6",)))
    assert {(row["metric"], row["pool"]) for row in found.rows} == {
        ("pixcorr", "none"),
        ("alexnet2", "within6"),
    }


def test_the_honest_pool_has_a_table_of_its_own(tmp_path: Path, write_run: Write) -> None:
    write_run(metrics=(("pixcorr", "none"), ("alexnet2", "AB12"), ("alexnet2", "within6")))
    titles = [grid.title for grid in compare([tmp_path / "runs"]).grids]
    assert ["pool AB12" in titles[0], "pool within6" in titles[1], len(titles)] == [True, True, 2]


def test_what_only_some_models_give_has_tables_of_its_own(tmp_path: Path, write_run: Write) -> None:
    write_run(
        metrics=(
            ("pixcorr", "none"), ("alexnet2", "AB12"), ("alexnet2", "within6"), ("caption_rouge1", "none"),
            ("retrieval_image_top1", "AB12"), ("retrieval_image_top1", "within6"),
        )
    )  # fmt: skip
    headers = [grid.header[1:] for grid in compare([tmp_path / "runs"]).grids]
    shown = [tuple("".join(cell.split()).rstrip("↑") for cell in header) for header in headers]
    assert shown == [
        ("pixcorr", "alexnet2"),
        ("alexnet2",),
        ("retrievalimage_top1",),
        ("retrievalimage_top1",),
        ("captionrouge1",),
    ]


def test_what_only_some_models_give_comes_after_everything_about_images(
    tmp_path: Path, write_run: Write
) -> None:
    for split in ("vision", "imagery"):
        write_run(split=split, metrics=(("pixcorr", "none"), ("retrieval_image_top1", "AB12")))
    found = compare([tmp_path / "runs"])
    about = ["pixcorr" in "".join(grid.header) for grid in found.grids]
    assert about == [True, True, True, False, False, False]  # vision, imagery and the gap of each
    assert any(note.startswith("Retrieval: one embedding") for note in found.notes)


def test_the_gap_is_positive_where_vision_is_better_also_for_distances(
    tmp_path: Path, write_run: Write
) -> None:
    metrics = (("pixcorr", "none"), ("effnet", "none"))
    for subject in (1, 2):
        write_run(lambda t, k, s: 0.6, subject=subject, split="vision", metrics=metrics)
        write_run(lambda t, k, s: 0.4, subject=subject, split="imagery", metrics=metrics)
    found = results.collect([tmp_path / "runs"])
    rows = [row for row in found.rows if row["subject"] == "mean" and row["stimulus_set"] == "AB"]
    values = {gap.metric: (gap.value, gap.low, gap.high) for gap in gaps(ScoreIndex(found), rows)}
    assert values["pixcorr"] == pytest.approx((0.2, 0.2, 0.2))
    assert values["effnet"] == pytest.approx((-0.2, -0.2, -0.2))


def test_the_gap_interval_pairs_targets(tmp_path: Path, write_run: Write, noisy: Any) -> None:
    """Difficulty that both splits share cancels; resampling them separately would not see that."""
    write_run(lambda t, k, s: noisy(t, 0, s) + 0.1, split="vision")
    write_run(lambda t, k, s: noisy(t, 0, s), split="imagery")
    found = results.collect([tmp_path / "runs"])
    rows = [row for row in found.rows if row["stimulus_set"] == "AB"]
    for gap in gaps(ScoreIndex(found), rows):
        assert (gap.low, gap.high) == pytest.approx((0.1, 0.1))
        assert gap.vision["ci_high"] - gap.vision["ci_low"] > 0.02


def test_splits_prepared_differently_have_no_gap(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(split="vision")
    write_run(split="imagery", provenance=replace(origin, normalization="none"))
    found = results.collect([tmp_path / "runs"])
    assert gaps(ScoreIndex(found), found.rows) == []


def test_without_item_scores_the_gap_has_no_interval(
    tmp_path: Path, make_items: Make, origin: Provenance
) -> None:
    for split, value in (("vision", 0.6), ("imagery", 0.4)):
        leaderboard.append(tmp_path, leaderboard.summarize(make_items(value, split=split), origin))
    found = results.collect([tmp_path])
    assert {(round(gap.value, 9), gap.low, gap.high) for gap in gaps(ScoreIndex(found), found.rows)} == {
        (0.2, None, None)
    }


def test_published_gaps_equal_the_mean_drop_of_the_reference_figures() -> None:
    """Mean drop over the four systems of the paper: published-results, section 3."""
    found = results.collect(results.published_files())
    papers = ("mindeye1", "brain_diffuser", "icnn", "mindeye2")
    rows = [
        r for r in found.rows if r["model"] in papers and r["subject"] == "mean" and r["stimulus_set"] == "AB"
    ]
    drops: dict[str, list[float]] = {}
    for gap in gaps(ScoreIndex(found), rows):
        drops.setdefault(gap.metric, []).append(gap.value)
        if gap.vision["source"].startswith("mirage"):
            assert gap.low is not None
            assert gap.low < gap.value < gap.high  # type: ignore[operator]
    expected = {
        "pixcorr": 0.1043,
        "ssim": 0.0567,
        "alexnet2": 0.1645,
        "alexnet5": 0.2063,
        "inception": 0.1177,
    }
    expected |= {"clip": 0.0933, "effnet": 0.0606, "swav": 0.0502, "brain_corr_evc": 0.2298}
    for metric, drop in expected.items():
        assert np.mean(drops[metric]) == pytest.approx(drop, abs=1e-4), metric


@pytest.fixture(scope="module")
def published() -> Comparison:
    """The published results alone."""
    return compare([], published=True)


def test_the_published_rank_agreement_is_that_of_scipy_and_of_the_reference(published: Comparison) -> None:
    """Spearman over all 8 systems: published-results, section 3."""
    grid = next(grid for grid in published.grids if grid.title.startswith("VISION AGAINST IMAGERY"))
    row = next(row for band in grid.bands for row in band.rows if row[0].startswith("order of 8"))
    rho = dict(
        zip(
            [cell.split()[0] for cell in grid.header[2:]],
            (float(c.split("\n")[0]) for c in row[2:]),
            strict=True,
        )
    )
    reference = {"pixcorr": 0.81, "ssim": 0.976, "alexnet2": 0.643, "alexnet5": 0.381, "inception": 0.238}
    reference |= {"clip": 0.714, "effnet": 0.81, "swav": 0.667}
    assert rho == pytest.approx(reference, abs=0.0051)
    means = {(r["model"], r["split"]): r["value"] for r in published.rows
             if r["metric"] == "clip" and r["subject"] == "mean" and r["stimulus_set"] == "AB" and r["run_id"]}  # fmt: skip
    models = sorted({model for model, _ in means})
    sides = [[means[model, split] for model in models] for split in ("vision", "imagery")]
    assert rho["clip"] == pytest.approx(scipy.stats.spearmanr(*sides).statistic, abs=0.0051)


def test_published_values_are_labelled_and_carry_their_profile(published: Comparison) -> None:
    own = [grid for grid in published.grids if "AS PUBLISHED" not in grid.title]
    assert own == []
    captions = [band.caption for grid in published.grids for band in grid.bands]
    assert all("profile" in caption for caption in captions)


def test_published_rows_are_never_in_a_table_with_the_users_own(tmp_path: Path, write_run: Write) -> None:
    write_run(0.2, model="mindeye2")
    found = compare([tmp_path / "runs"], published=True)
    first = found.grids[0]
    assert "AS PUBLISHED" not in first.title
    assert [row[0].split("\n")[0] for row in first.bands[0].rows] == ["mindeye2"]


def test_corrected_scores_are_shown_apart_with_chance_one_half(published: Comparison) -> None:
    grid = next(g for g in published.grids if "corrected" in g.title and g.title.startswith("IMAGERY"))
    chance = next(row for row in grid.bands[0].rows if row[0] == "chance")
    assert chance[1:5] == (".500",) * 4
    as_run = next(g for g in published.grids if g.title.startswith("IMAGERY") and g != grid)
    assert ".409" in next(row for row in as_run.bands[0].rows if row[0] == "chance")


def test_every_table_of_the_published_results_fits_120_columns(published: Comparison) -> None:
    assert max(len(line) for line in text_of(published).splitlines()) <= 120


@pytest.mark.parametrize("status", ["simulated", "untrained"])
def test_labels_are_shown_beside_the_model_in_every_format(
    tmp_path: Path, write_run: Write, origin: Provenance, status: str
) -> None:
    write_run(provenance=replace(origin, status=status))
    found = compare([tmp_path / "runs"])
    for rendered in (text_of(found), tables.markdown(found.grids[0]), tables.html_table(found.grids[0])):
        assert status in rendered
    assert all(row["labels"] == [status] for row in found.rows)


def test_missing_targets_make_a_row_partial(tmp_path: Path, write_run: Write) -> None:
    write_run(targets=("A1", "A2", "B1"))
    row = next(row for row in compare([tmp_path / "runs"]).rows if row["stimulus_set"] == "AB")
    assert labels(row) == ["simulated", "partial"]


def test_numbers_are_short() -> None:
    assert [tables.number(v) for v in (0.6741, -0.0356, 1.0, -0.0001, 12.345, 97.12, None)] == [
        ".674", "-.036", "1.00", ".000", "12.3", "97.1", "\N{EN DASH}",
    ]  # fmt: skip
    assert tables.interval(0.607, 0.731) == "[.61,.73]"
    assert tables.interval(None, 0.5) == ""


def test_html_escapes_what_users_name_their_models() -> None:
    grid = tables.Grid("a<b", ("model", "x"), (tables.Band((("<script>", "1"),), "c&d"),))
    page = tables.html_page("t", [grid], ["x<y"], ["n<m"])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a&lt;b" in page
    assert "x&lt;y" in page


def test_a_pipe_in_a_cell_does_not_break_a_markdown_table() -> None:
    grid = tables.Grid("t", ("model", "x"), (tables.Band((("a|b", "1"),)),))
    assert "| a\\|b | 1 |" in tables.markdown(grid)


def test_own_reconstructions_have_a_gap_wherever_they_lay(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.6, split="vision", provenance=replace(origin, source="/somewhere/seen"))
    write_run(0.4, split="imagery", provenance=replace(origin, source="/elsewhere"))
    assert "VISION AGAINST IMAGERY" in compare([tmp_path / "runs"]).grids[-1].title


def test_there_is_no_gap_between_different_targets(tmp_path: Path, write_run: Write) -> None:
    write_run(0.6, split="vision", targets=TARGETS[1:], metrics=(("pixcorr", "none"),))
    write_run(0.4, split="imagery", targets=TARGETS[:-1], metrics=(("pixcorr", "none"),))
    found = compare([tmp_path / "runs"], selection=Selection(metrics=("pixcorr",)))
    assert not [grid for grid in found.grids if "AGAINST" in grid.title]


def test_one_imagery_run_has_a_gap_of_its_own_beside_that_of_both(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.6, split="vision")
    write_run(0.4, split="imagery")
    half = replace(origin, averaging="mean of imagery run 2")
    write_run(0.3, split="imagery", name="half", provenance=half)
    found = compare([tmp_path / "runs"], selection=Selection(metrics=("pixcorr",)))
    gaps = [row[2].split("\n")[:3] for band in found.grids[-1].bands for row in band.rows]
    assert sorted(gaps) == [[".600", ".300", ".300*"], [".600", ".400", ".200*"]]


def test_scores_of_half_the_imagery_runs_are_not_ranked_with_the_others(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.4)
    write_run(0.3, model="icnn", provenance=replace(origin, averaging="mean of imagery run 2"))
    captions = [band.caption for band in compare([tmp_path / "runs"]).grids[0].bands]
    assert any("averaging mean" in caption for caption in captions)


def test_a_run_with_untrained_networks_stays_one_line_and_they_rank_nobody(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    for model, value in (("ridge", 0.9), ("icnn", 0.3)):
        random = replace(origin, weights_id="random-alexnet")
        write_run(value, model=model, provenance=random, metrics=(("alexnet2", "AB12"),))
    (band, _) = compare([tmp_path / "runs"]).grids[0].bands
    assert {row[0] for row in band.rows} == {"ridge\nuntrained, subject 1", "icnn\nuntrained, subject 1"}
    assert {row[-1] for row in band.rows} <= {".900\n[.90,.90]", ".300\n[.30,.30]"}  # no column of ranks


def test_pixel_metrics_of_a_run_with_untrained_networks_share_its_line(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    write_run(0.5, provenance=replace(origin, weights_id="random-alexnet"))
    (band, _) = compare([tmp_path / "runs"]).grids[0].bands
    (row,) = band.rows
    assert row[0].replace("\n", " ") == "ridge simulated, nets untrained, subject 1"


def test_subjects_scored_with_different_metrics_are_averaged_where_both_have_one(
    tmp_path: Path, write_run: Write, origin: Provenance
) -> None:
    more = replace(origin, weights_id="alexnet-imagenet1k-v1,clip-vit-l14-openai")
    write_run(0.2, subject=1, provenance=replace(origin, weights_id="alexnet-imagenet1k-v1"))
    write_run(0.4, subject=2, provenance=more)
    means = [
        r for r in compare([tmp_path / "runs"]).rows if r["subject"] == "mean" and r["metric"] == "alexnet2"
    ]
    assert {row["weights_id"] for row in means} == {"alexnet-imagenet1k-v1"}


def test_markdown_takes_no_name_for_html() -> None:
    grid = Grid("a <script>", ("model",), (Band((("<b>x</b>",),), "from <i>"),))
    assert "<" not in tables.markdown(grid).replace("&lt;", "")


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("published", []),
        ("mini", []),
        ("retrained", ["retrained"]),
        ("retrained+750trials", ["retrained", "750trials"]),
        ("mini+195trials+pretrained-2-5-7-abcdef", ["195trials", "pretrained-2-5-7-abcdef"]),
    ],
)
def test_a_preset_is_told_where_it_is_not_the_usual_one(preset: str, told: list[str]) -> None:
    row = {"status": "measured", "stimulus_set": "AB", "pool": "AB12", "n_targets": 12, "n_items_null": 0}
    assert labels(row | {"preset": preset}) == told
