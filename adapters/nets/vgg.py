"""VGG19 read before its ReLUs, at the published and at miniature size.

Simonyan & Zisserman 2014 (arXiv 1409.1556). The published weights are those of the Caffe model, which wants BGR; keys and
shapes are torchvision's. The miniature is of the same form with fewer and narrower layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets.pixels import BICUBIC, Images, resized

CAFFE_MEAN = (104.0, 117.0, 123.0)  # B, G, R


@dataclass(frozen=True)
class VggConfig:
    """Form of a VGG.

    Attributes
    ----------
    blocks : tuple of tuple of int
        Widths of the 3x3 convolutions; a pooling halves the sides after each block.
    hidden : int
        Units of fc6 and of fc7.
    classes : int
        Units of fc8.
    size : int
        Side of the input in pixels, divisible by two to the power of the number of blocks.
    scale : float
        Grey levels per unit of the input.
    dropout : float
        After fc6 and fc7, in training.
    """

    blocks: tuple[tuple[int, ...], ...]
    hidden: int
    classes: int
    size: int
    scale: float = 1.0
    dropout: float = 0.5

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, ``conv1_1`` to ``fc8``."""
        convolutions = (
            f"conv{b}_{i}" for b, widths in enumerate(self.blocks, 1) for i in range(1, len(widths) + 1)
        )
        return (*convolutions, "fc6", "fc7", "fc8")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the features of one image in every layer."""
        found: list[tuple[int, ...]] = []
        for block, widths in enumerate(self.blocks):
            side = self.size >> block
            found += [(width, side, side) for width in widths]
        found += [(self.hidden,), (self.hidden,), (self.classes,)]
        return dict(zip(self.layers, found, strict=True))


PUBLISHED = VggConfig(((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4), 4096, 1000, 224)
MINI = VggConfig(((16, 16), (32, 32), (64, 64), (96, 96)), 512, 20, 64, scale=64.0, dropout=0.0)


class Vgg(nn.Module):
    """A VGG whose forward pass returns features before the ReLU.

    Parameters
    ----------
    config : VggConfig
    """

    def __init__(self, config: VggConfig) -> None:
        super().__init__()
        self.config = config
        modules: list[nn.Module] = []
        channels = 3
        for widths in config.blocks:
            for width in widths:
                modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            modules.append(nn.MaxPool2d(2))
        side = config.size >> len(config.blocks)
        self.features = nn.Sequential(*modules)
        self.classifier = nn.Sequential(
            nn.Linear(channels * side * side, config.hidden), nn.ReLU(), nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden), nn.ReLU(), nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.classes),
        )  # fmt: skip

    def forward(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return features before the ReLU, computing no layer after the last that is asked for.

        Parameters
        ----------
        x : float tensor of shape (n, 3, size, size)
            As :meth:`prepare` makes it.
        layers : sequence of str, optional
            Default: all.

        Returns
        -------
        dict of str to tensor of shape (n, channels, side, side) or (n, units)
        """
        wanted = set(self.config.layers if layers is None else layers)
        found: dict[str, Tensor] = {}
        names = iter(self.config.layers)
        for module in (*self.features, *self.classifier):
            if len(found) == len(wanted):
                break
            if isinstance(module, nn.Linear) and x.ndim == 4:
                x = x.flatten(1)
            x = module(x)
            if isinstance(module, nn.Conv2d | nn.Linear) and (name := next(names)) in wanted:
                found[name] = x
        return found

    def prepare(self, images: Images) -> Tensor:
        """Return the input for uint8 RGB images (n, H, W, 3): bicubic resize, BGR, minus the mean."""
        images = resized(images, self.config.size, BICUBIC)
        return self.standardize(torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2))

    def standardize(self, images: Tensor) -> Tensor:
        """Return the input for RGB images in grey levels, (n, 3, size, size)."""
        mean = images.new_tensor(CAFFE_MEAN).view(3, 1, 1)
        return (images.flip(1) - mean) / self.config.scale

    def grey_levels(self, x: Tensor) -> Tensor:
        """Return RGB in grey levels, unclipped, for an input: the inverse of :meth:`standardize`."""
        mean = x.new_tensor(CAFFE_MEAN).view(3, 1, 1)
        return (x * self.config.scale + mean).flip(1)


def mini_vgg() -> Vgg:
    """Return the miniature VGG, untrained."""
    return Vgg(MINI)


def code(features: dict[str, Tensor]) -> Tensor:
    """Return what the generator inverts: fc7 after its ReLU."""
    return functional.relu(features["fc7"])
