"""The autoencoder of latent diffusion: images to latents of a standard scale and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nsdbench.adapters.nets.checkpoints import filled, on_meta, registered_state
from nsdbench.adapters.nets.pixels import Images, from_signed, to_signed

MINI_SIZE = 64
"""Pixels per side of the images of the miniature decoders."""
PUBLISHED_SCALE = 0.18215
"""Factor of the latents of Stable Diffusion 1 and Versatile Diffusion."""


class Autoencoder(nn.Module):
    """diffusers' ``AutoencoderKL`` together with the scale of its latents.

    Attributes
    ----------
    vae : diffusers.AutoencoderKL
    latent_mean, latent_sd : tensor of shape (channels,)
        Latents leave as ``(z - mean) / sd``. Published models use one factor for all channels: mean 0, sd 1 / 0.18215.
    """

    latent_mean: Tensor
    latent_sd: Tensor

    def __init__(self, vae: nn.Module, channels: int = 4, scale: float = 1.0) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_sd", torch.full((channels,), 1 / scale))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return latents of images in [-1, 1], (n, 3, S, S): a draw of the posterior, or its mean without ``noise``.

        One image and the noise of several draws give several latents.
        """
        posterior = self.vae.encode(images.to(self._dtype)).latent_dist  # type: ignore[operator]
        z: Tensor = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return (z - self.latent_mean[:, None, None]) / self.latent_sd[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Return images, about [-1, 1], (n, 3, S, S), of latents as :meth:`encode` gives them."""
        z = latents * self.latent_sd[:, None, None] + self.latent_mean[:, None, None]
        images: Tensor = self.vae.decode(z.to(self._dtype)).sample  # type: ignore[operator]
        return images

    @torch.no_grad()
    def encode_pixels(self, images: Images, noise: Tensor | None = None) -> Tensor:
        """Return latents of 8-bit images (n, S, S, 3), as :meth:`encode` does."""
        return self.encode(to_signed(images).to(self.latent_mean.device), noise).float()

    @torch.no_grad()
    def decode_pixels(self, latents: Tensor) -> Images:
        """Return 8-bit images (n, S, S, 3) of latents.

        Raises
        ------
        ReconstructionError
            If a value of an image is not finite.
        """
        return from_signed(self.decode(latents))

    def latent_shape(self, side: int) -> tuple[int, int, int]:
        """Return channels, height and width of the latents of ``side`` x ``side`` images."""
        halvings = len(self.vae.config.block_out_channels) - 1  # type: ignore[union-attr, arg-type]
        return len(self.latent_sd), side >> halvings, side >> halvings

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype


def mini_autoencoder() -> Autoencoder:
    """Return the untrained miniature: 64 px to 4 x 16 x 16, a fourth of the side instead of an eighth."""
    from diffusers import AutoencoderKL

    return Autoencoder(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            mid_block_add_attention=False,
            sample_size=MINI_SIZE,
        )
    )


def published_autoencoder(
    weights_id: str, weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Autoencoder:
    """Return an autoencoder of Stable Diffusion's form: S px to 4 x S/8 x S/8.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    state = present_names(registered_state(weights_id, weights_dir))
    vae = filled(on_meta(published_vae), state, weights_id, device=device, dtype=dtype)
    return Autoencoder(vae, scale=PUBLISHED_SCALE).requires_grad_(False).eval().to(device)


def published_vae() -> nn.Module:
    """Return the network of Stable Diffusion 1.4's autoencoder, which Versatile Diffusion shares; 83,653,863 parameters."""
    from diffusers import AutoencoderKL

    network: nn.Module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=512,
    )
    return network


def present_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a published state under the names of today's diffusers, which once called attention parts otherwise."""
    former = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    pattern = re.compile(rf"(?<=\.attentions\.0\.)({'|'.join(former)})(?=\.)")
    return {pattern.sub(lambda found: former[found[0]], name): value for name, value in state.items()}
