"""One task of a job, in a process of its own: ``python -m nsdbench.cli.worker JOB-FOLDER TASK``.

What it has to say goes to its standard error, which executors put into the log of the task.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nsdbench import runner
from nsdbench.cells import RunRequest, plan
from nsdbench.cli import options
from nsdbench.cli.output import Bars, explain, say
from nsdbench.data import Dataset
from nsdbench.errors import DataError
from nsdbench.execution import jobs, local
from nsdbench.execution.jobs import Job, Task
from nsdbench.execution.slots import VISIBLE
from nsdbench.runfolder import RECONSTRUCTIONS
from nsdbench.stages import CellRun

LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a task; return 0 if it did all it should, else 1."""
    folder, task = sys.argv[1:] if arguments is None else arguments
    if os.environ.get(local.LEASH):
        threading.Thread(target=local.end_with_parent, daemon=True).start()
    return work(Path(folder), int(task))


def work(folder: Path, place: int) -> int:
    """Run the task at one place of a job. Errors are said and recorded in the run folders, not raised."""
    folder = folder.absolute()
    try:
        job = jobs.read(folder)
        return _Work(job, job.tasks[place]).run()
    except Exception as error:
        LOG.debug("task %d", place, exc_info=True)
        _, message, remedy = explain(error)
        say(f"error: {message}")
        if remedy:
            say(f"  -> {remedy}")
        return 1


def _on_device(request: RunRequest) -> RunRequest:
    """Return the request with the device settled, which was left open where the job was made far from its GPUs.

    A task that was given a GPU does not fall back to the processor.
    """
    if request.context.device != "auto":
        return request
    device = options.pick_device("cuda" if os.environ.get(VISIBLE) else "cpu")
    return replace(
        request,
        context=replace(request.context, device=device),
        scoring=replace(request.scoring, device=device),
    )


class _Work:
    """A task with the data set and the cells that it is about."""

    def __init__(self, job: Job, task: Task) -> None:
        job.order.enter()
        self.request = _on_device(job.order.request)
        self.task = task
        cancelled = job.cancelled()
        self.progress = Bars()
        self.dataset: Dataset = job.order.dataset(self.progress)
        cells = plan(self.dataset, self.request)
        if [cell.key for cell in cells] != [cell.key for cell in job.cells]:
            raise DataError(
                "the cells are not those that the job was made for: data, models or nsdbench have changed",
                remedy="Run the same command again.",
            )
        self.cells = [cells[i] for i in task.cells if i not in cancelled]

    def run(self) -> int:
        if not self.cells:
            say("cancelled")
            return 1
        if self.task.stage == "publish":
            return self._publish()
        runs = [
            CellRun(self.dataset, self.request, cell, progress=self.progress, say=say) for cell in self.cells
        ]
        if self.task.stage == "fit":
            return self._fit(runs)
        return {"reconstruct": self._reconstruct, "score": self._score}[self.task.stage](runs[0])

    def _fit(self, runs: list[CellRun]) -> int:
        for one in runs:
            one.begin()
        try:
            runs[0].fit()
        except Exception as error:
            for one in runs[1:]:
                one.fail(error)
            raise
        say(f"{runs[0].cell.key.model} subj{runs[0].cell.key.subject:02d}: fitted")
        return 0

    def _reconstruct(self, run: CellRun) -> int:
        # whether the fit failed or was lost is on record: here would be the wrong place to make up for it
        if not run.cell.fit_folder.is_dir():
            say(f"{run.cell.label}: there is no fitted decoder, see the log of its fit")
            return 1
        run.reconstruct()
        say(f"{run.cell.label}: reconstructed")
        return 0

    def _score(self, run: CellRun) -> int:
        if not (run.cell.folder / RECONSTRUCTIONS).is_file():
            say(f"{run.cell.label}: there are no reconstructions, see the log of that stage")
            return 1
        run.score()
        say(f"{run.cell.label}: scored")
        return 0

    def _publish(self) -> int:
        results = runner.complete(self.cells)
        runner.write_leaderboards(results, self.request.leaderboard)
        say(f"{len(results)} of {len(self.cells)} cells are on the leaderboard {self.request.leaderboard}")
        return 0 if len(results) == len(self.cells) else 1


if __name__ == "__main__":
    sys.exit(main())
