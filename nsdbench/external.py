"""Score reconstructions that were made elsewhere, or add metrics to run folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsdbench import __version__, leaderboard, protocol, reconstructions, runfolder
from nsdbench.errors import DataError, UsageError
from nsdbench.manifest import RunManifest, environment, git_commit, now, read_manifest
from nsdbench.runfolder import StoredRun
from nsdbench.schema import Provenance, RunKey
from nsdbench.scoring import ScoreSettings
from nsdbench.store import digest
from nsdbench.types import SPLITS, Progress, Reconstructions, Silent, Stimuli

if TYPE_CHECKING:
    from nsdbench.data import Dataset

PRESET = "external"


@dataclass(frozen=True)
class Truth:
    """Where the targets come from: a data set, or a folder of images."""

    dataset: Dataset | None
    folder: Path | None

    @property
    def id(self) -> str:
        """Value of the ``dataset`` column."""
        return self.dataset.id if self.dataset else "target-folder"

    def stimuli(self, split: str) -> Stimuli:
        """Return the targets of ``split``."""
        if self.folder is not None:
            return reconstructions.read_targets(self.folder)
        if self.dataset is None:
            raise UsageError("nothing to score against", remedy="Give --targets DIR or a data set.")
        return self.dataset.stimuli(split)


@dataclass(frozen=True)
class ScoreJob:
    """One path to score and how its rows are called."""

    path: Path
    split: str
    subject: int
    name: str
    out: Path
    leaderboard: Path


@dataclass(frozen=True)
class ScoredPath:
    """Leaderboard rows of one scored path, and what must be said about them."""

    rows: list[dict[str, Any]]
    notes: tuple[str, ...]
    folder: Path


def score_external(
    job: ScoreJob, truth: Truth, settings: ScoreSettings, *, progress: Progress | None = None
) -> ScoredPath:
    """Score one path and add its rows to the leaderboard directory.

    Parameters
    ----------
    job : ScoreJob
        A run folder (its missing metrics are added in place), or anything
        :func:`nsdbench.reconstructions.read_any` reads.
    truth : Truth
        The targets. Reconstructions and targets are joined by id; what has no partner is noted, not guessed.
    settings : ScoreSettings

    Raises
    ------
    UsageError
        If the split is missing or unknown, the name cannot be used, or a run folder was scored with other weights.
    DataError, ReconstructionError
        If the run folder belongs to other data, or the reconstructions cannot be read or match no target.
    """
    progress = progress or Silent()
    is_run = (job.path / runfolder.MANIFEST).is_file()
    prepare = _from_run if is_run else _from_files
    folder, manifest, recon, stimuli = prepare(job, truth, settings)
    before = runfolder.stored(folder)
    if before:  # the folder stays complete while metrics are added
        manifest = before.manifest
    run = before
    if run is None or runfolder.missing_metrics(run, settings):
        if before is None and not is_run:
            manifest.write(folder)
            reconstructions.save(recon, folder / runfolder.RECONSTRUCTIONS)
        run = runfolder.score_folder(folder, manifest, before, recon, stimuli, settings, progress=progress)
    return _publish(job, run, folder, settings)


def _from_run(
    job: ScoreJob, truth: Truth, settings: ScoreSettings
) -> tuple[Path, RunManifest, Reconstructions, Stimuli]:
    manifest = read_manifest(job.path)
    if job.split and job.split != manifest.key.split:
        raise UsageError(f"{job.path} is a run of split {manifest.key.split}, not {job.split}")
    stimuli = truth.stimuli(manifest.key.split)
    if stimuli.content_hash != manifest.provenance.stimulus_hash:
        raise DataError(
            f"{job.path} was made with other targets than {truth.id} holds now",
            remedy="Name the data set of the run with --dataset or --data-dir.",
        )
    if settings.weights != manifest.config.get("weights"):
        raise UsageError(
            f"{job.path} holds scores made with {manifest.config.get('weights')} weights, not {settings.weights}",
            remedy="Repeat the run with --weights, which gives it a folder of its own.",
        )
    return job.path, manifest, reconstructions.load(job.path / runfolder.RECONSTRUCTIONS), stimuli


def _from_files(
    job: ScoreJob, truth: Truth, settings: ScoreSettings
) -> tuple[Path, RunManifest, Reconstructions, Stimuli]:
    if job.split not in SPLITS:
        raise UsageError(
            f"--split {job.split or 'is missing'}: the rows must say which split the reconstructions belong to",
            remedy=f"Give --split with one of: {', '.join(SPLITS)}.",
        )
    if not str(job.path).isprintable():
        raise UsageError(
            f"{str(job.path)!r} cannot be noted as the source of the rows: it has characters that cannot be shown",
            remedy="Rename it.",
        )
    stimuli = truth.stimuli(job.split)
    recon = reconstructions.read_any(job.path, targets=sorted(stimuli.has_image))
    run_id = digest(
        "score/1", recon.images, list(recon.targets), job.name, job.subject, job.split, stimuli.content_hash,
        *_byproducts(recon), *(() if settings.weights == "pretrained" else (settings.weights,)),
    )  # fmt: skip
    key = RunKey(run_id, truth.id, job.name, PRESET, job.subject, job.split)
    folder = job.out / truth.id / f"{job.name}-{PRESET}" / f"subj{job.subject:02d}" / job.split / run_id
    runfolder.require_own(folder, job.out)
    provenance = Provenance(
        status=protocol.status(truth.dataset) if truth.dataset else "measured",
        stimulus_hash=stimuli.content_hash,
        dataset_hash=truth.dataset.content_hash if truth.dataset else stimuli.content_hash,
        source=str(job.path),
        nsdbench_version=__version__,
        git_commit=git_commit(),
        created_at=now(),
    )
    config = {"weights": settings.weights}
    return folder, RunManifest(key, "started", provenance, config, environment=environment()), recon, stimuli


def _byproducts(recon: Reconstructions) -> Iterator[Any]:
    """Yield what is scored besides the images and must tell runs apart."""
    for name in ("embeddings", "gallery"):
        for space, values in sorted(getattr(recon, name).items()):
            yield from (name, space, values)
    for name in ("captions", "gallery_ids", "gallery_captions"):
        if getattr(recon, name):
            yield from (name, getattr(recon, name))


def _publish(job: ScoreJob, run: StoredRun, folder: Path, settings: ScoreSettings) -> ScoredPath:
    summary = leaderboard.summarize(run.items, run.manifest.provenance)
    leaderboard.append(job.leaderboard / run.manifest.key.split, summary)
    wanted = [
        row
        for row in summary.to_pylist()
        if row["metric"] in settings.wanted and row["metric_profile"] == settings.metric_profile
    ]
    return ScoredPath(wanted, tuple(run.manifest.notes), folder)
