"""Symmetric products and Cholesky factors by blocks: the definitions, in place, within the stated memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest

from nsdbench.adapters import blocked
from nsdbench.adapters.blocked import add_gram, cholesky


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "SIDE", 8)


@pytest.mark.parametrize("d", [1, 7, 8, 9, 16, 37])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_lower_triangle_gains_the_products_of_the_columns(
    rng: np.random.Generator, d: int, order: Literal["C", "F"]
) -> None:
    before, block = np.array(rng.normal(size=(d, d)), order=order), rng.normal(size=(5, d))
    matrix = before.copy(order="K")
    add_gram(matrix, block)
    np.testing.assert_allclose(np.tril(matrix), np.tril(before + block.T @ block), atol=1e-13)


def test_a_transposed_block_counts_the_same(rng: np.random.Generator) -> None:
    block = rng.normal(size=(21, 6))
    matrices = np.zeros((2, 21, 21))
    add_gram(matrices[0], block.T)
    add_gram(matrices[1], np.ascontiguousarray(block.T))
    np.testing.assert_allclose(matrices[0], matrices[1], atol=1e-14)


@pytest.mark.parametrize("d", [1, 7, 8, 9, 16, 37])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_factor_times_its_transpose_is_the_matrix(
    rng: np.random.Generator, d: int, order: Literal["C", "F"]
) -> None:
    root = rng.normal(size=(d + 3, d))
    positive = root.T @ root + np.eye(d)
    matrix = np.array(np.tril(positive), order=order)
    cholesky(matrix)
    factor = np.tril(matrix)
    np.testing.assert_allclose(factor @ factor.T, positive, atol=1e-12 * d)
    assert (factor.diagonal() > 0).all()


@pytest.mark.parametrize("place", [0, 8, 20])
def test_a_matrix_that_is_not_positive_definite_is_refused_wherever_it_fails(place: int) -> None:
    matrix = np.eye(21)
    matrix[place, place] = -1.0
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(matrix)


def test_nan_is_refused() -> None:
    matrix = np.eye(21)
    matrix[15, 3] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(matrix)


LARGE = """
import numpy as np
from nsdbench.adapters.blocked import add_gram, cholesky
d = 15_724
matrix = np.zeros((d, d), order="F")
add_gram(matrix, np.ones((1024, d)))
matrix[np.diag_indices(d)] += d
cholesky(matrix)
print(2 * np.log(matrix.diagonal()).sum())
"""


@pytest.mark.slow
def test_two_threads_survive_the_voxels_of_subject_1() -> None:
    # OpenBLAS does not: the process would end with a segmentation fault
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", LARGE], env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    # det(d I + 1024 11') = d^d (1 + 1024)
    assert float(done.stdout) == pytest.approx(15_724 * math.log(15_724) + math.log(1025))
