"""``nsdbench compare`` and ``nsdbench check``: results side by side, and whether they got worse."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli.output import Verbose, emit_json
from nsdbench.errors import UsageError

if TYPE_CHECKING:
    from nsdbench.check import Report
    from nsdbench.compare import Comparison

RUNS = Path("runs")


class Format(StrEnum):
    """Output formats of ``nsdbench compare``."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    html = "html"


def register(app: typer.Typer) -> None:
    """Add the verbs to ``app``."""
    app.command(
        "compare", epilog="Example: nsdbench compare --published --split imagery --metric alexnet2,clip"
    )(compare)
    app.command(
        "check",
        epilog="Example: nsdbench check runs/ --baseline baseline_items.parquet --tolerance ssim=0.02",
    )(check)


def compare(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, folders of runs, leaderboard directories or files. Default: ./runs."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metrics to show, comma separated or repeated.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add the published results, in blocks of their own.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    split: Annotated[str | None, typer.Option(help="vision, imagery, shared1000, both or all.")] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="Identification pools to show, such as AB12 or within6.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    verbose: Verbose = False,
) -> None:
    """Compare models: one table per split, then vision against imagery.

    Every value comes with its 95 % interval over targets, the chance level and
    the floors. Rows made under different protocols are never ranked together;
    the table says what differs.
    """
    from nsdbench.compare import Selection
    from nsdbench.compare import compare as run
    from nsdbench.protocol import expand_splits

    splits = expand_splits(split) if split else ()
    selection = Selection(metrics=_names(metric), splits=splits, pools=_names(pool))
    found = run(_default(paths, published), published=published, selection=selection)
    if json or format is Format.json:
        emit_json({"rows": found.rows, "notes": list(found.notes)})
    elif format is Format.csv:
        _print_csv(found.rows)
    else:
        sys.stdout.write(_render(found, format))


def _names(values: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for value in values or () for name in value.split(",") if name.strip())


def _default(paths: list[Path] | None, published: bool) -> list[Path]:
    """Return the given paths, else ``./runs`` if it is there; nothing is fine together with ``--published``."""
    if paths:
        return paths
    if RUNS.is_dir():
        return [RUNS]
    if published:
        return []
    raise UsageError(
        "nothing to compare: no path was given and there is no folder ./runs",
        remedy="Run `nsdbench run` first, give a path, or look at the published results with --published.",
    )


def _render(found: Comparison, format: Format) -> str:
    from nsdbench.comparison import tables

    if format is Format.html:
        return tables.html_page("nsdbench comparison", found.grids, found.notes)
    if format is Format.markdown:
        return "\n".join(
            [*(tables.markdown(grid) for grid in found.grids), *(f"- {note}" for note in found.notes), ""]
        )
    styled = sys.stdout.isatty()
    notes = "".join(f"{line}\n" for note in found.notes for line in tables.wrap(note))
    return "\n".join([*(tables.text(grid, styled=styled) for grid in found.grids), notes])


def _print_csv(rows: list[dict[str, Any]]) -> None:
    import csv

    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "labels": ";".join(row["labels"])} for row in rows)


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, folders of runs, or files of item scores. Default: ./runs."),
    ] = None,
    baseline: Annotated[
        Path, typer.Option(help="Item scores to reach: a Parquet file or a run folder.")
    ] = ...,  # type: ignore[assignment]
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="METRIC=LOSS; default 0.02 for two-way identification, 0.01 otherwise."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Require equal items even of other reconstructions.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Compare only what is there.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Write the results to the baseline file instead of checking.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Verbose = False,
) -> None:
    """Fail (exit code 1) if results got worse than a baseline.

    Where the hashes stored with both item tables say that the reconstructions
    are identical, every item must be equal up to rounding. Other results fail
    only if the loss is certain: the one-sided 95 % interval of the paired
    difference lies beyond the tolerated loss.
    """
    from nsdbench.check import Rules, save_baseline
    from nsdbench.check import check as run

    if update:
        saved = save_baseline(_default(paths, published=False), baseline)
        print(f"{baseline}: {saved} item scores")
        return
    rules = Rules(losses=_losses(tolerance), exact=exact, allow_missing=allow_missing)
    report = run(_default(paths, published=False), baseline, rules)
    if json:
        emit_json(report.document())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


def _losses(tolerances: Iterable[str] | None) -> dict[str, float]:
    losses = {}
    for text in tolerances or ():
        metric, _, loss = text.partition("=")
        try:
            losses[metric] = float(loss)
        except ValueError:
            losses[metric] = -1.0
        if not 0 <= losses[metric] < float("inf"):
            raise UsageError(
                f"--tolerance {text!r} is not METRIC=LOSS", remedy="For example: --tolerance ssim=0.02"
            )
    return losses


def _print_report(report: Report) -> None:
    from nsdbench.comparison.tables import number

    for failure in report.failures:
        print(f"FAILED {failure.cell}: {failure.message}")
        for item in failure.worst:
            sample = "" if item["sample"] is None else f" sample {item['sample']}"
            values = f"{number(item['old'])} -> {number(item['new'])}"
            print(f"    subject {item['subject']} {item['stimulus']}{sample}: {values}")
    verdict = f"{len(report.failures)} failures" if report.failures else "ok"
    print(f"{verdict}: {report.compared} item scores compared in {report.cells} cells")
