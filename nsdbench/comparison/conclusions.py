"""One sentence per conclusion: what may be said after all corrections, what may not, and from how much data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from nsdbench import summary
from nsdbench.comparison.agreement import MEAN_RANK, Agreement
from nsdbench.comparison.blocks import Line, Record, apart, beats_chance
from nsdbench.comparison.evidence import Contest, Evidence, Field, Order
from nsdbench.comparison.scores import knows_sets, set_score
from nsdbench.comparison.tables import interval, number, p_value

IMAGES, IMAGES_WITHIN = (0, False, False), (0, False, True)
TWO_WAY_CHANCE = 0.5
SPLIT_NAMES = {"vision": "Vision", "imagery": "Imagery", "shared1000": "Shared images"}


def conclusions(evidence: Evidence) -> tuple[str, ...]:
    """Return the sentences, split by split, then those about both splits together."""
    found: list[str] = []
    for place, contests in evidence.contests.items():
        if place.family == IMAGES:
            within = evidence.contests.get(replace(place, family=IMAGES_WITHIN), contests)
            for contest, facts in zip(within, apart([one.lines for one in within]), strict=True):
                where = _where(place, facts)
                found += [*_above_chance(where, contest), *_prevalent(where, contest)]
            for contest, facts in zip(contests, apart([one.lines for one in contests]), strict=True):
                where = _where(place, facts)
                found += [*_printed(where, contest), *_told_apart(where, contest, evidence)]
    for place, orders in evidence.orders.items():
        if place.family == IMAGES:
            sides = [[line.imagery for line in order.lines] for order in orders]
            for order, facts in zip(orders, apart(sides), strict=True):
                where = _where(place, facts, "Vision and imagery")
                found += [*_lost(where, order), *_decoupled(where, order, place)]
    return tuple(found)


def _above_chance(where: str, contest: Contest) -> Iterator[str]:
    """Who identifies targets? Within the sets where that is known, since telling sets apart is easy."""
    rows = {line.model: tested for line in contest.models if (tested := _tested(line))}
    if not rows:
        return
    hits = {model: (sum(map(beats_chance, tested)), len(tested)) for model, tested in rows.items()}
    first = next(iter(rows.values()))[0]
    tests = " or ".join(sorted({row["test"] for tested in rows.values() for row in tested}))
    among = " among those of their own set" if first["pool"].startswith("within") else ""
    easy = (
        f" Telling the sets apart is enough for that, and would score {number(set_score(first))}."
        if knows_sets(first)
        else ""
    )
    yield (
        f"{where}, targets identified{among} better than chance: {_tally(hits)} "
        f"({_n(first)}; {tests}, corrected over the metrics of a model).{easy}"
    )


def _tested(line: Line) -> list[Record]:
    return [
        row
        for row in line.rows.values()
        if summary.kind(row["metric"]) == "identification"
        and row.get("p_corrected") is not None
        and row["status"] != "untrained"
    ]


def _prevalent(where: str, contest: Contest) -> Iterator[str]:
    """In how many people? Only of scores that are better than chance after correction."""
    shares: dict[tuple[str, int], int] = {}
    highest = 0.0
    for line in contest.models:
        for row in line.rows.values():
            bound = row.get("prevalence_bound")
            if bound is not None and beats_chance(row):
                key = (line.model, round(100 * bound))
                shares[key] = shares.get(key, 0) + 1
                highest = max(highest, row["prevalence_highest"])
    if shares:
        ordered = sorted(shares.items(), key=lambda share: (-share[0][1], share[0][0]))
        said = ", ".join(f"{model} {share} % ({_metrics(n)})" for (model, share), n in ordered)
        n_subjects = contest.models[0].first["n_subjects"]
        yield (
            f"{where}: share of people whose data carry the information, at least: {said}; {n_subjects} subjects could show "
            f"{100 * highest:.0f} % at most."
        )


def _metrics(n: int) -> str:
    return f"{n} metric{'' if n == 1 else 's'}"


def _printed(where: str, contest: Contest) -> Iterator[str]:
    """What becomes of printed scores that are all too low by the same amount?"""
    rows = [
        row
        for line in contest.models
        for row in line.rows.values()
        if row["metric_profile"] == summary.OFFSET_PROFILE and row["status"] == "published"
    ]
    rows = [
        row for row in rows if summary.kind(row["metric"]) == "identification" and row["chance"] is not None
    ]
    if rows:
        printed = sum(row["value"] < TWO_WAY_CHANCE for row in rows)
        corrected = sum(row["value"] < row["chance"] for row in rows)
        offset = number(TWO_WAY_CHANCE - rows[0]["chance"])
        yield (
            f"{where}, two-way scores as printed and corrected: {printed} of {len(rows)} printed means lie below "
            f".500, but their chance level is {number(rows[0]['chance'])}; corrected by {offset}, {corrected} lie below .500."
        )


def _told_apart(where: str, contest: Contest, evidence: Evidence) -> Iterator[str]:
    """Who is best or cannot be told from the best? Only of metrics in which all their models can be compared."""
    marks = {
        line.model: [found for row in line.rows.values() if (found := evidence.letters(row))]
        for line in contest.models
    }
    marks = {model: found for model, found in marks.items() if found}
    rows = [row for line in contest.models for row in line.rows.values() if evidence.letters(row)]
    if not rows:
        return
    facts = f"{_n(rows[0])}; sign flips over targets, Holm over pairs of models within a metric"
    n_metrics = len({row["metric"] for row in rows})
    behind = {model: sum("a" not in one for one in found) for model, found in marks.items()}
    if not any(pair.differ for pair in contest.pairs if evidence.letters(pair.first)):
        yield f"{where}: no two of {len(marks)} models can be told apart on any of {n_metrics} metrics ({facts})."
        return
    best = [model for model, n in behind.items() if not n and len(marks[model]) == n_metrics]
    lead = (
        f"best or not to be told from the best on all {n_metrics} metrics: {', '.join(best)}"
        if best
        else f"no model is among the best on all {n_metrics} metrics"
    )
    worse = _by_count({model: (n, f" of {len(marks[model])}") for model, n in behind.items()})
    yield (f"{where}: {lead}" + (f"; behind the best on some: {worse}" if worse else "") + f" ({facts}).")


def _lost(where: str, order: Order) -> Iterator[str]:
    """Who does worse on imagined images?"""
    gaps = {
        line.imagery.model: [g for g in line.gaps.values() if g.p_corrected is not None]
        for line in order.lines
    }
    gaps = {model: found for model, found in gaps.items() if found}
    if not gaps:
        return
    lost, won = (
        {m: (sum(g.certain and sign * g.value > 0 for g in found), len(found)) for m, found in gaps.items()}
        for sign in (1, -1)
    )
    facts = f"{_n(next(iter(gaps.values()))[0].vision)}; sign flips over targets, Holm over the metrics of a model"
    yield f"{where}, imagined images score certainly worse than seen ones: {_tally(lost)} ({facts})."
    if any(n for n, _ in won.values()):
        yield f"{where}, imagined images score certainly better than seen ones: {_tally(won)} ({facts})."


def _decoupled(where: str, order: Order, place: Field) -> Iterator[str]:
    """Does doing well on vision say anything about imagery?"""
    if not order.agreements:
        return
    n = len(order.agreements[0].models)
    head = f"{where}: is imagery decoupled from vision?"
    least = 2 / math.factorial(n)
    overall = order.of(MEAN_RANK)
    if least > summary.ALPHA:
        seen = f"their order by mean rank over the metrics has {_rho(overall)}, but " if overall else ""
        yield f"{head} {n} models cannot tell: {seen}even perfect agreement would have p = {p_value(least)}."
        return
    if overall:
        verdict = "Not in general" if overall.agrees else "Cannot be told in general"
        verdict = "In general one is the reverse of the other" if overall.opposes else verdict
        yield f"{head} {verdict}: the order of {n} models by mean rank over the metrics has {_rho(overall)}."
    metrics = [one for one in order.agreements if one.metric != MEAN_RANK]
    agree = [_named(one) for one in metrics if one.agrees]
    oppose = [_named(one) for one in metrics if one.opposes]
    rest = [one for one in metrics if not one.agrees and not one.opposes]
    said = f"the orders agree on {', '.join(agree)}" if agree else "agreement is shown on no metric"
    said += f"; they are opposite on {', '.join(oppose)}" if oppose else ""
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
        f"{where}, metric by metric: {said} ({n} models, {_n(order.lines[0].vision.first)}; "
        f"Holm over {len(metrics)} metrics).{both}"
    )


def _named(found: Agreement) -> str:
    return f"{found.metric} (rho {number(found.rho, 2)}, p {p_value(found.p)})"


def _rho(found: Agreement) -> str:
    limits = interval(found.low, found.high)
    exact = "exact p" if found.exact else "p"
    return f"rho = {number(found.rho, 2)}{' ' + limits if limits else ''}, {exact} = {p_value(found.p)}"


def _tally(hits: Mapping[str, tuple[int, int]]) -> str:
    """Name the models with a hit and on how many of their metrics, then those without."""
    some = _by_count({model: (n, f" of {of} metrics") for model, (n, of) in hits.items()})
    none = sorted(model for model, (n, _) in hits.items() if not n)
    return "; ".join(filter(None, [some, f"not shown for {', '.join(none)}" if none else ""]))


def _by_count(hits: Mapping[str, tuple[int, str]]) -> str:
    """Name the models with a hit, the most first, those with as many together: ``a, b (3 of 4); c (1 of 4)``."""
    groups: dict[tuple[int, str], list[str]] = {}
    for model, count in sorted(hits.items(), key=lambda hit: (-hit[1][0], hit[0])):
        if count[0]:
            groups.setdefault(count, []).append(model)
    return "; ".join(f"{', '.join(models)} ({n}{unit})" for (n, unit), models in groups.items())


def _where(place: Field, apart: str, splits: str = "") -> str:
    """Say what a sentence is about: split or splits, data set or source, and what sets it apart from its like."""
    name = splits or SPLIT_NAMES[place.split]
    if place.source:
        source = f"{place.source[0].partition(' | ')[0]}, {place.source[1]}"
        return f"{name} as published ({'; '.join(filter(None, [source, apart]))})"
    facts = "; ".join(filter(None, ["" if place.dataset == "nsd" else place.dataset, apart]))
    return f"{name} ({facts})" if facts else name


def _n(row: Record) -> str:
    subjects = (
        f"{row['n_subjects']} subjects" if row["subject"] == summary.MEAN else f"subject {row['subject']}"
    )
    return f"{row['n_targets']} target{'' if row['n_targets'] == 1 else 's'}, {subjects}"
