"""Images of reconstructions, a few samples of one target at a time, each from random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nsdbench.adapters.base import item_rng
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import Images
from nsdbench.types import Progress


@dataclass(frozen=True)
class Draws:
    """Which images are wanted, and what they are drawn from.

    Attributes
    ----------
    targets : tuple of str
    n_samples : int
        Samples per target.
    seed : int
    at_once : int
        Most samples that are computed together. They belong to one target: a batch over several would round
        differently for other companions.
    device : str
    """

    targets: Sequence[str]
    n_samples: int
    seed: int
    at_once: int
    device: str

    def images(
        self, side: int, make: Callable[[int, slice, ItemNoise], Images], progress: Progress, label: str
    ) -> Images:
        """Return all images, uint8 (n_targets, n_samples, side, side, 3).

        Parameters
        ----------
        side : int
            Pixels per side.
        make : callable
            From the row of a target, a range of its samples, and their noise (each sample has its own source) to their
            images, uint8 (n, side, side, 3).
        progress : Progress
        label : str
        """
        images = np.empty((len(self.targets), self.n_samples, side, side, 3), np.uint8)
        starts = range(0, self.n_samples, self.at_once)
        pieces = [(row, start) for row in range(len(self.targets)) for start in starts]
        for row, start in progress.track(pieces, label):
            samples = slice(start, min(start + self.at_once, self.n_samples))
            rngs = [item_rng(self.seed, self.targets[row], k) for k in range(samples.start, samples.stop)]
            images[row, samples] = make(row, samples, ItemNoise(rngs, self.device))
        return images
