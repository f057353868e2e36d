"""The two diffusion stages of MindEye2: an image from tokens, and the same image redrawn under a caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.ddim import Denoiser, guided
from nsdbench.adapters.nets.euler import EulerSampling, noised, sample, unclip_start
from nsdbench.adapters.nets.noise import Noise
from nsdbench.adapters.nets.pixels import require_finite

GAIN = 0.8
"""Contrast of the published unCLIP images in units of the autoencoder's; see :attr:`Unclip.gain`."""


@dataclass(frozen=True)
class Unclip:
    """The stage that makes an image from tokens.

    Attributes
    ----------
    denoiser : Denoiser
        Reads image tokens.
    autoencoder : Autoencoder
    sampling : EulerSampling
    side : int
        Pixels per side of the image.
    nothing : tensor of shape (1, tokens, channels), or None
        Tokens that stand for no image, for guidance. None (published): normal noise, new for each image.
    gain : float
        From the autoencoder's y, white at 1, images in [0, 1] are made by ``1 + gain (y - 1)``: 0.5 for an autoencoder
        of images in [-1, 1]. The published model has learned from pale images (see :mod:`nsdbench.adapters.nets.bigg`)
        and takes 0.8.
    """

    denoiser: Denoiser
    autoencoder: Autoencoder
    sampling: EulerSampling
    side: int
    nothing: Tensor | None = None
    gain: float = GAIN


@dataclass(frozen=True)
class Refiner:
    """The stage that redraws an image under a caption.

    Attributes
    ----------
    denoiser : Denoiser
        Reads texts.
    autoencoder : Autoencoder
        Of images in [-1, 1].
    sampling : EulerSampling
    side : int
        Pixels per side at which the image is redrawn.
    nothing : mapping of str to tensor of shape (1, ...)
        Conditions of the negative prompt, as :class:`nsdbench.adapters.nets.prompts.Prompts` gives them.
    """

    denoiser: Denoiser
    autoencoder: Autoencoder
    sampling: EulerSampling
    side: int
    nothing: Mapping[str, Tensor]


@torch.no_grad()
def unclip_images(stage: Unclip, tokens: Tensor, noise: Noise) -> Tensor:
    """Return images of tokens, float32 (n, 3, side, side) in [0, 1].

    Parameters
    ----------
    stage : Unclip
    tokens : tensor of shape (n, tokens, channels), or (1, tokens, channels) for n images of the same
    noise : Noise
        For n images.

    Raises
    ------
    ReconstructionError
        If a value is not finite.
    """
    sampling, read = stage.sampling, stage.denoiser.image_condition
    start = unclip_start(noise, stage.autoencoder.latent_shape(stage.side), sampling)
    nothing = noise.normal(*tokens.shape[1:]) if stage.nothing is None else stage.nothing
    given = {"image": read(tokens).expand(len(start), -1, -1)}
    predict = guided(stage.denoiser, given, {"image": read(nothing)}, sampling.guidance, text_share=0.0)
    return _images(stage.autoencoder.decode(sample(predict, start, sampling)), stage.gain)


@torch.no_grad()
def refine(stage: Refiner, images: Tensor, prompt: Mapping[str, Tensor], noise: Noise) -> Tensor:
    """Return images redrawn under a caption, float32 (n, 3, side, side) in [0, 1].

    Parameters
    ----------
    stage : Refiner
    images : tensor of shape (n, 3, S, S)
        In [0, 1]. The published pipeline stores the images of the first stage at 256 pixels and begins with those.
    prompt : mapping of str to tensor of shape (n, ...) or (1, ...)
        Conditions of the captions, named as in ``stage.nothing``.
    noise : Noise
        For n images.

    Raises
    ------
    ReconstructionError
        If a value is not finite.
    """
    large, sampling = resized(images, stage.side), stage.sampling
    latents = stage.autoencoder.encode(
        large * 2 - 1, noise.normal(*stage.autoencoder.latent_shape(stage.side))
    )
    start = noised(latents.float(), noise, sampling)
    given = {name: value.expand(len(start), *value.shape[1:]) for name, value in prompt.items()}
    predict = guided(stage.denoiser, given, stage.nothing, sampling.guidance, text_share=1.0)
    return _images(stage.autoencoder.decode(sample(predict, start, sampling)), 0.5)


def resized(images: Tensor, side: int) -> Tensor:
    """Return images (n, 3, S, S) at another size, bilinear and without smoothing, as torchvision did it for tensors."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def _images(decoded: Tensor, gain: float) -> Tensor:
    require_finite(decoded, "decoded images")
    return (1 + gain * (decoded.float() - 1)).clamp(0, 1)
