"""The plots of a report: scores with intervals, vision against imagery, ranks, identification curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nsdbench.comparison.tables import interval, number, p_value
from nsdbench.report import svg
from nsdbench.report.series import Series

WIDTH, HEIGHT = 290, 270  # CSS pixels; four plots side by side, or one on a phone
_PER_ROW = 24
_SLOPES = 370
_LINEAR_UP_TO = 30  # alternatives; larger pools get a logarithmic axis
_SIZES = {"o": 7.5, "s": 7, "D": 6.5, "P": 9.5, "X": 8.5, "*": 11, "+": 9, "x": 8}  # of about equal weight


@dataclass(frozen=True)
class Value:
    """A score, with 95 % limits where there are any."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{number(self.value)} {interval(self.low, self.high)}".strip()

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both limits, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Score:
    """A model's score in one metric.

    Attributes
    ----------
    series : Series
    value : Value
        With limits over new targets.
    chance : float or None
    subjects : tuple of (str, float)
        Scores of single subjects where the score is a mean.
    p : float or None
        Against chance, corrected.
    wide : tuple of float or None
        95 % limits over new targets and new subjects.
    """

    series: Series
    value: Value
    chance: float | None = None
    subjects: tuple[tuple[str, float], ...] = ()
    p: float | None = None
    wide: tuple[float, float] | None = None

    def __str__(self) -> str:
        parts = [f"{self.series.name} {self.value}"]
        parts += [f"over new subjects too {interval(*self.wide)}"] if self.wide else []
        parts += [f"p {p_value(self.p)}"] if self.p is not None else []
        parts += [f"chance {number(self.chance)}"] if self.chance is not None else []
        parts += [f"subject {name} {number(value)}" for name, value in self.subjects]
        return ", ".join(parts)


@dataclass(frozen=True)
class Pair:
    """A model's scores in one metric on both splits."""

    series: Series
    vision: Value
    imagery: Value
    gap: Value

    def __str__(self) -> str:
        return f"{self.series.name} seen {self.vision}, imagined {self.imagery}, gap {self.gap}"


@dataclass(frozen=True)
class Trace:
    """A model's identification curve: the share identified among each number of alternatives."""

    series: Series
    m: tuple[int, ...]
    accuracy: tuple[float, ...]


