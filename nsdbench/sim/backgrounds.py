"""Ten backgrounds: two colour zones with 1/f texture, and the landmarks that make each recognisable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nsdbench.sim.vocabulary import RGB

Draw = ImageDraw.ImageDraw
EXPONENTS = (0.6, 1.0, 1.4)


@dataclass(frozen=True)
class Zones:
    """Colours above and below the horizon, and the standard deviation of their texture in grey levels."""

    upper: tuple[RGB, ...]
    lower: tuple[RGB, ...]
    roughness: tuple[float, float]


ZONES: dict[str, Zones] = {
    "beach": Zones(((140, 205, 235), (120, 190, 230)), ((232, 210, 155), (220, 196, 140)), (5, 11)),
    "sea": Zones(((165, 205, 235), (190, 200, 225)), ((28, 85, 150), (30, 110, 140)), (6, 16)),
    "field": Zones(((135, 180, 235), (170, 205, 240)), ((85, 160, 55), (120, 165, 60)), (7, 20)),
    "forest": Zones(((52, 88, 48), (62, 100, 66)), ((72, 82, 40), (92, 78, 48)), (20, 18)),
    "mountain": Zones(((165, 195, 225), (200, 205, 220)), ((105, 135, 75), (120, 120, 95)), (7, 18)),
    "snow": Zones(((178, 190, 212), (150, 175, 210)), ((238, 242, 250), (225, 232, 245)), (6, 7)),
    "street": Zones(((195, 205, 215), (215, 205, 190)), ((105, 105, 112), (125, 118, 112)), (6, 10)),
    "room": Zones(
        ((222, 190, 175), (190, 205, 185), (205, 200, 225)), ((130, 82, 60), (150, 105, 75)), (5, 12)
    ),
    "table": Zones(
        ((128, 92, 108), (90, 108, 120), (150, 140, 125)), ((178, 135, 88), (160, 112, 70)), (6, 12)
    ),
    "night": Zones(((14, 18, 52), (24, 20, 60)), ((42, 34, 46), (30, 40, 38)), (5, 10)),
}


def pink_noise(rng: np.random.Generator, side: int, exponent: float, streaked: bool) -> NDArray[np.float32]:
    """Return noise of shape (side, side) with amplitude spectrum 1/f**exponent, mean 0 and sd 1.

    Streaked noise varies four times more slowly along the rows.
    """
    fy = np.fft.fftfreq(side)[:, None] * side
    fx = np.fft.rfftfreq(side)[None, :] * side * (4.0 if streaked else 1.0)
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    amplitude = radius**-exponent
    amplitude[0, 0] = 0.0
    white = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    noise = np.fft.irfft2((white[0] + 1j * white[1]) * amplitude, s=(side, side))
    return np.asarray(noise / noise.std(), np.float32)


def draw_background(name: str, horizon: float, side: int, rng: np.random.Generator) -> Image.Image:
    """Return the background ``name`` as an RGB image of ``2 * side`` pixels; ``horizon`` is a fraction of the height."""
    zones = ZONES[name]
    exponent = EXPONENTS[int(rng.integers(3))]
    noise = pink_noise(rng, side, exponent, bool(rng.random() < 0.25) or name == "sea")
    below = np.arange(side) >= horizon * side
    colours = [
        np.array(zone[int(rng.integers(len(zone)))]) + rng.normal(0, 8, 3)
        for zone in (zones.upper, zones.lower)
    ]
    rough = np.where(below, zones.roughness[1], zones.roughness[0]).astype(np.float32)
    flat = np.where(below[:, None], colours[1], colours[0]).astype(np.float32)
    if name not in ("room", "table"):  # indoors, walls and floors are even
        depth = np.linspace(-10, 10, side, dtype=np.float32) * np.where(below, -1.0, 1.0)
        flat += depth[:, None].astype(np.float32)
    pixels = flat[:, None, :] + (noise * rough[:, None])[:, :, None]
    small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    canvas = small.resize((2 * side, 2 * side), Image.Resampling.NEAREST)
    LANDMARKS[name](ImageDraw.Draw(canvas), 2 * side, horizon * 2 * side, rng)
    return canvas


def _disc(draw: Draw, x: float, y: float, radius: float, fill: RGB) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _sun(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    _disc(draw, rng.uniform(0.08, 0.92) * side, rng.uniform(0.1, 0.5) * horizon, 0.06 * side, (255, 244, 180))


def _beach(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    top = horizon - 0.16 * side
    draw.rectangle((0, top, side, horizon), fill=(38, 128, 165))
    for _ in range(5):
        x, y = rng.uniform(0, side), rng.uniform(top + 6, horizon - 4)
        draw.line((x - 0.09 * side, y, x + 0.09 * side, y), fill=(90, 170, 195), width=2)
    wave = [(x, horizon + 2.5 * np.sin(x / 9)) for x in range(0, side + 8, 8)]
    draw.line(wave, fill=(245, 250, 250), width=5)
    _sun(draw, side, top, rng)


def _sea(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for _ in range(14):
        x, y = rng.uniform(0, side), rng.uniform(horizon + 4, side)
        reach = 0.03 * side + 0.12 * (y - horizon)
        draw.arc((x - reach, y - 5, x + reach, y + 5), 200, 340, fill=(195, 220, 235), width=2)
    _sun(draw, side, horizon, rng)


def _field(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for _ in range(26):
        x, y = rng.uniform(0, side), rng.uniform(horizon + 6, side)
        draw.line((x, y, x + rng.uniform(-3, 3), y - 8), fill=(55, 120, 35), width=2)
    for _ in range(3):
        x, y = rng.uniform(0, side), rng.uniform(0.15, 0.55) * horizon
        for shift in (-0.06, 0.0, 0.06):
            _disc(draw, x + shift * side, y, 0.045 * side, (240, 244, 250))
    _sun(draw, side, horizon, rng)


def _forest(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for x in np.linspace(0.04, 0.96, 8) * side + rng.uniform(-8, 8, 8):
        width, foot = rng.uniform(0.02, 0.04) * side, horizon + rng.uniform(0, 0.12) * side
        draw.rectangle((x - width, 0, x + width, foot), fill=(72, 50, 34))
        draw.line((x - width * 0.4, 0, x - width * 0.4, foot), fill=(98, 72, 50), width=2)
    for x in np.linspace(0, side, 9) + rng.uniform(-8, 8, 9):
        green = int(rng.integers(75, 125))
        _disc(draw, x, rng.uniform(-0.03, 0.07) * side, 0.1 * side, (35, green, 40))


def _mountain(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for x in (np.array([0.15, 0.5, 0.85]) + rng.uniform(-0.1, 0.1, 3)) * side:
        height, reach = rng.uniform(0.6, 0.95) * horizon, rng.uniform(0.22, 0.34) * side
        peak, grey = horizon - height, int(rng.integers(85, 120))
        draw.polygon(((x - reach, horizon), (x, peak), (x + reach, horizon)), fill=(grey, grey, grey + 12))
        draw.polygon(
            ((x, peak), (x + reach, horizon), (x + 0.3 * reach, horizon)),
            fill=(grey - 22, grey - 22, grey - 8),
        )
        a, b = x - 0.3 * reach, x + 0.3 * reach
        cap, dent = peak + 0.3 * height, peak + 0.22 * height
        draw.polygon(
            ((a, cap), (x, peak), (b, cap), (x + 0.1 * reach, dent), (x - 0.1 * reach, cap)),
            fill=(246, 248, 252),
        )


def _snow(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for x in (np.array([0.06, 0.22, 0.78, 0.93]) + rng.uniform(-0.06, 0.06, 4)) * side:
        foot = horizon + rng.uniform(0.0, 0.08) * side
        for level, reach in ((0.0, 0.08), (0.09, 0.065), (0.18, 0.045)):
            low = foot - level * side
            draw.polygon(
                ((x - reach * side, low), (x, low - 0.14 * side), (x + reach * side, low)), fill=(38, 82, 66)
            )
        draw.polygon(
            (
                (x - 0.02 * side, foot - 0.28 * side),
                (x, foot - 0.33 * side),
                (x + 0.02 * side, foot - 0.28 * side),
            ),
            fill=(250, 252, 255),
        )
    for x, y in rng.uniform(0, side, (40, 2)):
        _disc(draw, x, y, 2, (252, 253, 255))


def _street(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    x = 0.0
    while x < side:
        width, top = rng.uniform(0.14, 0.24) * side, rng.uniform(0.08, 0.5) * horizon
        fill = ((150, 92, 78), (120, 132, 150), (168, 150, 122), (138, 118, 140), (112, 142, 122))[
            int(rng.integers(5))
        ]
        draw.rectangle((x, top, x + width, horizon), fill=fill)
        for wx in np.arange(x + 6, x + width - 8, 14):
            for wy in np.arange(top + 8, horizon - 10, 18):
                draw.rectangle(
                    (wx, wy, wx + 6, wy + 9), fill=(238, 226, 165) if rng.random() < 0.6 else (70, 80, 100)
                )
        x += width + 1
    draw.rectangle((0, horizon, side, horizon + 0.05 * side), fill=(178, 174, 168))
    for x0 in np.arange(-0.05, 1.0, 0.25) * side:
        y0 = horizon + 0.62 * (side - horizon)
        draw.rectangle((x0, y0, x0 + 0.13 * side, y0 + 4), fill=(238, 232, 205))


def _room(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for y in np.linspace(horizon, side, 5)[1:-1]:
        draw.line((0, y, side, y), fill=(96, 60, 42), width=2)
    draw.rectangle((0, horizon - 5, side, horizon), fill=(245, 240, 230))
    x, y, w, h = rng.uniform(0.05, 0.15) * side, 0.08 * side, 0.22 * side, 0.17 * side
    tone = tuple(int(v) for v in rng.integers(60, 210, 3))
    draw.rectangle((x, y, x + w, y + h), fill=(tone[0], tone[1], tone[2]), outline=(88, 58, 36), width=5)
    x = rng.uniform(0.66, 0.74) * side
    draw.rectangle((x, y, x + w, y + 1.3 * h), fill=(188, 220, 242), outline=(250, 250, 246), width=5)
    draw.line((x + w / 2, y, x + w / 2, y + 1.3 * h), fill=(250, 250, 246), width=4)


def _table(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    draw.rectangle((0, horizon, side, horizon + 6), fill=(96, 62, 38))
    for y in np.linspace(horizon, side, 4)[1:-1]:
        draw.line((0, y, side, y), fill=(128, 88, 52), width=2)
    middle, reach = rng.uniform(0.42, 0.58) * side, 0.40 * side
    y = horizon + 0.66 * (side - horizon)
    draw.ellipse(
        (middle - reach, y - 0.13 * side, middle + reach, y + 0.13 * side),
        fill=(238, 238, 234),
        outline=(190, 195, 205),
        width=4,
    )


def _night(draw: Draw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for x, y in rng.uniform(0, 1, (28, 2)):
        _disc(draw, x * side, y * (horizon - 6), 1.5, (238, 238, 215))
    x, y = rng.uniform(0.1, 0.9) * side, rng.uniform(0.2, 0.5) * horizon
    _disc(draw, x, y, 0.075 * side, (244, 240, 205))
    for dx, dy, radius in ((-0.02, -0.015, 0.015), (0.02, 0.01, 0.02), (-0.01, 0.035, 0.012)):
        _disc(draw, x + dx * side, y + dy * side, radius * side, (214, 208, 172))
    skyline = np.arange(0, side + 16, 16)
    heights = horizon - rng.uniform(0.0, 0.07, len(skyline)) * side
    hills = [(float(x), float(y)) for x, y in zip(skyline, heights, strict=True)]
    draw.polygon([(0.0, horizon + 2), *hills, (float(side), horizon + 2)], fill=(18, 16, 28))


LANDMARKS: dict[str, Callable[[Draw, int, float, np.random.Generator], None]] = {
    "beach": _beach,
    "sea": _sea,
    "field": _field,
    "forest": _forest,
    "mountain": _mountain,
    "snow": _snow,
    "street": _street,
    "room": _room,
    "table": _table,
    "night": _night,
}
