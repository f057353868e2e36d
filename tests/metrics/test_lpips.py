"""LPIPS from shared AlexNet activations equals the lpips package on the same trunk."""

from __future__ import annotations

import lpips as package
import numpy as np
import pytest
import torch
from torchvision.models import alexnet

from nsdbench.metrics.lpips import NODES, channel_weights, lpips, normalize
from nsdbench.metrics.profiles import PROFILES

PROFILE = PROFILES["nsdbench-v1"]


@pytest.fixture(scope="module")
def trunk() -> torch.nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        features: torch.nn.Sequential = alexnet(weights=None).features.eval()
    return features


def taps(trunk: torch.nn.Sequential, image: torch.Tensor) -> list[np.ndarray]:
    """Return the activations of the five nodes for an image in [0, 1], normalized as for ImageNet."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    found = []
    with torch.inference_mode():
        for i, layer in enumerate(trunk[:12]):
            x = layer(x.clone())
            if f"features.{i}" in NODES:
                found.append(x[0].clone().numpy())
    return found


def test_distance_equals_the_package(trunk: torch.nn.Sequential, rng: np.random.Generator) -> None:
    reference = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = {f"{name}": value for name, value in trunk.state_dict().items()}
    for name, parameter in reference.net.named_parameters():
        parameter.data.copy_(state[name.partition(".")[2]])
    images = [torch.from_numpy(rng.random((1, 3, 96, 96)).astype(np.float32)) for _ in range(2)]
    with torch.inference_mode():
        expected = reference(*images, normalize=True).item()
    ours = lpips(*(normalize(taps(trunk, image), PROFILE) for image in images))
    assert expected > 0
    assert ours == pytest.approx(expected, rel=1e-5)


def test_identical_images_have_distance_zero(trunk: torch.nn.Sequential, rng: np.random.Generator) -> None:
    image = normalize(taps(trunk, torch.from_numpy(rng.random((1, 3, 96, 96)).astype(np.float32))), PROFILE)
    assert lpips(image, image) == 0.0


def test_there_is_one_weight_per_channel_of_every_node() -> None:
    assert [len(w) for w in channel_weights()] == [64, 192, 384, 256, 256]