def scores(name: str, title: str, members: Sequence[Score]) -> Markup:
    """Return models from top to bottom, their scores from left to right, with intervals, chance and subjects."""
    with svg.style():
        figure = Figure(figsize=_size(WIDTH, 44 + _PER_ROW * len(members)), layout="constrained")
        axes = figure.add_subplot()
        for row, score in enumerate(members):
            _score(axes, row, score)
        common = {score.chance for score in members}
        if len(common) == 1 and (level := common.pop()) is not None:
            axes.axvline(level, color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
        else:
            _chance_ticks(axes, members)
        axes.set_yticks(range(len(members)), [score.series.short for score in members])
        axes.set_ylim(len(members) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        label = f"{title}. {'; '.join(map(str, members))}."
        return svg.inline(figure, name=name, label=label, tips=tuple(map(str, members)))


def _score(axes: Axes, row: int, score: Score) -> None:
    if score.wide:
        axes.plot(score.wide, (row, row), color=score.series.colour, linewidth=0.9)
    if score.value.ends:
        axes.plot(score.value.ends, (row, row), color=score.series.colour, linewidth=2, alpha=0.55)
    if n := len(score.subjects):
        offsets = row + np.linspace(-0.28, 0.28, n)
        axes.plot(
            [value for _, value in score.subjects], offsets, "o", markersize=3, color=score.series.colour,
            markeredgewidth=0, alpha=0.8,
        )  # fmt: skip
    _marker(axes, score.value.value, row, score.series, index=row)


def _chance_ticks(axes: Axes, members: Sequence[Score]) -> None:
    found = [(score.chance, row) for row, score in enumerate(members) if score.chance is not None]
    axes.plot(
        [x for x, _ in found], [y for _, y in found], "|", markersize=13, color=svg.MUTED, markeredgewidth=1.2,
        zorder=1,
    )  # fmt: skip


def _marker(axes: Axes, x: float, y: float, series: Series, index: int) -> None:
    edge = series.colour if series.is_floor else svg.PAPER
    axes.plot(
        [x], [y], series.marker, markersize=_SIZES.get(series.marker, 8.5), color=series.colour, markeredgecolor=edge,
        markeredgewidth=1.5 if series.is_floor else 0.7, gid=svg.tip(index), clip_on=False, zorder=3,
    )  # fmt: skip


def scatter(
    name: str, title: str, pairs: Sequence[Pair], *, chance: float | None, lower_is_better: bool
) -> Markup:
    """Return a plot of imagery over vision; on the diagonal both are equal, up and right is better."""
    with svg.style():
        figure = Figure(figsize=_size(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        low, high = _limits([end for pair in pairs for v in (pair.vision, pair.imagery) for end in _span(v)])
        axes.plot((low, high), (low, high), color=svg.MUTED, linewidth=1, zorder=0)
        if chance is not None:
            for line in (axes.axvline, axes.axhline):
                line(chance, color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
        for index, pair in enumerate(pairs):
            x, y, colour = pair.vision.value, pair.imagery.value, pair.series.colour
            if pair.vision.ends:
                axes.plot(pair.vision.ends, (y, y), color=colour, linewidth=1.2, alpha=0.55)
            if pair.imagery.ends:
                axes.plot((x, x), pair.imagery.ends, color=colour, linewidth=1.2, alpha=0.55)
            _marker(axes, x, y, pair.series, index)
        limits = (high, low) if lower_is_better else (low, high)
        axes.set(
            xlim=limits, ylim=limits, xlabel="seen (vision)", ylabel="imagined (imagery)", aspect="equal"
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid()
        axes.tick_params(length=0)
        label = f"{title}, seen against imagined. {'; '.join(map(str, pairs))}."
        return svg.inline(figure, name=name, label=label, tips=tuple(map(str, pairs)))


def _span(value: Value) -> tuple[float, ...]:
    return (value.value, *(value.ends or ()))


def _limits(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin


def slopes(name: str, title: str, ranks: Sequence[tuple[Series, float, float]]) -> Markup:
    """Return a slope chart of mean ranks, seen on the left and imagined on the right, the best on top."""
    tips = tuple(
        f"{s.name} mean rank {seen:.1f} seen, {imagined:.1f} imagined" for s, seen, imagined in ranks
    )
    sides = ([seen for _, seen, _ in ranks], [imagined for _, _, imagined in ranks])
    best, worst = min(map(min, sides)), max(map(max, sides))
    height = 46 + 26 * len(ranks)
    margin = 0.6 * max(worst - best, 0.5) / len(ranks)
    step = (worst - best + 2 * margin) * 14 / height  # the height of a line of text
    left, right = (_spread(side, step) for side in sides)
    with svg.style():
        figure = Figure(figsize=_size(_SLOPES, height), layout="constrained")
        axes = figure.add_subplot()
        for index, (series, seen, imagined) in enumerate(ranks):
            axes.plot((0, 1), (seen, imagined), color=series.colour, linewidth=1.8, alpha=0.7)
            _marker(axes, 0, seen, series, index)
            _marker(axes, 1, imagined, series, index)
            axes.text(-0.08, left[index], f"{series.short}  {seen:.1f}", ha="right", va="center")
            axes.text(1.08, right[index], f"{imagined:.1f}  {series.short}", ha="left", va="center")
        axes.set(xlim=(-1.5, 2.5), ylim=(worst + margin, best - margin), yticks=[])
        axes.set_xticks((0, 1), ("seen", "imagined"))
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        return svg.inline(figure, name=name, label=f"{title}. {'; '.join(tips)}.", tips=tips)


def _spread(values: Sequence[float], step: float) -> list[float]:
    """Return places for labels near ``values``, at least ``step`` apart and in the same order."""
    order = np.argsort(values, kind="stable")
    places = np.array(values, float)[order]
    for _ in range(100):
        gaps = np.diff(places)
        close = np.flatnonzero(gaps < step - 1e-9)
        if not len(close):
            break
        for i in close:  # push both neighbours apart by what is missing
            missing = step - (places[i + 1] - places[i])
            if missing > 0:
                places[i] -= missing / 2
                places[i + 1] += missing / 2
    spread = np.empty(len(places))
    spread[order] = places
    return [float(place) for place in spread]


def curves(name: str, title: str, traces: Sequence[Trace]) -> Markup:
    """Return the share identified over the number of alternatives, with chance 1/m."""
    m = traces[0].m
    ends = tuple(
        f"{t.series.name} {number(t.accuracy[0])} of 2, {number(t.accuracy[-1])} of {m[-1]}" for t in traces
    )
    with svg.style():
        figure = Figure(figsize=_size(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(m, [1 / size for size in m], color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
        for index, trace in enumerate(traces):
            series = trace.series
            axes.plot(
                trace.m, trace.accuracy, color=series.colour, linewidth=1.8, marker=series.marker,
                markersize=0.85 * _SIZES.get(series.marker, 8.5), markevery=_marked(m, index, len(traces)),
                markeredgecolor=series.colour if series.is_floor else svg.PAPER, gid=svg.tip(index), clip_on=False,
            )  # fmt: skip
        if m[-1] > _LINEAR_UP_TO:
            axes.set_xscale("log")
        ticks = [size for size in (2, 4, 6, 8, 10, 12, 30, 100, 300, 1000) if size <= m[-1]]
        ticks = (
            ticks if m[-1] <= _LINEAR_UP_TO else [2, *(size for size in ticks if size >= 10 and size != 12)]
        )
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.minorticks_off()
        axes.set(ylim=(0, 1.02), xlabel="number of alternatives", ylabel="share identified")
        axes.grid()
        axes.tick_params(length=0)
        label = (
            f"{title}: share identified. {'; '.join(ends)}; chance .500 of 2, {number(1 / m[-1])} of {m[-1]}."
        )
        return svg.inline(figure, name=name, label=label, tips=ends)


def _marked(m: Sequence[int], index: int, n_traces: int) -> list[int]:
    """Return where a curve has markers: about four, and not where its neighbours have theirs."""
    place = np.log(m) if m[-1] > _LINEAR_UP_TO else np.array(m, float)
    wanted = place[0] + (np.arange(4) + index / n_traces) / 4 * (place[-1] - place[0])
    return sorted({int(np.abs(place - one).argmin()) for one in wanted})


def swatch(name: str, series: Series) -> Markup:
    """Return the line and marker of a model for a legend."""
    with svg.style():
        figure = Figure(figsize=_size(26, 14))
        axes = figure.add_axes((0, 0, 1, 1), frameon=False, xlim=(0, 26), ylim=(0, 14), xticks=[], yticks=[])
        axes.plot((2, 24), (7, 7), color=series.colour, linewidth=1.8, alpha=0.7)
        _marker(axes, 13, 7, series, 0)
        return svg.inline(figure, name=name, label=f"mark of {series.name}", tips=(series.name,))


def _size(width: float, height: float) -> tuple[float, float]:
    return width / 72, height / 72  # inches; the SVG has 72 units to one
