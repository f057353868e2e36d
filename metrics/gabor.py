"""Gabor energy: an orientation and spatial frequency code of an image, without trained weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nsdbench.metrics.metric import ByCorrelation, Features

if TYPE_CHECKING:
    from nsdbench.metrics.resize import Views

SIZE = 128
FREQUENCIES = (3.0, 6.0, 12.0, 24.0)  # cycles per image
N_ORIENTATIONS = 6
CELLS = 4
_SILENCE = (
    1e-5  # amplitudes of resampling noise in a flat image stay below, one grey level of a grating far above
)


def gabor_energy(views: Views) -> Mapping[str, Tensor]:
    """Return pooled Gabor amplitudes, node ``"energy"``, float32 of shape (n, 4, 6, 4, 4).

    Definition: the luma ``0.2125 R + 0.7154 G + 0.0721 B`` of the image at 128 x 128 pixels (resized as the profile
    says) is filtered, with periodic boundaries, by the analytic filters whose transfer functions are
    ``exp(-|w - f u|^2 / (2 (f/2)^2))`` for f = 3, 6, 12, 24 cycles per image and the unit vectors u at
    0, 30, ..., 150 degrees; the mean of the image is removed first. The squared modulus (energy) is averaged in each
    of 4 x 4 equal cells and its square root taken. Amplitudes below 1e-5 are set to 0, so that a flat image gives an
    exactly constant vector. Axes: image, frequency, orientation, cell row, cell column.
    """
    images = views.at(SIZE)
    grey = 0.2125 * images[:, 0] + 0.7154 * images[:, 1] + 0.0721 * images[:, 2]
    spectrum = torch.fft.fft2(grey - grey.mean(dim=(1, 2), keepdim=True))
    pooled = torch.stack([_pooled_energy(one) for one in spectrum]).sqrt()
    pooled[pooled < _SILENCE] = 0
    return {"energy": pooled.reshape(len(images), len(FREQUENCIES), N_ORIENTATIONS, CELLS, CELLS)}


def _pooled_energy(spectrum: Tensor) -> Tensor:
    """Return the energy of one image in every channel and cell; one image at a time fits the caches."""
    response = torch.view_as_real(torch.fft.ifft2(spectrum * _filters()))
    response *= response
    return torch.nn.functional.avg_pool2d(response[..., 0] + response[..., 1], SIZE // CELLS)


@functools.cache
def _filters() -> Tensor:
    """Return the transfer functions, float32 of shape (frequencies * orientations, 128, 128)."""
    cycles = torch.fft.fftfreq(SIZE, 1 / SIZE, dtype=torch.float64)
    angles = torch.arange(N_ORIENTATIONS, dtype=torch.float64) * torch.pi / N_ORIENTATIONS
    filters = []
    for frequency in FREQUENCIES:
        along_x = (cycles[None, None, :] - frequency * torch.cos(angles)[:, None, None]) ** 2
        along_y = (cycles[None, :, None] - frequency * torch.sin(angles)[:, None, None]) ** 2
        filters.append(torch.exp(-(along_x + along_y) / (2 * (frequency / 2) ** 2)))
    return torch.cat(filters).float()


GABOR_2WAY = ByCorrelation(Features("gabor", ("energy",), extract=gabor_energy), "identification")
