"""Images and captions of training stimuli, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from nsdbench.adapters.base import item_rng
from nsdbench.adapters.nets.pixels import Images
from nsdbench.errors import DataError
from nsdbench.types import Progress, Silent, Stimuli

BATCH = 16
LABEL = "features of training images"
FIT_SEED = 0
"""Seed of the draws that features of training images need; a fit knows no other."""


def batches(ids: Sequence[str], progress: Progress | None = None) -> Iterator[tuple[str, ...]]:
    """Yield ``ids``, 16 at a time."""
    starts = range(0, len(ids), BATCH)
    for start in (progress or Silent()).track(starts, LABEL):
        yield tuple(ids[start : start + BATCH])


def images_of(stimuli: Stimuli, ids: Sequence[str]) -> Images:
    """Return the images of ``ids`` at native size, uint8 (n, S, S, 3).

    Raises
    ------
    DataError
        If they are not squares of one size.
    """
    images = [stimuli.image(stimulus) for stimulus in ids]
    side = images[0].shape[0]
    for stimulus, image in zip(ids, images, strict=True):
        if image.shape != (side, side, 3):
            raise DataError(f"stimulus {stimulus} is {image.shape}, expected a square of {side} pixels")
    return np.stack(images)


def rngs_of(ids: Sequence[str]) -> list[np.random.Generator]:
    """Return one generator per stimulus for the draws of its features."""
    return [item_rng(FIT_SEED, stimulus, 0) for stimulus in ids]


def mean_over_captions(
    stimuli: Stimuli, ids: Sequence[str], encode: Callable[[Sequence[str]], Tensor]
) -> Tensor:
    """Return the mean text features over the captions of each stimulus, (n, tokens, channels).

    Raises
    ------
    DataError
        If a stimulus has no caption.
    """
    captions = [[text for text in stimuli.captions.get(i, ()) if text.strip()] for i in ids]
    for stimulus, own in zip(ids, captions, strict=True):
        if not own:
            raise DataError(
                f"stimulus {stimulus} has no caption",
                remedy="This decoder learns from captions; the data set must come with those of COCO.",
            )
    # always 16 texts, filled up with empty ones: networks round differently in batches of another size
    texts = [text for own in captions for text in own]
    filled = texts + [""] * (-len(texts) % BATCH)
    encoded = torch.cat([encode(filled[start : start + BATCH]) for start in range(0, len(filled), BATCH)])[
        : len(texts)
    ]
    parts = encoded.split([len(own) for own in captions])  # type: ignore[no-untyped-call]
    return torch.stack([part.mean(dim=0) for part in parts])
