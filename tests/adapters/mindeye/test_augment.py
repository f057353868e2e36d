"""Random changes of images in training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nsdbench.adapters.mindeye.augment import (
    MINDEYE1_TARGET,
    MINDEYE1_TEACHER,
    MINDEYE2_TEACHER,
    Changes,
    changed,
    target_view,
    teacher_view,
)

NOTHING = Changes(crop=0, area=(1, 1))
PRESETS = (MINDEYE1_TARGET, MINDEYE1_TEACHER, MINDEYE2_TEACHER)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(n: int = 4, side: int = 24, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, side, side, generator=generator(seed))


def ramps(side: int) -> Tensor:
    """Red is the row and green the column of a pixel, from 0 to 1, so that a crop shows where it lay."""
    line = torch.arange(side) / (side - 1)
    return torch.stack([line[:, None].expand(side, side), line.expand(side, side), torch.zeros(side, side)])


@pytest.mark.parametrize("view", PRESETS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_changed_images_keep_shape_and_range(view: Changes, seed: int) -> None:
    out = changed(photos(3), generator(seed), view)
    assert out.shape == (3, 3, 24, 24)
    assert float(out.min()) >= 0 and float(out.max()) <= 1
    assert out.isfinite().all()


def test_draws_come_from_the_generator_alone() -> None:
    images = photos()
    torch.manual_seed(1)
    first = teacher_view(images, generator(7))
    torch.manual_seed(2)
    assert torch.equal(teacher_view(images, generator(7)), first)
    assert not torch.equal(teacher_view(images, generator(8)), first)


def test_every_image_has_its_own_draws_and_the_given_ones_stay() -> None:
    images = photos(1).expand(6, -1, -1, -1).clone()
    before = images.clone()
    out = target_view(images, generator(0))
    assert len({image.sum().item() for image in out}) > 1
    assert torch.equal(images, before)


def test_without_chances_nothing_changes() -> None:
    assert torch.equal(changed(photos(), generator(), NOTHING), photos())


def test_a_flip_mirrors_left_and_right() -> None:
    assert torch.equal(changed(photos(), generator(), Changes(0, (1, 1), flip=1)), photos().flip(-1))


def test_grey_images_have_the_luminance_in_all_channels() -> None:
    images = photos()
    out = changed(images, generator(), Changes(0, (1, 1), grey=1))
    luminance = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    torch.testing.assert_close(out, luminance[:, None].expand(-1, 3, -1, -1), rtol=0, atol=1e-3)


def test_solarizing_shifts_values_and_inverts_those_from_about_a_half_on() -> None:
    values = torch.linspace(0, 1, 1001)
    images = values.expand(40, 3, 3, 1001)
    shifts, thresholds = [], []
    for row in changed(images, generator(), Changes(0, (1, 1), solarize=1))[:, 0, 0]:
        shift = float(row[200] - values[200])
        shifted = (values + shift).clamp(0, 1)
        inverted = (row - shifted).abs() > 1e-5
        torch.testing.assert_close(row[inverted], 1 - shifted[inverted])
        shifts.append(shift)
        thresholds.append(float(shifted[inverted].min()))
    assert (min(shifts), max(shifts)) == pytest.approx((-0.1, 0.1), abs=0.02)
    assert (min(thresholds), max(thresholds)) == pytest.approx((0.4, 0.6), abs=0.02)


def test_the_crop_of_mindeye2_shows_nine_tenths_of_a_square() -> None:
    images = ramps(201).expand(20, -1, -1, -1)
    out = changed(images, generator(), Changes(crop=1, area=(0.9, 0.9), ratio=(1, 1)))
    height = out[:, 0, -1, 0] - out[:, 0, 0, 0]
    width = out[:, 1, 0, -1] - out[:, 1, 0, 0]
    torch.testing.assert_close(height * width, torch.full((20,), 0.9), rtol=0, atol=0.02)
    torch.testing.assert_close(height, width, rtol=0, atol=0.01)
    assert len({round(float(corner), 2) for corner in out[:, 0, 0, 0]}) > 4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_crops_keep_to_the_range_of_area_and_ratio(seed: int) -> None:
    out = changed(ramps(201)[None], generator(seed), Changes(crop=1, area=(0.6, 1)))[0]
    height, width = float(out[0, -1, 0] - out[0, 0, 0]), float(out[1, 0, -1] - out[1, 0, 0])
    assert 0.58 <= height * width <= 1.001
    assert 0.73 <= width / height <= 1.36


@pytest.mark.parametrize(
    ("view", "chance"), [(Changes(0, (1, 1), grey=0.3), 0.3), (Changes(0, (1, 1), colours=0.8), 0.8)]
)
def test_changes_come_with_their_chance(view: Changes, chance: float) -> None:
    images = photos(1, side=4).expand(1500, -1, -1, -1)
    hit = (changed(images, generator(), view) != images).flatten(1).any(dim=1)
    assert float(hit.float().mean()) == pytest.approx(chance, abs=0.04)


def test_colours_change_within_the_published_ranges() -> None:
    """On mid grey, contrast, saturation and hue do nothing: what remains is brightness, 0.6 to 1.4 times."""
    images = torch.full((300, 3, 4, 4), 0.5)
    levels = changed(images, generator(), Changes(0, (1, 1), colours=1))[:, 0, 0, 0]
    assert float(levels.min()) == pytest.approx(0.3, abs=0.02)
    assert float(levels.max()) == pytest.approx(0.7, abs=0.02)
    assert float(levels.mean()) == pytest.approx(0.5, abs=0.03)
