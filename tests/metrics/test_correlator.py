"""Identification needs memory for R and a buffer, whatever the number of reconstructions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from nsdbench import measurement
from nsdbench.measurement import _Correlator

NODE = ("net", "node")
POOL, FEATURES = 100, 2000


def _stream(truth: NDArray[np.float32], made: NDArray[np.float32], batch: int) -> NDArray[np.float64]:
    correlator = _Correlator(NODE, truth, len(made))
    for start in range(0, len(made), batch):
        part = made[start : start + batch]
        correlator.add(range(start, start + len(part)), {NODE: part})
    return correlator.result()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_streamed_correlations_are_a_quarter_of_the_stacked_matrix(
    batch: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "_BUFFER_BYTES", 10 * 50 * 4)
    truth, made = (rng.random((n, 5, 10), np.float32) for n in (9, 23))
    stacked = np.corrcoef(truth.reshape(9, -1), made.reshape(23, -1))
    np.testing.assert_allclose(_stream(truth, made, batch), stacked[:9, 9:], rtol=0, atol=1e-12)


def test_the_peak_of_memory_grows_with_r_and_with_nothing_else(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "_BUFFER_BYTES", 1 << 20)
    truth = rng.random((POOL, FEATURES), np.float32)
    peaks, sizes = [], []
    for columns in (500, 3000):
        made = rng.random((columns, FEATURES), np.float32)
        tracemalloc.start()
        sizes.append(_stream(truth, made, 8).nbytes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1.05 * (sizes[1] - sizes[0]) + (1 << 17)
    assert (
        peaks[1] < sizes[1] + (1 << 20) + 3 * 8 * measurement.correlation_matrix.__globals__["_BLOCK_VALUES"]
    )
