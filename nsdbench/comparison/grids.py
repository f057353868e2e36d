"""The tables that ``nsdbench compare`` prints, built from leaderboard rows and the evidence about them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby

from nsdbench import summary
from nsdbench.comparison import blocks
from nsdbench.comparison.blocks import Line, Record
from nsdbench.comparison.evidence import Evidence, Field, Order
from nsdbench.comparison.gap import Gap
from nsdbench.comparison.pairs import Pair
from nsdbench.comparison.scores import column_order, knows_sets, name, set_score, short_name
from nsdbench.comparison.tables import Band, Grid, Row, header_cell, interval, number, p_value

LABEL_WIDTH = 22
COLUMNS = 8  # metrics side by side; more continue in a table of their own
TITLES = {
    "vision": "VISION: NSD-Imagery targets while seen",
    "imagery": "IMAGERY: NSD-Imagery targets while imagined",
    "shared1000": "SHARED1000: shared images of core NSD, seen",
}
SOURCES_NOTE = (
    "One block per source: models are ranked within it, never against other sources or your own results."
)
STAR_NOTE = (
    "* better than chance (corrected p <= .05): the labels of these targets matter. An interval says where the mean over "
    "other targets would lie, and may still contain chance."
)
LETTERS_NOTE = "Models that share a letter cannot be told apart in that column."
SET_NOTE = "set only: what telling bars and crosses from scenes would give, and nothing else."
GAP_TITLE = "VISION AGAINST IMAGERY: same targets, same decoder"
GAP_NOTE = "gap > 0: seen images score better (distances are turned round)."
TESTED_NOTE = "* a gap that is not zero (corrected p <= .05)."
KEPT_NOTE = (
    "kept: share of the vision score above chance that imagery retains; empty where vision is not surely above chance. "
    "Vision averages 8 trials per target, imagery 16; `--imagery-runs 2` has as many as vision."
)
AGAINST_NOTE = (
    "Paired difference, its 95 % interval over targets, and the probability to be better on a target; > 0: better than the "
    "model named above. * not zero (sign flips over targets, Holm over the metrics of the two models, p <= .05)."
)
ORDER_NOTE = (
    "order of models: Spearman rho between vision and imagery, its interval over targets where item scores are at hand, "
    "two-sided permutation p."
)


def split_grids(evidence: Evidence) -> Iterator[Grid]:
    """Yield the tables of a user's own results: per split, data set and kind of pool."""
    for place, found in evidence.contests.items():
        for metrics in _chunks(line for contest in found for line in contest.lines):
            shown = [_restricted(contest.lines, metrics) for contest in found]
            shown = [lines for lines in shown if lines]
            everything = list(chain.from_iterable(shown))  # a metric may be in some of the blocks only
            bands = list(_block_bands(shown[0], metrics, evidence))
            for block in shown[1:]:
                why = f"not comparable with the rows above: {blocks.difference(block[0], shown[0])}"
                bands += _block_bands(block, metrics, evidence, why)
            title = f"{TITLES[place.split]} ({blocks.facts(shown[0], place.dataset, profile=True)})"
            notes = _legend(everything, metrics, evidence)
            yield _without_empty_rank(Grid(title, _header(everything, metrics), tuple(bands), notes))


def published_grids(evidence: Evidence) -> Iterator[Grid]:
    """Yield the tables of published results: per split, one band per source, profile and test set."""
    for (split, kind), places in groupby(evidence.contests, key=lambda place: (place.split, place.family)):
        fields = sorted(places, key=lambda place: _source_order(place, evidence))
        everything = [
            line for place in fields for contest in evidence.contests[place] for line in contest.lines
        ]
        for metrics in _chunks(everything):
            bands = tuple(band for place in fields for band in _source_band(place, metrics, evidence))
            what = "AS PUBLISHED, corrected for the 1/11 offset" if kind[1] else "AS PUBLISHED"
            notes = (SOURCES_NOTE, *_legend(everything, metrics, evidence))
            title = f"{TITLES[split]}, {what}"
            yield _without_empty_rank(Grid(title, _header(everything, metrics), bands, notes))


