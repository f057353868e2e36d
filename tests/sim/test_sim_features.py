from __future__ import annotations

import numpy as np
import pytest

from nsdbench.sim.features import FREQUENCIES, N_GABOR, N_ORIENTATIONS, low_level, pool
from nsdbench.sim.scenes import SIDE


def grating(cycles: float, orientation: int) -> np.ndarray:
    """A sinusoid whose frequency vector points along orientation channel ``orientation``."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    theta = np.pi * orientation / N_ORIENTATIONS
    wave = np.sin(2 * np.pi * cycles * (x * np.cos(theta) + y * np.sin(theta)))
    return np.repeat(np.uint8(np.rint(127 + 100 * wave))[:, :, None], 3, axis=2)


@pytest.mark.parametrize("band", range(4))
@pytest.mark.parametrize("orientation", range(6))
def test_a_grating_drives_its_own_gabor_channel_most(band: int, orientation: int) -> None:
    maps = low_level(grating(FREQUENCIES[band], orientation)[None])[0, :N_GABOR].mean(axis=1)
    assert int(maps.argmax()) == band * N_ORIENTATIONS + orientation


def test_gabor_energy_of_a_matched_grating_is_half_its_amplitude() -> None:
    # sin has two half-plane components of amplitude 1/2; the filter passes one of them with gain 1
    maps = low_level(grating(12, 0)[None])[0]
    assert maps[2 * N_ORIENTATIONS].mean() == pytest.approx(100 / 255 / 2, rel=0.02)


def test_gabor_energy_ignores_the_phase_of_a_grating() -> None:
    image = grating(12, 0)
    a, b = (low_level(i[None])[0, :N_GABOR] for i in (image, np.roll(image, 3, axis=1)))
    assert np.allclose(a[2 * N_ORIENTATIONS], b[2 * N_ORIENTATIONS], rtol=0.02)


def test_a_uniform_image_has_luminance_and_nothing_else() -> None:
    maps = low_level(np.full((1, SIDE, SIDE, 3), 51, np.uint8))[0]
    assert np.allclose(maps[N_GABOR], 0.2, atol=1e-5)
    assert np.abs(np.delete(maps, N_GABOR, axis=0)).max() < 1e-3


def test_colour_maps_have_the_sign_of_their_opponency() -> None:
    red, blue = np.zeros((2, 1, SIDE, SIDE, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    assert np.allclose(low_level(red)[0, N_GABOR + 1], 1)
    assert np.allclose(low_level(blue)[0, N_GABOR + 2], 1)


def test_pooling_takes_block_means() -> None:
    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    assert np.array_equal(pool(maps, 2), [[[2.5, 4.5], [10.5, 12.5]]])
