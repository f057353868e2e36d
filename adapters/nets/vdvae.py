"""Very deep variational autoencoder (VDVAE; Child 2021, arXiv 2011.10650), published and miniature.

A ladder of blocks turns a learnt constant into an image, from one pixel up to the full resolution. Every block draws a
latent map ``z`` from its prior, given all that was drawn before; for a known image, from its posterior, which also sees
the activations of an encoder. Brain Diffuser regresses the latents of the first blocks and lets the prior draw the rest.

Names and shapes of all parameters are those of the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets import logistics
from nsdbench.adapters.nets.checkpoints import filled, on_meta, registered_state
from nsdbench.adapters.nets.noise import ItemNoise, Noise
from nsdbench.adapters.nets.pixels import BILINEAR, Images, from_signed, resized

MEAN, SD = 115.92961967, 69.37404
"""Grey levels of ImageNet at 64 pixels, for all three colours; the encoder sees ``(level - MEAN) / SD``."""


@dataclass(frozen=True)
class Config:
    """Size of a network.

    Attributes
    ----------
    weights_id : str
        Its weights.
    image : int
        Side of the image in pixels.
    width : int
        Channels of all activations.
    zdim : int
        Channels of every latent map.
    mixtures : int
        Components of the distribution of a pixel.
    encoder, decoder : str
        Blocks from input to output, comma-separated: ``RxN`` is N blocks at resolution R, ``RdF`` a block at R whose output
        is averaged over F x F pixels, ``RmS`` a block at R whose input takes the state at resolution S along.
    regressed : int
        Decoder blocks whose latents are predicted from brain activity; those after them are drawn.
    bottleneck : float
        Share of ``width`` inside a block.
    """

    weights_id: str
    image: int
    width: int
    zdim: int
    mixtures: int
    encoder: str
    decoder: str
    regressed: int
    bottleneck: float = 0.25

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in the latent map of every decoder block."""
        return tuple(self.zdim * resolution**2 for resolution, _, _ in layers(self.decoder))

    @property
    def n_latents(self) -> int:
        """Numbers in the latent maps that are regressed."""
        return sum(self.sizes[: self.regressed])


PUBLISHED = Config(
    weights_id="vdvae-imagenet64-ema",
    image=64,
    width=512,
    zdim=16,
    mixtures=10,
    encoder="64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
    decoder="1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
    regressed=31,
)
"""``imagenet64`` of the paper, and the 31 of its 75 blocks that Brain Diffuser regresses: 91,168 numbers."""
MINI = Config(
    weights_id="mini_vdvae-v1",
    image=32,
    width=64,
    zdim=8,
    mixtures=5,
    encoder="32x1,32d2,16x1,16d2,8x2,8d2,4x1,4d4,1x1",
    decoder="1x1,4m1,4x1,8m4,8x2,16m8,16x1,32m16",
    regressed=7,
    bottleneck=0.5,
)
"""For simulated scenes; docs/mini-networks.md."""


def layers(description: str) -> Iterator[tuple[int, int, int]]:
    """Yield resolution, down-sampling factor (1 for none) and resolution mixed in (0 for none) of every block."""
    for part in description.split(","):
        kind = next(c for c in part if c in "xdm")
        resolution, number = map(int, part.split(kind))
        if kind == "x":
            yield from [(resolution, 1, 0)] * number
        else:
            yield (resolution, number, 0) if kind == "d" else (resolution, 1, number)


class Block(nn.Module):
    """Four convolutions, each after a GELU, through a bottleneck; 1x1, 3x3, 3x3, 1x1, or all 1x1 at resolutions up to 2."""

    def __init__(self, inputs: int, middle: int, outputs: int, resolution: int) -> None:
        super().__init__()
        kernel = 3 if resolution > 2 else 1
        self.c1 = _conv(inputs, middle, 1)
        self.c2 = _conv(middle, middle, kernel)
        self.c3 = _conv(middle, middle, kernel)
        self.c4 = _conv(middle, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.c1, self.c2, self.c3, self.c4):
            x = conv(functional.gelu(x))
        return x


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class Encoder(nn.Module):
    """Residual blocks of falling resolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.in_conv = _conv(3, width, 3)
        self.plan = tuple(layers(config.encoder))
        blocks = [Block(width, int(width * config.bottleneck), width, r) for r, _, _ in self.plan]
        for block in blocks:
            _shrink(block.c4, len(blocks))
        self.enc_blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Return the last activation at each resolution."""
        x = self.in_conv(x)
        found = {x.shape[2]: x}
        for block, (_, down, _) in zip(self.enc_blocks, self.plan, strict=True):
            x = x + block(x)
            x = functional.avg_pool2d(x, down) if down > 1 else x
            found[x.shape[2]] = x
        return found


