"""How noisy each voxel is, and trial noise that partly looks like signal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nsdbench.sim.anatomy import REGIONS
from nsdbench.sim.encoding import area_of

Floats = NDArray[np.float32]

NCSNR_GAMMA = {
    "V1": (3.18, 0.155),
    "V2": (3.12, 0.140),
    "V3": (3.32, 0.125),
    "hV4": (3.45, 0.115),
    "ventral": (3.98, 0.093),
    "lateral": (3.03, 0.140),
    "parietal": (8.98, 0.052),
}
"""Shape and scale of the distribution of the noise-ceiling SNR, fitted to published voxel tables of real subjects."""
SUBJECT_FACTORS = {1: (1.09, 1.00), 2: (1.10, 1.07), 5: (0.99, 1.13), 7: (0.78, 0.85)}
"""Factors on the SNR of early and high areas; other subjects take 0.8 for both."""
SIGNAL_LIKE = {"V1": 1.2, "V2": 1.2, "V3": 1.2, "hV4": 1.5}
SIGNAL_LIKE_HIGH = 2.0
AUTOCORRELATION = 0.3
_LIMITS = (0.02, 1.8)
_LARGEST_SHARE = 0.95


def draw_ncsnr(region: NDArray[np.int64], subject: int, rng: np.random.Generator) -> Floats:
    """Draw the noise-ceiling SNR of each voxel."""
    areas = [area_of(name) for name in REGIONS]
    shape, scale = np.array([NCSNR_GAMMA[a] for a in areas])[region].T
    early, high = SUBJECT_FACTORS.get(subject, (0.8, 0.8))
    factor = np.array([early if a.startswith("V") or a == "hV4" else high for a in areas])[region]
    return np.asarray(np.clip(rng.gamma(shape, scale) * factor, *_LIMITS), np.float32)


def autoregress(white: Floats, run_lengths: tuple[int, ...]) -> Floats:
    """Return ``white`` (n_trials, n) with autocorrelation 0.3 between neighbours of a run and unit variance."""
    noise = white.copy()
    starts = set(np.concatenate([[0], np.cumsum(run_lengths)[:-1]]).tolist())
    fresh = np.float32(math.sqrt(1 - AUTOCORRELATION**2))
    for trial in range(1, len(noise)):
        if trial not in starts:
            noise[trial] = np.float32(AUTOCORRELATION) * noise[trial - 1] + fresh * white[trial]
    return noise


def trial_noise(
    signal: Floats,
    ncsnr: Floats,
    region: NDArray[np.int64],
    run_lengths: tuple[int, ...],
    rng: np.random.Generator,
) -> Floats:
    """Return noise (n_trials, n_voxels) of unit variance, in part a random mixture of the image responses ``signal``.

    The mixture has a standard deviation of kappa signal units, at most 0.95 of the noise; it is the same mixture
    in all voxels of a trial and therefore does not average out over voxels.
    """
    n_trials, n_images = sum(run_lengths), len(signal)
    table = [SIGNAL_LIKE.get(area_of(name), SIGNAL_LIKE_HIGH) for name in REGIONS]
    share = np.minimum(np.asarray(table, np.float32)[region] * ncsnr, np.float32(_LARGEST_SHARE))
    mixing = autoregress(rng.standard_normal((n_trials, n_images), np.float32), run_lengths)
    white = autoregress(rng.standard_normal((n_trials, signal.shape[1]), np.float32), run_lengths)
    mixture = (mixing / np.float32(math.sqrt(n_images))) @ signal
    return np.asarray(share * mixture + np.sqrt(1 - share**2) * white, np.float32)
