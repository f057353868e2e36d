"""Streamed correlations equal NumPy's, and say where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from nsdbench.metrics import correlation
from nsdbench.metrics.correlation import correlation_matrix, mismatched_mean, own
from nsdbench.metrics.distance import correlation_distance, mismatched_distance


@pytest.mark.parametrize("block", [7, 64, 1 << 19])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_streamed_r_equals_numpy(
    block: int, offset: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "_BLOCK_VALUES", block)
    truth = (rng.normal(size=(5, 3, 40)) + offset).astype(np.float32)
    recon = (rng.normal(size=(7, 3, 40)) + offset).astype(np.float32)
    stacked = np.corrcoef(np.vstack([truth.reshape(5, -1), recon.reshape(7, -1)]).astype(np.float64))
    assert np.abs(correlation_matrix(truth, recon) - stacked[:5, 5:]).max() < 1e-12


def test_identical_features_correlate_at_one_and_have_distance_zero(rng: np.random.Generator) -> None:
    features = rng.normal(size=(4, 50)).astype(np.float32)
    r, target = correlation_matrix(features, features), np.arange(4)
    assert own(r, target) == pytest.approx(1.0, abs=1e-12)
    assert correlation_distance(r, target) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.6, 1000.0])
def test_constant_features_have_no_correlation_and_distance_one(
    value: float, rng: np.random.Generator
) -> None:
    truth = rng.normal(size=(3, 50)).astype(np.float32)
    recon = np.full((1, 50), value, np.float32)
    recon[0, ::2] = np.nextafter(np.float32(value), np.float32(2000)) if value else 0
    r = correlation_matrix(truth, recon)
    assert np.isnan(r).all()
    assert correlation_distance(r, np.array([1])) == 1.0


def test_floors_average_over_every_wrong_ground_truth() -> None:
    r = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, -0.5]])
    target = np.array([0, 1])
    assert mismatched_mean(r, target) == pytest.approx([0.3, -0.2])
    assert mismatched_distance(r, target) == pytest.approx([0.7, 1.2])


def test_a_pool_of_one_has_no_floor() -> None:
    assert np.isnan(mismatched_mean(np.array([[0.5, 0.2]]), np.array([0, 0]))).all()
