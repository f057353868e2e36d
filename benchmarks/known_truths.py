"""Scores in which the truth is known: similarities without information, paired differences, crossed designs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from nsdbench import stats
from nsdbench.data.facts import runs, table
from nsdbench.sim import SimConfig
from nsdbench.sim.decoders import (
    Ridge,
    average,
    correlate,
    read_subject,
    standardise,
    target_spaces,
    zscore_runs,
)
from nsdbench.sim.noise import autoregress
from nsdbench.sim.truths import task_rows

Floats = NDArray[np.float64]

ALPHA = 0.05
DRAWS = 999
BATCH = 250  # data sets that share their resamples
SETS = [range(6), range(6, 12)]  # stimulus sets A and B
SHAPES = {"skewed": 4, "exponential": 1}  # of gamma distributions, whose skewness is 2 / sqrt(shape)


def two_way_tables(similarity: Floats) -> Floats:
    """Return what each target's reconstructions would score with each ground truth as their target.

    ``similarity`` is (..., n_truths, n_targets, n_samples), the result (..., n_targets, n_truths).
    """
    truths_first = np.moveaxis(similarity, -3, 0)
    scores = stats.two_way_quantiles(truths_first.reshape(len(truths_first), -1))
    return np.moveaxis(scores.reshape(truths_first.shape).mean(axis=-1), 0, -1)


def within_sets(similarity: Floats) -> Floats:
    """Return the same with the other ground truths of the own set as the only distractors."""
    tables = np.zeros((*similarity.shape[:-3], 12, 12))
    for members in SETS:
        rows, columns = np.ix_(members, members)
        tables[..., rows, columns] = two_way_tables(similarity[..., rows, columns, :])
    return tables


def unrelated(
    rng: np.random.Generator, n_metrics: int = 1, n_samples: int = 1, hub: float = 0.0, n: int = 12
) -> Floats:
    """Return similarities (n_metrics, n, n, n_samples) of reconstructions that know nothing of their targets.

    Metrics share half of their variance, so do samples of a target. ``hub`` is the spread of what all reconstructions
    share: they resemble some ground truths more than others, whatever the target.
    """
    common = rng.normal(size=(1, n, n, 1)) + rng.normal(size=(n_metrics, n, n, 1))
    return hub * rng.normal(size=(1, n, 1, 1)) + common + rng.normal(size=(n_metrics, n, n, n_samples))


def shuffled(similarity: Floats, rng: np.random.Generator) -> Floats:
    """Return similarities with reconstructions handed to random targets."""
    return similarity[:, :, rng.permutation(similarity.shape[2])]


class Decoder:
    """Ridge regression from betas to pixels, Gabor energy and content of simulated images."""

    def __init__(self, root: Path) -> None:
        self._data = read_subject(root, 1)
        core, images, spaces = self._data.core, self._data.images, target_spaces(root)
        n_shared = SimConfig("tiny").sizes.n_shared
        train = {name: values[images][n_shared:] for name, (values, _) in spaces.items()}
        ridge = Ridge(core[n_shared:])
        self._weights = [ridge.weights(standardise(train[name], train[name])) for name in spaces]
        self._truths = [standardise(truths, train[name]) for name, (_, truths) in spaces.items()]
        self._letters = [row["cue"] for row in table("targets")][:12]

    def of_session(self, task: str) -> Floats:
        """Return similarities (3, 12, 12, 1) of what is decoded from the imagery session."""
        rows = task_rows(task)
        return self._similarity(zscore_runs(self._data.session)[rows], rows)

    def of_noise(self, rng: np.random.Generator) -> Floats:
        """Return the same for a session of nothing but noise, distributed like that of ``snr=0``."""
        lengths = tuple(run.n_betas for run in runs() if run.task == "imagery" and run.stimulus_set in "AB")
        white = rng.standard_normal((sum(lengths), self._data.session.shape[1]), np.float32)
        noise = np.split(autoregress(white, lengths), np.cumsum(lengths)[:-1])
        standard = [(run - run.mean(axis=0)) / run.std(axis=0, ddof=1) for run in noise]
        return self._similarity(np.concatenate(standard), task_rows("imagery"))

    def _similarity(self, trials: NDArray[np.float32], rows: NDArray[np.int64]) -> Floats:
        betas = average(trials, self._data.condition[rows], self._letters)
        found = [correlate(t, betas @ w) for t, w in zip(self._truths, self._weights, strict=True)]
        return np.stack(found).astype(np.float64)[..., None]


def normal_pairs(rng: np.random.Generator, n: int, s: int, t: int, shared: float = 1.0) -> Floats:
    """Return differences (n, s, t) around zero: a target effect of all subjects and an interaction."""
    return shared * rng.normal(size=(n, 1, t)) + rng.normal(size=(n, s, t))


def skewed_pairs(rng: np.random.Generator, n: int, s: int, t: int) -> Floats:
    """Return the same from exponential distributions: the mean is zero, the signs are not symmetric."""
    return rng.exponential(size=(n, 1, t)) + rng.exponential(size=(n, s, t)) - 2


def two_way_scores(
    rng: np.random.Generator, latent: Floats, n_samples: int = 10, noise: float = 1.0
) -> Floats:
    """Return sample-averaged scores of twelve targets: multiples of 1/11, the more the higher ``latent``."""
    samples = latent[..., None] + noise * rng.normal(size=(*latent.shape, n_samples))
    return np.asarray(np.round(11 * ndtr(samples)).mean(axis=-1) / 11)


def two_way_mean(mean: Floats | float, *spreads: float) -> Floats:
    """Return the expected score where the latent value has this mean and these independent spreads."""
    steps = ndtri((np.arange(11) + 0.5) / 11)
    return np.asarray(ndtr((np.asarray(mean)[..., None] - steps) / math.hypot(*spreads)).mean(axis=-1))


def two_way_pairs(rng: np.random.Generator, n: int, s: int, t: int) -> Floats:
    """Return differences of two equally good models that share easy targets but not their strengths.

    Spread and skewness are those between models in the published NSD-Imagery scores.
    """
    easy = 0.6 + 0.8 * rng.normal(size=(n, 1, t))
    one, other = (two_way_scores(rng, easy + 0.5 * normal_pairs(rng, n, s, t)) for _ in range(2))
    return one - other


def ceiling_pairs(rng: np.random.Generator, n: int, s: int, t: int) -> Floats:
    """Return the same with one sample, for two models that find the same targets trivial."""
    easy = 1.2 + rng.normal(size=(n, 1, t))
    one, other = (two_way_scores(rng, easy + 0.7 * normal_pairs(rng, n, s, t), 1, 0) for _ in range(2))
    return one - other


def rerun_pairs(rng: np.random.Generator, n: int, s: int, t: int) -> Floats:
    """Return the differences between two fits of one model: the same targets are easy, the rest is chance."""
    latent = 0.6 + 0.8 * rng.normal(size=(n, 1, t)) + 0.5 * rng.normal(size=(n, s, t))
    one, other = (two_way_scores(rng, latent + 0.3 * normal_pairs(rng, n, s, t)) for _ in range(2))
    return one - other


def gap_pairs(rng: np.random.Generator, n: int, s: int, t: int) -> Floats:
    """Return vision minus imagery with equal means and unequal spread: what is imagined is noisier."""
    easy = 0.7 * rng.normal(size=(n, 1, t))
    vision = two_way_scores(rng, easy + 0.4 * rng.normal(size=(n, s, t)))
    own = rng.normal(size=(n, 1, t)) + rng.normal(size=(n, s, t))
    return vision - two_way_scores(rng, easy + own)


@dataclass(frozen=True)
class Crossed:
    """Scores of crossed subjects and targets with the truths behind them.

    ``subjects``, ``targets`` and ``interaction`` are the spreads of the effects, by default in the proportions of the
    published NSD-Imagery scores. ``kind`` is how they are distributed: "normal", "two-way" (multiples of 1/11, mean
    about 0.8), "skewed" (targets and interaction of skewness 1) or "exponential" (of skewness 2).
    """

    kind: str
    subjects: float = 0.2
    targets: float = 1.0
    interaction: float = 0.7

    def draw(self, rng: np.random.Generator, n: int, s: int, t: int) -> tuple[Floats, Floats, float]:
        """Return scores (n, s, t), the true mean of the drawn subjects (n,), and that of all subjects."""
        people = self.subjects * rng.normal(size=(n, s, 1))
        sizes = ((n, 1, t), (n, s, t))
        if self.kind in SHAPES:
            shape = SHAPES[self.kind]
            target, own = ((rng.gamma(shape, size=size) - shape) / math.sqrt(shape) for size in sizes)
        else:
            target, own = (rng.normal(size=size) for size in sizes)
        scores = people + self.targets * target + self.interaction * own
        if self.kind != "two-way":
            return scores, people.mean(axis=(1, 2)), 0.0
        mean, spreads = 1.4, (self.targets, self.interaction, 1.0)
        given = two_way_mean(mean + people[..., 0], *spreads).mean(axis=1)
        return two_way_scores(rng, mean + scores), given, float(two_way_mean(mean, self.subjects, *spreads))


def tested(subjects: Sequence[Floats], seed: int, groups: list[range] | None = None) -> list[stats.Arranged]:
    """Return the label permutations of every subject's tables."""
    return [
        stats.label_permutations(t, groups, n_draws=DRAWS, seed=seed, subject=s, listed=False)
        for s, t in enumerate(subjects)
    ]


def batches(n: int) -> Iterator[tuple[int, int]]:
    """Yield a seed and a size for every batch of data sets."""
    for seed, start in enumerate(range(0, n, BATCH)):
        yield seed, min(BATCH, n - start)
