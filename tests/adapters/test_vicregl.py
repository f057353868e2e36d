"""The teacher of MindEye's low-level branches against torchvision's ConvNeXt, and its published form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt

from nsdbench import weights
from nsdbench.adapters.nets import vicregl
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.adapters.nets.vicregl import XLARGE, Teacher, TeacherConfig, tokens
from nsdbench.errors import WeightsError

TINY = TeacherConfig(depths=(1, 2, 1, 1), dims=(4, 6, 8, 10), hidden=7, out=5)


def teacher(seed: int = 0) -> Teacher:
    """A network whose norms have random parameters too."""
    torch.manual_seed(seed)
    network = Teacher(TINY)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network.eval()


def torchvision_form(network: Teacher) -> nn.Module:
    """The features of torchvision's implementation with the same weights; its layer scale is 1."""
    dims = (*TINY.dims, None)
    blocks = [CNBlockConfig(a, b, n) for a, b, n in zip(TINY.dims, dims[1:], TINY.depths, strict=True)]
    other = TorchvisionConvNeXt(blocks, stochastic_depth_prob=0, layer_scale=1).features
    state = {}
    for name, value in network.backbone.state_dict().items():
        if name.startswith("norm."):
            continue
        name = re.sub(r"^downsample_layers\.(\d)", lambda m: str(2 * int(m[1])), name)
        name = re.sub(r"^stages\.(\d)", lambda m: str(2 * int(m[1]) + 1), name)
        for ours, theirs in (("dwconv", "0"), ("norm", "2"), ("pwconv1", "3"), ("pwconv2", "5")):
            name = name.replace(f".{ours}.", f".block.{theirs}.")
        state[name] = value
    scales = {name: value for name, value in other.state_dict().items() if name.endswith("layer_scale")}
    other.load_state_dict(state | scales)
    return other.eval()


def published_file(folder: Path, state: dict[str, Tensor]) -> None:
    content = {"epoch": 1, "model": {f"module.{name}": value for name, value in state.items()}}
    torch.save(content, folder / weights.entry(vicregl.WEIGHTS_ID).filename)


def test_tokens_are_those_of_torchvisions_network_with_the_projection_written_out() -> None:
    network, images = teacher(), torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.228, 0.224, 0.225])
    with torch.no_grad():
        maps = torchvision_form(network)(((images.permute(0, 2, 3, 1) - mean) / sd).permute(0, 3, 1, 2))
    rows = maps.flatten(2).transpose(1, 2)
    state = network.state_dict()

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = norm(rows, "backbone.norm", 1e-6)
    for linear, after in ((0, 1), (3, 4)):
        x = x @ state[f"maps_projector.{linear}.weight"].T + state[f"maps_projector.{linear}.bias"]
        x = norm(x, f"maps_projector.{after}", 1e-5).clamp(min=0)
    x = x @ state["maps_projector.6.weight"].T
    torch.testing.assert_close(tokens(network, images), x, rtol=1e-4, atol=1e-4)


def test_the_published_size_is_convnext_xlarge_without_head_and_layer_scale() -> None:
    """350,196,968 in all; the head has 2048 x 1000 + 1000, the scales one number per channel of each block."""
    network = on_meta(lambda: Teacher(XLARGE))
    scales = sum(depth * dim for depth, dim in zip((3, 3, 27, 3), (256, 512, 1024, 2048), strict=True))
    expected = 350_196_968 - (2048 * 1000 + 1000) - scales
    assert sum(p.numel() for p in network.backbone.parameters()) == expected
    assert sum(p.numel() for p in network.maps_projector.parameters()) == 2048 * 512 + 2 * 512 * 512 + 6 * 512


def test_names_are_those_of_the_published_code() -> None:
    names = on_meta(lambda: Teacher(XLARGE)).state_dict()
    assert len(names) == 315
    expected = {
        "backbone.downsample_layers.0.0.weight": (256, 3, 4, 4),
        "backbone.downsample_layers.0.1.bias": (256,),
        "backbone.downsample_layers.3.0.weight": (1024,),
        "backbone.downsample_layers.3.1.weight": (2048, 1024, 2, 2),
        "backbone.stages.2.26.dwconv.weight": (1024, 1, 7, 7),
        "backbone.stages.2.26.norm.weight": (1024,),
        "backbone.stages.2.26.pwconv1.weight": (4096, 1024),
        "backbone.stages.2.26.pwconv2.bias": (1024,),
        "backbone.norm.weight": (2048,),
        "maps_projector.0.weight": (512, 2048),
        "maps_projector.4.bias": (512,),
        "maps_projector.6.weight": (512, 512),
    }
    assert {name: tuple(names[name].shape) for name in expected} == expected
    assert "maps_projector.6.bias" not in names


@pytest.mark.parametrize(("side", "count"), [(512, 256), (224, 49)])
def test_a_token_stands_for_32_by_32_pixels(side: int, count: int) -> None:
    network = on_meta(lambda: Teacher(TINY))
    network.mean, network.sd = network.mean.to("meta"), network.sd.to("meta")
    assert tokens(network, torch.empty(1, 3, side, side, device="meta")).shape == (1, count, 5)


def test_the_checkpoint_loads_without_the_parts_for_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vicregl, "XLARGE", TINY)
    network, extra = teacher(), {"projector.0.weight": torch.ones(2), "classifier.bias": torch.ones(3)}
    published_file(tmp_path, network.state_dict() | extra)
    loaded, images = vicregl.load(tmp_path), torch.rand(1, 3, 64, 64)
    assert torch.equal(tokens(loaded, images), tokens(network, images))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vicregl, "XLARGE", TINY)
    state = teacher().state_dict()
    del state["maps_projector.3.bias"]
    published_file(tmp_path, state)
    with pytest.raises(WeightsError, match=r"maps_projector\.3\.bias"):
        vicregl.load(tmp_path)
