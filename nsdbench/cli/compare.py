"""``nsdbench compare``: results side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, Verbose, emit_json
from nsdbench.errors import UsageError

if TYPE_CHECKING:
    from nsdbench.compare import Comparison


class Format(StrEnum):
    """Output formats of ``nsdbench compare``."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    html = "html"


class Correct(StrEnum):
    """Corrections for several metrics."""

    holm = "holm"
    max = "max"


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command(
        "compare", epilog="Example: nsdbench compare --published --split imagery --metric alexnet2,clip"
    )(compare)


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
    model: Annotated[
        list[str] | None, typer.Option(help="Models to show, comma separated or repeated.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add the published results, in blocks of their own.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    split: Annotated[str | None, typer.Option(help="vision, imagery, shared1000, both or all.")] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="Identification pools to show, such as AB12 or within6.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Add the differences of all models to this one ('ridge mini' where it has several presets).",
        ),
    ] = None,
    correction: Annotated[
        Correct,
        typer.Option(
            help="Tests against chance of several metrics: Holm, or the distribution of the maximum."
        ),
    ] = Correct.holm,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    verbose: Verbose = False,
) -> None:
    """Compare models: one table per split, then vision against imagery, then what follows from them.

    Every value comes with its 95 % interval over targets, the chance level and
    the floors. Stars and letters say what is certain after correction for
    several metrics and models. Rows made under different protocols are never
    ranked together; the table says what differs.
    """
    from nsdbench.compare import Selection
    from nsdbench.compare import compare as run
    from nsdbench.protocol import expand_splits

    splits = expand_splits(split) if split else ()
    selection = Selection(_names(metric), splits, _names(pool), _model_names(model))
    found = run(
        options.result_paths(paths, "compare", published=published),
        published=published,
        selection=selection,
        against=_one_model(against),
        correction=correction.value,
        progress=Bars(),
    )
    if json or format is Format.json:
        emit_json(found.document())
    elif format is Format.csv:
        _print_csv(found.rows)
    else:
        sys.stdout.write(_render(found, format))


def _model_names(values: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(name.replace("-", "_") for name in _names(values))


def _one_model(value: str | None) -> str | None:
    if value is None:
        return None
    found = _model_names([value])
    if len(found) != 1:
        raise UsageError(
            f"--against takes one model, not {value!r}", remedy="Compare with one after the other."
        )
    return found[0]


def _names(values: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for value in values or () for name in value.split(",") if name.strip())


def _render(found: Comparison, format: Format) -> str:
    from nsdbench.comparison import tables

    if format is Format.html:
        return tables.html_page("nsdbench comparison", found.grids, found.conclusions, found.notes)
    if format is Format.markdown:
        return tables.markdown_page(found.grids, found.conclusions, found.notes)
    return tables.text_page(found.grids, found.conclusions, found.notes, styled=sys.stdout.isatty())


def _print_csv(rows: list[dict[str, Any]]) -> None:
    import csv

    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(sys.stdout, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: _no_formula(value) for name, value in row.items()} | {"labels": ";".join(row["labels"])}
        for row in rows
    )


def _no_formula(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would take for a formula, and run."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
