"""A check's outcome as text for a log and as Markdown for the summary of a CI job."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from itertools import groupby

from nsdbench.check.cells import Name
from nsdbench.check.findings import BOUNDS, Change, Failure, Item, Report
from nsdbench.comparison.tables import number

SHOWN = 8  # changes that do not fail
_SEVERITY = ("changed", "worse", "missing", "version")
_VERDICTS = ("suspect", "worse", "better", "uncertain")

Line = tuple[int, str]  # 0: heading, 1: item, 2: detail


def verdict(report: Report) -> str:
    """Return the outcome in one line."""
    seen = f"{report.compared} item scores compared in {report.cells} cells"
    if report.ok:
        return f"ok: {seen}"
    first = next(_offenders(report))[0].name
    many = f"{len(report.failures)} failure(s) in {len({f.name.contrast for f in report.failures})} result(s)"
    return f"FAILED: {many}, first {first.model}-{first.preset} {first.split}; {seen}"


def text(report: Report) -> str:
    """List failures by model and split, the most severe first, then what moved without failing, then the verdict."""
    lines = [f"{'  ' * depth}{line}" for depth, line in _lines(report)]
    return "\n".join([*lines, verdict(report), ""])


def markdown(report: Report) -> str:
    """Return the same as :func:`text` as Markdown, the verdict first."""
    lines = ["## nsdbench check", "", f"**{_plain(verdict(report))}**"]
    for depth, line in _lines(report):
        lines += ["", f"### {_plain(line)}", ""] if depth == 0 else [f"{'  ' * (depth - 1)}- {_plain(line)}"]
    return "\n".join([*lines, "", ""])


def _plain(line: str) -> str:
    """Keep names from being taken for HTML."""
    return html.escape(line, quote=False)


def _lines(report: Report) -> Iterator[Line]:
    for failures in _offenders(report):
        yield 0, f"FAILED {failures[0].name.where}"
        for _, same in groupby(failures, key=lambda f: (f.kind, f.message, f.worst)):
            group = list(same)  # such as all metrics of a missing run
            yield 1, f"{', '.join(failure.name.number for failure in group)}: {group[0].message}"
            if group[0].worst:
                yield 2, f"most: {_items(group[0].worst)}"
    yield from _moved(report)
    if report.notes:
        yield 0, "Notes"
        yield from ((1, note) for note in report.notes)


def _moved(report: Report) -> Iterator[Line]:
    """Yield the changes that do not fail: suspects first, then the certain, each the largest first."""
    if not report.moved:
        return
    order = sorted(report.moved, key=lambda m: (_VERDICTS.index(m[1].verdict), -abs(_excess(m[1])), m[0]))
    chance = round((1 - BOUNDS) * len(order))
    yield 0, f"Moved without failing: {len(order)} of {report.cells}"
    yield 1, f"positive is better; 90 % intervals each on its own, so about {chance} exclude zero by chance"
    for name, change in order[:SHOWN]:
        yield 1, f"{name}: {_change(change)} ({change.sizes}): {_reading(change)}"
    if len(order) > SHOWN:
        yield 1, f"and {len(order) - SHOWN} more"


def _offenders(report: Report) -> Iterator[list[Failure]]:
    """Yield the failures of each model and split, results and failures sorted by severity."""
    groups: dict[tuple[str, ...], list[Failure]] = {}
    for failure in sorted(report.failures, key=_severity):
        groups.setdefault(failure.name.contrast, []).append(failure)
    yield from groups.values()


def _severity(failure: Failure) -> tuple[int, float, Name]:
    change = failure.change
    return _SEVERITY.index(failure.kind), _excess(change) if change else 0.0, failure.name


def _excess(change: Change) -> float:
    """Return the change in units of what is tolerated; losses are negative."""
    return change.value / max(change.tolerated, 1e-6)


def _items(items: Iterable[Item]) -> str:
    found = []
    for subject, same in groupby(items, key=lambda item: item.subject):
        moves = [
            f"{item.stimulus}{'' if item.sample is None else f' sample {item.sample}'} "
            f"{number(item.old)} -> {number(item.new)}"
            for item in same
        ]
        found.append(f"subject {subject}: {', '.join(moves)}")
    return "; ".join(found)


def _change(change: Change) -> str:
    limits = "" if change.low is None else f" [{number(change.low)},{number(change.high)}]"
    return f"{'+' if change.value > 0 else ''}{number(change.value)}{limits}"


def _reading(change: Change) -> str:
    if change.verdict == "suspect":
        return f"maybe a loss, {change.evidence}"
    if change.verdict == "worse":
        return f"worse, not surely by more than {number(change.tolerated)}"
    return change.verdict
