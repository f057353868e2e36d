"""Feature networks with the fixed random weights: nodes, lengths, determinism, precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nsdbench.errors import UsageError
from nsdbench.metrics.nets import NETS, load_net
from nsdbench.metrics.nets.clip import vision_transformer
from nsdbench.metrics.nets.initialisation import random_state, recipe_sha256

LIGHT = ("alexnet", "inception", "effnet", "swav")
PINNED = [11185747, 11469453, 4812969, 10421090, 2202500, 8131668]
SIZES = {"alexnet": 256, "inception": 342, "effnet": 255, "swav": 224, "clip": 224}


def _images(n: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).random((n, 3, size, size), dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "node", "length"),
    [
        ("alexnet", "features.4", 184_512),
        ("alexnet", "features.11", 57_600),
        ("inception", "avgpool", 2048),
        ("effnet", "avgpool", 1280),
        ("swav", "avgpool", 2048),
    ],
)
def test_features_have_the_documented_length(name: str, node: str, length: int) -> None:
    features = load_net(name, weights="random")(_images(1, SIZES[name]))[node]
    assert features.flatten(1).shape == (1, length)
    assert features.dtype == torch.float32


def test_alexnet_features_at_224_pixels_have_the_documented_length() -> None:
    features = load_net("alexnet", weights="random")(_images(1, 224))
    assert features["features.4"].numel() == 139_968
    assert features["features.11"].numel() == 43_264


@pytest.mark.slow
def test_clip_embeds_an_image_into_768_dimensions() -> None:
    embedding = load_net("clip", weights="random")(_images(1, 224))["image_embeds"]
    assert embedding.shape == (1, 768)
    assert torch.isfinite(embedding).all()


def test_the_clip_tower_has_the_size_of_vit_l14() -> None:
    with torch.device("meta"):
        state = vision_transformer().state_dict()
    # 24 blocks of width 1024, 257 positions, 14-pixel patches, projection to 768; 12 entries a block, 8 around
    block = 4 * 1024**2 + 4 * 1024 + 8 * 1024**2 + 5 * 1024 + 4 * 1024
    around = 3 * 14**2 * 1024 + 1024 + 257 * 1024 + 4 * 1024 + 1024 * 768
    assert sum(value.numel() for value in state.values()) == 24 * block + around
    assert len(state) == 24 * 12 + 8


@pytest.mark.parametrize("name", LIGHT)
def test_each_image_is_embedded_alike_alone_and_in_a_batch(name: str) -> None:
    net, images = load_net(name, weights="random"), _images(3, 128)
    together = net(images)
    for i in range(3):
        for node, alone in net(images[i : i + 1]).items():
            scale = together[node].abs().max().item()
            torch.testing.assert_close(together[node][i : i + 1], alone, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", LIGHT)
def test_different_images_give_different_features(name: str) -> None:
    images = torch.stack([torch.zeros(3, 128, 128), torch.ones(3, 128, 128)])
    for features in load_net(name, weights="random")(images).values():
        scale = features.abs().max()
        assert (features[0] - features[1]).abs().max() > 1e-2 * scale


def test_random_weights_are_the_same_on_every_call() -> None:
    images = _images(1, 128)
    first, second = (load_net("alexnet", weights="random") for _ in range(2))
    assert first.weights_sha256 == second.weights_sha256
    assert torch.equal(first(images)["features.11"], second(images)["features.11"])


def test_random_weights_leave_the_global_generators_alone() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load_net("effnet", weights="random")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_random_weights_are_pinned_to_these_values() -> None:
    # first words of PCG64(SeedSequence([0, *sha256("net/conv.weight") as little-endian words])), top 24 bits each
    values = random_state("net", {"conv.weight": torch.Size([2, 3, 1, 1])})["conv.weight"].flatten()
    unit = (values.numpy().astype(np.float64) / np.sqrt(2) + 1) / 2 * 2**24
    assert np.rint(unit).astype(int).tolist() == PINNED


def test_random_weights_follow_the_seed_and_the_name() -> None:
    shapes = {"w.weight": torch.Size([4, 4])}
    reference = random_state("a", shapes)["w.weight"]
    assert not torch.equal(reference, random_state("b", shapes)["w.weight"])
    assert not torch.equal(reference, random_state("a", shapes, seed=1)["w.weight"])
    assert (
        len({recipe_sha256("a", shapes), recipe_sha256("b", shapes), recipe_sha256("a", shapes, seed=1)}) == 3
    )


def test_random_kernels_have_the_variance_of_he_initialisation() -> None:
    values = random_state("net", {"w.weight": torch.Size([400, 500])})["w.weight"]
    assert values.abs().max() <= np.sqrt(6 / 500)
    assert values.var().item() == pytest.approx(2 / 500, rel=0.02)
    assert values.mean().item() == pytest.approx(0, abs=3e-4)


def test_random_weights_are_marked_as_untrained() -> None:
    net = load_net("alexnet", weights="random")
    assert (net.name, net.weights_id, net.untrained) == ("alexnet", "random-alexnet", True)
    assert len(net.weights_sha256) == 64


def test_autocast_of_the_caller_does_not_reach_the_network() -> None:
    net, images = load_net("alexnet", weights="random"), _images(1, 128)
    plain = net(images)["features.11"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = net(images)["features.11"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_precision_settings_of_the_caller_are_restored() -> None:
    net = load_net("alexnet", weights="random")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        net(_images(1, 64))
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_features_carry_no_gradient_and_the_net_is_in_evaluation_mode() -> None:
    net, images = load_net("effnet", weights="random"), _images(1, 64).requires_grad_()
    first, second = net(images)["avgpool"], net(images)["avgpool"]
    assert not first.requires_grad
    assert torch.equal(first, second)  # EfficientNet drops whole branches at random while training


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 64, 64),
        torch.zeros(1, 1, 64, 64),
        torch.zeros(1, 3, 64, 65),
        torch.zeros(1, 3, 64, 64, dtype=torch.float64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ],
    ids=["no batch axis", "grey", "not square", "float64", "uint8"],
)
def test_images_of_the_wrong_kind_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"float32 images \(n, 3, S, S\)"):
        load_net("alexnet", weights="random")(images)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no feature network 'vgg'") as caught:
        load_net("vgg")
    assert all(name in caught.value.remedy for name in NETS)


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no variant 'v3'") as caught:
        load_net("effnet", variant="v3", weights="random")
    assert "v1, v2" in caught.value.remedy or "v2, v1" in caught.value.remedy
