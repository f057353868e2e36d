"""Simulated scenes with labels and captions for training, apart from every image of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.nets.shipped import FOLDER
from nsdbench.metrics.profiles import DEFAULT, MINI_SIZE, profile
from nsdbench.metrics.resize import Views
from nsdbench.sim import SIM_VERSION
from nsdbench.sim.scenes import Scene, captions, render_scene, sample_scene
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.sim.vocabulary import BACKGROUNDS, CATEGORIES, COLOURS
from nsdbench.store import atomic_path, digest
from nsdbench.types import Progress, Stimuli

LABELS = {"category": CATEGORIES, "background": BACKGROUNDS, "colour": tuple(COLOURS)}
"""What is asked about a scene and its possible answers; category and colour are those of the main object."""
PARTS = {"train": 0, "held_out": 1}
CHUNK = 64


@dataclass(frozen=True)
class Corpus:
    """Scenes of one part.

    Attributes
    ----------
    images : uint8 array of shape (n, S, S, 3)
        RGB at the input size of the miniature networks, resized as the canonical metric profile does it.
    labels : mapping of str to int64 array of shape (n,)
        Index into :data:`LABELS` of every scene.
    captions : str array of shape (n, 5)
    folder : Path
        Where the scenes are cached, and what is computed from them.
    weights : Path
        Folder of the networks that are trained already, for those that build on them.
    """

    images: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]
    captions: NDArray[np.str_]
    folder: Path
    weights: Path = FOLDER

    def __len__(self) -> int:
        return len(self.images)


def native(part: str, index: int, seed: int) -> tuple[Scene, NDArray[np.uint8]]:
    """Return scene ``index`` of ``part`` and its picture at the native size of stimuli."""
    rng = stream(seed, Purpose.PRETRAINING, PARTS[part], index)
    scene = sample_scene(rng)
    return scene, render_scene(scene, rng).image


def corpus(part: str, n: int, seed: int, folder: Path, progress: Progress) -> Corpus:
    """Return the first ``n`` scenes of ``part``, read from ``folder`` or rendered into it.

    The file is named by a hash of all that determines it.

    Parameters
    ----------
    part : {"train", "held_out"}
    n : int
        Number of scenes.
    seed : int
        Seed of the stream :attr:`~nsdbench.sim.seeds.Purpose.PRETRAINING`.
    folder : Path
        Cache folder.
    progress : Progress
        Told about every 64 scenes.
    """
    path = folder / f"scenes-{part}-{digest('pretraining/1', SIM_VERSION, part, n, seed, MINI_SIZE)}.npz"
    if not path.exists():
        with atomic_path(path) as temporary:
            np.savez(temporary, **_render(part, n, seed, progress))  # type: ignore[arg-type]
    with np.load(path, allow_pickle=False) as found:
        return Corpus(found["images"], {name: found[name] for name in LABELS}, found["captions"], folder)


def _render(part: str, n: int, seed: int, progress: Progress) -> dict[str, NDArray[np.generic]]:
    images = np.empty((n, MINI_SIZE, MINI_SIZE, 3), np.uint8)
    labels = {name: np.empty(n, np.int64) for name in LABELS}
    words: list[tuple[str, ...]] = []
    for start in progress.track(range(0, n, CHUNK), f"{part} scenes"):
        drawn = [native(part, i, seed) for i in range(start, min(start + CHUNK, n))]
        views = Views([image for _, image in drawn], profile(DEFAULT), truth=True).at(MINI_SIZE)
        images[start : start + len(drawn)] = (views * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for i, (scene, _) in enumerate(drawn, start):
            answers = (scene.main.category, scene.background, scene.main.colour)
            for (name, options), answer in zip(LABELS.items(), answers, strict=True):
                labels[name][i] = options.index(answer)
            words.append(captions(scene))
    return {"images": images, **labels, "captions": np.array(words)}


def held_out_stimuli(n: int, seed: int) -> Stimuli:
    """Return the first ``n`` held-out scenes at native size as stimuli ``scene0000`` ..., with their captions."""
    drawn = [native("held_out", i, seed) for i in range(n)]
    ids = tuple(f"scene{i:04d}" for i in range(n))
    images = {name: image for name, (_, image) in zip(ids, drawn, strict=True)}
    return Stimuli(
        ids=ids,
        stimulus_set=("core",) * n,
        captions={name: captions(scene) for name, (scene, _) in zip(ids, drawn, strict=True)},
        cues={},
        has_image=frozenset(ids),
        read_image=images.__getitem__,
        content_hash="held-out scenes",
    )
