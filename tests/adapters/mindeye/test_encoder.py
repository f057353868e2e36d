"""MindEye1's encoder: published names, sizes, and the arithmetic of its layers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor

from nsdbench.adapters.mindeye.encoder import MINDEYE1, Encoder, EncoderConfig, MindEye1
from nsdbench.adapters.mindeye.forms import mindeye1_form
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.errors import WeightsError

SMALL = EncoderConfig(hidden=6, blocks=2, tokens=3, dim=4, projector=5)
VOXELS = {1: 15724, 2: 14278, 5: 13039, 7: 12682}
Numbers = NDArray[np.float64]


def _listing(shared: Path, name: str) -> dict[str, Tensor]:
    shapes = json.loads((shared / "data" / "state_dicts" / f"{name}.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _affine(state: dict[str, Numbers], name: str, x: Numbers) -> Numbers:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: dict[str, Numbers], name: str, x: Numbers) -> Numbers:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def _gelu(x: Numbers) -> Numbers:
    return np.asarray(x * (1 + erf(x / math.sqrt(2))) / 2)


def _random(network: torch.nn.Module) -> dict[str, Numbers]:
    """Give every parameter random values, and return them."""
    with torch.no_grad():
        for value in network.parameters():
            value.normal_()
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def test_the_output_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    network = Encoder(7, SMALL).eval()
    state, voxels = _random(network), torch.randn(5, 7)
    with torch.no_grad():
        backbone, retrieval = network(voxels)

    x = _gelu(_norm(state, "lin0.1", _affine(state, "lin0.0", voxels.double().numpy())))
    for i in range(2):
        x = x + _gelu(_norm(state, f"mlp.{i}.1", _affine(state, f"mlp.{i}.0", x)))
    tokens = _affine(state, "lin1", x).reshape(5, 3, 4)
    np.testing.assert_allclose(backbone, tokens, rtol=1e-4, atol=1e-4)
    for i in (0, 3, 6):
        tokens = _affine(state, f"projector.{i + 2}", _gelu(_norm(state, f"projector.{i}", tokens)))
    np.testing.assert_allclose(retrieval, tokens, rtol=1e-4, atol=1e-4)


def test_half_of_the_first_layer_and_less_of_the_others_is_dropped_in_training() -> None:
    network = Encoder(7, SMALL)
    assert (network.lin0[3].p, {block[3].p for block in network.mlp}) == (0.5, {0.15})  # type: ignore[index]


def test_the_published_encoder_has_947_579_904_parameters() -> None:
    network = on_meta(lambda: Encoder(VOXELS[1], EncoderConfig()))
    assert sum(value.numel() for value in network.parameters()) == 947_579_904


@pytest.mark.parametrize("subject", VOXELS)
def test_published_states_fit_and_tell_their_form(shared: Path, subject: int) -> None:
    state = _listing(shared, f"mindeye1_prior_257_final_subj{subject:02d}_bimixco_softclip_byol")
    assert len(state) == 119
    voxels, config = mindeye1_form(state, "listing")
    assert (voxels, config) == (VOXELS[subject], MINDEYE1)
    on_meta(lambda: MindEye1(voxels, config)).load_state_dict(state, assign=True)


def test_the_published_model_of_subject_1_holds_1_003_636_468_numbers() -> None:
    state = on_meta(lambda: MindEye1(VOXELS[1], MINDEYE1)).state_dict()
    assert sum(value.numel() for value in state.values()) == 1_003_636_468


def test_the_variant_with_one_token_is_an_encoder_too(shared: Path) -> None:
    state = _listing(shared, "mindeye1_prior_1x768_subj01__voxel2clip_part_only")
    network = on_meta(lambda: Encoder(VOXELS[1], EncoderConfig(tokens=1)))
    own = {name.removeprefix("voxel2clip."): value for name, value in state.items()}
    network.load_state_dict(own, assign=True)


def test_a_state_of_another_model_is_refused_by_the_name_it_lacks() -> None:
    with pytest.raises(WeightsError, match=r"other.pth holds no voxel2clip.lin0.0.weight"):
        mindeye1_form({"conv.weight": torch.ones(1)}, "other.pth")
