"""Decoders whose answers are known: images in memory, seen by a network that only shrinks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.features import Pace
from nsdbench.inspection.evidence import Evidence, Reader, Training
from nsdbench.types import Reconstructions, Silent, Stimuli

SIDE = 32
SETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))


class Shrinking:
    """A feature network: the image at 6 x 6 pixels."""

    name, weights_id, weights_sha256, preprocessing_version, untrained = (
        "mini_clip", "shrinking", "0" * 64, 1, False,
    )  # fmt: skip

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        return {"image_embeds": torch.nn.functional.adaptive_avg_pool2d(images, 6).flatten(1)}


def pictures(n: int, seed: int) -> NDArray[np.uint8]:
    """Coarse noise, uint8 (n, SIDE, SIDE, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)


def stimuli_of(images: NDArray[np.uint8], ids: Sequence[str]) -> Stimuli:
    known = dict(zip(ids, images, strict=True))
    sets = tuple(name[0] if name in SETS else "core" for name in ids)
    return Stimuli(tuple(ids), sets, frozenset(ids), known.__getitem__, f"{hash(images.tobytes())}")


@dataclass(frozen=True)
class World:
    """Targets and training images, and evidence about decoders of them."""

    truth: NDArray[np.uint8]
    training: NDArray[np.uint8]
    ids: tuple[str, ...]
    cache: Path

    def evidence(self, made: NDArray[np.uint8]) -> Evidence:
        """``made`` holds reconstructions, (n_targets, n_samples, SIDE, SIDE, 3) or without samples."""
        if made.ndim == 4:
            made = made[:, None]
        reader = Reader("mini_clip", "nsdbench-v1", Shrinking(), self.cache, Pace(8), Silent())
        names = [f"img{i:05d}" for i in range(len(self.training))]
        training = Training(stimuli_of(self.training, names), tuple(names))
        return Evidence(
            reader, Reconstructions(made, self.ids), stimuli_of(self.truth, self.ids), lambda: training
        )


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    """``world(n)`` has n targets like 60 training images; ``world()`` the twelve of NSD-Imagery."""

    def build(n: int | None = None) -> World:
        ids = SETS if n is None else tuple(f"img{90000 + i}" for i in range(n))
        return World(pictures(len(ids), 1), pictures(60, 2), ids, tmp_path / "features")

    return build
