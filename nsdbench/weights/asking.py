"""Questions to servers, many at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from nsdbench.transfer.workers import run_all

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 16


def ask_all(question: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the answers in the order of the items; Ctrl-C does not wait for a silent server."""
    todo: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    for numbered in enumerate(items):
        todo.put(numbered)
    answers: dict[int, R] = {}
    ended = threading.Event()

    def work() -> None:
        with suppress(queue.Empty):
            while not ended.is_set():
                k, item = todo.get_nowait()
                answers[k] = question(item)

    run_all([work] * min(AT_ONCE, len(items)), ended)
    return [answers[k] for k in range(len(items))]
