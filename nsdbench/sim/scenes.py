"""Random scenes: what is in them, how they look, and what people would say about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nsdbench.sim.backgrounds import draw_background
from nsdbench.sim.objects import Thing, paint
from nsdbench.sim.vocabulary import (
    BACKGROUNDS,
    CATEGORY_TABLE,
    FLYING,
    NATURAL,
    PLAUSIBLE,
    TEXTURE_SHARES,
    TEXTURES,
)

SIDE = 112
"""Native side of a stimulus in pixels; the real ones have 425, so a loader must read it from the file."""
COVERAGE_SIDE = 8


@dataclass(frozen=True)
class Wish:
    """What a scene must contain; None leaves the choice to chance."""

    background: str | None = None
    categories: tuple[str, ...] = ()
    colour: str | None = None
    texture: str | None = None


@dataclass(frozen=True)
class Scene:
    """Content of one image. ``things`` go from back to front, the main object last."""

    background: str
    horizon: float
    things: tuple[Thing, ...]
    gain: float
    slant: float

    @property
    def main(self) -> Thing:
        """The large object near the centre."""
        return self.things[-1]


@dataclass(frozen=True)
class Picture:
    """A rendered scene.

    Attributes
    ----------
    image : uint8 array of shape (112, 112, 3)
    coverage : float32 array of shape (n_things, 8, 8)
        Share of each cell that the visible part of each thing covers.
    """

    image: NDArray[np.uint8]
    coverage: NDArray[np.float32]


def sample_scene(rng: np.random.Generator, wish: Wish | None = None) -> Scene:
    """Draw the content of a scene, subject to ``wish``."""
    wish = wish or Wish()
    background, category = _where_and_what(rng, wish)
    horizon = float(rng.uniform(0.35, 0.60))
    things = [_thing(rng, category, horizon, main=True, wish=wish)]
    for _ in range(int(rng.choice(3, p=(0.45, 0.35, 0.20)))):
        companion = str(rng.choice(PLAUSIBLE[background]))
        things.insert(0, _thing(rng, companion, horizon, main=False, wish=Wish()))
    return Scene(
        background, horizon, tuple(things), float(rng.uniform(0.85, 1.10)), float(rng.uniform(-0.14, 0.14))
    )


def _where_and_what(rng: np.random.Generator, wish: Wish) -> tuple[str, str]:
    wanted = wish.categories or tuple(
        c for c, (_, colours, _) in CATEGORY_TABLE.items() if wish.colour is None or wish.colour in colours
    )
    places = [b for b in BACKGROUNDS if set(PLAUSIBLE[b]) & set(wanted)]
    background = wish.background or str(rng.choice(places))
    here = [c for c in PLAUSIBLE[background] if c in wanted] or list(wanted)
    return background, str(rng.choice(here))


def _thing(rng: np.random.Generator, category: str, horizon: float, *, main: bool, wish: Wish) -> Thing:
    _, colours, aspect = CATEGORY_TABLE[category]
    longest = rng.uniform(0.42, 0.72) if main else rng.uniform(0.20, 0.36)
    width, height = (longest, longest / aspect) if aspect > 1 else (longest * aspect, longest)
    x = (
        rng.normal(0.5, 0.06)
        if main
        else (rng.uniform(0.10, 0.26), rng.uniform(0.74, 0.90))[int(rng.integers(2))]
    )
    if category in FLYING:
        y = rng.uniform(0.30, 0.45) if main else rng.uniform(0.12, max(0.2, horizon - 0.1))
    elif main:
        y = min(rng.normal(0.57, 0.04), 0.97 - height / 2)
    else:  # stands on the ground behind the main object
        y = rng.uniform(horizon + 0.04, horizon + 0.25) - height / 2 + 0.05
    texture = wish.texture or _texture(rng, category)
    return Thing(
        category=category,
        colour=wish.colour or str(rng.choice(colours)),
        texture=texture,
        box=(float(x - width / 2), float(y - height / 2), float(width), float(height)),
        flip=bool(rng.random() < 0.5),
        period=float(rng.uniform(0.13, 0.24)) if texture != "stripes" else float(rng.uniform(0.10, 0.18)),
        angle=float(rng.uniform(-0.4, 0.4)),
    )


def _texture(rng: np.random.Generator, category: str) -> str:
    drawn = str(rng.choice(TEXTURES, p=TEXTURE_SHARES))
    if category == "zebra":
        return "stripes"
    if category in NATURAL and category != "person":
        return "plain" if rng.random() < 0.6 else drawn
    return drawn


def render_scene(scene: Scene, rng: np.random.Generator) -> Picture:
    """Draw ``scene`` at twice its size, reduce it, and add lighting and pixel noise."""
    canvas = draw_background(scene.background, scene.horizon, SIDE, rng)
    masks = [paint(canvas, thing) for thing in scene.things]
    light = scene.gain * (1 + scene.slant * np.linspace(-1, 1, SIDE, dtype=np.float32))
    pixels = np.asarray(canvas.reduce(2), np.float32) * light[None, :, None].astype(np.float32)
    pixels += 3 * rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32)
    return Picture(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), _visible(masks))


def _visible(masks: list[Image.Image]) -> NDArray[np.float32]:
    """Return the 8 x 8 coverage of each mask after removing what later masks hide."""
    block = 2 * SIDE // COVERAGE_SIDE
    seen = np.stack([np.asarray(mask) for mask in masks]) > 127
    for behind in range(len(masks) - 1):
        seen[behind] &= ~seen[behind + 1 :].any(axis=0)
    cells = seen.reshape(len(masks), COVERAGE_SIDE, block, COVERAGE_SIDE, block)
    return np.asarray(cells.mean(axis=(2, 4)), np.float32)


def captions(scene: Scene) -> tuple[str, ...]:
    """Return five captions: five sentence patterns, from specific to plain."""
    main, where = scene.main, scene.background
    size = "large" if max(main.box[2:]) > 0.6 else "medium" if max(main.box[2:]) > 0.5 else "small"
    surface = {"plain": "", "stripes": "striped ", "dots": "dotted ", "checks": "checked "}[main.texture]
    others = scene.things[:-1]
    second = f" and {_a(f'{others[-1].colour} {others[-1].category}')}" if others else ""
    beside = f"{_a(others[-1].category)} behind {_a(main.category)}" if others else f"one {main.category}"
    place = {"room": "in a room", "table": "on a table", "street": "on a street", "night": "at night"}.get(
        where, f"in the {where}" if where in ("forest", "snow", "field") else f"by the {where}"
    )
    return (
        f"a {size} {surface}{main.colour} {main.category} {place}",
        f"{_a(f'{main.colour} {main.category}')}{second} {place}",
        f"{beside} {place}",
        f"{_a(f'{surface}{main.category}')} with {_a(where)} background",
        f"a picture of {_a(f'{main.colour} {main.category}')}",
    )


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def instances(scene: Scene) -> list[dict[str, Any]]:
    """Return the instances, COCO-like: category, colour, texture and box (left, top, width, height in pixels)."""
    return [
        {
            "category": t.category,
            "colour": t.colour,
            "texture": t.texture,
            "box": [round(v * SIDE, 1) for v in t.box],
        }
        for t in scene.things
    ]
