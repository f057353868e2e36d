"""From a request to run folders: fit once per subject, reconstruct and score each split, resume what is there."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from nsdbench import __version__, leaderboard, protocol, reconstructions, runfolder
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.featurefiles import LARGE
from nsdbench.adapters.nets.shipped import located
from nsdbench.errors import ProtocolError
from nsdbench.manifest import RunManifest, environment, git_commit, now
from nsdbench.runfolder import StoredRun
from nsdbench.schema import Provenance, RunKey
from nsdbench.scoring import ScoreSettings, require_weights
from nsdbench.starts import Recipe, first_trials
from nsdbench.store import atomic_directory, digest, read_json, write_json
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli, Trials

if TYPE_CHECKING:
    from nsdbench.data import Dataset, LoadOptions

Say = Callable[[str], None]
LOG = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class CellResult:
    """A finished cell: its scores and manifest, and whether they were there already."""

    cell: Cell
    run: StoredRun
    reused: bool


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


def execute(
    dataset: Dataset, request: RunRequest, *, progress: Progress | None = None, say: Say = lambda line: None
) -> list[CellResult]:
    """Run every cell that is not there yet, write the leaderboards, and return all results.

    A cell that fails is recorded as ``failed`` and the others still run; then the first error is raised.

    Raises
    ------
    WeightsError
        If weights of a model or metric are missing; nothing has been computed then.
    OSError
        At once, if a file cannot be written.
    Exception
        The error of the first failed cell, after all others have run.
    """
    progress = progress or Silent()
    cells = plan(dataset, request)
    _require_weights(cells, request)
    if request.fresh:
        _remove(cells)
    results: list[CellResult] = []
    failures: list[Exception] = []
    for _, group in itertools.groupby(cells, key=lambda cell: cell.fit_folder):
        adapter: Adapter | None = None  # one fitted decoder in memory at a time
        for cell in group:
            try:
                result, adapter = _Execution(dataset, request, cell, progress, say).run(adapter)
            except OSError:
                raise  # the disk, not the cell: the others would fail likewise, after their computations
            except Exception as error:  # noqa: BLE001 - kept, shown, and the first one raised at the end
                say(f"{cell.label}: failed: {error}")
                failures.append(error)
            else:
                results.append(result)
    write_leaderboards(results, request.leaderboard)
    if failures:
        raise failures[0]
    return results


def _require_weights(cells: Sequence[Cell], request: RunRequest) -> None:
    """Ask for every file of weights before hours of computation rather than after."""
    settings = request.scoring
    for cell in cells:
        before = None if request.fresh else runfolder.stored(cell.folder)
        require_weights(runfolder.remaining(before, settings))
        if before is None:
            _decoder_weights(cell, request)


def _decoder_weights(cell: Cell, request: RunRequest) -> dict[str, str]:
    """Return the SHA-256 by id of the pretrained weights that a decoder needs; missing ones are an error."""
    return located(cell.adapter.required(cell.preset, cell.key.subject), request.context.weights_dir)


def _remove(cells: Sequence[Cell]) -> None:
    """Delete the runs of ``cells``, and the fitted decoders they share or the unfinished state of these."""
    folders = {folder for cell in cells for folder in (cell.folder, cell.fit_folder, cell.scratch)}
    for folder in folders:
        if folder.is_dir():
            shutil.rmtree(folder)


class _Execution:
    """One cell on its way: each stage is skipped when its file is there."""

    def __init__(
        self, dataset: Dataset, request: RunRequest, cell: Cell, progress: Progress, say: Say
    ) -> None:
        self.dataset = dataset
        self.request = request
        self.cell = cell
        self.progress = progress
        self.say = say
        self.timings: dict[str, float] = {}

    def run(self, adapter: Adapter | None) -> tuple[CellResult, Adapter | None]:
        """Return the result, and the fitted adapter if it was given, fitted or loaded on the way."""
        before = runfolder.stored(self.cell.folder)
        if before is None:
            return self._from_the_start(adapter)
        if not runfolder.missing_metrics(before, self.request.scoring):
            self.say(f"{self.cell.label}: already there")
            return CellResult(self.cell, before, reused=True), adapter
        # the folder stays complete while metrics are added: if one fails, the others are still there
        recon = reconstructions.load(self.cell.folder / runfolder.RECONSTRUCTIONS)
        return self._scored(before.manifest, before, recon), adapter

    def _from_the_start(self, adapter: Adapter | None) -> tuple[CellResult, Adapter | None]:
        manifest = self._manifest()
        manifest.write(self.cell.folder)
        try:
            recon, adapter = self._reconstructions(adapter)
            return self._scored(self._with_fit_facts(manifest), None, recon), adapter
        except Exception as error:
            with contextlib.suppress(OSError):  # the first error is the one to report
                failed = replace(manifest, status="failed", error=f"{type(error).__name__}: {error}")
                failed.write(self.cell.folder)
            raise

    def _scored(self, manifest: RunManifest, before: StoredRun | None, recon: Reconstructions) -> CellResult:
        run = runfolder.score_folder(
            self.cell.folder, manifest, before, recon, self._stimuli(), self.request.scoring,
            progress=self.progress,
        )  # fmt: skip
        self.say(f"{self.cell.label}: done in {sum(run.manifest.timings.values()):.1f} s")
        return CellResult(self.cell, run, reused=False)

    def _manifest(self) -> RunManifest:
        request, cell = self.request, self.cell
        return RunManifest(
            key=cell.key,
            status="started",
            provenance=self._provenance(),
            config={
                "seed": request.seed,
                "n_samples": cell.n_samples,
                "adapter_version": cell.adapter.version,
                "paper": cell.adapter.paper,
                "transductive": cell.adapter.transductive,
                "decoder_weights": _decoder_weights(cell, request),
                "load": asdict(request.load),
                **request.recipe.facts(cell.adapter, cell.preset),
                "weights": request.scoring.weights,
                "device": request.context.device,
                "dataset_root": str(self.dataset.root),
                "dataset_hash": self.dataset.content_hash,
                "fit": cell.fit_folder.name,
            },
            environment=environment(),
        )

    def _provenance(self) -> Provenance:
        load, split = self.request.load, self.cell.key.split
        return Provenance(
            status=protocol.status(self.dataset),
            stimulus_hash=self._stimuli().content_hash,
            dataset_hash=self.dataset.content_hash,
            beta_version=load.beta_version,
            normalization=load.core_norm if split == "shared1000" else load.imagery_norm,
            averaging=_averaging(load, split),
            label_source=None if split == "shared1000" else load.label_source,
            nsdbench_version=__version__,
            git_commit=git_commit(),
            created_at=now(),
        )

    def _with_fit_facts(self, manifest: RunManifest) -> RunManifest:
        facts = read_json(self.cell.fit_folder / "fit.json")
        provenance = replace(
            manifest.provenance, n_voxels=facts["n_voxels"], decoder_train_trials=facts["n_trials"]
        )
        return replace(manifest, provenance=provenance, trials=facts["provenance"], timings=self.timings)

    def _stimuli(self) -> Stimuli:
        return self.dataset.stimuli(self.cell.key.split, self.cell.key.subject, self.request.load)

    def _reconstructions(self, adapter: Adapter | None) -> tuple[Reconstructions, Adapter | None]:
        path = self.cell.folder / runfolder.RECONSTRUCTIONS
        if path.is_file():
            return reconstructions.load(path), adapter
        adapter = adapter or self._fitted()
        trials = self._test_trials()
        with self._timed("reconstruct"):
            recon = _reconstruct(adapter, trials, self.cell, self.progress)
        if recon.embeddings:
            with self._timed("embed"):
                recon = _with_gallery(recon, adapter, self._stimuli(), self.progress)
        reconstructions.save(recon, path)
        return recon, adapter

    def _test_trials(self) -> Trials:
        """Return the rows to reconstruct: targets that have an image, so set C stays out of image scores."""
        key = self.cell.key
        trials = self.dataset.trials(key.subject, key.split, self.request.load, self.progress)
        return trials.of_stimuli(sorted(self._stimuli().has_image))

    def _fitted(self) -> Adapter:
        folder, cell = self.cell.fit_folder, self.cell
        if not folder.is_dir():
            self._fit(folder)
        LOG.debug("%s: loading the decoder from %s", cell.label, folder)
        # always go through the stored form, so that a resumed run computes from the very same numbers
        return cell.adapter.load(folder, cell.preset, self.request.context)

    def _fit(self, folder: Path) -> None:
        key, preset, scratch = self.cell.key, self.cell.preset, self.cell.scratch
        if not self.cell.adapter.learns(preset):
            model = self.cell.adapter(preset, self.request.context)
            model.adopt(key.subject)
            facts: dict[str, Any] = {"n_trials": None, "n_voxels": model.n_voxels, "provenance": {}}
        else:
            self.say(f"{key.model} subj{key.subject:02d}: fitting")
            model = self.cell.adapter(preset, replace(self.request.context, scratch=scratch))
            train = first_trials(
                self.dataset.train(key.subject, self.request.load, self.progress), self.request.train_trials
            )
            stimuli = self.dataset.stimuli("train", key.subject, self.request.load)
            self._announce_features(model, len(train.targets))
            with self._timed("fit"):
                model.fit(train, stimuli, progress=self.progress)
            facts = {"n_trials": len(train), "n_voxels": train.n_voxels, "provenance": dict(train.provenance)}
        with atomic_directory(folder) as temporary:
            model.save(temporary)
            write_json(temporary / "fit.json", facts)
        shutil.rmtree(scratch, ignore_errors=True)

    def _announce_features(self, model: Adapter, n_images: int) -> None:
        """Say what a fit will leave on the disk, if it is much."""
        n_bytes, folder = model.prepared_bytes(n_images), self.request.context.features
        if folder and n_bytes >= LARGE:
            self.say(
                f"{self.cell.label}: features of {n_images} training images take {n_bytes / 1e9:.1f} GB in {folder}, "
                "for every fit that needs them (--no-keep-features: each fit computes its own)"
            )

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.timings[stage] = round(time.monotonic() - start, 3)
        LOG.debug("%s: %s took %.1f s", self.cell.label, stage, self.timings[stage])


def _averaging(load: LoadOptions, split: str) -> str:
    """Say what was averaged; scores of half of the imagery runs must not pass as scores of all of them."""
    half = split == "imagery" and load.imagery_runs != "all"
    return f"{load.average} of imagery run {load.imagery_runs}" if half else load.average


def _reconstruct(adapter: Adapter, trials: Trials, cell: Cell, progress: Progress) -> Reconstructions:
    """Reconstruct averaged targets, or every single trial with its repeats filling the sample axis."""
    if len(set(trials.stimulus.tolist())) == len(trials):
        return adapter.reconstruct(trials, n_samples=cell.n_samples, seed=cell.seed, progress=progress)
    parts = []
    for repeat in np.unique(trials.repeat):
        rows = trials.select(trials.repeat == repeat)
        if rows.targets != trials.targets:
            raise ProtocolError(
                f"{cell.label}: repeat {repeat + 1} is missing for {len(trials.targets) - len(rows.targets)} targets",
                remedy="Use --average mean: single-trial runs need the same number of repeats for every target.",
            )
        rows = rows.select(np.argsort(rows.stimulus))
        seed = int(digest(cell.seed, int(repeat)), 16) % 2**32
        parts.append(adapter.reconstruct(rows, n_samples=cell.n_samples, seed=seed, progress=progress))
    images = np.concatenate([part.images for part in parts], axis=1)
    # embeddings are left out: there is one per target, and these would be one per trial
    captions = tuple(sum(rows, start=()) for rows in zip(*(part.captions for part in parts), strict=True))
    return Reconstructions(
        images,
        parts[0].targets,
        captions=captions,
        attributes={"samples": "repeats x samples, single trials"},
    )


def _with_gallery(
    recon: Reconstructions, adapter: Adapter, stimuli: Stimuli, progress: Progress
) -> Reconstructions:
    """Add the embeddings of all images of the split, from which retrieval chooses."""
    ids = tuple(sorted(stimuli.has_image))
    gallery = adapter.embed(stimuli, ids, progress=progress)
    return replace(recon, gallery=gallery, gallery_ids=ids) if gallery else recon


def summaries(results: Sequence[CellResult]) -> list[pa.Table]:
    """Return one leaderboard table per model, preset and split, over the subjects of the request."""
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for result in results:
        key = result.cell.key
        groups.setdefault((key.model, key.preset, key.split), []).append(result)
    return [
        leaderboard.summarize(
            pa.concat_tables([member.run.items for member in members]),
            {member.cell.key.run_id: member.run.manifest.provenance for member in members},
        )
        for members in groups.values()
    ]


def write_leaderboards(results: Sequence[CellResult], directory: Path) -> None:
    """Add the summaries of ``results`` to the leaderboard directory, one folder per split."""
    for table in summaries(results):
        leaderboard.append(directory / table["split"][0].as_py(), table)
