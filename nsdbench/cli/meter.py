"""How far a transfer is: bytes, rate and time left."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

from nsdbench.cli.output import say
from nsdbench.transfer.room import amount

LINE_EVERY_S = 30.0
QUIET_S = 2.0


class ByteMeter:
    """A :class:`nsdbench.transfer.Meter` that draws a bar on a terminal, and elsewhere prints a line now and then."""

    def __init__(self, label: str = "downloading") -> None:
        self.label = label
        self.expected = self.arrived = 0
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._said = self._start, 0  # when, and how much had arrived then
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._said = self._start, 0
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif (seconds := time.monotonic() - self._start) > QUIET_S:
            say(f"{self._how_far()} in {_duration(seconds)}")

    def expect(self, n_bytes: int) -> None:
        """So many more bytes are to come."""
        with self._lock:
            self.expected += n_bytes
            self._show()

    def advance(self, n_bytes: int) -> None:
        """So many bytes have arrived."""
        with self._lock:
            self.arrived += n_bytes
            self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.arrived, total=self.expected or None)
            return
        now, (said, before) = time.monotonic(), self._said
        if now - said > LINE_EVERY_S:
            self._said = now, self.arrived
            say(self._line(max(self.arrived - before, 0) / (now - said)))

    def _line(self, rate: float) -> str:
        """Say how far it is at a rate since the last line: what was there at the start must not count as fast."""
        line = f"{self._how_far()}, {amount(rate)}/s"
        left = max(self.expected - self.arrived, 0)
        return f"{line}, {_duration(left / rate)} left" if left and rate else line

    def _how_far(self) -> str:
        return f"{self.label}: {amount(self.arrived)} of {amount(self.expected)}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
