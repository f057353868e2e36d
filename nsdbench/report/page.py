"""From content to HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nsdbench import __version__
from nsdbench.compare import Comparison
from nsdbench.comparison.blocks import Line
from nsdbench.comparison.grids import GAP_TITLE, TITLES
from nsdbench.comparison.scores import short_name
from nsdbench.report import banner, figures
from nsdbench.report.checks import LEGEND, checked
from nsdbench.report.content import Content
from nsdbench.report.figures import Numbered, Sheet
from nsdbench.report.gallery import Choice, Wall
from nsdbench.report.provenance import provenance
from nsdbench.report.tables import Table, tables
from nsdbench.types import SPLITS

T = TypeVar("T")
TITLE = "nsdbench report"
HEADINGS = {
    "vision": ("Vision", "NSD-Imagery targets while they are seen."),
    "imagery": ("Imagery", "The same NSD-Imagery targets while they are imagined, with nothing but a cue on the screen."),
    "shared1000": ("Shared1000", "Shared images of core NSD while they are seen."),
}  # fmt: skip
_LEGEND = (
    "Marks are scores, bars their 95 % intervals over targets, the dashed line (or, where it depends on the model, the "
    "small stroke) is chance."
)
_SUBJECTS = (
    " Small dots are single subjects, in ascending order from top to bottom; thin bars are intervals over new subjects "
    "as well as new targets."
)


@dataclass(frozen=True)
class Part:
    """The section of one split."""

    id: str
    title: str
    intro: str
    tables: tuple[Table, ...]
    sheets: tuple[Sheet, ...]
    legend: str


@dataclass(frozen=True)
class GapPart:
    """The section about vision against imagery."""

    tables: tuple[Table, ...]
    scatters: tuple[Sheet, ...]
    slopes: tuple[Sheet, ...]


def page(content: Content, walls: Iterable[Wall], choice: Choice) -> str:
    """Return the whole page."""
    names = Numbered()
    sections = {
        "conclusions": _conclusions(content.comparison),
        "splits": [part for split in SPLITS if (part := _part(content, split, names))],
        "gap": GapPart(
            _tables(content, GAP_TITLE),
            tuple(figures.gap_sheets(content, names)),
            tuple(figures.slope_sheets(content, names)),
        ),
        "curves": _by_split(figures.curve_sheets(content, names)),
        "galleries": _by_split((wall.split, wall) for wall in walls),
        "checks": checked(content.runs.values()),
        "origin": provenance(content.runs.values()) if content.runs else None,
    }
    return _environment().get_template("page.html").render(
        sections,
        title=TITLE,
        summary=banner.summary(content),
        notices=banner.notices(content, stimuli=choice.stimuli),
        check_legend=LEGEND,
        notes=content.comparison.notes,
        version=__version__,
    )  # fmt: skip


def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("nsdbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["soft"] = _soft
    return found


def _by_split(members: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """Gather what belongs to a split under its heading."""
    found: dict[str, list[T]] = {}
    for split, member in members:
        found.setdefault(HEADINGS[split][0], []).append(member)
    return found


def _conclusions(comparison: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """Return sentences under headings: what is said of published results is folded beside results of one's own."""
    own, quoted = comparison.own_conclusions, comparison.published_conclusions
    found = [("", own), ("From published results", quoted)] if own else [("", quoted)]
    return [(title, listed) for title, listed in found if listed]


def _part(content: Content, split: str, names: Numbered) -> Part | None:
    title, intro = HEADINGS[split]
    found = _tables(content, TITLES[split])
    if not found:
        return None
    several = any(panel.split == split and _has_subjects(content, panel.lines) for panel in content.panels)
    return Part(
        id=split,
        title=title,
        intro=intro,
        tables=found,
        sheets=tuple(figures.score_sheets(content, split, names)),
        legend=_LEGEND + (_SUBJECTS if several else ""),
    )


def _has_subjects(content: Content, lines: Sequence[Line]) -> bool:
    return any(content.subjects(row) for line in lines for row in line.rows.values())


def _tables(content: Content, title: str) -> tuple[Table, ...]:
    models = {short_name(row) for row in content.comparison.rows}
    return tables(content.comparison.grids, title, models)


def _soft(name: str) -> Markup:
    """Allow a long name to break after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))
