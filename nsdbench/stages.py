"""One cell on its way through the stages: fit, reconstruct, score. Each is skipped when its file is there."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nsdbench import __version__, fits, protocol, pulse, reconstructions, runfolder
from nsdbench.adapters.base import Adapter
from nsdbench.adapters.featurefiles import LARGE
from nsdbench.cells import Cell, RunRequest, decoder_weights
from nsdbench.errors import DataError, ProtocolError
from nsdbench.manifest import RunManifest, environment, git_commit, now, read_manifest
from nsdbench.runfolder import StoredRun
from nsdbench.schema import Provenance
from nsdbench.starts import first_trials
from nsdbench.store import atomic_directory, digest
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli, Trials

if TYPE_CHECKING:
    from nsdbench.data import Dataset, LoadOptions

Stage = Literal["fit", "reconstruct", "score"]
Say = Callable[[str], None]
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellResult:
    """A finished cell: its scores and manifest, and whether they were there already."""

    cell: Cell
    run: StoredRun
    reused: bool


class CellRun:
    """One cell of a request, and the three things that can be done about it, in this process.

    Parameters
    ----------
    dataset : Dataset
    request : RunRequest
    cell : Cell
        Of that request.
    progress, say
        For the person watching.
    adapter : Adapter, optional
        The decoder fitted for this cell, if it is in memory already; afterwards it is there if it was needed.
    """

    def __init__(
        self,
        dataset: Dataset,
        request: RunRequest,
        cell: Cell,
        *,
        progress: Progress | None = None,
        say: Say = lambda line: None,
        adapter: Adapter | None = None,
    ) -> None:  # fmt: skip
        self.dataset = dataset
        self.request = request
        self.cell = cell
        self.progress = progress or Silent()
        self.say = say
        self.adapter = adapter

    def run(self) -> CellResult:
        """Do what is left to do. An error is written into the run folder as well."""
        before = runfolder.stored(self.cell.folder)
        if before and not runfolder.missing_metrics(before, self.request.scoring):
            self.say(f"{self.cell.label}: already there")
            return CellResult(self.cell, before, reused=True)
        start = time.monotonic()
        if before is None:
            self.reconstruct()
        result = self.score()
        self.say(f"{self.cell.label}: done in {time.monotonic() - start:.1f} s")
        return result

    def begin(self) -> None:
        """Write into the run folder that work on the cell has begun."""
        self._manifest().write(self.cell.folder)

    def fail(self, error: Exception) -> None:
        """Write into the run folder that the cell failed, and why."""
        failed = replace(self._manifest(), status="failed", error=f"{type(error).__name__}: {error}")
        failed.write(self.cell.folder)

    def fit(self) -> None:
        """Fit the decoder of this cell, which cells of other splits share, or do nothing if it is there."""
        if not self.cell.fit_folder.is_dir():
            with self._recording(), pulse.beating(self.cell.fit_status, "fit", self.progress) as progress:
                self._fit(self.cell.fit_folder, progress)
        # also if it was there: a process can be killed between the two
        shutil.rmtree(self.cell.scratch, ignore_errors=True)

    def reconstruct(self) -> None:
        """Reconstruct the targets, after a fit if there is none, unless the reconstructions are there."""
        with self._recording():
            manifest = self._manifest()
            if (self.cell.folder / runfolder.RECONSTRUCTIONS).is_file():
                return
            manifest.write(self.cell.folder)
            adapter = self._fitted()
            with pulse.beating(self.cell.status, "reconstruct", self.progress) as progress:
                timings = self._reconstruct(adapter, progress)
            replace(manifest, timings=timings).write(self.cell.folder)

    def score(self) -> CellResult:
        """Score the reconstructions by the metrics that are not there yet."""
        before = runfolder.stored(self.cell.folder)
        if before is None:
            self.fit()  # it is there, unless somebody deleted it after the reconstructions
        # the folder stays complete while metrics are added: if one fails, the others are still there
        recording = contextlib.nullcontext() if before else self._recording()
        with recording, pulse.beating(self.cell.status, "score", self.progress) as progress:
            recon = reconstructions.load(self.cell.folder / runfolder.RECONSTRUCTIONS)
            manifest = before.manifest if before else self._with_fit_facts(self._manifest())
            run = runfolder.score_folder(
                self.cell.folder,
                manifest,
                before,
                recon,
                self._stimuli(),
                self.request.scoring,
                progress=progress,
            )
        return CellResult(self.cell, run, reused=False)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Leave an error in the run folder before passing it on."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self.fail(error)
            raise

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
                "decoder_weights": decoder_weights(cell, request),
                "load": asdict(request.load),
                **request.recipe.facts(cell.adapter, cell.preset),
                "weights": request.scoring.weights,
                "device": request.context.device,
                "dataset_root": str(self.dataset.root),
                "dataset_hash": self.dataset.content_hash,
                "fit": cell.fit_folder.name,
            },
            command=list(request.command),
            timings=_timings(cell.folder),
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
        facts = fits.read(self.cell.fit_folder)
        provenance = replace(
            manifest.provenance, n_voxels=facts["n_voxels"], decoder_train_trials=facts["n_trials"]
        )
        # folders of earlier versions do not say how long it took
        timings = {"fit": facts["seconds"]} if facts.get("seconds") else {}
        return replace(
            manifest,
            provenance=provenance,
            trials=facts["provenance"],
            timings={**timings, **manifest.timings},
        )

    def _stimuli(self) -> Stimuli:
        return self.dataset.stimuli(self.cell.key.split, self.cell.key.subject, self.request.load)

    def _reconstruct(self, adapter: Adapter, progress: Progress) -> dict[str, float]:
        """Write the reconstructions; return the seconds that they and the embeddings of the gallery took."""
        timings: dict[str, float] = {}
        trials = self._test_trials(progress)
        with self._timed("reconstruct", timings):
            recon = _reconstruct(adapter, trials, self.cell, progress)
        if recon.embeddings:
            with self._timed("embed", timings):
                recon = _with_gallery(recon, adapter, self._stimuli(), progress)
        reconstructions.save(recon, self.cell.folder / runfolder.RECONSTRUCTIONS)
        return timings

    def _test_trials(self, progress: Progress) -> Trials:
        """Return the rows to reconstruct: targets that have an image, so set C stays out of image scores."""
        key = self.cell.key
        trials = self.dataset.trials(key.subject, key.split, self.request.load, progress)
        return trials.of_stimuli(sorted(self._stimuli().has_image))

    def _fitted(self) -> Adapter:
        if self.adapter is None:
            self.fit()
            folder, cell = self.cell.fit_folder, self.cell
            LOG.debug("%s: loading the decoder from %s", cell.label, folder)
            fits.read(folder)  # refuses a part of it
            # always go through the stored form, so that a resumed run computes from the very same numbers
            self.adapter = cell.adapter.load(folder, cell.preset, self.request.context)
        return self.adapter

    def _fit(self, folder: Path, progress: Progress) -> None:
        key, preset, scratch = self.cell.key, self.cell.preset, self.cell.scratch
        timings: dict[str, float] = {}
        if not self.cell.adapter.learns(preset):
            model = self.cell.adapter(preset, self.request.context)
            model.adopt(key.subject)
            facts: dict[str, Any] = {"n_trials": None, "n_voxels": model.n_voxels, "provenance": {}}
        else:
            self.say(f"{key.model} subj{key.subject:02d}: fitting")
            model = self.cell.adapter(preset, replace(self.request.context, scratch=scratch))
            train = first_trials(
                self.dataset.train(key.subject, self.request.load, progress), self.request.train_trials
            )
            stimuli = self.dataset.stimuli("train", key.subject, self.request.load)
            self._announce_features(model, len(train.targets))
            with self._timed("fit", timings):
                model.fit(train, stimuli, progress=progress)
            facts = {"n_trials": len(train), "n_voxels": train.n_voxels, "provenance": dict(train.provenance)}
        with atomic_directory(folder) as temporary:
            model.save(temporary)
            fits.write(temporary, {**facts, "seconds": timings.get("fit")})

    def _announce_features(self, model: Adapter, n_images: int) -> None:
        """Say what a fit will leave on the disk, if it is much."""
        n_bytes, folder = model.prepared_bytes(n_images), self.request.context.features
        if folder and n_bytes >= LARGE:
            self.say(
                f"{self.cell.label}: features of {n_images} training images take {n_bytes / 1e9:.1f} GB in {folder}, "
                "for every fit that needs them (--no-keep-features: each fit computes its own)"
            )

    @contextlib.contextmanager
    def _timed(self, step: str, timings: dict[str, float]) -> Iterator[None]:
        start = time.monotonic()
        yield
        timings[step] = round(time.monotonic() - start, 3)
        LOG.debug("%s: %s took %.1f s", self.cell.label, step, timings[step])


def _timings(folder: Path) -> dict[str, float]:
    """Return how long earlier stages took, if their results are still there."""
    if not (folder / runfolder.RECONSTRUCTIONS).is_file():
        return {}
    try:
        return dict(read_manifest(folder).timings)
    except DataError:
        return {}


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
