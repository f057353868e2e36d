"""Tables of the comparison, tidied for a page."""

from __future__ import annotations

from nsdbench.comparison.grids import GAP_TITLE, TITLES
from nsdbench.comparison.tables import Band, Grid
from nsdbench.report.tables import Cell, Table, tables

TITLE = TITLES["vision"]


def grid(
    *rows: tuple[str, ...], title: str = f"{TITLE} (sim, pool AB12, subject 1)", notes: tuple[str, ...] = ()
) -> Grid:
    return Grid(title, ("model", "mini\nclip ↑"), (Band(rows),), notes)


def only(*grids: Grid, title: str = TITLE) -> Table:
    (found,) = tables(grids, title, {"icnn", "ridge"})
    return found


def test_labels_that_all_models_share_are_said_once() -> None:
    found = only(
        grid(
            ("icnn\nsimulated, 10 samples,\nsubject 1", ".9"), ("ridge\nsimulated, 1 sample, subject 1", ".8")
        )
    )
    assert found.facts == "sim, pool AB12, subject 1, simulated"
    assert [row[0] for row in found.sections[0].rows] == [
        Cell("icnn", "", "", ("10 samples",)), Cell("ridge", "", "", ("1 sample",)),
    ]  # fmt: skip


def test_rows_that_are_no_models_neither_have_labels_nor_hide_them() -> None:
    found = only(grid(("icnn\nsimulated", ".9"), ("order of 6\nmodels", ".8"), ("chance", ".5")))
    assert "simulated" in found.facts
    assert [row[0].value for row in found.sections[0].rows] == ["icnn", "order of 6 models", "chance"]


def test_values_are_told_from_stars_letters_and_intervals() -> None:
    found = only(grid(("icnn", ".950* ab\n[.90,.99]"), ("ridge", "1.05  b"), ("chance", ".866-1.03")))
    cells = [row[1] for row in found.sections[0].rows]
    assert cells == [
        Cell(".950", "*", "ab", ("[.90,.99]",)), Cell("1.05", "", "b", ()), Cell(".866-1.03", "", "", ()),
    ]  # fmt: skip
    assert found.columns[1].stars and found.columns[1].letters == 2
    assert found.columns[0].width == 0 < found.columns[1].width


def test_a_star_below_the_first_line_makes_room_too() -> None:
    assert only(grid(("icnn", ".9\n.8\n.100*\n[.05,.20]"))).columns[1].stars


def test_only_grids_of_the_title_are_taken_and_notes_stand_once() -> None:
    gap = grid(("icnn", ".9"), title=f"{GAP_TITLE} (pool AB12)", notes=("about gaps",))
    first, second = (grid(("icnn", ".9"), notes=("a note", other)) for other in "xy")
    found = tables([gap, first, second], TITLE, {"icnn"})
    assert [table.notes for table in found] == [("a note", "x"), ("y",)]
    assert only(gap, first, title=GAP_TITLE).of_gaps


def test_headings_say_what_kind_of_scores_these_are() -> None:
    within = grid(("icnn", ".9"), title=f"{TITLE} (sim, pool within6)")
    published = grid(("icnn", ".9"), title=f"{TITLE}, AS PUBLISHED")
    retrieval = Grid(f"{TITLE} (sim)", ("model", "retrieval\nimage_top1 ↑"), (Band((("icnn", ".5"),)),))
    assert [only(one).heading for one in (within, published, retrieval)] == [
        "Scores within sets", "Scores, published", "Retrieval",
    ]  # fmt: skip
    assert only(published).published and not only(within).published
