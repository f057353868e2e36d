"""One pass over the reconstructions that compares their features with those of the ground truths."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.metrics.correlation import correlation_matrix
from nsdbench.metrics.metric import ByCorrelation, ByPair, ImageMetric
from nsdbench.metrics.profiles import Profile
from nsdbench.types import Progress, Reconstructions, Stimuli

if TYPE_CHECKING:
    from nsdbench.features import Pace
    from nsdbench.metrics.nets.network import FeatureNet

_BUFFER_BYTES = 1 << 27  # features of reconstructions kept per node until they are correlated
_PREPARED = 32  # ground truths kept ready per pair metric


@dataclass(frozen=True)
class Pairing:
    """Reconstructions and ground truths brought together by stimulus id.

    Attributes
    ----------
    recon : Reconstructions
    stimuli : Stimuli
    pool : tuple of str
        Ground truths with an image, ascending.
    targets : tuple of str
        Targets to score, ascending; a subset of ``pool``. A *column* is one sample of one of them, with the samples
        of a target adjacent.
    """

    recon: Reconstructions
    stimuli: Stimuli
    pool: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def n_columns(self) -> int:
        """Number of reconstructions to score."""
        return len(self.targets) * self.recon.n_samples

    @property
    def truth_row(self) -> NDArray[np.int64]:
        """Row in ``pool`` of the ground truth of every column."""
        row = {stimulus: i for i, stimulus in enumerate(self.pool)}
        return np.repeat(np.array([row[t] for t in self.targets], np.int64), self.recon.n_samples)

    def images(self, columns: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Return the reconstructions of some columns."""
        row = {stimulus: i for i, stimulus in enumerate(self.recon.targets)}
        places = (divmod(column, self.recon.n_samples) for column in columns)
        return [self.recon.images[row[self.targets[target]], sample] for target, sample in places]


@dataclass(frozen=True)
class Method:
    """How to measure: the profile, where networks come from, where features are cached, how images go through."""

    profile: Profile
    load: Callable[[str], FeatureNet]
    cache: Path
    pace: Pace


@dataclass(frozen=True)
class Evidence:
    """What was measured of the reconstructions.

    Attributes
    ----------
    correlations : mapping of str to float64 array of shape (n_pool, n_columns)
        R per metric that is a function of it; NaN where undefined.
    pairs : mapping of str to (float64 array, float64 array)
        Values and floors, each of shape (n_columns,), per metric that looks at single pairs.
    nets : tuple of FeatureNet
        Networks that were used.
    """

    correlations: Mapping[str, NDArray[np.float64]]
    pairs: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    nets: tuple[FeatureNet, ...]


def measure(
    pairing: Pairing, metrics: Mapping[str, ImageMetric], method: Method, progress: Progress
) -> Evidence:
    """Compare every reconstruction with its ground truth and, where the metric asks for it, with the whole pool.

    Each image is decoded, resized and passed through each network once, whatever the number of metrics. Metrics on
    the same features share one correlation matrix. Without metrics nothing is read.
    """
    if not metrics:
        return Evidence({}, {}, ())
    from nsdbench import features

    wanted = features.sources([metric.features for metric in metrics.values()], method.profile, method.load)
    with tempfile.TemporaryDirectory(prefix="nsdbench-") as scratch:
        cache = features.TruthCache(method.cache, Path(scratch))
        truth = features.truth_features(
            pairing.stimuli,
            pairing.pool,
            wanted,
            method.profile,
            cache,
            pace=method.pace,
            progress=progress,
        )
        correlators, pairs = _consumers(pairing, metrics, method.profile, truth)
        step = method.pace.batch_size
        batches = [range(i, min(i + step, pairing.n_columns)) for i in range(0, pairing.n_columns, step)]
        found_in = features.each_batch(
            batches, pairing.images, wanted, method.profile, method.pace, truth=False
        )
        for columns, found in zip(progress.track(batches, "scoring"), found_in, strict=True):
            for correlator in correlators.values():
                correlator.add(columns, found)
            for pair in pairs.values():
                pair.add(columns, found)
        matrices = {node: correlator.result() for node, correlator in correlators.items()}
    return Evidence(
        correlations={m: matrices[_nodes(x)[0]] for m, x in metrics.items() if isinstance(x, ByCorrelation)},
        pairs={name: (pair.values, pair.floors) for name, pair in pairs.items()},
        nets=tuple(source.net for source in wanted if source.net is not None),
    )


