"""The published denoisers: Stable Diffusion 1.4 (text) and Versatile Diffusion (image and text)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nsdbench.adapters.nets.checkpoints import filled, on_meta, registered_state
from nsdbench.adapters.nets.unet import Site, pair, transformers

STABLE, VERSATILE = "stable-diffusion-v1-4", "versatile-diffusion"


def unet() -> nn.Module:
    """Return the untrained UNet that Stable Diffusion 1.4 and the image flow of Versatile Diffusion have in common."""
    from diffusers import UNet2DConditionModel

    network: nn.Module = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,  # which diffusers takes for the number of heads
    )
    return network


def paired_unet() -> nn.Module:
    """Return the image UNet of Versatile Diffusion with the transformers of both flows at every attention site."""
    return pair(unet(), transformers(unet()))


def paired_state(image: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of :func:`paired_unet` from those of the two published UNets.

    Of the text UNet only the attention sites are used: its other layers work on text latents. Every site must be there,
    which the strict load checks.
    """
    state = {_inside(name, "image"): value for name, value in image.items()}
    return state | {_inside(name, "text"): value for name, value in text.items() if ".attentions." in name}


def _inside(name: str, part: str) -> str:
    return re.sub(r"(\.attentions\.\d+\.)", rf"\g<1>{part}.", name)


class PublishedDenoiser(nn.Module):
    """A published UNet behind the interface of :class:`nsdbench.adapters.nets.ddim.Denoiser`.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Plain, for texts alone or images alone, or in the paired form.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.paired = any(isinstance(module, Site) for module in unet.modules())

    def image_condition(self, tokens: Tensor) -> Tensor:
        """Return the tokens as they are."""
        return tokens

    def text_condition(self, tokens: Tensor, *, states: bool = False) -> Tensor:
        """Return the tokens as they are."""
        return tokens

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        image: Tensor | None = None,
        text: Tensor | None = None,
        text_share: float = 0.0,
    ) -> Tensor:
        """Return the predicted noise, float32 of the shape of ``latents``, (n, 4, side, side).

        Parameters
        ----------
        latents : tensor
        times : int tensor, scalar
        image, text : tensor of shape (n, tokens, 768), optional
            The plain form reads one of them.
        text_share : float
            Share of the text in every attention site of the paired form.
        """
        dtype = next(self.unet.parameters()).dtype
        conditions = [tokens.to(dtype) for tokens in (image, text) if tokens is not None]
        mix = {"text_share": text_share, "image_tokens": 0 if image is None else image.shape[1]}
        prediction: Tensor = self.unet(
            latents.to(dtype),
            times,
            torch.cat(conditions, dim=1),
            cross_attention_kwargs=mix if self.paired else None,
            return_dict=False,
        )[0]
        return prediction.float()


def stable_diffusion(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> PublishedDenoiser:
    """Return the denoiser of Stable Diffusion 1.4.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    return _plain(f"{STABLE}-unet", weights_dir, device, dtype)


def versatile_images(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> PublishedDenoiser:
    """Return the denoiser of Versatile Diffusion that reads images only.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    return _plain(f"{VERSATILE}-image-unet", weights_dir, device, dtype)


def versatile_diffusion(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> PublishedDenoiser:
    """Return the dual-guided denoiser of Versatile Diffusion.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    names = [f"{VERSATILE}-image-unet", f"{VERSATILE}-text-unet"]
    image, text = (registered_state(name, weights_dir) for name in names)
    network = filled(
        on_meta(paired_unet), paired_state(image, text), " ".join(names), device=device, dtype=dtype
    )
    return PublishedDenoiser(network)


def _plain(name: str, weights_dir: Path | None, device: str, dtype: torch.dtype) -> PublishedDenoiser:
    state = registered_state(name, weights_dir)
    return PublishedDenoiser(filled(on_meta(unet), state, name, device=device, dtype=dtype))
