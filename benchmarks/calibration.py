"""How often the tests of nsdbench find what is not there, and how often its intervals hold the truth.

Every figure comes from simulated data in which the truth is known. ``python benchmarks/calibration.py power.png``
prints the tables of docs/statistics.md and draws its picture, in about ten minutes on one core;
``tests/stats/test_calibration.py`` holds every rate to the limits given here. Resamples and draws are fewer than in use,
2,000 and 999 instead of 10,000: an error of 5 % is resolved well enough by either.
"""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import power
from known_truths import (
    ALPHA,
    DRAWS,
    SETS,
    Crossed,
    Decoder,
    Floats,
    batches,
    ceiling_pairs,
    gap_pairs,
    normal_pairs,
    rerun_pairs,
    shuffled,
    skewed_pairs,
    tested,
    two_way_mean,
    two_way_pairs,
    two_way_scores,
    two_way_tables,
    unrelated,
    within_sets,
)
from numpy.typing import NDArray

from nsdbench import stats
from nsdbench.sim import SimConfig, ensure

RESAMPLES = 2_000
EXACT = (0.04, 0.06)
COVERS = (0.93, 0.97)


@dataclass(frozen=True)
class Rate:
    """A share of data sets and the limits in which it has to lie."""

    what: str
    value: float
    n: int
    limits: tuple[float, float]

    def __str__(self) -> str:
        error = math.sqrt(self.value * (1 - self.value) / self.n)
        low, high = self.limits
        return f"| {self.what} | {self.value:.1%} | {error:.1%} | {low:.0%} to {high:.0%} | {self.n:,} |"


def claims(p: Sequence[float] | Floats) -> float:
    """Return how often p-values lead to a claim."""
    return float(np.mean(np.asarray(p) <= ALPHA))


def label_rates(n: int = 4_000) -> Iterator[Rate]:
    """Label permutations on similarities without information."""
    rng = np.random.default_rng(1)
    cases: dict[str, Callable[[], Floats]] = {
        "1 sample per target": lambda: two_way_tables(unrelated(rng)),
        "10 samples": lambda: two_way_tables(unrelated(rng, n_samples=10)),
        "10 samples, hubs": lambda: two_way_tables(unrelated(rng, n_samples=10, hub=3)),
        "10 samples, many ties": lambda: two_way_tables(np.round(unrelated(rng, n_samples=10))),
    }
    for name, draw in cases.items():
        p = [tested([draw()], seed)[0].p()[0] for seed in range(n)]
        yield Rate(f"label permutation, one subject, 12 targets, {name}", claims(p), n, EXACT)
    tables = (within_sets(unrelated(rng, n_samples=10)) for _ in range(n))
    p = [tested([t], seed, SETS)[0].p()[0] for seed, t in enumerate(tables)]
    yield Rate("label permutation, one subject, within sets, 10 samples", claims(p), n, EXACT)
    yield from _subject_rates(rng, n)


def _subject_rates(rng: np.random.Generator, n: int) -> Iterator[Rate]:
    """Four subjects and eight correlated metrics."""
    found: dict[str, list[float]] = {"mean": [], "max": [], "holm": [], "prevalence": []}
    for seed in range(n):
        parts = tested([two_way_tables(unrelated(rng, 8)) for _ in range(4)], seed)
        both = stats.subject_mean(parts)
        found["mean"].append(both.p()[0])
        found["max"].append(both.p_family().min())
        found["holm"].append(stats.holm(both.p()).min())
        found["prevalence"].append(stats.prevalence(parts)[0].p_global)
    yield Rate("label permutation, mean of four subjects", claims(found["mean"]), n, EXACT)
    yield Rate("the same, any of eight metrics, maximum statistic", claims(found["max"]), n, EXACT)
    yield Rate("the same, any of eight metrics, Holm", claims(found["holm"]), n, (0, 0.06))
    yield Rate(
        "prevalence, four subjects: claimed where nobody has it", claims(found["prevalence"]), n, EXACT
    )
    yield _prevalence_rate(n)


