"""The pretrained networks of both MindEyes: from images to targets, and from decoded targets to images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.base import Context
from nsdbench.adapters.nets import bigg, captioner, clip, clip_published, prompts, sdxl, vgg, vicregl
from nsdbench.adapters.nets.autoencoder import Autoencoder, mini_autoencoder, published_autoencoder
from nsdbench.adapters.nets.captioner import Describer
from nsdbench.adapters.nets.checkpoints import mini, published_dtype
from nsdbench.adapters.nets.euler import EulerSampling
from nsdbench.adapters.nets.unclip import Refiner, Unclip
from nsdbench.adapters.nets.unet import MiniDenoiser
from nsdbench.adapters.nets.unipc import UniPCSampling
from nsdbench.adapters.nets.variation import Variation
from nsdbench.adapters.nets.variation import image_tokens as variation_tokens
from nsdbench.adapters.nets.versatile import versatile_images

VERSATILE_UNET, VERSATILE_VAE = "versatile-diffusion-image-unet", "versatile-diffusion-vae"
ROUGH_VAE = "sd-image-variations-vae"
MINI_PARTS = ("mini_denoiser-v1", "mini_autoencoder-v1", "mini_tokens-v1")
Embed = Callable[[Tensor], Tensor]
"""From images (n, 3, S, S) in [0, 1] to tokens (n, tokens, channels)."""


@dataclass(frozen=True)
class Networks1:
    """What MindEye1 needs besides the networks that read betas.

    Attributes
    ----------
    stage : Variation
        Makes images.
    embed : callable
        Makes the tokens that are decoded, see :data:`Embed`.
    """

    stage: Variation
    embed: Embed


@dataclass(frozen=True)
class Networks2:
    """What MindEye2 makes images of tokens with.

    Attributes
    ----------
    unclip : Unclip
        Makes a first image of tokens.
    refiner : Refiner
        Redraws it under a caption.
    prompt : callable
        From captions to the conditions of ``refiner``.
    describer : Describer
        Makes a caption of tokens.
    rough : Autoencoder
        Of the latents of the blurry image.
    """

    unclip: Unclip
    refiner: Refiner
    prompt: prompts.Prompts | prompts.MiniPrompts
    describer: Describer
    rough: Autoencoder


@dataclass(frozen=True)
class Teachers:
    """What only training needs.

    Attributes
    ----------
    rough : Autoencoder
        Of the latents that low-level branches learn.
    maps : callable
        Makes the tokens that their maps learn, see :data:`Embed`.
    """

    rough: Autoencoder
    maps: Embed


def published_networks1(context: Context, sampling: UniPCSampling, side: int) -> Networks1:
    """Return the published networks of MindEye1.

    With a share of the text of zero, as published, Versatile Diffusion's two flows are its image UNet alone.
    """
    where, device = context.weights_dir, context.device
    dtype = published_dtype(device)
    denoiser = versatile_images(where, device=device, dtype=dtype)
    autoencoder = published_autoencoder(VERSATILE_VAE, where, device=device, dtype=dtype)
    model = clip_published.load(where, device)
    nothing = torch.zeros(1, 257, 768, device=device)
    return Networks1(Variation(denoiser, autoencoder, sampling, side, nothing), _embed(model))


def mini_networks1(context: Context, sampling: UniPCSampling, side: int) -> Networks1:
    """Return the networks of MindEye1 for simulated scenes, which come with nsdbench."""
    device = context.device
    model = mini(clip.mini_clip(), "mini_tokens-v1", device)
    stage = Variation(
        mini(MiniDenoiser(), "mini_denoiser-v1", device),
        mini(mini_autoencoder(), "mini_autoencoder-v1", device),
        sampling,
        side,
        _embed(model)(_grey(device)),
        as_clip=False,
    )
    return Networks1(stage, _embed(model))


def published_networks2(context: Context, unclip: EulerSampling, refinement: EulerSampling) -> Networks2:
    """Return the published networks of MindEye2, about 26 GB in float32 and half of that on a GPU."""
    where, device = context.weights_dir, context.device
    dtype = published_dtype(device)
    prompt = prompts.Prompts.load(where, device=device, dtype=dtype)
    return Networks2(
        Unclip(
            sdxl.unclip_denoiser(where, device=device, dtype=dtype),
            sdxl.unclip_autoencoder(where, device=device),
            unclip,
            sdxl.SIDE,
        ),
        Refiner(
            sdxl.base_denoiser(where, device=device, dtype=dtype),
            sdxl.base_autoencoder(where, device=device),
            refinement,
            sdxl.SIDE,
            prompt([prompts.NEGATIVE]),
        ),
        prompt,
        captioner.published_describer(where, device),
        published_autoencoder(ROUGH_VAE, where, device=device),
    )


def published_embed2(context: Context) -> Embed:
    """Return what makes MindEye2's tokens of images; neither the decoding of betas nor its stages need it."""
    device = context.device
    tower = bigg.load_images(context.weights_dir, device=device, dtype=published_dtype(device))
    return lambda images: bigg.image_tokens(tower, images)


def mini_networks2(context: Context, unclip: EulerSampling, refinement: EulerSampling) -> Networks2:
    """Return the networks of MindEye2 for simulated scenes, which come with nsdbench."""
    device = context.device
    model = mini(clip.mini_clip(), "mini_tokens-v1", device)
    denoiser = mini(MiniDenoiser(), "mini_denoiser-v1", device)
    autoencoder = mini(mini_autoencoder(), "mini_autoencoder-v1", device)
    prompt = prompts.MiniPrompts(model, denoiser)
    nothing = _embed(model)(_grey(device))[:, 1:]
    return Networks2(
        Unclip(denoiser, autoencoder, unclip, clip.SIZE, nothing, gain=0.5),
        Refiner(denoiser, autoencoder, refinement, clip.SIZE, prompt([""])),
        prompt,
        captioner.mini_describer(device),
        autoencoder,
    )


def mini_embed2(context: Context) -> Embed:
    """Return what makes the miniature's tokens of images: those of the patches."""
    embed = _embed(mini(clip.mini_clip(), "mini_tokens-v1", context.device))
    return lambda images: embed(images)[:, 1:]


def published_teachers(context: Context) -> Teachers:
    """Return what the published low-level branches were trained with."""
    where, device = context.weights_dir, context.device
    teacher = vicregl.load(where, device)
    return Teachers(
        published_autoencoder(ROUGH_VAE, where, device=device), lambda images: vicregl.tokens(teacher, images)
    )


def mini_teachers(context: Context) -> Teachers:
    """Return what the miniature low-level branches are trained with: the last map of the small VGG, 4 x 4 places."""
    device = context.device
    network = mini(vgg.mini_vgg(), "mini_vgg-v1", device)

    @torch.no_grad()
    def maps(images: Tensor) -> Tensor:
        large = functional.interpolate(images, size=(vgg.MINI.size,) * 2, mode="bilinear", antialias=True)
        last = network(network.standardize(255 * large), ("conv4_2",))["conv4_2"]
        return functional.avg_pool2d(last.relu(), 2).flatten(2).transpose(1, 2)

    return Teachers(mini(mini_autoencoder(), "mini_autoencoder-v1", device), maps)


def _embed(model: nn.Module) -> Embed:
    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        return variation_tokens(model, images)

    return embed


def _grey(device: str) -> Tensor:
    return torch.full((1, 3, clip.SIZE, clip.SIZE), 0.5, device=device)
