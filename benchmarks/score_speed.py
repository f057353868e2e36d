"""Time of scoring against the published procedure: same images, same networks at full size, same run.

The published procedure is what evaluation notebooks do. Every metric prepares all images of the evaluation anew and
sends the reconstructions, and the ground truths, through its network in one batch each; for every sample again. Two
layers of AlexNet are two passes. Identification takes ``np.corrcoef`` of both stacks of features, 2N x 2N, and uses
its upper right quarter. PixCorr and SSIM are computed pair by pair with NumPy and scikit-image.

Networks have fixed random weights, so the scores mean nothing, but every product is computed. nsdbench is timed with
the features of the ground truths in its cache, where the first model that is scored leaves them. The published procedure has its
turn before and after it, half of the samples each, so that a busy machine slows all of them.

``python benchmarks/score_speed.py`` takes eight minutes on two cores and 8 GB; ``--targets`` and ``--rounds`` change it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from ratio import Ratio
from scipy.spatial.distance import correlation
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import normalize

from nsdbench import flips
from nsdbench.measurement import _Correlator
from nsdbench.metrics.nets import NETS, FeatureNet, load_net
from nsdbench.metrics.nets.initialisation import random_state
from nsdbench.metrics.profiles import Precision, profile
from nsdbench.schema import RunKey
from nsdbench.scoring import Scored, ScoreSettings, score
from nsdbench.similarity import Similarities
from nsdbench.types import Reconstructions, Stimuli

TWO_WAY = ("alexnet2", "alexnet5", "inception", "clip")
DISTANCES = ("effnet", "swav")
PIXELS = ("pixcorr", "ssim")
NODES = {  # network, and node of the plain module; CLIP is called as it is
    "alexnet2": ("alexnet", "4"),
    "alexnet5": ("alexnet", "11"),
    "inception": ("inception", "avgpool"),
    "clip": ("clip", ""),
    "effnet": ("effnet", "avgpool"),
    "swav": ("swav", "avgpool"),
}
T = TypeVar("T")
SIZES = profile("nsdbench-v1").net_sizes
KEY = RunKey("benchmark", "noise", "none", "none", 1, "vision")


@dataclass(frozen=True)
class Work:
    """What is scored: N ground truths of 425 pixels, ``rounds`` reconstructions of 512 pixels of each, and how."""

    metrics: tuple[str, ...]
    targets: int
    rounds: int

    @property
    def nets(self) -> tuple[str, ...]:
        """Networks behind the metrics."""
        return tuple(dict.fromkeys(NODES[metric][0] for metric in self.metrics if metric in NODES))


FULL = (*PIXELS, *TWO_WAY, *DISTANCES)
TARGETS, ROUNDS = 96, 1


@dataclass
class Clock:
    """Seconds by step, of the clock on the wall and of all processor cores together."""

    wall: Counter[str] = field(default_factory=Counter)
    cpu: Counter[str] = field(default_factory=Counter)

    def time(self, step: str, work: Callable[[], T]) -> T:
        """Call ``work`` and add its time to ``step``."""
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        self.wall[step] += time.perf_counter() - wall
        self.cpu[step] += time.process_time() - cpu
        return made


class Published:
    """The published procedure on whole evaluations, with plain modules as their libraries build them."""

    def __init__(self, work: Work, truths: NDArray[np.uint8], clock: Clock) -> None:
        self._work, self._clock = work, clock
        self._truths = _floats(truths)
        plain = {name: _plain(name) for name in work.nets}
        self._models = {
            metric: plain[net] if not node else create_feature_extractor(plain[net], [node])
            for metric, (net, node) in NODES.items()
            if metric in work.metrics
        }

    @torch.no_grad()
    def evaluate(self, made: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
        """Score one sample of every target: R per metric with a network, and the mean score per metric."""
        recon = self._clock.time("resize", lambda: _resize(_floats(made), 256))
        truth = self._clock.time("resize", lambda: _resize(self._truths, 256))
        similarities: dict[str, NDArray[np.float64]] = {}
        scores: dict[str, float] = {}
        for metric in self._work.metrics:
            if metric in PIXELS:
                pixels = _pixcorr if metric == "pixcorr" else _ssim
                scores[metric] = self._clock.time(metric, lambda f=pixels: f(truth, recon))  # type: ignore[misc]
                continue
            reals, preds = self._clock.time(metric, lambda m=metric: self._features(m, truth, recon))  # type: ignore[misc]
            rule = _identify if metric in TWO_WAY else _distances
            similarities[metric], scores[metric] = self._clock.time(
                f"comparison of {metric}",
                lambda f=rule, a=reals, b=preds: f(a, b),  # type: ignore[misc]
            )
        return similarities, scores

    def _features(
        self, metric: str, truth: Tensor, recon: Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        net, _ = NODES[metric]
        mean, std = NETS[net].mean, NETS[net].std
        both = []
        for images in (truth, recon):
            found = self._models[metric](normalize(_resize(images, SIZES[net]), list(mean), list(std)))
            values = next(iter(found.values())) if isinstance(found, dict) else found
            both.append(values.flatten(1).numpy())
        return both[0], both[1]


def _plain(name: str) -> nn.Module:
    """Return the module as its library builds it, with the fixed random weights."""
    module = NETS[name].build().eval().requires_grad_(False)
    module.load_state_dict(random_state(name, {key: x.shape for key, x in module.state_dict().items()}))
    return module


def _floats(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _resize(images: Tensor, size: int) -> Tensor:
    return interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _pixcorr(truth: Tensor, recon: Tensor) -> float:
    a, b = (_resize(x, 425).flatten(1).numpy() for x in (truth, recon))
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def _ssim(truth: Tensor, recon: Tensor) -> float:
    a, b = (rgb2gray(_resize(x, 425).permute(0, 2, 3, 1).numpy()) for x in (truth, recon))
    rules = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(np.mean([structural_similarity(y, x, **rules) for x, y in zip(a, b, strict=True)]))


def _identify(truth: NDArray[np.float32], recon: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    n = len(truth)
    r = np.corrcoef(truth, recon)[:n, n:]
    wins = (r < np.diag(r)).sum(axis=0)
    return r, float(np.mean(wins / (n - 1)))


def _distances(truth: NDArray[np.float32], recon: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    each = np.array([correlation(x, y) for x, y in zip(truth, recon, strict=True)])
    return np.diag(1 - each), float(each.mean())


@dataclass(frozen=True)
class Outcome:
    """What one comparison of the three procedures gave."""

    work: Work
    published: Clock
    full: Clock
    reduced: Clock
    difference: Mapping[str, float]
    flipped: Mapping[str, flips.Flips]

    def speedup(self, clock: Clock) -> float:
        """Return how many times less time one sample of all targets takes."""
        return self.published.wall.total() / clock.wall.total()


def compare(work: Work) -> Outcome:
    """Score half of the samples by the published procedure, all by nsdbench in both precisions, then the other half."""
    truths, made = pictures(work)
    names = tuple(f"t{i:04d}" for i in range(work.targets))
    stimuli = Stimuli(
        names, ("benchmark",) * len(names), frozenset(names), dict(zip(names, truths, strict=True)).__getitem__,
        f"score_speed-{work.targets}",
    )  # fmt: skip
    clocks = {name: Clock() for name in ("published", "fp32", "bf16")}
    published = Published(work, truths, clocks["published"])
    with tempfile.TemporaryDirectory() as cache:
        ours = {p: Ours(work, p, Path(cache), clocks[p]) for p in ("fp32", "bf16")}
        for procedure in ours.values():  # fills the cache, as an earlier model would
            procedure.score(Reconstructions(made[:, :1], names), stimuli, warm=True)
        half = (work.rounds + 1) // 2
        evaluated = [published.evaluate(made[:, sample]) for sample in range(half)]
        found = {p: procedure.score(Reconstructions(made, names), stimuli) for p, procedure in ours.items()}
        evaluated += [published.evaluate(made[:, sample]) for sample in range(half, work.rounds)]
    both = (Similarities(x.similarity, x.pool_ids, x.targets) for x in (found["bf16"], found["fp32"]))
    flipped = flips.count(*both)
    differences = _differences(evaluated, found["fp32"])
    return Outcome(work, clocks["published"], clocks["fp32"], clocks["bf16"], differences, flipped)


class Ours:
    """nsdbench in one precision, with a clock at every network."""

    def __init__(self, work: Work, precision: Precision, cache: Path, clock: Clock) -> None:
        self._clock = clock
        self._settings = ScoreSettings(work.metrics, weights="random", cache=cache, precision=precision)
        self._nets = {name: load_net(name, weights="random", precision=precision) for name in work.nets}

    def score(self, recon: Reconstructions, stimuli: Stimuli, *, warm: bool = False) -> Scored:
        """Score one sample of every target; nothing is timed while ``warm``."""
        clock = Clock() if warm else self._clock
        nets: dict[str, FeatureNet] = {name: Timed(net, clock) for name, net in self._nets.items()}
        wall, cpu = clock.wall.total(), clock.cpu.total()
        start = time.perf_counter(), time.process_time()
        scored = score(recon, stimuli, KEY, settings=self._settings, nets=nets)
        everything = time.perf_counter() - start[0], time.process_time() - start[1]
        clock.wall["the rest"] += everything[0] - (clock.wall.total() - wall)
        clock.cpu["the rest"] += everything[1] - (clock.cpu.total() - cpu)
        return scored


class Timed:
    """A network with a clock."""

    def __init__(self, net: FeatureNet, clock: Clock) -> None:
        self._net, self._clock = net, clock
        self.name, self.weights_id, self.weights_sha256 = net.name, net.weights_id, net.weights_sha256
        self.preprocessing_version, self.untrained = net.preprocessing_version, net.untrained

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations of the network."""
        return self._clock.time(self.name, lambda: self._net(images))


