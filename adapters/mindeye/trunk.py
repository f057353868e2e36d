"""MindEye2's networks: a linear layer per subject, the trunk that subjects share, and the diffusion prior.

Scotti et al. 2024, arXiv 2403.11207.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nsdbench.adapters.mindeye import lowlevel
from nsdbench.adapters.mindeye.encoder import HALF_PRECISION_EPS, projector
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig, map_tokens, maps_projector, upsampler
from nsdbench.adapters.nets import prior
from nsdbench.adapters.nets.prior import Prior, PriorConfig


@dataclass(frozen=True)
class TrunkConfig:
    """Form of the trunk; the defaults are the published ones.

    Attributes
    ----------
    hidden : int
        Width of the subjects' common space.
    blocks : int
        Mixer blocks of each kind.
    seq_len : int
        Length of the sequence that the second kind mixes; every published model has 1.
    tokens, dim : int
        Shape of the target.
    projector : int
        Width of the retrieval head.
    dropout, low_level_dropout : float
        Dropped share inside the mixer blocks and before the map of the low-level branch.
    low_level : LowLevelConfig or None
        Low-level branch; None leaves it out.
    """

    hidden: int = 4096
    blocks: int = 4
    seq_len: int = 1
    tokens: int = 256
    dim: int = 1664
    projector: int = 1664
    dropout: float = 0.15
    low_level_dropout: float = 0.3
    low_level: LowLevelConfig | None = None


@dataclass(frozen=True)
class TrunkOutput:
    """What the trunk says about betas.

    Attributes
    ----------
    backbone, retrieval : tensor of shape (n, tokens, dim)
        Condition of the prior, and tokens for retrieval.
    latents : tensor of shape (n, 4, side, side) or None
        Latents of the blurry image, if the trunk has a low-level branch.
    maps : tensor of shape (n, places, maps_dim) or None
        Tokens of the low-level map, if they were asked for.
    """

    backbone: Tensor
    retrieval: Tensor
    latents: Tensor | None = None
    maps: Tensor | None = None


class Ridge(nn.Module):
    """One linear layer per subject into the common space; its ridge penalty is the optimizer's weight decay."""

    def __init__(self, voxels: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.voxels = tuple(voxels)
        self.linears = nn.ModuleList(nn.Linear(count, hidden) for count in voxels)

    def forward(self, voxels: Tensor, subject: int = 0) -> Tensor:
        """Return hidden states, (n, 1, hidden), of betas (n, voxels) of the subject at this position."""
        hidden: Tensor = self.linears[subject](voxels)
        return hidden[:, None]


class Trunk(nn.Module):
    """From the common space to CLIP tokens, retrieval tokens and low-level latents.

    With a sequence of length 1 the mixer is nearly dead. A layer norm over one number gives its bias, whatever the
    input, so the second kind of block adds a constant, and the first kind only feeds itself: it never reaches the
    output and gets no gradient. ``fast`` then skips it. What remains is the input plus one learned number per block;
    in training each of these numbers keeps its dropout, drawn for every hidden unit as in the full computation.

    Attributes
    ----------
    fast : bool
        Whether the first kind of block is skipped; only possible with ``seq_len`` 1.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config, self.fast = config, config.seq_len == 1
        width = config.hidden * config.seq_len
        self.mixer_blocks1 = _mixers(config.hidden, config)
        self.mixer_blocks2 = _mixers(config.seq_len, config)
        self.backbone_linear = nn.Linear(width, config.tokens * config.dim)
        self.clip_proj = projector(config.dim, config.projector)
        if config.low_level is not None:
            self.blin1 = nn.Linear(width, config.low_level.map_size)
            self.bdropout = nn.Dropout(config.low_level_dropout)
            self.bnorm = nn.GroupNorm(1, config.low_level.map_channels)
            self.bupsampler = upsampler(config.low_level)
            self.b_maps_projector = maps_projector(config.low_level)

    def forward(self, hidden: Tensor, maps: bool = False) -> TrunkOutput:
        """Return all outputs for hidden states (n, seq_len, hidden).

        Parameters
        ----------
        hidden : tensor of shape (n, seq_len, hidden)
        maps : bool
            Also compute the tokens of the low-level map, which only training uses.
        """
        x = self.mixed(hidden).flatten(1)
        backbone = self.backbone_linear(x).unflatten(1, (self.config.tokens, self.config.dim))
        retrieval = self.clip_proj(backbone)
        form = self.config.low_level
        if form is None:
            return TrunkOutput(backbone, retrieval)
        places = self.bdropout(self.blin1(x)).unflatten(1, (form.map_channels, form.map_side, form.map_side))
        seen = self.bnorm(places)
        tokens = map_tokens(self.b_maps_projector, seen) if maps else None
        return TrunkOutput(backbone, retrieval, self.bupsampler(seen), tokens)

    def mixed(self, hidden: Tensor) -> Tensor:
        """Return hidden states after the mixer, (n, seq_len, hidden)."""
        return self._mixed_fast(hidden) if self.fast else self._mixed_fully(hidden)

    def _mixed_fully(self, hidden: Tensor) -> Tensor:
        x = along_hidden = hidden
        along_sequence = hidden.transpose(1, 2)
        for over_hidden, over_sequence in zip(self.mixer_blocks1, self.mixer_blocks2, strict=True):
            along_hidden = over_hidden(x) + along_hidden
            along_sequence = over_sequence(along_hidden.transpose(1, 2)) + along_sequence
            x = along_sequence.transpose(1, 2)
        return x

    def _mixed_fast(self, hidden: Tensor) -> Tensor:
        # any input will do; in training one number per unit, so that dropout strikes each on its own
        any_input = torch.zeros_like(hidden if self.training else hidden[:1, :, :1]).transpose(1, 2)
        for block in self.mixer_blocks2:
            hidden = hidden + block(any_input).transpose(1, 2)
        return hidden

    @torch.no_grad()
    def fast_error(self, rows: int = 4) -> float:
        """Return how far the fast computation is from the full one: largest difference over largest value.

        Without dropout; 0 if there is no fast computation.
        """
        if not self.fast:
            return 0.0
        weight = self.backbone_linear.weight
        values = torch.linspace(-3, 3, rows * self.config.hidden, device=weight.device, dtype=weight.dtype)
        hidden = values[torch.arange(len(values), device=weight.device) * 7919 % len(values)]
        hidden = hidden.view(rows, 1, self.config.hidden)
        training = self.training
        self.eval()
        full, fast = self._mixed_fully(hidden), self._mixed_fast(hidden)
        self.train(training)
        return float((full - fast).abs().max() / full.abs().max())


def _mixers(size: int, config: TrunkConfig) -> nn.ModuleList:
    """Return blocks over the last axis: layer norm, then a perceptron of constant width."""
    return nn.ModuleList(
        nn.Sequential(
            nn.LayerNorm(size),
            nn.Sequential(
                nn.Linear(size, size), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(size, size)
            ),
        )
        for _ in range(config.blocks)
    )


@dataclass(frozen=True)
class MindEye2Config:
    """Form of the whole model; the prior's tokens and width must be the trunk's."""

    trunk: TrunkConfig
    prior: PriorConfig


MINDEYE2 = MindEye2Config(
    TrunkConfig(low_level=lowlevel.PUBLISHED_MINDEYE2),
    replace(prior.MINDEYE2, attn_out_norm_eps=HALF_PRECISION_EPS),
)
"""The published form."""


class MindEye2(nn.Module):
    """What a MindEye2 checkpoint holds: layers of the subjects, shared trunk, diffusion prior."""

    def __init__(self, voxels: Sequence[int], config: MindEye2Config) -> None:
        super().__init__()
        self.config = config
        self.ridge = Ridge(voxels, config.trunk.hidden)
        self.backbone = Trunk(config.trunk)
        self.diffusion_prior = Prior(config.prior)
