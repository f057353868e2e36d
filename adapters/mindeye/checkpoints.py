"""The published MindEye models: which there are, how they are read, and how one becomes the start of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters.base import Context
from nsdbench.adapters.mindeye.encoder import MindEye1
from nsdbench.adapters.mindeye.forms import State, lowlevel_form, mindeye1_form, mindeye2_form
from nsdbench.adapters.mindeye.lowlevel import VoxelLatents
from nsdbench.adapters.mindeye.trunk import MindEye2
from nsdbench.adapters.nets.autoencoder import present_names
from nsdbench.adapters.nets.checkpoints import filled, on_meta
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_checkpoint

Tuning = Literal["40sess", "1sess"]
"""What a published MindEye2 of one subject was tuned on: all of its sessions, or the first."""
FAST_TOLERANCE = 1e-3
"""A trunk that differs more than this between its fast and its full computation, in units of its values, uses the full."""


def mindeye1_ids(subject: int) -> tuple[str, str]:
    """Return the weights ids of MindEye1's high-level and low-level model of a subject."""
    return f"mindeye1-subj{subject:02d}", f"mindeye1-lowlevel-subj{subject:02d}"


def mindeye2_id(subject: int, tuning: Tuning = "40sess") -> str:
    """Return the weights id of MindEye2 tuned on a subject."""
    return f"mindeye2-subj{subject:02d}-{tuning}"


def multisubject_id(without: int, hidden: int = 4096) -> str:
    """Return the weights id of MindEye2 trained on all subjects but one."""
    return f"mindeye2-multisubject-without-subj{without:02d}" + ("" if hidden == 4096 else f"-{hidden}")


def load_mindeye1(subject: int, context: Context) -> tuple[MindEye1, VoxelLatents]:
    """Return the published models of a subject, frozen, in float32.

    Raises
    ------
    WeightsError
        If there are none, or they are missing, altered, or of another form.
    """
    high, low = mindeye1_ids(subject)
    model = mindeye1_of(published_state(high, context), high, context.device)
    return model, low_level_of(published_state(low, context), low, context.device)


def load_mindeye2(subject: int, context: Context, tuning: Tuning = "40sess") -> MindEye2:
    """Return the published model of a subject, frozen, in float32; see :func:`load_mindeye1`."""
    id = mindeye2_id(subject, tuning)
    return mindeye2_of(published_state(id, context), id, context.device)


def published_state(weights_id: str, context: Context) -> dict[str, Tensor]:
    """Return the weights of a published checkpoint under today's names, mapped from its file.

    Raises
    ------
    WeightsError
        If there is no such checkpoint, or its file is missing, altered or unreadable.
    """
    require_published(weights_id)
    located = weights.locate(weights_id, weights.folder(context.weights_dir))
    return present_names(load_checkpoint(located.path, drop=located.weights.unused))


def require_published(weights_id: str) -> None:
    """Raise WeightsError, with the ids that there are, if a checkpoint of this id is not among them."""
    if weights_id not in weights.REGISTRY:
        family = weights_id.partition("-")[0]
        known = ", ".join(id for id in weights.REGISTRY if id.startswith(f"{family}-"))
        raise WeightsError(
            f"weights {weights_id} are not published", remedy=f"There are: {known}. Train others yourself."
        )


def mindeye1_of(state: State, source: str, device: str = "cpu") -> MindEye1:
    """Return the high-level model that a state belongs to, frozen; on a CPU weights stay mapped from their file.

    Parameters
    ----------
    state : mapping of str to Tensor
        Every weight of the model under its published name, and nothing else.
    source : str
        Where it comes from, for messages.
    device : str

    Raises
    ------
    WeightsError
        If names or shapes do not make a model; the message names them.
    """
    voxels, config = mindeye1_form(state, source)
    return filled(on_meta(lambda: MindEye1(voxels, config)), state, source, device=device)


def low_level_of(state: State, source: str, device: str = "cpu") -> VoxelLatents:
    """Return MindEye1's low-level model that a state belongs to; see :func:`mindeye1_of`."""
    voxels, hidden, blocks, config = lowlevel_form(state, source)
    return filled(on_meta(lambda: VoxelLatents(voxels, hidden, blocks, config)), state, source, device=device)


def mindeye2_of(state: State, source: str, device: str = "cpu") -> MindEye2:
    """Return the MindEye2 model that a state belongs to; see :func:`mindeye1_of`.

    Its trunk computes in the fast way if that was found to agree with the full one.
    """
    voxels, config = mindeye2_form(state, source)
    model = filled(on_meta(lambda: MindEye2(voxels, config)), state, source, device=device)
    model.backbone.fast = model.backbone.fast and model.backbone.fast_error() <= FAST_TOLERANCE
    return model


def for_new_subject(
    state: State, n_voxels: int, rng: torch.Generator, *, legacy_bugs: bool = False
) -> dict[str, Tensor]:
    """Return a MindEye2 state in which one untrained layer for a new subject replaces those of all subjects.

    Parameters
    ----------
    state : mapping of str to Tensor
        Usually of a model of several subjects.
    n_voxels : int
        Voxels of the new subject.
    rng : torch.Generator
        Draws the new layer, as PyTorch initializes a linear one.
    legacy_bugs : bool
        Keep the bias of the first subject of ``state``, as the original does.
    """
    hidden = state["backbone.mixer_blocks1.0.0.weight"].shape[0]
    bound = 1 / math.sqrt(n_voxels)
    weight, bias = (
        (torch.rand(*shape, generator=rng, device=rng.device) * 2 - 1) * bound
        for shape in ((hidden, n_voxels), (hidden,))
    )
    first = state.get("ridge.linears.0.bias")
    if legacy_bugs and first is not None:
        bias = first
    shared = {name: value for name, value in state.items() if not name.startswith("ridge.")}
    return shared | {"ridge.linears.0.weight": weight.cpu(), "ridge.linears.0.bias": bias.cpu()}


def prepared(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights as a converted file holds them, and what to note about them.

    Attention gets today's names, and of MindEye models the form is noted. Other weights stay as they are.

    Raises
    ------
    WeightsError
        If weights begin like those of a model but are not.
    """
    state = present_names(state)
    return state, _facts(state)


def _facts(state: Mapping[str, Tensor]) -> dict[str, Any]:
    source = "the file"
    if "backbone.backbone_linear.weight" in state:
        voxels, form = mindeye2_form(state, source)
        _require_names(lambda: MindEye2(voxels, form), state)
        return {"model": "mindeye2", "voxels": list(voxels), "form": asdict(form)}
    if "voxel2clip.lin1.weight" in state:
        count, high = mindeye1_form(state, source)
        _require_names(lambda: MindEye1(count, high), state)
        return {"model": "mindeye1", "voxels": [count], "form": asdict(high)}
    if {"lin1.weight", "upsampler.conv_in.weight"} <= state.keys():
        count, hidden, blocks, low = lowlevel_form(state, source)
        _require_names(lambda: VoxelLatents(count, hidden, blocks, low), state)
        sizes = {"hidden": hidden, "blocks": blocks, "low_level": asdict(low)}
        return {"model": "mindeye1-lowlevel", "voxels": [count], "form": sizes}
    return {}


def _require_names(build: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> None:
    network = on_meta(build)
    strange = network.state_dict().keys() ^ state.keys()
    if strange:
        raise WeightsError(
            f"this is not {type(network).__name__} as published: {', '.join(sorted(strange))} missing or unknown",
            remedy="It may come from a fork, whose weights nsdbench cannot use.",
        )