def _differences(
    evaluated: Sequence[tuple[Mapping[str, NDArray[np.float64]], Mapping[str, float]]], found: Scored
) -> dict[str, float]:
    """Return the largest absolute differences from the published procedure, of R and of mean scores per sample."""
    largest: dict[str, float] = {}
    items = found.items.to_pylist()
    for sample, (similarities, scores) in enumerate(evaluated):
        for metric, r in similarities.items():
            ours = found.similarity[metric][:, :, sample]
            chosen = np.eye(len(r), dtype=bool) if metric in DISTANCES else np.ones(r.shape, bool)
            largest["R"] = max(largest.get("R", 0.0), float(np.abs(ours - r)[chosen].max()))
        for metric, value in scores.items():
            mean = np.mean([x["value"] for x in items if x["metric"] == metric and x["sample"] == sample])
            kind = "two-way" if metric in TWO_WAY else metric if metric in PIXELS else "distance"
            largest[kind] = max(largest.get(kind, 0.0), abs(float(mean) - value))
    return largest


def pictures(work: Work) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return smooth random ground truths (N, 425, 425, 3) and reconstructions (N, rounds, 512, 512, 3) like them."""
    generator = torch.Generator().manual_seed(0)

    def smooth(n: int) -> Tensor:
        return interpolate(torch.rand(n, 3, 16, 16, generator=generator), size=(512, 512), mode="bicubic")

    truth = smooth(work.targets)
    made = torch.stack([0.5 * truth + 0.5 * smooth(work.targets) for _ in range(work.rounds)], dim=1)
    return _bytes(_resize(truth, 425)), _bytes(made)


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return np.asarray((images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).contiguous().numpy())


@dataclass(frozen=True)
class Memory:
    """Peak of what identification allocates besides R, and the size of R, in GB."""

    beside: float
    r: float


def memory(pool: int, columns: int, features: int) -> Memory:
    """Correlate ``columns`` made-up reconstructions with ``pool`` ground truths that lie in a file, a batch at a time."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.npy"
        truth = np.lib.format.open_memmap(path, "w+", np.float32, (pool, features))
        for row in truth:
            row[:] = rng.random(features, np.float32)
        tracemalloc.start()
        correlator = _Correlator(("net", "node"), np.load(path, mmap_mode="r"), columns)
        for start in range(0, columns, 8):
            batch = range(start, min(start + 8, columns))
            correlator.add(batch, {("net", "node"): rng.random((len(batch), features), np.float32)})
        r = correlator.result()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Memory((peak - r.nbytes) / 1e9, r.nbytes / 1e9)


