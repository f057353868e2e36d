"""The checks that look at features alone: one function per check, from evidence to an answer in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench import stats
from nsdbench.inspection.evidence import SETS, Evidence, Unavailable
from nsdbench.inspection.results import Check, Outcome
from nsdbench.metrics import spurious
from nsdbench.metrics.correlation import correlation_matrix
from nsdbench.metrics.identification import two_way, two_way_within

Floats = NDArray[np.float64]
CHANCE = 0.5


def interval(scores: Floats) -> tuple[float | None, float | None, float | None]:
    """Return mean and 95 % BCa limits of scores of targets; None where there are none."""
    defined = scores[~np.isnan(scores)]
    if not len(defined):
        return None, None, None
    found = stats.bca(defined[None, None, :])
    limits = (float(found.low[0]), float(found.high[0]))
    low, high = (None, None) if np.isnan(limits).any() else limits
    return float(found.estimate[0]), low, high


def answer(
    evidence: Evidence,
    name: str,
    scores: Floats,
    reference: tuple[float, str],
    where: int,
    verdict: str,
    details: Mapping[str, Any],
) -> Check:
    """Return a check whose value is the mean of target scores; ``where`` is the :func:`side` of the reference."""
    value, low, high = interval(scores)
    return Check(
        name, value, low, high, *reference, outcome(where), int(np.count_nonzero(~np.isnan(scores))),
        evidence.recon.n_samples, dict(details), verdict,
    )  # fmt: skip


def side(scores: Floats, reference: float) -> int:
    """Return 1 where the interval of the mean lies above ``reference``, -1 below it, and 0 where it does neither."""
    _, low, high = interval(scores)
    if low is None or high is None:
        return 0
    return int(low > reference + 1e-12) - int(high < reference - 1e-12)


def outcome(where: int) -> Outcome:
    """Return the word for 1, 0 or -1."""
    return "above" if where > 0 else "below" if where < 0 else "open"


def counted(scores: Floats) -> str:
    """Return ``"n = 12 targets"``: those that have a score."""
    n = int(np.count_nonzero(~np.isnan(scores)))
    return f"n = {n} target{'s' * (n != 1)}"


def two_way_scores(evidence: Evidence) -> Floats:
    """Two-way identification of each target in the whole pool, shape (n_targets,)."""
    return evidence.by_target(two_way(evidence.r, evidence.truth_row))


def within_cluster(evidence: Evidence) -> Check:
    """Identify targets among those of their own cluster or set."""
    scores = evidence.by_target(two_way_within(evidence.r, evidence.truth_row, evidence.groups))
    if np.isnan(scores).all():
        raise Unavailable(f"every target is alone in its {evidence.group_kind}")
    kind, n, where = evidence.group_kind, counted(scores), side(scores, CHANCE)
    verdict = {
        1: f"Targets of one {kind} are told apart better than chance: more than the {kind} is in the images ({n}).",
        0: f"Not shown that more than the {kind} of a target is in the images: the interval includes chance ({n}).",
        -1: f"Images are more like other targets of the {kind} than like their own ({n}).",
    }[where]
    details = {
        **_groups(evidence), "alone": int(np.isnan(scores).sum()), "by_set": evidence.by_set(scores),
    }  # fmt: skip
    return answer(evidence, "within_cluster_2way", scores, (CHANCE, "chance"), where, verdict, details)


def cluster_gap(evidence: Evidence) -> Check:
    """Compare what distractors of other clusters add with what knowing the cluster alone would add."""
    everything = two_way_scores(evidence)
    within = evidence.by_target(two_way_within(evidence.r, evidence.truth_row, evidence.groups))
    size, n = evidence.group_size, len(evidence.pool)
    between = spurious.two_way_between(everything, within, size, n)
    usable = ~np.isnan(within) & ~np.isnan(between)
    if not usable.any():
        raise Unavailable(f"no target has distractors both in its own {evidence.group_kind} and in another")
    rate = float(between[usable].mean())
    gap = np.where(usable, everything - within, np.nan)
    known = np.where(usable, spurious.category_two_way(size, n, between) - CHANCE, np.nan)
    excess, low, high = interval(known - gap)
    k, expected = len(evidence.groups), float(known[usable].mean())
    kind, count, where = evidence.group_kind, counted(gap), side(gap - known, 0.0)
    verdict = {
        -1: f"Distractors of other {kind}s add less than knowing the {kind} alone would: part of the score comes from "
        f"within {kind}s ({count}).",
        0: f"Not told apart from knowing the {kind} and nothing else: distractors of other {kind}s add neither surely "
        f"more nor less than that would ({count}).",
        1: f"Distractors of other {kind}s add more than knowing the {kind} alone would: within a {kind}, images are "
        f"worse than chance ({count}).",
    }[where]
    details = {
        **_groups(evidence), "two_way": float(everything[usable].mean()), "within": float(within[usable].mean()),
        "between": rate, "category_alone": expected + CHANCE, "excess": excess, "excess_low": low,
        "excess_high": high, "equal_categories": spurious.equal_categories_two_way(k, rate),
    }  # fmt: skip
    label = f"knowing the {kind} alone"
    return answer(evidence, "cluster_2way_gap", gap, (expected, label), where, verdict, details)


def _groups(evidence: Evidence) -> dict[str, Any]:
    return {
        "groups": evidence.group_kind,
        "k": len(evidence.groups),
        "sizes": [len(rows) for rows in evidence.groups],
    }


def nn_baseline(evidence: Evidence) -> Check:
    """Replace each reconstruction by the training image nearest to it, and score that like a reconstruction."""
    scores = two_way_scores(evidence)
    nearest = evidence.rivals.nearest
    rows, column = np.unique(nearest, return_inverse=True)
    r = correlation_matrix(evidence.truth, np.asarray(evidence.trained_on[rows]))
    replaced = evidence.by_target(two_way(r[:, column], evidence.truth_row))
    difference, n = scores - replaced, counted(scores)
    where = side(difference, 0.0)
    verdict = {
        1: f"Reconstructions identify their targets better than the training images nearest to them: more than "
        f"retrieval ({n}).",
        0: "Not told apart from retrieval: the difference to the training images nearest to the reconstructions is "
        f"{'not surely above 0' if difference.any() else 'exactly 0'} ({n}).",
        -1: f"The training images nearest to the reconstructions identify the targets better than they do ({n}).",
    }[where]
    details = {
        "own": float(scores.mean()), "replaced": float(replaced.mean()), "n_train": len(evidence.training.ids),
        "distinct_neighbours": len(rows), "by_set": evidence.by_set(difference),
    }  # fmt: skip
    return answer(evidence, "nn_baseline", difference, (0.0, "retrieval"), where, verdict, details)


def novelty(evidence: Evidence) -> Check:
    """Look for the target among all training images, and compare with wrong targets."""
    found = evidence.rivals
    scores, wrong, first = map(evidence.by_target, (found.beaten, found.mismatched, found.first))
    excess, excess_low, excess_high = interval(scores - wrong)
    top1, top1_low, top1_high = interval(first)
    n_train, where = len(evidence.training.ids), side(scores - wrong, 0.0)
    details = {
        "chance": CHANCE, "excess": excess, "excess_low": excess_low, "excess_high": excess_high, "top1": top1,
        "top1_low": top1_low, "top1_high": top1_high, "top1_chance": 1 / (1 + n_train), "n_train": n_train,
        "by_set": evidence.by_set(scores),
    }  # fmt: skip
    verdict = (
        f"{_nearer(scores, wrong, where)}; nearest of all for {first.mean():.1%} of reconstructions, by chance "
        f"{1 / (1 + n_train):.2%} ({counted(scores)})."
    )
    # chance misleads where targets and training images differ in kind; wrong targets do not
    return answer(
        evidence, "novelty_id", scores, (float(wrong.mean()), "wrong targets"), where, verdict, details
    )


def _nearer(scores: Floats, wrong: Floats, where: int) -> str:
    share, others = f"{scores.mean():.0%}", f"wrong targets are ({wrong.mean():.0%})"
    above = side(scores, CHANCE)
    nearer = f"Targets are nearer to their reconstructions than {share} of training images are"
    if where > 0:
        return nearer if above > 0 else f"{nearer}, not surely more than half of them, yet more than {others}"
    if above > 0:
        return f"{nearer}, but not surely more than {others}"
    if above < 0:
        return f"Training images are nearer to the reconstructions than targets are ({share}), right or wrong"
    return f"Not shown that targets are nearer to their reconstructions than training images are ({share})"


def set_oracle(evidence: Evidence) -> Check:
    """Compare two-way identification with that of a decoder that knows the set or cluster alone."""
    scores = two_way_scores(evidence)
    floors = spurious.category_two_way(evidence.group_size, len(evidence.pool))
    kind, floor, n = evidence.group_kind, float(floors.mean()), counted(scores)
    what, where = "set (A or B)" if kind == SETS else kind, side(scores - floors, 0.0)
    verdict = {
        1: f"Identification is better than that of a decoder that knows the {what} of a target and nothing else ({n}).",
        0: f"Not told apart from a decoder that knows the {what} of a target and nothing else ({n}).",
        -1: f"A decoder that knows the {what} of a target and nothing else would score more ({n}).",
    }[where]
    return answer(
        evidence,
        "set_oracle_floor",
        scores,
        (floor, f"knowing the {kind} alone"),
        where,
        verdict,
        _groups(evidence),
    )