_Features = Mapping[tuple[str, str], NDArray[np.float32]]


def _nodes(metric: ImageMetric) -> tuple[tuple[str, str], ...]:
    return tuple((metric.features.source, node) for node in metric.features.nodes)


def _consumers(
    pairing: Pairing, metrics: Mapping[str, ImageMetric], profile: Profile, truth: _Features
) -> tuple[dict[tuple[str, str], _Correlator], dict[str, _PairScorer]]:
    correlated = {_nodes(metric)[0] for metric in metrics.values() if isinstance(metric, ByCorrelation)}
    correlators = {node: _Correlator(node, truth[node], pairing.n_columns) for node in correlated}
    pairs = {
        name: _PairScorer(metric, profile, truth, pairing)
        for name, metric in metrics.items()
        if isinstance(metric, ByPair)
    }
    return correlators, pairs


class _Correlator:
    """Collects features of reconstructions and correlates them with the ground truths a buffer at a time.

    It needs R, the buffer, and blocks of a few megabytes; ground truths stay in their file. Nothing grows with the
    number of samples but R, which has one column for each reconstruction.
    """

    def __init__(self, node: tuple[str, str], truth: NDArray[np.float32], n_columns: int) -> None:
        self._node = node
        self._truth = truth.reshape(len(truth), -1)
        n_features = self._truth.shape[1]
        capacity = max(1, min(n_columns, _BUFFER_BYTES // (4 * n_features)))
        self._buffer = np.empty((capacity, n_features), np.float32)
        self._filled = 0
        self._done = 0
        self._r = np.empty((len(truth), n_columns))

    def add(self, columns: Sequence[int], found: _Features) -> None:
        for row in found[self._node].reshape(len(columns), -1):
            self._buffer[self._filled] = row
            self._filled += 1
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        done = slice(self._done, self._done + self._filled)
        self._r[:, done] = correlation_matrix(self._truth, self._buffer[: self._filled])
        self._done, self._filled = done.stop, 0

    def result(self) -> NDArray[np.float64]:
        """Return R of all columns."""
        if self._filled:
            self._flush()
        return self._r


class _PairScorer:
    """Applies a pair metric to every reconstruction and its ground truth, and to up to three wrong ones."""

    def __init__(self, metric: ByPair, profile: Profile, truth: _Features, pairing: Pairing) -> None:
        self._metric, self._profile = metric, profile
        self._truth_row, self._n_pool = pairing.truth_row, len(pairing.pool)
        self._shifts = mismatches(self._n_pool)
        self.values = np.full(pairing.n_columns, np.nan)
        self.floors = np.full(pairing.n_columns, np.nan)

        def prepare(row: int) -> Any:
            return metric.prepare([truth[node][row] for node in _nodes(metric)], profile)

        self._prepared = functools.lru_cache(_PREPARED)(prepare)

    def add(self, columns: Sequence[int], found: _Features) -> None:
        import torch

        def compare(i: int) -> tuple[float, float]:
            return self._scores(columns[i], [found[node][i] for node in _nodes(self._metric)])

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for column, scores in zip(columns, threads.map(compare, range(len(columns))), strict=True):
                self.values[column], self.floors[column] = scores

    def _scores(self, column: int, activations: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
        """Return the score of one reconstruction and the mean of those against wrong ground truths."""
        recon = self._metric.prepare(activations, self._profile)
        row = int(self._truth_row[column])
        value = self._metric.compare(self._prepared(row), recon)
        rows = [(row + shift) % self._n_pool for shift in self._shifts]
        wrong = [self._metric.compare(self._prepared(other), recon) for other in rows]
        return value, float(np.mean(wrong)) if wrong else math.nan


def mismatches(n_pool: int) -> tuple[int, ...]:
    """Return the cyclic shifts of the pool that pair a reconstruction with wrong ground truths.

    They are a quarter, a half and three quarters of the pool (rounded, without repeats), so that on the twelve
    NSD-Imagery targets both sets are among the wrong ones. A pool of one has none.
    """
    shifts = {max(1, round(quarter * n_pool / 4)) for quarter in (1, 2, 3)}
    return tuple(sorted(shift for shift in shifts if shift < n_pool))
