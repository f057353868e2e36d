"""Where runs are, and how what they were made of is found again: reconstructions, data set, targets, training images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nsdbench import reconstructions, runfolder
from nsdbench.data.options import LoadOptions
from nsdbench.errors import DataError, UsageError
from nsdbench.inspection.evidence import Training, Unavailable
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.store import sha256_file
from nsdbench.types import Reconstructions, Stimuli

if TYPE_CHECKING:
    from nsdbench.data import Dataset

EXTERNAL = "external"  # preset of reconstructions made elsewhere
STATUSES = ("measured", "simulated", "untrained")


@dataclass(frozen=True)
class Found:
    """Run folders below some paths, and notes about those that were left out."""

    folders: tuple[Path, ...]
    notes: tuple[str, ...]


def find_runs(paths: Iterable[Path]) -> Found:
    """Return the complete runs at and below ``paths``.

    Raises
    ------
    UsageError
        If there is none.
    """
    folders: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", remedy="Give a run folder, or a folder of runs.")
        if (path / runfolder.MANIFEST).is_file():
            folders.append(path)
            continue
        for document in sorted(path.rglob(runfolder.MANIFEST)):
            status = read_manifest(document.parent).status
            if status == "complete":
                folders.append(document.parent)
            else:
                notes.append(f"left out, {status}: {document.parent}")
    if not folders:
        raise UsageError(
            f"there is no complete run in {', '.join(map(str, paths))}",
            remedy="Make one with `nsdbench run`, or give reconstructions made elsewhere to `nsdbench score` first.",
        )
    return Found(tuple(dict.fromkeys(folders)), tuple(notes))


@dataclass(frozen=True)
class Source:
    """A run and what it was made of.

    Attributes
    ----------
    folder : Path
    manifest : RunManifest
    recon : Reconstructions
    dataset : Dataset
    load : LoadOptions
    stimuli : Stimuli
        Targets of the split.
    """

    folder: Path
    manifest: RunManifest
    recon: Reconstructions
    dataset: Dataset
    load: LoadOptions
    stimuli: Stimuli

    def training(self) -> Training:
        """Return the images that the decoder was trained on: core images of its subject that are not shared.

        Raises
        ------
        Unavailable
            If there is none.
        """
        subject, first = self.manifest.key.subject, self.manifest.config.get("train_trials")
        stimuli = self.dataset.stimuli("train", subject, self.load)
        ids: Sequence[str] = stimuli.ids
        if isinstance(first, int):  # the first in the order of acquisition
            ids = np.unique(self.dataset.train(subject, self.load).stimulus[:first]).tolist()
        if not ids:
            raise Unavailable(f"subject {subject} has no training images in {self.dataset.root}")
        return Training(stimuli, tuple(ids))

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the values must know."""
        notes = []
        missing = len(self.stimuli.has_image - set(self.recon.targets))
        if missing:
            notes.append(
                f"{missing} of {len(self.stimuli.has_image)} targets have no reconstruction; "
                "they serve as distractors only"
            )
        if self.manifest.key.preset == EXTERNAL:
            notes.append(
                "made elsewhere: its training images are taken to be the unshared ones of the subject"
            )
        if self.manifest.config.get("start"):
            notes.append("training images of the subjects of its pretraining are not among those compared")
        return tuple(notes)


def open_run(folder: Path, data_dir: Path | None, cache: Path | None) -> Source:
    """Find again what a run was made of.

    Parameters
    ----------
    folder : Path
        Run folder.
    data_dir : Path or None
        Root of the data set; None means where the run says it was.
    cache : Path or None

    Raises
    ------
    DataError
        If the run is damaged or unfinished, or its data set is not to be found or another one.
    ReconstructionError
        If its reconstructions are damaged.
    """
    manifest = _read(folder)
    dataset = _dataset(folder, manifest, data_dir, cache)
    load = _load_options(folder, manifest)
    key, wanted = manifest.key, manifest.provenance.stimulus_hash
    stimuli = dataset.stimuli(key.split, key.subject, load)
    if stimuli.content_hash != wanted:
        stimuli = dataset.stimuli(key.split)  # as `nsdbench score` joins what was made elsewhere
    if stimuli.content_hash != wanted:
        raise DataError(
            f"{folder} was made with other targets than {dataset.root} holds now",
            remedy="Name the data set of the run with --data-dir.",
        )
    recon = reconstructions.load(folder / runfolder.RECONSTRUCTIONS)
    return Source(folder, manifest, recon, dataset, load, stimuli)


def _read(folder: Path) -> RunManifest:
    """Return the record of a complete run whose reconstructions are those that were scored."""
    manifest = read_manifest(folder)
    _require_sound(folder, manifest)
    if manifest.status != "complete":
        raise DataError(
            f"{folder} is a run of status {manifest.status}, not complete", remedy="Finish it first."
        )
    path = folder / runfolder.RECONSTRUCTIONS
    if not path.is_file():
        raise DataError(f"{path} is missing", remedy="Put it back; without images nothing can be checked.")
    if sha256_file(path) != manifest.reconstructions_sha256:
        raise DataError(
            f"{path} is not the file that the scores beside it were made from",
            remedy="Put the file back, or delete the folder and run again.",
        )
    return manifest


def _require_sound(folder: Path, manifest: RunManifest) -> None:
    """Refuse a record whose entries that are used here are not what ``nsdbench run`` writes."""
    first = manifest.config.get("train_trials")
    wrong = {
        "train_trials": first is not None and (type(first) is not int or first < 1),
        "provenance": manifest.provenance.status not in STATUSES,
    }
    if any(wrong.values()):
        fields = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
        raise DataError(
            f"{folder / runfolder.MANIFEST} is damaged: {fields}", remedy="Delete the folder and run again."
        )


def _dataset(folder: Path, manifest: RunManifest, data_dir: Path | None, cache: Path | None) -> Dataset:
    from nsdbench.data import Dataset

    root = data_dir or manifest.dataset_root(folder)
    if root is None:
        raise DataError(
            f"{folder / runfolder.MANIFEST} does not say where its data set is",
            remedy="Give --data-dir DIR. Scores against a folder of images (--targets) cannot be inspected.",
        )
    if not root.is_dir():
        raise DataError(
            f"the data set of {folder} is not in {root}",
            remedy="Give --data-dir DIR, or go to the folder where the run was started.",
        )
    dataset = Dataset.open(root, cache=cache)
    expected = (manifest.key.dataset, manifest.provenance.dataset_hash)
    if (dataset.id, dataset.content_hash) != expected:
        raise DataError(
            f"{folder} was made with data set {' '.join(expected)}, {root} holds {dataset.id} {dataset.content_hash}",
            remedy="Name the data set of the run with --data-dir.",
        )
    return dataset


def _load_options(folder: Path, manifest: RunManifest) -> LoadOptions:
    stated = manifest.config.get("load", {})
    try:
        return LoadOptions(**stated)
    except TypeError as error:
        raise DataError(f"{folder / runfolder.MANIFEST} has unreadable load options ({error})") from error
