"""MindEye2's trunk: published names, sizes, the dead mixer, and the arithmetic of its layers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor, nn

from nsdbench.adapters.mindeye.forms import mindeye2_form
from nsdbench.adapters.mindeye.lowlevel import PUBLISHED_MINDEYE2, LowLevelConfig
from nsdbench.adapters.mindeye.trunk import MINDEYE2, MindEye2, Ridge, Trunk, TrunkConfig
from nsdbench.adapters.nets.checkpoints import on_meta

LOW_LEVEL = LowLevelConfig(
    map_side=2, map_channels=4, decoder=(8, 8), groups=4, latent_channels=3, maps_dim=5
)
SMALL = TrunkConfig(hidden=6, blocks=3, tokens=2, dim=4, projector=4, low_level=LOW_LEVEL)
VOXELS = (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386)
Numbers = NDArray[np.float64]


def _listing(shared: Path, name: str) -> dict[str, Tensor]:
    shapes = json.loads((shared / "data" / "state_dicts" / f"mindeye2_{name}.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _trunk(config: TrunkConfig, spread: float = 1.0) -> Trunk:
    """Return a frozen trunk with random parameters of every kind."""
    torch.manual_seed(2)
    network = Trunk(config).eval().requires_grad_(False)
    for value in network.parameters():
        value.normal_(std=spread)
    return network


class Formula:
    """The trunk up to its backbone and heads, in plain arithmetic."""

    def __init__(self, network: nn.Module) -> None:
        self.state = {name: value.double().numpy() for name, value in network.state_dict().items()}

    def affine(self, name: str, x: Numbers) -> Numbers:
        return np.asarray(x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"])

    def norm(self, name: str, x: Numbers, eps: float = 1e-5) -> Numbers:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return np.asarray(scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"])

    def gelu(self, x: Numbers) -> Numbers:
        return np.asarray(x * (1 + erf(x / math.sqrt(2))) / 2)

    def block(self, name: str, x: Numbers) -> Numbers:
        inside = self.gelu(self.affine(f"{name}.1.0", self.norm(f"{name}.0", x)))
        return self.affine(f"{name}.1.3", inside)

    def mixed(self, x: Numbers, blocks: int) -> Numbers:
        before1, before2 = x, x.transpose(0, 2, 1)
        for i in range(blocks):
            x = before1 = self.block(f"mixer_blocks1.{i}", x) + before1
            before2 = self.block(f"mixer_blocks2.{i}", x.transpose(0, 2, 1)) + before2
            x = before2.transpose(0, 2, 1)
        return x

    def projected(self, x: Numbers) -> Numbers:
        for i in (0, 3, 6):
            x = self.affine(f"clip_proj.{i + 2}", self.gelu(self.norm(f"clip_proj.{i}", x)))
        return x


@pytest.mark.parametrize("seq_len", [1, 2])
def test_the_output_is_that_of_the_formula(seq_len: int) -> None:
    network = _trunk(replace(SMALL, seq_len=seq_len), spread=0.7)
    formula, hidden = Formula(network), torch.randn(3, seq_len, 6)
    output = network(hidden, maps=True)
    x = formula.mixed(hidden.double().numpy(), 3).reshape(3, -1)
    backbone = formula.affine("backbone_linear", x).reshape(3, 2, 4)
    np.testing.assert_allclose(output.backbone, backbone, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(output.retrieval, formula.projected(backbone), rtol=1e-3, atol=1e-3)

    places = formula.affine("blin1", x).reshape(3, 4, 2, 2)
    centred = places - places.mean((1, 2, 3), keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-5)
    weight, bias = (formula.state[f"bnorm.{part}"][:, None, None] for part in ("weight", "bias"))
    seen = torch.from_numpy(scaled * weight + bias).float()
    assert output.latents is not None
    assert output.maps is not None
    torch.testing.assert_close(output.latents, network.bupsampler(seen), rtol=1e-3, atol=1e-3)
    tokens = network.b_maps_projector(seen).flatten(2).transpose(1, 2)  # type: ignore[misc]
    torch.testing.assert_close(output.maps, tokens, rtol=1e-3, atol=1e-3)


def test_with_a_sequence_of_one_the_first_mixer_does_nothing() -> None:
    network, hidden = _trunk(SMALL), torch.randn(5, 1, 6)
    network.fast = False
    before = network(hidden).backbone
    for value in network.mixer_blocks1.parameters():
        value.normal_(std=3)
    torch.testing.assert_close(network(hidden).backbone, before, rtol=0, atol=1e-3)


def test_with_a_sequence_of_two_the_first_mixer_matters() -> None:
    network, hidden = _trunk(replace(SMALL, seq_len=2)), torch.randn(5, 2, 6)
    before = network(hidden).backbone
    for value in network.mixer_blocks1.parameters():
        value.normal_(std=3)
    assert (network(hidden).backbone - before).abs().max() > 1


def test_the_fast_trunk_adds_one_number_per_block() -> None:
    network, hidden = _trunk(SMALL), torch.randn(5, 1, 6)
    added = network.mixed(hidden) - hidden
    assert network.fast
    assert added.std() < 1e-5
    formula = Formula(network)
    constants = [formula.block(f"mixer_blocks2.{i}", np.zeros((1, 1, 1))).item() for i in range(3)]
    assert added.mean().item() == pytest.approx(sum(constants), abs=1e-5)


def test_the_fast_trunk_agrees_with_the_full_one() -> None:
    network, hidden = _trunk(SMALL, spread=3), torch.randn(5, 1, 6)
    fast = network(hidden)
    assert network.fast_error() < 1e-5
    network.fast = False
    torch.testing.assert_close(fast.backbone, network(hidden).backbone, rtol=1e-4, atol=1e-3)


def test_an_error_of_the_fast_trunk_is_measured_in_units_of_its_values() -> None:
    network = _trunk(SMALL)
    network._mixed_fast = lambda hidden: network._mixed_fully(hidden) * 1.1  # type: ignore[method-assign]
    assert network.fast_error() == pytest.approx(0.1, abs=1e-5)


def test_a_trunk_with_a_longer_sequence_is_never_fast() -> None:
    network = _trunk(replace(SMALL, seq_len=2))
    assert not network.fast
    assert network.fast_error() == 0


def test_measuring_the_error_leaves_a_training_trunk_in_training() -> None:
    network = Trunk(SMALL).train()
    network.fast_error()
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("fast", [True, False])
def test_in_training_dropout_strikes_the_number_of_each_unit_on_its_own(fast: bool) -> None:
    config = replace(SMALL, hidden=200, blocks=1, low_level=None, dropout=0.25)
    network = _trunk(config).train()
    network.fast = fast
    torch.manual_seed(3)
    hidden = torch.zeros(50, 1, 200)
    added = network.mixed(hidden).flatten()
    outside = network.mixer_blocks2[0][1][3]  # type: ignore[index]
    dropped = torch.isclose(added, outside.bias, atol=1e-5)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.02)
    network.eval()
    kept = outside.bias + (network.mixed(hidden[:1])[0, 0, 0] - outside.bias) / 0.75
    torch.testing.assert_close(added[~dropped], kept.expand(int((~dropped).sum())), rtol=1e-4, atol=1e-4)


def test_only_the_first_mixer_gets_no_gradient_from_the_fast_trunk() -> None:
    torch.manual_seed(4)
    network = Trunk(SMALL)
    output = network(torch.randn(4, 1, 6), maps=True)
    assert output.latents is not None
    assert output.maps is not None
    sum(
        (part.square().sum() for part in (output.retrieval, output.latents, output.maps)), torch.tensor(0.0)
    ).backward()
    without = {name for name, value in network.named_parameters() if value.grad is None}
    assert without == {name for name, _ in network.named_parameters() if name.startswith("mixer_blocks1.")}


def test_tokens_of_the_map_are_made_on_demand_and_latents_where_there_is_a_branch() -> None:
    hidden = torch.randn(2, 1, 6)
    assert _trunk(SMALL)(hidden).maps is None
    assert _trunk(replace(SMALL, low_level=None))(hidden).latents is None


def test_every_subject_has_a_layer_of_its_own() -> None:
    torch.manual_seed(5)
    ridge, voxels = Ridge([3, 4], 6), torch.randn(2, 4)
    expected = voxels @ ridge.linears[1].weight.T + ridge.linears[1].bias  # type: ignore[operator]
    torch.testing.assert_close(ridge(voxels, 1), expected[:, None])
    assert ridge(torch.randn(2, 3)).shape == (2, 1, 6)


def test_the_published_trunk_has_1_903_020_028_parameters() -> None:
    network = on_meta(lambda: Trunk(MINDEYE2.trunk))
    count = {
        name: sum(value.numel() for value in part.parameters()) for name, part in network.named_children()
    }
    assert count["mixer_blocks1"] == 134_283_264
    assert count["mixer_blocks2"] == 24
    assert sum(count.values()) == 1_903_020_028
    assert MINDEYE2.trunk.low_level == PUBLISHED_MINDEYE2


@pytest.mark.parametrize(
    ("hidden", "low_level", "count"),
    [(4096, PUBLISHED_MINDEYE2, 2_227_294_844), (1024, None, 729_327_896)],
)
def test_published_models_of_subject_1_have_the_printed_number_of_parameters(
    hidden: int, low_level: LowLevelConfig | None, count: int
) -> None:
    trunk = replace(MINDEYE2.trunk, hidden=hidden, low_level=low_level)
    network = on_meta(lambda: MindEye2([VOXELS[0]], replace(MINDEYE2, trunk=trunk)))
    assert sum(value.numel() for value in network.parameters()) == count


@pytest.mark.parametrize("subject", [1, 2, 5, 7])
def test_published_states_of_one_subject_fit_and_tell_their_form(shared: Path, subject: int) -> None:
    state = _listing(shared, f"final_subj{subject:02d}_pretrained_40sess_24bs")
    assert len(state) == 249
    voxels, config = mindeye2_form(state, "listing")
    assert (voxels, config) == ((VOXELS[subject - 1],), MINDEYE2)
    on_meta(lambda: MindEye2(voxels, config)).load_state_dict(state, assign=True)


@pytest.mark.parametrize("subject", [1, 2, 5, 7])
def test_published_states_of_seven_subjects_fit_and_tell_their_form(shared: Path, subject: int) -> None:
    state = _listing(shared, f"final_multisubject_subj{subject:02d}")
    assert len(state) == 261
    voxels, config = mindeye2_form(state, "listing")
    assert voxels == VOXELS[: subject - 1] + VOXELS[subject:]
    assert config == MINDEYE2
    on_meta(lambda: MindEye2(voxels, config)).load_state_dict(state, assign=True)


@pytest.mark.parametrize(
    ("name", "subjects"),
    [
        ("multisubject_subj01_1024hid_nolow_300ep", VOXELS[1:]),
        ("singlesubject_subj01_1024hid_nolow", VOXELS[:1]),
    ],
)
def test_states_of_width_1024_without_low_level_branch_fit_and_tell_their_form(
    shared: Path, name: str, subjects: tuple[int, ...]
) -> None:
    state = _listing(shared, name)
    voxels, config = mindeye2_form(state, name)
    assert voxels == subjects
    assert config.trunk == replace(MINDEYE2.trunk, hidden=1024, low_level=None)
    on_meta(lambda: MindEye2(voxels, config)).load_state_dict(state, assign=True)
