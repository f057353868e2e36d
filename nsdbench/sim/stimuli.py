"""Which pictures exist, in which row of ``imgBrick`` each lies, and how a block of them is rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nsdbench.sim.config import SimConfig
from nsdbench.sim.features import Features, low_level, semantic
from nsdbench.sim.scenes import Scene, Wish, render_scene, sample_scene
from nsdbench.sim.seeds import Purpose, stream

CODE_LENGTH = 300
SHARED = 0
"""Owner number of the images that all subjects see."""
EXTRA = 100
"""Owner number of the targets that are in no core set (bars, crosses, artwork)."""
N_SET_B = 5
N_EXEMPLARS = 8
SET_B = (
    Wish("sea", ("person",)),
    Wish("sea", ("boat",)),
    Wish("forest", ("bird",)),
    Wish("mountain", ("house",)),
    Wish("table", ("donut",)),
)
CONCEPTS = {
    "stripes": Wish(categories=("car", "bus", "chair", "umbrella", "ball", "cup", "boat"), texture="stripes"),
    "zebra": Wish(categories=("zebra",)),
    "mammal": Wish(categories=("dog", "cat", "cow")),
    "yellow": Wish(colour="yellow", texture="plain"),
    "banana": Wish(categories=("banana",), colour="yellow", texture="plain"),
    "fruit": Wish(categories=("apple", "orange", "banana")),
}


@dataclass(frozen=True, order=True)
class ImageKey:
    """Identity of a picture that does not depend on the preset: ``owner`` is a subject or ``SHARED``."""

    owner: int
    index: int


def brick_order(config: SimConfig) -> list[ImageKey]:
    """Return the image of each ``imgBrick`` row. Rows are shuffled, so that no id equals another by accident."""
    sizes = config.sizes
    keys = [ImageKey(SHARED, i) for i in range(sizes.n_shared)]
    keys += [ImageKey(s, i) for s in config.effective_subjects for i in range(sizes.n_own)]
    return [keys[i] for i in stream(config.seed, Purpose.BRICK).permutation(len(keys))]


def wish_for(key: ImageKey) -> Wish:
    """Return what the image must show: the first shared images are set B and the exemplars of set C."""
    if key.owner != SHARED:
        return Wish()
    if key.index < N_SET_B:
        return SET_B[key.index]
    concept = (key.index - N_SET_B) // N_EXEMPLARS
    return list(CONCEPTS.values())[concept] if concept < len(CONCEPTS) else Wish()


def exemplars(concept: int) -> NDArray[np.int64]:
    """Return the shared image numbers (0-based) that satisfy set C concept ``concept`` (0-based)."""
    return N_SET_B + N_EXEMPLARS * concept + np.arange(N_EXEMPLARS)


@dataclass(frozen=True)
class Rendered:
    """A block of rendered images: pixels (n, 112, 112, 3), features, content."""

    images: NDArray[np.uint8]
    features: Features
    scenes: tuple[Scene, ...]


def render_block(seed: int, keys: list[ImageKey]) -> Rendered:
    """Render ``keys``. Every image has a random stream of its own, so blocks may be cut anywhere."""
    scenes, images, maps, backgrounds = [], [], [], []
    for key in keys:
        rng = stream(seed, Purpose.SCENE, key.owner, key.index)
        scene = sample_scene(rng, wish_for(key))
        picture = render_scene(scene, rng)
        cells, background = semantic(scene, picture.coverage)
        scenes.append(scene)
        images.append(picture.image)
        maps.append(cells)
        backgrounds.append(background)
    pixels = np.stack(images)
    with threadpool_limits(1):  # the order of float sums must not depend on the machine
        low = low_level(pixels)
    return Rendered(pixels, Features(low, np.stack(maps), np.stack(backgrounds)), tuple(scenes))


def codes(seed: int, keys: list[ImageKey]) -> NDArray[np.float32]:
    """Return the random codes (n, 300) behind what the encoding features do not explain."""
    return np.stack(
        [stream(seed, Purpose.CODE, k.owner, k.index).standard_normal(CODE_LENGTH, np.float32) for k in keys]
    )
