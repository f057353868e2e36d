"""A sign of life: while a stage of a cell is being computed, a small file says where, since when and how far it is."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from nsdbench.errors import DataError
from nsdbench.store import read_json, write_json
from nsdbench.types import Progress

T = TypeVar("T")
FILE = "status.json"
BEAT_S = 2.0


@dataclass(frozen=True)
class Process:
    """A process of some machine. Process ids are used again; together with the start they are not.

    Attributes
    ----------
    host : str
    pid : int
    started : int
        Clock ticks between the start of the machine and that of the process, so that no clock can shift it; 0 where the
        system does not tell.
    """

    host: str
    pid: int
    started: int

    @property
    def here(self) -> bool:
        """Whether it belongs to this machine."""
        return self.host == platform.node()

    @property
    def alive(self) -> bool:
        """Whether it still runs, for a process of this machine."""
        if not self.here or self.pid <= 0:  # which would mean whole groups of processes
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass  # somebody else's
        return not _zombie(self.pid) and _started(self.pid) == self.started


def this_process() -> Process:
    """Return the process that asks."""
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    """Return the process of this machine that has that number now."""
    return Process(platform.node(), pid, _started(pid))


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` from the third on; none where there is no such file."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name in parentheses may hold anything


def _started(pid: int) -> int:
    found = _stat(pid)
    return int(found[19]) if found else 0


def _zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]


@dataclass(frozen=True)
class Pulse:
    """What the file says.

    Attributes
    ----------
    stage : {"fit", "reconstruct", "score"}
    process : Process
        Who computes, or did.
    gpus : str
        ``CUDA_VISIBLE_DEVICES`` of that process.
    elapsed_s : float
        Seconds since the stage began there, by a clock that never jumps.
    step : str
        The loop it is in and how far, such as ``"diffusion 3/12"``.
    ended : bool
        Whether the stage was left, well or with an error. A killed process says nothing.
    error : str or None
        The error it was left with.
    """

    stage: str
    process: Process
    gpus: str
    elapsed_s: float
    step: str = ""
    ended: bool = False
    error: str | None = None

    @property
    def beating(self) -> bool:
        """Whether the stage is being computed by a living process of this machine."""
        return not self.ended and self.process.alive


def read(path: Path) -> Pulse | None:
    """Return the pulse in a file, None if there is none that can be read."""
    try:
        document = read_json(path)
        found = Pulse(**{**document, "process": Process(**document["process"])})
    except (DataError, TypeError, KeyError):
        return None
    return found if _sound(found) and _sound(found.process) else None


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Process": (Process,),
    "str | None": (str, type(None)),
}


def _sound(record: Pulse | Process) -> bool:
    """Whether all fields have the types that they are declared with."""
    return all(isinstance(getattr(record, f.name), _KINDS[str(f.type)]) for f in fields(record))


@contextlib.contextmanager
def beating(path: Path, stage: str, progress: Progress) -> Iterator[Progress]:
    """Keep ``path`` up to date while the body runs; yield a progress that also counts for it.

    A disk that takes no pulse stops no computation: whatever the stage itself writes will say so.
    """
    heart = _Heart(path, stage, progress)
    heart.write()
    thread = threading.Thread(target=heart.beat, daemon=True)
    thread.start()
    error: str | None = None
    try:
        yield heart
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
        raise
    finally:
        heart.stop.set()
        thread.join()
        heart.write(ended=True, error=error)


class _Heart:
    """A progress that remembers the innermost loop and writes it down now and then."""

    def __init__(self, path: Path, stage: str, progress: Progress) -> None:
        self.stop = threading.Event()
        self._path, self._stage, self._progress = path, stage, progress
        self._process, self._start = this_process(), time.monotonic()
        self._loops: list[list[str]] = []  # label, done, of how many

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        loop = [label, "0", "" if total is None else f"/{total}"]
        self._loops.append(loop)
        try:
            for done, item in enumerate(self._progress.track(items, label, total), start=1):
                yield item
                loop[1] = str(done)
        finally:
            self._loops.remove(loop)

    def beat(self) -> None:
        while not self.stop.wait(BEAT_S):
            self.write()

    def write(self, *, ended: bool = False, error: str | None = None) -> None:
        loop = self._loops[-1:]
        step = "".join(f"{label} {done}{total}" for label, done, total in loop)
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        elapsed = round(time.monotonic() - self._start, 1)
        pulse = Pulse(self._stage, self._process, gpus, elapsed, step, ended, error)
        with contextlib.suppress(OSError):
            write_json(self._path, asdict(pulse))
