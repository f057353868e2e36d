"""From results to plots: which plots a report has, with their captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from markupsafe import Markup

from nsdbench import summary
from nsdbench.comparison import blocks
from nsdbench.comparison.agreement import MEAN_RANK, Agreement
from nsdbench.comparison.blocks import Line, Record
from nsdbench.comparison.gap import Gap
from nsdbench.comparison.tables import ARROWS, interval, number, p_value
from nsdbench.curves import curve
from nsdbench.errors import NsdbenchError
from nsdbench.report import plots
from nsdbench.report.content import Content, GapPanel, Panel
from nsdbench.report.plots import Pair, Score, Trace, Value
from nsdbench.report.series import Palette, Series

_BETTER = {"higher": "higher is better", "lower": "lower is better"}


@dataclass(frozen=True)
class Plot:
    """One plot: what stands above it, and itself."""

    title: str
    arrow: str
    better: str
    svg: Markup


@dataclass(frozen=True)
class Sheet:
    """Plots of comparable results.

    Attributes
    ----------
    caption : str
        What they are about.
    plots : tuple of Plot
    legend : tuple of (str, Markup)
        Names and marks of the models; empty where the plots name them.
    notes : tuple of str
        What is not shown and why.
    """

    caption: str
    plots: tuple[Plot, ...]
    legend: tuple[tuple[str, Markup], ...] = ()
    notes: tuple[str, ...] = ()


class Numbered:
    """Names for the plots of one page."""

    def __init__(self) -> None:
        self._used = 0

    def __call__(self) -> str:
        """Return the next name."""
        self._used += 1
        return f"plot{self._used}"


def score_sheets(content: Content, split: str, names: Numbered) -> Iterator[Sheet]:
    """Yield plots of every headline metric in a split: scores with intervals, and single subjects."""
    for panel in content.panels:
        if panel.split == split:
            yield Sheet(
                panel.caption, tuple(_scores(content, panel, metric, names) for metric in panel.metrics)
            )


def _scores(content: Content, panel: Panel, metric: str, names: Numbered) -> Plot:
    rows = [(line, line.rows[metric]) for line in panel.lines if metric in line.rows]
    members = [_score(content, line, row) for line, row in rows]
    return _plot(rows[0][1], partial(plots.scores, names(), f"{metric}, {panel.split}", members))


def _score(content: Content, line: Line, row: Record) -> Score:
    subjects = tuple((one["subject"], one["value"]) for one in content.subjects(row))
    wide = (row["ci_subjects_low"], row["ci_subjects_high"]) if "ci_subjects_low" in row else None
    return Score(content.palette.of(line), _value(row), row["chance"], subjects, row.get("p_corrected"), wide)


def _plot(row: Record, draw: Callable[[], Markup]) -> Plot:
    return Plot(row["metric"], ARROWS[row["direction"]], _BETTER[row["direction"]], draw())


def _value(row: Record) -> Value:
    return Value(row["value"], row["ci_low"], row["ci_high"])


def gap_sheets(content: Content, names: Numbered) -> Iterator[Sheet]:
    """Yield plots of imagery over vision in every headline metric."""
    for panel in content.gap_panels:
        found = tuple(_scatter(content.palette, panel, metric, names) for metric in panel.metrics)
        lines = [line.vision for line in panel.lines]
        yield Sheet(panel.caption, found, legend(content.palette, lines, names))


def _scatter(palette: Palette, panel: GapPanel, metric: str, names: Numbered) -> Plot:
    found = [(line, line.gaps[metric]) for line in panel.lines if metric in line.gaps]
    pairs = [
        Pair(
            palette.of(line.vision),
            _value(gap.vision),
            _value(gap.imagery),
            Value(gap.value, gap.low, gap.high),
        )
        for line, gap in found
    ]
    row = found[0][1].vision
    draw = partial(
        plots.scatter, names(), metric, pairs, chance=_common_chance([gap for _, gap in found]),
        lower_is_better=row["direction"] == "lower",
    )  # fmt: skip
    return _plot(row, draw)


def _common_chance(gaps: Sequence[Gap]) -> float | None:
    """Return the chance level of all sides; None where it depends on the model."""
    levels = {side["chance"] for gap in gaps for side in (gap.vision, gap.imagery)}
    return levels.pop() if len(levels) == 1 else None


def slope_sheets(content: Content, names: Numbered) -> Iterator[Sheet]:
    """Yield slope charts of mean ranks, seen to imagined, for blocks of two models or more."""
    for panel in content.gap_panels:
        ranks = _ranks(content.palette, panel)
        if len(ranks) >= 2:
            title = f"Mean rank over {len(panel.metrics)} metrics"
            plot = Plot(title, "", "1 is best", plots.slopes(names(), title, ranks))
            agreement = panel.order.of(MEAN_RANK)
            yield Sheet(panel.caption, (plot,), notes=(_sentence(agreement),) if agreement else ())


def _sentence(found: Agreement) -> str:
    rho = f"{number(found.rho, 2)} {interval(found.low, found.high)}".strip()
    how = "exact " if found.exact else ""
    return f"Agreement of the two orders of {len(found.models)} models: Spearman rho {rho}, {how}p {p_value(found.p)}."


def _ranks(palette: Palette, panel: GapPanel) -> list[tuple[Series, float, float]]:
    seen = blocks.mean_ranks([line.vision for line in panel.lines])
    sides = [Line({m: gap.imagery for m, gap in line.gaps.items()}) for line in panel.lines]
    imagined = blocks.mean_ranks(sides)
    found = zip(panel.lines, seen, imagined, strict=True)
    both = [(palette.of(line.vision), a, b) for line, a, b in found if a is not None and b is not None]
    return sorted(both, key=lambda one: (one[1], one[0].name))


def curve_sheets(content: Content, names: Numbered) -> Iterator[tuple[str, Sheet]]:
    """Yield splits with plots of their identification curves, where run folders hold similarities."""
    for panel in content.panels:
        metrics = [m for m in panel.metrics if summary.kind(m) == "identification"]
        found = {metric: _traces(content, panel, metric) for metric in metrics}
        drawn = tuple(
            Plot(metric, "↑", "higher is better", plots.curves(names(), f"{metric}, {panel.split}", traces))
            for metric, (traces, _) in found.items()
            if traces
        )
        problems = dict.fromkeys(problem for _, missing in found.values() for problem in missing)
        if drawn:
            yield (
                panel.split,
                Sheet(panel.caption, drawn, legend(content.palette, panel.lines, names), tuple(problems)),
            )


def _traces(content: Content, panel: Panel, metric: str) -> tuple[list[Trace], list[str]]:
    """Return the curves of the models, averaged over subjects, and why some are missing."""
    traces, problems = [], []
    for line in panel.lines:
        folders = [run.folder for run in content.runs_of(line).values()]
        if metric not in line.rows or not folders:
            continue
        try:
            found = [curve(folder, metric, profile=line.rows[metric]["metric_profile"]) for folder in folders]
        except NsdbenchError as error:
            problems.append(f"{content.palette.of(line).name} has no curves: {error.message}.")
            continue
        if len({one.m for one in found}) > 1:
            problems.append(
                f"{content.palette.of(line).name} has no curves: pools of subjects differ in size."
            )
            continue
        accuracy = np.mean([one.accuracy for one in found], axis=0)
        traces.append(Trace(content.palette.of(line), found[0].m, tuple(accuracy.tolist())))
    return traces, problems


def legend(palette: Palette, lines: Sequence[Line], names: Numbered) -> tuple[tuple[str, Markup], ...]:
    """Return the names and marks of the models of some lines."""
    series: Mapping[str, Series] = {s.name: s for s in map(palette.of, lines)}
    return tuple((name, plots.swatch(names(), one)) for name, one in series.items())
