"""``nsdbench check``: whether results got worse than a baseline."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Verbose, emit_json
from nsdbench.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command(
        "check",
        epilog="Example: nsdbench check runs/ --baseline baseline_items.parquet --tolerance ssim=0.02",
    )(check)


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
    summary: Annotated[
        str,
        typer.Option(
            metavar="FILE", help='Append the outcome as Markdown to FILE, such as "$GITHUB_STEP_SUMMARY".'
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Verbose = False,
) -> None:
    """Fail (exit code 1) if results got worse than a baseline.

    Where the hashes stored with both item tables say that the reconstructions
    are identical, every item must be equal up to rounding. Other results fail
    only if it is certain that they lost more than tolerated, all metrics and
    pools of a model and split considered. What changed less is listed.
    """
    from nsdbench.check import Rules, listing, save_baseline
    from nsdbench.check import check as run

    if update:
        saved = save_baseline(options.result_paths(paths, "check"), baseline)
        print(f"{baseline}: {saved} item scores")
        return
    rules = Rules(losses=_losses(tolerance), exact=exact, allow_missing=allow_missing)
    report = run(options.result_paths(paths, "check"), baseline, rules)
    if json:
        emit_json(report.document())
    else:
        sys.stdout.write(listing.text(report))
    if summary:  # a variable that is not set gives an empty text, which asks for nothing
        with open(summary, "a", encoding="utf-8") as file:
            file.write(listing.markdown(report))
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
