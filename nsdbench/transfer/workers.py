"""Work in several threads that ends together: when one fails, when somebody presses Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait

GRACE_S = 1.0
"""After Ctrl-C: long enough to record what has arrived, too short to wait for a silent server."""


class Lanes:
    """So many connections at the same time, shared by all files that are on their way."""

    def __init__(self, n: int) -> None:
        self.n = max(n, 1)
        self.free = threading.BoundedSemaphore(self.n)


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
