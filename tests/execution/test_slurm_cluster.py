"""The Slurm that tests start behaves as the executor counts on, submitted to by submitit."""

from __future__ import annotations

import itertools
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import submitit
from slurm_cluster import SlurmCluster, _bury_the_dead, _processes

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture(autouse=True)
def _sent_by_value() -> Iterator[None]:
    """Jobs cannot import this module, so their functions travel with them."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def stay(seconds: float, fails: bool = False) -> tuple[str | None, float, float]:
    """Return the GPU that Slurm gave, and when this began and ended."""
    begin = time.time()
    if fails:
        raise ValueError("made to fail")
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), begin, time.time()


def meet(place: Path, fails: bool = False) -> tuple[str | None, float, float]:
    """Do not end before another has begun, as :func:`stay` otherwise."""
    gpu, begin, _ = stay(0.0, fails)
    (place / uuid.uuid4().hex).touch()
    while len(list(place.iterdir())) < 2:
        assert time.time() - begin < 60.0, "alone"
        time.sleep(0.05)
    return gpu, begin, time.time()


def executor(folder: Path, **parameters: Any) -> submitit.SlurmExecutor:
    made = submitit.SlurmExecutor(folder=folder / "%j")
    made.update_parameters(
        time=5, mem="200MB", cpus_per_task=1, use_srun=False, stderr_to_stdout=True, wckey=None, **parameters
    )
    return made


def result(job: submitit.Job[Any]) -> Any:
    """Return what a job left; asking submitit first would ask ``sacct``."""
    assert job.paths.result_pickle.is_file(), job.stdout()
    return job.result()


def test_two_elements_run_at_once_on_different_gpus_and_one_that_fails_hurts_no_other(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    jobs = executor(tmp_path, gpus_per_node=1).map_array(meet, [place] * 4, [False, True, False, False])
    slurm.wait_until_empty()
    with pytest.raises(submitit.core.utils.FailedJobError, match="made to fail"):
        result(jobs[1])
    rest = [result(jobs[i]) for i in (0, 2, 3)]  # one that ran alone would have failed
    assert {gpu for gpu, _, _ in rest} == {"0", "1"}
    for gpu in ("0", "1"):  # nobody shares a GPU
        spans = sorted((begin, end) for used, begin, end in rest if used == gpu)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_one_element_can_be_cancelled_and_a_dependent_job_waits_for_the_whole_array(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    jobs = executor(tmp_path).map_array(stay, [60.0, 1.5])
    after = executor(tmp_path, dependency=f"afterany:{jobs[0].job_id.partition('_')[0]}").submit(stay, 0.0)
    slurm.wait_until(lambda: slurm.queue().get(jobs[1].job_id) == "RUNNING")
    assert slurm.queue()[after.job_id] == "PENDING"
    slurm.run("scancel", jobs[0].job_id)
    slurm.wait_until_empty()
    assert not jobs[0].paths.result_pickle.exists()
    assert result(jobs[1])[2] <= result(after)[1]
    assert result(after)[0] is None  # a job that asked for no GPU sees none


def test_a_requeued_job_keeps_its_id_and_starts_again(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(stay, 2.0)
    slurm.wait_until(lambda: "Starting with" in (job.stdout() or ""))
    slurm.requeue(job.job_id)
    slurm.wait_until(lambda: (job.stdout() or "").count("Starting with") == 2)
    slurm.wait_until_empty()
    assert result(job)


def test_nothing_is_left_of_a_cluster_that_was_closed_or_whose_owner_died(slurm: SlurmCluster) -> None:
    second = SlurmCluster()  # two at a time do not meet
    second.run("sbatch", "--wrap", "sleep 600", "-o", "/dev/null")
    second.wait_until(lambda: "RUNNING" in second.queue().values())
    (second.folder / "owner").write_text("4194304")  # above every process id
    setting = f"SLURM_CONF={second.env['SLURM_CONF']}"
    assert list(_processes(setting))
    _bury_the_dead()
    assert not list(_processes(setting))
    assert not second.folder.exists()
    second.close()
    assert slurm.run("sinfo", "-h", "-o", "%t") == "idle"
