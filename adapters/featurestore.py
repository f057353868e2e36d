"""Features of training images, computed once and kept in files, from which fits read them as memory maps.

What is kept under one key depends on nothing but that key and the image: fits with other betas, other trials or another seed
share it. A file holds the features of up to 256 images and counts when it is complete, so an interrupted computation goes
on where it stopped, and several processes can work on different files of the same features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nsdbench.adapters.base import Context
from nsdbench.adapters.featurefiles import FORMAT, Compute, FeatureFiles, Found, Kind, in_full_batch
from nsdbench.adapters.nets.pixels import resized
from nsdbench.adapters.nets.shipped import located
from nsdbench.adapters.rows import Rows
from nsdbench.adapters.stimuli import batches, images_of
from nsdbench.errors import DataError
from nsdbench.store import digest
from nsdbench.types import JsonScalar, Progress, Stimuli

__all__ = ["FeatureStore", "Kind", "image_kind", "prepared_images"]


@dataclass(frozen=True)
class FeatureStore:
    """Where features are kept.

    Attributes
    ----------
    folder : Path or None
        None means that they are computed into memory and forgotten with the fit.
    weights_dir : Path or None
        Where the weights are, whose hashes are part of the keys.
    device : str
        torch device.
    """

    folder: Path | None
    weights_dir: Path | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, context: Context) -> FeatureStore:
        """Return the store that a context names."""
        return cls(context.features, context.weights_dir, context.device)

    def read(
        self, kind: Kind, stimuli: Stimuli, ids: Sequence[str], compute: Compute, progress: Progress
    ) -> Found:
        """Return features of ``ids``; those that are not kept yet are computed first.

        ``compute`` always gets 16 images, the last ones repeated if need be, because networks round differently in
        batches of another size. So the features of an image are the same whatever others were asked for, and whether
        they were kept or not.

        Returns
        -------
        mapping of str to array or Rows, of shape (len(ids), ...)
            By the names that ``compute`` gives; in memory without a folder, else mapped from files.

        Raises
        ------
        WeightsError
            If weights behind the features are missing.
        DataError
            If there are no images, or features are not finite.
        NoRoom
            If the disk has no room for them. What was complete before is kept.
        """
        if not ids:
            raise DataError("there are no training images")
        if self.folder is None:
            return _in_memory(ids, compute, progress)
        shards = FeatureFiles(self.folder / f"{kind.name}-{self.key(kind)}", kind, stimuli, ids)
        shards.fill(compute, progress)
        return shards.rows()

    def key(self, kind: Kind) -> str:
        """Return a hash of everything that features depend on, except for the images."""
        weights = located(kind.weights, self.weights_dir)
        device = "" if kind.exact else self.device.partition(":")[0]
        return digest("features", FORMAT, kind.name, kind.version, weights, dict(kind.settings), device)


def prepared_images(
    store: FeatureStore,
    stimuli: Stimuli,
    ids: Sequence[str],
    side: int,
    filter_: Image.Resampling,
    progress: Progress,
) -> NDArray[np.uint8] | Rows:
    """Return square images at another size, uint8 (n, side, side, 3), as :func:`~.nets.pixels.resized` makes them."""

    def compute(some: tuple[str, ...]) -> Mapping[str, NDArray[np.uint8]]:
        return {"pixels": resized(images_of(stimuli, some), side, filter_)}

    found = store.read(image_kind(side, filter_), stimuli, ids, compute, progress)
    pixels: NDArray[np.uint8] | Rows = found["pixels"]
    return pixels


def image_kind(side: int, filter_: Image.Resampling) -> Kind:
    """Return the kind of images of one size."""
    settings: dict[str, JsonScalar] = {"side": side, "filter": filter_.name}
    return Kind("images", 1, settings=settings, exact=True, item_bytes=3 * side**2)


def _in_memory(ids: Sequence[str], compute: Compute, progress: Progress) -> Found:
    found: dict[str, NDArray[Any]] = {}
    done = 0
    for some in batches(ids, progress):
        parts = in_full_batch(compute, some)
        # filled as they come: those of NSD have several GB, too many to have twice
        found = found or {
            name: np.empty((len(ids), *part.shape[1:]), part.dtype) for name, part in parts.items()
        }
        for name, part in parts.items():
            found[name][done : done + len(some)] = part
        done += len(some)
    return found
