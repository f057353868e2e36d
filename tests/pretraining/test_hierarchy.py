"""How the hierarchical autoencoder of the miniature decoders is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nsdbench.adapters.nets.vdvae import MINI, VDVAE
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.hierarchy import SHARE, BatchNoise, Hierarchy, reduced
from nsdbench.pretraining.recipes import DECODERS
from nsdbench.pretraining.training import Recipe, build, train
from nsdbench.types import Silent

SMALL = replace(
    MINI, image=8, width=16, zdim=2, encoder="8x1,8d2,4d4,1x1", decoder="1x1,4m1,8m4", regressed=2
)


@pytest.fixture(scope="module")
def scenes() -> Corpus:
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 256, (40, 1, 1, 3), np.uint8)
    images = np.broadcast_to(flat, (40, 64, 64, 3)).copy()
    images[:, 32:] //= 2
    labels = {name: np.zeros(40, np.int64) for name in LABELS}
    return Corpus(images, labels, np.full((40, 5), "a scene"), Path())


def recipe(steps: int) -> Recipe:
    return Recipe("small", "small-v1", lambda: VDVAE(SMALL), Hierarchy, steps, 16, 5e-3, half=False)


def test_scenes_are_made_smaller_as_pillow_does_it() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = [
        np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)) for image in images
    ]
    found = reduced(images, 32, chunk=2).permute(0, 2, 3, 1).numpy()
    assert np.abs(found.astype(int) - np.stack(expected)).max() <= 1


def test_latents_of_regressed_blocks_cost_less(scenes: Corpus) -> None:
    task = build(recipe(1), replace(scenes, images=np.full_like(scenes.images, 90)), 0)
    assert isinstance(task, Hierarchy)
    rows = np.arange(5)
    loss = task.loss(rows, torch.Generator().manual_seed(3))
    after_flips = torch.Generator().manual_seed(3)
    torch.rand(5, generator=after_flips)
    pixels, latents = task.trunk.negative_elbo(task.images(rows), BatchNoise(5, after_flips))
    weighted = pixels + SHARE * latents[:, :2].sum(1) + latents[:, 2]
    torch.testing.assert_close(loss, weighted.mean() / (3 * 8 * 8))


def test_training_lowers_the_loss(scenes: Corpus, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = np.arange(40)
    start = build(recipe(30), scenes, 0)
    end = train(recipe(30), scenes, 0, tmp_path_factory.mktemp("training") / "small.pt", Silent())
    assert end is not None
    with torch.no_grad():
        first, last = (float(task.loss(rows, torch.Generator().manual_seed(0))) for task in (start, end))
    assert last < first - 0.3


def test_the_recipe_makes_the_weights_of_the_miniature_network() -> None:
    made = DECODERS["hierarchy"]
    assert made.weights_id == MINI.weights_id
    module = made.build()
    assert isinstance(module, VDVAE)
    assert module.config == MINI
