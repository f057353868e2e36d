"""Cells that wait or run are told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from nsdbench.errors import ExecutionError
from nsdbench.execution import jobs
from nsdbench.execution.jobs import Job
from nsdbench.execution.states import CellState, executor_of


def cancel(runs: Path, cells: Sequence[CellState]) -> Iterator[str]:
    """Stop cells of a folder of runs and yield a line about every job that is concerned.

    Parameters
    ----------
    runs : Path
    cells : sequence of CellState
        Those to stop, out of :func:`nsdbench.execution.states.survey`.

    Raises
    ------
    ExecutionError
        If a job cannot be stopped from here, or not in part.
    """
    for name in dict.fromkeys(cell.job for cell in cells):
        job = jobs.read(runs / jobs.JOBS / name)
        chosen = {cell.folder for cell in cells if cell.job == name}
        places = {i for i, cell in enumerate(job.cells) if runs / cell.folder in chosen}
        _require_reach(job)
        if job.executor == "here":
            _stop_process(job, places)
        job.add_cancelled(places)
        cancelled = job.cancelled()
        executor = executor_of(job)
        # the last task looks at all cells: without it, those that are done already would not get onto the leaderboard
        idle = [
            i
            for i, task in enumerate(job.tasks)
            if cancelled.issuperset(task.cells) and task.stage != "publish"
        ]
        executor.cancel(job, idle)
        yield f"job {name}: {len(places)} cells cancelled"


def _require_reach(job: Job) -> None:
    """Refuse a job whose processes belong to another machine."""
    if job.executor != "slurm" and not job.process.here:
        raise ExecutionError(
            f"job {job.name} runs on {job.process.host}", remedy="Cancel it from that machine."
        )


def _stop_process(job: Job, places: set[int]) -> None:
    """Interrupt the process of a job that takes its cells one after the other, as Ctrl-C would."""
    from nsdbench.execution.states import of_cells

    pending = {place for place, state in of_cells(job, range(len(job.cells))).items() if state.pending}
    if pending - places:
        raise ExecutionError(
            f"job {job.name} is one process, which takes its cells one after the other",
            remedy="Cancel all of its cells, or start it with --workers next time.",
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(job.process.pid, signal.SIGINT)
