"""Time of MindEye2's stages against the naive procedure, both measured in this run on the same networks.

Naive is what the published notebooks do: every repeat of a target goes through all mixer blocks, and every sample of a
target is drawn and decoded on its own. Here the dead half of the mixer is skipped, and the samples of a target go
through the networks together. The trunk is that of the published model with a narrower output; the stages are those of
the miniature on random tokens, so the ratios are about the bookkeeping, not about any published network. The mixer
holds 7 % of the published trunk's weights; the rest of a pass costs the same both ways. One thread.

Run ``python benchmarks/mindeye_speed.py``; it takes about a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from ratio import Ratio

from nsdbench.adapters.mindeye.decoder import Features
from nsdbench.adapters.mindeye.mindeye2 import BRAIN, MINI, MindEye2
from nsdbench.adapters.mindeye.trunk import Trunk, TrunkConfig

REPEATS, SAMPLES, TARGETS = 16, 10, 3


class OneByOne(MindEye2):
    """The miniature with one sample at a time."""

    name = "mindeye2_one_by_one"
    settings = {"mini": replace(MINI, at_once=1)}  # noqa: RUF012


def fastest(run: Callable[[], object], times: int = 3) -> float:
    """Return the seconds of the fastest of a few runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def trunk(repeats: int) -> tuple[float, float]:
    """Return seconds of the mixer for the repeats of a target, in full and without its dead half."""
    network = Trunk(TrunkConfig(tokens=1, dim=64, projector=64)).eval()
    hidden = torch.randn(repeats, 1, network.config.hidden)

    def mixed(fast: bool) -> float:
        network.fast = fast
        with torch.no_grad():
            return fastest(lambda: network.mixed(hidden))

    return mixed(False), mixed(True)


def samples(n_samples: int) -> tuple[float, float]:
    """Return seconds for the samples of a few targets, one by one and together."""
    decoders = OneByOne("mini"), MindEye2("mini")
    form = MINI.model.trunk
    rng = np.random.default_rng(0)
    shape = (TARGETS, form.tokens, form.dim)
    tokens = rng.standard_normal(shape, np.float32) * form.dim**-0.5
    latents = rng.standard_normal((TARGETS, 4, 8, 8), np.float32)
    features = Features(tokens, tokens, latents, decoded=True)
    names = tuple(f"A{i}" for i in range(TARGETS))
    for decoder in decoders:
        decoder.brains = {BRAIN: decoder.network([8]).eval()}
        decoder.render(features, names, 1, 0)  # loads the networks
    alone, together = (fastest(lambda d=d: d.render(features, names, n_samples, 0), 2) for d in decoders)  # type: ignore[misc]
    return alone, together


def ratios(*, short: bool) -> Iterator[Ratio]:
    """Time both stages on one thread; ``short`` takes two samples and two repeats."""
    torch.set_num_threads(1)
    n_repeats, n_samples = (2, 2) if short else (REPEATS, SAMPLES)
    naive, ours = trunk(n_repeats)
    yield Ratio(
        "MindEye2, mixer",
        "seconds of the mixer for the repeats of a target in full, over ours without the half that no output depends on",
        naive / ours,
        note=f"{n_repeats} repeats, published width, one thread; {naive:.3f} s over {ours:.3f} s",
    )
    naive, ours = samples(n_samples)
    yield Ratio(
        "MindEye2, samples of a target",
        "seconds for the samples of a few targets one by one, over ours together",
        naive / ours,
        note=f"{n_samples} samples of {TARGETS} targets, miniature, one thread; {naive:.2f} s over {ours:.2f} s",
    )


def main() -> None:
    """Print both ratios."""
    for ratio in ratios(short=False):
        print(ratio)


if __name__ == "__main__":
    main()
