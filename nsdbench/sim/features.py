"""What the simulated brain sees in an image: 28 maps of low-level features, maps of objects, the background.

The maps and their spacing follow the space-feature separable receptive-field models of St-Yves & Naselaris
(NeuroImage 2018): Gabor energy at 6 orientations and 4 frequencies, luminance, colour opponency, contrast.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from nsdbench.sim.scenes import COVERAGE_SIDE, SIDE, Scene
from nsdbench.sim.vocabulary import BACKGROUNDS, CATEGORIES, CATEGORY_TABLE, SUPERCATEGORIES

Floats = NDArray[np.float32]

FREQUENCIES = (3.0, 6.0, 12.0, 24.0)
"""Cycles per image; 8.4 degrees of visual field make them 0.36 to 2.86 cycles per degree."""
N_ORIENTATIONS = 6
N_GABOR = N_ORIENTATIONS * len(FREQUENCIES)
N_LOW = N_GABOR + 4
LOW_SIDE = 16
N_SEMANTIC = len(CATEGORIES) + len(SUPERCATEGORIES) + 2
_WINDOWS = (16, 32, 32, 64)  # each filter sees a square of the spectrum around its centre
_SIGMA_OCTAVES = 0.55
_SIGMA_ANGLE = math.radians(20)


@dataclass(frozen=True)
class Features:
    """Features of ``n`` images.

    Attributes
    ----------
    low : float32 array of shape (n, 28, 256)
        Square root of Gabor energy (frequency by orientation), luminance, red-green, blue-yellow, local contrast
        on a 16 x 16 grid.
    semantic : float32 array of shape (n, 32, 64)
        Coverage by 20 categories, 10 super-categories, striped and yellow objects on an 8 x 8 grid.
    background : float32 array of shape (n, 10)
        One-hot; all zero without a background.
    """

    low: Floats
    semantic: Floats
    background: Floats

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Features:
        return Features(self.low[rows], self.semantic[rows], self.background[rows])

    def __len__(self) -> int:
        return len(self.low)


def concatenate(parts: list[Features]) -> Features:
    """Join features of several groups of images."""
    return Features(
        np.concatenate([p.low for p in parts]),
        np.concatenate([p.semantic for p in parts]),
        np.concatenate([p.background for p in parts]),
    )


def low_level(images: NDArray[np.uint8]) -> Floats:
    """Return the 28 low-level maps of RGB ``images`` (n, 112, 112, 3) as float32 (n, 28, 256)."""
    rgb = images.astype(np.float32) / np.float32(255)
    grey = np.asarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)
    maps = np.empty((len(images), N_LOW, LOW_SIDE, LOW_SIDE), np.float32)
    spectrum = scipy.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))
    for band in range(len(FREQUENCIES)):
        for orientation in range(N_ORIENTATIONS):
            rows, columns, gabor = _gabor(band, orientation)
            # moving a spectrum to the origin changes the phase of the response, not its energy
            response = scipy.fft.ifft2(spectrum[:, rows[:, None], columns] * gabor)
            energy = response.real**2 + response.imag**2
            maps[:, band * N_ORIENTATIONS + orientation] = np.sqrt(pool(energy, LOW_SIDE))
    red, green, blue = (np.asarray(rgb[..., c], np.float32) for c in range(3))
    maps[:, N_GABOR] = pool(grey, LOW_SIDE)
    maps[:, N_GABOR + 1] = pool(red - green, LOW_SIDE)
    maps[:, N_GABOR + 2] = pool(blue - (red + green) * np.float32(0.5), LOW_SIDE)
    variance = pool(grey**2, LOW_SIDE) - maps[:, N_GABOR] ** 2
    maps[:, N_GABOR + 3] = np.sqrt(np.maximum(variance, 0))
    return maps.reshape(len(images), N_LOW, LOW_SIDE**2)


def pool(maps: Floats, side: int) -> Floats:
    """Return the means over square blocks: (n, H, H) to (n, side, side)."""
    n, height, _ = maps.shape
    block = height // side
    return np.asarray(maps.reshape(n, side, block, side, block).mean(axis=(2, 4)), np.float32)


@functools.cache
def _gabor(band: int, orientation: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return a half-plane log-Gabor filter: the rows and columns of the spectrum it sees, and its gain there.

    The response to a half plane is analytic, so that its squared modulus is the energy of a quadrature pair.
    """
    side, frequency = _WINDOWS[band], FREQUENCIES[band]
    theta = math.pi * orientation / N_ORIENTATIONS
    window = np.arange(-side // 2, side // 2)
    rows = (round(frequency * math.sin(theta)) + window) % SIDE
    columns = (round(frequency * math.cos(theta)) + window) % SIDE
    cycles = np.fft.fftfreq(SIDE) * SIDE
    fy, fx = cycles[rows][:, None], cycles[columns][None, :]
    octaves = np.log2(np.maximum(np.hypot(fy, fx), 1e-6) / frequency)
    turn = np.angle(np.exp(1j * (np.arctan2(fy, fx) - theta)))
    gabor = np.exp(-(octaves**2) / (2 * _SIGMA_OCTAVES**2) - turn**2 / (2 * _SIGMA_ANGLE**2))
    # the inverse transform divides by side**2, the forward one did not
    return rows, columns, np.asarray(gabor * (side / SIDE) ** 2, np.float32)


def semantic(scene: Scene, coverage: Floats) -> tuple[Floats, Floats]:
    """Return the semantic maps (32, 64) and the background one-hot (10,) of a rendered scene."""
    maps = np.zeros((N_SEMANTIC, COVERAGE_SIDE**2), np.float32)
    for thing, cells in zip(scene.things, coverage.reshape(len(coverage), -1), strict=True):
        rows = [CATEGORIES.index(thing.category), len(CATEGORIES) + _super_index(thing.category)]
        rows += [N_SEMANTIC - 2] if thing.texture == "stripes" else []
        rows += [N_SEMANTIC - 1] if thing.colour == "yellow" else []
        maps[rows] += cells
    one_hot = np.zeros(len(BACKGROUNDS), np.float32)
    one_hot[BACKGROUNDS.index(scene.background)] = 1
    return maps, one_hot


def _super_index(category: str) -> int:
    return SUPERCATEGORIES.index(CATEGORY_TABLE[category][0])
