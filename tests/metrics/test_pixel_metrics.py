"""Pixel metrics against scikit-image, closed forms and a column-by-column implementation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from nsdbench.metrics.pixel import luma, psnr, rmse, ssim, ssim_moments
from nsdbench.metrics.profiles import PROFILES, Profile

TWO_D = PROFILES["nsdbench-v1"]
ONE_D = PROFILES["brain-diffuser"]


def score(truth: NDArray[np.float32], recon: NDArray[np.float32], profile: Profile = TWO_D) -> float:
    return ssim(ssim_moments([truth], profile), ssim_moments([recon], profile))


def pair(rng: np.random.Generator, side: int = 60) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    truth = rng.random((3, side, side)).astype(np.float32)
    return truth, (0.6 * truth + 0.4 * rng.random(truth.shape)).astype(np.float32)


def column_ssim(truth: NDArray[np.float64], recon: NDArray[np.float64]) -> float:
    """Score every column as a signal of its own; plain sums over the eleven taps, no border."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    taps /= taps.sum()
    scores = []
    for x, y in zip(truth.T, recon.T, strict=True):
        for centre in range(5, len(x) - 5):
            a, b = x[centre - 5 : centre + 6], y[centre - 5 : centre + 6]
            ux, uy = taps @ a, taps @ b
            vx, vy, vxy = taps @ a**2 - ux**2, taps @ b**2 - uy**2, taps @ (a * b) - ux * uy
            scores.append(
                (2 * ux * uy + 1e-4) * (2 * vxy + 9e-4) / ((ux**2 + uy**2 + 1e-4) * (vx + vy + 9e-4))
            )
    return float(np.mean(scores))


def test_ssim_equals_scikit_image(rng: np.random.Generator) -> None:
    truth, recon = pair(rng)
    grey = [rgb2gray(image.transpose(1, 2, 0).astype(np.float64)) for image in (truth, recon)]
    expected = structural_similarity(
        *grey, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert score(truth, recon) == pytest.approx(expected, abs=1e-12)


def test_one_dimensional_ssim_equals_a_column_by_column_computation(rng: np.random.Generator) -> None:
    truth, recon = pair(rng, 24)
    assert score(truth, recon, ONE_D) == pytest.approx(column_ssim(luma(truth), luma(recon)), abs=1e-12)


def test_one_dimensional_ssim_differs_from_two_dimensional(rng: np.random.Generator) -> None:
    truth, recon = pair(rng)
    assert abs(score(truth, recon, ONE_D) - score(truth, recon, replace(ONE_D, ssim="2d"))) > 0.01


@pytest.mark.parametrize("profile", [TWO_D, ONE_D])
def test_ssim_of_two_constant_images_has_its_closed_form(profile: Profile) -> None:
    flat = [np.full((3, 40, 40), value, np.float32) for value in (0.2, 0.6)]
    assert score(flat[0], flat[1], profile) == pytest.approx((0.24 + 1e-4) / (0.40 + 1e-4), abs=1e-6)
    assert score(flat[0], flat[1], profile) == pytest.approx(0.600100, abs=5e-7)


def test_ssim_of_identical_images_is_one(rng: np.random.Generator) -> None:
    truth, _ = pair(rng)
    assert score(truth, truth) == pytest.approx(1.0, abs=1e-12)


def test_ssim_is_symmetric(rng: np.random.Generator) -> None:
    truth, recon = pair(rng)
    assert score(truth, recon) == score(recon, truth)


def test_rmse_and_psnr_of_a_constant_difference_have_closed_forms() -> None:
    black, grey = np.zeros(300), np.full(300, 0.1)
    assert rmse(black, grey) == pytest.approx(0.1)
    assert psnr(black, grey) == pytest.approx(20.0)


def test_psnr_of_identical_images_is_capped_at_100() -> None:
    assert psnr(np.ones(9), np.ones(9)) == 100.0
