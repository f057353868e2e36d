"""What a run will take, cell by cell, estimated from counted operations before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nsdbench import cells, runfolder
from nsdbench.adapters.base import Adapter
from nsdbench.cells import Cell, RunRequest
from nsdbench.doctor import REPEATS, metrics, rates, sizes_of
from nsdbench.doctor.costs import Cell as Amount
from nsdbench.doctor.costs import Costs, Fit, Rates, Reconstruction, Sizes, Work
from nsdbench.doctor.recipes import costs_of

if TYPE_CHECKING:
    from nsdbench.data import Dataset

N = TypeVar("N", int, float)
STAGES = ("fit", "reconstruct", "score")


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes; None is what nobody has counted, as of third-party models.

    Attributes
    ----------
    seconds : float or None
        Of computing; loading networks and data is not in it.
    n_bytes : int or None
        Written to the folder of runs, before compression. Scores count as nothing.
    device_memory, host_memory : int or None
        Bytes at most, besides Python and its libraries; all of it is host memory where the device is the CPU.
    """

    seconds: float | None = None
    n_bytes: int | None = None
    device_memory: int | None = None
    host_memory: int | None = None


@dataclass(frozen=True)
class CellEstimate:
    """What is there of a cell, and what the rest takes.

    Attributes
    ----------
    cell : Cell
    state : {"complete", "unscored", "fitted", "new"}
    reused : tuple of str
        What is there: ``fit``, ``reconstructions``, ``scores``; ``fit of SPLIT`` if another cell of this run makes it.
    stages : mapping of str to StageEstimate
        By stage that is left to do. A fit that several cells share stands with the first.
    """

    cell: Cell
    state: str
    reused: tuple[str, ...]
    stages: Mapping[str, StageEstimate]

    @property
    def seconds(self) -> float | None:
        """All stages one after the other."""
        return _sum(stage.seconds for stage in self.stages.values())

    @property
    def n_bytes(self) -> int | None:
        """Of all stages."""
        return _sum(stage.n_bytes for stage in self.stages.values())

    @property
    def device_memory(self) -> int | None:
        """Of the stage that takes most."""
        return _most(stage.device_memory for stage in self.stages.values())

    @property
    def host_memory(self) -> int | None:
        """Of the stage that takes most."""
        return _most(stage.host_memory for stage in self.stages.values())


