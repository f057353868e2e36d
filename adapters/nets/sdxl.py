"""The published denoisers and autoencoders of MindEye2: an unCLIP model made from SDXL, and SDXL itself.

SDXL (Podell et al. 2023, arXiv 2307.01952) reads prompts; the unCLIP model has the same UNet, but reads the tokens of an
image. Its checkpoint has the names of the code it was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters.nets.autoencoder import Autoencoder, present_names, published_vae
from nsdbench.adapters.nets.checkpoints import filled, on_meta, registered_state
from nsdbench.adapters.nets.euler import noise_scales
from nsdbench.adapters.nets.versatile import PublishedDenoiser
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_checkpoint, load_state

UNCLIP, BASE = "mindeye2-unclip6", "sdxl-base-1.0"
SIDE = 768
"""Pixels per side of the images of both stages."""
SCALE = 0.13025
"""Factor of SDXL's latents."""
UNCLIP_SIZES = (SIDE, SIDE, 0, 0)
"""What the unCLIP model is told of an image: height and width of the original, top and left of the crop."""
BASE_SIZES = (SIDE, SIDE, 0, 0, 1024, 1024)
"""What SDXL is told: the same, and the height and width aimed at."""
CODE = 256
"""Channels of the code of each of these numbers."""
UNET_PREFIX, VAE_PREFIX, SIGMAS = "model.diffusion_model.", "first_stage_model.", "denoiser.sigmas"
"""Beginnings of the names of the two networks in the unCLIP checkpoint, and the name of its noise levels."""


def unclip_unet() -> nn.Module:
    """Return the untrained UNet that reads image tokens; 2,501,272,324 parameters."""
    return _unet(
        cross_attention_dim=1664,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=CODE * len(UNCLIP_SIZES),
    )


def base_unet() -> nn.Module:
    """Return the untrained UNet of SDXL; 2,567,463,684 parameters."""
    return _unet(
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=CODE,
        projection_class_embeddings_input_dim=1280 + CODE * len(BASE_SIZES),
    )


def _unet(**conditions: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    network: nn.Module = UNet2DConditionModel(
        sample_size=SIDE // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),  # which diffusers takes for the numbers of heads
        use_linear_projection=True,
        **conditions,
    )
    return network


class SizedDenoiser(PublishedDenoiser):
    """A published UNet that is told sizes.

    Parameters
    ----------
    unet : UNet2DConditionModel
    sizes : sequence of int
        :data:`UNCLIP_SIZES` or :data:`BASE_SIZES`.
    """

    sizes: Tensor

    def __init__(self, unet: nn.Module, sizes: Sequence[int]) -> None:
        super().__init__(unet)
        self.register_buffer("sizes", torch.tensor([sizes], dtype=torch.float32), persistent=False)

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        image: Tensor | None = None,
        text: Tensor | None = None,
        text_share: float = 0.0,
        pooled: Tensor | None = None,
    ) -> Tensor:
        """Return the predicted noise, float32 of the shape of ``latents``, (n, 4, side, side).

        Parameters
        ----------
        latents : tensor
        times : int tensor, scalar
        image : tensor of shape (n, 256, 1664), optional
            What the unCLIP model reads.
        text : tensor of shape (n, 77, 2048), optional
            What SDXL reads, together with ``pooled`` of shape (n, 1280).
        text_share : float
            Each model reads one kind of condition only, so this is not used.
        """
        n, dtype = len(latents), next(self.unet.parameters()).dtype
        known: dict[str, Any]
        if pooled is None:
            known = {"class_labels": size_codes(self.sizes).to(dtype).expand(n, -1)}
        else:
            sizes = self.sizes.expand(n, -1)
            known = {"added_cond_kwargs": {"text_embeds": pooled.to(dtype), "time_ids": sizes}}
        tokens = image if text is None else text
        assert tokens is not None, "a denoiser needs a condition"
        prediction: Tensor = self.unet(
            latents.to(dtype), times, tokens.to(dtype), **known, return_dict=False
        )[0]
        return prediction.float()


