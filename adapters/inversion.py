"""Images whose features are the wanted ones, found by optimising the input of a generator.

Shen, Horikawa, Majima & Kamitani 2019, PLOS Computational Biology 15:e1006633, with the two optimisers in circulation.
Every image of a batch is optimised by itself: losses are added, and what is normalized is normalized per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nsdbench.adapters.nets.generator import Generator
from nsdbench.adapters.nets.pixels import require_finite
from nsdbench.adapters.nets.vgg import Vgg

FeatureScaling = Literal["none", "shen", "feature_std", "feature_std_train_mean_center", "train_mean_scale"]
TINY = 1e-30
STABLE = 1e-6  # in DISTS

SIMILARITY: Mapping[str, tuple[float, float]] = {
    "conv1_1": (0.009952859626673973, 0.000865427897168344),
    "conv1_2": (0.003886371646003732, 0.008627502425502372),
    "conv2_1": (0.00024056214287883663, 0.12888847991806807),
    "conv2_2": (0.08084213863904581, 0.02472305546171304),
    "conv3_1": (0.006857140440209977, 0.0002639605292406699),
    "conv3_2": (0.0004887923569668929, 0.039778524165843814),
    "conv3_3": (0.00019573287900056505, 0.0004859871528150426),
    "conv3_4": (0.014169279688225732, 0.024733951474856346),
    "conv4_1": (0.02880295296139471, 0.04328555659354602),
    "conv4_2": (0.0021716504774059618, 0.03998274022264576),
    "conv4_3": (0.004025735147052829, 0.5166895849277143),
    "conv4_4": (0.030798346318926202, 0.7100372437615771),
    "conv5_1": (0.08536182104218124, 0.002337825161420017),
    "conv5_2": (0.714010791024532, 0.5074163077203029),
    "conv5_3": (0.01975314483213067, 0.0018775814111698145),
    "conv5_4": (0.5310432634795051, 0.0012780195483159135),
    "fc6": (0.000629031742843134, 0.038457933646483915),
    "fc7": (0.03871265134313895, 0.044481711593671994),
    "fc8": (0.06661523244761258, 0.008304840607742099),
}
"""Weights of the two terms of :func:`similarity` per layer: the constants that KamitaniLab/spurious_reconstruction states
for iCNN on NSD."""


@dataclass(frozen=True)
class Descent:
    """Gradient descent with momentum on normalized gradients, the loop of Shen et al. 2019.

    Attributes
    ----------
    iterations : int
    rate : float
        Of the first step; it falls linearly to about 0.
    momentum, decay : float
        Share of the last step that is repeated, and share of the code that is lost in each step.
    start_sd : float
        SD of the first code.
    """

    iterations: int = 200
    rate: float = 2.0
    momentum: float = 0.9
    decay: float = 0.01
    start_sd: float = 1.0


@dataclass(frozen=True)
class AdamW:
    """AdamW on :func:`similarity` and squared errors, the loop of the iCNN of Shirakawa et al. 2024 (arXiv 2405.10078).

    The code is bounded below in the forward pass only, with a straight-through gradient, and not bounded above; the VGG
    sees the whole canvas reduced to its size, the result is the centre of the canvas. All this is as published.

    Attributes
    ----------
    iterations : int
    rate : float
    start_sd : float
        SD of the first code.
    similarity, error : float
        Weights of the two parts of the loss.
    """

    iterations: int = 800
    rate: float = 0.1
    start_sd: float = 0.01
    similarity: float = 4.0
    error: float = 1.0


def spread(features: Tensor, ddof: int = 1) -> Tensor:
    """Return s(f) of every image: SD over space per channel, averaged over channels; SD over units of a dense layer.

    Parameters
    ----------
    features : tensor of shape (n, channels, side, side) or (n, units)
    ddof : int

    Returns
    -------
    tensor of shape (n,)
    """
    if features.ndim == 2:
        return features.std(1, correction=ddof)
    return features.flatten(2).std(2, correction=ddof).mean(1)


def rescale(features: Tensor, wanted: float, train_mean: Tensor, how: FeatureScaling) -> Tensor:
    """Return decoded features with the contrast of true ones, which regression takes away.

    With s the :func:`spread` and m the mean over all units of the image:

    ==================================  =============================================================
    ``"none"``                          f
    ``"shen"``                          f / s(f) * wanted, ddof 0
    ``"feature_std"``                   (f - m(f)) / s(f) * wanted + m(f)
    ``"feature_std_train_mean_center"`` the same of d = f - train_mean, then + train_mean
    ``"train_mean_scale"``              (f - train_mean) / s(f) * wanted + train_mean
    ==================================  =============================================================

    Parameters
    ----------
    features : tensor of shape (n, channels, side, side) or (n, units)
    wanted : float
        Mean s of true features.
    train_mean : tensor of shape (1, ...)
        Mean over training images.
    """
    centre = features.new_zeros(()) if how in ("none", "shen", "feature_std") else train_mean
    rest = features - centre
    shape = (-1, *[1] * (features.ndim - 1))
    if how == "none":
        return features
    if how == "shen":
        return features * (wanted / spread(features, 0).clamp(min=TINY)).view(shape)
    if how == "train_mean_scale":
        return rest * (wanted / spread(features).clamp(min=TINY)).view(shape) + centre
    mean = rest.flatten(1).mean(1).view(shape)
    return (rest - mean) * (wanted / spread(rest).clamp(min=TINY)).view(shape) + mean + centre


def similarity(found: Tensor, wanted: Tensor, weights: tuple[float, float]) -> Tensor:
    """Return minus the DISTS similarity of features (Ding et al. 2020, arXiv 2004.07728) per image, shape (n,).

    Parameters
    ----------
    found, wanted : tensor of shape (n, channels, side, side) or (n, units)
        The units of a dense layer count as one channel.
    weights : pair of float
        Of the term of the means and of the term of the covariance.
    """
    x, y = (values.flatten(2) if values.ndim > 2 else values[:, None] for values in (found, wanted))
    x_mean, y_mean = x.mean(2), y.mean(2)
    x_rest, y_rest = x - x_mean[..., None], y - y_mean[..., None]
    means = (2 * x_mean * y_mean + STABLE) / (x_mean**2 + y_mean**2 + STABLE)
    shared = 2 * (x_rest * y_rest).mean(2) + STABLE
    covariance = shared / ((x_rest**2).mean(2) + (y_rest**2).mean(2) + STABLE)
    a, b = weights
    return -((a * means + b * covariance) / (a + b)).mean(1)


def invert(
    generator: Generator, vgg: Vgg, wanted: Mapping[str, Tensor], noise: Tensor, loop: Descent | AdamW
) -> Tensor:
    """Return images whose features come close to ``wanted``.

    Parameters
    ----------
    generator, vgg : Generator, Vgg
        Frozen, on the device of ``wanted``.
    wanted : mapping of layer to tensor of shape (n, ...) or (1, ...)
        Features before the ReLU.
    noise : tensor of shape (n, code)
        Standard normal numbers, from which codes start.
    loop : Descent or AdamW

    Returns
    -------
    tensor of shape (n, 3, crop, crop)
        In the units of the VGG's input: what the last iteration looked at, before its step.

    Raises
    ------
    ReconstructionError
        If an image is not finite.
    """
    with torch.enable_grad():
        if isinstance(loop, Descent):
            images = _descend(generator, vgg, wanted, noise, loop)
        else:
            images = _adamw(generator, vgg, wanted, noise, loop)
    require_finite(images, "optimised images")
    return images


def _descend(
    generator: Generator, vgg: Vgg, wanted: Mapping[str, Tensor], noise: Tensor, loop: Descent
) -> Tensor:
    inverse = {name: 1 / _power(values).clamp(min=TINY) for name, values in wanted.items()}
    total = torch.stack(list(inverse.values())).sum(0)
    z, step = noise * loop.start_sd, torch.zeros_like(noise)
    for i in range(loop.iterations):
        z = z.detach().requires_grad_()
        image = generator.image(z)
        found = vgg(image, tuple(wanted))
        losses = [inverse[name] / total * _power(found[name] - wanted[name]) for name in wanted]
        (slope,) = torch.autograd.grad(torch.stack(losses).sum(), z)
        slope = slope / slope.abs().mean(1, keepdim=True).clamp(min=TINY)
        step = loop.momentum * step + slope
        z = (z.detach() - loop.rate * (1 - i / loop.iterations) * step) * (1 - loop.decay)
        z = torch.minimum(z.clamp(min=0), generator.upper)
    return image.detach()


def _adamw(
    generator: Generator, vgg: Vgg, wanted: Mapping[str, Tensor], noise: Tensor, loop: AdamW
) -> Tensor:
    z = (noise * loop.start_sd).requires_grad_()
    optimizer = torch.optim.AdamW([z], lr=loop.rate)
    for _ in range(loop.iterations):
        canvas = generator(z + (z.clamp(min=0) - z).detach())
        seen = functional.interpolate(canvas, size=vgg.config.size, mode="bilinear", antialias=True)
        found = vgg(seen, tuple(wanted))
        losses = [
            loop.similarity * similarity(found[name], values, SIMILARITY[name])
            + loop.error * _power(found[name] - values) / _power(values).clamp(min=TINY)
            for name, values in wanted.items()
        ]
        optimizer.zero_grad()
        (torch.stack(losses).sum() / len(wanted)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return generator.centre(canvas).detach()


def _power(values: Tensor) -> Tensor:
    """Return the sum of squares per image."""
    return values.flatten(1).square().sum(1)


def display(pixels: NDArray[np.floating], percent: tuple[float, float] = (2.0, 98.0)) -> NDArray[np.uint8]:
    """Return an image as it is shown: clipped to two percentiles of all its values, stretched to 0 ... 255.

    Parameters
    ----------
    pixels : float array of shape (H, W, 3)
        Grey levels.
    percent : pair of float
    """
    low, high = np.percentile(pixels, percent)
    stretched = (np.clip(pixels, low, high) - low) * (255 / max(high - low, TINY))
    return np.asarray(stretched, np.uint8)