@dataclass(frozen=True)
class Plan:
    """All cells of a request.

    Attributes
    ----------
    cells : tuple of CellEstimate
        In the order in which they run.
    basis : str
        Where the rates are from, in words.
    features : Path or None
        Where features of training images are kept.
    feature_bytes : int
        What the fits of this run keep there at most: what is there already is not known before images are read.
    """

    cells: tuple[CellEstimate, ...]
    basis: str
    features: Path | None
    feature_bytes: int

    @property
    def seconds(self) -> Mapping[str, float]:
        """How long each stage takes of all cells together, as far as it is known."""
        return {stage: sum(self._of(stage)) for stage in STAGES}

    def _of(self, stage: str) -> Iterator[float]:
        return (cell.stages[stage].seconds or 0.0 for cell in self.cells if stage in cell.stages)

    @property
    def n_bytes(self) -> int:
        """What is written to the folder of runs, as far as it is known."""
        return sum(stage.n_bytes or 0 for cell in self.cells for stage in cell.stages.values())

    @property
    def device_memory(self) -> int:
        """Of the stage that takes most, as far as it is known."""
        return max((cell.device_memory or 0 for cell in self.cells), default=0)

    @property
    def host_memory(self) -> int:
        """Of the stage that takes most, as far as it is known."""
        return max((cell.host_memory or 0 for cell in self.cells), default=0)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Models of which something was not counted."""
        partly = (c for c in self.cells if any(s.seconds is None for s in c.stages.values()))
        return tuple(dict.fromkeys(c.cell.key.model for c in partly))


def estimate(dataset: Dataset, request: RunRequest) -> Plan:
    """Return the cells of a request with what each is estimated to take. Reads facts, not betas or images."""
    on_cpu = request.context.device == "cpu"
    used = rates.cpu_rates() if on_cpu else rates.find_rates(rates.find_device())
    estimator = _Estimator(dataset, request, used, on_cpu)
    found = tuple(estimator.cells())
    return Plan(found, used.basis, request.context.features, estimator.feature_bytes)


class _Estimator:
    """Goes through the cells and remembers which fits have been counted."""

    def __init__(self, dataset: Dataset, request: RunRequest, used: Rates, on_cpu: bool) -> None:
        self.dataset = dataset
        self.request = request
        self.used = used
        self.on_cpu = on_cpu
        self.feature_bytes = 0
        self._fits: dict[Path, str] = {}  # by folder: the split of the cell that makes it

    def cells(self) -> Iterator[CellEstimate]:
        for cell in cells.plan(self.dataset, self.request):
            state = cells.state(cell, self.request)
            reused = tuple(self._reused(cell, state))
            yield CellEstimate(cell, state, reused, dict(self._stages(cell, state, reused)))

    def _reused(self, cell: Cell, state: str) -> Iterator[str]:
        keep = not self.request.fresh
        if keep and cell.fit_folder.is_dir():
            yield "fit"
        elif cell.fit_folder in self._fits:
            yield f"fit of {self._fits[cell.fit_folder]}"
        if keep and (cell.folder / runfolder.RECONSTRUCTIONS).is_file():
            yield "reconstructions"
        if state in ("complete", "unscored"):
            yield "scores"

    def _stages(self, cell: Cell, state: str, reused: tuple[str, ...]) -> Iterator[tuple[str, StageEstimate]]:
        if state == "complete":
            return
        known = self._costs(cell)
        sizes = self._sizes(cell)
        if "reconstructions" not in reused:
            if not any(what.startswith("fit") for what in reused):
                self._fits[cell.fit_folder] = cell.key.split
                yield "fit", self._fit(cell, known, sizes)
            yield "reconstruct", self._reconstruct(cell, known, sizes)
        yield "score", self._score(cell)

    def _costs(self, cell: Cell) -> Costs | None:
        return costs_of(cell.adapter, cell.preset, self._samples(cell), REPEATS[cell.key.split])

    def _sizes(self, cell: Cell) -> Sizes:
        full = sizes_of(self.dataset.expectations, cell.key.subject)
        trials = min(full.trials, self.request.train_trials or full.trials)
        return Sizes(trials, min(full.images, trials), full.voxels)

    def _samples(self, cell: Cell) -> int:
        """Return the images drawn per target; single trials are reconstructed one by one."""
        single = self.request.load.average == "none"
        return cell.n_samples * (REPEATS[cell.key.split] if single else 1)

    def _targets(self, cell: Cell) -> int:
        return len(self.dataset.stimuli(cell.key.split, cell.key.subject, self.request.load).has_image)

    def _fit(self, cell: Cell, known: Costs | None, sizes: Sizes) -> StageEstimate:
        if not cell.adapter.learns(cell.preset):
            return StageEstimate(0.0, 0, 0, 0)
        if self.request.context.features:
            model: Adapter = cell.adapter(cell.preset, self.request.context)
            self.feature_bytes += model.prepared_bytes(sizes.images)
        fit = known.fit(sizes) if known else None
        return self._taken(fit, fit.disk) if fit else StageEstimate()

    def _reconstruct(self, cell: Cell, known: Costs | None, sizes: Sizes) -> StageEstimate:
        if known is None:
            return StageEstimate()
        targets, samples = self._targets(cell), self._samples(cell)
        cost = known.reconstruct(sizes, Amount(targets, REPEATS[cell.key.split], samples))
        return self._taken(cost, known.stored(targets, samples))

    def _taken(self, cost: Fit | Reconstruction, n_bytes: int) -> StageEstimate:
        device, host = cost.device.total, cost.host_memory
        memory = (0, device + host) if self.on_cpu else (device, host)
        return StageEstimate(self.used.seconds(cost.work), n_bytes, *memory)

    def _score(self, cell: Cell) -> StageEstimate:
        """Count one pass over reconstructions and true images; features of the latter may be cached already."""
        before = None if self.request.fresh else runfolder.stored(cell.folder)
        flop = metrics.flop_per_image(runfolder.remaining(before, self.request.scoring).metrics)
        if flop is None:
            return StageEstimate(n_bytes=0)
        work = Work(single=float(flop * self._targets(cell) * (self._samples(cell) + 1)))
        return StageEstimate(self.used.seconds(work), 0)


def _sum(values: Iterable[N | None]) -> N | None:
    """Add up; what is not known in a part is not known of the whole."""
    total: N = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
