"""Published MindEye checkpoints: read from small files of the same kind, changed into starts, prepared for conversion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nsdbench import conversion, weights
from nsdbench.adapters.base import Context
from nsdbench.adapters.mindeye import checkpoints
from nsdbench.adapters.mindeye.checkpoints import (
    for_new_subject,
    load_mindeye1,
    load_mindeye2,
    low_level_of,
    mindeye1_of,
    mindeye2_of,
    prepared,
    published_state,
)
from nsdbench.adapters.mindeye.encoder import HALF_PRECISION_EPS, EncoderConfig, MindEye1, MindEye1Config
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig, VoxelLatents
from nsdbench.adapters.mindeye.trunk import MindEye2, MindEye2Config, Trunk, TrunkConfig
from nsdbench.adapters.nets.prior import PriorConfig
from nsdbench.errors import WeightsError

VOXELS = 7
PRIOR = PriorConfig(
    dim=8,
    tokens=2,
    depth=1,
    heads=2,
    dim_head=4,
    steps=10,
    scale=8**0.5,
    attn_out_norm_eps=HALF_PRECISION_EPS,
)
MINDEYE1 = MindEye1Config(EncoderConfig(hidden=6, blocks=2, tokens=2, dim=8, projector=5), PRIOR)
LOW_LEVEL = LowLevelConfig(map_side=1, map_channels=4, decoder=(32, 32), maps_dim=3)
MINDEYE2 = MindEye2Config(
    TrunkConfig(hidden=6, blocks=2, tokens=2, dim=8, projector=8, low_level=LOW_LEVEL),
    replace(PRIOR, scale=1.0),
)
FORMER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


class Schedule:
    """Stands for the code that a schedule pickles."""


def _mindeye1() -> MindEye1:
    torch.manual_seed(6)
    return MindEye1(VOXELS, MINDEYE1).eval().requires_grad_(False)


def _low_level() -> VoxelLatents:
    torch.manual_seed(7)
    return VoxelLatents(VOXELS, 6, 2, LOW_LEVEL).eval().requires_grad_(False)


def _mindeye2(*voxels: int) -> MindEye2:
    torch.manual_seed(8)
    return MindEye2(voxels or (VOXELS,), MINDEYE2).eval().requires_grad_(False)


def _former_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for today, before in FORMER.items():
            name = name.replace(f".attentions.0.{today}.", f".attentions.0.{before}.")
        renamed[name] = value
    return renamed


def _publish(folder: Path, id: str, state: Mapping[str, Tensor]) -> Path:
    """Write a training checkpoint under the registered name, with attention names and code of the time."""
    path = folder / weights.entry(id).filename
    content = {
        "epoch": 3,
        "model_state_dict": {f"module.{name}": value for name, value in _former_names(state).items()},
        "lr_scheduler": {"schedule": Schedule(), "call": getattr},
    }
    torch.save(content, path)
    return path


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A weights folder with one small checkpoint of each kind."""
    _publish(tmp_path, "mindeye1-subj01", _mindeye1().state_dict())
    _publish(tmp_path, "mindeye1-lowlevel-subj01", _low_level().state_dict())
    _publish(tmp_path, "mindeye2-subj05-1sess", _mindeye2().state_dict())
    return Context(weights_dir=tmp_path)


def _frozen(network: nn.Module) -> bool:
    return not network.training and not any(value.requires_grad for value in network.parameters())


