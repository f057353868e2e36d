"""The miniature contrastive image-text model: tokens of images and of captions, as latent diffusion reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nsdbench.errors import DataError

SIZE, PATCH, WIDTH, CONTEXT = 64, 8, 128, 16
IMAGE_TOKENS = (SIZE // PATCH) ** 2 + 1
_VOCABULARY = """
a airplane an and apple at background ball banana beach behind bird black blue boat brown bus by car cat chair checked
cow cup dog donut dotted field flower forest green house in large medium mountain night of on one orange person picture
pink purple red room sea small snow street striped table the umbrella white with yellow zebra
"""
WORDS = tuple(_VOCABULARY.split())
"""Every word of the simulated captions, in alphabetical order; the weights depend on their numbers."""
PAD, START, END = 0, len(WORDS) + 1, len(WORDS) + 2
_NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
MEAN, SD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def mini_clip() -> nn.Module:
    """Return the untrained model: open_clip's ``CustomTextCLIP`` at 64 px with patches of 8 px and 128 channels.

    The text tower has no projection: hidden states (which Stable Diffusion reads) and embeddings (which Versatile
    Diffusion reads) are then the same up to the norm, and one denoiser can serve both.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    image = CLIPVisionCfg(
        layers=4, width=WIDTH, head_width=32, patch_size=PATCH, image_size=SIZE, output_tokens=True
    )
    text = CLIPTextCfg(
        context_length=CONTEXT,
        vocab_size=END + 1,  # the end has the highest number, which is how open_clip finds it
        width=WIDTH,
        heads=4,
        layers=3,
        proj_type="none",
        output_tokens=True,
    )
    model: nn.Module = CustomTextCLIP(WIDTH, image, text)
    return model


def normalize(images: Tensor) -> Tensor:
    """Return RGB images in [0, 1] as CLIP sees them."""
    mean, sd = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, SD))
    return (images - mean) / sd


def image_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """Return all tokens of images, projected, in units of the norm of the class token.

    The form of Versatile Diffusion (Xu et al. 2022, arXiv 2211.08332): every token of the last layer goes through the
    final norm and the projection that CLIP has for the class token only.

    Parameters
    ----------
    model : CustomTextCLIP
        With ``output_tokens`` in the image tower.
    images : tensor of shape (n, 3, 64, 64)
        RGB in [0, 1].

    Returns
    -------
    tensor of shape (n, 65, 128)
        The class token first, then the patches by rows.
    """
    pooled, patches = model.visual(normalize(images))  # type: ignore[operator]
    tokens = torch.cat([pooled[:, None], patches @ model.visual.proj], dim=1)  # type: ignore[union-attr]
    scaled: Tensor = tokens / pooled.norm(dim=1)[:, None, None]
    return scaled


def text_states(model: nn.Module, captions: Sequence[str]) -> Tensor:
    """Return the last hidden states of captions after the final norm, (n, 16, 128): the form of Stable Diffusion."""
    states: Tensor = model.text(encode(captions).to(_device(model)))[1]  # type: ignore[operator]
    return states


def text_tokens(model: nn.Module, captions: Sequence[str]) -> Tensor:
    """Return all text tokens in units of the norm of the pooled one, (n, 16, 128): the form of Versatile Diffusion."""
    pooled, states = model.text(encode(captions).to(_device(model)))  # type: ignore[operator]
    scaled: Tensor = states / pooled.norm(dim=1)[:, None, None]
    return scaled


def encode(captions: Sequence[str]) -> Tensor:
    """Return captions as word numbers, int64 of shape (n, 16): start, words, end, padding.

    Raises
    ------
    DataError
        If a caption has a word that is not one of :data:`WORDS`, or too many words.
    """
    numbers = torch.full((len(captions), CONTEXT), PAD, dtype=torch.int64)
    for row, caption in zip(numbers, captions, strict=True):
        words = caption.lower().split()
        unknown = [word for word in words if word not in _NUMBERS]
        if unknown or len(words) > CONTEXT - 2:
            what = f"the word {unknown[0]!r}" if unknown else f"more than {CONTEXT - 2} words"
            raise DataError(
                f"caption {caption!r} has {what}",
                remedy="The miniature networks know the captions of simulated scenes only.",
            )
        row[: len(words) + 2] = torch.tensor([START, *(_NUMBERS[word] for word in words), END])
    return numbers


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
