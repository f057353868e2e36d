"""What MindEye2 learns on some subjects helps it on another one with few trials: synthetic brains with one latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nsdbench.adapters.base import Context
from nsdbench.adapters.mindeye.examples import Targets
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig
from nsdbench.adapters.mindeye.mindeye2 import MINI, MindEye2, Settings
from nsdbench.adapters.mindeye.training import Plan
from nsdbench.adapters.mindeye.trunk import MindEye2Config, TrunkConfig
from nsdbench.adapters.nets.prior import PriorConfig
from nsdbench.types import Progress, Stimuli, Trials

LATENT, TOKENS, DIM = 12, 4, 16
IMAGES, FEW, HELD_OUT = 400, 40, 100
NOISE = 0.3

FORM = MindEye2Config(
    TrunkConfig(
        hidden=32,
        blocks=1,
        tokens=TOKENS,
        dim=DIM,
        projector=DIM,
        low_level=LowLevelConfig(2, 8, (8, 8), groups=4, maps_dim=8),
    ),
    PriorConfig(DIM, TOKENS, depth=1, heads=2, dim_head=8, steps=10, scale=1.0),
)


def latents(ids: Sequence[str]) -> NDArray[np.float64]:
    """What an image is in this world: the same numbers for every subject."""
    return np.array([np.random.default_rng(int(i[3:])).standard_normal(LATENT) for i in ids])


class Synthetic(MindEye2):
    """MindEye2 whose targets are fixed functions of the latent instead of features of pictures."""

    name = "synthetic"
    settings: ClassVar[dict[str, Settings]] = {
        "retrained": replace(
            MINI, model=FORM, plan=Plan(12, 10, 3e-3), shared_plan=Plan(12, 10, 3e-3), tuned="all"
        )
    }

    def targets(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress) -> Targets:
        rng = np.random.default_rng(1)
        shapes = ((TOKENS, DIM), (4, 4, 4), (2, 4, 8))
        maps = [rng.standard_normal((LATENT, int(np.prod(shape)))) / LATENT**0.5 for shape in shapes]
        found = [
            np.tanh(2 * latents(ids) @ m).reshape(-1, *shape) for m, shape in zip(maps, shapes, strict=True)
        ]
        return Targets(*(values.astype(np.float32) for values in found))


def trials(subject: int, first: int, n: int, split: str = "train") -> Trials:
    """Betas of ``n`` images: a linear map of the latent that is the subject's own, and noise."""
    rng = np.random.default_rng([subject, first])
    ids = np.array([f"img{i:05d}" for i in range(first, first + n)])
    voxels = 40 + 5 * subject
    own = np.random.default_rng(subject).standard_normal((LATENT, voxels)) / LATENT**0.5
    betas = latents(ids.tolist()) @ own + NOISE * rng.standard_normal((n, voxels))
    zeros = np.zeros(n, np.int64)
    return Trials(betas.astype(np.float32), ids, split, np.full(n, "core"), zeros, zeros, subject, {})


def stimuli(of: Trials) -> Stimuli:
    return Stimuli(
        of.targets, ("core",) * len(of.targets), frozenset(of.targets), lambda _: np.zeros(0, np.uint8), ""
    )


def retrieval(decoder: MindEye2, subject: int) -> float:
    """Share of held-out images that are found by what was decoded from one trial of each."""
    shown = trials(subject, 90_000, HELD_OUT, "shared1000")
    found = decoder.predict(shown).wanted.reshape(HELD_OUT, -1)
    true = decoder.targets(stimuli(shown), shown.targets, None).tokens.reshape(HELD_OUT, -1)  # type: ignore[arg-type]
    found, true = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (found, true))
    return float(((found @ true.T).argmax(1) == np.arange(HELD_OUT)).mean())


def fitted(start: Path | None = None) -> MindEye2:
    decoder, train = Synthetic("retrained", Context(start=start)), trials(4, 50_000, FEW)
    decoder.fit(train, stimuli(train))
    return decoder


def test_a_start_from_other_subjects_beats_a_fit_from_scratch_on_a_tenth_of_the_trials(
    tmp_path: Path,
) -> None:
    parts = [trials(subject, 10_000 * subject, IMAGES) for subject in (1, 2, 3)]
    Synthetic("retrained").pretrain([(part, stimuli(part)) for part in parts], tmp_path)
    from_scratch, tuned = retrieval(fitted(), 4), retrieval(fitted(tmp_path), 4)
    assert from_scratch < 0.1  # chance is .01
    assert tuned > from_scratch + 0.1
