"""Voxel models: receptive fields, feature weights, and the signals they give for seen and imagined images.

r_v = sum_k w_vk sum_xy g_v(x, y) phi_k(x, y), standardised per voxel over the subject's core images.
docs/sim.md lists the values and where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nsdbench.sim.anatomy import HIGH, REGIONS
from nsdbench.sim.features import FREQUENCIES, N_GABOR, N_LOW, N_ORIENTATIONS, N_SEMANTIC, Features
from nsdbench.sim.stimuli import CODE_LENGTH
from nsdbench.sim.vocabulary import BACKGROUNDS, CATEGORIES, CATEGORY_TABLE, SUPERCATEGORIES

Floats = NDArray[np.float32]
FIELD = 8.4
"""Width of an image in degrees of visual angle."""


class Area(NamedTuple):
    """Values of one cortical area.

    ``sigma = intercept + slope * eccentricity`` (degrees); ``frequency`` scales the preferred frequency;
    ``tuning`` is the von Mises concentration of orientation; ``unexplained`` is the share of signal variance that
    no feature explains; the rest describes imagery: receptive-field growth, pull to the fovea, gain of the Gabor
    channels from low to high frequency, gain of the whole, and of the unexplained part for bars and crosses.
    """

    intercept: float
    slope: float
    frequency: float
    tuning: float
    unexplained: float
    growth: float
    pull: float
    channels: tuple[float, float, float, float]
    gain: float
    bars: float


_EARLY_CHANNELS, _ALL = (1.0, 0.7, 0.3, 0.1), (1.0, 1.0, 1.0, 1.0)
AREAS = {
    "V1": Area(0.35, 0.08, 1.00, 2.0, 0.3, 2.0, 0.6, _EARLY_CHANNELS, 0.35, 0.5),
    "V2": Area(0.45, 0.12, 0.80, 1.4, 0.3, 2.0, 0.6, _EARLY_CHANNELS, 0.35, 0.5),
    "V3": Area(0.60, 0.18, 0.62, 1.0, 0.3, 2.0, 0.6, _EARLY_CHANNELS, 0.35, 0.5),
    "hV4": Area(1.00, 0.28, 0.62, 1.0, 0.5, 1.5, 0.8, (1.0, 0.8, 0.5, 0.3), 0.30, 0.2),
    "ventral": Area(2.20, 0.30, 0.62, 1.0, 0.5, 1.0, 1.0, _ALL, 0.18, 0.1),
    "lateral": Area(1.80, 0.30, 0.62, 1.0, 0.5, 1.0, 1.0, _ALL, 0.18, 0.1),
    "parietal": Area(1.60, 0.30, 0.62, 1.0, 0.5, 1.0, 1.0, _ALL, 0.18, 0.1),
}


def area_of(region: str) -> str:
    """Return the area of a region: ``V1v`` and ``V1d`` are ``V1``."""
    return region[:2] if region[:2] in AREAS else region


def per_voxel(region: NDArray[np.int64], field: str) -> Floats:
    """Return a field of :class:`Area` for every voxel; ``channels`` gives (n_voxels, 4)."""
    table = [getattr(AREAS[area_of(name)], field) for name in REGIONS]
    return np.asarray(table, np.float32)[region]


@dataclass(frozen=True)
class Voxels:
    """Parameters of ``n`` voxels.

    Attributes
    ----------
    region : int array (n,)
        Index into ``REGIONS``.
    x, y, sigma : float32 arrays (n,)
        Receptive field in degrees from fixation, y down.
    low, semantic, background : float32 arrays (n, 28), (n, 32), (n, 10)
        Feature weights.
    shares : float32 array (n, 3)
        Weights of the three standardised drives.
    loading : float32 array (300, n)
        Loadings of the unexplained code.
    """

    region: NDArray[np.int64]
    x: Floats
    y: Floats
    sigma: Floats
    low: Floats
    semantic: Floats
    background: Floats
    shares: Floats
    loading: Floats


def draw_voxels(region: NDArray[np.int64], rng: np.random.Generator) -> Voxels:
    """Draw voxel models for a list of regions."""
    n = len(region)
    eccentricity = 4.2 * rng.random(n) ** 1.2
    names = np.array(REGIONS)[region]
    angle = rng.random(n) * 2 * np.pi
    vertical = np.abs(np.sin(angle)) * np.where(
        np.char.endswith(names, "d"), 1.0, -1.0
    )  # dorsal: lower field
    split = np.char.endswith(names, "v") | np.char.endswith(names, "d")
    vertical = np.where(split, vertical, np.sin(angle))
    sigma = per_voxel(region, "intercept") + per_voxel(region, "slope") * eccentricity
    sigma *= np.exp(0.2 * rng.standard_normal(n))
    semantic, background, shares = _semantic_weights(names, rng)
    return Voxels(
        region=region,
        x=np.asarray(eccentricity * np.cos(angle), np.float32),
        y=np.asarray(eccentricity * vertical, np.float32),
        sigma=np.asarray(sigma, np.float32),
        low=_low_weights(region, names, eccentricity, rng),
        semantic=semantic,
        background=background,
        shares=shares,
        loading=rng.standard_normal((CODE_LENGTH, n), np.float32) / np.float32(CODE_LENGTH**0.5),
    )


def _low_weights(
    region: NDArray[np.int64],
    names: NDArray[np.str_],
    eccentricity: NDArray[np.float64],
    rng: np.random.Generator,
) -> Floats:
    n = len(region)
    preferred = np.maximum(15 - 2.2 * eccentricity, 3) * per_voxel(region, "frequency")
    octaves = np.log2(np.array(FREQUENCIES) / preferred[:, None])
    turn = np.pi * (np.arange(N_ORIENTATIONS) / N_ORIENTATIONS - rng.random((n, 1)))
    tuning = np.exp(per_voxel(region, "tuning")[:, None] * (np.cos(2 * turn) - 1))
    gabor = np.exp(-(octaves**2) / (2 * 0.7**2))[:, :, None] * tuning[:, None, :]
    gabor = gabor.reshape(n, N_GABOR)
    gabor /= np.linalg.norm(gabor, axis=1, keepdims=True)
    colour = rng.standard_normal((n, N_LOW - N_GABOR)) * np.array([0.35, 0.30, 0.30, 0.20])
    v4 = names == "hV4"
    gabor[v4] *= 0.5
    colour[v4] *= 2.5
    return np.concatenate([gabor, colour], axis=1).astype(np.float32)


def _semantic_weights(names: NDArray[np.str_], rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    n = len(names)
    weights = np.zeros((n, N_SEMANTIC), np.float32)
    background = rng.standard_normal((n, len(BACKGROUNDS))).astype(np.float32)
    shares = np.zeros((n, 3), np.float32)
    kinds, picks, likes = rng.random(n), rng.integers(len(CATEGORIES), size=(n, 2)), rng.random(n) < 0.4
    for v, name in enumerate(names):
        kind = "category" if name == "hV4" else _kind(str(name), float(kinds[v]))
        weights[v] = _object_weights(kind, int(picks[v, 0]), int(picks[v, 1]))
        if name in HIGH:
            place = 1.0 if kind == "background" else 0.7 if name == "ventral" and likes[v] else 0.0
            shares[v] = (0.25, float(kind != "background"), place)
        else:
            shares[v] = (1.0, 0.35 * (name == "hV4"), 0.0)
    return weights, background, shares


def _kind(name: str, u: float) -> str:
    """Return what a high-level voxel prefers, for a uniform draw ``u``."""
    if name == "parietal":
        return "any"
    edges = (0.45, 0.75, 1.0) if name == "lateral" else (0.45, 0.75, 0.90)
    for kind, edge in zip(("category", "pair", "background"), edges, strict=True):
        if u < edge:
            return kind
    return "surface"


def _object_weights(kind: str, first: int, second: int) -> Floats:
    weights = np.zeros(N_SEMANTIC, np.float32)
    if kind == "any":
        weights[: len(CATEGORIES)] = 1
    if kind in ("category", "pair"):
        weights[first] = 1
    if kind == "category":
        weights[len(CATEGORIES) + SUPERCATEGORIES.index(CATEGORY_TABLE[CATEGORIES[first]][0])] = 0.8
    if kind == "pair":
        weights[second] += 0.7
    if kind == "surface":
        weights[N_SEMANTIC - 1 - first % 2] = 1
    return weights


def fields(voxels: Voxels, side: int) -> Floats:
    """Return the receptive fields (side * side, n_voxels) on a grid over the image, each with sum 1."""
    centre = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5) * FIELD
    squared = (centre[:, None, None] - voxels.y) ** 2 + (centre[None, :, None] - voxels.x) ** 2
    gauss = np.exp(-squared / (2 * voxels.sigma**2)).reshape(side * side, -1)
    return np.asarray(gauss / gauss.sum(axis=0), np.float32)


def imagining(voxels: Voxels) -> Voxels:
    """Return the voxels as they are during imagery: larger, more foveal fields, high frequencies damped."""
    low = voxels.low.copy()
    low[:, :N_GABOR] *= np.repeat(per_voxel(voxels.region, "channels"), N_ORIENTATIONS, axis=1)
    pull, growth = per_voxel(voxels.region, "pull"), per_voxel(voxels.region, "growth")
    return replace(voxels, x=voxels.x * pull, y=voxels.y * pull, sigma=voxels.sigma * growth, low=low)


class Encoder:
    """Signals of one subject's voxels.

    Parameters
    ----------
    voxels : Voxels
    features : Features
        The subject's core images; every scale is standardised over them.
    codes : float32 array (n_images, 300)
    """

    def __init__(self, voxels: Voxels, features: Features, codes: Floats) -> None:
        self.voxels = voxels
        self._low = _moments(features.low, axis=(0, 2))
        self._semantic = _moments(features.semantic, axis=(0, 2))
        self._background = _moments(features.background, axis=0)
        drives = self._drives(voxels, features)
        self._drive = [_moments(d, axis=0) for d in drives]
        self._explained = _moments(self._mix(drives), axis=0)
        self._unexplained = _moments(codes @ voxels.loading, axis=0)

    def seen(self, features: Features, codes: Floats, code_gain: Floats | float = 1.0) -> Floats:
        """Return the signal (n_images, n_voxels) of seen images; ``code_gain`` scales the unexplained part."""
        return self._signal(self.voxels, features, codes, code_gain)

    def imagined(self, features: Features, codes: Floats, code_gain: Floats | float = 1.0) -> Floats:
        """Return the signal of imagined images before any imagery gain: coarser and more foveal fields."""
        return self._signal(imagining(self.voxels), features, codes, code_gain)

    def _signal(self, voxels: Voxels, features: Features, codes: Floats, code_gain: Floats | float) -> Floats:
        explained = _scale(self._mix(self._drives(voxels, features)), self._explained)
        unexplained = _scale(codes @ voxels.loading, self._unexplained)
        share = per_voxel(voxels.region, "unexplained")
        return np.asarray(
            np.sqrt(1 - share) * explained + np.sqrt(share) * code_gain * unexplained, np.float32
        )

    def _drives(self, voxels: Voxels, features: Features) -> list[Floats]:
        """Return the low-level, object and background drives, each (n_images, n_voxels)."""
        low = _weighted(features.low, self._low, fields(voxels, 16), voxels.low)
        objects = _weighted(features.semantic, self._semantic, fields(voxels, 8), voxels.semantic)
        return [low, objects, _scale(features.background, self._background) @ voxels.background.T]

    def _mix(self, drives: list[Floats]) -> Floats:
        scaled = [_scale(d, m) * s for d, m, s in zip(drives, self._drive, self.voxels.shares.T, strict=True)]
        return np.asarray(scaled[0] + scaled[1] + scaled[2], np.float32)


Moments = tuple[Floats, Floats]


def _moments(values: Floats, axis: int | tuple[int, ...]) -> Moments:
    mean = values.mean(axis=axis, dtype=np.float64).astype(np.float32)
    sd = values.std(axis=axis, dtype=np.float64).astype(np.float32)
    return mean, np.where(sd > 1e-6, sd, np.float32(1))


def _scale(values: Floats, moments: Moments) -> Floats:
    return (values - moments[0]) / moments[1]


def _weighted(maps: Floats, moments: Moments, receptive: Floats, weights: Floats) -> Floats:
    """Sum over channels of the channel's receptive-field average times its weight: (n_images, n_voxels)."""
    drive = np.zeros((len(maps), receptive.shape[1]), np.float32)
    for channel in range(maps.shape[1]):
        used = np.flatnonzero(weights[:, channel])
        if used.size:
            standard = (maps[:, channel] - moments[0][channel]) / moments[1][channel]
            drive[:, used] += (standard @ receptive[:, used]) * weights[used, channel]
    return drive
