"""Work in several threads that ends together: when one fails, when somebody presses Ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
ASKED_AT_ONCE = 16
GRACE_S = 1.0
"""After Ctrl-C: long enough to record what has arrived, too short to wait for a silent server."""


class Lanes:
    """So many connections at the same time, shared by all files that are on their way."""

    def __init__(self, n: int) -> None:
        self.n = max(n, 1)
        self.free = threading.BoundedSemaphore(self.n)


def for_each(items: Sequence[T], do: Callable[[T], None], at_once: int, ended: threading.Event) -> None:
    """Call ``do`` with every item, so many at a time and in this order, until ``ended`` is set.

    As in :func:`run_all`, the first failure sets it and is raised, and Ctrl-C does not wait for a silent server.
    """
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        todo.put(item)

    def work() -> None:
        while not ended.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            do(item)

    run_all([work] * min(at_once, len(items)), ended)


def ask_all(question: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the answers to a question about every item, in their order; many servers are asked at the same time."""
    answers: dict[int, R] = {}

    def ask(k: int) -> None:
        answers[k] = question(items[k])

    for_each(range(len(items)), ask, ASKED_AT_ONCE, threading.Event())
    return [answers[k] for k in range(len(items))]


def run_all(tasks: list[Callable[[], None]], ended: threading.Event) -> None:
    """Run tasks in threads; when one fails, ask the others to end by setting ``ended``, and raise the first's error.

    Threads are daemons, so that an interrupted program need not wait for a silent server.
    """
    futures: list[Future[None]] = []
    for task in tasks:
        future: Future[None] = Future()
        threading.Thread(target=_settle, args=(future, task), daemon=True).start()
        futures.append(future)
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        ended.set()
        wait(futures)
    except BaseException:  # Ctrl-C
        ended.set()
        wait(futures, timeout=GRACE_S)
        raise
    for future in (*done, *futures):
        future.result()


def _settle(future: Future[None], task: Callable[[], None]) -> None:
    try:
        task()
        future.set_result(None)
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
        future.set_exception(error)
