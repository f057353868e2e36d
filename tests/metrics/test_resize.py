"""Resizing equals the written formulas, computed here in float64 without torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nsdbench.metrics.profiles import PROFILES
from nsdbench.metrics.resize import Views, resize_bilinear

# torch computes positions in float32: near 256 one rounding along each axis moves white noise by up to 1.5e-5
TOLERANCE = 4e-5
SIZES = [(150, 256), (425, 256), (512, 256), (256, 425), (256, 342), (256, 255), (714, 256), (64, 64)]


def weights_without_antialias(n: int, m: int) -> NDArray[np.float64]:
    matrix = np.zeros((m, n))
    for i in range(m):
        x = max(0.0, (i + 0.5) * n / m - 0.5)
        low = math.floor(x)
        matrix[i, low] += 1 - (x - low)
        matrix[i, min(low + 1, n - 1)] += x - low
    return matrix


def weights_with_antialias(n: int, m: int) -> NDArray[np.float64]:
    scale = n / m
    support = max(scale, 1.0)
    matrix = np.zeros((m, n))
    for i in range(m):
        centre = (i + 0.5) * scale
        for j in range(
            max(0, math.floor(centre - support + 0.5)), min(n, math.floor(centre + support + 0.5))
        ):
            matrix[i, j] = max(0.0, 1 - abs(j - centre + 0.5) / support)
        matrix[i] /= matrix[i].sum()
    return matrix


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("antialias", [False, True])
def test_bilinear_resizing_equals_the_formula(
    n: int, m: int, antialias: bool, rng: np.random.Generator
) -> None:
    image = rng.random((3, n, n)).astype(np.float32)
    matrix = weights_with_antialias(n, m) if antialias else weights_without_antialias(n, m)
    truth = matrix @ image.astype(np.float64) @ matrix.T
    result = resize_bilinear(torch.from_numpy(image[None]), m, antialias=antialias)[0].numpy()
    assert np.abs(result - truth).max() < TOLERANCE


def test_both_filters_agree_when_an_image_is_enlarged() -> None:
    assert np.allclose(weights_with_antialias(256, 425), weights_without_antialias(256, 425))


def test_canonical_views_pass_through_the_256_pixel_bottleneck(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (300, 300, 3), np.uint8)
    down, up = weights_with_antialias(300, 256), weights_with_antialias(256, 425)
    channels = image.transpose(2, 0, 1) / 255
    truth = up @ (down @ channels @ down.T) @ up.T
    result = Views([image], PROFILES["nsdbench-v1"], truth=True).pixels()[0].numpy()
    assert np.abs(result - truth).max() < TOLERANCE


def test_imagery_profiles_resize_only_reconstructions_in_stage_one(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (425, 425, 3), np.uint8)
    profile = PROFILES["imagery-fixed"]
    direct, stage1, stage2 = (
        weights_without_antialias(n, m) for n, m in [(425, 256), (425, 512), (512, 256)]
    )
    channels = image.transpose(2, 0, 1) / 255
    truth = Views([image], profile, truth=True).at(256)[0].numpy()
    recon = Views([image], profile, truth=False).at(256)[0].numpy()
    assert np.abs(truth - direct @ channels @ direct.T).max() < TOLERANCE
    assert np.abs(recon - stage2 @ (stage1 @ channels @ stage1.T) @ stage2.T).max() < TOLERANCE


def test_brain_diffuser_views_are_pillow_images(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (512, 512, 3), np.uint8)
    views = Views([image], PROFILES["brain-diffuser"], truth=False)
    pillow = Image.fromarray(image)
    for result, size, method in [
        (views.pixels(), 425, Image.Resampling.BICUBIC),
        (views.at(224), 224, Image.Resampling.BILINEAR),
    ]:
        expected = np.asarray(pillow.resize((size, size), method)).transpose(2, 0, 1)
        assert np.array_equal((result[0].numpy() * 255).round(), expected)


def test_images_of_different_sizes_share_a_batch(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (40, 300, 425)]
    views = Views(images, PROFILES["nsdbench-v1"], truth=True)
    alone = [Views([image], PROFILES["nsdbench-v1"], truth=True).at(224) for image in images]
    assert torch.equal(views.at(224), torch.cat(alone))
