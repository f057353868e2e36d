"""MindEye1's low-level network: published names, sizes, and the arithmetic around diffusers' decoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.adapters.mindeye.forms import lowlevel_form
from nsdbench.adapters.mindeye.lowlevel import (
    PUBLISHED_MINDEYE1,
    PUBLISHED_MINDEYE2,
    LowLevelConfig,
    VoxelLatents,
    upsampler,
)
from nsdbench.adapters.nets.autoencoder import present_names
from nsdbench.adapters.nets.checkpoints import on_meta

SMALL = LowLevelConfig(map_side=2, map_channels=4, decoder=(8, 8), groups=4, latent_channels=3, maps_dim=5)
NAME = "mindeye1_autoencoder_subj{:02d}_4x_locont_no_reconst__{}_names"
LISTINGS = [NAME.format(1, "diffusers_ge018"), *(NAME.format(s, "diffusers013") for s in (1, 2, 5, 7))]
Numbers = NDArray[np.float64]


def _listing(shared: Path, name: str) -> dict[str, Tensor]:
    shapes = json.loads((shared / "data" / "state_dicts" / f"{name}.json").read_text())
    return present_names({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})


@pytest.fixture
def network() -> VoxelLatents:
    torch.manual_seed(1)
    network = VoxelLatents(7, 6, 2, SMALL).eval().requires_grad_(False)
    for value in network.parameters():
        value.normal_()
    return network


def _silu(x: Numbers) -> Numbers:
    return np.asarray(x / (1 + np.exp(-x)))


def _norm(x: Numbers, weight: Numbers, bias: Numbers, axes: tuple[int, ...] = (-1,)) -> Numbers:
    centred = x - x.mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5) * weight + bias)


def _map(state: dict[str, Numbers], voxels: Numbers) -> Numbers:
    """Return the normed map, (n, channels, side, side), of the formula."""

    def layer(name: str, x: Numbers) -> Numbers:
        return _silu(
            _norm(x @ state[f"{name}.0.weight"].T, state[f"{name}.1.weight"], state[f"{name}.1.bias"])
        )

    x = layer("lin0", voxels)
    for i in range(2):
        x = x + layer(f"mlp.{i}", x)
    x = (x @ state["lin1.weight"].T).reshape(-1, 4, 2, 2)
    weight, bias = (state[f"norm.{part}"][:, None, None] for part in ("weight", "bias"))
    return _norm(x, weight, bias, (1, 2, 3))


def test_the_output_is_the_decoded_map_of_the_formula(network: VoxelLatents) -> None:
    voxels = torch.randn(3, 7)
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    seen = torch.from_numpy(_map(state, voxels.double().numpy())).float()
    torch.testing.assert_close(network(voxels), network.upsampler(seen), rtol=1e-3, atol=1e-3)


def test_the_tokens_of_the_map_are_those_of_the_formula(network: VoxelLatents) -> None:
    voxels = torch.randn(3, 7)
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    x = _map(state, voxels.double().numpy()).reshape(3, 4, 4).transpose(0, 2, 1)  # n, places, channels
    for i in (0, 3):
        x = x @ state[f"maps_projector.{i}.weight"][:, :, 0, 0].T
        norm = (state[f"maps_projector.{i + 1}.{part}"] for part in ("weight", "bias"))
        x = np.maximum(_norm(x, *norm, axes=(1, 2)), 0)
    x = x @ state["maps_projector.6.weight"][:, :, 0, 0].T + state["maps_projector.6.bias"]
    latents, tokens = network(voxels, maps=True)
    np.testing.assert_allclose(tokens, x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents, network(voxels))


def test_every_stage_of_the_upsampler_but_the_last_doubles_the_side(network: VoxelLatents) -> None:
    assert network(torch.randn(2, 7)).shape == (2, 3, SMALL.latent_side, SMALL.latent_side)
    assert (SMALL.latent_side, PUBLISHED_MINDEYE1.latent_side, PUBLISHED_MINDEYE2.latent_side) == (4, 64, 28)


def test_a_map_without_projector_has_no_tokens() -> None:
    network = VoxelLatents(7, 6, 1, LowLevelConfig(2, 4, (8, 8), 4, maps_dim=None))
    assert not any(name.startswith("maps_projector") for name in network.state_dict())
    with pytest.raises(ValueError, match="maps_projector"):
        network(torch.randn(1, 7), maps=True)


def test_half_of_the_first_layer_and_a_quarter_of_the_others_is_dropped_in_training(
    network: VoxelLatents,
) -> None:
    assert (network.lin0[3].p, {block[3].p for block in network.mlp}) == (0.5, {0.25})  # type: ignore[index]


@pytest.mark.parametrize("name", LISTINGS)
def test_published_states_of_both_attention_names_fit_and_tell_their_form(shared: Path, name: str) -> None:
    state = _listing(shared, name)
    assert len(state) == 114
    voxels, hidden, blocks, config = lowlevel_form(state, name)
    assert (hidden, blocks, config) == (4096, 4, PUBLISHED_MINDEYE1)
    on_meta(lambda: VoxelLatents(voxels, hidden, blocks, config)).load_state_dict(state, assign=True)


def test_a_state_without_projector_tells_its_form(shared: Path) -> None:
    state = _listing(shared, LISTINGS[0])
    bare = {name: value for name, value in state.items() if not name.startswith("maps_projector")}
    voxels, hidden, blocks, config = lowlevel_form(bare, "listing")
    assert config.maps_dim is None
    on_meta(lambda: VoxelLatents(voxels, hidden, blocks, config)).load_state_dict(bare, assign=True)


def test_the_published_network_holds_206_065_604_numbers() -> None:
    network = on_meta(lambda: VoxelLatents(15724))
    assert sum(value.numel() for value in network.state_dict().values()) == 206_065_604


def test_the_upsampler_of_mindeye2_has_1_75_million_parameters() -> None:
    network = on_meta(lambda: upsampler(PUBLISHED_MINDEYE2))
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 2) == 1.75
