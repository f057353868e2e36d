"""Tasks on this machine, each in a process of its own, as many at once as there are slots."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from nsdbench.execution.executor import Presence
from nsdbench.execution.jobs import STAGES, Job
from nsdbench.execution.slots import VISIBLE, Slot
from nsdbench.pulse import Process, process_of

WORKER = "nsdbench.cli.worker"
LEASH = "NSDBENCH_LEASH"
"""Set in the environment of a worker that must not outlive its parent, which holds the other end of its standard input."""
PAUSE_S = 0.1
GRACE_S = 5.0
THREADS = "OMP_NUM_THREADS"


class LocalExecutor:
    """Runs a job in child processes. It ends with the process that submitted it.

    Parameters
    ----------
    slots : sequence of Slot
        Needed for submitting only.
    watch : callable
        Called every tenth of a second while tasks run.
    """

    def __init__(self, slots: Collection[Slot] = (), watch: Callable[[], object] = lambda: None) -> None:
        self._slots = tuple(slots)
        self._watch = watch

    def submit(self, job: Job) -> None:
        """Run all tasks of a job and return when the last one has ended."""
        with _terminating(), _Pool(job, self._slots) as pool:
            while pool.step():
                self._watch()
                time.sleep(PAUSE_S)

    def poll(self, job: Job) -> Mapping[int, Presence]:
        if not job.process.alive:  # its workers end with it
            return {}
        known = {task: _process(handle) for task, handle in job.handles().items()}
        alive: dict[int, Presence] = {task: "running" for task, p in known.items() if p and p.alive}
        cancelled = job.cancelled()
        wanted = (i for i, task in enumerate(job.tasks) if not set(task.cells) <= cancelled)
        return alive | {task: "queued" for task in wanted if task not in known}

    def cancel(self, job: Job, tasks: Collection[int]) -> None:
        for task, handle in job.handles().items():
            process = _process(handle)
            if task in tasks and process and process.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)


def _process(handle: str) -> Process | None:
    try:
        return Process(**json.loads(handle))
    except (ValueError, TypeError):
        return None


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    slot: Slot
    held: contextlib.ExitStack  # the GPU, the log


class _Pool:
    """The tasks of a job that wait and those that run."""

    def __init__(self, job: Job, slots: tuple[Slot, ...]) -> None:
        self._job = job
        self._waiting = list(range(len(job.tasks)))
        self._running: dict[int, _Running] = {}
        self._free = list(slots)
        self._threads = max(1, (os.cpu_count() or 1) // len(slots))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running.values():
            running.process.terminate()
        end = time.monotonic() + GRACE_S
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.held.close()

    def step(self) -> bool:
        """Take note of tasks that have ended, start those that can begin; return whether any are left."""
        for task in [t for t, running in self._running.items() if running.process.poll() is not None]:
            running = self._running.pop(task)
            running.held.close()
            self._free.append(running.slot)
        cancelled = self._job.cancelled()
        for task in sorted(self._waiting, key=self._begun_first):
            if cancelled.issuperset(self._job.tasks[task].cells):
                self._waiting.remove(task)
            elif self._free and not self._blocked(task):
                self._start(task)
        return bool(self._waiting or self._running)

    def _begun_first(self, task: int) -> tuple[int, int]:
        return -STAGES.index(self._job.tasks[task].stage), task

    def _blocked(self, task: int) -> bool:
        left = {*self._waiting, *self._running}
        return any(earlier in left for earlier in self._job.tasks[task].after)

    def _start(self, task: int) -> None:
        for slot in self._free:
            held = contextlib.ExitStack()
            try:
                descriptor = held.enter_context(slot.lease())
            except BlockingIOError:
                held.close()
                continue  # somebody else computes on that GPU
            self._free.remove(slot)
            self._waiting.remove(task)
            self._running[task] = _Running(self._spawn(task, slot, descriptor, held), slot, held)
            return

    def _spawn(
        self, task: int, slot: Slot, descriptor: int | None, held: contextlib.ExitStack
    ) -> subprocess.Popen[bytes]:
        environment = {THREADS: str(self._threads), **os.environ, LEASH: "1"}
        if slot.gpu is not None:
            environment[VISIBLE] = slot.gpu
        log = held.enter_context(self._job.log(task).open("ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(self._job.folder), str(task)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
            pass_fds=() if descriptor is None else (descriptor,),
        )  # fmt: skip
        held.callback(_close, process.stdin)
        self._job.add_handles({task: json.dumps(asdict(process_of(process.pid)))})
        return process


def _close(stream: Any) -> None:
    with contextlib.suppress(OSError):
        stream.close()


def end_with_parent() -> None:
    """End this process, a worker, as soon as its parent has: to be run in a thread."""
    os.read(0, 1)  # nothing is ever written there, so it returns when the other end is closed
    os._exit(1)


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the workers are stopped too."""

    def stop(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
