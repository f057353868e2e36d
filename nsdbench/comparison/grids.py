"""The tables that ``nsdbench compare`` prints, built from leaderboard rows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from nsdbench import stats, summary
from nsdbench.comparison import blocks
from nsdbench.comparison.blocks import FLOORS, GapLine, Line, Record
from nsdbench.comparison.gap import Gap
from nsdbench.comparison.tables import Band, Grid, Row, header_cell, interval, number
from nsdbench.metrics.registry import METRICS
from nsdbench.types import SPLITS

LABEL_WIDTH = 22
BYPRODUCTS = ("retrieval", "caption")  # kinds of metrics with tables of their own
COLUMNS = 8  # metrics side by side; more continue in a table of their own
TITLES = {
    "vision": "VISION: NSD-Imagery targets while seen",
    "imagery": "IMAGERY: NSD-Imagery targets while imagined",
    "shared1000": "SHARED1000: shared images of core NSD, seen",
}
SOURCES_NOTE = (
    "One block per source: models are ranked within it, never against other sources or your own results."
)
GAP_TITLE = "VISION AGAINST IMAGERY: same targets, same decoder"
GAP_NOTE = "gap > 0: seen images score better (distances are turned round)."
ORDER_NOTE = "order of models: Spearman rho between vision and imagery, two-sided permutation p (exact up to 8 models)."


def split_grids(rows: Sequence[Record]) -> Iterator[Grid]:
    """Yield the tables of a user's own results: per split, data set and kind of pool."""
    for split in SPLITS:
        for dataset in sorted({row["dataset"] for row in rows}):
            here = [row for row in rows if (row["split"], row["dataset"]) == (split, dataset)]
            for chosen, metrics in _chunks(here):
                found = blocks.blocks(blocks.lines(chosen))
                bands = list(_block_bands(found[0], metrics))
                for block in found[1:]:
                    why = f"not comparable with the rows above: {blocks.difference(block[0], found[0])}"
                    bands += _block_bands(block, metrics, why)
                title = f"{TITLES[split]} ({_facts(found[0], dataset, profile=True)})"
                yield _without_empty_rank(Grid(title, _header(chosen, metrics), tuple(bands)))


def published_grids(rows: Sequence[Record]) -> Iterator[Grid]:
    """Yield the tables of published results: per split, one band per source, profile and test set."""
    for split in SPLITS:
        for chosen, metrics in _chunks([row for row in rows if row["split"] == split]):
            corrected = all(metric.endswith("_corrected") for metric in metrics)
            what = "AS PUBLISHED, corrected for the 1/11 offset" if corrected else "AS PUBLISHED"
            bands = tuple(_source_bands(chosen, metrics))
            title = f"{TITLES[split]}, {what}"
            yield _without_empty_rank(Grid(title, _header(chosen, metrics), bands, (SOURCES_NOTE,)))


def gap_grids(gaps: Sequence[Gap], *, published: bool = False) -> Iterator[Grid]:
    """Yield the vision-against-imagery tables: both values, the gap, and how well the order of models agrees.

    Corrected published scores are left out, since a constant offset changes neither the gap nor the order, and so are
    the floors, which do not look at the brain.
    """
    models = (gap for gap in gaps if gap.vision["model"] not in FLOORS)
    by_row = {id(gap.imagery): gap for gap in models if not gap.metric.endswith("_corrected")}
    for chosen, metrics in _chunks([gap.imagery for gap in by_row.values()]):
        found = blocks.blocks(blocks.gap_lines(by_row[id(row)] for row in chosen))
        bands = [_gap_band(block, metrics, captioned=published or len(found) > 1) for block in found]
        first, *columns, _ = _header(chosen, metrics)
        notes = (GAP_NOTE, ORDER_NOTE) if any(len(block) >= 3 for block in found) else (GAP_NOTE,)
        title = GAP_TITLE + (", AS PUBLISHED" if published else f" ({_facts([g.vision for g in found[0]])})")
        yield Grid(title, (first, "", *columns), tuple(bands), notes)


def _chunks(rows: Sequence[Record]) -> Iterator[tuple[list[Record], list[str]]]:
    """Yield rows and their metrics, at most eight at a time.

    Headline pools, within-set pools, corrected scores; then what only some models give, retrieval and captions.
    """
    kinds: dict[tuple[int, bool, bool], list[Record]] = {}
    for row in rows:
        metric, kind = row["metric"], summary.kind(row["metric"])
        family = BYPRODUCTS.index(kind) + 1 if kind in BYPRODUCTS else 0
        key = (family, metric.endswith("_corrected"), row["pool"].startswith("within"))
        kinds.setdefault(key, []).append(row)
    for _, here in sorted(kinds.items(), key=lambda kind: kind[0]):
        order = sorted({row["metric"] for row in here}, key=_column_order)
        for start in range(0, len(order), COLUMNS):
            metrics = order[start : start + COLUMNS]
            yield [row for row in here if row["metric"] in metrics], metrics


def _column_order(metric: str) -> tuple[int, str]:
    known, base = list(METRICS), summary.base_name(metric)
    return (known.index(base) if base in known else len(known), metric)


def _header(rows: Iterable[Record], metrics: Sequence[str]) -> Row:
    directions = {row["metric"]: row["direction"] for row in rows}
    return ("model", *(header_cell(metric, directions[metric]) for metric in metrics), "mean\nrank")


def _without_empty_rank(grid: Grid) -> Grid:
    """Drop the last column if no two models could be ranked."""
    if any(row[-1] for band in grid.bands for row in band.rows):
        return grid
    bands = (replace(band, rows=tuple(row[:-1] for row in band.rows)) for band in grid.bands)
    return replace(grid, header=grid.header[:-1], bands=tuple(bands))


