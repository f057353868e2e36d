"""One sentence per conclusion: what may be said after all corrections, what may not, and from how much data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from nsdbench import summary
from nsdbench.comparison.agreement import MEAN_RANK, Agreement
from nsdbench.comparison.blocks import Line, Record
from nsdbench.comparison.evidence import Contest, Evidence, Field, Order
from nsdbench.comparison.scores import knows_sets, set_score
from nsdbench.comparison.tables import interval, number, p_value

ALPHA = 1 - summary.LEVEL
IMAGES, IMAGES_WITHIN = (0, False, False), (0, False, True)
TWO_WAY_CHANCE = 0.5
SPLIT_NAMES = {"vision": "Vision", "imagery": "Imagery", "shared1000": "Shared images"}


def conclusions(evidence: Evidence) -> tuple[str, ...]:
    """Return the sentences, split by split, then those about both splits together."""
    found: list[str] = []
    for place, contests in evidence.contests.items():
        if place.family == IMAGES:
            within = replace(place, family=IMAGES_WITHIN)
            for contest in evidence.contests.get(within, contests):
                found += [*_above_chance(place, contest), *_prevalent(place, contest)]
            for contest in contests:
                found += [*_printed(place, contest), *_told_apart(place, contest, evidence)]
    for place, orders in evidence.orders.items():
        if place.family == IMAGES:
            for order in orders:
                found += [*_lost(place, order), *_decoupled(place, order)]
    return tuple(found)


def _above_chance(place: Field, contest: Contest) -> Iterator[str]:
    """Who identifies targets? Within the sets where that is known, since telling sets apart is easy."""
    rows = {line.model: tested for line in contest.models if (tested := _tested(line))}
    if not rows:
        return
    hits = {model: sum(row["p_corrected"] <= ALPHA for row in tested) for model, tested in rows.items()}
    n_metrics = max(map(len, rows.values()))
    first = next(iter(rows.values()))[0]
    among = " among those of their own set" if first["pool"].startswith("within") else ""
    easy = (
        f" Telling the sets apart is enough for that, and would score {number(set_score(first))}."
        if knows_sets(first)
        else ""
    )
    yield (
        f"{_where(place)}, targets identified{among} better than chance: {_tally(hits, n_metrics)} "
        f"({_n(first)}; {first['test']}, corrected over the metrics of a model).{easy}"
    )


def _tested(line: Line) -> list[Record]:
    return [
        row
        for row in line.rows.values()
        if summary.kind(row["metric"]) == "identification"
        and row.get("p_corrected") is not None
        and row["status"] != "untrained"
    ]


def _prevalent(place: Field, contest: Contest) -> Iterator[str]:
    bounds = {
        f"{line.model} ({metric})": row["prevalence_bound"]
        for line in contest.models
        for metric, row in line.rows.items()
        if row.get("prevalence_bound") is not None
    }
    if bounds:
        highest = max(
            row.get("prevalence_highest") or 0 for line in contest.models for row in line.rows.values()
        )
        said = ", ".join(
            f"{name} {100 * bound:.0f} %" for name, bound in sorted(bounds.items(), key=lambda b: -b[1])
        )
        n = contest.models[0].first["n_subjects"]
        yield (
            f"{_where(place)}: share of people whose data carry the information, at least: {said} "
            f"({n} subjects could show {100 * highest:.0f} % at most)."
        )


def _printed(place: Field, contest: Contest) -> Iterator[str]:
    """What becomes of printed scores that are all too low by the same amount?"""
    rows = [
        row
        for line in contest.models
        for row in line.rows.values()
        if row["metric_profile"] == summary.OFFSET_PROFILE
    ]
    rows = [
        row for row in rows if summary.kind(row["metric"]) == "identification" and row["chance"] is not None
    ]
    if rows:
        printed = sum(row["value"] < TWO_WAY_CHANCE for row in rows)
        corrected = sum(row["value"] < row["chance"] for row in rows)
        offset = number(TWO_WAY_CHANCE - rows[0]["chance"])
        yield (
            f"{_where(place)}, two-way scores as printed and corrected: {printed} of {len(rows)} printed means lie below "
            f".500, but their chance level is {number(rows[0]['chance'])}; corrected by {offset}, {corrected} lie below .500."
        )


def _told_apart(place: Field, contest: Contest, evidence: Evidence) -> Iterator[str]:
    """Who is best or cannot be told from the best?"""
    if not contest.pairs:
        return
    behind = {
        line.model: sum(
            bool(marks) and "a" not in marks for marks in map(evidence.letters, line.rows.values())
        )
        for line in contest.models
    }
    first = contest.pairs[0]
    facts = f"{_n(first.first)}; sign flips over targets, Holm over pairs of models within a metric"
    n_metrics = len({pair.first["metric"] for pair in contest.pairs})
    if not any(pair.differ for pair in contest.pairs):
        yield f"{_where(place)}: no two of {len(behind)} models can be told apart on any of {n_metrics} metrics ({facts})."
        return
    best = [model for model, n in behind.items() if not n]
    lead = (
        f"best or not to be told from the best on all {n_metrics} metrics: {', '.join(best)}"
        if best
        else f"no model is among the best on all {n_metrics} metrics"
    )
    worse = _by_count(behind, f" of {n_metrics}")
    yield (
        f"{_where(place)}: {lead}" + (f"; behind the best on some: {worse}" if worse else "") + f" ({facts})."
    )


def _lost(place: Field, order: Order) -> Iterator[str]:
    """Who does worse on imagined images?"""
    gaps = {
        line.imagery.model: [g for g in line.gaps.values() if g.p_corrected is not None]
        for line in order.lines
    }
    gaps = {model: found for model, found in gaps.items() if found}
    if not gaps:
        return
    lost = {model: sum(gap.certain and gap.value > 0 for gap in found) for model, found in gaps.items()}
    won = {model: sum(gap.certain and gap.value < 0 for gap in found) for model, found in gaps.items()}
    n_metrics = max(map(len, gaps.values()))
    facts = f"{_n(next(iter(gaps.values()))[0].vision)}; sign flips over targets, Holm over the metrics of a model"
    yield f"{_both(place)}, imagined images score certainly worse than seen ones: {_tally(lost, n_metrics)} ({facts})."
    if any(won.values()):
        yield f"{_both(place)}, imagined images score certainly better than seen ones: {_tally(won, n_metrics)} ({facts})."


def _decoupled(place: Field, order: Order) -> Iterator[str]:
    """Does doing well on vision say anything about imagery?"""
    if not order.agreements:
        return
    n = len(order.agreements[0].models)
    head = f"{_both(place)}: is imagery decoupled from vision?"
    least = 2 / math.factorial(n)
    overall = order.of(MEAN_RANK)
    if least > ALPHA:
        seen = f"their order by mean rank over the metrics has {_rho(overall)}, but " if overall else ""
        yield f"{head} {n} models cannot tell: {seen}even perfect agreement would have p = {p_value(least)}."
        return
    if overall:
        verdict = "Not in general" if overall.agrees else "Cannot be told in general"
        yield f"{head} {verdict}: the order of {n} models by mean rank over the metrics has {_rho(overall)}."
    metrics = [one for one in order.agreements if one.metric != MEAN_RANK]
    agree = [f"{one.metric} (rho {number(one.rho, 2)}, p {p_value(one.p)})" for one in metrics if one.agrees]
    rest = [one for one in metrics if not one.agrees]
    said = f"the orders agree on {', '.join(agree)}" if agree else "agreement is shown on no metric"
    if rest:
        low, high = (number(f(one.rho for one in rest), 2) for f in (min, max))
        names = ", ".join(one.metric for one in rest)
        said += f"; neither agreement nor its absence on {names} (rho {low} to {high})"
    both = (
        " As printed and as corrected, since the offset changes no order."
        if place.source and summary.OFFSET_PROFILE in place.source
        else ""
    )
    yield (
        f"{_both(place)}, metric by metric: {said} ({n} models, {_n(order.lines[0].vision.first)}; "
        f"Holm over {len(metrics)} metrics).{both}"
    )


def _rho(found: Agreement) -> str:
    limits = interval(found.low, found.high)
    exact = "exact p" if found.exact else "p"
    return f"rho = {number(found.rho, 2)}{' ' + limits if limits else ''}, {exact} = {p_value(found.p)}"


def _tally(hits: Mapping[str, int], n_metrics: int) -> str:
    """Name the models with a hit and on how many metrics, then those without."""
    some, none = _by_count(hits, f" of {n_metrics} metrics"), sorted(m for m, n in hits.items() if not n)
    return "; ".join(filter(None, [some, f"not shown for {', '.join(none)}" if none else ""]))


def _by_count(hits: Mapping[str, int], unit: str) -> str:
    """Name the models with a hit, the most first, those with as many together: ``a, b (3 of 4); c (1 of 4)``."""
    groups: dict[int, list[str]] = {}
    for model, n in sorted(hits.items(), key=lambda hit: (-hit[1], hit[0])):
        if n:
            groups.setdefault(n, []).append(model)
    return "; ".join(f"{', '.join(models)} ({n}{unit})" for n, models in groups.items())


def _where(place: Field) -> str:
    return f"{SPLIT_NAMES[place.split]}{_source(place)}"


def _both(place: Field) -> str:
    return f"Vision and imagery{_source(place)}"


def _source(place: Field) -> str:
    if place.source:
        return f" as published ({place.source[0].partition(' | ')[0]}, {place.source[1]})"
    return "" if place.dataset == "nsd" else f" ({place.dataset})"


def _n(row: Record) -> str:
    subjects = (
        f"{row['n_subjects']} subjects" if row["subject"] == summary.MEAN else f"subject {row['subject']}"
    )
    return f"{row['n_targets']} targets, {subjects}"
