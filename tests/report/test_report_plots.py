"""Plots as parts of a page."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.report import plots, svg
from nsdbench.report.gallery import evenly
from nsdbench.report.plots import Pair, Score, Trace, Value
from nsdbench.report.series import Palette, Series

BLUE = Series("ridge", svg.SERIES[0], "o", is_floor=False)
RED = Series("icnn", svg.SERIES[1], "s", is_floor=False)


def ids(drawing: str) -> list[str]:
    return re.findall(r'\bid="([^"]*)"', drawing)


def test_ids_begin_with_the_name_and_every_reference_has_its_target() -> None:
    drawing = plots.scores("plot7", "ssim", [Score(BLUE, Value(0.5, 0.4, 0.6)), Score(RED, Value(0.3))])
    used = set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', drawing))
    assert ids(drawing) and all(one.startswith("plot7-") for one in ids(drawing))
    assert {a or b for a, b in used} == set(ids(drawing))
    assert len(ids(drawing)) == len(set(ids(drawing)))


def test_a_figure_brings_no_style_no_metadata_and_no_fonts() -> None:
    drawing = plots.scores("p", "ssim", [Score(BLUE, Value(0.5))])
    assert not re.search(r"<style|<metadata|font-family|xmlns", drawing)


def test_colours_are_variables_of_the_page() -> None:
    drawing = plots.scores("p", "ssim", [Score(BLUE, Value(0.5, 0.4, 0.6))])
    assert "var(--s0)" in drawing and "var(--ink)" in drawing
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", drawing))


def test_no_interval_is_drawn_where_there_is_none() -> None:
    def bars(value: Value) -> int:
        drawing = plots.scores("p", "ssim", [Score(BLUE, value)])
        return len(re.findall(r"<path[^>]*stroke: var\(--s0\); stroke-opacity: 0.55", drawing))

    assert bars(Value(0.5, 0.4, 0.6)) == 1
    assert bars(Value(0.5)) == 0


def test_marks_tell_their_numbers_when_pointed_at() -> None:
    drawing = plots.scores("p", "ssim", [Score(BLUE, Value(0.5, 0.4, 0.6), 0.25)])
    titles = [title.text for title in ET.fromstring(drawing).iter("title")]
    assert titles == ["ridge .500 [.40,.60], chance .250"]


def test_a_name_with_markup_stays_a_name() -> None:
    evil = Series('<b>&"$x$', svg.SERIES[0], "o", is_floor=False)
    root = ET.fromstring(plots.scores("p", "ssim", [Score(evil, Value(0.5))]))
    assert evil.name in [text.text for text in root.iter("text")]
    assert root.attrib["aria-label"].startswith(f"ssim. {evil.name} .500")


def test_settings_of_the_user_do_not_change_a_plot() -> None:
    plain = plots.curves("p", "clip", [Trace(BLUE, (2, 3, 4), (0.9, 0.8, 0.7))])
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert plots.curves("p", "clip", [Trace(BLUE, (2, 3, 4), (0.9, 0.8, 0.7))]) == plain


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    before = dict(mpl.rcParams)
    plots.swatch("p", BLUE)
    assert dict(mpl.rcParams) == before


def test_distances_run_backwards_so_that_up_is_better() -> None:
    def heights(lower_is_better: bool) -> list[float]:
        pairs = [
            Pair(BLUE, Value(0.5), Value(0.2), Value(0.3)),
            Pair(RED, Value(0.5), Value(0.8), Value(-0.3)),
        ]
        drawing = plots.scatter("p", "swav", pairs, chance=None, lower_is_better=lower_is_better)
        groups = [g for g in ET.fromstring(drawing).iter("g") if g.find("title") is not None]
        return [float(use.attrib["y"]) for group in groups for use in group.iter("use")]

    low, high = heights(False)
    assert low > high  # SVG counts from the top
    low, high = heights(True)
    assert low < high


@pytest.mark.parametrize("n", [12, 100, 1000])
def test_curves_of_any_pool_have_ticks_at_both_ends_of_small_numbers(n: int) -> None:
    m = tuple(range(2, n + 1))
    root = ET.fromstring(plots.curves("p", "clip", [Trace(BLUE, m, tuple(1 / size for size in m))]))
    texts = [text.text for text in root.iter("text")]
    assert "2" in texts and str(n) in texts


@given(st.lists(st.floats(1, 8), min_size=1, max_size=10), st.floats(0.05, 0.5))
def test_labels_keep_their_distance_and_their_order(values: list[float], step: float) -> None:
    places = plots._spread(values, step)
    ordered = sorted(range(len(values)), key=lambda i: (values[i], places[i]))
    gaps = [places[b] - places[a] for a, b in itertools.pairwise(ordered)]
    assert all(gap >= step * 0.99 for gap in gaps)


def row(model: str, preset: str = "mini", status: str = "simulated") -> dict[str, str]:
    return {"model": model, "preset": preset, "status": status}


def test_every_model_has_a_mark_of_its_own() -> None:
    rows = [row(f"model{i}", status="published") for i in range(40)]
    palette = Palette(rows)
    marks = {(series.colour, series.marker) for series in palette.series.values()}
    assert len(marks) == 40


def test_presets_are_named_only_where_there_are_several() -> None:
    palette = Palette([row("icnn"), row("icnn", "mini+100trials"), row("ridge")])
    assert list(palette.series) == ["icnn mini", "icnn mini+100trials", "ridge"]


def test_published_models_share_the_mark_of_the_readers_own() -> None:
    assert list(Palette([row("icnn"), row("icnn", "published", "published")]).series) == ["icnn"]


@given(st.integers(1, 60), st.integers(1, 20))
def test_targets_are_chosen_evenly_with_both_ends(n: int, wanted: int) -> None:
    ids = [f"{i:03d}" for i in range(n)]
    chosen = [int(one) for one in evenly(ids, wanted)]
    assert len(chosen) == min(n, wanted) == len(set(chosen))
    assert chosen == sorted(chosen) and chosen[0] == 0
    if len(chosen) > 1:
        steps = {b - a for a, b in itertools.pairwise(chosen)}
        assert chosen[-1] == n - 1 and max(steps) - min(steps) <= 1
