"""What the miniature networks can do on scenes they never saw, and how their metrics answer to damage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nsdbench.metrics import registry
from nsdbench.metrics.correlation import correlation_matrix
from nsdbench.metrics.distance import correlation_distance
from nsdbench.metrics.identification import two_way
from nsdbench.metrics.metric import ByCorrelation
from nsdbench.metrics.nets import FeatureNet, load_net
from nsdbench.metrics.profiles import DEFAULT, MINI_SIZE, profile
from nsdbench.metrics.resize import Views
from nsdbench.pretraining.augment import normalize
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.tasks import Contrast

BATCH = 50
POOLED_SIDE = 4
LADDERS: Mapping[str, tuple[float, ...]] = {
    "noise": (0, 25, 100, 300, 1000),
    "blur": (0, 2, 5, 12, 30),
    "wrong scene": (0, 0.25, 0.5, 0.75, 1),
}
"""Steps of growing damage: sd of white noise in grey levels, sd of a Gaussian in pixels of the 112, and the share
of another scene that is blended in."""


def report(fit: Corpus, held_out: Corpus, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return chance, the accuracy of :func:`probe` per metric and question, and all ladders of the shipped networks.

    Parameters
    ----------
    fit, held_out : Corpus
        Scenes to fit and to test linear readers.
    images : uint8 array of shape (n, H, W, 3)
        Held-out scenes at native size for the ladders.
    """
    found: dict[str, Any] = {"chance": {question: chance(held_out, question) for question in LABELS}}
    ladders = {kind: ladder(images, kind) for kind in LADDERS}
    for name in registry.MINI:
        reader = probe(name, fit, held_out)
        found[name] = {"probe": reader, **{kind: means[name] for kind, means in ladders.items()}}
    return found


def damaged(images: NDArray[np.uint8], kind: str, level: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return 8-bit images ``(n, H, W, 3)`` after one step of a ladder; the other scene is the next of the batch."""
    values = images.astype(np.float64)
    if kind == "noise":
        values += level * np.random.default_rng(seed).standard_normal(values.shape)
    elif kind == "blur":
        values = gaussian_filter(values, (0, level, level, 0), mode="nearest")
    elif kind == "wrong scene":
        values = (1 - level) * values + level * np.roll(values, 1, axis=0)
    else:
        raise ValueError(f"there is no ladder {kind!r}")
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def ladder(images: NDArray[np.uint8], kind: str) -> dict[str, list[float]]:
    """Return, per metric, the mean score at every step of a ladder; each scene is scored against its damaged copy.

    Parameters
    ----------
    images : uint8 array of shape (n, H, W, 3)
    kind : str
        One of :data:`LADDERS`.
    """
    nets = {name: load_net(name) for metric in registry.MINI for name in registry.entry(metric).nets}
    truth = _activations(nets, images)
    found: dict[str, list[float]] = {metric: [] for metric in registry.MINI}
    for level in LADDERS[kind]:
        recon = _activations(nets, damaged(images, kind, level))
        for name, means in found.items():
            metric = registry.load(name)
            assert isinstance(metric, ByCorrelation)
            key = (metric.features.source, *metric.features.nodes)
            rule = two_way if metric.rule == "identification" else correlation_distance
            r = correlation_matrix(truth[key], recon[key])
            means.append(float(rule(r, np.arange(len(images))).mean()))
    return found


def _activations(
    nets: Mapping[str, FeatureNet], images: NDArray[np.uint8]
) -> dict[tuple[str, ...], NDArray[np.float32]]:
    """Return features by network and node of images, resized as the canonical profile does it."""
    views = Views(list(images), profile(DEFAULT), truth=True).at(MINI_SIZE)
    return {(name, node): values.numpy() for name, net in nets.items() for node, values in net(views).items()}


def probe(metric: str, fit: Corpus, held_out: Corpus) -> dict[str, float]:
    """Return how often a linear reading of a metric's features, fitted on ``fit``, answers rightly on ``held_out``.

    Maps are averaged to 4 x 4 cells first. Ridge regression onto the classes, penalty by leave-one-out.

    Returns
    -------
    mapping of question to accuracy
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    looks_at = registry.load(metric)
    assert isinstance(looks_at, ByCorrelation)
    net, (node,) = load_net(looks_at.features.source), looks_at.features.nodes
    x, y = (vectors(net, node, part.images) for part in (fit, held_out))
    accuracy = {}
    for question in LABELS:
        reader = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 6)))
        reader.fit(x, fit.labels[question])
        accuracy[question] = float(reader.score(y, held_out.labels[question]))
    return accuracy


def vectors(net: FeatureNet, node: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return features of images that have the size of the network already, one vector each."""
    parts = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
        values = net(batch)[node]
        if values.ndim == 4:
            values = torch.nn.functional.adaptive_avg_pool2d(values, POOLED_SIDE)
        parts.append(values.flatten(1).numpy())
    return np.concatenate(parts)


def retrieval(task: Contrast, held_out: Corpus, n: int = 600) -> float:
    """Return how often the most similar of ``n`` captions (first pattern) is that of the image; equal words count."""
    captions = held_out.captions[:n, 0]
    images = torch.from_numpy(held_out.images[:n]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        image = torch.nn.functional.normalize(task.trunk(normalize(images)), dim=1)
        text = torch.nn.functional.normalize(task.text(task.words.encode(captions)), dim=1)
    best = (image @ text.T).argmax(1).numpy()
    return float((captions[best] == captions).mean())


def chance(held_out: Corpus, question: str) -> float:
    """Return the accuracy of always giving the most frequent answer."""
    counts = np.bincount(held_out.labels[question], minlength=len(LABELS[question]))
    return float(counts.max() / counts.sum())
