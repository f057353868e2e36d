"""MindEye1's networks: voxels to the tokens of CLIP, and the diffusion prior that they condition.

Scotti et al. 2023, arXiv 2305.18274.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nsdbench.adapters.nets import prior
from nsdbench.adapters.nets.prior import Prior, PriorConfig

HALF_PRECISION_EPS = 1e-3
"""What the one norm of the prior that read half precision added to the variance when the published models were trained."""


@dataclass(frozen=True)
class EncoderConfig:
    """Form of the encoder; the defaults are the published ones.

    Attributes
    ----------
    hidden, blocks : int
        Width and number of the residual layers.
    tokens, dim : int
        Shape of the target.
    projector : int
        Width of the retrieval head.
    first_dropout, dropout : float
        Dropped share after the first layer and after the residual ones.
    """

    hidden: int = 4096
    blocks: int = 4
    tokens: int = 257
    dim: int = 768
    projector: int = 2048
    first_dropout: float = 0.5
    dropout: float = 0.15


class Encoder(nn.Module):
    """Residual perceptron from the voxels of one subject to CLIP tokens, with a head for retrieval."""

    def __init__(self, voxels: int, config: EncoderConfig) -> None:
        super().__init__()
        self.voxels, self.config = voxels, config
        self.lin0 = _layer(voxels, config.hidden, config.first_dropout)
        self.mlp = nn.ModuleList(
            _layer(config.hidden, config.hidden, config.dropout) for _ in range(config.blocks)
        )
        self.lin1 = nn.Linear(config.hidden, config.tokens * config.dim)
        self.projector = projector(config.dim, config.projector)

    def forward(self, voxels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the condition of the prior and the tokens for retrieval, both (n, tokens, dim), of betas (n, voxels)."""
        x = self.lin0(voxels)
        for block in self.mlp:
            x = block(x) + x
        backbone = self.lin1(x).unflatten(1, (self.config.tokens, self.config.dim))
        return backbone, self.projector(backbone)


def projector(dim: int, width: int) -> nn.Sequential:
    """Return the perceptron of three layers, applied to each token, that both MindEyes use as retrieval head."""
    sizes = (dim, width, width, dim)
    return nn.Sequential(
        *(
            part
            for before, after in itertools.pairwise(sizes)
            for part in (nn.LayerNorm(before), nn.GELU(), nn.Linear(before, after))
        )
    )


def _layer(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU(), nn.Dropout(dropout))


@dataclass(frozen=True)
class MindEye1Config:
    """Form of the high-level model; the prior's tokens and width must be the encoder's."""

    encoder: EncoderConfig
    prior: PriorConfig


MINDEYE1 = MindEye1Config(EncoderConfig(), replace(prior.MINDEYE1, attn_out_norm_eps=HALF_PRECISION_EPS))
"""The published form."""


class MindEye1(Prior):
    """What a high-level checkpoint holds: the prior, and in it the encoder as ``voxel2clip``."""

    def __init__(self, voxels: int, config: MindEye1Config) -> None:
        super().__init__(config.prior)
        self.voxel2clip = Encoder(voxels, config.encoder)
