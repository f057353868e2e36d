"""The two floors every comparison shows: what a model scores that ignores the brain."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.base import Adapter, Context, item_rng, training_images
from nsdbench.errors import DataError
from nsdbench.plainarrays import load_npz
from nsdbench.types import Progress, Reconstructions, Stimuli, Trials

# The largest side at which floors keep training images: 9,000 NSD images at 425 px would be 5 GB.
FLOOR_SIZE = 128


class _Floor(Adapter):
    """A model that is nothing but a few images, uint8 (n, side, side, 3)."""

    images: NDArray[np.uint8]

    def save(self, folder: Path) -> None:
        np.savez(folder / "images.npz", images=self.images, n_voxels=np.int64(self.n_voxels or 0))

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        model = cls(preset, context)
        try:
            stored = load_npz(folder / "images.npz", ("images", "n_voxels"))
            model.images, model.n_voxels = stored["images"], int(stored["n_voxels"])
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{folder / 'images.npz'} holds no stored images ({error})",
                remedy="Delete it and fit the model again.",
            ) from error
        return model


class MeanImage(_Floor):
    """The mean of all training images, for every target.

    Its pixel correlation and SSIM are well above zero: photographs are brighter at the top. A decoder that does
    not beat it on a pixel metric has shown nothing about the brain.
    """

    name = "mean_image"
    paper = "Floor: mean training image (no use of betas)."
    stochastic = False

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        images = training_images(stimuli, train.targets, _side(stimuli, train.targets), progress)
        self.images = np.rint(images.mean(axis=0, dtype=np.float64, keepdims=True)).astype(np.uint8)

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        shape = (len(trials), n_samples, *self.images.shape[1:])
        images = np.broadcast_to(self.images[0], shape).copy()
        return Reconstructions(images, tuple(trials.stimulus.tolist()))


class RandomImage(_Floor):
    """A training image drawn at random, independently for every target and sample.

    This is what a generator scores that makes plausible pictures but receives no information.
    """

    name = "random_image"
    paper = "Floor: random training image (no use of betas)."
    stochastic = True
    keep: ClassVar[int] = 512  # how many distinct training images the fitted floor keeps to draw from

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        ids = train.targets
        if len(ids) > self.keep:
            # a fixed, evenly spaced subset: the draw per target stays a function of the seed alone
            ids = tuple(ids[i] for i in np.linspace(0, len(ids) - 1, self.keep).round().astype(int))
        self.images = training_images(stimuli, ids, _side(stimuli, ids), progress)

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        picks = [[item_rng(seed, t, s).integers(len(self.images)) for s in range(n_samples)] for t in targets]
        return Reconstructions(self.images[np.asarray(picks)], targets)


def _side(stimuli: Stimuli, ids: tuple[str, ...]) -> int:
    """Return the side at which floors keep images: native, but at most ``FLOOR_SIZE``."""
    return min(FLOOR_SIZE, len(stimuli.image(ids[0])))