def _facts(members: Sequence[Line], *first: str, profile: bool = False) -> str:
    """Say what lines have in common, as far as it is known: pool, targets, subjects, samples, profile."""
    rows = [row for line in members for row in line.rows.values()]
    pools = sorted({row["pool"] for row in rows} - {"none", "unstated"})
    parts = [*first, *([f"pool {', '.join(pools)}"] if pools else [])]
    targets = sorted({row["n_targets"] for row in rows} - {None})
    parts += [f"{'-'.join(map(str, dict.fromkeys((targets[0], targets[-1]))))} targets"] if targets else []
    subjects = {(row["subject"], row["n_subjects"]) for row in rows}
    if len(subjects) == 1:
        subject, n = subjects.pop()
        parts.append(f"mean of {n} subjects" if subject == summary.MEAN else f"subject {subject}")
    if (samples := _common_samples(members)) is not None:
        parts.append(f"{samples} sample{'s' if samples > 1 else ''} each")
    if profile:
        parts.append(f"profile {', '.join(sorted({row['metric_profile'] for row in rows}))}")
    return ", ".join(parts)


def _common_samples(members: Sequence[Line]) -> int | None:
    samples = {row["n_samples"] for line in members for row in line.rows.values()}
    return samples.pop() if len(samples) == 1 else None


def _block_bands(block: Sequence[Line], metrics: Sequence[str], caption: str = "") -> Iterator[Band]:
    """Yield a band of models, best first, and a band of floors with the chance row."""
    samples = _common_samples(block) is None
    models = _ranked_rows([line for line in block if not line.is_floor], metrics, samples=samples)
    floors = sorted((line for line in block if line.is_floor), key=lambda line: line.model)
    below = [_model_row(line, metrics, None, samples=samples) for line in floors] + _chance_row(
        block, metrics
    )
    if models:
        yield Band(tuple(models), caption)
    if below:
        yield Band(tuple(below), "" if models else caption)


def _ranked_rows(members: Sequence[Line], metrics: Sequence[str], *, samples: bool) -> list[Row]:
    return [_model_row(line, metrics, rank, samples=samples) for line, rank in blocks.by_rank(members)]


def _source_bands(rows: Sequence[Record], metrics: Sequence[str]) -> Iterator[Band]:
    """Yield one band per source and test set, verified sources and those with many models first."""
    sources: dict[tuple[str, ...], list[Record]] = {}
    for row in rows:
        sources.setdefault((row["source"], row["stimulus_set"], row["metric_profile"]), []).append(row)
    for (source, stimulus_set, profile), found in sorted(sources.items(), key=_source_order):
        members = blocks.lines(found)
        ranked = [_ranked_rows(block, metrics, samples=False) for block in blocks.blocks(members)]
        known = ", ".join(filter(None, [f"targets {stimulus_set}", f"profile {profile}", _facts(members)]))
        yield Band((*chain.from_iterable(ranked), *_chance_row(members, metrics)), f"{source} | {known}")


def _source_order(source: tuple[tuple[str, ...], list[Record]]) -> tuple[bool, int, tuple[str, ...]]:
    (key, rows) = source
    return (not key[0].endswith("| verified"), -len({row["model"] for row in rows}), key)


def _model_row(line: Line, metrics: Sequence[str], rank: float | None, *, samples: bool) -> Row:
    cells = []
    for metric in metrics:
        row = line.rows.get(metric, {"value": None, "ci_low": None, "ci_high": None})
        cells.append(f"{number(row['value'])}\n{interval(row['ci_low'], row['ci_high'])}".rstrip())
    return (_label(line, samples=samples), *cells, "" if rank is None else f"{rank:.1f}")


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
    return "\n".join([line.model, *textwrap.wrap(", ".join(said), LABEL_WIDTH)])


def _chance_row(block: Sequence[Line], metrics: Sequence[str]) -> list[Row]:
    """Return the row of chance levels of the models; a range where they differ."""
    models = [line for line in block if not line.is_floor] or block
    cells = []
    for metric in metrics:
        levels = sorted(
            r["chance"] for line in models if (r := line.rows.get(metric)) and r["chance"] is not None
        )
        cells.append("-".join(dict.fromkeys(map(number, levels[:1] + levels[-1:]))))
    return [("chance", *cells, "")] if any(cells) else []


def _gap_band(block: Sequence[GapLine], metrics: Sequence[str], *, captioned: bool) -> Band:
    members = [line.vision for line in block]
    samples = _common_samples(members) is None
    rows = []
    for line in block:
        cells = (_gap_cell(line.gaps.get(metric)) for metric in metrics)
        rows.append((_label(line.vision, samples=samples), "vision\nimagery\ngap", *cells))
    if len(block) >= 3:
        agreement = (_agreement_cell([line.gaps[m] for line in block if m in line.gaps]) for m in metrics)
        rows.append((f"order of {len(block)}\nmodels", "rho\np", *agreement))
    source = str(members[0].first["source"] or "").partition(" | ")[0]
    caption = f"{source} | {_facts(members, profile=True)}".removeprefix(" | ")
    return Band(tuple(rows), caption if captioned else "")


def _gap_cell(gap: Gap | None) -> str:
    if gap is None:
        return number(None)
    values = (gap.vision["value"], gap.imagery["value"], gap.value)
    return "\n".join([*map(number, values), interval(gap.low, gap.high)]).rstrip()


def _agreement_cell(gaps: Sequence[Gap]) -> str:
    found = stats.spearman([g.vision["value"] for g in gaps], [g.imagery["value"] for g in gaps])
    if found is None:
        return number(None)
    return f"{number(found.rho, 2)}\n{number(found.p) if found.p >= 0.001 else '<.001'}"
