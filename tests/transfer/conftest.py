"""A server, a client that does not wait long, and what they talk about."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from local_servers import S3Server

from nsdbench.transfer import Client, files

RANGE = 64 * 2**10


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RANGE", RANGE)


@pytest.fixture(scope="session")
def content() -> bytes:
    """Ten ranges and a bit."""
    return random.Random(6).randbytes(10 * RANGE + 777)


@pytest.fixture
def s3(content: bytes) -> Iterator[S3Server]:
    with S3Server({"a.bin": content}) as server:
        yield server


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(timeout_s=0.5, pause_s=0.01) as client:
        yield client
