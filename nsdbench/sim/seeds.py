"""One random stream per purpose, so that no draw depends on another one's number of draws."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Name of a random stream. Values are part of the data: never renumber, only append."""

    SCENE = 1
    CODE = 2
    BRICK = 3
    CORE_ORDER = 4
    IMAGERY_ORDER = 5
    VOXELS = 6
    NCSNR = 7
    CORE_NOISE = 8
    IMAGERY_NOISE = 9
    IMAGERY_CONTENT = 10
    BEHAVIOUR = 11
    ARTWORK = 12
    PRETRAINING = 13


def stream(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """Return the generator of ``purpose`` under ``seed``; ``keys`` are subject, image or session numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(purpose), *keys])))
