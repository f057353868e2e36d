"""What tables and sentences rest on: models that may be ranked together, their differences, gaps and agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nsdbench.comparison import blocks
from nsdbench.comparison.agreement import Agreement, agreements
from nsdbench.comparison.blocks import GapLine, Line, Record
from nsdbench.comparison.gap import Gap, gaps
from nsdbench.comparison.pairs import Pair, letters, pairs
from nsdbench.comparison.scores import ScoreIndex, column_order, family
from nsdbench.types import SPLITS


@dataclass(frozen=True)
class Field:
    """Where models meet: results of one field may stand in one table, though not all are comparable.

    Attributes
    ----------
    split, dataset : str
    family : tuple
        Kind of metrics (:func:`nsdbench.comparison.scores.family`).
    source : tuple of str
        Source, target set and profile of published rows; empty for others.
    """

    split: str
    dataset: str
    family: tuple[int, bool, bool]
    source: tuple[str, ...]


@dataclass(frozen=True)
class Contest:
    """Models and floors whose protocol keys agree.

    Attributes
    ----------
    lines : tuple of Line
    pairs : tuple of Pair
        Every two models.
    floor_pairs : tuple of Pair
        Every model and floor.
    """

    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...] = ()
    floor_pairs: tuple[Pair, ...] = ()

    @property
    def models(self) -> tuple[Line, ...]:
        """The lines that decode something."""
        return tuple(line for line in self.lines if not line.is_floor)

    @property
    def floors(self) -> tuple[Line, ...]:
        """The lines that do not look at the brain."""
        return tuple(line for line in self.lines if line.is_floor)

    def only(self, keep: Callable[[Record], bool]) -> Contest:
        """Return the contest in the rows that ``keep`` accepts."""
        lines = (line.only(keep) for line in self.lines)
        both = (self.pairs, self.floor_pairs)
        found = ((pair for pair in pairs if keep(pair.first) and keep(pair.second)) for pairs in both)
        return Contest(tuple(line for line in lines if line.rows), *map(tuple, found))


@dataclass(frozen=True)
class Order:
    """Models on both splits whose protocol keys agree, and how their orders do."""

    lines: tuple[GapLine, ...]
    agreements: tuple[Agreement, ...]

    def of(self, metric: str) -> Agreement | None:
        """Return the agreement in one metric, or of the mean rank."""
        return next((one for one in self.agreements if one.metric == metric), None)

    def only(self, keep: Callable[[Record], bool]) -> Order:
        """Return the order in the rows that ``keep`` accepts."""
        lines = tuple(cut for line in self.lines if (cut := line.only(keep)).gaps)
        if lines == self.lines:
            return self
        metrics = {
            metric for line in lines for metric in line.gaps
        }  # a mean rank over others says nothing of these
        return Order(lines, tuple(one for one in self.agreements if one.metric in metrics))


@dataclass(frozen=True)
class Evidence:
    """Everything inferred from a set of rows.

    Attributes
    ----------
    contests : mapping of Field to tuple of Contest
        The largest first.
    orders : mapping of Field to tuple of Order
        The split of these fields is imagery. Floors are left out, since they do not look at the brain.
    """

    contests: Mapping[Field, tuple[Contest, ...]]
    orders: Mapping[Field, tuple[Order, ...]]
    _letters: Mapping[int, str] = field(default_factory=dict)

    def letters(self, row: Record) -> str:
        """Return the letters of a value; models that share one cannot be told apart. Empty where nothing was tested."""
        return self._letters.get(id(row), "")

    def of_kinds(self, *kinds: int) -> Evidence:
        """Return what is about some kinds of metrics, the first entry of a family."""
        return Evidence(
            {place: found for place, found in self.contests.items() if place.family[0] in kinds},
            {place: found for place, found in self.orders.items() if place.family[0] in kinds},
            self._letters,
        )

    def only(self, keep: Callable[[Record], bool]) -> Evidence:
        """Return what is about the rows that ``keep`` accepts; corrections stay those for all of them."""
        contests = {
            p: tuple(c for one in found if (c := one.only(keep)).lines) for p, found in self.contests.items()
        }
        orders = {
            p: tuple(o for one in found if (o := one.only(keep)).lines) for p, found in self.orders.items()
        }
        return Evidence(
            {place: found for place, found in contests.items() if found},
            {place: found for place, found in orders.items() if found},
            self._letters,
        )

    @property
    def pairs(self) -> list[Pair]:
        """All comparisons of two models, and of models with floors."""
        contests = (contest for found in self.contests.values() for contest in found)
        return [pair for contest in contests for pair in (*contest.pairs, *contest.floor_pairs)]

    @property
    def gaps(self) -> list[Gap]:
        """All gaps between the splits."""
        found = (line for orders in self.orders.values() for order in orders for line in order.lines)
        return [gap for line in found for gap in line.gaps.values()]

    def agreement_documents(self) -> list[dict[str, Any]]:
        """Return every agreement between the orders of models as a JSON object."""
        return [
            {"dataset": place.dataset, "source": place.source[0] if place.source else None, **asdict(one)}
            | {"n_models": len(one.models), "within_sets": place.family[2]}
            for place, orders in self.orders.items()
            for order in orders
            for one in order.agreements
        ]


def gather(
    index: ScoreIndex, rows: Sequence[Record], *, chosen: Callable[[Record], bool] = bool, seed: int = 0
) -> Evidence:
    """Compare the models of ``rows`` with each other, and across the splits.

    Parameters
    ----------
    index : ScoreIndex
    rows : sequence of dict
        One row per model, settings, split, metric and pool.
    chosen : callable
        Whether the model of a row is to be in the result; all are in the corrections of differences between models.
    seed : int
    """
    contests: dict[Field, tuple[Contest, ...]] = {}
    by_row: dict[int, str] = {}
    for place, members in _fields(rows).items():
        found = []
        for block in blocks.blocks(blocks.lines(members)):
            contest = _contest(index, Contest(tuple(block)), seed).only(chosen)
            if contest.lines:
                found.append(contest)
            for metric in dict.fromkeys(row["metric"] for row in members):
                by_row |= letters(contest.models, metric, contest.pairs)
        if found:
            contests[place] = tuple(sorted(found, key=lambda contest: len(contest.lines), reverse=True))
    return Evidence(contests, _orders(index, [row for row in rows if chosen(row)], seed), by_row)


def _contest(index: ScoreIndex, contest: Contest, seed: int) -> Contest:
    """Add the comparisons."""
    found = pairs(index, contest.models, seed=seed)
    against = pairs(index, contest.models, contest.floors, seed=seed) if contest.floors else []
    return Contest(contest.lines, tuple(found), tuple(against))


def _orders(index: ScoreIndex, rows: Sequence[Record], seed: int) -> dict[Field, tuple[Order, ...]]:
    models = [row for row in rows if row["model"] not in blocks.FLOORS]
    by_row = {id(gap.imagery): gap for gap in gaps(index, models, seed=seed)}
    places = _fields([gap.imagery for gap in by_row.values()])
    return {
        place: tuple(
            Order(tuple(block), tuple(agreements(index, block, seed=seed)))
            for block in blocks.blocks(blocks.gap_lines(by_row[id(row)] for row in members))
        )
        for place, members in places.items()
    }


def _fields(rows: Iterable[Record]) -> dict[Field, list[Record]]:
    """Group rows by field, in the order of tables; the metrics of each in the order of columns."""
    found: dict[Field, list[Record]] = {}
    for row in rows:
        source: tuple[Any, ...] = ()
        if row["status"] == "published":
            source = (row["source"], row["stimulus_set"], row["metric_profile"])
        found.setdefault(Field(row["split"], row["dataset"], family(row), source), []).append(row)
    places = sorted(found, key=lambda f: (SPLITS.index(f.split), f.dataset, f.family, f.source))
    return {place: sorted(found[place], key=lambda row: column_order(row["metric"])) for place in places}
