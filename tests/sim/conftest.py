"""Simulated datasets shared by the tests of this room, generated once per configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nsdbench.sim import SimConfig, ensure, parse_config


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from ``"sim:..."`` to the directory of that dataset."""
    cache = tmp_path_factory.mktemp("simulated")
    return lambda text: ensure(parse_config(text), cache)


@pytest.fixture(scope="session")
def tiny(simulated: Callable[[str], Path]) -> Path:
    return simulated("sim:tiny")


@pytest.fixture(scope="session")
def tiny_config() -> SimConfig:
    return SimConfig(preset="tiny")
