"""Tasks as array jobs of Slurm, handed over through submitit: one array for each stage and kind of resources.

Stages are chained by ``afterany``, which needs no accounts and lets cells go on when others fail; a task looks into its run
folder for what the stage before should have left there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsdbench.errors import ExecutionError
from nsdbench.execution.executor import Presence
from nsdbench.execution.jobs import STAGES, Job

if TYPE_CHECKING:
    from nsdbench.execution.cluster import Cluster, Resources

Work = Callable[[Path, int], int]
_PRESENT: Mapping[str, Presence] = {
    "RUNNING": "running", "COMPLETING": "running", "STAGE_OUT": "running", "SUSPENDED": "running", "STOPPED": "running",
    "SIGNALING": "running",
}  # fmt: skip
_AT_ONCE = 500  # ids per call of scancel, so that no command line gets too long
_PATIENCE_S = 60


class SlurmExecutor:
    """Hands jobs to the Slurm of the cluster.

    Parameters
    ----------
    cluster : Cluster
        Resources of each task. Needed for submitting only.
    work : callable
        ``work(job folder, task)`` does a task and returns an exit status. Must be importable on the nodes.
    """

    def __init__(self, cluster: Cluster | None = None, work: Work | None = None) -> None:
        self._cluster = cluster
        self._work = work

    def submit(self, job: Job) -> None:
        """Queue all tasks; returns as soon as Slurm has them.

        Raises
        ------
        ExecutionError
            If submitit or Slurm is missing, or Slurm refuses. What it took before stays queued.
        """
        if self._cluster is None or self._work is None:
            raise TypeError("an executor without cluster and work can look after jobs, not submit them")
        require()
        for resources, tasks in _arrays(job, self._cluster):
            ids = _submit(job, resources, tasks, self._work)
            job.add_handles(dict(zip(tasks, ids, strict=True)))

    def poll(self, job: Job) -> Mapping[int, Presence]:
        rows = (
            line.partition("|") for line in _call("squeue", "-h", "-r", "--me", "-o", "%i|%T").splitlines()
        )
        states = {id_: state for id_, _, state in rows}
        handles = job.handles()
        present = {task: states[id_] for task, id_ in handles.items() if id_ in states}
        found = {task: _PRESENT.get(state, "queued") for task, state in present.items()}
        if job.process.alive:  # perhaps still handing over
            found |= {task: "queued" for task in range(len(job.tasks)) if task not in handles}
        return found

    def cancel(self, job: Job, tasks: Collection[int]) -> None:
        ids = [id_ for task, id_ in job.handles().items() if task in tasks]
        for start in range(0, len(ids), _AT_ONCE):
            _call("scancel", *ids[start : start + _AT_ONCE])


def require() -> None:
    """Check that jobs can be handed over from this machine.

    Raises
    ------
    ExecutionError
        If submitit is not installed or there is no Slurm.
    """
    try:
        import submitit  # noqa: F401 - an extra
    except ImportError:
        raise ExecutionError(
            "--executor slurm needs the package submitit", remedy='Run `pip install "nsdbench[slurm]"`.'
        ) from None
    for program in ("sbatch", "squeue", "scancel"):
        if not shutil.which(program):
            raise ExecutionError(
                f"there is no Slurm here: {program} was not found",
                remedy="Run the command on a login node of the cluster, or use --executor local.",
            )


def _arrays(job: Job, cluster: Cluster) -> Iterator[tuple[Resources, list[int]]]:
    """Yield the tasks that become one array job: of one stage and with the same resources."""
    for stage in STAGES:
        groups: dict[Resources, list[int]] = {}
        for place, task in enumerate(job.tasks):
            if task.stage == stage:
                model = "" if stage == "publish" else job.cells[task.cells[0]].key.model
                groups.setdefault(cluster.resources(stage, model), []).append(place)
        yield from groups.items()


def _submit(job: Job, resources: Resources, tasks: list[int], work: Work) -> list[str]:
    """Submit one array job and return the ids of its elements."""
    import submitit

    executor = submitit.SlurmExecutor(folder=job.folder / "submitit" / "%j", python=resources.python)
    handles = job.handles()
    earlier = {handles[before].partition("_")[0] for task in tasks for before in job.tasks[task].after}
    executor.update_parameters(
        **_parameters(job, job.tasks[tasks[0]].stage, resources, sorted(earlier, key=int))
    )
    runner = _Logged(work)
    try:
        jobs = executor.map_array(runner, [str(job.folder.absolute())] * len(tasks), tasks)
    except (submitit.core.utils.FailedJobError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ExecutionError(
            f"Slurm refused the stage {job.tasks[tasks[0]].stage}: {reason}",
            remedy="Correct the cluster file and run the same command again; `nsdbench cancel` drops what is queued.",
        ) from error
    return [str(one.job_id) for one in jobs]


def _parameters(job: Job, stage: str, resources: Resources, earlier: list[str]) -> dict[str, Any]:
    given = {
        "job_name": f"nsdbench-{job.name}-{stage}",
        "time": resources.minutes,
        "mem": f"{resources.memory_mb}MB",
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "setup": list(resources.setup) or None,
        "array_parallelism": resources.parallel,
        "dependency": f"afterany:{':'.join(earlier)}" if earlier else None,
        "additional_parameters": dict(resources.options) or None,
    }
    fixed: dict[str, Any] = {
        # srun would add half a second and have submitit requeue jobs by itself at their time limit
        "use_srun": False,
        "wckey": None,  # sites with accounts refuse unknown ones
        "stderr_to_stdout": True,
    }
    return fixed | {name: value for name, value in given.items() if value is not None}


class _Logged:
    """Runs a task with its output in the log of the task, and lets Slurm stop it."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, folder: str, task: int) -> int:
        from nsdbench.execution import jobs

        signal.signal(
            signal.SIGTERM, signal.SIG_DFL
        )  # submitit ignores it: a cancelled task would compute on
        with _output_to(jobs.read(Path(folder)).log(task)):
            status = self._work(Path(folder), task)
        if status:
            sys.exit(status)  # Slurm shall call it failed, too
        return status


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what this process and its children print into a file."""
    before = [os.dup(stream) for stream in (1, 2)]
    try:
        with path.open("ab") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, descriptor in zip((1, 2), before, strict=True):
            os.dup2(descriptor, stream)
            os.close(descriptor)


def _call(program: str, *arguments: str) -> str:
    """Return what a program of Slurm prints."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExecutionError(f"{program} gives no answer ({error})", remedy="Try again later.") from error
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise ExecutionError(f"{program} failed: {reason}", remedy="Try again later.")
    return done.stdout
