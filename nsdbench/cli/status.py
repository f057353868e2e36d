"""``nsdbench status``: what has become of every cell, live while anything is at work."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Verbose, emit_json, say, table
from nsdbench.errors import UsageError
from nsdbench.plaintext import visible

if TYPE_CHECKING:
    from nsdbench.execution.states import CellState

PAUSE_S = 2.0
HEADER = ["cell", "state", "stage", "elapsed", "host", "last line"]
COLOURS = {"complete": "green", "running": "cyan", "failed": "red", "lost": "red", "cancelled": "yellow"}

Runs = Annotated[Path, typer.Argument(metavar="[RUNS]", help="Folder of runs. Default: ./runs.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: nsdbench status runs")(status)


def status(
    runs: Runs = options.RUNS,
    once: Annotated[bool, typer.Option("--once", help="Print the table once and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all cells as JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show every cell of a folder of runs: its state and stage, for how long and where, and the last line of its log.

    On a terminal the table stays up to date until nothing waits or runs any more;
    Ctrl-C leaves it earlier and stops nothing else. States: complete, running,
    queued, failed, cancelled, lost (nobody knows of it; `nsdbench run` with the
    same options takes it up again), unknown (left to another machine).
    """
    from nsdbench.execution.states import survey

    require_runs(runs)
    cells = survey(runs)
    if as_json:
        emit_json({"cells": [_document(cell) for cell in cells], "counts": Counter(c.state for c in cells)})
        return
    if not cells:
        say(f"no cell has been run or planned below {runs}")
        return
    if sys.stdout.isatty() and not once and any(cell.pending for cell in cells):
        _live(lambda: survey(runs))
        return
    print_table(cells)
    say(summary(cells))


def require_runs(runs: Path) -> None:
    """Refuse a folder that is not there."""
    if not runs.is_dir():
        raise UsageError(f"there is no folder of runs {runs}", remedy="Give the --out of `nsdbench run`.")


def _document(cell: CellState) -> dict[str, Any]:
    document = asdict(cell)
    return {**document.pop("key"), **document, "folder": str(cell.folder)}


def print_table(cells: Sequence[CellState]) -> None:
    """Print the states, aligned, one line per cell."""
    table(HEADER, [_row(cell) for cell in cells])


def _row(cell: CellState) -> list[str]:
    key = cell.key
    where = f"{cell.host} gpu {cell.gpus}" if cell.gpus else cell.host
    name = f"{key.model}-{key.preset} subj{key.subject:02d} {key.split}"
    return [
        visible(x)
        for x in (name, cell.state, cell.stage, _clock(cell.elapsed_s), where, _one_line(cell.line))
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:160]


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def summary(cells: Sequence[CellState]) -> str:
    """Return how many cells are in which state, in one line."""
    counts: Counter[str] = Counter(cell.state for cell in cells)
    order = ("complete", "running", "queued", "failed", "cancelled", "lost", "unknown")
    return f"{len(cells)} cells: " + ", ".join(f"{counts[state]} {state}" for state in order if counts[state])


def _live(states: Callable[[], Sequence[CellState]]) -> None:
    """Redraw the table until nothing is pending."""
    watch = Watch(states, on_stdout=True)
    try:
        while watch.tick():
            time.sleep(PAUSE_S / 4)
    except KeyboardInterrupt:
        pass
    finally:
        watch.close()


class Watch:
    """Shows states while they change: a table in place on a terminal, elsewhere one line per change.

    Parameters
    ----------
    states : callable
        Returns the states to show. It may raise :class:`~nsdbench.errors.ExecutionError`: then what was known stays.
    on_stdout : bool
        Where the table goes; default is stderr.
    """

    def __init__(self, states: Callable[[], Sequence[CellState]], *, on_stdout: bool = False) -> None:
        self._states = states
        self._last = float("-inf")
        self._known: Sequence[CellState] = ()
        stream = sys.stdout if on_stdout else sys.stderr
        self._live = _screen(on_stdout) if stream.isatty() else None

    def tick(self) -> bool:
        """Look again if the last look is some time ago; return whether anything is pending."""
        from nsdbench.errors import ExecutionError

        if time.monotonic() - self._last >= PAUSE_S:
            try:
                now = self._states()
            except ExecutionError as error:
                say(str(error))
                now = self._known
            self._show(now)
            self._known, self._last = now, time.monotonic()
        return not self._known or any(cell.pending for cell in self._known)

    def close(self) -> None:
        """Look a last time and leave the screen as it is."""
        self._last = float("-inf")
        self.tick()
        if self._live:
            self._live.stop()

    def _show(self, now: Sequence[CellState]) -> None:
        if self._live:
            self._live.update(_drawn(now), refresh=True)
            return
        before = {cell.folder: (cell.state, cell.stage) for cell in self._known}
        for cell in now:
            if before.get(cell.folder) != (cell.state, cell.stage) and cell.state != "queued":
                name, state, stage, *_, line = _row(cell)
                say(
                    f"{name}: {state} {stage}".rstrip() + (f": {line}" if state in ("failed", "lost") else "")
                )


def _screen(on_stdout: bool) -> Any:
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=not on_stdout), auto_refresh=False)
    live.start()
    return live


def _drawn(cells: Sequence[CellState]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in HEADER:
        drawn.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == "last line" else None)
    for cell in cells:
        label, state, *rest = map(Text, _row(cell))
        state.stylize(COLOURS.get(cell.state, ""))
        drawn.add_row(label, state, *rest)
    return Group(drawn, Text(summary(cells)))
