"""For each model, split and subject: ready, or which files are missing, how large they are, and how to get them."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from nsdbench import weights
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter
from nsdbench.data.needs import SOURCES, Need, Purpose, Source, missing, needs, total
from nsdbench.data.options import LoadOptions
from nsdbench.doctor.machine import Root
from nsdbench.errors import NsdbenchError, WeightsError
from nsdbench.metrics.registry import HEADLINE
from nsdbench.types import Split

PURPOSES: Mapping[str, Purpose] = {"vision": "imagery", "imagery": "imagery", "shared1000": "shared1000"}
CHECKPOINT, DECODER, METRICS = "checkpoint of the subject", "decoder weights", "metric networks"
NOWHERE = "/path/to/nsd"
"""Stands in commands for a data directory that was not named."""


@dataclass(frozen=True)
class File:
    """One missing file; ``size`` is None where nothing is known of it, and an estimate unless ``exact``."""

    name: str
    size: int | None
    exact: bool


@dataclass(frozen=True)
class Gap:
    """Missing files of one kind.

    Attributes
    ----------
    what : str
        Kind of the files.
    source : {"data", "weights"}
        Which verb brings them: ``nsdbench data fetch`` or ``nsdbench weights fetch``.
    files : tuple of File
    """

    what: str
    source: Literal["data", "weights"]
    files: tuple[File, ...]


@dataclass(frozen=True)
class Cell:
    """One model on one split of one subject.

    Attributes
    ----------
    model, preset, split, subject
    state : {"ready", "missing", "impossible"}
    gaps : tuple of Gap
        What is missing; empty unless ``state`` is ``missing``.
    reason : str
        Why it is impossible, in one sentence.
    purposes : tuple of str
        What the data are needed for, as ``nsdbench data fetch --for`` calls it.
    """

    model: str
    preset: str
    split: Split
    subject: int
    state: Literal["ready", "missing", "impossible"]
    gaps: tuple[Gap, ...] = ()
    reason: str = ""
    purposes: tuple[Purpose, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Cells of one model and preset that lack the same kinds of files, over subjects.

    Attributes
    ----------
    model, preset : str
    splits : tuple of str
    subjects : tuple of int
    cells : tuple of Cell
    commands : tuple of str
        What gets everything that is missing, in this order.
    """

    model: str
    preset: str
    splits: tuple[Split, ...]
    subjects: tuple[int, ...]
    cells: tuple[Cell, ...]
    commands: tuple[str, ...]

    @property
    def state(self) -> Literal["ready", "missing", "impossible", "part"]:
        """Say whether all subjects are ready; ``part``: some are, and the others impossible."""
        states = {cell.state for cell in self.cells}
        if "missing" in states:
            return "missing"
        if states == {"ready", "impossible"}:
            return "part"
        return "ready" if "ready" in states else "impossible"

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Everything that is missing, each file once."""
        return merged(gap for cell in self.cells for gap in cell.gaps)

    @property
    def files(self) -> tuple[File, ...]:
        """Every missing file once."""
        return tuple({file.name: file for gap in self.gaps for file in gap.files}.values())

    @property
    def impossible(self) -> tuple[Cell, ...]:
        """What can never run, with the reasons."""
        return tuple(cell for cell in self.cells if cell.state == "impossible")


@dataclass(frozen=True)
class Wanted:
    """What is asked about.

    Attributes
    ----------
    models : tuple of str
    splits : tuple of str
    subjects : tuple of int
    preset : str or None
        None means that of ``nsdbench run`` on this data set.
    weights_dir : Path or None
    """

    models: tuple[str, ...]
    splits: tuple[Split, ...]
    subjects: tuple[int, ...]
    preset: str | None = None
    weights_dir: Path | None = None


class Inspector:
    """Looks for files, each only once.

    Parameters
    ----------
    root : Root
    wanted : Wanted

    Attributes
    ----------
    faults : dict of str to NsdbenchError
        What is wrong with files that tell which others are needed, by message.
    """

    def __init__(self, root: Root, wanted: Wanted) -> None:
        self.root, self.wanted = root, wanted
        self.faults: dict[str, NsdbenchError] = {}
        self._needs: dict[tuple[frozenset[Purpose], int], tuple[Need, ...]] = {}

    def cells(self) -> tuple[Cell, ...]:
        """Return the state of every combination."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for name in self.wanted.models:
            adapter = registry.load(name)
            preset = preset_of(adapter, self.root, self.wanted.preset)
            for subject in self.wanted.subjects:
                for split in self.wanted.splits:
                    yield self._cell(name, adapter, preset, (split, subject))

    def _cell(self, name: str, adapter: type[Adapter], preset: str, place: tuple[Split, int]) -> Cell:
        split, subject = place
        purposes = self._purposes(adapter, preset, split)
        try:
            gaps = (*self._weights(adapter, preset, subject), *self._data(adapter, purposes, subject))
        except NsdbenchError as error:
            if not isinstance(error, WeightsError):
                self.faults[error.message] = error
            return Cell(name, preset, split, subject, "impossible", reason=error.message)
        state: Literal["ready", "missing"] = "missing" if gaps else "ready"
        return Cell(name, preset, split, subject, state, merged(gaps), "", purposes)

    def _purposes(self, adapter: type[Adapter], preset: str, split: Split) -> tuple[Purpose, ...]:
        found: dict[Purpose, None] = {PURPOSES[split]: None}
        if adapter.learns(preset):
            found["train"] = None
            if adapter.reads_captions:
                found["captions"] = None
        return tuple(found)

    def _weights(self, adapter: type[Adapter], preset: str, subject: int) -> Iterator[Gap]:
        networks = adapter.requires.get(preset, ())
        own = tuple(id for id in adapter.required(preset, subject) if id not in networks)
        metrics = weights.for_metrics(HEADLINE) if self.root.expectations.real else ()
        for what, ids in ((CHECKPOINT, own), (DECODER, networks), (METRICS, metrics)):
            files = tuple(self._absent(ids))
            if files:
                yield Gap(what, "weights", files)

    def _absent(self, ids: Iterable[str]) -> Iterator[File]:
        for id in ids:
            if id not in weights.REGISTRY and id not in weights.SHIPPED:
                raise WeightsError(f"weights {id} are not known to nsdbench")
            if id in weights.REGISTRY and id not in self._here:
                entry = weights.entry(id)
                yield File(id, entry.n_bytes, entry.size is not None)

    @cached_property
    def _here(self) -> frozenset[str]:
        rows = weights.listed(weights.folder(self.wanted.weights_dir))
        return frozenset(row.weights.id for row in rows if row.state == "present")

    def _data(self, adapter: type[Adapter], purposes: tuple[Purpose, ...], subject: int) -> Iterator[Gap]:
        key = frozenset(purposes), subject
        if key not in self._needs:
            path, expectations = self.root.looked_at, self.root.expectations
            self._needs[key] = missing(path, needs(path, expectations, purposes, subject, LoadOptions()))
        groups: dict[str, list[File]] = {}
        for need in self._needs[key]:
            if not need.optional or any(
                need.key.endswith(f"/roi/{roi}.nii.gz") for roi in adapter.reads_rois
            ):
                groups.setdefault(need.why, []).append(File(need.key, need.about or None, False))
        for why, files in groups.items():
            yield Gap(why, "data", tuple(files))


