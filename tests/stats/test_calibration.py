"""False positives and coverage on data with known truths, thousands of data sets each.

The simulations, their sizes and the limits are those of the tables in docs/statistics.md.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import calibration
import known_truths
import numpy as np
import pytest
import scipy.stats

from nsdbench import leaderboard, summary

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboards" / "nsd_imagery_items.parquet"


@pytest.mark.slow
@pytest.mark.parametrize("title", calibration.RATES)
def test_every_rate_is_what_the_documentation_claims(title: str) -> None:
    found = list(calibration.RATES[title]())
    assert all(rate.n >= 1_000 for rate in found)
    assert [str(rate) for rate in found if not rate.limits[0] <= rate.value <= rate.limits[1]] == []


def test_the_expected_two_way_score_is_the_mean_of_many(rng: np.random.Generator) -> None:
    latent = 0.8 + 0.6 * rng.normal(size=100_000)
    scores = known_truths.two_way_scores(rng, latent, n_samples=1, noise=0.5)
    assert known_truths.two_way_mean(0.8, 0.6, 0.5) == pytest.approx(scores.mean(), abs=0.003)


@pytest.mark.parametrize("kind", ["normal", "two-way", "skewed", "exponential"])
def test_the_truths_of_a_crossed_design_are_the_means_of_large_samples(
    rng: np.random.Generator, kind: str
) -> None:
    design = known_truths.Crossed(kind)
    scores, of_these, _ = design.draw(rng, 2, 4, 100_000)
    assert scores.mean(axis=(1, 2)) == pytest.approx(of_these, abs=0.01)
    scores, _, of_all = design.draw(rng, 100_000, 1, 1)
    assert scores.mean() == pytest.approx(of_all, abs=0.01)


def spreads(differences: np.ndarray) -> tuple[float, float]:
    """Return the variances of target effects and of the rest, for differences (n_subjects, n_targets)."""
    s, t = differences.shape
    of_target = differences - differences.mean(axis=1, keepdims=True)
    target = of_target.mean(axis=0)
    rest = ((of_target - target) ** 2).sum() / ((s - 1) * (t - 1))
    return float(target.var(ddof=1) - rest / s), float(rest)


def test_simulated_differences_spread_like_those_between_published_models() -> None:
    means = summary.target_means(leaderboard.read_items(PUBLISHED))
    scores: dict[tuple[str, str], dict[str, dict[tuple[int, str], float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    names = ("metric", "split", "model", "subject", "stimulus", "value")
    for metric, split, model, *key, value in zip(*(means[name] for name in names), strict=True):
        if metric in ("clip", "inception", "alexnet2", "alexnet5"):
            scores[metric, split][model][tuple(key)] = value
    found = []
    for models in scores.values():
        complete = [[one[key] for key in sorted(one)] for one in models.values() if len(one) == 48]
        found += [np.subtract(a, b).reshape(4, 12) for a, b in itertools.combinations(complete, 2)]
    simulated = known_truths.two_way_pairs(np.random.default_rng(0), 1_000, 4, 12)
    for pairs in (found, simulated):
        target, rest = np.sqrt(np.mean([spreads(one) for one in pairs], axis=0))
        assert (target, rest) == pytest.approx((0.16, 0.19), abs=0.01)
        skewness = [abs(scipy.stats.skew(one.mean(axis=0), bias=False)) for one in pairs]
        assert np.median(skewness) == pytest.approx(0.46, abs=0.04)
