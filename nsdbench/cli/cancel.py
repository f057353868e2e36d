"""``nsdbench cancel``: stop cells that run, and drop those that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Verbose, say
from nsdbench.cli.status import Runs, require_runs

if TYPE_CHECKING:
    from nsdbench.execution.states import CellState


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: nsdbench cancel runs --model takagi --subject 2")(cancel)


def cancel(
    runs: Runs = options.RUNS,
    model: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Only these models. Default: all.")
    ] = None,
    subject: Annotated[str | None, typer.Option(metavar="N,N", help="Only these subjects.")] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Only this split, both or all.")] = None,
    verbose: Verbose = False,
) -> None:
    """Cancel cells that wait or run; what they have computed stays.

    `nsdbench run` with the same options takes them up again where they stopped.
    """
    from nsdbench.execution.cancelling import cancel as stop
    from nsdbench.execution.states import survey

    require_runs(runs)
    chosen = [cell for cell in survey(runs) if cell.pending and _wanted(cell, model, subject, split)]
    if not chosen:
        say("nothing that was asked for waits or runs")
        return
    for line in stop(runs, chosen):
        say(line)


def _wanted(cell: CellState, model: str | None, subject: str | None, split: str | None) -> bool:
    from nsdbench import protocol

    key = cell.key
    return (
        (model is None or key.model in model.replace("-", "_").split(","))
        and (subject is None or key.subject in protocol.subject_numbers(subject))
        and (split is None or key.split in protocol.expand_splits(split))
    )
