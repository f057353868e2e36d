"""The two networks of iCNN: names and shapes as published, features before the ReLU, images cut out of a canvas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nsdbench.adapters.nets import generator, vgg
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.adapters.nets.generator import Generator, GeneratorConfig
from nsdbench.adapters.nets.vgg import Vgg, VggConfig

TINY_VGG = VggConfig(((3, 6), (8,)), hidden=20, classes=10, size=24)
TINY_GENERATOR = GeneratorConfig(
    (16, 16, 12, 256), (4, 8), (("deconv1", 5, True), ("conv1_1", 4, False), ("deconv0", 3, True)), 24
)


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def test_the_published_vgg_has_the_listed_names_and_shapes(shared: Path) -> None:
    listed = json.loads((shared / "data/state_dicts/bdpy_vgg19.json").read_text())
    assert shapes(on_meta(lambda: Vgg(vgg.PUBLISHED))) == listed


def test_the_published_vgg_is_torchvisions() -> None:
    from torchvision.models import vgg19

    assert shapes(on_meta(lambda: Vgg(vgg.PUBLISHED))) == shapes(on_meta(vgg19))


def test_nineteen_layers_have_fourteen_million_units() -> None:
    found = vgg.PUBLISHED.shapes
    assert len(found) == 19
    assert sum(int(np.prod(shape)) for shape in found.values()) == 14_861_288
    assert found["conv1_2"] == (64, 224, 224)
    assert found["conv5_4"] == (512, 14, 14)


@pytest.mark.parametrize("config", [TINY_VGG, vgg.MINI])
def test_features_have_the_shapes_that_the_form_says(config: VggConfig) -> None:
    found = on_meta(lambda: Vgg(config))(torch.empty(2, 3, config.size, config.size, device="meta"))
    assert {name: tuple(values.shape[1:]) for name, values in found.items()} == config.shapes


def test_features_are_those_before_the_relu() -> None:
    torch.manual_seed(0)
    network = Vgg(TINY_VGG).eval()
    x = torch.randn(2, 3, 24, 24)
    found = network(x)
    conv = [m for m in network.features if isinstance(m, nn.Conv2d)]
    dense = [m for m in network.classifier if isinstance(m, nn.Linear)]
    first = functional.conv2d(x, conv[0].weight, conv[0].bias, padding=1)
    second = functional.conv2d(first.relu(), conv[1].weight, conv[1].bias, padding=1)
    pooled = functional.max_pool2d(second.relu(), 2)
    third = functional.conv2d(pooled, conv[2].weight, conv[2].bias, padding=1)
    fc6 = dense[0](functional.max_pool2d(third.relu(), 2).flatten(1))
    fc7 = dense[1](fc6.relu())
    expected = {
        "conv1_1": first, "conv1_2": second, "conv2_1": third, "fc6": fc6, "fc7": fc7, "fc8": dense[2](fc7.relu()),
    }  # fmt: skip
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert torch.allclose(found[name], values, atol=1e-6), name
        assert values.min() < 0, name
    assert torch.equal(vgg.code(found), found["fc7"].relu())


def test_nothing_is_computed_after_the_last_wanted_layer() -> None:
    network = Vgg(TINY_VGG).eval()
    network.classifier[0].register_forward_hook(lambda *_: pytest.fail("fc6 was computed"))
    found = network(torch.zeros(1, 3, 24, 24), ["conv2_1", "conv1_1"])
    assert list(found) == ["conv1_1", "conv2_1"]


def test_input_is_bgr_minus_the_mean_of_the_caffe_model() -> None:
    image = np.zeros((1, 24, 24, 3), np.uint8)
    image[..., :] = (10, 20, 30)
    network = Vgg(TINY_VGG)
    x = network.prepare(image)
    assert x[0, :, 5, 7].tolist() == [30 - 104, 20 - 117, 10 - 123]
    assert torch.equal(network.grey_levels(x)[0, :, 5, 7], torch.tensor([10.0, 20.0, 30.0]))


def test_input_of_the_miniature_is_scaled_and_comes_back() -> None:
    network = Vgg(vgg.MINI)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    x = network.prepare(images)
    assert float(x.abs().max()) < 256 / vgg.MINI.scale
    assert np.allclose(network.grey_levels(x).permute(0, 2, 3, 1).numpy(), images, atol=1e-3)


def test_images_of_another_size_are_reduced_with_the_bicubic_filter() -> None:
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (1, 60, 60, 3), dtype=np.uint8)
    small = np.asarray(Image.fromarray(image[0]).resize((24, 24), Image.Resampling.BICUBIC))
    network = Vgg(TINY_VGG)
    assert torch.equal(network.prepare(image), network.prepare(small[None]))


def test_the_published_generator_has_the_listed_names_and_shapes(shared: Path) -> None:
    listed = json.loads((shared / "data/state_dicts/bdpy_relu7_generator.json").read_text())
    unique = generator.without_copies(
        {name: torch.empty(shape, device="meta") for name, shape in listed.items()}
    )
    assert (len(listed), len(unique)) == (48, 24)
    network = on_meta(lambda: Generator(generator.PUBLISHED))
    network.load_state_dict(unique | {"upper": network.upper}, assign=True)


def test_the_published_generator_has_56_million_parameters_and_a_canvas_of_256() -> None:
    network = on_meta(lambda: Generator(generator.PUBLISHED))
    assert sum(p.numel() for p in network.parameters()) == 56_097_891
    code = torch.empty(2, 4096, device="meta")
    assert network(code).shape == (2, 3, 256, 256)
    assert network.image(code).shape == (2, 3, 224, 224)


def test_only_second_copies_of_layers_are_dropped() -> None:
    state = {
        name: torch.zeros(())
        for name in ("defc7.bias", "defc.0.bias", "deconv0.bias", "deconv.16.bias", "other")
    }
    assert list(generator.without_copies(state)) == ["defc7.bias", "deconv0.bias", "other"]


def test_a_generator_is_dense_layers_and_transposed_convolutions_with_leaky_relus() -> None:
    torch.manual_seed(0)
    network = Generator(TINY_GENERATOR).eval()
    code = torch.randn(2, 16)
    leak = nn.LeakyReLU(0.3)
    x = leak(network.defc5(leak(network.defc6(leak(network.defc7(code)))))).reshape(2, 4, 8, 8)
    x = leak(functional.conv_transpose2d(x, network.deconv1.weight, network.deconv1.bias, 2, 1))
    x = leak(functional.conv_transpose2d(x, network.conv1_1.weight, network.conv1_1.bias, 1, 1))
    x = functional.conv_transpose2d(x, network.deconv0.weight, network.deconv0.bias, 2, 1)
    assert x.shape == (2, 3, 32, 32)
    assert torch.allclose(network(code), x, atol=1e-6)
    assert torch.equal(network.image(code), network(code)[:, :, 4:28, 4:28])


def test_the_miniature_generator_takes_the_code_of_the_miniature_vgg() -> None:
    assert generator.MINI.dense[0] == vgg.MINI.hidden
    assert generator.MINI.crop == vgg.MINI.size
    assert generator.MINI.canvas > generator.MINI.crop
    code = torch.empty(2, vgg.MINI.hidden, device="meta")
    assert on_meta(generator.mini_generator).image(code).shape == (2, 3, 64, 64)
