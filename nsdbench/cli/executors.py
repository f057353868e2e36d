"""How ``nsdbench run`` gets its cells done: in this process, in several at once, or on a cluster."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nsdbench.cli.output import Bars, say
from nsdbench.errors import ExecutionError, UsageError

if TYPE_CHECKING:
    from nsdbench.cells import RunRequest
    from nsdbench.data import Dataset
    from nsdbench.execution.order import Source
    from nsdbench.execution.slots import Slot
    from nsdbench.execution.submission import Submission
    from nsdbench.stages import CellResult

EXECUTORS = ("local", "slurm")


def check(executor: str, workers: int, cluster: Path | None) -> None:
    """Refuse options that contradict each other, before any data are touched."""
    if executor not in EXECUTORS:
        raise UsageError(f"there is no executor {executor!r}", remedy=f"Choose from: {', '.join(EXECUTORS)}.")
    if executor == "slurm" and workers > 1:
        raise UsageError(
            "--workers is for --executor local", remedy="The key `parallel` of the cluster file limits Slurm."
        )
    if executor == "local" and cluster:
        raise UsageError("--cluster is for --executor slurm", remedy="Leave it out, or add --executor slurm.")


def run_here(dataset: Dataset, request: RunRequest, source: Source, bars: Bars) -> list[CellResult]:
    """Do the cells one after the other; the job is on record while that lasts, for ``nsdbench status``."""
    from nsdbench import runner
    from nsdbench.cells import plan, state
    from nsdbench.execution import jobs
    from nsdbench.execution.order import Order

    cells = plan(dataset, request)
    if all(state(cell, request) == "complete" for cell in cells):
        return runner.execute(dataset, request, progress=bars, say=say)
    with _own_gpu(request.context.device):
        jobs.create("here", Order.of(request, source, dataset), cells)
        return runner.execute(dataset, request, progress=bars, say=say)


@contextlib.contextmanager
def _own_gpu(device: str) -> Iterator[None]:
    """Wait until no other nsdbench process of this machine computes on the GPU. On a cluster that is Slurm's business."""
    from nsdbench.execution import slots

    slot = slots.Slot(None if "SLURM_JOB_ID" in os.environ else slots.gpu_of(device))
    with contextlib.ExitStack() as stack:
        waiting = False
        while True:
            try:
                stack.enter_context(slot.lease())
                break
            except BlockingIOError:
                if not waiting:
                    say(f"waiting for {slot.name}, on which another nsdbench process computes")
                waiting = True
                time.sleep(1)
        yield


def run_in_slots(
    dataset: Dataset, request: RunRequest, source: Source, slots: tuple[Slot, ...]
) -> list[CellResult]:
    """Do the cells in processes of their own, as many at once as there are slots."""
    from nsdbench.cli.status import Watch
    from nsdbench.execution import jobs, states, submission
    from nsdbench.execution.local import LocalExecutor

    def look() -> tuple[states.CellState, ...]:
        job = next(jobs.all_of(request.out), None)
        return tuple(states.of_cells(job, range(len(job.cells))).values()) if job else ()

    watch = Watch(look)
    try:
        executor = LocalExecutor(slots, watch.tick)
        done = submission.submit(dataset, request, source, "local", executor)
    finally:
        watch.close()
    return _results(done, request)


def run_on_slurm(
    dataset: Dataset, request: RunRequest, source: Source, cluster: Path | None, *, wait: bool
) -> list[CellResult] | None:
    """Hand the cells over to Slurm; return the results where all are there, or after waiting for them."""
    from nsdbench.cli import worker
    from nsdbench.cli.status import Watch
    from nsdbench.execution import slurm, states, submission
    from nsdbench.execution.cluster import Cluster, read_cluster

    slurm.require()
    gpus = int(request.context.device != "cpu")
    resources = read_cluster(cluster, gpus=gpus) if cluster else Cluster.default(gpus)
    executor = slurm.SlurmExecutor(resources, worker.work)
    done = submission.submit(dataset, request, source, "slurm", executor)
    folders = {cell.folder for cell in done.cells}
    for cell in done.elsewhere:
        say(
            f"{cell.key.model} subj{cell.key.subject:02d} {cell.key.split}: {cell.state} in job {cell.job} already"
        )
    if done.job:
        say(f"job {done.job.name}: {len(done.job.tasks)} tasks are with Slurm")
    if not done.job and not done.elsewhere:
        return _results(done, request)
    if not wait:
        say(f"watch them: nsdbench status {request.out}   stop them: nsdbench cancel {request.out}")
        return None
    watch = Watch(lambda: [cell for cell in states.survey(request.out) if cell.folder in folders])
    try:
        while watch.tick():
            time.sleep(0.5)
    finally:
        watch.close()
    return _results(done, request)


def _results(done: Submission, request: RunRequest) -> list[CellResult]:
    """Put what is complete onto the leaderboard and return it.

    Raises
    ------
    ExecutionError
        If a cell is not complete.
    """
    from nsdbench import runner
    from nsdbench.execution.states import survey

    found = runner.complete(done.cells)
    results = [replace(result, reused=result.cell.folder in done.reused) for result in found]
    runner.write_leaderboards(results, request.leaderboard)
    have = {result.cell.folder for result in results}
    missing = [cell for cell in done.cells if cell.folder not in have]
    if missing:
        states = {state.folder: state for state in survey(request.out)}
        first = states[missing[0].folder]
        raise ExecutionError(
            f"{len(missing)} of {len(done.cells)} cells are not complete; {missing[0].label}: {first.state}"
            + (f" ({first.line})" if first.line else ""),
            remedy=f"See `nsdbench status {request.out}`; the same command takes them up again.",
        )
    return results
