"""Regression targets read in column blocks, so that a feature store never has to fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from nsdbench.errors import DataError

Float = NDArray[np.floating]


class Matrix(Protocol):
    """Anything two-dimensional that slices like an array: ndarray, memmap, an HDF5 or Zarr data set."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Targets:
    """Targets of a regression, one row per stimulus (or per training row), streamed by columns.

    Attributes
    ----------
    values : matrix of shape (n_rows, n_targets), or a sequence of such matrices
        Real numbers of any width. A sequence counts as one matrix, its members side by side: the layers of a network or
        the tokens of an embedding, each in a file of its own. Nothing is read until a block is asked for.
    rows : int array of shape (n_samples,), optional
        Row of ``values`` that belongs to each training row. Default: row i to row i. With it, trials share the features
        of their image and these are stored once.
    width : int
        Largest number of columns in memory at once, default 1024. It bounds memory and changes no result.

    Raises
    ------
    DataError
        If the matrices differ in length, are not two-dimensional and real, or ``rows`` points outside them.
    """

    values: Matrix | Sequence[Matrix]
    rows: NDArray[np.integer] | None = None
    width: int = 1024

    def __post_init__(self) -> None:
        if not (hasattr(self.values, "shape") or isinstance(self.values, Sequence)) or not len(self.matrices):
            raise DataError(
                f"targets are {type(self.values).__name__}, neither an array nor a sequence of arrays",
                remedy="Blocks are read more than once: pass a list or an object with shape and slicing.",
            )
        for i, matrix in enumerate(self.matrices):
            if len(matrix.shape) != 2 or np.dtype(matrix.dtype).kind not in "fiu":
                raise DataError(
                    f"target matrix {i} must be real (n_rows, n_targets), got {matrix.dtype} {matrix.shape}"
                )
            if matrix.shape[0] != self.n_rows:
                raise DataError(f"target matrix {i} has {matrix.shape[0]} rows, the first has {self.n_rows}")
        if self.width < 1:
            raise DataError(f"the width of target blocks must be positive, got {self.width}")
        self._check_rows()

    def _check_rows(self) -> None:
        if self.rows is None:
            return
        if self.rows.ndim != 1 or self.rows.dtype.kind not in "iu":
            raise DataError(
                f"rows must be integers of shape (n_samples,), got {self.rows.dtype} {self.rows.shape}"
            )
        if len(self.rows) and (self.rows.min() < 0 or self.rows.max() >= self.n_rows):
            raise DataError(
                f"rows must lie in 0..{self.n_rows - 1}, got {self.rows.min()}..{self.rows.max()}"
            )

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices side by side."""
        return (self.values,) if hasattr(self.values, "shape") else tuple(self.values)  # type: ignore[return-value]

    @property
    def n_rows(self) -> int:
        """Rows of ``values``."""
        return int(self.matrices[0].shape[0])

    @property
    def n_targets(self) -> int:
        """Columns of all matrices together."""
        return sum(int(matrix.shape[1]) for matrix in self.matrices)

    @property
    def n_samples(self) -> int:
        """Training rows that these targets serve."""
        return self.n_rows if self.rows is None else len(self.rows)

    def blocks(self) -> Iterator[Float]:
        """Yield all columns in order as arrays of shape (n_rows, at most ``width``), in their stored dtype.

        Raises
        ------
        DataError
            If a block holds NaN or infinity.
        """
        start = 0
        for matrix in self.matrices:
            for first in range(0, matrix.shape[1], self.width):
                block = np.asarray(matrix[:, first : first + self.width])
                if not np.isfinite(block).all():
                    row, column = np.argwhere(~np.isfinite(block))[0]
                    raise DataError(
                        f"target {start + column} is {block[row, column]} in row {row}",
                        remedy="Recompute these features; a fit cannot use rows with missing values.",
                    )
                yield block
                start += block.shape[1]

    def of_samples(self, block: Float) -> NDArray[np.float64]:
        """Return ``block`` (n_rows, w) with one row per training row, float64 of shape (n_samples, w)."""
        return np.asarray(block if self.rows is None else block[self.rows], np.float64)

    def pool(self, matrix: Float) -> NDArray[np.float64]:
        """Sum the rows of ``matrix`` (n_samples, k) that share a row of ``values``: float64 of shape (n_rows, k).

        With the assignment matrix T (n_samples, n_rows) this is ``T' matrix``; so ``S (T values) = (T' S')' values``.
        """
        if self.rows is None:
            return np.asarray(matrix, np.float64)
        ones, columns = np.ones(len(self.rows)), np.arange(len(self.rows))
        transposed = csr_array((ones, (self.rows, columns)), shape=(self.n_rows, len(self.rows)))
        return np.asarray(transposed @ matrix)


def as_targets(y: Targets | Matrix) -> Targets:
    """Return ``y``, wrapped if it is a plain matrix."""
    return y if isinstance(y, Targets) else Targets(y)