def test_mindeye1_is_read_as_it_was_saved(context: Context) -> None:
    high, low = load_mindeye1(1, context)
    voxels = torch.randn(3, VOXELS)
    for found, expected in zip(high.voxel2clip(voxels), _mindeye1().voxel2clip(voxels), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(low(voxels), _low_level()(voxels))
    assert high.config == PRIOR
    assert _frozen(high)
    assert _frozen(low)


def test_mindeye2_is_read_as_it_was_saved(context: Context) -> None:
    model, original = load_mindeye2(5, context, "1sess"), _mindeye2()
    voxels = torch.randn(3, VOXELS)
    found, expected = (m.backbone(m.ridge(voxels)) for m in (model, original))
    torch.testing.assert_close(found.retrieval, expected.retrieval)
    torch.testing.assert_close(found.latents, expected.latents)
    assert model.config == MINDEYE2
    assert model.backbone.fast
    assert _frozen(model)


def test_a_converted_checkpoint_is_read_as_the_original(context: Context) -> None:
    assert context.weights_dir is not None
    source = context.weights_dir / "mindeye2-subj05-1sess.pth"
    expected = published_state("mindeye2-subj05-1sess", context)
    conversion.convert(source, prepare=prepared)
    source.unlink()
    found = published_state("mindeye2-subj05-1sess", context)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_trunk_whose_fast_computation_is_wrong_computes_fully(monkeypatch: pytest.MonkeyPatch) -> None:
    state = _mindeye2().state_dict()
    monkeypatch.setattr(Trunk, "fast_error", lambda _: 0.002)
    assert not mindeye2_of(state, "test").backbone.fast


def test_ids_are_those_of_the_registry() -> None:
    ids = {
        *checkpoints.mindeye1_ids(1),
        *(checkpoints.mindeye2_id(s, t) for s in (1, 2, 5, 7) for t in ("40sess", "1sess")),
        *(checkpoints.multisubject_id(s) for s in (1, 2, 5, 7)),
        checkpoints.multisubject_id(1, hidden=1024),
    }
    others = ("mindeye2-caption-converter", "mindeye2-unclip6")
    assert ids == {id for id in weights.REGISTRY if id.startswith("mindeye") and id not in others}


def test_weights_that_nobody_published_are_named_with_those_there_are(context: Context) -> None:
    with pytest.raises(WeightsError, match=r"mindeye1-subj02 are not published.*mindeye1-subj01.*yourself"):
        load_mindeye1(2, context)


def test_a_missing_checkpoint_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nsdbench weights fetch mindeye2-subj01-40sess"):
        load_mindeye2(1, Context(weights_dir=tmp_path))


def test_a_weight_that_the_model_does_not_know_is_named() -> None:
    state = _mindeye2().state_dict() | {"backbone.text_head.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"(?s)fork\.pth.*backbone\.text_head\.weight"):
        mindeye2_of(state, "fork.pth")


@pytest.mark.parametrize(
    "name", ["voxel2clip.mlp.1.0.bias", "net.null_image_embed", "voxel2clip.projector.2.weight"]
)
def test_a_weight_that_is_missing_is_named(name: str) -> None:
    state = _mindeye1().state_dict()
    del state[name]
    with pytest.raises(WeightsError, match=name):
        mindeye1_of(state, "test")


def test_a_weight_of_the_wrong_shape_is_named() -> None:
    state = _low_level().state_dict()
    state["upsampler.mid_block.resnets.0.norm1.weight"] = torch.ones(31)
    with pytest.raises(WeightsError, match=r"upsampler\.mid_block\.resnets\.0\.norm1\.weight"):
        low_level_of(state, "test")


def test_a_new_subject_gets_a_new_layer_and_keeps_everything_else() -> None:
    state = _mindeye2(5, 6, 7).state_dict()
    start = for_new_subject(state, 9, torch.Generator().manual_seed(1))
    assert {name for name in start if name.startswith("ridge.")} == {
        "ridge.linears.0.weight",
        "ridge.linears.0.bias",
    }
    shared = {name for name in state if not name.startswith("ridge.")}
    assert all(start[name] is state[name] for name in shared)
    assert start.keys() - {"ridge.linears.0.weight", "ridge.linears.0.bias"} == shared
    assert mindeye2_of(start, "test").ridge(torch.randn(2, 9)).shape == (2, 1, 6)


def test_the_new_layer_is_drawn_like_a_linear_layer_of_pytorch() -> None:
    state = {"backbone.mixer_blocks1.0.0.weight": torch.ones(300)}
    start = for_new_subject(state, 25, torch.Generator().manual_seed(2))
    for name in ("weight", "bias"):
        values = start[f"ridge.linears.0.{name}"]
        assert values.abs().max() <= 1 / 5
        assert values.std().item() == pytest.approx(1 / 5 / 3**0.5, rel=0.1)  # uniform between -1/5 and 1/5
    again = for_new_subject(state, 25, torch.Generator().manual_seed(2))
    assert torch.equal(again["ridge.linears.0.weight"], start["ridge.linears.0.weight"])


@pytest.mark.parametrize("legacy_bugs", [True, False])
def test_only_the_original_keeps_the_bias_of_a_stranger(legacy_bugs: bool) -> None:
    state = _mindeye2(5, 6).state_dict()
    start = for_new_subject(state, 9, torch.Generator().manual_seed(1), legacy_bugs=legacy_bugs)
    assert torch.equal(start["ridge.linears.0.bias"], state["ridge.linears.0.bias"]) is legacy_bugs


@pytest.mark.parametrize(
    ("model", "voxels"), [("mindeye1", [7]), ("mindeye1-lowlevel", [7]), ("mindeye2", [5, 6])]
)
def test_conversion_notes_model_voxels_and_form_under_todays_names(model: str, voxels: list[int]) -> None:
    networks = {
        "mindeye1": _mindeye1(),
        "mindeye1-lowlevel": _low_level(),
        "mindeye2": _mindeye2(5, 6),
    }
    state = networks[model].state_dict()
    found, facts = prepared(_former_names(state))
    assert found.keys() == state.keys()
    assert (facts["model"], facts["voxels"]) == (model, voxels)
    assert json.loads(json.dumps(facts["form"]))


def test_a_model_with_a_name_too_many_is_not_converted() -> None:
    with pytest.raises(WeightsError, match=r"voxel2clip\.extra"):
        prepared(_mindeye1().state_dict() | {"voxel2clip.extra": torch.ones(1)})


def test_other_weights_are_converted_as_they_are() -> None:
    state = {"linear1.weight": torch.ones(1)}
    assert prepared(state) == (state, {})
