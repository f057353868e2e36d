"""The diffusion stage of MindEye1: candidates for an image from tokens and a rough image, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.ddim import Denoiser, guided
from nsdbench.adapters.nets.noise import Noise
from nsdbench.adapters.nets.pixels import require_finite
from nsdbench.adapters.nets.unipc import UniPCSampling, denoise


@dataclass(frozen=True)
class Variation:
    """The stage.

    Attributes
    ----------
    denoiser : Denoiser
        Reads image tokens.
    autoencoder : Autoencoder
    sampling : UniPCSampling
    side : int
        Pixels per side of the image.
    nothing : tensor of shape (1, tokens, channels)
        Tokens that stand for no image, for guidance; published: zeros.
    as_clip : bool
        The autoencoder gets the rough image as CLIP would see it, not in [-1, 1]: published, and nearly twice the
        contrast that the autoencoder expects.
    """

    denoiser: Denoiser
    autoencoder: Autoencoder
    sampling: UniPCSampling
    side: int
    nothing: Tensor
    as_clip: bool = True


@torch.no_grad()
def variations(stage: Variation, tokens: Tensor, rough: Tensor | None, noise: Noise) -> Tensor:
    """Return images of tokens, float32 (n, 3, side, side) in [0, 1].

    Parameters
    ----------
    stage : Variation
    tokens : tensor of shape (n, tokens, channels), or (1, tokens, channels) for n images of the same
    rough : tensor of shape (n, channels, height, width) or (1, channels, height, width), or None
        Latents of the rough image; None to start from noise alone. At strength 0 the rough image is returned.
    noise : Noise
        For n images. Each draws its own latents of the rough image; the original draws them once for all candidates.

    Raises
    ------
    ReconstructionError
        If a value is not finite.
    """
    sampling, shape = stage.sampling, stage.autoencoder.latent_shape(stage.side)
    read, start = stage.denoiser.image_condition, None
    unsharp, pure = noise.normal(*shape), noise.normal(*shape)
    if rough is not None and sampling.strength < 1:
        picture = rough_images(stage.autoencoder, rough)
        if sampling.strength == 0:
            return picture.clamp(0, 1).expand(len(pure), -1, -1, -1)
        seen = clip.normalize(picture) if stage.as_clip else picture * 2 - 1
        start = stage.autoencoder.encode(seen, unsharp).float()
    given = {"image": read(tokens).expand(len(pure), -1, -1)}
    predict = guided(stage.denoiser, given, {"image": read(stage.nothing)}, sampling.guidance, text_share=0.0)
    images = rough_images(stage.autoencoder, denoise(predict, start, pure, sampling)).clamp(0, 1)
    require_finite(images, "decoded images")
    return images


@torch.no_grad()
def rough_images(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """Return images of latents, float32 (n, 3, S, S), about [0, 1] but not cut off there."""
    return autoencoder.decode(latents).float() / 2 + 0.5


@torch.no_grad()
def image_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """Return the tokens of images as MindEye1 makes them, targets and candidates alike, (n, tokens, channels).

    As :func:`nsdbench.adapters.nets.clip.image_tokens`, after a bicubic change of size without smoothing, which leaves
    values outside [0, 1] in place.

    Parameters
    ----------
    model : CustomTextCLIP
        :func:`nsdbench.adapters.nets.clip_published.load` or the miniature.
    images : tensor of shape (n, 3, S, S)
        RGB in [0, 1].
    """
    size = tuple(model.visual.image_size)  # type: ignore[union-attr, arg-type]
    if images.shape[2:] != size:
        images = functional.interpolate(images, size=size, mode="bicubic", align_corners=False)
    return clip.image_tokens(model, images)


def best_of(candidates: Tensor, wanted: Tensor) -> int:
    """Return the number of the candidate whose tokens are most like those wanted, by the cosine over all of them.

    Parameters
    ----------
    candidates : tensor of shape (n, tokens, channels)
    wanted : tensor of shape (tokens, channels)
    """
    likeness = functional.cosine_similarity(candidates.flatten(1), wanted.flatten()[None], dim=1)
    return int(likeness.argmax())
