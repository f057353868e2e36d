"""What ``nsdbench inspect`` found: one table per split, and every finding in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nsdbench.comparison.tables import NONE, interval, number
from nsdbench.inspection import Check, Inspection, read_checks
from nsdbench.metrics.registry import CHECKS
from nsdbench.report.runs import Run, in_order
from nsdbench.report.tables import Cell, Column, Section, Table

LEGEND = (
    "Below each value with its 95 % interval over targets stands what it is compared with: surely above it (>), surely "
    "below it (<), or not told apart from it (~)."
)
_SIGNS = {"above": ">", "below": "<", "open": "~"}


@dataclass(frozen=True)
class Words:
    """The findings of one run: which, and a sentence per check."""

    heading: str
    sentences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Checked:
    """The checks of all runs of a split that look through the same network.

    Attributes
    ----------
    table : Table
        Runs in rows, checks in columns.
    questions : tuple of (str, str)
        What each check asks.
    words : tuple of Words
    notes : tuple of str
    """

    table: Table
    questions: tuple[tuple[str, str], ...]
    words: tuple[Words, ...]
    notes: tuple[str, ...]


def checked(runs: Iterable[Run]) -> tuple[Checked, ...]:
    """Return the checks of those runs that have some.

    Raises
    ------
    DataError
        If a ``checks.json`` is damaged.
    """
    groups: dict[tuple[str, ...], list[Inspection]] = {}
    for one in (read_checks(run.folder) for run in in_order(runs)):
        if one is not None:
            key = (one.split, one.dataset, one.metric, one.weights_id, one.pool, one.status)
            groups.setdefault(key, []).append(one)
    return tuple(map(_checked, groups.values()))


def _checked(found: Sequence[Inspection]) -> Checked:
    made = {check.name for one in found for check in one.checks}
    names = [name for name in CHECKS if name in made]
    first = found[0]
    table = Table(
        heading=first.split.capitalize(),
        facts=f"{first.dataset}, seen through {first.metric}, weights {first.weights_id}, pool {first.pool}, {first.status}",
        columns=(Column(("model",)), *(Column(tuple(name.split("_"))) for name in names)),
        sections=(Section("", tuple(_row(one, names) for one in found)),),
    )
    return Checked(
        table,
        tuple((name, CHECKS[name].summary) for name in names),
        tuple(_words(one) for one in found),
        tuple(dict.fromkeys(note for one in found for note in one.notes)),
    )


def _row(one: Inspection, names: Sequence[str]) -> tuple[Cell, ...]:
    checks = {check.name: check for check in one.checks}
    name = Cell(one.model, "", "", (f"{one.preset}, subject {one.subject}",))
    return (name, *(_cell(checks.get(name)) for name in names))


def _cell(check: Check | None) -> Cell:
    if check is None or check.value is None:
        return Cell(NONE, "", "", ())
    more = [interval(check.low, check.high)]
    if check.reference is not None:
        more.append(f"{_SIGNS.get(check.outcome or '', '')} {number(check.reference)}".strip())
    return Cell(number(check.value), "", "", tuple(more))


def _words(one: Inspection) -> Words:
    heading = f"{one.model} {one.preset}, subject {one.subject}, {one.split}"
    sentences = (
        (check.name, check.verdict if check.unavailable is None else f"Not available: {check.unavailable}.")
        for check in one.checks
    )
    return Words(heading, tuple(sentences))
