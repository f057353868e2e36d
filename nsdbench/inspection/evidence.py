"""Features of a run's reconstructions, of its targets and of training images, in one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench import features
from nsdbench.errors import NsdbenchError, ReconstructionError, UsageError
from nsdbench.itemscores import IMAGERY_TARGETS, pools
from nsdbench.metrics import registry, spurious
from nsdbench.metrics.correlation import correlation_matrix
from nsdbench.metrics.metric import ByCorrelation
from nsdbench.metrics.nets.network import FeatureNet
from nsdbench.metrics.profiles import profile
from nsdbench.metrics.resize import Views
from nsdbench.types import Progress, Reconstructions, Stimuli, T

Floats = NDArray[np.float64]
SETS, CLUSTERS = "set", "cluster"
_BLOCK_VALUES = 1 << 23  # similarities with training images held at a time: 64 MiB


class Unavailable(NsdbenchError):
    """A check cannot be made on this run; the message says why."""


def load_metric(name: str) -> ByCorrelation:
    """Return an identification metric that looks through a network.

    Raises
    ------
    UsageError
        If it is something else.
    """
    metric = registry.load(name)
    if not (isinstance(metric, ByCorrelation) and metric.rule == "identification") or metric.features.extract:
        fit = [n for n, e in registry.table().items() if e.kind == "identification" and e.nets]
        raise UsageError(
            f"{name} does not name the features of a network that identifies images",
            remedy=f"Choose --network from: {', '.join(fit)}.",
        )
    return metric


@dataclass(frozen=True)
class Reader:
    """Reads images as the vectors that a metric compares.

    Attributes
    ----------
    metric : str
        Id of an identification metric; it names the network and its node.
    profile : str
    net : FeatureNet
    cache : Path
        Folder of the feature cache.
    pace : Pace
    progress : Progress
    """

    metric: str
    profile: str
    net: FeatureNet
    cache: Path
    pace: features.Pace
    progress: Progress

    @cached_property
    def source(self) -> features.Source:
        """The network with the one node that the metric reads."""
        wanted = load_metric(self.metric).features
        return features.sources([wanted], profile(self.profile), lambda _: self.net)[0]

    @property
    def node(self) -> features.Node:
        """Network and node."""
        return (self.source.name, self.source.nodes[0])

    def truths(self, stimuli: Stimuli, ids: Sequence[str], label: str) -> NDArray[np.float32]:
        """Return the features of true images, shape (len(ids), d), computed once per network and set of images."""
        found = features.truth_features(
            stimuli, ids, [self.source], profile(self.profile), features.TruthCache(self.cache, self.cache),
            pace=self.pace, progress=_Labelled(self.progress, label),
        )  # fmt: skip
        return found[self.node].reshape(len(ids), -1)

    def made(self, recon: Reconstructions, targets: Sequence[str], label: str) -> NDArray[np.float32]:
        """Return the features of reconstructions, shape (len(targets) * n_samples, d), samples adjacent."""
        row = {target: i for i, target in enumerate(recon.targets)}
        places = [(row[target], sample) for target in targets for sample in range(recon.n_samples)]
        step = self.pace.batch_size
        parts = []
        for start in self.progress.track(range(0, len(places), step), label):
            images = [recon.images[place] for place in places[start : start + step]]
            batch = self.source(Views(images, profile(self.profile), truth=False))[self.node]
            parts.append(batch.reshape(len(images), -1))
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Labelled:
    """A progress that calls whatever it is given by another name."""

    inner: Progress
    label: str

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        return self.inner.track(items, self.label, total)


@dataclass(frozen=True)
class Training:
    """The images a decoder was trained on."""

    stimuli: Stimuli
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What the checks look at. A *column* is one sample of one target, the samples of a target adjacent.

    Attributes
    ----------
    reader : Reader
    recon : Reconstructions
    stimuli : Stimuli
        Targets of the split.
    find_training : callable
        ``find_training()`` gives the training images or raises :class:`Unavailable`; called when a check asks.
    """

    reader: Reader
    recon: Reconstructions
    stimuli: Stimuli
    find_training: Callable[[], Training]

    @cached_property
    def pool(self) -> tuple[str, ...]:
        """Ground truths with an image, ascending."""
        return tuple(stimulus for stimulus in self.stimuli.ids if stimulus in self.stimuli.has_image)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Reconstructed targets of the pool, ascending."""
        found = tuple(sorted(set(self.recon.targets) & set(self.pool)))
        if not found:
            raise ReconstructionError("no reconstruction belongs to a target of the data set")
        return found

    @property
    def pool_name(self) -> str:
        """``"AB12"`` or ``"all<n>"``."""
        return next(iter(pools(self.pool)))

    @cached_property
    def target_row(self) -> NDArray[np.int64]:
        """Row in the pool of every target."""
        row = {stimulus: i for i, stimulus in enumerate(self.pool)}
        return np.array([row[target] for target in self.targets], np.int64)

    @cached_property
    def truth_row(self) -> NDArray[np.int64]:
        """Row in the pool of the ground truth of every column."""
        return np.repeat(self.target_row, self.recon.n_samples)

    @cached_property
    def truth(self) -> NDArray[np.float32]:
        """Features of the pool, shape (n_pool, d)."""
        return self.reader.truths(self.stimuli, self.pool, "ground-truth features")

    @cached_property
    def made(self) -> NDArray[np.float32]:
        """Features of the reconstructions, shape (n_columns, d)."""
        return self.reader.made(self.recon, self.targets, "features of reconstructions")

    @cached_property
    def r(self) -> Floats:
        """Correlations, shape (n_pool, n_columns); NaN where a vector is constant."""
        if len(self.pool) < 2:
            raise Unavailable("there is one ground truth, so nothing can be identified")
        return correlation_matrix(self.truth, self.made)

    @cached_property
    def training(self) -> Training:
        """The training images."""
        return self.find_training()

    @cached_property
    def trained_on(self) -> NDArray[np.float32]:
        """Features of the training images, shape (n_train, d)."""
        return self.reader.truths(self.training.stimuli, self.training.ids, "features of training images")

    @cached_property
    def rivals(self) -> spurious.AgainstTraining:
        """How training images compare with targets, computed a block of columns at a time."""
        n = len(self.truth_row)
        step = max(1, _BLOCK_VALUES // len(self.trained_on))
        blocks = [
            spurious.against_training(
                self.r[:, block], self.truth_row[block], correlation_matrix(self.trained_on, self.made[block])
            )
            for block in (slice(start, start + step) for start in range(0, n, step))
        ]
        columns = (np.concatenate(parts) for parts in zip(*map(_arrays, blocks), strict=True))
        return spurious.AgainstTraining(*columns)

    @property
    def group_kind(self) -> str:
        """``"set"`` for the twelve targets of NSD-Imagery, else ``"cluster"``."""
        return SETS if self.pool == IMAGERY_TARGETS else CLUSTERS

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], ...]:
        """Rows of the pool that belong together: sets A and B, or k-means clusters of the ground truths."""
        if self.group_kind == SETS:
            return pools(self.pool)["within6"]
        k = spurious.n_clusters(len(self.pool))
        if len(self.pool) < 2 * k:
            raise Unavailable(f"{len(self.pool)} ground truths are too few to be grouped into clusters")
        return spurious.clusters(self.truth, k)

    @cached_property
    def group_size(self) -> NDArray[np.int64]:
        """Members of the group of every target."""
        return spurious.group_sizes(len(self.pool), self.groups)[self.target_row]

    def by_target(self, columns: Floats) -> Floats:
        """Average columns over the samples of a target, shape (n_targets,)."""
        means: Floats = columns.reshape(len(self.targets), -1).mean(axis=1)
        return means

    def by_set(self, scores: Floats) -> dict[str, float]:
        """Return the mean of target scores per stimulus set, where there are several."""
        name = dict(zip(self.stimuli.ids, self.stimuli.stimulus_set, strict=True))
        labels = np.array([name[target] for target in self.targets])
        if len(set(labels)) < 2:
            return {}
        means = {str(one): scores[labels == one] for one in np.unique(labels)}
        return {one: float(np.nanmean(found)) for one, found in means.items() if not np.isnan(found).all()}


def _arrays(found: spurious.AgainstTraining) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    return found.nearest, found.beaten, found.mismatched, found.first