def gap_grids(evidence: Evidence) -> Iterator[Grid]:
    """Yield the vision-against-imagery tables: both values, the gap, what is kept, how well the order of models agrees.

    Corrected published scores are left out, since a constant offset changes neither the gap nor the order.
    """
    places = [place for place in evidence.orders if not place.family[1]]
    for _, group in groupby(places, key=lambda place: (place.dataset, place.family, bool(place.source))):
        fields = list(group)
        found = [(place, order) for place in fields for order in evidence.orders[place]]
        for metrics in _chunks(line.imagery for _, order in found for line in order.lines):
            shown = [(place, order) for place, order in found if _has(order, metrics)]
            captioned = bool(fields[0].source) or len(shown) > 1
            bands = tuple(
                _gap_band(place, order, metrics, _gap_caption(place, order, shown[0][1]) if captioned else "")
                for place, order in shown
            )
            lines = [line for _, order in shown for line in order.lines]
            first, *columns, _ = _header([line.imagery for line in lines], metrics)
            sides = [line.imagery for line in shown[0][1].lines]
            facts = ", AS PUBLISHED" if fields[0].source else f" ({blocks.facts(sides)})"
            notes = [GAP_NOTE]
            notes += [TESTED_NOTE] if any(gap.certain for line in lines for gap in line.gaps.values()) else []
            notes += [KEPT_NOTE] if any("kept" in row[1] for band in bands for row in band.rows) else []
            notes += [ORDER_NOTE] if any(order.agreements for _, order in shown) else []
            yield Grid(GAP_TITLE + facts, (first, "", *columns), bands, tuple(notes))


def against_grids(evidence: Evidence, model: str) -> Iterator[Grid]:
    """Yield the paired differences of all models to one of them, per split and kind of metrics."""
    for place, found in evidence.contests.items():
        for contest in found:
            both = (*contest.pairs, *contest.floor_pairs)
            pairs = [turned for pair in both if (turned := _seen_from(pair, model))]
            for metrics in _chunks(contest.models):
                rows = tuple(_pair_rows(pairs, metrics))
                if rows:
                    facts = blocks.facts(contest.models, place.dataset)
                    title = f"{TITLES[place.split]}, difference to {model} ({facts})"
                    yield Grid(title, _header(contest.models, metrics)[:-1], (Band(rows),), (AGAINST_NOTE,))


def _chunks(members: Iterable[Line]) -> Iterator[list[str]]:
    """Yield the metrics of lines, at most eight at a time, in the order of columns."""
    order = sorted({metric for line in members for metric in line.rows}, key=column_order)
    for start in range(0, len(order), COLUMNS):
        yield order[start : start + COLUMNS]


def _restricted(members: Iterable[Line], metrics: Sequence[str]) -> list[Line]:
    """Return the lines with these metrics only; those that have none of them are left out."""
    return [cut for line in members if (cut := line.only(lambda row: row["metric"] in metrics)).rows]


def _header(members: Iterable[Line], metrics: Sequence[str]) -> Row:
    directions = {metric: row["direction"] for line in members for metric, row in line.rows.items()}
    return ("model", *(header_cell(metric, directions[metric]) for metric in metrics), "mean\nrank")


def _without_empty_rank(grid: Grid) -> Grid:
    """Drop the last column if no two models could be ranked."""
    if any(row[-1] for band in grid.bands for row in band.rows):
        return grid
    bands = (replace(band, rows=tuple(row[:-1] for row in band.rows)) for band in grid.bands)
    return replace(grid, header=grid.header[:-1], bands=tuple(bands))


def _legend(members: Iterable[Line], metrics: Sequence[str], evidence: Evidence) -> tuple[str, ...]:
    """Return what the marks in a table mean, as far as there are any."""
    rows = [line.rows[metric] for line in members for metric in metrics if metric in line.rows]
    notes = [STAR_NOTE] if any(blocks.beats_chance(row) for row in rows) else []
    notes += [LETTERS_NOTE] if any(evidence.letters(row) for row in rows) else []
    notes += [SET_NOTE] if any(knows_sets(row) for row in rows) else []
    return (" ".join(notes),) if notes else ()