def preset_of(adapter: type[Adapter], root: Root, asked: str | None) -> str:
    """Return the preset that is asked about; for a model without it the one of ``nsdbench run`` on this data set."""
    if asked in adapter.presets:
        return asked
    simulated = not root.expectations.real
    return "mini" if simulated and "mini" in adapter.presets else adapter.presets[0]


def merged(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Return one gap per kind, each file once."""
    found: dict[tuple[str, Literal["data", "weights"]], dict[str, File]] = {}
    for gap in gaps:
        found.setdefault((gap.what, gap.source), {}).update({file.name: file for file in gap.files})
    return tuple(Gap(what, source, tuple(files.values())) for (what, source), files in found.items())


def summaries(cells: Sequence[Cell], root: Root, wanted: Wanted) -> tuple[Summary, ...]:
    """Return one summary per model and set of splits that lack the same."""
    found = []
    for (model, preset), group in itertools.groupby(cells, key=lambda cell: (cell.model, cell.preset)):
        own = list(group)
        by_gaps: dict[tuple[tuple[int, tuple[Gap, ...]], ...], list[Split]] = {}
        for split in wanted.splits:
            lacking = tuple((cell.subject, cell.gaps) for cell in own if cell.split == split)
            by_gaps.setdefault(lacking, []).append(split)
        for splits in by_gaps.values():
            chosen = tuple(cell for cell in own if cell.split in splits)
            commands = tuple(commands_for(chosen, root, wanted))
            found.append(Summary(model, preset, tuple(splits), wanted.subjects, chosen, commands))
    return tuple(found)


def commands_for(cells: Sequence[Cell], root: Root, wanted: Wanted) -> Iterator[str]:
    """Yield the commands that get what these cells of one model lack: data, then weights."""
    lacking = [cell for cell in cells if cell.state == "missing"]
    without_data = [cell for cell in lacking if _gaps(cell, "data")]
    if without_data:
        yield fetch_data(
            dict.fromkeys(p for cell in without_data for p in cell.purposes),
            dict.fromkeys(cell.subject for cell in without_data),
            root,
        )
    if any(_gaps(cell, "weights") for cell in lacking):
        yield fetch_weights(lacking, wanted.weights_dir)


def _gaps(cell: Cell, source: str) -> list[Gap]:
    return [gap for gap in cell.gaps if gap.source == source]


def fetch_data(purposes: Iterable[str], subjects: Iterable[int], root: Root) -> str:
    """Return the command that fetches data."""
    parts = ["nsdbench data fetch --for", ",".join(purposes), "--subject", ",".join(map(str, subjects))]
    return " ".join([*parts, *_data_dir(root)])


def _data_dir(root: Root) -> list[str]:
    if root.path is None:
        return ["--data-dir", NOWHERE]
    return ["--data-dir", shlex.quote(str(root.path))] if root.by_option else []


def fetch_weights(cells: Sequence[Cell], weights_dir: Path | None) -> str:
    """Return the command that fetches the weights that cells of one model lack."""
    parts = ["nsdbench weights fetch"]
    kinds = {gap.what for cell in cells for gap in _gaps(cell, "weights")}
    if kinds.intersection((CHECKPOINT, DECODER)):
        parts += ["--model", cells[0].model, "--preset", cells[0].preset]
        lacking = [c.subject for c in cells if any(gap.what == CHECKPOINT for gap in c.gaps)]
        parts += ["--subject", ",".join(map(str, dict.fromkeys(lacking)))] if lacking else []
    if METRICS in kinds:
        parts += ["--metrics", _headline()]
    if weights_dir is not None:
        parts += ["--weights-dir", shlex.quote(str(weights_dir))]
    return " ".join(parts)


def first_row(root: Root, wanted: Wanted) -> tuple[str, ...]:
    """Return the shortest way from nothing to a row of real data: one subject, the linear baseline.

    Data, their preparation, the networks of the metrics, the run.
    """
    subject = wanted.subjects[0]
    where = " ".join(["", *_data_dir(root)])
    shelf = f" --weights-dir {shlex.quote(str(wanted.weights_dir))}" if wanted.weights_dir else ""
    return (
        f"nsdbench data fetch --for imagery,train --subject {subject}{where}",
        f"nsdbench data prepare --subject {subject}{where}",
        f"nsdbench weights fetch --metrics {_headline()}{shelf}",
        f"nsdbench run --dataset nsd --model ridge --split both --subject {subject}{where}{shelf}",
    )


def first_sizes(root: Root, wanted: Wanted) -> dict[Source, int]:
    """Return about how many bytes the first of these commands fetches, by where core trials come from."""
    subject, path = wanted.subjects[0], root.looked_at
    return {
        source: total(
            missing(path, needs(path, root.expectations, ("imagery", "train"), subject, source=source))
        )
        for source in SOURCES
    }


def _headline() -> str:
    """The headline metrics that look through networks."""
    return ",".join(metric for metric in HEADLINE if weights.for_metrics([metric]))
