"""The pretrained parts of Brain Diffuser, at the published and at miniature size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nsdbench.adapters.base import Context
from nsdbench.adapters.nets import clip, clip_published, vdvae, versatile
from nsdbench.adapters.nets.autoencoder import Autoencoder, mini_autoencoder, published_autoencoder
from nsdbench.adapters.nets.checkpoints import mini, published_dtype
from nsdbench.adapters.nets.ddim import Denoiser
from nsdbench.adapters.nets.pixels import BILINEAR, Images, resized
from nsdbench.adapters.nets.unet import MiniDenoiser
from nsdbench.adapters.nets.vdvae import VDVAE


@dataclass(frozen=True)
class Networks:
    """The pretrained parts.

    Attributes
    ----------
    vdvae : VDVAE
    autoencoder : Autoencoder
    denoiser : Denoiser
        Reads image and text conditions.
    image_tokens : callable
        From 8-bit images (n, S, S, 3) to (n, tokens, channels).
    text_tokens : callable
        From n captions to (n, tokens, channels).
    empty_image, empty_text : tensor of shape (1, tokens, channels)
        What stands for no image and no text, for guidance.
    """

    vdvae: VDVAE
    autoencoder: Autoencoder
    denoiser: Denoiser
    image_tokens: Callable[[Images], Tensor]
    text_tokens: Callable[[Sequence[str]], Tensor]
    empty_image: Tensor
    empty_text: Tensor


def published_networks(context: Context) -> Networks:
    """Return the networks of the paper.

    Raises
    ------
    WeightsError
        If weights are missing or do not fit.
    """
    where, device = context.weights_dir, context.device
    dtype = published_dtype(device)
    tokens = clip_published.load(where, device)
    text_tokens = partial(clip_published.text_tokens, tokens)
    return Networks(
        vdvae.published_vdvae(where, device),
        published_autoencoder(f"{versatile.VERSATILE}-vae", where, device=device, dtype=dtype),
        versatile.versatile_diffusion(where, device=device, dtype=dtype),
        partial(clip_published.image_tokens, tokens),
        text_tokens,
        clip_published.empty_image(tokens),
        text_tokens([""]),
    )


def mini_networks(context: Context) -> Networks:
    """Return the networks for simulated scenes, which come with nsdbench."""
    device = context.device
    tokens = mini(clip.mini_clip(), "mini_tokens-v1", device)

    def image_tokens(images: Images) -> Tensor:
        seen = torch.from_numpy(resized(images, clip.SIZE, BILINEAR)).permute(0, 3, 1, 2).float() / 255
        return clip.image_tokens(tokens, seen.to(device))

    text_tokens = partial(clip.text_tokens, tokens)
    return Networks(
        mini(vdvae.mini_vdvae(), vdvae.MINI.weights_id, device),
        mini(mini_autoencoder(), "mini_autoencoder-v1", device),
        mini(MiniDenoiser(), "mini_denoiser-v1", device),
        image_tokens,
        text_tokens,
        clip.image_tokens(tokens, torch.full((1, 3, clip.SIZE, clip.SIZE), 0.5, device=device)),
        text_tokens([""]),
    )
