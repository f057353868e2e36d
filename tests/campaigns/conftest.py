"""What all campaigns share: processes that fork, and the data set that their commands would simulate first."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import own_process
import pytest
from fragile import Forks, forking
from hostile_cases import score, write_images
from own_process import OwnProcesses
from run_content import DATA, SMALL

Place = Callable[[str], Path]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A process that runs command lines in forks of itself."""
    with forking() as one:
        yield one


@pytest.fixture(scope="session")
def two_forks(forks: Forks) -> Iterator[tuple[Forks, Forks]]:
    """Two of them, for campaigns that take minutes."""
    with forking() as other:
        yield forks, other


@pytest.fixture(scope="session")
def simulated(sim_cache: Path) -> Path:
    """A cache directory that holds nothing but the data set of :func:`run_content.command`."""
    from nsdbench.sim import ensure, parse_config

    root = sim_cache / "campaigns"
    ensure(parse_config(DATA), root)
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, simulated: Path, forks: Forks) -> Path:
    """A directory in which the smallest run has ended undisturbed; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("campaigns") / "finished"
    shutil.copytree(simulated, folder / "cache")
    ended = forks.run(SMALL, folder)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def place(tmp_path: Path, simulated: Path) -> Iterator[Place]:
    """Makes new working directories with a data set in ``cache``; they are removed at the end, they are many."""
    made = []

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(simulated, folder / "cache")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def processes() -> Iterator[OwnProcesses]:
    """A process that runs command lines in forks of itself, each with limits."""
    with own_process.starting() as found:
        yield found


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A working folder with three target images, beside a folder that nobody may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    write_images(tmp_path / "work" / "t")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def scored(processes: OwnProcesses, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete run."""
    folder = tmp_path_factory.mktemp("scored")
    write_images(folder / "t")
    outcome = processes.run(score("t"), folder)
    assert outcome.code == 0, outcome.err
    return folder
