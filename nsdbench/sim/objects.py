"""Objects of a scene: a silhouette, its colour and texture, painted into a box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nsdbench.sim.shapes import PAINT, SHAPES, Kind
from nsdbench.sim.vocabulary import COLOURS, RGB


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes
    ----------
    category, colour, texture : str
        Words of the vocabulary.
    box : tuple of float
        Left, top, width, height as fractions of the image side.
    flip : bool
        Mirrored left to right.
    period, angle : float
        Texture period as a fraction of the larger box side, and its direction in radians.
    """

    category: str
    colour: str
    texture: str
    box: tuple[float, float, float, float]
    flip: bool
    period: float
    angle: float


def paint(canvas: Image.Image, thing: Thing) -> Image.Image:
    """Draw ``thing`` on ``canvas`` (RGB, changed in place) and return its coverage, an "L" image of equal size."""
    left, top, width, height = (round(v * canvas.width) for v in thing.box)
    shape = SHAPES[thing.category]
    fills = _palette(thing)
    body = Image.new("L", (width, height))
    details = Image.new("L", (width, height))
    surface = Image.fromarray(_surface(thing, width, height))
    outline, inside, over = ImageDraw.Draw(body), ImageDraw.Draw(details), ImageDraw.Draw(surface)
    for kind, xy, fill in shape.body:
        getattr(outline, kind)(_place(xy, width, height, thing.flip, kind), fill=0 if fill == "hole" else 255)
    for kind, xy, fill in shape.details:
        points = _place(xy, width, height, thing.flip, kind)
        getattr(over, kind)(points, fill=fills[fill])
        getattr(inside, kind)(points, fill=255)
    body.paste(255, mask=details)
    canvas.paste(surface, (left, top), body)
    coverage = Image.new("L", canvas.size)
    coverage.paste(body, (left, top))
    return coverage


def _place(
    xy: tuple[float, ...], width: int, height: int, flip: bool, kind: Kind
) -> list[tuple[float, float]]:
    points = [
        ((1 - x if flip else x) * (width - 1), y * (height - 1))
        for x, y in zip(xy[::2], xy[1::2], strict=True)
    ]
    if kind == "ellipse" and flip:  # Pillow wants the left edge first
        (x0, y0), (x1, y1) = points
        points = [(x1, y0), (x0, y1)]
    return points


def _palette(thing: Thing) -> dict[str, RGB]:
    main = np.array(COLOURS[thing.colour])
    return {
        **PAINT,
        "shade": _rgb(main * 0.62),
        "tint": _rgb(main + (255 - main) * 0.45),
        "contrast": _second(thing.colour),
    }


def _second(colour: str) -> RGB:
    """Colour of the stripes, dots or checks on ``colour``: dark on light surfaces, light on dark ones."""
    return PAINT["dark"] if sum(COLOURS[colour]) > 380 else PAINT["cream"]


def _rgb(values: NDArray[np.float64]) -> RGB:
    red, green, blue = (int(v) for v in values)
    return red, green, blue


def _surface(thing: Thing, width: int, height: int) -> NDArray[np.uint8]:
    """Return the textured rectangle from which the silhouette is cut, uint8 (height, width, 3)."""
    period = max(thing.period * max(width, height), 4.0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) * np.float32(2 * math.pi / period)
    u = x * math.cos(thing.angle) + y * math.sin(thing.angle)
    v = y * math.cos(thing.angle) - x * math.sin(thing.angle)
    if thing.texture == "stripes":
        second = np.sin(u) > 0
    elif thing.texture == "dots":
        second = np.sin(u) + np.sin(v) > 0.9
    elif thing.texture == "checks":
        second = np.sin(u) * np.sin(v) > 0
    else:
        second = np.zeros((height, width), bool)
    colours = np.array([COLOURS[thing.colour], _second(thing.colour)], np.uint8)
    return np.asarray(colours[second.astype(np.intp)])
