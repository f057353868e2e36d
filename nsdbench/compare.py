"""Comparing models: which rows are looked at, and the tables and notes that show them.

Rows stand in one block only if their protocol keys agree metric by metric; other rows follow in blocks of their own
that say what differs. Nothing is ever averaged over splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nsdbench import stats, summary
from nsdbench.comparison import results
from nsdbench.comparison.blocks import Record, labels, settings
from nsdbench.comparison.chance import SIGNS, Correction, Settings, chance_tests
from nsdbench.comparison.conclusions import conclusions
from nsdbench.comparison.evidence import Evidence, gather
from nsdbench.comparison.grids import against_grids, gap_grids, published_grids, split_grids
from nsdbench.comparison.pairs import Pair
from nsdbench.comparison.scores import ScoreIndex, by_shape, name, names
from nsdbench.comparison.tables import Grid, markdown
from nsdbench.errors import UsageError
from nsdbench.metrics.registry import HEADLINE
from nsdbench.schema import ITEMS
from nsdbench.types import Progress, Silent

INTERVAL_NOTE = (
    "[low,high] is the 95 % BCa interval over targets: samples are averaged first, subjects and the pool of ground "
    "truths are fixed. Chance is .500 for two-way identification; for other metrics it is what the same "
    "reconstructions score against wrong targets."
)
TEST_NOTE = (
    "Chance is tested by permuting target labels, together for all samples and metrics, subjects independently; p-values "
    "are corrected over the metrics of a model in one table ({how}). Models are compared target by target by sign flips; "
    "letters are corrected for all pairs of models in a column (Holm)."
)
HOW: Mapping[Correction, str] = {"holm": "Holm", "max": "by the distribution of their maximum"}
NO_ITEMS_NOTE = "Nothing is tested and gaps have no intervals, since there are no item scores: give run folders, or files of item scores."
SIGN_NOTE = "Where no similarities are stored (ssim, published scores), chance is tested by sign flips of score minus chance."
SELECTION_NOTE = (
    "Corrections are for all metrics, not only for those selected. Conclusions are about all of them; leave out --metric "
    "and --pool to read them."
)
MODELS_NOTE = "Differences between models are corrected for all models, not only for those selected; orders are of those selected."
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
    models : tuple of str
        Model ids.
    """

    metrics: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def part(self) -> bool:
        """Whether only some of the scores of a model are looked at."""
        return bool(self.metrics or self.pools)

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Return whether the metric and pool of a row are looked at."""
        names = (row["metric"], row["metric"].removesuffix("_corrected"))
        return (not self.metrics or any(name in self.metrics for name in names)) and (
            not self.pools or row["pool"] in (*self.pools, "none")
        )

    def of_split(self, row: Mapping[str, Any]) -> bool:
        """Return whether the split of a row is looked at."""
        return not self.splits or row["split"] in self.splits

    def of_model(self, row: Mapping[str, Any]) -> bool:
        """Return whether the model of a row is looked at."""
        return not self.models or row["model"] in self.models

    def unknown(self, rows: Iterable[Record]) -> list[str]:
        """Return the metrics, pools and models of the selection that no row has: misspelt, or not computed."""
        known = {
            name
            for row in rows
            for name in (row["metric"], summary.base_name(row["metric"]), row["pool"], row["model"])
        }
        return [name for name in (*self.metrics, *self.pools, *self.models) if name not in known]


@dataclass(frozen=True)
class Comparison:
    """What ``nsdbench compare`` shows.

    Attributes
    ----------
    rows : list of dict
        All selected leaderboard rows, each with ``labels`` (``simulated``, ``untrained``, ``partial``) and the
        ``name`` of its model, which has the preset in it where there are several of one model. Those that
        tables show, and those of single subjects, also have the test against chance: ``p``, ``p_corrected``,
        ``test``, ``n_arrangements``, and for means of subjects ``prevalence_bound`` and ``prevalence_highest`` (share
        of people) and ``ci_subjects_low`` and ``ci_subjects_high`` (interval over new subjects and new targets).
    grids : tuple of Grid
        The tables for people: means over subjects where there are any.
    own_conclusions, published_conclusions : tuple of str
        What may be said, a sentence each.
    notes : tuple of str
        What a reader must know.
    evidence, quoted : Evidence
        Behind the tables of own and of published results.
    """

    rows: list[Record]
    grids: tuple[Grid, ...]
    own_conclusions: tuple[str, ...]
    published_conclusions: tuple[str, ...]
    notes: tuple[str, ...]
    evidence: Evidence
    quoted: Evidence

    @property
    def conclusions(self) -> tuple[str, ...]:
        """All sentences."""
        return self.own_conclusions + self.published_conclusions

    def document(self) -> dict[str, Any]:
        """Return the JSON document of the command line: rows, notes, conclusions and every test behind them."""
        both = (self.evidence, self.quoted)
        return {
            "rows": self.rows,
            "notes": list(self.notes),
            "conclusions": list(self.conclusions),
            "pairs": [pair.document() for part in both for pair in part.pairs],
            "gaps": [gap.document() for part in both for gap in part.gaps],
            "agreement": [record for part in both for record in part.agreement_documents()],
        }


def compare(
    paths: Sequence[Path],
    *,
    published: bool = False,
    selection: Selection | None = None,
    against: str | None = None,
    correction: Correction = "holm",
    progress: Progress | None = None,
) -> Comparison:
    """Compare all results below ``paths`` and, if wanted, the published ones that ship with nsdbench.

    Parameters
    ----------
    paths : sequence of Path
    published : bool
    selection : Selection, optional
    against : str, optional
        A model, with its preset if there are several (``"ridge mini"``); adds tables of the paired differences of all
        others to it.
    correction : {"holm", "max"}
        How tests against chance are corrected for several metrics (:class:`nsdbench.comparison.chance.Settings`).
    progress : Progress, optional

    Raises
    ------
    UsageError
        If a metric, pool or model of the selection is in no result, or nothing is left to compare.
    LeaderboardError
        If a path holds something else.
    """
    selection = selection or Selection()
    found = results.collect([*paths, *(results.published_files() if published else ())])
    if names := selection.unknown(found.rows):
        raise UsageError(f"no result has {', '.join(names)}", remedy=_what_there_is(found.rows))
    of_splits = _described(row for row in found.rows if selection.of_split(row))
    rows = [row for row in of_splits if selection.of_model(row)]
    if not any(selection.shows(row) for row in rows):
        raise UsageError("no result matches", remedy=_what_there_is(found.rows))
    index = ScoreIndex(found)
    candidates = shown_rows(of_splits)
    shown = [row for row in candidates if selection.of_model(row)]
    own = [row for row in candidates if row["status"] != "published"]
    quoted = [row for row in candidates if row["status"] == "published" and _is_quoted(row, selection)]
    _add_tests(found, index, _whole(rows), Settings(correction), progress or Silent())
    _add_limits_over_subjects(index, shown)
    # all scores enter the corrections, whichever are looked at: choosing a few must not make them more certain
    mine, theirs = (gather(index, part, chosen=selection.of_model) for part in (own, quoted))
    against = against and _paired(against, (*mine.pairs, *theirs.pairs))
    said = ((), ()) if selection.part else (conclusions(mine), conclusions(theirs))
    mine, theirs = mine.only(selection.shows), theirs.only(selection.shows)
    rows = [row for row in rows if selection.shows(row)]
    shown = [row for row in shown if selection.shows(row)]
    return Comparison(
        rows,
        tuple(_grids(mine, theirs, against)),
        *said,
        (*found.notes, *_notes(shown, selection, correction)),
        mine,
        theirs,
    )


def _is_quoted(row: Record, selection: Selection) -> bool:
    """Whether a published row is shown: the headline metrics, and others that are asked for."""
    return summary.base_name(row["metric"]) in HEADLINE or bool(selection.metrics and selection.shows(row))


def _described(rows: Iterable[Record]) -> list[Record]:
    """Return rows with their labels and the name of their model."""
    rows = list(rows)
    known = names(rows)
    of_model = ((row, known.get((row["model"], row["preset"]), row["model"])) for row in rows)
    return [row | {"labels": labels(row), "name": name} for row, name in of_model]


def _paired(model: str, pairs: Sequence[Pair]) -> str:
    """Return the name of the model that others are compared with."""
    rows = [row for pair in pairs for row in (pair.first, pair.second)]
    found = sorted({name(row) for row in rows if model in (row["model"], name(row))})
    if not found:
        known = ", ".join(sorted({name(row) for row in rows}))
        raise UsageError(
            f"no model can be compared with {model!r} target by target",
            remedy=f"Name one of: {known}."
            if known
            else "Two models with item scores of the same targets under one protocol are needed.",
        )
    if len(found) > 1:
        quoted = " or ".join(map(repr, found))
        raise UsageError(f"there are several presets of {model!r}", remedy=f"Name one: {quoted}.")
    return found[0]


def _grids(mine: Evidence, theirs: Evidence, against: str | None) -> Iterator[Grid]:
    """Yield all tables; what only some models give comes after everything about images."""
    for part in (mine.of_kinds(0), mine.of_kinds(1, 2)):
        yield from split_grids(part)
        yield from gap_grids(part)
    yield from published_grids(theirs)
    yield from gap_grids(theirs)
    if against:
        yield from against_grids(mine, against)
        yield from against_grids(theirs, against)


def _add_tests(
    found: results.Results, index: ScoreIndex, rows: Sequence[Record], how: Settings, progress: Progress
) -> None:
    """Add the test against chance to each row that has one."""
    for row, test in zip(rows, chance_tests(found, index, rows, how, progress), strict=True):
        if test:
            row |= {
                "p": test.p,
                "p_corrected": test.p_corrected,
                "test": test.method,
                "n_arrangements": test.n_arrangements,
            }
            if test.prevalence:
                row["prevalence_bound"] = test.prevalence.bound
                row["prevalence_highest"] = test.prevalence.highest


def _add_limits_over_subjects(index: ScoreIndex, rows: Sequence[Record]) -> None:
    """Add the interval over new subjects and targets to means of enough subjects."""
    means = [row for row in rows if (row["n_subjects"] or 0) >= stats.MIN_SUBJECTS]
    scores = {i: found.values for i, row in enumerate(means) if (found := index.of(row))}
    for places in by_shape(scores):
        limits = stats.pigeonhole(np.stack([scores[i] for i in places]), level=summary.LEVEL)
        for i, low, high in zip(places, limits.low.tolist(), limits.high.tolist(), strict=True):
            means[i] |= {"ci_subjects_low": low, "ci_subjects_high": high}


def _whole(rows: Sequence[Record]) -> list[Record]:
    """Return the rows about all targets of a split."""
    whole = {(settings(row), row["subject"]) for row in rows if row["stimulus_set"] == "AB"}
    return [
        row
        for row in rows
        if row["stimulus_set"] not in ("A", "B") or (settings(row), row["subject"]) not in whole
    ]


def _notes(shown: Sequence[Record], selection: Selection, correction: Correction) -> Iterator[str]:
    own = [row for row in shown if row["status"] != "published"]
    published = [row for row in shown if row["status"] == "published"]
    quoted = [row for row in published if _is_quoted(row, selection)]
    yield INTERVAL_NOTE
    tests = {row.get("test") for row in (*own, *quoted)} - {None}
    yield TEST_NOTE.format(how=HOW[correction]) if tests else NO_ITEMS_NOTE
    if SIGNS in tests:
        yield SIGN_NOTE
    if selection.part:
        yield SELECTION_NOTE
    if selection.models:
        yield MODELS_NOTE
    if any(summary.kind(row["metric"]) == "retrieval" for row in own):
        yield RETRIEVAL_NOTE
    if quoted:
        yield PUBLISHED_NOTE
    if names := sorted({row["metric"] for row in published} - {row["metric"] for row in quoted}):
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
    rows = shown_rows(_described(table.to_pylist()))
    theirs = [row for row in rows if row["status"] == "published"]
    index = ScoreIndex(results.Results(rows, ITEMS.empty_table(), ()))
    mine, quoted = (
        gather(index, part) for part in ([row for row in rows if row["status"] != "published"], theirs)
    )
    grids = [*split_grids(mine), *published_grids(quoted)]
    notes = [INTERVAL_NOTE, "", *([PUBLISHED_NOTE, ""] if theirs else [])]
    return "\n".join([f"# {title}", "", *map(markdown, grids), *notes])
