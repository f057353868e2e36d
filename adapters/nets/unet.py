"""Denoising networks with two kinds of condition, images and texts, on shared convolutions.

Versatile Diffusion (Xu et al. 2022, arXiv 2211.08332) has one UNet per kind of condition; to guide by both at once, the
residual blocks of the image UNet are kept and every attention site holds the transformers of both, whose changes to
the hidden state are averaged. :func:`pair` makes that form of any two ``UNet2DConditionModel``s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip

FREQUENCIES = 8
CODE = 4 * FREQUENCIES
"""Channels of a position code: sine and cosine of each frequency, vertically and horizontally."""
LATENT_SIDE, LATENT_CHANNELS = 16, 4


class Site(nn.Module):
    """An attention site: ``h + (1 - s) (A_image(h) - h) + s (A_text(h) - h)`` with the share ``s`` of the text.

    It stands in for a ``Transformer2DModel``. Conditions come as one sequence, images first; the share and the number
    of image tokens come with the call (``cross_attention_kwargs``), so the network has no state. With a share of 0 or 1
    only one transformer runs.

    Parameters
    ----------
    image, text : diffusers.Transformer2DModel
    """

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.image, self.text = image, text

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: Mapping[str, Any],
        return_dict: bool = False,
        **_: object,
    ) -> tuple[Tensor]:
        """Return the new hidden state, (n, channels, height, width), in a tuple as diffusers expects it."""
        share, split = (
            float(cross_attention_kwargs["text_share"]),
            int(cross_attention_kwargs["image_tokens"]),
        )
        change: Tensor | None = None
        conditions = (encoder_hidden_states[:, :split], encoder_hidden_states[:, split:])
        for block, tokens, weight in zip(
            (self.image, self.text), conditions, (1 - share, share), strict=True
        ):
            if weight:
                part = weight * (block(hidden_states, tokens, return_dict=False)[0] - hidden_states)
                change = part if change is None else change + part
        return (hidden_states if change is None else hidden_states + change,)


def pair(image_unet: nn.Module, text_blocks: Mapping[str, nn.Module]) -> nn.Module:
    """Turn every transformer of ``image_unet`` into a :class:`Site` that also holds the one of the same name.

    Parameters
    ----------
    image_unet : diffusers.UNet2DConditionModel
        Changed in place.
    text_blocks : mapping of str to Transformer2DModel
        By module name, as :func:`transformers` returns them for the text UNet.

    Returns
    -------
    UNet2DConditionModel
        ``image_unet``; call it with ``cross_attention_kwargs={"text_share": s, "image_tokens": n}``.
    """
    for name, block in transformers(image_unet).items():
        parent, _, last = name.rpartition(".")
        holder = image_unet.get_submodule(parent)
        holder[int(last)] = Site(block, text_blocks[name])  # type: ignore[operator]
    return image_unet


def transformers(unet: nn.Module) -> dict[str, nn.Module]:
    """Return the transformers of a UNet by module name."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    return {name: module for name, module in unet.named_modules() if isinstance(module, Transformer2DModel)}


class MiniDenoiser(nn.Module):
    """The denoiser of the miniature world: 4 x 16 x 16 latents, image tokens, text tokens or both.

    Two additions let it learn in an hour of two cores where each token belongs: latents carry position codes as
    further channels, and every image token carries the code of its patch. Both are constants.

    Attributes
    ----------
    unet : UNet2DConditionModel
        In the paired form.
    image_sd, state_sd, token_sd : tensor, scalar
        Standard deviation over all values of the image tokens, the text states and the text tokens of training scenes.
    """

    image_sd: Tensor
    state_sd: Tensor
    token_sd: Tensor
    grid: Tensor
    patches: Tensor

    def __init__(self) -> None:
        super().__init__()
        text = transformers(_mini_unet())
        self.unet = pair(_mini_unet(), text)
        for name in ("image_sd", "state_sd", "token_sd"):
            self.register_buffer(name, torch.ones(()))
        side = clip.SIZE // clip.PATCH
        patches = torch.cat([torch.zeros(1, CODE), position_codes(side, side).reshape(-1, CODE)])
        self.register_buffer("grid", position_codes(LATENT_SIDE, side).permute(2, 0, 1), persistent=False)
        self.register_buffer("patches", patches, persistent=False)

    def image_condition(self, tokens: Tensor) -> Tensor:
        """Return image tokens (n, 65, 128) as the denoiser reads them, (n, 65, 160).

        The class token may be left out, (n, 64, 128): the denoiser hardly needs it.
        """
        codes = self.patches[-tokens.shape[1] :].expand(len(tokens), -1, -1)
        return torch.cat([tokens / self.image_sd, codes], dim=2)

    def text_condition(self, tokens: Tensor, *, states: bool = False) -> Tensor:
        """Return text tokens (n, 16, 128), or text states, as the denoiser reads them, (n, 16, 160)."""
        scaled = tokens / (self.state_sd if states else self.token_sd)
        return torch.cat([scaled, scaled.new_zeros(*scaled.shape[:2], CODE)], dim=2)

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        image: Tensor | None = None,
        text: Tensor | None = None,
        text_share: float = 0.0,
    ) -> Tensor:
        """Return the prediction of v, (n, 4, 16, 16).

        Parameters
        ----------
        latents : tensor of shape (n, 4, 16, 16)
            Noisy latents of unit scale.
        times : int tensor of shape (n,), or scalar
            Steps of the noise schedule, 0 to 999.
        image, text : tensor, optional
            From :meth:`image_condition` and :meth:`text_condition`; one may be missing if its share is zero.
        text_share : float
            Share of the text in every attention site, 0 to 1.
        """
        conditions = [tokens for tokens in (image, text) if tokens is not None]
        coded = torch.cat([latents, self.grid.expand(len(latents), -1, -1, -1)], dim=1)
        mix = {"text_share": text_share, "image_tokens": 0 if image is None else image.shape[1]}
        prediction: Tensor = self.unet(
            coded, times, torch.cat(conditions, dim=1), cross_attention_kwargs=mix, return_dict=False
        )[0]
        return prediction


def noise_levels() -> Tensor:
    """Return the share of signal variance at each of the 1000 times of Stable Diffusion's schedule, float32 (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def position_codes(side: int, span: int) -> Tensor:
    """Return sines and cosines of the positions of a ``side`` x ``side`` grid laid over ``span`` x ``span`` patches.

    The inner product of two codes is a sum of cosines of their distance, which peaks sharply where they coincide.

    Returns
    -------
    float32 tensor of shape (side, side, 32)
    """
    centres = (torch.arange(side) + 0.5) / side * span - 0.5
    angles = centres[:, None] * torch.arange(1, FREQUENCIES + 1) * math.pi / span
    line = torch.cat([angles.cos(), angles.sin()], dim=1)
    down, across = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([down, across], dim=2)


def _mini_unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    network: nn.Module = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS + CODE,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        cross_attention_dim=clip.WIDTH + CODE,
        attention_head_dim=4,  # which diffusers takes for the number of heads
        norm_num_groups=16,
    )
    return network