def ratios(*, short: bool) -> Iterator[Ratio]:
    """Yield the gains in both precisions, the share of flipped identifications, and the memory of identification."""
    work = Work((*PIXELS, "alexnet2", "alexnet5", "effnet"), 3, 1) if short else Work(FULL, TARGETS, ROUNDS)
    outcome = compare(work)
    size = (
        f"{work.targets} targets x {work.rounds} samples, {torch.get_num_threads()} threads, random weights"
    )
    differences = ", ".join(f"{kind} {value:.0e}" for kind, value in outcome.difference.items())
    yield Ratio(
        "scoring, fp32",
        "time of the published procedure over that of nsdbench with cached ground truths, same images and networks",
        outcome.speedup(outcome.full),
        target=">= 3.5",
        note=f"{size}; largest differences: {differences}",
    )
    yield Ratio(
        "scoring, bf16",
        "time of the published procedure in fp32 over that of nsdbench --precision bf16",
        outcome.speedup(outcome.reduced),
        target=">= 10",
        note=size,
    )
    each = ", ".join(f"{metric} {x.flipped} of {x.n}" for metric, x in outcome.flipped.items())
    total = sum(x.n for x in outcome.flipped.values())
    yield Ratio(
        "scoring, flipped by bf16",
        "share of two-way comparisons that end otherwise in bf16 than in fp32",
        100 * sum(x.flipped for x in outcome.flipped.values()) / total,
        unit="%",
        note=f"{each}; random networks tell images apart worse than trained ones",
    )
    pool, columns, features = (50, 100, 20_000) if short else (1000, 1000, 184_512)
    found = memory(pool, columns, features)
    yield Ratio(
        "identification, memory",
        "peak of what two-way identification allocates besides R, which has 8 bytes per ground truth and reconstruction",
        found.beside,
        unit="GB",
        note=f"{pool} ground truths x {columns} reconstructions x {features} features, R {found.r:.3f} GB",
    )


