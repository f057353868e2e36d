"""Where the networks of the decoders get their random numbers from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EDGE = 1e-5
"""Uniform numbers keep this distance from 0 and 1."""


class Noise(Protocol):
    """Where random numbers come from."""

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, (n, *shape) for a batch of n."""
        ...


@dataclass(frozen=True)
class ItemNoise:
    """Random numbers of which every item of a batch has its own source, so that they do not depend on the batch."""

    rngs: Sequence[np.random.Generator]
    device: torch.device | str = "cpu"

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, (n, *shape)."""
        return self._batch([rng.standard_normal(shape, np.float32) for rng in self.rngs])

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers between 0 and 1, (n, *shape), none of them closer to either than 0.00001."""
        return self._batch([rng.random(shape, np.float32) for rng in self.rngs]) * (1 - 2 * EDGE) + EDGE

    def spread(self, times: int) -> ItemNoise:
        """Return new sources, ``times`` for every item, side by side: those of the first item, then of the second."""
        return ItemNoise([child for rng in self.rngs for child in rng.spawn(times)], self.device)

    def _batch(self, drawn: list[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(drawn)).to(self.device)
