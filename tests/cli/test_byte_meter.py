"""What a person sees of a download."""

from __future__ import annotations

import io
import sys

import pytest

from nsdbench.cli import meter
from nsdbench.cli.meter import ByteMeter


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    told = Clock()
    monkeypatch.setattr(meter, "time", told)
    return told


def test_a_quick_download_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ByteMeter() as bytes_:
        bytes_.expect(1000)
        bytes_.advance(1000)
        clock.now += 1.9
    assert capsys.readouterr() == ("", "")


def test_away_from_a_terminal_there_is_a_line_every_half_minute_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ByteMeter("files") as bytes_:
        bytes_.expect(3_000_000_000)
        for _ in range(60):
            clock.now += 1
            bytes_.advance(20_000_000)
        said = capsys.readouterr().err.splitlines()
        bytes_.advance(1_800_000_000)
    assert said == ["files: 620.0 MB of 3.00 GB, 20.0 MB/s, 1 min 59 s left"]
    assert capsys.readouterr().err.splitlines() == ["files: 3.00 GB of 3.00 GB in 1 min 0 s"]


def test_bytes_that_are_thrown_away_are_taken_back(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ByteMeter() as bytes_:
        bytes_.expect(5_000_000)
        bytes_.advance(3_000_000)
        bytes_.advance(-1_000_000)
        clock.now += 10
    assert capsys.readouterr().err == "downloading: 2.0 MB of 5.0 MB in 10 s\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with ByteMeter("files") as bytes_:
        bytes_.expect(4_000_000)
        bytes_.advance(1_000_000)
    assert "files" in screen.getvalue()
    assert "1.0/4.0 MB" in screen.getvalue()
