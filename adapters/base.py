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
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nsdbench.errors import DataError, ProtocolError, ReconstructionError, UsageError
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli, Trials


@dataclass(frozen=True)
class Context:
    """Where and how an adapter may compute.

    Attributes
    ----------
    device : str
        torch device, ``"cpu"`` or ``"cuda"``.
    weights_dir : Path or None
        Folder with pretrained weights; None means the default cache.
    """

    device: str = "cpu"
    weights_dir: Path | None = None


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
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    version: ClassVar[int] = 1
    presets: ClassVar[tuple[str, ...]] = ("standard",)
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    transductive: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

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
        if train.split != "train" or set(np.unique(train.stimulus_set)) - {"core"}:
            raise ProtocolError(
                f"{self.name} was asked to learn from split {train.split!r}",
                remedy="Only non-shared core NSD trials may enter a fit; use Dataset.train().",
            )
        unknown = set(train.targets) - set(stimuli.ids)
        if unknown:
            raise ProtocolError(f"training trials show {len(unknown)} images that are not training stimuli")
        _require_finite(train.betas)
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
