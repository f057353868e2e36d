"""What the MindEyes learn from: the trials of one subject, and what their images are turned into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.adapters.rows import Rows
from nsdbench.adapters.scaling import Scaling
from nsdbench.types import Trials

Array = NDArray[np.floating] | Rows


@dataclass(frozen=True)
class Targets:
    """What the images of a subject are turned into, one row per image in the order of their ids.

    Attributes
    ----------
    tokens : float array of shape (n_images, tokens, dim), or None
        Image tokens; None where they are made anew in every step.
    latents : float array of shape (n_images, channels, side, side)
        Latents of the small image that the low-level branch learns.
    maps : float array of shape (n_images, 2, places, channels)
        Tokens of the low-level teacher, for the image and for an altered copy of it.
    """

    tokens: Array | None
    latents: Array
    maps: Array


def _unreadable(images: Sequence[int]) -> Tensor:
    raise ValueError("these examples have no images, only what was made of them")


@dataclass(frozen=True)
class Examples:
    """The trials of one subject and their targets.

    Attributes
    ----------
    betas : float32 array of shape (n_trials, n_voxels)
        As they came, which may be mapped from a file.
    scaling : Scaling
        Applied to the rows of each batch.
    trials_of : tuple of int array
        Rows of ``betas`` that show an image, by image.
    targets : Targets
    device : str
        Where batches are wanted.
    read : callable
        From the numbers of images to the images, float32 (n, 3, S, S) in [0, 1].
    """

    betas: NDArray[np.float32]
    scaling: Scaling
    trials_of: tuple[NDArray[np.int64], ...]
    targets: Targets
    device: str
    read: Callable[[Sequence[int]], Tensor]

    @classmethod
    def of(
        cls,
        train: Trials,
        scaling: Scaling,
        targets: Targets,
        device: str,
        read: Callable[[Sequence[int]], Tensor] = _unreadable,
    ) -> Examples:
        """Sort the rows of ``train`` by image."""
        rows = np.searchsorted(np.array(train.targets), train.stimulus)
        trials_of = tuple(np.flatnonzero(rows == image) for image in range(len(train.targets)))
        return cls(train.betas, scaling, trials_of, targets, device, read)

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.trials_of)

    def shuffled(self, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
        """Yield images, ``batch`` at a time, each once; what is left over is not used."""
        order = torch.randperm(self.n_images, generator=rng)
        yield from order[: self.steps(batch) * batch].view(-1, batch)

    def steps(self, batch: int) -> int:
        """Return the number of full batches."""
        return self.n_images // batch

    def repeat(self, images: Tensor, which: int) -> Tensor:
        """Return betas of one repeat of each image, standardized, (n, n_voxels); repeats are counted in a circle."""
        return self._read(self.betas[[own[which % len(own)] for own in self._trials(images)]])

    def one(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return betas of a random repeat of each image, standardized, (n, n_voxels)."""
        draws = torch.rand(len(images), generator=rng).tolist()
        rows = [own[int(u * len(own))] for own, u in zip(self._trials(images), draws, strict=True)]
        return self._read(self.betas[rows])

    def blended(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return betas for the low-level network, standardized, (n, n_voxels).

        In half of the batches they are a random average of all repeats of an image, in three of ten their mean, else a
        random one.
        """
        u = float(torch.rand((), generator=rng))
        if u >= 0.8:
            return self.one(images, rng)
        rows = []
        for own in self._trials(images):
            weights = torch.rand(len(own), generator=rng) if u < 0.5 else torch.ones(len(own))
            rows.append((weights / weights.sum()).numpy() @ self.betas[own])
        return self._read(np.stack(rows))

    def tokens(self, images: Tensor) -> Tensor:
        """Return image tokens, float32 (n, tokens, dim)."""
        assert self.targets.tokens is not None, "made anew in every step"
        return self._on_device(self.targets.tokens[images.numpy()])

    def latents(self, images: Tensor) -> Tensor:
        """Return latents, float32 (n, channels, side, side)."""
        return self._on_device(self.targets.latents[images.numpy()])

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's tokens for the images and for their altered copies, float32 (n, places, channels)."""
        both = self._on_device(self.targets.maps[images.numpy()])
        return both[:, 0], both[:, 1]

    def _trials(self, images: Tensor) -> list[NDArray[np.int64]]:
        return [self.trials_of[image] for image in images.tolist()]

    def _read(self, betas: NDArray[np.float32]) -> Tensor:
        return self._on_device(self.scaling(betas))

    def _on_device(self, values: Array) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.device)
