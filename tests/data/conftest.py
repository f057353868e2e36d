"""Fixtures of the data tests: one small data set, built once, and copies to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nsdbench.data import Dataset


@pytest.fixture(scope="session")
def built(nsd_fixture, tmp_path_factory):
    """A sound data set and its truth. Never written to by tests."""
    return nsd_fixture.build(tmp_path_factory.mktemp("nsd"))


@pytest.fixture(scope="session")
def dataset(built, tmp_path_factory) -> Dataset:
    return Dataset.open(built.root, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def copied(built, tmp_path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(built.root, tmp_path / "copy"))


@pytest.fixture
def open_copy(copied, tmp_path):
    """Open the (damaged) copy with its own cache."""
    return lambda: Dataset.open(copied, cache=tmp_path / "cache")