def _block_bands(
    block: Sequence[Line], metrics: Sequence[str], evidence: Evidence, caption: str = ""
) -> Iterator[Band]:
    """Yield a band of models, best first, and a band of floors with the chance rows."""
    samples = blocks.common_samples(block) is None
    models = [line for line in block if not line.is_floor]
    floors = sorted((line for line in block if line.is_floor), key=lambda line: line.model)
    ordered = [*blocks.by_rank(models), *((line, None) for line in floors)]
    rows = _rows(ordered, metrics, evidence, samples=samples)
    below = rows[len(models) :] + _chance_rows(block, metrics)
    if models:
        yield Band(tuple(rows[: len(models)]), caption)
    if below:
        yield Band(tuple(below), "" if models else caption)


def _source_band(place: Field, metrics: Sequence[str], evidence: Evidence) -> Iterator[Band]:
    """Yield the band of one source, profile and test set."""
    shown = [_restricted(contest.lines, metrics) for contest in evidence.contests[place]]
    members = list(chain.from_iterable(shown))
    if members:
        rows = [
            row for block in shown for row in _rows(blocks.by_rank(block), metrics, evidence, samples=False)
        ]
        source, stimulus_set, profile = place.source
        known = ", ".join(
            filter(None, [f"targets {stimulus_set}", f"profile {profile}", blocks.facts(members)])
        )
        yield Band((*rows, *_chance_rows(members, metrics)), f"{source} | {known}")


def _source_order(place: Field, evidence: Evidence) -> tuple[bool, int, tuple[str, ...]]:
    """Verified sources and those with many models come first."""
    models = {line.model for contest in evidence.contests[place] for line in contest.lines}
    return (not place.source[0].endswith("| verified"), -len(models), place.source)


def _rows(
    ordered: Sequence[tuple[Line, float | None]], metrics: Sequence[str], evidence: Evidence, *, samples: bool
) -> list[Row]:
    columns = [_column([line.rows.get(metric) for line, _ in ordered], evidence) for metric in metrics]
    labels = [_label(line, samples=samples) for line, _ in ordered]
    ranks = ["" if rank is None else f"{rank:.1f}" for _, rank in ordered]
    return list(zip(labels, *columns, ranks, strict=True))


def _column(rows: Sequence[Record | None], evidence: Evidence) -> list[str]:
    """Return the cells of one metric: value with star and letters, marks set so that values stay below each other."""
    stars = ["*" if row and blocks.beats_chance(row) else "" for row in rows]
    letters = [evidence.letters(row) if row else "" for row in rows]
    wide = max(map(len, letters), default=0)
    cells = []
    for row, star, letter in zip(rows, stars, letters, strict=True):
        marks = star.ljust(1 if any(stars) else 0) + (" " + letter.ljust(wide) if wide else "")
        limits = interval(row["ci_low"], row["ci_high"]) if row else ""
        cells.append(f"{number(row['value'] if row else None)}{marks}" + (f"\n{limits}" if limits else ""))
    return cells


def _label(line: Line, *, samples: bool) -> str:
    """Return the model's name and, below it, the labels and what is not said in the title."""
    row = line.first
    said = list(dict.fromkeys(chain.from_iterable(blocks.labels(r) for r in line.rows.values())))
    if "untrained" in said and any(r["status"] != "untrained" for r in line.rows.values()):
        said[said.index("untrained")] = "nets untrained"  # the other metrics look through none
    if samples and row["n_samples"]:
        said.append(f"{row['n_samples']} sample{'s' if row['n_samples'] > 1 else ''}")
    if row["subject"] != summary.MEAN:
        said.append(f"subject {row['subject']}")
    return "\n".join([short_name(row), *textwrap.wrap(", ".join(said), LABEL_WIDTH)])


