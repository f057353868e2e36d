"""How large an effect must be to be found, by the number of targets and subjects; see calibration.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from known_truths import ALPHA, DRAWS, batches, normal_pairs, tested, two_way_tables
from scipy.special import ndtri

from nsdbench import stats

# data sets by targets and subjects
SIZES = {(12, 1): 2_000, (12, 4): 1_000, (12, 8): 1_000, (100, 4): 300, (1_000, 4): 40}


@dataclass(frozen=True)
class Power:
    """Shares of data sets in which an effect is found: one curve per size (targets, subjects)."""

    title: str
    effects: tuple[float, ...]
    curves: dict[tuple[int, int], list[float]]

    def lines(self) -> Iterator[str]:
        """Yield the rows of a table."""
        sizes = [f"{t:,} x {s}" for t, s in self.curves]
        yield f"| {self.title} | " + " | ".join(sizes) + " |"
        yield "| --- |" + " ---: |" * len(sizes)
        for effect, *found in zip(self.effects, *self.curves.values(), strict=True):
            yield f"| {effect:g} | " + " | ".join(f"{value:.0%}" for value in found) + " |"


def of_labels() -> Power:
    """Label permutations, one-sided, by the true mean two-way score of one reconstruction per target."""
    effects = (0.5, 0.51, 0.52, 0.55, 0.6, 0.65, 0.7, 0.8)
    signal = math.sqrt(2) * ndtri(effects)[:, None, None]
    rng = np.random.default_rng(10)
    found: dict[tuple[int, int], list[float]] = {}
    for (t, s), n in SIZES.items():
        p = []
        for seed in range(n):
            noise = rng.normal(size=(s, 1, t, t))
            tables = [two_way_tables((one + signal * np.eye(t))[..., None]) for one in noise]
            p.append(stats.subject_mean(tested(tables, seed)).p())
        found[t, s] = np.mean(np.array(p) <= ALPHA, axis=0).tolist()
    return Power("two-way score", effects, found)


def of_signs(n: int = 4_000) -> Power:
    """Paired sign flips, two-sided, by the true difference of two models in a two-way score.

    Targets and the rest spread by 0.16 and 0.19, as between two models in the published NSD-Imagery scores.
    """
    effects = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
    found: dict[tuple[int, int], list[float]] = {}
    for t, s in SIZES:
        rng = np.random.default_rng([11, s, t])
        p = []
        for seed, size in batches(n):
            pairs = 0.19 * normal_pairs(rng, size, s, t, shared=0.16 / 0.19)
            flips = [stats.sign_flips(pairs + effect, n_draws=DRAWS, seed=seed) for effect in effects]
            p.append([one.p_two_sided() for one in flips])
        found[t, s] = np.mean(np.concatenate(p, axis=1) <= ALPHA, axis=1).tolist()
    return Power("difference", effects, found)


def draw(curves: Sequence[Power], path: Path) -> None:
    """Draw power against effect size, one panel per test."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True)
    for axis, power, title in zip(axes, curves, ("score against chance", "model against model"), strict=True):
        for (t, s), found in power.curves.items():
            axis.plot(power.effects, found, marker=".", label=f"{t:,} targets x {s}")
        axis.axhline(ALPHA, color="0.6", linewidth=0.8)
        axis.set(title=title, xlabel=f"true {power.title}", ylim=(0, 1.02))
    axes[0].set_ylabel("found in this share of studies")
    axes[1].legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)