def _prevalence_rate(n: int, share: float = 0.3) -> Rate:
    """Three in ten people have an effect that nobody could miss: how often are more claimed?"""
    rng = np.random.default_rng(12)
    bounds = []
    for seed in range(n):
        signal = 100 * (rng.random(4) < share)[:, None, None, None, None] * np.eye(12)[..., None]
        parts = tested([two_way_tables(unrelated(rng, n_samples=10) + one) for one in signal], seed)
        bounds.append(stats.prevalence(parts)[0].bound or 0.0)
    more = float(np.mean(np.array(bounds) > share))
    return Rate(
        f"prevalence, four subjects: more than {share:.0%} claimed where it is {share:.0%}", more, n, EXACT
    )


def decoder_rates(n: int = 4_000) -> Iterator[Rate]:
    """Label permutations on what ridge decoders of the simulated data give.

    Betas are z-scored within runs, and the sets have runs of their own. The reconstructions of a set then differ from
    each other only, so that labels exchanged between the sets vary more than chance does: the pool of all twelve is
    tested too cautiously, never too boldly.
    """
    rng = np.random.default_rng(2)
    for name, snr in (("noise", 0.0), ("data", 1.0)):
        with tempfile.TemporaryDirectory() as cache:
            decoder = Decoder(ensure(SimConfig("tiny", snr=snr, subjects=(1,)), Path(cache)))
        found: dict[str, list[float]] = {"all twelve": [], "within sets": [], "any of three": []}
        for seed in range(n):
            similarity = decoder.of_noise(rng)
            found["all twelve"].append(tested([two_way_tables(similarity)], seed)[0].p()[0])
            within = tested([within_sets(similarity)], seed, SETS)[0]
            found["within sets"].append(within.p()[0])
            found["any of three"].append(within.p_family().min())
        what = f"decoder fitted to {name}, tested on noise"
        yield Rate(f"{what}, pixels, pool of twelve", claims(found["all twelve"]), n, (0, 0.06))
        yield Rate(f"{what}, pixels, within sets", claims(found["within sets"]), n, EXACT)
        yield Rate(f"{what}, any of three spaces, within sets", claims(found["any of three"]), n, EXACT)
    real = [decoder.of_session(task) for task in ("vision", "imagery")]
    p = [tested([two_way_tables(shuffled(real[seed % 2], rng))], seed)[0].p()[0] for seed in range(n)]
    yield Rate("decoder fitted to data, labels shuffled, pool of twelve", claims(p), n, EXACT)


def sign_rates(n: int = 4_000) -> Iterator[Rate]:
    """Sign flips of paired differences that are zero on average."""
    cases: list[tuple[str, Callable[..., Floats], int, int, tuple[float, float]]] = [
        ("normal", normal_pairs, 4, 12, EXACT),
        ("normal", normal_pairs, 4, 1_000, EXACT),
        ("two-way scores", two_way_pairs, 4, 12, EXACT),
        ("two-way scores", two_way_pairs, 1, 12, EXACT),
        ("vision minus imagery", gap_pairs, 4, 12, EXACT),
        ("one sample near the ceiling, many ties", ceiling_pairs, 1, 12, (0, 0.06)),
        ("skewed, symmetry violated", skewed_pairs, 4, 12, (0.04, 0.10)),
    ]
    for name, draw, s, t, limits in cases:
        rng = np.random.default_rng([3, s, t])
        p = [
            stats.sign_flips(draw(rng, size, s, t), n_draws=DRAWS, seed=seed).p_two_sided()
            for seed, size in batches(n)
        ]
        yield Rate(f"sign flips, {name}, {t:,} x {s}", claims(np.concatenate(p)), n, limits)
    yield from _family_rates(n)


def _family_rates(n: int) -> Iterator[Rate]:
    """Eight metrics that share half of their variance."""
    rng = np.random.default_rng(4)
    found: dict[str, list[float]] = {"maximum statistic": [], "Holm": []}
    for seed in range(n):
        both = normal_pairs(rng, 1, 4, 12) + normal_pairs(rng, 8, 4, 12)
        flips = stats.sign_flips(both, seed=seed)
        found["maximum statistic"].append(flips.p_family(two_sided=True).min())
        found["Holm"].append(stats.holm(flips.p_two_sided()).min())
    for name, p in found.items():
        limits = (0, 0.06) if name == "Holm" else EXACT
        yield Rate(f"sign flips, any of eight metrics, {name}, 12 x 4", claims(p), n, limits)


