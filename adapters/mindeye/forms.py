"""What the shapes in a MindEye checkpoint say about the form of the model: every size.

Only the groups of the norms in the upsampler leave no trace in shapes; they are taken to be the published 32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nsdbench.adapters.mindeye.encoder import HALF_PRECISION_EPS, EncoderConfig, MindEye1Config
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig
from nsdbench.adapters.mindeye.trunk import MindEye2Config, TrunkConfig
from nsdbench.adapters.nets.prior import PriorConfig
from nsdbench.errors import WeightsError

State = Mapping[str, Tensor]


def mindeye1_form(state: State, source: str) -> tuple[int, MindEye1Config]:
    """Return voxels and form of a MindEye1 high-level model.

    Parameters
    ----------
    state : mapping of str to Tensor
        Under published names.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    WeightsError
        If names that tell the form are missing.
    """
    shapes = _Shapes(state, source, "MindEye1")
    hidden, voxels = shapes["voxel2clip.lin0.0.weight"]
    width, dim = shapes["voxel2clip.projector.2.weight"]
    encoder = EncoderConfig(
        hidden=hidden,
        blocks=shapes.count("voxel2clip.mlp."),
        tokens=shapes["voxel2clip.lin1.weight"][0] // dim,
        dim=dim,
        projector=width,
    )
    return voxels, MindEye1Config(encoder, _prior_form(shapes, "", math.sqrt(dim)))


def lowlevel_form(state: State, source: str) -> tuple[int, int, int, LowLevelConfig]:
    """Return voxels, width, blocks and form of a MindEye1 low-level model; see :func:`mindeye1_form`."""
    shapes = _Shapes(state, source, "MindEye1's low-level branch")
    hidden, voxels = shapes["lin0.0.weight"]
    form = _low_level_form(shapes, _MINDEYE1_LOW_LEVEL)
    return voxels, hidden, shapes.count("mlp."), form


def mindeye2_form(state: State, source: str) -> tuple[tuple[int, ...], MindEye2Config]:
    """Return voxels of every subject and form of a MindEye2 model; see :func:`mindeye1_form`."""
    shapes = _Shapes(state, source, "MindEye2")
    hidden, seq_len = (shapes[f"backbone.mixer_blocks{i}.0.0.weight"][0] for i in (1, 2))
    width, dim = shapes["backbone.clip_proj.2.weight"]
    low_level = "backbone.blin1.weight" in state
    trunk = TrunkConfig(
        hidden=hidden,
        blocks=shapes.count("backbone.mixer_blocks1."),
        seq_len=seq_len,
        tokens=shapes["backbone.backbone_linear.weight"][0] // dim,
        dim=dim,
        projector=width,
        low_level=_low_level_form(shapes, _MINDEYE2_LOW_LEVEL) if low_level else None,
    )
    subjects = range(shapes.count("ridge.linears."))
    voxels = tuple(shapes[f"ridge.linears.{subject}.weight"][1] for subject in subjects)
    return voxels, MindEye2Config(trunk, _prior_form(shapes, "diffusion_prior.", 1.0))


@dataclass(frozen=True)
class _Shapes:
    """Sizes by name; a missing name is an error that says which model it is needed for."""

    state: State
    source: str
    model: str

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self.state:
            raise WeightsError(
                f"{self.source} holds no {name}, so it is not a checkpoint of {self.model}",
                remedy="Names in it begin with: " + ", ".join(sorted(self.state)[:3]) + ".",
            )
        return tuple(self.state[name].shape)

    def count(self, prefix: str) -> int:
        """How many numbered parts follow the prefix."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        return len({found[1] for name in self.state if (found := pattern.match(name))})


_MINDEYE1_LOW_LEVEL = ("lin1", "norm", "upsampler", "maps_projector")
_MINDEYE2_LOW_LEVEL = tuple(
    f"backbone.{part}" for part in ("blin1", "bnorm", "bupsampler", "b_maps_projector")
)


def _low_level_form(shapes: _Shapes, names: tuple[str, ...]) -> LowLevelConfig:
    linear, norm, upsampler, projector = names
    channels = shapes[f"{norm}.weight"][0]
    blocks = range(shapes.count(f"{upsampler}.up_blocks."))
    widths = [shapes[f"{upsampler}.up_blocks.{i}.resnets.0.conv2.weight"][0] for i in blocks]
    projected = f"{projector}.0.weight" in shapes.state
    return LowLevelConfig(
        map_side=math.isqrt(shapes[f"{linear}.weight"][0] // channels),
        map_channels=channels,
        decoder=tuple(reversed(widths)),
        layers=shapes.count(f"{upsampler}.up_blocks.0.resnets.") - 1,
        latent_channels=shapes[f"{upsampler}.conv_out.weight"][0],
        maps_dim=shapes[f"{projector}.0.weight"][0] if projected else None,
    )


def _prior_form(shapes: _Shapes, prefix: str, scale: float) -> PriorConfig:
    layers = f"{prefix}net.causal_transformer.layers."
    tokens, dim = shapes[f"{prefix}net.learned_query"]
    return PriorConfig(
        dim=dim,
        tokens=tokens,
        depth=shapes.count(layers),
        heads=shapes[f"{prefix}net.causal_transformer.rel_pos_bias.relative_attention_bias.weight"][1],
        dim_head=shapes[f"{layers}0.0.null_kv"][1],
        steps=shapes[f"{prefix}noise_scheduler.betas"][0],
        scale=scale,
        ff_mult=shapes[f"{layers}0.1.5.weight"][1] // dim,
        attn_out_norm_eps=HALF_PRECISION_EPS,
    )
