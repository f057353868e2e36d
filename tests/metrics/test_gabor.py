"""Gabor energy answers to the orientation and frequency of gratings, and to nothing in a flat image."""

from __future__ import annotations

import numpy as np
import pytest

from nsdbench.metrics.gabor import FREQUENCIES, N_ORIENTATIONS, SIZE, gabor_energy
from nsdbench.metrics.profiles import PROFILES
from nsdbench.metrics.resize import Views

PROFILE = PROFILES["nsdbench-v1"]


def energy(image: np.ndarray) -> np.ndarray:
    return gabor_energy(Views([image], PROFILE, truth=True))["energy"][0].numpy()


def grating(frequency: float, angle: float, side: int = 256) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y))
    return np.repeat((127.5 + 100 * wave)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("orientation", range(N_ORIENTATIONS))
def test_the_channel_of_a_grating_responds_most(frequency: float, orientation: int) -> None:
    response = energy(grating(frequency, orientation * np.pi / N_ORIENTATIONS)).mean(axis=(2, 3))
    strongest = np.unravel_index(response.argmax(), response.shape)
    assert strongest == (FREQUENCIES.index(frequency), orientation)


def test_a_grating_gives_half_its_amplitude_in_its_channel() -> None:
    # the analytic filter passes exp(i k x) and almost stops exp(-i k x): |0.5 * amplitude|
    response = energy(grating(12, 0.0))[FREQUENCIES.index(12), 0]
    assert response == pytest.approx(0.5 * 100 / 255, rel=0.05)  # resizing dims it by 3 %


def test_energy_is_localized_in_its_cell() -> None:
    image = np.full((SIZE * 2, SIZE * 2, 3), 127, np.uint8)
    image[:64, 192:] = grating(24, 0.0)[:64, 192:]
    cells = energy(image)[FREQUENCIES.index(24), 0]
    assert np.unravel_index(cells.argmax(), cells.shape) == (0, 3)
    assert cells[0, 3] > 5 * cells[3, 0]


@pytest.mark.parametrize("side", [150, 256, 425])
@pytest.mark.parametrize("value", [0, 153, 255])
def test_a_flat_image_has_exactly_no_energy(side: int, value: int) -> None:
    assert not energy(np.full((side, side, 3), value, np.uint8)).any()
