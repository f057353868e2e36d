"""Comparing models: which rows are looked at, and the tables and notes that show them.

Rows stand in one block only if their protocol keys agree metric by metric; other rows follow in blocks of their own
that say what differs. Nothing is ever averaged over splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from nsdbench import summary
from nsdbench.comparison import results
from nsdbench.comparison.blocks import Record, labels, settings
from nsdbench.comparison.gap import gaps
from nsdbench.comparison.grids import BYPRODUCTS, gap_grids, published_grids, split_grids
from nsdbench.comparison.tables import Grid, markdown
from nsdbench.errors import UsageError
from nsdbench.metrics.registry import HEADLINE

INTERVAL_NOTE = (
    "[low,high] is the 95 % BCa interval over targets: samples are averaged first, subjects and the pool of ground "
    "truths are fixed. Chance is .500 for two-way identification; for other metrics it is what the same "
    "reconstructions score against wrong targets."
)
RETRIEVAL_NOTE = (
    "Retrieval: one embedding and one score per target, whatever the number of samples; chance is one over the number "
    "of alternatives."
)
PUBLISHED_NOTE = (
    "Published rows: values as their sources give them; intervals were computed by nsdbench where the authors released "
    "per-sample scores. Profile imagery-asrun loses 1/11 in two-way identification (chance .409, best .909)."
)


@dataclass(frozen=True)
class Selection:
    """Which rows to look at; an empty tuple means all.

    Attributes
    ----------
    metrics : tuple of str
        Metric ids; a corrected published metric comes along with the metric it corrects.
    splits : tuple of str
        Split ids.
    pools : tuple of str
        Pools of identification metrics. Metrics that look at one pair have none and always stay.
    """

    metrics: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row belongs to the selection."""
        names = (row["metric"], row["metric"].removesuffix("_corrected"))
        return (
            (not self.metrics or any(name in self.metrics for name in names))
            and (not self.splits or row["split"] in self.splits)
            and (not self.pools or row["pool"] in (*self.pools, "none"))
        )

    def unknown(self, rows: Iterable[Record]) -> list[str]:
        """Return the metrics and pools of the selection that no row has: misspelt, or not computed."""
        known = {
            name for row in rows for name in (row["metric"], summary.base_name(row["metric"]), row["pool"])
        }
        return [name for name in (*self.metrics, *self.pools) if name not in known]


@dataclass(frozen=True)
class Comparison:
    """What ``nsdbench compare`` shows.

    Attributes
    ----------
    rows : list of dict
        All selected leaderboard rows, each with ``labels`` (``simulated``, ``untrained``, ``partial``).
    grids : tuple of Grid
        The tables for people: means over subjects where there are any.
    notes : tuple of str
        What a reader must know.
    """

    rows: list[Record]
    grids: tuple[Grid, ...]
    notes: tuple[str, ...]


def compare(
    paths: Sequence[Path], *, published: bool = False, selection: Selection | None = None
) -> Comparison:
    """Compare all results below ``paths`` and, if wanted, the published ones that ship with nsdbench.

    Raises
    ------
    UsageError
        If a metric or pool of the selection is in no result, or nothing is left to compare.
    LeaderboardError
        If a path holds something else.
    """
    selection = selection or Selection()
    found = results.collect([*paths, *(results.published_files() if published else ())])
    if names := selection.unknown(found.rows):
        raise UsageError(f"no result has {', '.join(names)}", remedy=_what_there_is(found.rows))
    rows = [row | {"labels": labels(row)} for row in found.rows if selection.keeps(row)]
    if not rows:
        raise UsageError("no result matches", remedy=_what_there_is(found.rows))
    shown = shown_rows(rows)
    own = [row for row in shown if row["status"] != "published"]
    quoted = [row for row in shown if row["status"] == "published"]
    if not selection.metrics:
        quoted = [row for row in quoted if summary.base_name(row["metric"]) in HEADLINE]
    # what only some models give comes after everything about images
    main, extra = ([row for row in own if _is_extra(row) == wanted] for wanted in (False, True))
    grids = [grid for part in (main, extra) for grid in (*split_grids(part), *gap_grids(gaps(found, part)))]
    grids += [*published_grids(quoted), *gap_grids(gaps(found, quoted), published=True)]
    hidden = {row["metric"] for row in shown} - {row["metric"] for row in (*own, *quoted)}
    retrieved = any(summary.kind(row["metric"]) == "retrieval" for row in own)
    notes = [*found.notes, INTERVAL_NOTE, *([RETRIEVAL_NOTE] if retrieved else [])]
    return Comparison(rows, tuple(grids), (*notes, *_published_notes(bool(quoted), hidden)))


def _is_extra(row: Record) -> bool:
    return summary.kind(row["metric"]) in BYPRODUCTS


def _published_notes(quoted: bool, hidden: Iterable[str]) -> Iterator[str]:
    if quoted:
        yield PUBLISHED_NOTE
    if names := sorted(hidden):
        yield f"Published too, shown with --metric: {', '.join(names)}."


def _what_there_is(rows: Iterable[Record]) -> str:
    rows = list(rows)
    if not rows:
        return "Run `nsdbench run` first, give the path of results, or add --published."
    parts = {name: sorted({row[name] for row in rows}) for name in ("split", "metric", "pool")}
    return "There is: " + "; ".join(f"{name} {', '.join(values)}" for name, values in parts.items()) + "."


def shown_rows(rows: Sequence[Record]) -> list[Record]:
    """Return the rows that tables show: all targets together, and the mean over subjects where there is one."""
    means = {settings(row) for row in rows if row["subject"] == summary.MEAN}
    whole = {settings(row) for row in rows if row["stimulus_set"] == "AB"}
    return [
        row
        for row in rows
        if (row["subject"] == summary.MEAN or settings(row) not in means)
        and (row["stimulus_set"] not in ("A", "B") or settings(row) not in whole)
    ]


def twin(table: pa.Table, *, title: str) -> str:
    """Return the Markdown twin of a leaderboard file: its tables, readable on a code host.

    Parameters
    ----------
    table : pa.Table
        Leaderboard rows, published or a user's own.
    title : str
        Heading of the document.
    """
    rows = shown_rows(table.to_pylist())
    theirs = [row for row in rows if row["status"] == "published"]
    grids = [*split_grids([row for row in rows if row["status"] != "published"]), *published_grids(theirs)]
    notes = [INTERVAL_NOTE, "", *([PUBLISHED_NOTE, ""] if theirs else [])]
    return "\n".join([f"# {title}", "", *map(markdown, grids), *notes])
