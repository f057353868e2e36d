"""What every verb shares: results on stdout, progress and messages on stderr, errors in one sentence."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar

import typer

from nsdbench.errors import NsdbenchError
from nsdbench.plaintext import visible

T = TypeVar("T")
LOG = logging.getLogger("nsdbench")
# what typer raises for options it cannot parse
USAGE: Any = typer.BadParameter.__mro__[1]


def say(message: str) -> None:
    """Print one line for the person watching, on stderr."""
    print(visible(message), file=sys.stderr, flush=True)


def emit_json(document: Any) -> None:
    """Print one JSON document on stdout and nothing else."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def explain(error: Exception) -> tuple[str, str, str]:
    """Return kind, message and remedy of any exception that reaches the command line."""
    if isinstance(error, NsdbenchError):
        return error.kind, error.message, error.remedy
    if isinstance(error, USAGE):
        where = getattr(getattr(error, "ctx", None), "command_path", "nsdbench")
        return "UsageError", error.format_message(), f"See `{where} --help`."
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "Check the path and its permissions; --out, --leaderboard and --cache choose other places."
        where = f"{error.filename}: " if error.filename else ""  # pyarrow has the path in its message
        return type(error).__name__, f"{where}{error.strerror}", remedy
    name = type(error).__name__
    return name, f"unexpected {name}: {error}", "Run the same command with -v to see where it happened."


def fail(kind: str, message: str, remedy: str, *, as_json: bool) -> None:
    """Report an error on stderr, in words or as one JSON document."""
    if as_json:
        document = {"error": {"kind": kind, "message": message, "remedy": remedy}}
        say(json.dumps(document, ensure_ascii=False))
        return
    say(f"error: {visible(message, one_line=True)}")
    if remedy:
        say(f"  -> {remedy}")


class _Messages(logging.Handler):
    """Log records as lines on stderr, wherever that points at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _be_verbose(wanted: bool) -> bool:
    if wanted:
        LOG.setLevel(logging.DEBUG)
        LOG.handlers = [_Messages()]
    return wanted


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=_be_verbose, is_eager=True,
        help="Say more: what each step does, and where an unexpected error came from.",
    ),
]  # fmt: skip


class Bars:
    """A :class:`nsdbench.types.Progress` that draws progress bars on a terminal.

    Away from a terminal it prints one line when a loop ends, and only if it took more than two seconds,
    so that logs stay readable.
    """

    def __init__(self) -> None:
        self._depth = 0

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        if not sys.stderr.isatty() or self._depth:
            yield from self._timed(items, label)
            return
        self._depth += 1
        with contextlib.ExitStack() as stack:
            stack.callback(self._leave)
            yield from stack.enter_context(_bar()).track(items, total=total, description=label)

    def _leave(self) -> None:
        self._depth -= 1

    def _timed(self, items: Iterable[T], label: str) -> Iterator[T]:
        start = time.monotonic()
        yield from items
        elapsed = time.monotonic() - start
        if elapsed > 2 and not self._depth:
            say(f"{label}: {elapsed:.0f} s")


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def table(header: list[str], rows: list[list[str]]) -> None:
    """Print a plain table on stdout: aligned columns, no ruling, pipe-friendly."""
    header, *rows = [[visible(str(cell), one_line=True) for cell in row] for row in [header, *rows]]
    widths = [max(len(str(cell)) for cell in column) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
