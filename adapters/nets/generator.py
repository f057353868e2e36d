"""The generator that inverts fc7, iCNN's image prior, at the published and at miniature size.

Dosovitskiy & Brox 2016 (arXiv 1602.02644), called "relu7"; layers as in the prototxt that comes with its Caffe weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.3  # of the leaky ReLUs


@dataclass(frozen=True)
class GeneratorConfig:
    """Form of a generator.

    Attributes
    ----------
    dense : tuple of int
        Units of the code and of the three layers after it.
    start : tuple of (channels, side)
        Shape of the map that the last dense layer fills.
    steps : tuple of (name, channels, doubles)
        Transposed convolutions: 4x4 ones that double the side, 3x3 ones that keep it.
    crop : int
        Side of the centre of the result that is the image.
    """

    dense: tuple[int, int, int, int]
    start: tuple[int, int]
    steps: tuple[tuple[str, int, bool], ...]
    crop: int

    @property
    def canvas(self) -> int:
        """Side of the result."""
        return int(self.start[1] * 2 ** sum(doubles for _, _, doubles in self.steps))


PUBLISHED = GeneratorConfig(
    (4096, 4096, 4096, 4096),
    (256, 4),
    (
        ("deconv5", 256, True), ("conv5_1", 512, False), ("deconv4", 256, True), ("conv4_1", 256, False),
        ("deconv3", 128, True), ("conv3_1", 128, False), ("deconv2", 64, True), ("deconv1", 32, True),
        ("deconv0", 3, True),
    ),
    224,
)  # fmt: skip
MINI = GeneratorConfig(
    (512, 768, 768, 48 * 81),
    (48, 9),
    (("deconv2", 64, True), ("conv2_1", 64, False), ("deconv1", 32, True), ("conv1_1", 32, False), ("deconv0", 3, True)),
    64,
)  # fmt: skip


class Generator(nn.Module):
    """Makes images from codes.

    Parameters
    ----------
    config : GeneratorConfig

    Attributes
    ----------
    upper : tensor of shape (code,)
        Upper bound of every unit of the code, mean + 3 SD over images; the lower bound is 0.
    """

    upper: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.names = ["defc7", "defc6", "defc5"]
        for name, inputs, outputs in zip(self.names, config.dense, config.dense[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        channels = config.start[0]
        for name, width, doubles in config.steps:
            kernel, stride = (4, 2) if doubles else (3, 1)
            self.add_module(name, nn.ConvTranspose2d(channels, width, kernel, stride, 1))
            self.names.append(name)
            channels = width
        self.register_buffer("upper", torch.full((config.dense[0],), torch.inf))

    def forward(self, code: Tensor) -> Tensor:
        """Return the whole canvas, (n, 3, canvas, canvas), in the units of the VGG's input, for codes (n, units)."""
        x = code
        for i, name in enumerate(self.names):
            if i == 3:
                channels, side = self.config.start
                x = x.view(-1, channels, side, side)
            x = self.get_submodule(name)(x)
            if i < len(self.names) - 1:
                x = functional.leaky_relu(x, SLOPE)
        return x

    def image(self, code: Tensor) -> Tensor:
        """Return the centre of the canvas, (n, 3, crop, crop)."""
        return self.centre(self(code))

    def centre(self, canvas: Tensor) -> Tensor:
        """Cut the image out of the canvas."""
        edge = (self.config.canvas - self.config.crop) // 2
        return canvas[:, :, edge : edge + self.config.crop, edge : edge + self.config.crop]


def mini_generator() -> Generator:
    """Return the miniature generator, untrained."""
    return Generator(MINI)


def without_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the published file without second copies.

    The file lists every layer twice: by name, and as ``defc.<i>`` or ``deconv.<i>``, its place in a sequence. Only these
    are dropped; any other foreign name stays, and a strict load refuses it.
    """
    return {name: value for name, value in state.items() if not name.startswith(("defc.", "deconv."))}
