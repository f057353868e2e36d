"""The low-level branches of MindEye: from voxels to a small map, and from the map to Stable Diffusion's latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

from torch import Tensor, nn


@dataclass(frozen=True)
class LowLevelConfig:
    """Form of what follows the map; the defaults are MindEye1's.

    Attributes
    ----------
    map_side, map_channels : int
        Size of the map that the voxels are projected to.
    decoder : tuple of int
        Channels of the upsampler, from the output's resolution to the map's; every entry but the first doubles the side.
    groups : int
        Groups of the upsampler's norms; must divide its channels.
    layers : int
        Residual layers of the upsampler, as diffusers counts them: each block has one more.
    latent_channels : int
        Channels of the latents.
    maps_dim : int or None
        Width of the tokens that the map is compared with in training; None leaves their projector out.
    """

    map_side: int = 16
    map_channels: int = 64
    decoder: tuple[int, ...] = (64, 128, 256)
    groups: int = 32
    layers: int = 1
    latent_channels: int = 4
    maps_dim: int | None = 512

    @property
    def map_size(self) -> int:
        """Numbers in one map."""
        return self.map_channels * self.map_side**2

    @property
    def latent_side(self) -> int:
        """Side of the latents."""
        return self.map_side << (len(self.decoder) - 1)

    @property
    def target_bytes(self) -> int:
        """Bytes of what is learnt about one image: float32 latents, float16 tokens of the image and of a copy."""
        tokens = 2 * self.map_side**2 * (self.maps_dim or 0)
        return 4 * self.latent_channels * self.latent_side**2 + 2 * tokens


PUBLISHED_MINDEYE1 = LowLevelConfig()
"""16 x 16 map to 64 x 64 latents, an image of 512 pixels."""
PUBLISHED_MINDEYE2 = LowLevelConfig(map_side=7, decoder=(32, 64, 128))
"""7 x 7 map to 28 x 28 latents, an image of 224 pixels."""


def upsampler(config: LowLevelConfig) -> nn.Module:
    """Return the decoder of an autoencoder (diffusers' names) that turns a map into latents."""
    from diffusers.models.autoencoders.vae import Decoder

    network: nn.Module = Decoder(
        in_channels=config.map_channels,
        out_channels=config.latent_channels,
        up_block_types=("UpDecoderBlock2D",) * len(config.decoder),
        block_out_channels=config.decoder,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
    )
    return network


def maps_projector(config: LowLevelConfig) -> nn.Sequential | None:
    """Return the three 1 x 1 convolutions from the map to the tokens of a teacher, if the form has them."""
    width = config.maps_dim
    if width is None:
        return None
    return nn.Sequential(
        nn.Conv2d(config.map_channels, width, 1, bias=False),
        nn.GroupNorm(1, width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False),
        nn.GroupNorm(1, width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
    )


def map_tokens(projector: nn.Module | None, maps: Tensor) -> Tensor:
    """Return one token per place of the maps, (n, side * side, maps_dim), row by row.

    Raises
    ------
    ValueError
        If the network was built without the projector.
    """
    if projector is None:
        raise ValueError("this network was built without maps_projector, so its map has no tokens")
    tokens: Tensor = projector(maps)
    return tokens.flatten(2).transpose(1, 2)


class VoxelLatents(nn.Module):
    """MindEye1's low-level network: voxels to the latents of a blurry image, in units of the diffusion model.

    Parameters
    ----------
    voxels : int
    hidden : int
        Width of the layers; 4096 as published.
    blocks : int
        Residual layers; 4 as published.
    config : LowLevelConfig
    first_dropout, dropout : float
        Dropped share after the first layer and after the others.
    """

    def __init__(
        self,
        voxels: int,
        hidden: int = 4096,
        blocks: int = 4,
        config: LowLevelConfig = PUBLISHED_MINDEYE1,
        *,
        first_dropout: float = 0.5,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.config = config
        self.lin0 = _layer(voxels, hidden, first_dropout)
        self.mlp = nn.ModuleList(_layer(hidden, hidden, dropout) for _ in range(blocks))
        self.lin1 = nn.Linear(hidden, config.map_size, bias=False)
        self.norm = nn.GroupNorm(1, config.map_channels)
        self.upsampler = upsampler(config)
        self.maps_projector = maps_projector(config)

    @overload
    def forward(self, voxels: Tensor, maps: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, voxels: Tensor, maps: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, voxels: Tensor, maps: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return latents, (n, latent_channels, side, side), of betas (n, voxels).

        With ``maps`` also the tokens of the map, (n, map_side ** 2, maps_dim).
        """
        x = self.lin0(voxels)
        for block in self.mlp:
            x = block(x) + x
        side = self.config.map_side
        seen = self.norm(self.lin1(x).unflatten(1, (self.config.map_channels, side, side)))
        latents: Tensor = self.upsampler(seen)
        return (latents, map_tokens(self.maps_projector, seen)) if maps else latents


def _layer(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, outputs, bias=False), nn.LayerNorm(outputs), nn.SiLU(), nn.Dropout(dropout)
    )
