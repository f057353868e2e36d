"""The adapter contract: what a decoder must do to be benchmarked.

A decoder subclasses :class:`Adapter` and implements :meth:`~Adapter.learn`, :meth:`~Adapter.generate`,
:meth:`~Adapter.save` and :meth:`~Adapter.load`. The public :meth:`~Adapter.fit` and :meth:`~Adapter.reconstruct`
check what goes in and what comes out, so that no decoder can train on test data or return images that
belong to nobody.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nsdbench.errors import DataError, ProtocolError, ReconstructionError, UsageError
from nsdbench.store import read_json
from nsdbench.types import Embeddings, Progress, Reconstructions, Silent, Stimuli, Trials

START_FACTS = "start.json"
"""File that a pretraining leaves: at least ``model``, ``preset``, ``subjects``, and the ``sha256`` of its weights."""


@dataclass(frozen=True)
class Context:
    """Where and how an adapter may compute.

    Attributes
    ----------
    device : str
        torch device, ``"cpu"`` or ``"cuda"``.
    weights_dir : Path or None
        Folder with pretrained weights; None means the default cache.
    start : Path or None
        Folder written by a pretraining on other subjects (:meth:`Adapter.pretrain`), from which fits begin.
    scratch : Path or None
        Folder for the state of a long fit, which continues from what it finds there; it is deleted when the fit is done.
    features : Path or None
        Folder where features of training images are kept for other fits (:mod:`nsdbench.adapters.featurestore`); None
        means that every fit computes them.
    """

    device: str = "cpu"
    weights_dir: Path | None = None
    start: Path | None = None
    scratch: Path | None = None
    features: Path | None = None


class Adapter(ABC):
    """A decoder from betas to images.

    Class attributes
    ----------------
    name : str
        Model id on the command line and in every result.
    paper : str
        Citation of the method, or one sentence for a baseline.
    version : int
        Grows by one whenever the same input can give another output; part of every run id.
    presets : tuple of str
        Supported presets; the first is the default (``"mini"``, where supported, is the default on ``sim``).
    requires : mapping of str to tuple of str
        Weights ids per preset.
    transductive : bool
        True if a reconstruction may depend on the other targets of the same call.
    stochastic : bool
        False if every sample would be equal; such models are run with one sample.
    reads_captions : bool
        True if a fit learns from the captions of images.
    reads_rois : tuple of str
        Atlas volumes without which there is no fit, such as ``"streams"``; nsdgeneral needs no mention.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    version: ClassVar[int] = 1
    presets: ClassVar[tuple[str, ...]] = ("standard",)
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    transductive: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True
    reads_captions: ClassVar[bool] = False
    reads_rois: ClassVar[tuple[str, ...]] = ()

    def __init__(self, preset: str | None = None, context: Context | None = None) -> None:
        preset = preset or self.presets[0]
        if preset not in self.presets:
            raise UsageError(
                f"model {self.name} has no preset {preset!r}",
                remedy=f"Choose one of: {', '.join(self.presets)}.",
            )
        self.preset = preset
        self.context = context or Context()
        self.n_voxels: int | None = None

    def fit(self, train: Trials, stimuli: Stimuli, *, progress: Progress | None = None) -> None:
        """Learn from core NSD training trials of one subject.

        Parameters
        ----------
        train : Trials
            Single trials with ``split == "train"``; anything else is refused.
        stimuli : Stimuli
            The images (and captions) of those trials.

        Raises
        ------
        ProtocolError
            If test trials, imagery trials or unknown stimuli are among the rows.
        DataError
            If a beta is not finite.
        """
        self._require_training(train, stimuli)
        self.learn(train, stimuli, progress or Silent())
        self.n_voxels = train.n_voxels

    def reconstruct(
        self, trials: Trials, *, n_samples: int = 10, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        """Reconstruct every row of ``trials`` (one row per target).

        Parameters
        ----------
        trials : Trials
            One row per target, usually the mean over its repeats.
        n_samples : int
            Samples per target; models that are not stochastic return one.
        seed : int
            Determines every draw.

        Returns
        -------
        Reconstructions
            uint8 images (n_targets, n_samples, H, W, 3) in the order of the rows.
        """
        if self.n_voxels is None:
            raise ProtocolError(f"{self.name} must be fitted or loaded before it can reconstruct")
        if trials.n_voxels != self.n_voxels:
            raise DataError(
                f"{self.name} was fitted on {self.n_voxels} voxels, these trials have {trials.n_voxels}"
            )
        _require_finite(trials.betas)
        expected = n_samples if self.stochastic else 1
        result = self.generate(trials, expected, seed, progress or Silent())
        if result.targets != tuple(trials.stimulus.tolist()) or result.n_samples != expected:
            raise ReconstructionError(
                f"{self.name} returned {result.n_targets} targets x {result.n_samples} samples, "
                f"asked for {len(trials)} x {expected} in the order of the trials"
            )
        return result

    def embed(
        self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None
    ) -> Mapping[str, Embeddings]:
        """Return the embeddings of true images, for decoders whose reconstructions bring embeddings.

        Parameters
        ----------
        stimuli : Stimuli
            Where the images are.
        ids : sequence of str
            Images to embed, one row each.

        Returns
        -------
        mapping of str to float32 or float16 array of shape (len(ids), ...)
            By the name of the space, which is also that of the decoded embeddings. Retrieval needs exactly one space
            in both; decoders without embeddings return none.
        """
        return {}

    @classmethod
    def learns(cls, preset: str) -> bool:
        """Return whether a fit learns anything; False where it takes the published checkpoint of the subject."""
        return True

    @classmethod
    def required(cls, preset: str, subject: int) -> tuple[str, ...]:
        """Return the ids of the weights that a decoder of this subject needs."""
        return cls.requires.get(preset, ())

    def adopt(self, subject: int) -> None:
        """Take the published checkpoint of a subject, where :meth:`learns` says that there is nothing to fit.

        Raises
        ------
        UsageError
            If the preset has to be fitted.
        WeightsError
            If the checkpoint is missing or does not fit.
        """
        raise UsageError(f"preset {self.preset} of {self.name} has to be fitted")

    def pretrain(
        self, parts: Sequence[tuple[Trials, Stimuli]], folder: Path, *, progress: Progress | None = None
    ) -> None:
        """Learn what subjects have in common, and write it to ``folder`` for fits on another one (``Context.start``).

        Parameters
        ----------
        parts : sequence of (Trials, Stimuli)
            Single training trials and training images of each subject, as in :meth:`fit`.
        folder : Path
            Existing and empty.

        Raises
        ------
        UsageError
            If the decoder has nothing that subjects share, or the preset learns nothing.
        ProtocolError, DataError
            As in :meth:`fit`.
        """
        if not self.learns(self.preset):
            raise UsageError(
                f"preset {self.preset} of {self.name} learns nothing, so it cannot be pretrained"
            )
        for train, stimuli in parts:
            self._require_training(train, stimuli)
        self.learn_shared(parts, folder, progress or Silent())

    def prepare(self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None) -> None:
        """Compute what a fit needs of its training images, and keep it in ``Context.features``, where a fit finds it.

        By default there is nothing to do. ``ids`` may be a part of the training images: several processes can share
        the work.

        Raises
        ------
        WeightsError
            If weights are missing.
        NoRoom
            If the disk is too small.
        """
        return

    def prepared_bytes(self, n_images: int) -> int:
        """Return how many bytes :meth:`prepare`, or a fit, keeps in ``Context.features``; 0 if that is not known."""
        return 0

    def copies(
        self, stimuli: Stimuli, ids: Sequence[str], *, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        """Return what the decoder makes of the true features of images, without any brain: one near copy of each.

        It needs the pretrained networks (``requires``), and neither a fit nor the checkpoint of a subject.

        Raises
        ------
        UsageError
            If the decoder makes no image from features.
        """
        raise UsageError(
            f"{self.name} makes no images of features, so there is nothing to verify without a brain"
        )

    def learn_shared(self, parts: Sequence[tuple[Trials, Stimuli]], folder: Path, progress: Progress) -> None:
        """Learn from several subjects; called by :meth:`pretrain` after its checks.

        It leaves a file :data:`START_FACTS` in ``folder``.
        """
        raise UsageError(f"{self.name} has no part that subjects share, so it cannot be pretrained")

    def adopt_shared(self, subject: int, folder: Path) -> None:
        """Write the published pretraining on all subjects but one to ``folder``, as :meth:`pretrain` does with its own.

        Raises
        ------
        UsageError
            If there is none for this decoder and preset.
        WeightsError
            If it is missing, or none was published without this subject.
        """
        raise UsageError(f"there is no published pretraining for preset {self.preset} of {self.name}")

    @classmethod
    def verifiable(cls) -> bool:
        """Return whether the decoder makes images of features."""
        return cls.copies is not Adapter.copies

    @classmethod
    def prepares(cls) -> bool:
        """Return whether the decoder has something to prepare."""
        return cls.prepare is not Adapter.prepare

    @classmethod
    def shares(cls) -> bool:
        """Return whether the decoder has a part that subjects share, and so can be pretrained."""
        return cls.learn_shared is not Adapter.learn_shared

    @abstractmethod
    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        """Fit the decoder; called by :meth:`fit` after its checks."""

    @abstractmethod
    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        """Make the images; called by :meth:`reconstruct` before its checks."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything :meth:`load` needs into an existing empty folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        """Return the fitted adapter that :meth:`save` wrote, ready to reconstruct."""

    def _require_training(self, train: Trials, stimuli: Stimuli) -> None:
        if train.split != "train" or set(np.unique(train.stimulus_set)) - {"core"}:
            raise ProtocolError(
                f"{self.name} was asked to learn from split {train.split!r}",
                remedy="Only non-shared core NSD trials may enter a fit; use Dataset.train().",
            )
        unknown = set(train.targets) - set(stimuli.ids)
        if unknown:
            raise ProtocolError(f"training trials show {len(unknown)} images that are not training stimuli")
        _require_finite(train.betas)


def start_facts(folder: Path, model: str, preset: str | None = None) -> dict[str, Any]:
    """Return what a pretraining of a model, and of a preset if one is given, noted about itself (:data:`START_FACTS`).

    Raises
    ------
    UsageError
        If there is none, or it is one of another model or preset.
    """
    path = folder / START_FACTS
    facts = read_json(path) if path.is_file() else None
    if not isinstance(facts, dict) or not {"model", "preset", "subjects", "sha256"} <= facts.keys():
        raise UsageError(
            f"{folder} holds no pretraining", remedy="Make one with `nsdbench pretrain`, and give its folder."
        )
    if (facts["model"], facts["preset"]) != (model, preset or facts["preset"]):
        wanted = f"{model}-{preset}" if preset else model
        raise UsageError(
            f"{folder} holds a pretraining of {facts['model']}-{facts['preset']}, from which {wanted} cannot begin"
        )
    return facts


def item_rng(seed: int, stimulus: str, sample: int) -> np.random.Generator:
    """Return the generator of one sample of one target.

    It depends on nothing else, so results do not change with batch size, target order or number of targets.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(stimulus.encode()), sample]))


def training_images(
    stimuli: Stimuli, ids: Sequence[str], size: int | None, progress: Progress
) -> NDArray[np.uint8]:
    """Return images of ``ids`` as uint8 (n, size, size, 3), reduced with an area-preserving filter.

    ``size=None`` keeps the native size, which must then be the same for all.
    """
    from PIL import Image

    out: NDArray[np.uint8] | None = None
    for i, stimulus in enumerate(progress.track(ids, "reading training images")):
        image = stimuli.image(stimulus)
        if size is not None and image.shape[:2] != (size, size):
            image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
        if out is None:
            out = np.empty((len(ids), *image.shape), np.uint8)
        if image.shape != out.shape[1:]:
            raise DataError(f"training image {stimulus} has shape {image.shape}, others {out.shape[1:]}")
        out[i] = image
    if out is None:
        raise DataError("there are no training images")
    return out


def _require_finite(betas: NDArray[np.float32]) -> None:
    bad = ~np.isfinite(betas)
    if bad.any():
        row, voxel = np.argwhere(bad)[0]
        raise DataError(f"beta of row {row}, voxel {voxel} is not finite ({int(bad.sum())} such values)")