def size_codes(sizes: Tensor) -> Tensor:
    """Return sizes (n, k) as (n, 256 k): of each number the cosines, then the sines at 128 falling frequencies."""
    half = CODE // 2
    frequencies = 10000 ** (-torch.arange(half, device=sizes.device) / half)
    angles = sizes[:, :, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=2).flatten(1)


def unclip_unet_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the UNet of the unCLIP checkpoint under the names of diffusers.

    Parameters
    ----------
    state : mapping of str to tensor
        The checkpoint, or at least its 1,680 entries ``model.diffusion_model.*``.

    Raises
    ------
    WeightsError
        If an entry has no counterpart, or has no such entries.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    form = {"layers_per_block": 2, "class_embed_type": "projection"}
    return _converted(state, UNET_PREFIX, lambda own: convert_ldm_unet_checkpoint(own, form))


def unclip_vae_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the autoencoder of the unCLIP checkpoint, ``first_stage_model.*``, under the names of diffusers.

    Raises
    ------
    WeightsError
        If one of its entries has no counterpart, or has no such entries.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    form = {"down_block_types": (None,) * 4, "up_block_types": (None,) * 4}
    return _converted(state, VAE_PREFIX, lambda own: convert_ldm_vae_checkpoint(own, form))


def require_schedule(sigmas: Tensor) -> None:
    """Refuse a checkpoint whose noise levels, ``denoiser.sigmas``, are not the ones of :mod:`.euler`.

    Raises
    ------
    WeightsError
        If they differ.
    """
    own = torch.tensor(noise_scales(range(1000)))
    if sigmas.shape != own.shape or not torch.allclose(sigmas.float(), own, rtol=1e-2):
        raise WeightsError(f"{UNCLIP} was trained with other noise levels than Stable Diffusion's")


def _converted(
    state: Mapping[str, Tensor], prefix: str, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    own = {name: value for name, value in state.items() if name.startswith(prefix)}
    try:
        converted = convert(own)
    except KeyError as error:
        raise WeightsError(f"{UNCLIP} has no entry {prefix}{error.args[0]}") from error
    if len(converted) != len(own):
        raise WeightsError(f"{UNCLIP}: {len(own)} entries {prefix}* became {len(converted)} of diffusers")
    return converted


def unclip_denoiser(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> SizedDenoiser:
    """Return the denoiser of the unCLIP model.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    state = unclip_unet_state(_unclip(weights_dir, UNET_PREFIX))
    unet = filled(on_meta(unclip_unet), state, UNCLIP, device=device, dtype=dtype)
    return SizedDenoiser(unet, UNCLIP_SIZES).to(device)


def unclip_autoencoder(weights_dir: Path | None, *, device: str = "cpu") -> Autoencoder:
    """Return the autoencoder of the unCLIP model in float32: in half precision SDXL's overflows.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    return _autoencoder(unclip_vae_state(_unclip(weights_dir, VAE_PREFIX)), UNCLIP, device)


def base_denoiser(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> SizedDenoiser:
    """Return the denoiser of SDXL 1.0.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    name = f"{BASE}-unet"
    state = registered_state(name, weights_dir)
    return SizedDenoiser(filled(on_meta(base_unet), state, name, device=device, dtype=dtype), BASE_SIZES).to(
        device
    )


def base_autoencoder(weights_dir: Path | None, *, device: str = "cpu") -> Autoencoder:
    """Return the autoencoder of SDXL 1.0 in float32.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    name = f"{BASE}-vae"
    return _autoencoder(present_names(registered_state(name, weights_dir)), name, device)


def _unclip(weights_dir: Path | None, prefix: str) -> dict[str, Tensor]:
    """Read one network from the checkpoint, as published or as safetensors; nothing else of the file is read."""
    path = weights.locate(UNCLIP, weights.folder(weights_dir)).path
    read = load_state if path.suffix == ".safetensors" else load_checkpoint
    state = read(path, keep=(prefix, SIGMAS))
    if SIGMAS in state:
        require_schedule(state[SIGMAS])
    return state


def _autoencoder(state: Mapping[str, Tensor], source: str, device: str) -> Autoencoder:
    vae = filled(on_meta(published_vae), state, source, device=device)
    return Autoencoder(vae, scale=SCALE).requires_grad_(False).eval().to(device)
