"""What a decoder takes: memory on the device and off it, and operations, from numbers that were counted.

The table ``counted.csv`` holds parameters, operations and memory of every stage of every decoder, which
``benchmarks/decoder_costs.py`` counts on networks without weights. Here they are multiplied with what the settings of the
decoder say: steps, guidance, candidates, epochs. Regressions run on the CPU and are counted by formula. Nothing is timed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

COUNTED = "counted.csv"
BYTES = {"half": 2, "single": 4, "mixed": 4}
LEARNING = 12
"""Further bytes per number that is learnt: its gradient and two moments."""


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    Attributes
    ----------
    model, size, name : str
        Which stage; ``size`` is ``published`` or ``mini``.
    network : str
        Stages of a model with the same one share its weights.
    precision : {"half", "single", "mixed"}
        What the adapter uses on a GPU; mixed: weights in single precision, products in bfloat16.
    parameters : int
        Of the network.
    flop : int
        Operations per item, a multiplication and an addition as two.
    fixed, item : int
        Bytes of the tensors that the stage makes, at most at one time: ``fixed + item * items``.
    """

    model: str
    size: str
    name: str
    network: str
    precision: str
    parameters: int
    flop: int
    fixed: int
    item: int


@cache
def counted() -> Mapping[tuple[str, str], Mapping[str, Stage]]:
    """Return the stages by model and size, then by name."""
    text = files("nsdbench.doctor").joinpath(COUNTED).read_text(encoding="utf-8")
    found: dict[tuple[str, str], dict[str, Stage]] = {}
    for row in csv.DictReader(text.splitlines()):
        values = {f.name: int(row[f.name]) if f.type == "int" else row[f.name] for f in fields(Stage)}
        stage = Stage(**values)  # type: ignore[arg-type]
        found.setdefault((stage.model, stage.size), {})[stage.name] = stage
    return found


@dataclass(frozen=True)
class Work:
    """Operations by the kind of arithmetic: half or single precision on the device, double on the CPU."""

    half: float = 0.0
    single: float = 0.0
    host: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.half + other.half, self.single + other.single, self.host + other.host)

    def __mul__(self, times: float) -> Work:
        return Work(self.half * times, self.single * times, self.host * times)

    @property
    def device(self) -> float:
        """Operations on the device."""
        return self.half + self.single


@dataclass(frozen=True)
class Rates:
    """Operations per second, and in words where they are from."""

    half: float
    single: float
    host: float
    basis: str

    def seconds(self, work: Work) -> float:
        """Return how long ``work`` takes at these rates."""
        return work.half / self.half + work.single / self.single + work.host / self.host


@dataclass(frozen=True)
class Sizes:
    """What a decoder is fitted on: single trials, their images, voxels."""

    trials: int
    images: int
    voxels: int


@dataclass(frozen=True)
class Cell:
    """What is reconstructed: targets of one split, their repeats, samples of each."""

    targets: int
    repeats: int
    samples: int


@dataclass(frozen=True)
class Use:
    """That a stage runs ``times`` per target, sample or training image, ``at_once`` items together.

    With neither the network is only held, see :func:`held`.
    """

    stage: str
    times: float
    at_once: int = 1


def held(stage: str) -> Use:
    """Return that the network of a stage takes memory without running."""
    return Use(stage, 0, 0)


@dataclass(frozen=True)
class Host:
    """What the CPU does: operations, bytes of memory at most, bytes left on disk."""

    flop: float = 0.0
    memory: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How the stages of a decoder make up a fit and a reconstruction.

    Attributes
    ----------
    target, sample : tuple of Use
        Run for each target, and for each sample of it.
    image : callable
        Run for each training image of a fit of a given size.
    fit, test : callable
        Work of the CPU in a fit, and before targets can be drawn.
    held_by_fit : bool
        Whether a fit also holds the networks that only draw images.
    side : int
        Pixels per side of a reconstruction, at most.
    embedded : int
        Numbers of the embedding that a decoder stores of a target, in half precision.
    """

    target: tuple[Use, ...] = ()
    sample: tuple[Use, ...] = ()
    image: Callable[[Sizes], tuple[Use, ...]] = lambda sizes: ()
    fit: Callable[[Sizes], Host] = lambda sizes: Host()
    test: Callable[[Sizes, Cell], Host] = lambda sizes, cell: Host()
    held_by_fit: bool = True
    side: int = 0
    embedded: int = 0


@dataclass(frozen=True)
class Memory:
    """Memory of the device: weights by network, and the stage that makes the largest tensors."""

    weights: Mapping[str, int]
    largest: str
    tensors: int

    @property
    def total(self) -> int:
        """Bytes together."""
        return sum(self.weights.values()) + self.tensors


@dataclass(frozen=True)
class Fit:
    """What one fit of one subject takes."""

    work: Work
    device: Memory
    host_memory: int
    disk: int


@dataclass(frozen=True)
class Reconstruction:
    """What the reconstructions of one split of one subject take."""

    work: Work
    device: Memory
    host_memory: int


@dataclass(frozen=True)
class Costs:
    """The costs of a decoder with a preset."""

    stages: Mapping[str, Stage]
    recipe: Recipe
    learns: bool

    def fit(self, sizes: Sizes) -> Fit | None:
        """Return the costs of a fit; None if nothing is learnt."""
        if not self.learns:
            return None
        host = self.recipe.fit(sizes)
        image = self.recipe.image(sizes)
        work = self._work(image) * sizes.images + Work(host=host.flop)
        uses = (*image, *(held(u.stage) for u in self._drawing if self.recipe.held_by_fit))
        return Fit(work, self._memory(uses), round(host.memory), round(host.disk) + self._learnt(image))

    def reconstruct(self, sizes: Sizes, cell: Cell) -> Reconstruction:
        """Return the costs of the reconstructions of a split."""
        host, recipe = self.recipe.test(sizes, cell), self.recipe
        per_target = self._work(recipe.target) + self._work(recipe.sample) * cell.samples
        work = per_target * cell.targets + Work(host=host.flop)
        return Reconstruction(work, self._memory(self._drawing), round(host.memory))

    def stored(self, targets: int, samples: int) -> int:
        """Return the bytes of a file of reconstructions before compression: images, embeddings, those of the truth."""
        return targets * (3 * self.recipe.side**2 * samples + 2 * 2 * self.recipe.embedded)

    def _learnt(self, image: Iterable[Use]) -> int:
        """Return the bytes of the networks that a fit trains."""
        stages = (self.stages[use.stage] for use in image)
        trained = {stage.network: stage.parameters for stage in stages if stage.precision == "mixed"}
        return 4 * sum(trained.values())

    @property
    def _drawing(self) -> tuple[Use, ...]:
        return (*self.recipe.target, *self.recipe.sample)

    def _work(self, uses: Iterable[Use]) -> Work:
        total = Work()
        for use in uses:
            stage = self.stages[use.stage]
            flop = stage.flop * use.times
            total += Work(single=flop) if stage.precision == "single" else Work(half=flop)
        return total

    def _memory(self, uses: Iterable[Use]) -> Memory:
        weights: dict[str, int] = {}
        largest, tensors = "", 0
        for use in uses:
            stage = self.stages[use.stage]
            each = BYTES[stage.precision] + LEARNING * (stage.precision == "mixed")
            weights[stage.network] = max(weights.get(stage.network, 0), stage.parameters * each)
            here = (stage.fixed + stage.item * use.at_once) * bool(use.at_once)
            if here > tensors:
                largest, tensors = use.stage, here
        return Memory(weights, largest, tensors)