def floor_rates(n: int = 4_000) -> Iterator[Rate]:
    """Sign flips of scores against the mean over wrong pairs, one-sided, where no similarities are stored."""
    for hub in (0.0, 3.0):
        rng = np.random.default_rng([5, int(hub)])
        p = []
        for seed, size in batches(n):
            similarity = np.stack([unrelated(rng, 4, hub=hub)[..., 0] for _ in range(size)])
            own = np.einsum("nstt->nst", similarity)
            floor = (similarity.sum(axis=2) - own) / 11
            p.append(stats.sign_flips(own - floor, seed=seed).p())
        what = "hubs" if hub else "no hubs"
        limits = (0.0, 0.06) if hub else EXACT
        yield Rate(f"sign flips against the floor, {what}, 12 x 4", claims(np.concatenate(p)), n, limits)


def flips_per_subject(n: int = 4_000) -> Iterator[Rate]:
    """What happens if each subject gets signs of its own; not a test of nsdbench."""
    for share in (0.0, 0.2, 0.4, 0.6):
        rng = np.random.default_rng(13)
        p = []
        for seed, size in batches(n):
            pairs = normal_pairs(rng, size, 4, 12, math.sqrt(share / (1 - share)))
            apart = stats.sign_flips(pairs.reshape(size, 1, 48), n_draws=DRAWS, seed=seed)
            p.append(apart.p_two_sided())
        limits = (0.06, 1.0) if share else EXACT
        what = f"signs per subject, {share:.0%} of the variance shared, 12 x 4"
        yield Rate(what, claims(np.concatenate(p)), n, limits)


def bound_rates(n: int = 4_000) -> Iterator[Rate]:
    """How often ``check`` calls a metric worse that is exactly as good as tolerated.

    It asks two questions: is the one-sided 95 % bound below the tolerance, and do sign flips say so?
    """
    cases: list[tuple[str, Callable[..., Floats], int, int]] = [
        ("normal", normal_pairs, 4, 12),
        ("model fitted again", rerun_pairs, 4, 12),
        ("model fitted again", rerun_pairs, 1, 12),
        ("one sample near the ceiling", ceiling_pairs, 1, 12),
        ("normal", normal_pairs, 4, 1_000),
    ]
    for name, draw, s, t in cases:
        rng = np.random.default_rng([6, s, t])
        below, certain = [], []
        for seed, size in batches(n):
            pairs = draw(rng, size, s, t)
            below.append(stats.bca(pairs, level=0.9, n_resamples=RESAMPLES, seed=seed).high < 0)
            certain.append(stats.sign_flips(-pairs, n_draws=DRAWS, seed=seed).p() <= ALPHA)
        worse = np.concatenate(below)
        both = worse & np.concatenate(certain)
        yield Rate(f"check, bound alone, {name}, {t:,} x {s}", float(worse.mean()), n, (0.04, 0.08))
        yield Rate(f"check, bound and sign flips, {name}, {t:,} x {s}", float(both.mean()), n, (0.0, 0.06))


def attainable(n_models: int) -> float:
    """Return the largest exact p up to 5 % that so many models can have."""
    ranks = np.arange(n_models) - (n_models - 1) / 2
    rho = np.abs(np.array(list(itertools.permutations(ranks))) @ ranks)
    _, counts = np.unique(rho.round(6), return_counts=True)
    p = np.cumsum(counts[::-1])[::-1] / math.factorial(n_models)
    return float(max((one for one in p if one <= ALPHA), default=0.0))


def rank_rates(n: int = 4_000) -> Iterator[Rate]:
    """Rank agreement of models whose orders have nothing to do with each other."""
    for n_models in (4, 5, 6, 7, 8, 12):
        rng = np.random.default_rng([7, n_models])
        p = []
        for seed in range(n):
            found = stats.spearman(*rng.normal(size=(2, n_models)), n_draws=DRAWS, seed=seed)
            p.append(found.p if found else 1.0)
        level = attainable(n_models) if n_models <= stats.EXACT_UP_TO else ALPHA
        limits = (max(level - 0.01, 0), level + 0.01)
        yield Rate(f"rank agreement of {n_models} models, attainable level {level:.1%}", claims(p), n, limits)


