"""Symmetric products and Cholesky factors of large matrices, block by block and in place.

OpenBLAS, which NumPy and SciPy bring along, shares one symmetric product among threads through buffers of fixed size. A
large product with few threads overruns them, and the process dies: with two threads on a processor with AVX-512 ``dsyrk``
and ``dpotrf`` do from about 15,300 rows on, and subject 1 of NSD has 15,724 voxels. Here neither sees more than ``SIDE``
rows; general products do the rest at the same rate, written where they belong.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

SIDE = 1024
Floats = NDArray[np.float64]


def add_gram(matrix: Floats, block: Floats) -> None:
    """Add ``block' block`` to the lower triangle of ``matrix``.

    Parameters
    ----------
    matrix : float64 array of shape (d, d)
        Changed in place; above the diagonal, anything may be left.
    block : float64 array of shape (k, d)
    """
    total, part = torch.from_numpy(matrix), torch.from_numpy(block)
    for start in range(0, len(matrix), SIDE):
        columns = slice(start, start + SIDE)
        total[start:, columns].addmm_(part[:, start:].T, part[:, columns])


def cholesky(matrix: Floats) -> None:
    """Replace the lower triangle of ``matrix`` (d, d) by its Cholesky factor; above the diagonal, anything may be left.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite.

    Notes
    -----
    Right-looking: factor a diagonal block, solve for the rows below it, subtract their products from the rest. Memory
    beside ``matrix``: ``16 SIDE d`` bytes.
    """
    rest = torch.from_numpy(matrix)
    while len(rest):
        corner, info = torch.linalg.cholesky_ex(rest[:SIDE, :SIDE])
        if info.item():
            raise np.linalg.LinAlgError("the matrix is not positive definite")
        below = torch.linalg.solve_triangular(corner.T, rest[SIDE:, :SIDE], upper=True, left=False)
        rest[:SIDE, :SIDE] = corner
        rest[SIDE:, :SIDE] = below
        rest = rest[SIDE:, SIDE:]
        for start in range(0, len(rest), SIDE):
            columns = slice(start, start + SIDE)
            rest[start:, columns].addmm_(below[start:], below[columns].T, alpha=-1)
