"""Teaching iCNN's networks: a VGG whose fc7 knows the whole scene, and the generator that inverts it."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets.generator import SLOPE, Generator
from nsdbench.adapters.nets.vgg import MINI, Vgg, code, mini_vgg
from nsdbench.pretraining.augment import gentle
from nsdbench.pretraining.autoencoding import distance
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.shipping import finished
from nsdbench.pretraining.tasks import Task

THUMBNAIL = 16  # pixels per side
THUMBNAIL_WEIGHT = 10.0
FEATURES, FEATURE_WEIGHT = ("conv1_2", "conv2_2", "conv3_2", "conv4_2"), 0.2
PER_HALF_RANGE = MINI.scale / 127.5  # images to [-1, 1]
MEASURED = 4000


def initialize(network: nn.Module, slope: float = 0.0) -> None:
    """Draw weights that keep the variance of activations through (leaky) ReLUs of ``slope`` (He et al. 2015).

    Without normalization, PyTorch's own smaller weights learn several times more slowly.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            inputs = module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            inputs = module.weight[:, 0].numel() // math.prod(module.stride)
        else:
            continue
        nn.init.normal_(module.weight, std=math.sqrt(2 / (1 + slope**2) / inputs))


class Description(Task):
    """Name the category of the main object (fc8); read its colour, the background and a thumbnail from fc7.

    Names alone let fc7 forget where things are, and then no generator can bring them back. The readers of colour,
    background and thumbnail are not shipped.
    """

    trunk: Vgg

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        initialize(trunk)
        hidden = self.trunk.config.hidden
        self.readers = nn.ModuleDict(
            {name: nn.Linear(hidden, len(LABELS[name])) for name in ("background", "colour")}
        )
        self.thumbnail = nn.Linear(hidden, 3 * THUMBNAIL**2)

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the sum of three cross entropies (label smoothing 0.05) and the weighted error of the thumbnail."""
        x = self.trunk.standardize(255 * gentle(self.images(rows), rng))
        features = self.trunk(x, ("fc7", "fc8"))
        seen = code(features)
        answers = {"category": features["fc8"], **{name: read(seen) for name, read in self.readers.items()}}
        losses = [
            functional.cross_entropy(
                scores.float(), torch.from_numpy(self.corpus.labels[name][rows]), label_smoothing=0.05
            )
            for name, scores in answers.items()
        ]
        small = functional.adaptive_avg_pool2d(x, THUMBNAIL).flatten(1)
        error: Tensor = (self.thumbnail(seen).float() - small).square().mean()
        return torch.stack(losses).sum() + THUMBNAIL_WEIGHT * error


class Inversion(Task):
    """Give back the image whose fc7, after its ReLU, is given (Dosovitskiy & Brox 2016, arXiv 1602.02644).

    Errors are those of pixels and of features of the VGG, which is frozen; there is no adversary.
    """

    trunk: Generator
    vgg: Vgg

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        initialize(trunk, SLOPE)
        self.vgg = finished(mini_vgg(), "mini_vgg-v1", corpus.weights)  # type: ignore[assignment]

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the distance of images plus the squared errors of features over their variances."""
        images = self.images(rows)
        flip = torch.rand(len(images), generator=rng) < 0.5
        x = self.vgg.standardize(255 * torch.where(flip[:, None, None, None], images.flip(3), images))
        with torch.no_grad():
            truth = self.vgg(x, (*FEATURES, "fc7"))
        again = self.trunk.image(code(truth)).float()
        total = distance(again * PER_HALF_RANGE, x * PER_HALF_RANGE)
        for name, found in self.vgg(again, FEATURES).items():
            wanted = truth[name].float()
            total = total + FEATURE_WEIGHT * (found.float() - wanted).square().mean() / wanted.var()
        return total

    def finish(self) -> None:
        """Measure mean + 3 SD of the code on 4,000 scenes."""
        with torch.no_grad():
            codes = torch.cat([
                code(self.vgg(self.vgg.standardize(255 * self.images(rows)), ("fc7",)))
                for rows in np.array_split(np.arange(min(len(self.corpus), MEASURED)), 40)
            ])  # fmt: skip
        self.trunk.upper.copy_(codes.mean(0) + 3 * codes.std(0))
