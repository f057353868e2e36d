"""Random changes to batches of scenes: crops, flips, light, blur and noise, all drawn from one generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from nsdbench.metrics.nets.network import IMAGENET_MEAN, IMAGENET_STD

BLUR_TAPS = 7


def uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Return ``n`` numbers between ``low`` and ``high``."""
    return low + (high - low) * torch.rand(n, generator=rng)


def normalize(images: Tensor) -> Tensor:
    """Return RGB in [0, 1] as the networks see it, stored channels-last, which is faster on CPUs."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def gentle(images: Tensor, rng: torch.Generator) -> Tensor:
    """Flip, shift by up to 5 % and relight every image; blur a quarter of them and add noise to a quarter."""
    n = len(images)
    moved = place(images, torch.ones(n), uniform(2 * n, -0.1, 0.1, rng).view(n, 2), rng)
    lit = moved * uniform(n, 0.9, 1.1, rng).view(n, 1, 1, 1)
    return _noisy(_blurred(lit, n // 4, rng), n // 4, rng).clamp(0, 1)


def strong(images: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """Crop 35 to 100 % of the area to ``side`` pixels, flip, shift colours and contrast, blur half, add noise."""
    n = len(images)
    scale = uniform(n, 0.35, 1.0, rng).sqrt()
    offset = uniform(2 * n, -1, 1, rng).view(n, 2) * (1 - scale)[:, None]
    cut = place(images, scale, offset, rng, side=side)
    light = uniform(n, 0.7, 1.3, rng).view(n, 1, 1, 1) * uniform(3 * n, 0.85, 1.15, rng).view(n, 3, 1, 1)
    centre = cut.mean((1, 2, 3), keepdim=True)
    contrast = uniform(n, 0.6, 1.4, rng).view(n, 1, 1, 1)
    lit = (centre + (cut - centre) * contrast) * light
    return _noisy(_blurred(lit, n // 2, rng), n // 4, rng).clamp(0, 1)


def place(
    images: Tensor, scale: Tensor, offset: Tensor, rng: torch.Generator, *, side: int | None = None
) -> Tensor:
    """Cut a window out of each image, flipped at random; beyond the border the border is repeated.

    Parameters
    ----------
    images : float tensor of shape (n, 3, S, S)
    scale : tensor of shape (n,)
        Side of the window as a share of S.
    offset : tensor of shape (n, 2)
        Centre of the window; the image spans -1 to 1.
    rng : torch.Generator
    side : int, optional
        Side of the result in pixels; by default S.
    """
    n, size = len(images), side or images.shape[-1]
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = scale * flip, scale, offset
    grid = functional.affine_grid(matrix, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _blurred(images: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Blur ``n`` randomly chosen images with one Gaussian of 0.4 to 2 pixels."""
    which = torch.randperm(len(images), generator=rng)[:n]
    sigma = float(uniform(1, 0.4, 2.0, rng))
    taps = torch.arange(BLUR_TAPS) - BLUR_TAPS // 2
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, BLUR_TAPS)
    half = BLUR_TAPS // 2
    padded = functional.pad(images[which], (half, half, half, half), mode="replicate")
    rows = functional.conv2d(padded, kernel, groups=3)
    return images.index_copy(0, which, functional.conv2d(rows, kernel.transpose(2, 3), groups=3))


def _noisy(images: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Add white noise of sd 0.01 to 0.15 to ``n`` randomly chosen images."""
    which = torch.randperm(len(images), generator=rng)[:n]
    strength = torch.exp(uniform(n, math.log(0.01), math.log(0.15), rng)).view(n, 1, 1, 1)
    chosen = images[which]
    return images.index_copy(0, which, chosen + strength * torch.randn(chosen.shape, generator=rng))
