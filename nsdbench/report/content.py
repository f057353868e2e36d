"""What a report says in numbers: the comparison, cut into what may stand in one plot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsdbench import summary
from nsdbench.compare import Comparison, compare
from nsdbench.comparison import blocks
from nsdbench.comparison.blocks import GapLine, Line, Record
from nsdbench.comparison.evidence import Evidence, Order
from nsdbench.comparison.scores import column_order
from nsdbench.metrics.registry import HEADLINE
from nsdbench.report import runs as run_folders
from nsdbench.report.runs import Run
from nsdbench.report.series import Palette
from nsdbench.types import SPLITS, Progress

_SAME_SCORE = ("metric", "metric_version", "metric_profile", "pool", "stimulus_set")


@dataclass(frozen=True)
class Panel:
    """Lines of one split that may stand in one plot: wherever two share a metric, they share its protocol.

    Attributes
    ----------
    split : str
    lines : tuple of Line
        Best mean rank first, floors last.
    metrics : tuple of str
        Headline metrics where there are any, in the order of tables.
    caption : str
        What all lines have in common.
    """

    split: str
    lines: tuple[Line, ...]
    metrics: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class GapPanel:
    """The same for models on both splits, without floors; and how well their orders agree."""

    lines: tuple[GapLine, ...]
    metrics: tuple[str, ...]
    caption: str
    order: Order


@dataclass(frozen=True)
class Content:
    """Everything a report is made of, except images.

    Attributes
    ----------
    comparison : Comparison
        Tables, conclusions and notes of ``nsdbench compare``.
    palette : Palette
        How models are shown.
    panels, gap_panels : tuple
        What plots show.
    runs : mapping
        Run folders by run id.
    """

    comparison: Comparison
    palette: Palette
    panels: tuple[Panel, ...]
    gap_panels: tuple[GapPanel, ...]
    runs: Mapping[str, Run]
    _subjects: Mapping[tuple[Any, ...], tuple[Record, ...]]

    def subjects(self, row: Record) -> tuple[Record, ...]:
        """Return the rows of single subjects behind a mean over subjects; nothing for other rows."""
        return self._subjects.get(_score_key(row), ()) if row["subject"] == summary.MEAN else ()

    def runs_of(self, line: Line) -> dict[int, Run]:
        """Return the run folders behind a line by subject, as far as they are at hand."""
        rows = self.subjects(line.first) or (line.first,)
        found = (self.runs.get(row["run_id"]) for row in rows)
        return {run.manifest.key.subject: run for run in found if run}


def gather(paths: Sequence[Path], *, published: bool = False, progress: Progress | None = None) -> Content:
    """Compare all results below ``paths``.

    Raises
    ------
    UsageError
        If there are none.
    LeaderboardError, DataError
        If something is damaged.
    """
    comparison = compare(paths, published=published, progress=progress)
    both = (comparison.evidence, comparison.quoted)
    panels = tuple(panel for evidence in both for panel in _panels(evidence))
    subjects: dict[tuple[Any, ...], list[Record]] = {}
    for row in comparison.rows:
        if row["subject"] != summary.MEAN and row["value"] is not None:
            subjects.setdefault(_score_key(row), []).append(row)
    run_ids = {row["run_id"] for row in comparison.rows if row["subject"] != summary.MEAN} - {None}
    return Content(
        comparison,
        Palette(row for panel in panels for line in panel.lines for row in line.rows.values()),
        tuple(sorted(panels, key=lambda panel: SPLITS.index(panel.split))),
        tuple(panel for evidence in both for panel in _gap_panels(evidence)),
        run_folders.find(paths, run_ids),
        {key: tuple(sorted(rows, key=lambda row: row["subject"])) for key, rows in subjects.items()},
    )


def _panels(evidence: Evidence) -> Iterator[Panel]:
    for place, contests in evidence.contests.items():
        for contest in contests if _is_main(place.family) else ():
            metrics = _chosen(contest.lines)
            lines = [Line(rows) for line in contest.lines if (rows := _plotted(line, metrics))]
            if lines:
                models = [line for line, _ in blocks.by_rank([line for line in lines if not line.is_floor])]
                floors = sorted((line for line in lines if line.is_floor), key=lambda line: line.model)
                yield Panel(place.split, (*models, *floors), _metrics(lines), caption(lines))


def _gap_panels(evidence: Evidence) -> Iterator[GapPanel]:
    for place, orders in evidence.orders.items():
        for order in orders if _is_main(place.family) else ():
            metrics = _chosen([line.vision for line in order.lines])
            cut = (GapLine({m: line.gaps[m] for m in _plotted(line.vision, metrics)}) for line in order.lines)
            lines = tuple(line for line in cut if line.gaps)
            if lines:
                sides = [line.vision for line in lines]
                yield GapPanel(lines, _metrics(sides), caption(sides), order)


def _is_main(family: tuple[int, bool, bool]) -> bool:
    """Whether metrics are of images, as they are, in their headline pool."""
    return family == (0, False, False)


def _chosen(lines: Sequence[Line]) -> frozenset[str]:
    """Return the headline metrics; all metrics where none of the headline ones identifies anything."""
    found = frozenset(metric for line in lines for metric in line.rows)
    main = frozenset(metric for metric in found if metric.removeprefix("mini_") in HEADLINE)
    return main if any(summary.kind(metric) == "identification" for metric in main) else found


def _plotted(line: Line, metrics: Collection[str]) -> dict[str, Record]:
    """Return the rows that are plotted; of published results those with item scores."""
    return {
        metric: row
        for metric, row in line.rows.items()
        if metric in metrics
        and row["value"] is not None
        and (row["status"] != "published" or row["ci_low"] is not None)
    }


def _metrics(lines: Sequence[Line]) -> tuple[str, ...]:
    return tuple(sorted({metric for line in lines for metric in line.rows}, key=column_order))


def _score_key(row: Record) -> tuple[Any, ...]:
    same = blocks.settings(row)
    # where the reconstructions of single subjects lay is no property of their mean
    same = same if row["status"] == "published" else same[:-1]
    return (*same, *(row[name] for name in _SAME_SCORE))


def caption(lines: Sequence[Line]) -> str:
    """Say in a few words what lines are about, as far as they agree: source, data set, targets, subjects."""
    first = lines[0].first
    if first["status"] == "published":
        about = [f"published: {first['source'].partition(' | ')[0]}", f"profile {first['metric_profile']}"]
    else:
        about = [f"data set {first['dataset']}"]
    return blocks.facts(lines, *about, samples=False)
