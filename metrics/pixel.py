"""Pixel metrics: correlation, structural similarity, RMSE and PSNR. Everything is computed in float64."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nsdbench.metrics.metric import ByCorrelation, ByPair, Features
from nsdbench.metrics.profiles import Profile

if TYPE_CHECKING:
    from torch import Tensor

    from nsdbench.metrics.resize import Views

_LUMA = np.array([0.2125, 0.7154, 0.0721])
_C1, _C2 = 0.01**2, 0.03**2
_RADIUS = 5
_STRIP = 16  # rows per matrix product: so small that BLAS starts no threads of its own
_CHUNK = 1 << 15
_PSNR_CAP = 100.0


def rgb(views: Views) -> Mapping[str, Tensor]:
    """Return RGB images at the pixel size of the profile, node ``"rgb"``, float32 (n, 3, P, P)."""
    return {"rgb": views.pixels()}


RGB = Features("pixels", ("rgb",), extract=rgb)
PIXCORR = ByCorrelation(RGB, "correlation")
PIXEL_2WAY = ByCorrelation(RGB, "identification")


def luma(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``0.2125 R + 0.7154 G + 0.0721 B`` of an image ``(3, H, W)``, unrounded, float64 (H, W)."""
    return np.asarray(np.einsum("c,chw->hw", _LUMA, image))


@dataclass(frozen=True)
class Moments:
    """Local statistics of one luma image that SSIM needs whatever the partner.

    Attributes
    ----------
    luma : float64 array of shape (H, W)
    mean, mean_square, variance : float64 arrays of shape (n_windows,)
        Local mean, its square plus ``C1 / 2``, and local variance plus ``C2 / 2``.
    axes : tuple of int
        Axes along which the window moves.
    """

    luma: NDArray[np.float64]
    mean: NDArray[np.float64]
    mean_square: NDArray[np.float64]
    variance: NDArray[np.float64]
    axes: tuple[int, ...]


def ssim_moments(activations: Sequence[NDArray[np.float32]], profile: Profile) -> Moments:
    """Return the local moments of one RGB image ``(3, H, W)``."""
    axes = (0,) if profile.ssim == "1d" else (0, 1)
    y = luma(activations[0])
    mean = _local_mean(y, axes)
    mean_square = mean * mean
    variance = _local_mean(y * y, axes) - mean_square
    return Moments(y, mean, mean_square + _C1 / 2, variance + _C2 / 2, axes)


def ssim(truth: Moments, recon: Moments) -> float:
    """Return the structural similarity of two luma images (Wang et al. 2004).

    Local means and population (co)variances come from an 11-tap Gaussian window with sigma 1.5; with data range 1,
    ``C1 = 1e-4`` and ``C2 = 9e-4``,
    ``S = (2 ux uy + C1)(2 vxy + C2) / ((ux^2 + uy^2 + C1)(vx + vy + C2))`` is averaged over the pixels that are at
    least five from the border. One-dimensional moments filter, and lose the border, along image columns only.
    """
    products = _local_mean(truth.luma * recon.luma, truth.axes)
    total = 0.0
    for start in range(0, len(products), _CHUNK):  # a chunk stays in the cache of a core
        part = slice(start, start + _CHUNK)
        means = truth.mean[part] * recon.mean[part]
        covariance = products[part] - means
        means += _C1 / 2
        covariance += _C2 / 2
        means *= covariance
        means /= (truth.mean_square[part] + recon.mean_square[part]) * (
            truth.variance[part] + recon.variance[part]
        )
        total += float(means.sum())
    return 4 * total / len(products)


def _local_mean(image: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Filter with the Gaussian window along ``axes`` and drop the border, so boundary handling never matters.

    The result is flat, its pixels in an order that depends on ``axes`` only.
    """
    for _ in axes:
        image = _filter_rows(image).T
    return image.ravel(order="K")


def _filter_rows(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter along the first axis, a strip of rows at a time by a small matrix product: several times faster than
    sliding the window."""
    window = _window_matrix()
    strip = len(window)
    height = len(image) - 2 * _RADIUS
    filtered = np.empty((height, image.shape[1]))
    for top in range(0, height, strip):
        rows = min(strip, height - top)
        np.matmul(
            window[:rows, : rows + 2 * _RADIUS],
            image[top : top + rows + 2 * _RADIUS],
            out=filtered[top : top + rows],
        )
    return filtered


@functools.cache
def _window_matrix() -> NDArray[np.float64]:
    """Return the matrix (strip, strip + 10) whose row i holds the window at the columns i ... i + 10."""
    taps = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    return np.stack([np.pad(taps, (row, _STRIP - 1 - row)) for row in range(_STRIP)])


def _flat(activations: Sequence[NDArray[np.float32]], profile: Profile) -> NDArray[np.float64]:
    return activations[0].astype(np.float64).ravel()


def rmse(truth: NDArray[np.float64], recon: NDArray[np.float64]) -> float:
    """Return the root mean square difference of two images with values in [0, 1]."""
    return float(np.sqrt(np.mean((truth - recon) ** 2)))


def psnr(truth: NDArray[np.float64], recon: NDArray[np.float64]) -> float:
    """Return ``-20 log10(rmse)`` in dB, at most 100 (identical images would be infinite)."""
    error = rmse(truth, recon)
    return min(_PSNR_CAP, -20 * float(np.log10(error))) if error > 0 else _PSNR_CAP


SSIM = ByPair(RGB, ssim_moments, ssim)
RMSE = ByPair(RGB, _flat, rmse)
PSNR = ByPair(RGB, _flat, psnr)
