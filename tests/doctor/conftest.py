"""Data sets for the doctor to look at, and a doctor in a hurry."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nsdbench.cli.output import LOG
from nsdbench.doctor import rates


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rates are measured in no time, nothing connects, and no setting of this user is read."""
    monkeypatch.setattr(rates, "SECONDS", 0.002)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("NSDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_TOKEN", "NSDBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_: object) -> None:
        raise AssertionError("the doctor connects to nothing")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _verbosity() -> Iterator[None]:
    """``-v`` of one test does not make others verbose."""
    level, handlers = LOG.level, LOG.handlers
    yield
    LOG.setLevel(level)
    LOG.handlers = handlers


@pytest.fixture(scope="session")
def sound(nsd_fixture: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a complete small data set with subjects 1 and 2. Never written to by tests."""
    root = tmp_path_factory.mktemp("sound")
    nsd_fixture.build(root)
    return root


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to take files from."""
    return Path(shutil.copytree(sound, tmp_path / "copy"))
