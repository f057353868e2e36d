"""The tables of ``nsdbench compare`` for a page: a heading of their own, and what all rows share said once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from nsdbench import summary
from nsdbench.comparison.grids import GAP_TITLE
from nsdbench.comparison.tables import Band, Grid, Row

_PUBLISHED = "AS PUBLISHED"
_HEADINGS = {"retrieval": "Retrieval", "caption": "Captions"}
_MARKED = re.compile(
    r"(\S+?)(\*?)(?: +([a-z]*))? *"
)  # value, star, letters of models that cannot be told apart


@dataclass(frozen=True)
class Cell:
    """A cell: its first line as value and marks, then further lines."""

    value: str
    star: str
    letters: str
    more: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Rows that belong together."""

    caption: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Column:
    """A column: the lines of its name, whether any cell has a star, how many letters the widest cell has."""

    header: tuple[str, ...]
    stars: bool = False
    letters: int = 0

    @property
    def width(self) -> float:
        """Room for stars and letters beside the values, in units of the font size."""
        return round(0.5 * self.stars + (0.3 + 0.52 * self.letters if self.letters else 0), 2)


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes
    ----------
    heading, facts : str
        What it is, and what all of it is about.
    columns : tuple of Column
    sections : tuple of Section
    notes : tuple of str
        Those of the grid that no table before it has.
    published, of_gaps : bool
        Whether it quotes others; whether rows are about vision, imagery and their gap.
    """

    heading: str
    facts: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    published: bool = False
    of_gaps: bool = False


def tables(grids: Iterable[Grid], title: str, models: Collection[str]) -> tuple[Table, ...]:
    """Return those of ``grids`` whose titles begin with ``title``.

    Parameters
    ----------
    grids : iterable of Grid
        From :func:`nsdbench.compare.compare`.
    title : str
    models : collection of str
        First lines of the rows that have labels below the model.
    """
    found: list[Table] = []
    said: set[str] = set()
    for grid in grids:
        if grid.title.startswith(title):
            notes = tuple(note for note in grid.notes if note not in said)
            said.update(notes)
            found.append(_table(grid, title, models, notes))
    return tuple(found)


def _table(grid: Grid, title: str, models: Collection[str], notes: tuple[str, ...]) -> Table:
    labels = {row: _labels(row) for band in grid.bands for row in band.rows if _name(row) in models}
    common = [one for one in next(iter(labels.values()), []) if all(one in of for of in labels.values())]
    facts = grid.title.removeprefix(title).strip(" ,()")
    facts = ", ".join([facts, *(label for label in common if label not in facts.split(", "))])
    sections = tuple(_section(band, labels, common) for band in grid.bands)
    cells = zip(*(row for section in sections for row in section.rows), strict=True)
    return Table(
        heading=_heading(grid),
        facts=facts,
        columns=tuple(_column(name, column) for name, column in zip(grid.header, cells, strict=True)),
        sections=sections,
        notes=notes,
        published=_PUBLISHED in grid.title,
        of_gaps=title == GAP_TITLE,
    )


def _column(name: str, cells: Sequence[Cell]) -> Column:
    stars = any(cell.star or any(line.endswith("*") for line in cell.more) for cell in cells)
    return Column(tuple(name.split("\n")), stars, max(len(cell.letters) for cell in cells))


def _heading(grid: Grid) -> str:
    metrics = [cell.replace("\n", "_").rpartition(" ")[0] for cell in grid.header[1:]]
    kinds = {summary.kind(metric) for metric in metrics}
    heading = next((name for kind, name in _HEADINGS.items() if kind in kinds), "Scores")
    if "pool within" in grid.title:
        heading += " within sets"
    return f"{heading}, published" if _PUBLISHED in grid.title else heading


def _name(row: Row) -> str:
    return row[0].partition("\n")[0]


def _labels(row: Row) -> list[str]:
    return [label for label in row[0].partition("\n")[2].replace("\n", " ").split(", ") if label]


def _section(band: Band, labels: dict[Row, list[str]], common: Sequence[str]) -> Section:
    rows = []
    for row in band.rows:
        first, *others = row
        if row in labels:
            kept = ", ".join(label for label in labels[row] if label not in common)
            name = Cell(_name(row), "", "", (kept,) if kept else ())
        else:
            name = Cell(first.replace("\n", " "), "", "", ())
        rows.append((name, *map(_cell, others)))
    return Section(band.caption, tuple(rows))


def _cell(text: str) -> Cell:
    first, *more = text.split("\n")
    marked = _MARKED.fullmatch(first)
    value, star, letters = marked.groups() if marked else (first, "", "")
    return Cell(value, star, letters or "", tuple(more))
