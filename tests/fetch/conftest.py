"""A small data set to serve, and the places of a person of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_servers import HubServer, S3Server
from typer.testing import CliRunner

from nsdbench.transfer import Client


@pytest.fixture(scope="session")
def built(nsd_fixture, tmp_path_factory):
    """A sound data set and its truth. Never written to by tests."""
    return nsd_fixture.build(tmp_path_factory.mktemp("bucket"))


@pytest.fixture(autouse=True)
def person(tmp_path, monkeypatch) -> Path:
    """The configuration folder of a person who has accepted nothing yet; nothing of the real one is touched."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("NSDBENCH_DATA", raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "NSDBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config"


@pytest.fixture
def bucket(built) -> Iterator[S3Server]:
    """A server that holds the small data set as the public bucket would."""
    with S3Server(built.root) as server:
        yield server


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub without repositories."""
    with HubServer({}) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Short pauses, and no waiting for disks: nothing here crashes."""
    monkeypatch.setattr(Client, "__init__", functools.partialmethod(Client.__init__, pause_s=0.01))
    monkeypatch.setattr("nsdbench.weights.hub.PAUSE_S", 0.01)
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def fetch(bucket, hub, impatient, tmp_path) -> Callable[..., Any]:
    """Run ``nsdbench data fetch`` against the servers, with the terms accepted."""
    from nsdbench.cli.data import app

    def run(*arguments: object, terms: bool = True, **kwargs: Any) -> Any:
        where = ["--data-dir", tmp_path / "nsd", "--endpoint", bucket.url, "--hub-endpoint", hub.url]
        accept = ["--accept-terms"] if terms else []
        return CliRunner().invoke(app, ["fetch", *map(str, [*where, *accept, *arguments])], **kwargs)

    return run