def _chance_rows(block: Sequence[Line], metrics: Sequence[str]) -> list[Row]:
    """Return the rows of chance levels of the models, a range where they differ, and of knowing only the set."""
    models = [line for line in block if not line.is_floor] or block
    chance, sets = [], []
    for metric in metrics:
        rows = [line.rows[metric] for line in models if metric in line.rows]
        levels = sorted(row["chance"] for row in rows if row["chance"] is not None)
        chance.append("-".join(dict.fromkeys(map(number, levels[:1] + levels[-1:]))))
        sets.append(number(set_score(rows[0])) if rows and knows_sets(rows[0]) else "")
    found = [("chance", *chance, ""), ("set only", *sets, "")]
    return [row for row in found if any(row[1:])]


def _has(order: Order, metrics: Sequence[str]) -> bool:
    return any(metric in line.gaps for line in order.lines for metric in metrics)


def _gap_caption(place: Field, order: Order, first: Order) -> str:
    members = [line.imagery for line in order.lines]
    source = place.source[0].partition(" | ")[0] if place.source else ""
    facts = f"{source} | {blocks.facts(members, profile=True)}".removeprefix(" | ")
    if place.source or order is first:
        return facts
    return (
        f"{facts}; not comparable with the rows above: {blocks.gap_difference(order.lines[0], first.lines)}"
    )


def _gap_band(place: Field, order: Order, metrics: Sequence[str], caption: str) -> Band:
    shown = [line for line in order.lines if any(metric in line.gaps for metric in metrics)]
    members = [line.imagery for line in shown]
    samples = blocks.common_samples(members) is None
    kept = any(g.retention is not None for line in shown for m, g in line.gaps.items() if m in metrics)
    said = "vision\nimagery\ngap\n" + ("\nkept" if kept else "")
    rows = [
        (
            _label(line.imagery, samples=samples),
            said.rstrip(),
            *(_gap_cell(line.gaps.get(m), kept) for m in metrics),
        )
        for line in shown
    ]
    if any(order.of(metric) for metric in metrics):
        cells = (_agreement_cell(order, metric) for metric in metrics)
        rows.append((f"order of {len(shown)}\nmodels", "rho\n\np", *cells))
    return Band(tuple(rows), caption)


def _gap_cell(gap: Gap | None, kept: bool) -> str:
    if gap is None:
        return number(None)
    star = "*" if gap.certain else ""
    values = [number(gap.vision["value"]), number(gap.imagery["value"]), number(gap.value) + star]
    lines = [*values, interval(gap.low, gap.high)]
    if kept:
        limits = interval(gap.retention_low, gap.retention_high)
        lines += ["" if gap.retention is None else number(gap.retention, 2), limits]
    return "\n".join(lines).rstrip()


def _agreement_cell(order: Order, metric: str) -> str:
    found = order.of(metric)
    if found is None:
        return number(None)
    return f"{number(found.rho, 2)}\n{interval(found.low, found.high)}\n{p_value(found.p)}"


def _seen_from(pair: Pair, model: str) -> Pair | None:
    """Return a comparison with ``model`` as the other side of the difference."""
    if name(pair.second) == model:
        return pair
    if name(pair.first) != model:
        return None
    return replace(
        pair, first=pair.second, second=pair.first, value=-pair.value, low=-pair.high, high=-pair.low,
        superiority=1 - pair.superiority,
    )  # fmt: skip


def _pair_rows(pairs: Sequence[Pair], metrics: Sequence[str]) -> Iterator[Row]:
    by_model: dict[str, dict[str, Pair]] = {}
    for pair in pairs:
        by_model.setdefault(name(pair.first), {})[pair.first["metric"]] = pair
    for model, found in sorted(by_model.items()):
        if any(metric in found for metric in metrics):
            yield (model, *(_pair_cell(found.get(metric)) for metric in metrics))


def _pair_cell(pair: Pair | None) -> str:
    if pair is None:
        return number(None)
    star = "*" if pair.p_contrast <= summary.ALPHA else ""
    return f"{number(pair.value)}{star}\n{interval(pair.low, pair.high)}\n{100 * pair.superiority:.0f} %"
