"""What was asked for, and the cells that it comes to: one model, one subject and one split each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsdbench import protocol, pulse, runfolder
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.nets.shipped import located
from nsdbench.schema import RunKey
from nsdbench.scoring import ScoreSettings, require_weights
from nsdbench.starts import Recipe
from nsdbench.store import digest

if TYPE_CHECKING:
    from nsdbench.data import Dataset, LoadOptions


@dataclass(frozen=True)
class RunRequest:
    """What ``nsdbench run`` was asked for, with every default filled in."""

    models: tuple[str, ...]
    splits: tuple[str, ...]
    subjects: tuple[int, ...]
    load: LoadOptions
    scoring: ScoreSettings
    out: Path
    leaderboard: Path
    preset: str | None = None
    n_samples: int = 10
    seed: int = 0
    context: Context = field(default_factory=Context)
    train_trials: int | None = None
    fresh: bool = False
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))

    @property
    def recipe(self) -> Recipe:
        """How fits differ from the full one of a subject."""
        return Recipe(self.context.start, self.train_trials)


@dataclass(frozen=True)
class Cell:
    """One model, one subject, one split: the unit that is resumed, reused and reported."""

    adapter: type[Adapter]
    preset: str
    key: RunKey
    folder: Path
    fit_folder: Path
    n_samples: int
    seed: int

    @property
    def label(self) -> str:
        """Short name for messages."""
        return f"{self.key.model} subj{self.key.subject:02d} {self.key.split}"

    @property
    def scratch(self) -> Path:
        """Where a fit keeps its state until it is done."""
        return self.fit_folder.with_name(f"{self.fit_folder.name}.training")

    @property
    def status(self) -> Path:
        """Where reconstructing and scoring give a sign of life."""
        return self.folder / pulse.FILE

    @property
    def fit_status(self) -> Path:
        """Where the fit gives a sign of life."""
        return self.fit_folder.with_name(f"{self.fit_folder.name}.{pulse.FILE}")


def plan(dataset: Dataset, request: RunRequest) -> tuple[Cell, ...]:
    """Return all cells of a request in the order in which they run: by model, then subject, then split."""
    cells = []
    # random networks give other scores under the same metric names, so they get a run folder of their own
    untrained = () if request.scoring.weights == "pretrained" else (request.scoring.weights,)
    for name in request.models:
        adapter = registry.load(name)
        preset = request.preset or protocol.default_preset(adapter, dataset)
        if preset not in adapter.presets:
            adapter(preset)  # raises the error that lists the presets
        request.recipe.require(adapter, preset)
        variant = request.recipe.variant(adapter, preset)
        base = request.out / dataset.id / f"{adapter.name}-{variant}"
        for subject in request.subjects:
            fit_id = _fit_id(dataset, request, adapter, preset, subject)
            for split in request.splits:
                draws = (request.n_samples, request.seed) if adapter.stochastic else (1, 0)
                run_id = digest(
                    "run/1", fit_id, *draws, *_test_hashes(dataset, request, subject, split), *untrained
                )
                folder = base / f"subj{subject:02d}"
                key = RunKey(run_id, dataset.id, adapter.name, variant, subject, split)
                fit_folder = folder / "fit" / fit_id
                cells.append(Cell(adapter, preset, key, folder / split / run_id, fit_folder, *draws))
    return tuple(cells)


def _fit_id(dataset: Dataset, request: RunRequest, adapter: type[Adapter], preset: str, subject: int) -> str:
    """Hash what determines a fitted decoder: neither imagery nor the seed, because neither enters a fit."""
    if not adapter.learns(preset):
        return digest("fit/1", adapter.name, adapter.version, preset, subject)
    images = dataset.stimuli("train", subject, request.load).content_hash
    betas = dataset.key(subject, "train", request.load)
    further = request.recipe.identity(adapter, preset)
    return digest("fit/1", adapter.name, adapter.version, preset, betas, images, *further)


def _test_hashes(dataset: Dataset, request: RunRequest, subject: int, split: str) -> tuple[str, ...]:
    """Hash what determines the test betas, how they are selected and labelled, and the targets."""
    load = request.load
    selection = () if split == "shared1000" else (load.imagery_runs, load.label_source)
    return (
        split,
        dataset.key(subject, split, load),
        dataset.stimuli(split, subject, load).content_hash,
        digest(load.average, selection),
    )


def state(cell: Cell, request: RunRequest) -> Literal["complete", "unscored", "fitted", "new"]:
    """Say what is there of a cell: everything, all but some metrics, the fitted decoder, or nothing."""
    if request.fresh:
        return "new"
    run = runfolder.stored(cell.folder)
    if run:
        return "unscored" if runfolder.missing_metrics(run, request.scoring) else "complete"
    return "fitted" if cell.fit_folder.is_dir() else "new"


def require_all_weights(cells: Sequence[Cell], request: RunRequest) -> None:
    """Ask for every file of weights before hours of computation rather than after.

    Raises
    ------
    WeightsError
        If weights of a model or metric are missing.
    """
    for cell in cells:
        before = None if request.fresh else runfolder.stored(cell.folder)
        require_weights(runfolder.remaining(before, request.scoring))
        if before is None:
            decoder_weights(cell, request)


def decoder_weights(cell: Cell, request: RunRequest) -> dict[str, str]:
    """Return the SHA-256 by id of the pretrained weights that a decoder needs; missing ones are an error."""
    return located(cell.adapter.required(cell.preset, cell.key.subject), request.context.weights_dir)