def coverage_rates(n: int = 4_000) -> Iterator[Rate]:
    """Shares of 95 % intervals that hold the truth."""
    for kind, (t, s) in itertools.product(("normal", "two-way", "skewed"), ((12, 4), (1_000, 4), (12, 1))):
        yield from _coverage(Crossed(kind), n, s, t)
    yield from _coverage(Crossed("exponential"), n, 4, 12, limits=(0.90, 0.97))
    for name, design in (
        ("no interaction", Crossed("normal", interaction=0.1)),
        ("subjects differ most", Crossed("normal", subjects=2.0)),
    ):
        yield from _coverage(design, n, 4, 12, f", {name}", bca=False)
    nothing_else = Crossed("normal", subjects=0.0, targets=0.0)
    yield from _coverage(nothing_else, n, 4, 12, ", interaction only", (0.95, 1.0), bca=False)


def _coverage(
    design: Crossed,
    n: int,
    s: int,
    t: int,
    note: str = "",
    limits: tuple[float, float] = COVERS,
    bca: bool = True,
) -> Iterator[Rate]:
    rng = np.random.default_rng([8, s, t, *design.kind.encode()])
    given, anybody = [], []
    for seed, size in batches(n):
        scores, of_these, of_all = design.draw(rng, size, s, t)
        given.append(_holds(stats.bca(scores, n_resamples=RESAMPLES, seed=seed), of_these))
        anybody.append(_holds(stats.pigeonhole(scores, n_resamples=RESAMPLES, seed=seed), of_all))
    if bca:
        yield Rate(f"BCa, {design.kind}, {t:,} x {s}", float(np.mean(np.concatenate(given))), n, limits)
    if s >= stats.MIN_SUBJECTS:
        what = f"new subjects and targets, {design.kind}, {t:,} x {s}{note}"
        yield Rate(what, float(np.mean(np.concatenate(anybody))), n, limits)


def _holds(found: stats.Intervals, truth: Floats | float) -> NDArray[np.bool_]:
    return (found.low <= truth) & (truth <= found.high)


def gap_coverage_rates(n: int = 4_000) -> Iterator[Rate]:
    """Shares of 95 % intervals of the gap between vision and imagery, and of what imagery retains."""
    for t, s in ((12, 4), (1_000, 4)):
        rng = np.random.default_rng([9, s, t])
        gap, retained = [], []
        truths = two_way_mean(1.5, 0.8, 0.6, 1.0), two_way_mean(0.5, 0.8, 1.0, 1.0)
        for seed, size in batches(n):
            easy = 0.8 * rng.normal(size=(size, 1, t))
            vision = two_way_scores(rng, 1.5 + easy + 0.6 * rng.normal(size=(size, s, t)))
            imagery = two_way_scores(rng, 0.5 + easy + 1.0 * rng.normal(size=(size, s, t)))
            options = {"n_resamples": RESAMPLES, "seed": seed}
            gap.append(_holds(stats.bca(vision - imagery, **options), truths[0] - truths[1]))
            ratio = stats.bca_ratio(imagery - 0.5, vision - 0.5, **options)
            retained.append(_holds(ratio, (truths[1] - 0.5) / (truths[0] - 0.5)))
        for name, held in (("gap", gap), ("retention", retained)):
            yield Rate(f"BCa, {name}, two-way, {t:,} x {s}", float(np.mean(np.concatenate(held))), n, COVERS)


RATES: dict[str, Callable[[], Iterator[Rate]]] = {
    "Tests of scores against chance": label_rates,
    "Decoders without signal": decoder_rates,
    "Scores without stored similarities": floor_rates,
    "Tests of paired differences": sign_rates,
    "Signs for each subject, not used": flips_per_subject,
    "Regression check": bound_rates,
    "Rank agreement": rank_rates,
    "Coverage of 95 % intervals": coverage_rates,
    "Coverage of gap and retention": gap_coverage_rates,
}


def main() -> None:
    """Print all tables; draw the power curves into the file named on the command line."""
    for title, rates in RATES.items():
        print(f"\n| {title} | rate | +- | limits | data sets |\n| --- | ---: | ---: | ---: | ---: |")
        for rate in rates():
            print(rate, flush=True)
    curves = [power.of_labels(), power.of_signs()]
    for curve in curves:
        print("", *curve.lines(), sep="\n", flush=True)
    if len(sys.argv) > 1:
        power.draw(curves, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
