"""Rows of arrays that lie in several files, read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rows:
    """One array of shape (n, ...) whose rows are rows of others, usually mapped from files.

    It slices like an array: rows by number, slice, mask or int array, inner axes by slices and numbers. What is asked for is
    copied; ``numpy.asarray`` copies everything.

    Attributes
    ----------
    parts : sequence of arrays
        Of one dtype, and of one shape except for their length.
    places : int array of shape (n, 2)
        Part of each row, and its number there.
    """

    parts: Sequence[NDArray[Any]]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        return (len(self), *self.parts[0].shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return self.parts[0].dtype

    def reshape(self, n: int, *inner: int) -> Rows:
        """Return the same rows in another shape; ``n`` must be their number."""
        if n != len(self):
            raise ValueError(f"{len(self)} rows cannot become {n}")
        return Rows([part.reshape(len(part), *inner) for part in self.parts], self.places)

    def __getitem__(self, key: Any, /) -> Any:
        rows, *within = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(one, (int, slice)) for one in within):
            raise IndexError("inner axes take slices and numbers")
        chosen = self.places[rows]
        if chosen.ndim == 1:
            return np.array(self.parts[chosen[0]][(chosen[1], *within)])
        views = [part[(slice(None), *within)] for part in self.parts]
        out = np.empty((len(chosen), *views[0].shape[1:]), self.dtype)
        for part in np.unique(chosen[:, 0]):
            here = chosen[:, 0] == part
            out[here] = views[part][chosen[here, 1]]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)
