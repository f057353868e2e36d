"""Time of scoring against the naive procedure, both measured in this run on the same images and networks.

The naive procedure is what evaluation notebooks do: every metric resizes the images and runs its own network over
reconstructions and ground truths, again for every sample, and correlates with ``np.corrcoef`` of the stacked
features. The networks are small and random, so the ratio is about the bookkeeping, not about any real network.

Run ``python benchmarks/score_speed.py``; it takes well under a minute.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nsdbench.metrics import registry
from nsdbench.metrics.metric import ByCorrelation
from nsdbench.metrics.profiles import PROFILES, Profile
from nsdbench.metrics.resize import Views
from nsdbench.schema import RunKey
from nsdbench.scoring import ScoreSettings, score
from nsdbench.types import Reconstructions, Stimuli

METRICS = ("alexnet2", "alexnet5", "inception", "clip", "effnet", "swav")
NODES = {
    "alexnet": ("features.4", "features.11"),
    "inception": ("avgpool",),
    "clip": ("image_embeds",),
    "effnet": ("avgpool",),
    "swav": ("avgpool",),
}
TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
N_SAMPLES = 5
SIDE = 256


class SmallNet:
    """Three random convolutions under the node names of a real network."""

    weights_id, weights_sha256, preprocessing_version, untrained = "small", "0" * 64, 1, True

    def __init__(self, name: str) -> None:
        self.name = name
        with torch.random.fork_rng():
            torch.manual_seed(len(name))
            self._stem = nn.Sequential(nn.Conv2d(3, 64, 7, 4), nn.ReLU(), nn.Conv2d(64, 192, 3, 2), nn.ReLU())
            self._head = nn.Sequential(nn.Conv2d(192, 256, 3, 2), nn.ReLU())

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        stem = self._stem(images)
        head = self._head(stem)
        outputs = (stem, head) if self.name == "alexnet" else (head.mean(dim=(2, 3)),)
        return dict(zip(NODES[self.name], outputs, strict=True))


def naive(
    recon: Reconstructions, stimuli: Stimuli, nets: Mapping[str, SmallNet], profile: Profile
) -> dict[str, Tensor]:
    """Return R per metric, shape (12, 12, n_samples), sharing nothing between metrics and samples."""
    found = {}
    for name in METRICS:
        metric = registry.load(name)
        assert isinstance(metric, ByCorrelation)
        net, size = nets[metric.features.source], profile.net_size(metric.features.source)
        samples = []
        for sample in range(N_SAMPLES):
            truth = Views([stimuli.image(t) for t in TARGETS], profile, truth=True).at(size)
            images = Views(list(recon.images[:, sample]), profile, truth=False).at(size)
            features = [net(batch)[metric.features.nodes[0]].flatten(1).numpy() for batch in (truth, images)]
            samples.append(np.corrcoef(np.vstack(features))[: len(TARGETS), len(TARGETS) :])
        found[name] = torch.from_numpy(np.stack(samples, axis=2))
    return found


def main() -> None:
    """Print both times, their ratio, and the largest difference between the two results."""
    rng = np.random.default_rng(0)
    pictures: dict[str, NDArray[np.uint8]] = {
        t: rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for t in TARGETS
    }
    stimuli = Stimuli(
        TARGETS, tuple(t[0] for t in TARGETS), frozenset(TARGETS), pictures.__getitem__, "benchmark"
    )
    noise = rng.integers(0, 128, (len(TARGETS), N_SAMPLES, SIDE, SIDE, 3))
    mixed = noise + np.stack([pictures[t] for t in TARGETS])[:, None] // 2
    recon = Reconstructions(mixed.astype(np.uint8), TARGETS)
    nets = {name: SmallNet(name) for name in NODES}
    key = RunKey("benchmark", "noise", "none", "none", 1, "vision")

    start = time.perf_counter()
    plain = naive(recon, stimuli, nets, PROFILES["nsdbench-v1"])
    naive_seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as cache:
        settings = ScoreSettings(metrics=METRICS, cache=Path(cache))
        score(recon, stimuli, key, settings=settings, nets=nets)  # fills the cache, as an earlier model would
        start = time.perf_counter()
        scored = score(recon, stimuli, key, settings=settings, nets=nets)
        seconds = time.perf_counter() - start
    difference = max(float(np.abs(plain[m].numpy() - scored.similarity[m]).max()) for m in METRICS)
    print(
        f"{recon.n_targets * N_SAMPLES} reconstructions, {len(METRICS)} metrics, {torch.get_num_threads()} threads"
    )
    print(
        f"naive {naive_seconds:.2f} s, nsdbench {seconds:.2f} s: {naive_seconds / seconds:.1f} times faster"
    )
    print(f"largest difference of a correlation: {difference:.1e}")


if __name__ == "__main__":
    main()
