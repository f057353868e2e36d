"""Fixtures shared by all rooms."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("NSDBENCH_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(autouse=True)
def _private_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's data, weights or settings."""
    for name in ("NSDBENCH_DATA", "NSDBENCH_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20260610)


@pytest.fixture(scope="session")
def nsd_fixture() -> ModuleType:
    """The builder of small data sets in the layout of NSD."""
    return importlib.import_module("nsd_fixture")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference material that is not part of the project; tests skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"reference material not found in {SHARED} (set NSDBENCH_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def sim_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache directory that holds the simulated data of this test session.

    ``NSDBENCH_TEST_CACHE`` keeps it between sessions.
    """
    kept = os.environ.get("NSDBENCH_TEST_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_root(sim_cache: Path) -> Path:
    """Root of the ``tiny`` simulated data set."""
    from nsdbench.sim import SimConfig, ensure

    return ensure(SimConfig(preset="tiny"), sim_cache)
