"""Integrity check 21: ground-truth images of the targets are the right pictures, by the right ids."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.checks_files import OK, Warnings
from nsdbench.data.facts import targets
from nsdbench.data.layout import Layout
from nsdbench.data.session import nsd_row, target_names
from nsdbench.data.stimuli import TargetImages, find_images, target_image
from nsdbench.errors import IntegrityError

_MIN_CORRELATION = 0.95  # ours
_ARTWORK = "B6"


def check_target_images(layout: Layout) -> Warnings:
    """Check 21, ``target_images``: all 12 ground-truth images of sets A and B are there and readable."""
    names = target_names(layout)
    files = {t.id: target_image(layout, t.stimulus_set, names[t.id]) for t in targets() if t.has_image}
    read = TargetImages(files)
    for target in files:
        read(target)
    return OK


def check_artwork(layout: Layout) -> Warnings:
    """Check 21, ``artwork``: target B6 is no NSD image, the other targets of set B are."""
    for target, name in target_names(layout).items():
        if target[0] == "B" and (nsd_row(name) is None) != (target == _ARTWORK):
            raise IntegrityError(
                "artwork",
                f"target {target} is called {name}; only {_ARTWORK} is an artwork without an NSD image",
                remedy="nsd00000 in a file name does not mean imgBrick row 0. Download B_pair_list.mat again.",
            )
    return OK


def check_target_pixels(layout: Layout) -> Warnings:
    """Check 21, ``target_pixels``: set B images equal ``imgBrick[id - 1]``, so ids in names are 1-based."""
    for target, row in _scenes(layout):
        png = TargetImages({target: target_image(layout, "B", target_names(layout)[target])})(target)
        core = find_images(layout)(f"img{row:05d}")
        r = _correlation(png, core)
        if not r > _MIN_CORRELATION:  # a blank picture has no correlation
            raise IntegrityError(
                "target_pixels",
                f"target {target} correlates {r:.2f} with imgBrick row {row}",
                remedy="Ids in sharedAAAA_nsdBBBBB names are 1-based, rows 0-based. Is this the released image file?",
            )
    return OK


def _scenes(layout: Layout) -> Iterator[tuple[str, int]]:
    for target, name in target_names(layout).items():
        row = nsd_row(name)
        if target[0] == "B" and row is not None:
            yield target, row


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Pearson correlation of pixels, the first image resized to the second; NaN if one is blank."""
    from PIL import Image

    size = (second.shape[1], second.shape[0])
    resized = np.asarray(Image.fromarray(first).resize(size, Image.Resampling.BILINEAR))
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(resized.ravel(), second.ravel())[0, 1])
