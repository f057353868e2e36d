"""From a request to a job: what is left to do becomes tasks, what others are at work on is left to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nsdbench import runfolder, runner
from nsdbench.cells import Cell, RunRequest, plan, require_all_weights, state
from nsdbench.errors import ExecutionError
from nsdbench.execution import jobs, states
from nsdbench.execution.executor import Executor
from nsdbench.execution.jobs import ExecutorName, Job, Task
from nsdbench.execution.order import Order, Source
from nsdbench.execution.states import CellState
from nsdbench.store import locked

if TYPE_CHECKING:
    from nsdbench.data import Dataset


@dataclass(frozen=True)
class Submission:
    """What has been handed over.

    Attributes
    ----------
    job : Job or None
        None if there was nothing to hand over.
    cells : tuple of Cell
        All of the request.
    reused : frozenset of Path
        Run folders of those that were complete.
    elsewhere : tuple of CellState
        Those that wait or run in earlier jobs.
    """

    job: Job | None
    cells: tuple[Cell, ...]
    reused: frozenset[Path]
    elsewhere: tuple[CellState, ...]


def submit(
    dataset: Dataset, request: RunRequest, source: Source, name: ExecutorName, executor: Executor
) -> Submission:
    """Hand over what is left to do of a request.

    Cells that wait or run already, in an earlier job, are left to it. Failed, cancelled and lost ones are handed over again.

    Raises
    ------
    WeightsError
        If weights of a model or metric are missing; nothing has been handed over then.
    ExecutionError
        If cells that are at work should be done afresh, or the executor refuses.
    """
    cells = plan(dataset, request)
    require_all_weights(cells, request)
    request.out.mkdir(parents=True, exist_ok=True)
    with locked(request.out):  # so that two commands at the same time do not hand over the same cells
        pending = _pending(request)
        elsewhere = {cell.folder: pending[cell.folder] for cell in cells if cell.folder in pending}
        if request.fresh:
            _make_room(cells, request, elsewhere)
            request = replace(request, fresh=False)
        left = [
            i for i, c in enumerate(cells) if c.folder not in elsewhere and state(c, request) != "complete"
        ]
        job = None
        if left:
            job = jobs.create(name, Order.of(request, source, dataset), cells, tasks_of(cells, left))
    if job:
        executor.submit(job)
    reused = frozenset(cell.folder for cell in cells) - {cells[i].folder for i in left} - set(elsewhere)
    return Submission(job, cells, reused, tuple(elsewhere.values()))


def _pending(request: RunRequest) -> Mapping[Path, CellState]:
    return {found.folder: found for found in states.survey(request.out) if found.pending}


def _make_room(cells: Sequence[Cell], request: RunRequest, elsewhere: Mapping[Path, CellState]) -> None:
    """Delete what ``--fresh`` replaces, unless somebody is at work on it."""
    if elsewhere:
        busy = next(iter(elsewhere.values()))
        raise ExecutionError(
            f"{len(elsewhere)} of these cells are at work, first in job {busy.job}",
            remedy=f"Wait for it, or stop it: nsdbench cancel {request.out}",
        )
    runner.remove(cells)


def tasks_of(cells: Sequence[Cell], left: Sequence[int]) -> tuple[Task, ...]:
    """Return the tasks for the cells at some places, in the order of their stages.

    One fit serves all cells that share it. A stage whose result is there is left out. The last task writes the leaderboards
    of all ``cells``.
    """
    tasks: list[Task] = []
    fits: dict[Path, list[int]] = {}
    for place in left:
        cell = cells[place]
        if not (cell.folder / runfolder.RECONSTRUCTIONS).is_file() and not cell.fit_folder.is_dir():
            fits.setdefault(cell.fit_folder, []).append(place)
    before: dict[int, tuple[int, ...]] = {}
    for places in fits.values():
        before |= dict.fromkeys(places, (len(tasks),))
        tasks.append(Task("fit", tuple(places)))
    for place in left:
        if not (cells[place].folder / runfolder.RECONSTRUCTIONS).is_file():
            tasks.append(Task("reconstruct", (place,), before.get(place, ())))
            before[place] = (len(tasks) - 1,)
    scores = range(len(tasks), len(tasks) + len(left))
    tasks += [Task("score", (place,), before.get(place, ())) for place in left]
    return (*tasks, Task("publish", tuple(range(len(cells))), tuple(scores)))