def _shrink(conv: nn.Conv2d, depth: int) -> None:
    """Start the last convolution of a residual branch small, so that ``depth`` of them keep the variance."""
    with torch.no_grad():
        conv.weight *= depth**-0.5


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions."""

    mean: Tensor
    log_sd: Tensor

    def draw(self, normal: Tensor) -> Tensor:
        """Return the value that belongs to a standard normal number."""
        return self.mean + self.log_sd.exp() * normal

    def divergence(self, prior: Gaussian) -> Tensor:
        """Return the Kullback-Leibler divergence of ``prior`` from this, element by element, in nats."""
        ratio = (2 * (self.log_sd - prior.log_sd)).exp()
        shift = (self.mean - prior.mean) * (-prior.log_sd).exp()
        return prior.log_sd - self.log_sd + 0.5 * (ratio + shift**2 - 1)


Pick = Callable[[Tensor, Gaussian], Tensor]
"""From the state before a decoder block and the block's prior to the latent map."""


class DecoderBlock(nn.Module):
    """One rung of the ladder: a prior, a posterior (``enc``), and what a latent map does to the state."""

    def __init__(self, config: Config, resolution: int, mixed: int) -> None:
        super().__init__()
        self.resolution, self.mixed, self.zdim = resolution, mixed, config.zdim
        width, middle = config.width, int(config.width * config.bottleneck)
        self.enc = Block(2 * width, middle, 2 * config.zdim, resolution)
        self.prior = Block(width, middle, 2 * config.zdim + width, resolution)
        self.z_proj = _conv(config.zdim, width, 1)
        self.resnet = Block(width, middle, width, resolution)
        nn.init.zeros_(self.prior.c4.weight)
        depth = len(config.sizes)
        _shrink(self.z_proj, depth)
        _shrink(self.resnet.c4, depth)

    def posterior(self, x: Tensor, activation: Tensor) -> Gaussian:
        """Return the distribution of the latent map, given the state before this block and the encoder."""
        return Gaussian(*self.enc(torch.cat([x, activation], 1)).float().chunk(2, 1))

    def forward(self, states: dict[int, Tensor], pick: Pick) -> Tensor:
        """Return the state at this resolution after the block."""
        x = states[self.resolution]
        if self.mixed:
            x = x + functional.interpolate(states[self.mixed], scale_factor=self.resolution // self.mixed)
        mean, log_sd, extra = self.prior(x).split([self.zdim, self.zdim, x.shape[1]], 1)
        z = pick(x, Gaussian(mean.float(), log_sd.float()))
        x = x + extra + self.z_proj(z)
        after: Tensor = x + self.resnet(x)
        return after


class _OutNet(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.out_conv = _conv(config.width, 10 * config.mixtures, 1)


class Decoder(nn.Module):
    """The ladder from learnt constants to the distribution of every pixel."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        plan = list(layers(config.decoder))
        self.dec_blocks: Sequence[DecoderBlock] = nn.ModuleList(  # type: ignore[assignment]
            DecoderBlock(config, r, mixed) for r, _, mixed in plan
        )
        self.bias_xs = nn.ParameterList(
            torch.zeros(1, config.width, r, r) for r in sorted({r for r, _, _ in plan})
        )
        self.gain = nn.Parameter(torch.ones(1, config.width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, config.width, 1, 1))
        self.out_net = _OutNet(config)

    def start(self, n: int) -> dict[int, Tensor]:
        """Return the learnt state at every resolution for n items."""
        return {bias.shape[2]: bias.expand(n, -1, -1, -1) for bias in self.bias_xs}

    def pixels(self, state: Tensor) -> Tensor:
        """Return the parameters of :mod:`~nsdbench.adapters.nets.logistics`, (n, 10 m, S, S)."""
        found: Tensor = self.out_net.out_conv(state * self.gain + self.bias)
        return found.float()


class VDVAE(nn.Module):
    """The autoencoder.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def posterior_pass(
        self, images: Tensor, noise: Noise, blocks: int | None = None
    ) -> tuple[dict[int, Tensor], list[Tensor], list[Tensor]]:
        """Draw the latent maps of ``images``.

        Parameters
        ----------
        images : tensor of shape (n, 3, S, S)
            Grey levels 0 to 255.
        noise : Noise
            Asked for one normal number per latent number, block by block.
        blocks : int, optional
            Stop after so many blocks.

        Returns
        -------
        states, latents, divergences
            States by resolution; and per block the latents (n, zdim, r, r) and their divergences from the prior.
        """
        activations = self.encoder((images - MEAN) / SD)
        states = self.decoder.start(len(images))
        latents: list[Tensor] = []
        divergences: list[Tensor] = []
        for block in self.decoder.dec_blocks[:blocks]:

            def pick(x: Tensor, prior: Gaussian, block: DecoderBlock = block) -> Tensor:
                posterior = block.posterior(x, activations[block.resolution])
                latents.append(posterior.draw(noise.normal(*posterior.mean.shape[1:])))
                divergences.append(posterior.divergence(prior))
                return latents[-1]

            states[block.resolution] = block(states, pick)
        return states, latents, divergences

    def negative_elbo(self, images: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return what each image costs, in nats: its pixels (n,), and the latents of every block (n, blocks).

        Their sum bounds the negative log likelihood from above.

        Parameters
        ----------
        images, noise
            As for :meth:`posterior_pass`.
        """
        states, _, divergences = self.posterior_pass(images, noise)
        pixels = self.decoder.pixels(states[self.config.image])
        likelihood = logistics.log_likelihood(pixels, images / 127.5 - 1)
        return -likelihood.sum((1, 2)), torch.stack([part.sum((1, 2, 3)) for part in divergences], 1)

    def manual_pass(self, latents: Sequence[Tensor], noise: Noise) -> Tensor:
        """Return the distribution of every pixel, given the latent maps of the first blocks.

        The other blocks draw from their priors at temperature 1.

        Parameters
        ----------
        latents : sequence of tensors (n, zdim, r, r)
        noise : Noise
        """
        states = self.decoder.start(len(latents[0]))
        for i, block in enumerate(self.decoder.dec_blocks):

            def pick(_: Tensor, prior: Gaussian, i: int = i) -> Tensor:
                return latents[i] if i < len(latents) else prior.draw(noise.normal(*prior.mean.shape[1:]))

            states[block.resolution] = block(states, pick)
        return self.decoder.pixels(states[self.config.image])

    @torch.no_grad()
    def flat_latents(self, images: Images, noise: ItemNoise) -> Tensor:
        """Draw the latents that are regressed, one vector per image.

        Parameters
        ----------
        images : uint8 array of shape (n, H, W, 3)
            Made smaller with Pillow's bilinear filter, as published.
        noise : ItemNoise

        Returns
        -------
        float32 tensor of shape (n, n_latents)
            Block after block, each map flattened as (channel, row, column).
        """
        small = torch.from_numpy(resized(images, self.config.image, BILINEAR)).permute(0, 3, 1, 2)
        levels = small.float().contiguous().to(noise.device)
        _, latents, _ = self.posterior_pass(levels, noise, self.config.regressed)
        return torch.cat([part.flatten(1) for part in latents], 1)

    @torch.no_grad()
    def picture(self, latents: Tensor, noise: ItemNoise) -> Images:
        """Draw images from latents, true or decoded.

        Parameters
        ----------
        latents : tensor of shape (n, n_latents)
            As :meth:`flat_latents` returns them.
        noise : ItemNoise
            The latents of the other blocks, the component and the place within it of every pixel.

        Returns
        -------
        uint8 array of shape (n, S, S, 3)
        """
        config = self.config
        sides = [resolution for resolution, _, _ in layers(config.decoder)][: config.regressed]
        parts = torch.split(latents, list(config.sizes[: config.regressed]), 1)
        maps = [torch.unflatten(part, 1, (-1, r, r)) for part, r in zip(parts, sides, strict=True)]
        pixels = self.manual_pass(maps, noise)
        choice = noise.uniform(config.mixtures, config.image, config.image)
        return from_signed(logistics.sample(pixels, choice, noise.uniform(3, config.image, config.image)))


def mini_vdvae() -> VDVAE:
    """Return the miniature network without its weights."""
    return VDVAE(MINI)


def published_vdvae(weights_dir: Path | None, device: str) -> VDVAE:
    """Return the network of the paper; its checkpoint may carry the prefix of data-parallel training.

    Raises
    ------
    WeightsError
        If the weights are missing, altered or do not fit.
    """
    state = registered_state(PUBLISHED.weights_id, weights_dir)
    named = {name.removeprefix("module."): value for name, value in state.items()}
    return filled(on_meta(lambda: VDVAE(PUBLISHED)), named, PUBLISHED.weights_id, device=device)
