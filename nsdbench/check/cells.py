"""Item scores sorted into cells: one model, split, metric, profile and pool each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from nsdbench.errors import LeaderboardError

ItemKey = tuple[int, str, int]  # subject, stimulus, sample


class Name(NamedTuple):
    """What a cell is about."""

    dataset: str
    model: str
    preset: str
    split: str
    metric: str
    profile: str
    pool: str

    @property
    def contrast(self) -> tuple[str, ...]:
        """Data set, model, preset and split: the cells that are judged together."""
        return self[:4]

    @property
    def where(self) -> str:
        """Data set, model with preset, and split in words."""
        return f"{self.dataset} {self.model}-{self.preset} {self.split}"

    @property
    def number(self) -> str:
        """Metric, profile and pool in words."""
        return f"{self.metric} ({self.profile}{'' if self.pool == 'none' else f', {self.pool}'})"

    def __str__(self) -> str:
        return f"{self.where} {self.number}"


@dataclass(frozen=True)
class Cell:
    """The items of a cell, the metric versions they were computed by, and the run of each subject."""

    name: Name
    versions: set[int] = field(default_factory=set)
    runs: dict[int, str] = field(default_factory=dict)
    values: dict[ItemKey, float | None] = field(default_factory=dict)


def cells(items: pa.Table) -> dict[Name, Cell]:
    """Sort item scores into cells.

    Raises
    ------
    LeaderboardError
        If two runs are about the same subject.
    """
    found: dict[Name, Cell] = {}
    names = ("dataset", "model", "preset", "split", "metric", "metric_profile", "pool")
    more = ("metric_version", "run_id", "subject", "stimulus", "sample", "value")
    columns = (items[name].to_pylist() for name in (*names, *more))
    for *key, version, run_id, subject, stimulus, sample, value in zip(*columns, strict=True):
        name = Name(*key)
        cell = found.get(name) or found.setdefault(name, Cell(name))
        if cell.runs.setdefault(subject, run_id) != run_id:
            raise LeaderboardError(
                f"{name}: two runs of subject {subject} ({cell.runs[subject]}, {run_id})",
                remedy="Check one run per model, subject and split.",
            )
        cell.versions.add(version)
        cell.values[subject, stimulus, sample] = value
    return found