def main() -> None:
    """Print the ratios and where the time goes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", type=int, default=TARGETS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--metrics", default=",".join(FULL))
    asked = parser.parse_args()
    outcome = compare(Work(tuple(asked.metrics.split(",")), asked.targets, asked.rounds))
    n = asked.targets * asked.rounds
    for name, clock in (("published", outcome.published), ("fp32", outcome.full), ("bf16", outcome.reduced)):
        print(
            f"{name}: {1000 * clock.wall.total() / n:.0f} ms per reconstruction, "
            f"{1000 * clock.cpu.total() / n:.0f} ms of processor time"
        )
        for step, seconds in clock.wall.most_common():
            print(f"    {step:26} {1000 * seconds / n:8.1f} {1000 * clock.cpu[step] / n:8.1f}")
    cpu = {
        name: outcome.published.cpu.total() / c.cpu.total()
        for name, c in (("fp32", outcome.full), ("bf16", outcome.reduced))
    }
    print(f"fp32 {outcome.speedup(outcome.full):.2f} x, bf16 {outcome.speedup(outcome.reduced):.2f} x")
    print(f"by processor time: fp32 {cpu['fp32']:.2f} x, bf16 {cpu['bf16']:.2f} x")
    print(f"largest differences of fp32: {dict(outcome.difference)}")
    print(f"flipped by bf16: { {metric: (x.flipped, x.n) for metric, x in outcome.flipped.items()} }")


if __name__ == "__main__":
    main()
