"""Feature decoders of millions of units: features made in passes over the images, decoders kept in files.

All 19 layers of a VGG19 have 14.9 million units. Their features of 8,859 images would fill 526 GB, dense decoders 935 GB;
here features exist for one pass at a time, and a decoder is its selected voxels and their weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nsdbench.adapters.fastl2lir import UnitDecoders
from nsdbench.adapters.nets.vgg import Vgg
from nsdbench.adapters.rows import Rows
from nsdbench.errors import DataError
from nsdbench.plainarrays import load_npy
from nsdbench.store import free_bytes

BATCH = 25  # images that go through the network together
BLOCK = 65_536  # units that predict together
VOXELS, WEIGHTS, SCALES = "voxels.npy", "weights.npy", "scales.npy"


class TrainingFeatures:
    """The features of images, computed when they are asked for and forgotten at the next pass.

    Parameters
    ----------
    vgg : Vgg
    layers : sequence of str
    images : uint8 array or Rows, of shape (n, size, size, 3)
    memory : int
        Bytes that the features of one pass may take, 4 per image and unit.
    """

    def __init__(
        self, vgg: Vgg, layers: Sequence[str], images: NDArray[np.uint8] | Rows, memory: int
    ) -> None:
        self.vgg, self.images = vgg, images
        shapes = vgg.config.shapes
        self.sizes = {name: prod(shapes[name]) for name in vgg.config.layers if name in layers}
        self.n_units = sum(self.sizes.values())
        width = max(1, memory // (4 * len(images)))
        self.passes = [
            _Pass(self, start, min(start + width, self.n_units)) for start in range(0, self.n_units, width)
        ]
        self.held: tuple[int, NDArray[np.float32]] | None = None

    def units(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return units ``start`` to ``stop`` of all layers in a row, float32 of shape (n, stop - start)."""
        if self.held is None or self.held[0] != start:
            self.held = None  # frees the last pass before the next one is made
            self.held = start, self._compute(start, stop)
        return self.held[1]

    def _compute(self, start: int, stop: int) -> NDArray[np.float32]:
        parts, first = [], 0
        for name, size in self.sizes.items():
            here = slice(max(start - first, 0), min(stop - first, size))
            if here.start < here.stop:
                parts.append((name, here))
            first += size
        out = np.empty((len(self.images), stop - start), np.float32)
        for rows, found in self.batches([name for name, _ in parts]):
            columns = [found[name].flatten(1)[:, here] for name, here in parts]
            out[rows] = torch.cat(columns, 1).cpu().numpy()
        return out

    def batches(self, layers: Sequence[str]) -> Iterator[tuple[slice, dict[str, torch.Tensor]]]:
        """Yield rows and their features, batch after batch."""
        device = next(self.vgg.parameters()).device
        for start in range(0, len(self.images), BATCH):
            rows = slice(start, min(start + BATCH, len(self.images)))
            with torch.no_grad():
                yield rows, self.vgg(self.vgg.prepare(self.images[rows]).to(device), layers)


@dataclass(frozen=True)
class _Pass:
    """Some units of :class:`TrainingFeatures` as a matrix of regression targets."""

    source: TrainingFeatures
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.source.images), self.stop - self.start

    dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        return self.source.units(self.start, self.stop)[key]


@dataclass(frozen=True)
class UnitFiles:
    """Decoders of units in three files, read in blocks.

    Attributes
    ----------
    voxels : uint16 or int32 array of shape (n_units, k)
    weights : float32 array of shape (n_units, k)
    scales : float32 array of shape (n_units, 3)
        Bias, mean and SD of each unit.
    n_voxels : int
    """

    voxels: NDArray[np.integer]
    weights: NDArray[np.float32]
    scales: NDArray[np.float32]
    n_voxels: int

    @classmethod
    def write(
        cls, folder: Path, blocks: Iterable[UnitDecoders], n_units: int, k: int, n_voxels: int
    ) -> UnitFiles:
        """Store decoders as they come.

        Raises
        ------
        DataError
            If the disk has no room for them.
        """
        index = np.dtype(np.uint16 if n_voxels <= np.iinfo(np.uint16).max + 1 else np.int32)
        _require_room(folder, n_units * (k * (4 + index.itemsize) + 12))
        files = [
            np.lib.format.open_memmap(folder / name, "w+", dtype, (n_units, width))
            for name, dtype, width in ((VOXELS, index, k), (WEIGHTS, np.float32, k), (SCALES, np.float32, 3))
        ]
        start = 0
        for block in blocks:
            rows = slice(start, start + len(block.voxels))
            scales = np.stack([block.bias, block.y_mean, block.y_sd], 1)
            for file, values in zip(files, (block.voxels, block.weights, scales), strict=True):
                file[rows] = values
            start = rows.stop
        for file in files:
            file.flush()
        return cls(files[0], files[1], files[2], n_voxels)

    @classmethod
    def open(cls, folder: Path, n_voxels: int) -> UnitFiles:
        """Return what was stored in ``folder``.

        Raises
        ------
        DataError
            If a file is missing or damaged, or the files do not belong together.
        """
        try:
            voxels, weights, scales = (load_npy(folder / name) for name in (VOXELS, WEIGHTS, SCALES))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder} holds no stored decoders ({error})", remedy="Delete it and fit the model again."
            ) from error
        if voxels.shape != weights.shape or scales.shape != (len(voxels), 3):
            raise DataError(f"the decoders in {folder} do not belong together", remedy="Fit the model again.")
        return cls(voxels, weights, scales, n_voxels)

    def save(self, folder: Path) -> None:
        """Write the files into ``folder``."""
        for name, values in ((VOXELS, self.voxels), (WEIGHTS, self.weights), (SCALES, self.scales)):
            np.save(folder / name, values)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return predictions, float32 of shape (m, n_units), for betas of shape (m, n_voxels)."""
        out = np.empty((len(x), len(self.voxels)), np.float32)
        for start in range(0, len(self.voxels), BLOCK):
            rows = slice(start, start + BLOCK)
            bias, mean, sd = np.array(self.scales[rows].T)
            voxels = np.asarray(self.voxels[rows], np.int32)
            out[:, rows] = UnitDecoders(
                voxels, np.asarray(self.weights[rows]), bias, mean, sd, self.n_voxels
            ).predict(x)
        return out


def _require_room(folder: Path, needed: int) -> None:
    free = free_bytes(folder)
    if needed > free:
        raise DataError(
            f"feature decoders take {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB left",
            remedy="Point TMPDIR to a larger disk.",
        )
