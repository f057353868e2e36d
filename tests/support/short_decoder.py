"""A decoder that does in a second what real ones do in hours: it keeps features and the state of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nsdbench.adapters.base import Adapter, Context, item_rng
from nsdbench.adapters.featurestore import FeatureStore, prepared_images
from nsdbench.adapters.mindeye.training import Plan, built, train
from nsdbench.safeload import load_pt
from nsdbench.types import Progress, Reconstructions, Stimuli, Trials

SIDE = 8
PLAN = Plan(epochs=6, batch=16, rate=1e-3)


@dataclass(frozen=True)
class Pixels:
    """What is learnt: the pixels of an image from betas."""

    network: nn.Module
    betas: Tensor
    pixels: Tensor

    @property
    def steps(self) -> int:
        return len(self.betas) // PLAN.batch

    def batches(self, epoch: int, rng: torch.Generator) -> Iterator[Tensor]:
        return iter(torch.randperm(len(self.betas), generator=rng).split(PLAN.batch))

    def losses(self, batch: Tensor, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
        noisy = self.betas[batch] + torch.randn(self.betas[batch].shape, generator=rng)
        return {"pixels": nn.functional.mse_loss(self.network(noisy), self.pixels[batch])}


class Trained(Adapter):
    """A linear network, trained with the loop of the MindEyes; samples differ by noise."""

    name = "trained"
    paper = "For tests: a trained linear network."
    network: nn.Module

    def learn(self, train_: Trials, stimuli: Stimuli, progress: Progress) -> None:
        ids = train_.targets
        small = prepared_images(
            FeatureStore.of(self.context), stimuli, ids, SIDE, Image.Resampling.BOX, progress
        )
        rows = [ids.index(stimulus) for stimulus in train_.stimulus.tolist()]
        pixels = torch.from_numpy(np.asarray(small[:])[rows].reshape(len(rows), -1) / np.float32(255))
        self.network = built(lambda: _network(train_.n_voxels), 0)
        lesson = Pixels(self.network, torch.tensor(train_.betas), pixels)
        kept = self.context.scratch / "network.pt" if self.context.scratch else None
        train(lesson, PLAN, seed=0, label=self.name, progress=progress, checkpoint=kept)

    @torch.no_grad()
    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        means = self.network(torch.tensor(trials.betas)).numpy().reshape(len(targets), SIDE, SIDE, 3)
        images = np.empty((len(targets), n_samples, SIDE * 4, SIDE * 4, 3), np.uint8)
        for row, target in enumerate(progress.track(targets, self.name)):
            for sample in range(n_samples):
                noise = item_rng(seed, target, sample).normal(0, 0.1, means[row].shape)
                image = np.clip((means[row] + noise) * 255, 0, 255).astype(np.uint8)
                images[row, sample] = image.repeat(4, 0).repeat(4, 1)
        return Reconstructions(images, targets)

    def save(self, folder: Path) -> None:
        torch.save({**self.network.state_dict(), "n_voxels": self.n_voxels}, folder / "network.pt")

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        adapter = cls(preset, context)
        stored = dict(load_pt(folder / "network.pt"))
        adapter.n_voxels = stored.pop("n_voxels")
        adapter.network = _network(adapter.n_voxels)
        adapter.network.load_state_dict(stored)
        return adapter


def _network(n_voxels: int) -> nn.Module:
    return nn.Linear(n_voxels, 3 * SIDE**2)
