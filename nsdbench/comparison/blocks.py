"""Which results may stand beside each other: lines of a table grouped by protocol key, and their ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np

from nsdbench import stats, summary
from nsdbench.comparison.gap import Gap
from nsdbench.comparison.scores import name
from nsdbench.schema import VARIANT

Record = dict[str, Any]
RETRAINED = "retrained"
"""Preset whose results must not pass for those of the checkpoint that the authors published."""

FLOORS = ("mean_image", "random_image")
_SETTINGS = (
    "dataset", "model", "preset", "split", "beta_version", "normalization", "averaging", "label_source",
)  # fmt: skip
_DIFFERENCES = (
    "n_targets", "n_subjects", "subject", "metric_profile", "metric_version", "beta_version", "normalization",
    "averaging", "label_source", "weights_id", "status",
)  # fmt: skip


class Keyed(Protocol):
    """A line of a table: one protocol key per metric."""

    @property
    def keys(self) -> Mapping[str, Any]:
        """Protocol key by metric."""
        ...


K = TypeVar("K", bound=Keyed)


@dataclass(frozen=True)
class Line:
    """One model in one table: its leaderboard rows by metric."""

    rows: dict[str, Record]

    @property
    def first(self) -> Record:
        """Any row, for what all of them share."""
        return next(iter(self.rows.values()))

    @property
    def model(self) -> str:
        """Name of the model (:func:`nsdbench.comparison.scores.name`)."""
        return name(self.first)

    @property
    def is_floor(self) -> bool:
        """Whether the model decodes nothing and only marks the floor."""
        return self.first["model"] in FLOORS

    @property
    def keys(self) -> dict[str, str]:
        """Protocol key by metric."""
        return {metric: row["protocol_key"] for metric, row in self.rows.items()}

    def only(self, keep: Callable[[Record], bool]) -> Line:
        """Return the line with the rows that ``keep`` accepts; perhaps none."""
        return Line({metric: row for metric, row in self.rows.items() if keep(row)})


@dataclass(frozen=True)
class GapLine:
    """One model on both splits: its gaps by metric."""

    gaps: dict[str, Gap]

    @property
    def vision(self) -> Line:
        """The vision side."""
        return Line({metric: gap.vision for metric, gap in self.gaps.items()})

    @property
    def imagery(self) -> Line:
        """The imagery side."""
        return Line({metric: gap.imagery for metric, gap in self.gaps.items()})

    @property
    def keys(self) -> dict[str, tuple[str, str]]:
        """Protocol keys of both sides by metric."""
        both = self.gaps.items()
        return {metric: (gap.vision["protocol_key"], gap.imagery["protocol_key"]) for metric, gap in both}

    def only(self, keep: Callable[[Record], bool]) -> GapLine:
        """Return the line with the gaps whose rows ``keep`` accepts; perhaps none."""
        return GapLine({metric: gap for metric, gap in self.gaps.items() if keep(gap.imagery)})


def settings(row: Record) -> tuple[Any, ...]:
    """Return what identifies a model and the way it was run, whatever the metric, subject or target set."""
    # not the whole status: within one run, only the metrics of networks without training are "untrained"
    published = row["status"] == "published"
    return (*(row[name] for name in _SETTINGS), published, (row["source"] or "").partition(" | ")[0])


def lines(rows: Iterable[Record]) -> list[Line]:
    """Gather rows into one line per model, settings, subject, target set and profile."""
    found: dict[tuple[Any, ...], Line] = {}
    for row in rows:
        where = (row["source"], row["subject"], row["stimulus_set"], row["run_id"], row["metric_profile"])
        key = (*settings(row), *where)
        found.setdefault(key, Line({})).rows[row["metric"]] = row
    return list(found.values())


def gap_lines(gaps: Iterable[Gap]) -> list[GapLine]:
    """Gather gaps into one line per model, by name."""
    found: dict[tuple[Any, ...], GapLine] = {}
    for gap in gaps:
        rows = (gap.vision, gap.imagery)
        key = (
            *settings(gap.vision),
            gap.vision["subject"],
            gap.vision["stimulus_set"],
            gap.vision["metric_profile"],
            *(r["run_id"] for r in rows),
        )
        found.setdefault(key, GapLine({})).gaps[gap.metric] = gap
    return sorted(found.values(), key=lambda line: line.vision.model)


def blocks(members: Iterable[K]) -> list[list[K]]:
    """Group lines so that within a group every metric that two lines share has one protocol key; largest first."""
    found: list[list[K]] = []
    for line in members:
        for block in found:
            if all(_agree(line.keys, other.keys) for other in block):
                block.append(line)
                break
        else:
            found.append([line])
    return sorted(found, key=len, reverse=True)


def _agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a[metric] == b[metric] for metric in a.keys() & b.keys())


def difference(line: Line, main: Sequence[Line]) -> str:
    """Say in which columns a line differs from the first line of another block that it cannot join."""
    for other in main:
        for metric in line.rows.keys() & other.rows.keys():
            a, b = line.rows[metric], other.rows[metric]
            if a["protocol_key"] != b["protocol_key"]:
                said = [
                    f"{name} {a[name]} instead of {b[name]}" for name in _DIFFERENCES if a[name] != b[name]
                ]
                return "; ".join(said) or "other stimuli, data or subjects behind the same settings"
    return "no metric in common"


def apart(found: Sequence[Sequence[Line]]) -> list[str]:
    """Say what sets each of several blocks apart from the others, besides the targets and subjects it is about."""
    shared = set.intersection(*(set(block[0].rows) for block in found)) if found else set()
    if not shared:
        return [""] * len(found)
    rows = [block[0].rows[min(shared)] for block in found]
    differing = [column for column in _DIFFERENCES if len({row[column] for row in rows}) > 1]
    columns = [column for column in differing if column not in ("n_targets", "n_subjects", "subject")]
    return [", ".join(f"{column} {row[column]}" for column in columns) for row in rows]


def gap_difference(line: GapLine, main: Sequence[GapLine]) -> str:
    """Say the same of a line on both splits: how its imagery side differs, or else its vision side."""
    for side in ("imagery", "vision"):
        here, others = getattr(line, side), [getattr(other, side) for other in main]
        if not any(_agree(here.keys, other.keys) for other in others):
            return difference(here, others)
    return difference(line.imagery, [other.imagery for other in main])


def mean_ranks(members: Sequence[Line]) -> list[float | None]:
    """Return each line's rank averaged over the metrics that several lines have; None if there is none.

    What networks without training say means nothing, so it ranks nobody.
    """
    ranks: list[list[float]] = [[] for _ in members]
    for metric in dict.fromkeys(chain.from_iterable(line.rows for line in members)):
        having = [i for i, line in enumerate(members) if _ranks(line.rows.get(metric))]
        if len(having) < 2:
            continue
        rows = [members[i].rows[metric] for i in having]
        sign = 1 if rows[0]["direction"] == "lower" else -1
        for i, rank in zip(having, stats.average_ranks([sign * row["value"] for row in rows]), strict=True):
            ranks[i].append(float(rank))
    return [float(np.mean(r)) if r else None for r in ranks]


def _ranks(row: Record | None) -> bool:
    return row is not None and row["value"] is not None and row["status"] != "untrained"


def by_rank(members: Sequence[Line]) -> list[tuple[Line, float | None]]:
    """Return lines with their mean rank, best first, then by name."""
    ranked = list(zip(members, mean_ranks(members), strict=True))
    return sorted(ranked, key=lambda pair: (pair[1] is None, pair[1] or 0.0, pair[0].model))


def beats_chance(row: Mapping[str, Any]) -> bool:
    """Return whether a score is better than chance after correction, and may be called so."""
    p = row.get("p_corrected")
    # a floor does not look at the brain: whatever its p, such a claim would be a false alarm
    return (
        p is not None and p <= summary.ALPHA and row["status"] != "untrained" and row["model"] not in FLOORS
    )


def labels(row: Mapping[str, Any]) -> list[str]:
    """Return what must be said beside a value: simulated data, untrained networks, unusual fits, incomplete targets."""
    found = [row["status"]] if row["status"] in ("simulated", "untrained") else []
    preset, *unusual = row["preset"].split(VARIANT)
    found += [preset, *unusual] if preset == RETRAINED else unusual
    full = {"AB": 12, "A": 6, "B": 6}.get(row["stimulus_set"]) or summary.pool_size(row["pool"])
    incomplete = full is not None and row["n_targets"] is not None and row["n_targets"] < full
    return found + (["partial"] if incomplete or row["n_items_null"] else [])


def facts(members: Sequence[Line], *first: str, samples: bool = True, profile: bool = False) -> str:
    """Say what lines have in common, as far as it is known: pool, targets, subjects, samples, profile."""
    rows = [row for line in members for row in line.rows.values()]
    pools = sorted({row["pool"] for row in rows} - {"none", "unstated"})
    parts = [*first, *([f"pool {', '.join(pools)}"] if pools else [])]
    targets = sorted({row["n_targets"] for row in rows} - {None})
    if targets:
        several = "" if targets[-1] == 1 else "s"
        parts.append(f"{'-'.join(map(str, dict.fromkeys((targets[0], targets[-1]))))} target{several}")
    subjects = {(row["subject"], row["n_subjects"]) for row in rows}
    if len(subjects) == 1:
        subject, n = subjects.pop()
        parts.append(f"mean of {n} subjects" if subject == summary.MEAN else f"subject {subject}")
    if samples and (n := common_samples(members)) is not None:
        parts.append(f"{n} sample{'s' if n > 1 else ''} each")
    if profile:
        parts.append(f"profile {', '.join(sorted({row['metric_profile'] for row in rows}))}")
    return ", ".join(parts)


def common_samples(members: Sequence[Line]) -> int | None:
    """Return the number of samples if it is the same for all lines."""
    found = {row["n_samples"] for line in members for row in line.rows.values()}
    return found.pop() if len(found) == 1 else None
