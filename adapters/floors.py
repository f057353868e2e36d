"""The two floors every comparison shows: what a model scores that ignores the brain."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.base import Adapter, Context, item_rng, training_images
from nsdbench.types import Progress, Reconstructions, Stimuli, Trials

# The largest side at which floors keep training images: 9,000 NSD images at 425 px would be 5 GB.
FLOOR_SIZE = 128


class MeanImage(Adapter):
    """The mean of all training images, for every target.

    Its pixel correlation and SSIM are well above zero: photographs are brighter at the top. A decoder that does
    not beat it on a pixel metric has shown nothing about the brain.
    """

    name = "mean_image"
    paper = "Floor: mean training image (no use of betas)."
    stochastic = False

    image: NDArray[np.uint8]

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        images = training_images(stimuli, train.targets, _side(stimuli, train.targets), progress)
        self.image = np.rint(images.mean(axis=0, dtype=np.float64)).astype(np.uint8)

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        images = np.broadcast_to(self.image, (len(trials), n_samples, *self.image.shape)).copy()
        return Reconstructions(images, tuple(trials.stimulus.tolist()))

    def save(self, folder: Path) -> None:
        np.savez(folder / "mean.npz", image=self.image, n_voxels=np.int64(self.n_voxels or 0))

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        model = cls(preset, context)
        with np.load(folder / "mean.npz", allow_pickle=False) as stored:
            model.image, model.n_voxels = stored["image"], int(stored["n_voxels"])
        return model


class RandomImage(Adapter):
    """A training image drawn at random, independently for every target and sample.

    This is what a generator scores that makes plausible pictures but receives no information.
    """

    name = "random_image"
    paper = "Floor: random training image (no use of betas)."
    stochastic = True
    keep: ClassVar[int] = 512  # how many distinct training images the fitted floor keeps to draw from

    pool: NDArray[np.uint8]

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        ids = train.targets
        if len(ids) > self.keep:
            # a fixed, evenly spaced subset: the draw per target stays a function of the seed alone
            ids = tuple(ids[i] for i in np.linspace(0, len(ids) - 1, self.keep).round().astype(int))
        self.pool = training_images(stimuli, ids, _side(stimuli, ids), progress)

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        picks = [[item_rng(seed, t, s).integers(len(self.pool)) for s in range(n_samples)] for t in targets]
        return Reconstructions(self.pool[np.asarray(picks)], targets)

    def save(self, folder: Path) -> None:
        np.savez(folder / "pool.npz", pool=self.pool, n_voxels=np.int64(self.n_voxels or 0))

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        model = cls(preset, context)
        with np.load(folder / "pool.npz", allow_pickle=False) as stored:
            model.pool, model.n_voxels = stored["pool"], int(stored["n_voxels"])
        return model


def _side(stimuli: Stimuli, ids: tuple[str, ...]) -> int:
    """Return the side at which floors keep images: native, but at most ``FLOOR_SIZE``."""
    return min(FLOOR_SIZE, len(stimuli.image(ids[0])))
