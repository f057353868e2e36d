"""The linear baseline: ridge regression from repeat-averaged betas to pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.arrays import load_arrays, save_arrays
from nsdbench.adapters.base import Adapter, Context, training_images
from nsdbench.adapters.linear import RidgeModel, fit_ridge
from nsdbench.types import Progress, Reconstructions, Stimuli, Trials

SIZE = 64  # pixels per side of a reconstruction
COARSE = 16  # pixels per side of the images on which the penalty is chosen
# lambda relative to the number of voxels, because betas are standardized per voxel
RELATIVE_PENALTIES = np.logspace(-3, 3, 25)


class Ridge(Adapter):
    """Ridge regression from betas to 64 x 64 RGB pixels.

    Training rows are the mean over the repeats of each training image; the penalty is common to all pixels and has
    the smallest closed-form leave-one-out error. There is no generator and no image prior, so reconstructions are
    blurry: this is what the betas give linearly, and the bar a generative decoder must clear.
    """

    name = "ridge"
    paper = "Baseline: ridge regression from nsdgeneral betas to pixels."
    stochastic = False

    model: RidgeModel

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        averaged = train.average_repeats()
        images = training_images(stimuli, tuple(averaged.stimulus.tolist()), SIZE, progress)
        pixels = np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)
        self.model = fit_ridge(
            averaged.betas, pixels, RELATIVE_PENALTIES * train.n_voxels, select_on=_coarse(pixels)
        )

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        pixels = np.clip(self.model.predict(trials.betas), 0, 1)
        images = np.rint(pixels * 255).astype(np.uint8).reshape(len(trials), 1, SIZE, SIZE, 3)
        return Reconstructions(images, tuple(trials.stimulus.tolist()))

    def save(self, folder: Path) -> None:
        save_arrays(folder / "ridge.npz", self.model)

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        adapter = cls(preset, context)
        adapter.model = load_arrays(folder / "ridge.npz", RidgeModel)
        adapter.n_voxels = len(adapter.model.x_mean)
        return adapter


def _coarse(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average SIZE x SIZE pixels over blocks to COARSE x COARSE."""
    block = SIZE // COARSE
    grid = pixels.reshape(len(pixels), COARSE, block, COARSE, block, 3)
    return np.asarray(grid.mean(axis=(2, 4)).reshape(len(pixels), -1), np.float32)
