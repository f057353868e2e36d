"""Statistics of training betas, taken from blocks of voxels."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nsdbench.adapters.scaling import COLUMNS, Scaling


@pytest.mark.parametrize("ddof", [0, 1])
def test_blocks_of_voxels_give_the_statistics_of_each(rng: np.random.Generator, ddof: int) -> None:
    betas = rng.normal(40, 3, (50, COLUMNS + 7)).astype(np.float32)
    betas[:, [3, -1]] = 5
    found, wide = Scaling.of(betas, ddof=ddof), betas.astype(np.float64)
    assert np.array_equal(found.mean, wide.mean(0).astype(np.float32))
    moving = np.ones(betas.shape[1], bool)
    moving[[3, -1]] = False
    assert np.array_equal(found.sd[moving], wide.std(0, ddof=ddof).astype(np.float32)[moving])
    assert found.sd[~moving].tolist() == [1, 1]
    assert not found(betas)[:, ~moving].any()


def test_the_betas_are_not_copied_as_a_whole() -> None:
    betas = np.ones((300, 10 * COLUMNS), np.float32)
    tracemalloc.start()
    Scaling.of(betas, ddof=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < betas.nbytes / 2
