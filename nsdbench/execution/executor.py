"""The boundary to whatever runs tasks: hand them over, ask which are left, drop some."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

from nsdbench.execution.jobs import Job

Presence = Literal["queued", "running"]


class Executor(Protocol):
    """Has :mod:`nsdbench.cli.worker` do every task of a job, sooner or later.

    It never says how a task ended. Sites may keep no accounts, a machine may go down: the run folders alone say what is done.
    """

    def submit(self, job: Job) -> None:
        """Take all tasks of a job. Handles are written into its folder as soon as they are known."""
        ...

    def poll(self, job: Job) -> Mapping[int, Presence]:
        """Return the tasks that wait or run, by their place in the job; those that ended or were lost are not in it.

        Raises
        ------
        ExecutionError
            If that cannot be found out now.
        """
        ...

    def cancel(self, job: Job, tasks: Collection[int]) -> None:
        """Stop tasks that run and never start those that wait. Tasks that are gone already are no error."""
        ...
