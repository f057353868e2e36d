"""Tuned networks compute what the modules of their libraries compute."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from nsdbench.metrics.nets import fused
from nsdbench.metrics.nets.clip import ClassTokenTower, vision_transformer
from nsdbench.metrics.nets.loading import NETS
from nsdbench.metrics.nets.network import TorchFeatureNet
from nsdbench.metrics.nets.tuning import fold_norms

SMALL = {"size": 28, "patch": 14, "width": 16, "layers": 3, "heads": 2, "output": 8}
NORMED = ("inception", "effnet", "swav")


def _lively(module: nn.Module) -> nn.Module:
    """Give statistics and parameters of normalizations, and biases, values of their own."""
    generator = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.8 + 0.4 * noise if name.endswith(("weight", "var")) else 0.2 * noise - 0.1)
    return module.eval().requires_grad_(False)


def _relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("name", NORMED)
def test_folded_normalizations_change_nothing_beyond_rounding(name: str) -> None:
    plain = _lively(NETS[name].build())
    folded = fold_norms(copy.deepcopy(plain))
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(2)) - 0.5
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert _relative(folded(images), plain(images)) < 2e-6


def test_a_convolution_with_a_bias_is_folded_exactly() -> None:
    # y = g (w x + b - m) / s + c with w = 2, b = 1, m = 3, s^2 = 4 (and no epsilon), g = 5, c = 7
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval().requires_grad_(False)
    values = [("0.weight", 2.0), ("0.bias", 1.0), ("1.running_mean", 3.0), ("1.running_var", 4.0)]
    for name, value in (*values, ("1.weight", 5.0), ("1.bias", 7.0)):
        module.state_dict()[name].fill_(value)
    folded = fold_norms(module)
    assert folded[0].weight.item() == 5.0  # type: ignore[index]
    assert folded[0].bias.item() == 2.0  # type: ignore[index]


def test_the_class_token_tower_gives_the_embedding_of_the_whole_tower() -> None:
    plain = _lively(vision_transformer(**SMALL))
    tuned = ClassTokenTower(copy.deepcopy(plain))
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    assert _relative(tuned(images), plain(images)) < 2e-6


def test_miniature_networks_run_as_they_were_trained() -> None:
    assert [name for name, net in NETS.items() if net.tune is None] == [
        n for n in NETS if n.startswith("mini_")
    ]


@pytest.mark.skipif(not fused.available(), reason="this build of PyTorch lacks the fused kernels")
@pytest.mark.parametrize("name", NORMED)
def test_fused_kernels_change_nothing_beyond_rounding(name: str) -> None:
    plain = fold_norms(_lively(NETS[name].build()))
    kernels = fused.fuse_convolutions(copy.deepcopy(plain))
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(2)) - 0.5
    assert any(isinstance(part, fused.FusedConv) for part in kernels.modules())
    assert _relative(kernels(images), plain(images)) < 2e-6


@pytest.mark.skipif(not fused.available(), reason="this build of PyTorch lacks the fused kernels")
def test_fused_linear_layers_in_bfloat16_agree_with_plain_ones() -> None:
    plain = ClassTokenTower(_lively(vision_transformer(**SMALL))).bfloat16()
    kernels = fused.fuse_linear(copy.deepcopy(plain))
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert not any(isinstance(part, nn.Linear) for part in kernels.modules())
    assert _relative(kernels(images), plain(images)) < 0.02


@pytest.mark.skipif(not fused.available(), reason="this build of PyTorch lacks the fused kernels")
def test_fused_linear_layers_change_nothing_beyond_rounding() -> None:
    plain = ClassTokenTower(_lively(vision_transformer(**SMALL)))
    kernels = fused.fuse_linear(copy.deepcopy(plain))
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    assert _relative(kernels(images), plain(images)) < 2e-6


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of PyTorch lacks MKL")
@pytest.mark.parametrize(
    ("capabilities", "gains"),
    [({"cpu_name": "AMD EPYC 9654"}, True), ({"cpu_name": "Intel(R) Xeon(R) Processor"}, False), ({}, False)],
)
def test_products_leave_mkl_where_it_is_slow(
    capabilities: dict[str, str], gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fused.linear_gains(torch.float32) is gains
    assert fused.linear_gains(torch.bfloat16)


@pytest.mark.skipif(not fused.available(), reason="this build of PyTorch lacks the fused kernels")
@pytest.mark.parametrize("name", ["swav", "clip"])
def test_without_fused_kernels_a_network_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = NETS[name]
    if name == "clip":
        net = dataclasses.replace(net, build=lambda: vision_transformer(**SMALL), size=28)
    state = _lively(net.build()).state_dict()
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    found = []
    for there in (True, False):
        monkeypatch.setattr(fused, "available", lambda there=there: there)
        loaded = TorchFeatureNet(net, dict(state), weights_id="x", weights_sha256="0", device="cpu")
        found.append(next(iter(loaded(images).values())))
    assert _relative(found[0], found[1]) < 2e-6
