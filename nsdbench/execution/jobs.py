"""The folder of a job: which cells, which tasks, who has them, and where they write what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nsdbench.cells import Cell
from nsdbench.errors import DataError
from nsdbench.execution import order as orders
from nsdbench.execution.order import Order
from nsdbench.pulse import Process, this_process
from nsdbench.schema import RunKey
from nsdbench.store import locked, read_json, write_json

JOB_ID = "job/1"
JOBS = "jobs"  # below the folder of runs
TaskStage = Literal["fit", "reconstruct", "score", "publish"]
STAGES: tuple[TaskStage, ...] = ("fit", "reconstruct", "score", "publish")
ExecutorName = Literal["here", "local", "slurm"]


@dataclass(frozen=True)
class Task:
    """A stage of one cell, or of the cells that share it: a fit serves all splits, a leaderboard everything.

    Attributes
    ----------
    stage : {"fit", "reconstruct", "score", "publish"}
    cells : tuple of int
        Places in :attr:`Job.cells`.
    after : tuple of int
        Places in :attr:`Job.tasks`: these must have ended, well or not, before it may begin.
    """

    stage: TaskStage
    cells: tuple[int, ...]
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class JobCell:
    """A cell as a job knows it; folders are below that of the runs."""

    key: RunKey
    folder: Path
    fit_folder: Path


@dataclass(frozen=True)
class Job:
    """Cells that were handed to an executor together.

    Attributes
    ----------
    folder : Path
        ``<runs>/jobs/<number>``.
    executor : {"here", "local", "slurm"}
        ``here``: one process takes them one after the other.
    process : Process
        Who handed them over; except for Slurm, the job ends with it.
    order : Order
    cells : tuple of JobCell
    tasks : tuple of Task
        Each after the tasks that it waits for.
    """

    folder: Path
    executor: ExecutorName
    process: Process
    order: Order
    cells: tuple[JobCell, ...]
    tasks: tuple[Task, ...] = field(default=())

    @property
    def name(self) -> str:
        """The number, as text."""
        return self.folder.name

    @property
    def runs(self) -> Path:
        """The folder of runs that the job belongs to."""
        return self.folder.parent.parent

    def log(self, task: int) -> Path:
        """Return where a task writes what it has to say."""
        return self.folder / "log" / f"{task:04d}-{self.tasks[task].stage}.log"

    def handles(self) -> dict[int, str]:
        """Return what the executor calls the tasks that it has taken so far."""
        document = _read(self.folder / "handles.json", {})
        return {int(task): str(handle) for task, handle in document.items() if task.isdigit()}

    def add_handles(self, handles: Mapping[int, str]) -> None:
        """Write down what the executor calls further tasks."""
        with locked(self.folder):
            known = self.handles() | dict(handles)
            write_json(self.folder / "handles.json", {str(task): handle for task, handle in known.items()})

    def cancelled(self) -> frozenset[int]:
        """Return the places of the cells that nobody wants any more."""
        return frozenset(
            place for place in _read(self.folder / "cancelled.json", []) if isinstance(place, int)
        )

    def add_cancelled(self, cells: Collection[int]) -> None:
        """Write down that some cells are not wanted any more."""
        with locked(self.folder):
            write_json(self.folder / "cancelled.json", sorted(self.cancelled() | set(cells)))


def create(executor: ExecutorName, order: Order, cells: Sequence[Cell], tasks: Sequence[Task] = ()) -> Job:
    """Write the folder of a new job below the folder of runs and return the job; numbers are never used twice."""
    entries = tuple(
        JobCell(c.key, c.folder.relative_to(order.request.out), c.fit_folder.relative_to(order.request.out))
        for c in cells
    )
    job = Job(_new_folder(order.request.out / JOBS), executor, this_process(), order, entries, tuple(tasks))
    (job.folder / "log").mkdir()
    write_json(
        job.folder / "job.json",
        {
            "schema": JOB_ID,
            "executor": executor,
            "process": asdict(job.process),
            "order": order.document(),
            "cells": [asdict(cell) for cell in job.cells],
            "tasks": [asdict(task) for task in job.tasks],
        },
    )
    return job


def _new_folder(above: Path) -> Path:
    above.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in _folders(above)), default=0) + 1
    while True:
        try:
            (above / str(number)).mkdir()
        except FileExistsError:
            number += 1
        else:
            return above / str(number)


def _folders(above: Path) -> Iterator[Path]:
    if above.is_dir():
        yield from (path for path in above.iterdir() if path.name.isdigit())


def read(folder: Path) -> Job:
    """Read the folder of a job.

    Raises
    ------
    DataError
        If it is none, or damaged.
    """
    path = folder / "job.json"
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != JOB_ID:
        raise DataError(f"{path} does not describe a job of schema {JOB_ID}")
    try:
        return Job(
            folder=folder,
            executor=document["executor"],
            process=Process(**document["process"]),
            order=orders.read(document["order"]),
            cells=tuple(_cell(cell) for cell in document["cells"]),
            tasks=tuple(Task(t["stage"], tuple(t["cells"]), tuple(t["after"])) for t in document["tasks"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} lacks or misspells a field: {error}") from error


def _cell(document: Mapping[str, Any]) -> JobCell:
    return JobCell(RunKey(**document["key"]), Path(document["folder"]), Path(document["fit_folder"]))


def all_of(runs: Path) -> Iterator[Job]:
    """Yield the jobs of a folder of runs, newest first; damaged ones are left out."""
    for folder in sorted(_folders(runs / JOBS), key=lambda path: int(path.name), reverse=True):
        try:
            yield read(folder)
        except DataError:
            continue


def _read(path: Path, default: Any) -> Any:
    """Return a JSON file of the type of ``default``, which stands for one that is not there or damaged."""
    try:
        document = read_json(path)
    except DataError:
        return default
    return document if isinstance(document, type(default)) else default
