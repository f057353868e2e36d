"""A job of eight cells, and a Slurm of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, SlurmUnavailable

from nsdbench.adapters.base import Context
from nsdbench.cells import RunRequest, plan
from nsdbench.data import Dataset, LoadOptions
from nsdbench.execution import jobs
from nsdbench.execution.jobs import Job
from nsdbench.execution.order import Order, Source
from nsdbench.execution.submission import tasks_of
from nsdbench.scoring import ScoreSettings


@pytest.fixture(scope="session")
def slurm_of_the_session() -> Iterator[SlurmCluster]:
    """One cluster for all tests of this process; they skip, with the reason, where none can run."""
    try:
        cluster = SlurmCluster()
    except SlurmUnavailable as error:
        pytest.skip(str(error))
    with cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_of_the_session: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """An idle cluster whose commands work in this process, too."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm_of_the_session.env[name])
    yield slurm_of_the_session
    slurm_of_the_session.clear()


@pytest.fixture
def dataset(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    return RunRequest(
        models=("ridge", "mean_image"),
        splits=("vision", "imagery"),
        subjects=(1, 7),
        load=LoadOptions(average="mean"),
        scoring=ScoreSettings(
            metrics=("pixcorr",), weights_dir=tmp_path / "weights", where_possible=("mini_clip",)
        ),
        out=tmp_path / "runs",
        leaderboard=tmp_path / "board",
        context=Context("cpu", None, features=tmp_path / "features"),
        n_samples=2,
    )


@pytest.fixture
def job(dataset: Dataset, request_: RunRequest) -> Job:
    cells = plan(dataset, request_)
    order = Order.of(request_, Source("auto", dataset.root), dataset)
    return jobs.create("local", order, cells, tasks_of(cells, range(len(cells))))
