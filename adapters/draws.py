"""Random numbers of reconstructions, a few samples of one target at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nsdbench.adapters.base import item_rng
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.types import Progress


@dataclass(frozen=True)
class Draws:
    """Which images are wanted, and what they are drawn from.

    Attributes
    ----------
    targets : tuple of str
    n_samples : int
        Samples per target.
    seed : int
    at_once : int
        Most samples that are computed together. They belong to one target: a batch over several would round
        differently for other companions.
    device : str
    """

    targets: Sequence[str]
    n_samples: int
    seed: int
    at_once: int
    device: str

    def batches(self, progress: Progress, label: str) -> Iterator[tuple[int, slice, ItemNoise]]:
        """Yield the row of a target, a range of its samples, and their noise: each sample has its own source."""
        starts = range(0, self.n_samples, self.at_once)
        pieces = [(row, start) for row in range(len(self.targets)) for start in starts]
        for row, start in progress.track(pieces, label):
            samples = range(start, min(start + self.at_once, self.n_samples))
            rngs = [item_rng(self.seed, self.targets[row], k) for k in samples]
            yield row, slice(samples.start, samples.stop), ItemNoise(rngs, self.device)
