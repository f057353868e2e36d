"""iCNN's miniature networks: how they start, what each learns from, and what they have learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nsdbench.adapters.icnn_networks import mini_networks
from nsdbench.adapters.nets.generator import SLOPE, mini_generator
from nsdbench.adapters.nets.vgg import code, mini_vgg
from nsdbench.pretraining.corpus import LABELS, Corpus, native
from nsdbench.pretraining.inversion import Description, Inversion, initialize


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Forty noise images, and an untrained VGG in the folder of weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    network = mini_vgg()
    initialize(network)
    save_file(network.state_dict(), folder / "mini_vgg-v1.safetensors")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    labels = {name: rng.integers(0, len(of), 40) for name, of in LABELS.items()}
    return Corpus(images, labels, np.full((40, 5), "a ball"), folder)


@pytest.mark.parametrize("slope", [0.0, SLOPE])
def test_weights_keep_the_power_of_activations_through_layers_and_relus(slope: float) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(256, 512), nn.LeakyReLU(slope), nn.Unflatten(1, (32, 4, 4)),
        nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.LeakyReLU(slope), nn.Conv2d(32, 64, 3, padding=1),
    )  # fmt: skip
    initialize(layers, slope)
    with torch.no_grad():
        found = layers(torch.randn(200, 256))
    power = float(found[:, :, 2:-2, 2:-2].square().mean())  # the border sees fewer pixels
    assert power == pytest.approx(2 / (1 + slope**2), rel=0.25)


def test_describing_a_scene_moves_the_vgg_and_its_readers(scenes: Corpus) -> None:
    task = Description(scenes, mini_vgg())
    loss = task.loss(np.arange(8), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_inverting_moves_the_generator_and_leaves_the_vgg_alone(scenes: Corpus) -> None:
    task = Inversion(scenes, mini_generator())
    loss = task.loss(np.arange(8), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.trunk.parameters())
    assert all(p.grad is None for p in task.vgg.parameters())


def test_the_bounds_are_three_deviations_above_the_mean_code(scenes: Corpus) -> None:
    task = Inversion(scenes, mini_generator())
    task.finish()
    with torch.no_grad():
        codes = code(task.vgg(task.vgg.prepare(scenes.images))).numpy()
    assert np.allclose(task.trunk.upper, codes.mean(0) + 3 * codes.std(0, ddof=1), atol=1e-4)


def test_the_shipped_networks_know_scenes_they_never_saw() -> None:
    drawn = [native("held_out", i, 0) for i in range(12)]
    networks = mini_networks()
    x = networks.vgg.prepare(np.stack([image for _, image in drawn]))
    with torch.no_grad():
        found = networks.vgg(x)
        again = networks.generator.image(code(found))
    named = [LABELS["category"][i] for i in found["fc8"].argmax(1).tolist()]
    assert np.mean([name == scene.main.category for name, (scene, _) in zip(named, drawn, strict=True)]) > 0.8
    pairs = zip(x.flatten(1).numpy(), again.flatten(1).numpy(), strict=True)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.8
    assert bool(torch.isfinite(networks.generator.upper).all())
