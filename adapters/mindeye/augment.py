"""Random changes of images in training: the second view of the low-level branches, and MindEye 1's targets.

The published code lets kornia make them; chances, ranges and order are the same here, the operations are torchvision's.
Images are float tensors (n, 3, S, S) in [0, 1], and every image has its own draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
"""Brightness, contrast and saturation change by factors of 1 plus or minus these, hue by up to this part of a turn."""
BLUR_SIZE, BLUR_SD = 7, (0.1, 2.0)
THRESHOLD, SHIFT = 0.1, 0.1
"""Solarizing inverts values from 0.5 plus or minus the first on, after all were shifted by up to the second."""
CROP_TRIALS = 10


@dataclass(frozen=True)
class Changes:
    """Chances and ranges. Colours, grey, solarizing and blur follow each other in this order.

    Attributes
    ----------
    crop : float
        Chance of a crop, which is resized to the full size.
    area, ratio : pair of float
        Range of its share of the image, and of its width over its height.
    crop_first : bool
        Whether the crop, and with it the flip, come before all else or after it.
    colours, grey, solarize, blur, flip : float
        Chances of the other changes.
    """

    crop: float
    area: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_first: bool = False
    colours: float = 0.0
    grey: float = 0.0
    solarize: float = 0.0
    blur: float = 0.0
    flip: float = 0.0


MINDEYE1_TARGET = Changes(crop=0.3, area=(0.6, 1), crop_first=True, colours=0.3, grey=0.3, flip=0.5)
MINDEYE1_TEACHER = Changes(crop=1, area=(0.5, 1), colours=0.8, grey=0.2, solarize=0.2, blur=0.1)
MINDEYE2_TEACHER = Changes(crop=1, area=(0.9, 0.9), ratio=(1, 1), colours=0.8, grey=0.1, solarize=0.1)


def target_view(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return changed images from which MindEye 1 takes the tokens to be predicted, (n, 3, S, S)."""
    return changed(images, rng, MINDEYE1_TARGET)


def teacher_view(images: Tensor, rng: torch.Generator, changes: Changes = MINDEYE2_TEACHER) -> Tensor:
    """Return changed images for the teacher of a low-level branch, (n, 3, S, S)."""
    return changed(images, rng, changes)


def changed(images: Tensor, rng: torch.Generator, changes: Changes) -> Tensor:
    """Return images with random changes.

    Parameters
    ----------
    images : tensor of shape (n, 3, S, S)
        In [0, 1]; left as they are.
    rng : torch.Generator
        The only source of randomness.
    changes : Changes

    Returns
    -------
    tensor of shape (n, 3, S, S)
        In [0, 1].
    """
    draw = _Draw(rng)
    return torch.stack([_changed(image, draw, changes) for image in images])


@dataclass(frozen=True)
class _Draw:
    rng: torch.Generator

    def between(self, low: float, high: float) -> float:
        """Return a uniform number."""
        return low + (high - low) * float(torch.rand((), generator=self.rng, device=self.rng.device))

    def below(self, n: int) -> int:
        """Return a uniform integer."""
        return int(torch.randint(n, (), generator=self.rng, device=self.rng.device))

    def chance(self, p: float) -> bool:
        """Return whether something of chance ``p`` happens."""
        return self.between(0, 1) < p

    def order(self, n: int) -> list[int]:
        """Return a random permutation."""
        drawn: list[int] = torch.randperm(n, generator=self.rng, device=self.rng.device).tolist()
        return drawn


def _changed(image: Tensor, draw: _Draw, changes: Changes) -> Tensor:
    if changes.crop_first:
        image = _framed(image, draw, changes)
    if draw.chance(changes.colours):
        image = _recoloured(image, draw)
    if draw.chance(changes.grey):
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if draw.chance(changes.solarize):
        shifted = (image + draw.between(-SHIFT, SHIFT)).clamp(0, 1)
        image = tv.solarize(shifted, draw.between(0.5 - THRESHOLD, 0.5 + THRESHOLD))
    if draw.chance(changes.blur):
        image = tv.gaussian_blur(image, [BLUR_SIZE] * 2, [draw.between(*BLUR_SD)])
    return image if changes.crop_first else _framed(image, draw, changes)


def _framed(image: Tensor, draw: _Draw, changes: Changes) -> Tensor:
    if draw.chance(changes.crop):
        side = image.shape[-1]
        height, width = _window(side, draw, changes)
        corner = [draw.below(side - height + 1), draw.below(side - width + 1)]
        image = tv.resized_crop(image, *corner, height, width, size=[side, side], antialias=False)
    return tv.horizontal_flip(image) if draw.chance(changes.flip) else image


def _window(side: int, draw: _Draw, changes: Changes) -> tuple[int, int]:
    """Return height and width of a crop; after some windows that do not fit, the whole image."""
    for _ in range(CROP_TRIALS):
        area = side**2 * draw.between(*changes.area)
        ratio = math.exp(draw.between(*map(math.log, changes.ratio)))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if max(height, width) <= side:
            return height, width
    return side, side


def _recoloured(image: Tensor, draw: _Draw) -> Tensor:
    """Change brightness, contrast, saturation and hue in random order."""
    changes = (
        (tv.adjust_brightness, 1 - BRIGHTNESS, 1 + BRIGHTNESS),
        (tv.adjust_contrast, 1 - CONTRAST, 1 + CONTRAST),
        (tv.adjust_saturation, 1 - SATURATION, 1 + SATURATION),
        (tv.adjust_hue, -HUE, HUE),
    )
    for i in draw.order(len(changes)):
        adjust, low, high = changes[i]
        image = adjust(image, draw.between(low, high))
    return image
