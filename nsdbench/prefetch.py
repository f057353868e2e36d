"""Work one step ahead: what comes next is prepared in a thread while the present batch is being used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetched(make: Callable[[Item], Made], items: Iterable[Item], *, ahead: int) -> Iterator[Made]:
    """Yield ``make(item)`` for every item, in order.

    Parameters
    ----------
    make : callable
        Called in one other thread, never twice at a time; what it raises is raised here in its turn.
    items : iterable
        Taken in the thread of the caller.
    ahead : int
        How many results may wait to be used. 0 makes everything here, when it is asked for.
    """
    if ahead == 0:
        yield from map(make, items)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(make, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever stops early need not wait for what nobody will use
            for future in waiting:
                future.cancel()
