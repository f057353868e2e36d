"""Pictures that are no scenes: the bars and crosses of set A, the artwork of set B, the cue letters."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nsdbench.sim.scenes import SIDE

GREY = 127
ARTWORK = "shared0000_nsd00000"
_FRAME = 714  # pixels; the target names give lengths and widths in this unit
_LETTER = 10  # pixels, height of a cue letter
_NAME = re.compile(r"(bar|crs)_(\d+\.\d)deg_(\d+)L_(\d+)W")

# Rows of 5 bits each, from top to bottom.
_FONT: dict[str, tuple[int, ...]] = {
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "V": (17, 17, 17, 17, 17, 10, 4),
    "W": (17, 17, 17, 21, 21, 21, 10),
    "Y": (17, 17, 10, 4, 4, 4, 4),
    "Z": (31, 1, 2, 4, 8, 16, 31),
}


def blank() -> NDArray[np.uint8]:
    """Return a uniform grey screen, uint8 (112, 112, 3)."""
    return np.full((SIDE, SIDE, 3), GREY, np.uint8)


def draw_bars(name: str, side: int = SIDE) -> NDArray[np.uint8]:
    """Return the set A target of this name: black on grey, angle counter-clockwise from horizontal.

    The name states the geometry, for example ``bar_045.0deg_450L_43W`` (length and width out of 714 pixels);
    ``crs`` adds a second bar at a right angle.
    """
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"{name} does not describe a bar or cross")
    angle = math.radians(float(match[2]))
    half = np.array([int(match[3]), int(match[4])]) * side * 4 / _FRAME / 2
    image = Image.new("L", (4 * side, 4 * side), GREY)
    pen = ImageDraw.Draw(image)
    for direction in (angle, angle + math.pi / 2)[: 1 if match[1] == "bar" else 2]:
        along = np.array([math.cos(direction), -math.sin(direction)])
        across = np.array([-along[1], along[0]])
        corners = [
            2 * side + u * half[0] * along + v * half[1] * across
            for u, v in ((1, 1), (1, -1), (-1, -1), (-1, 1))
        ]
        pen.polygon([(float(x), float(y)) for x, y in corners], fill=0)
    return np.repeat(np.asarray(image.reduce(4))[:, :, None], 3, axis=2)


def draw_artwork(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the artwork (two dotted figures on a wavy pattern) and the 8 x 8 coverage of its figures."""
    y, x = np.mgrid[0 : 2 * SIDE, 0 : 2 * SIDE].astype(np.float32)
    wave = np.sin(y / 9 + 3 * np.sin(x / 31 + float(rng.uniform(0, 6))))
    colours = np.array([(196, 148, 92), (232, 206, 150)], np.uint8)
    image = Image.fromarray(colours[(wave > 0).astype(np.intp)])
    mask = Image.new("L", image.size)
    for middle, robe in ((0.33, (236, 232, 222)), (0.67, (214, 222, 232))):
        _figure(ImageDraw.Draw(image), ImageDraw.Draw(mask), middle, robe)
    block = 2 * SIDE // 8
    coverage = (np.asarray(mask) > 127).reshape(8, block, 8, block).mean(axis=(1, 3), dtype=np.float32)
    return np.asarray(image.reduce(2)), coverage


def _figure(
    pen: ImageDraw.ImageDraw, mask: ImageDraw.ImageDraw, middle: float, robe: tuple[int, int, int]
) -> None:
    unit = 2 * SIDE
    body = [(middle - 0.05, 0.32), (middle + 0.05, 0.32), (middle + 0.14, 0.92), (middle - 0.14, 0.92)]
    points = [(px * unit, py * unit) for px, py in body]
    head = tuple(v * unit for v in (middle - 0.06, 0.16, middle + 0.06, 0.33))
    pen.polygon(points, fill=robe)
    mask.polygon(points, fill=255)
    for row, py in enumerate(np.arange(0.38, 0.9, 0.06)):
        reach = 0.05 + 0.09 * (py - 0.32) / 0.6 - 0.015
        for px in np.arange(middle - reach + 0.015 * (row % 2), middle + reach, 0.035):
            pen.ellipse(
                ((px - 0.009) * unit, (py - 0.009) * unit, (px + 0.009) * unit, (py + 0.009) * unit),
                fill=(92, 48, 60),
            )
    pen.ellipse(head, fill=(112, 72, 52))
    mask.ellipse(head, fill=255)


def draw_letter(letter: str) -> NDArray[np.uint8]:
    """Return a grey screen with ``letter``, 10 pixels high, white at the centre."""
    bits = np.array([[row >> bit & 1 for bit in range(4, -1, -1)] for row in _FONT[letter]], np.uint8)
    width = round(_LETTER * 5 / 7)
    glyph = Image.fromarray(bits * (255 - GREY)).resize((width, _LETTER), Image.Resampling.BOX)
    screen = blank()
    top, left = (SIDE - _LETTER) // 2, (SIDE - width) // 2
    screen[top : top + _LETTER, left : left + width] += np.asarray(glyph)[:, :, None]
    return screen
