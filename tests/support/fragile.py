"""Runs ``nsdbench`` command lines that are killed, in a stage or just before a given change of the disk, and says where.

One process imports everything and forks for every command line, so that a child costs milliseconds instead of the seconds
of an import. The child is the real command line, from the parsing of its arguments to its exit code.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from own_process import become

STAGES = ("start", "simulate", "prepare", "fit", "reconstruct", "score", "leaderboard")
# what begins a stage, by the name under which it is looked up when it is called
BEGINNINGS = {
    "nsdbench.sim.dataset:write_dataset": "simulate",
    "nsdbench.data.dataset:load_or_build": "prepare",
    "nsdbench.adapters.base:Adapter.fit": "fit",
    "nsdbench.adapters.base:Adapter.reconstruct": "reconstruct",
    "nsdbench.runfolder:score_folder": "score",
    "nsdbench.leaderboard:append": "leaderboard",
}
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.utime")
PATIENCE_S = 300


@dataclass(frozen=True)
class Kill:
    """When a process is killed with SIGKILL.

    Attributes
    ----------
    stage, nth, delay : str, int, float
        So many seconds after a stage has begun for the nth time (from 1).
    change : int
        Instead, just before this change (from 1) of something below the working directory: a file opened for writing,
        flushed, renamed or removed, a folder made or removed. A file about to be flushed is cut in half first.
    """

    stage: str = ""
    nth: int = 1
    delay: float = 0.0
    change: int = 0


@dataclass(frozen=True)
class Fill:
    """When a disk becomes full: as a stage begins for the nth time, ``ballast`` takes all of it but ``left`` bytes."""

    stage: str
    left: int
    ballast: str
    nth: int = 1


@dataclass(frozen=True)
class Ended:
    """How a command line ended.

    Attributes
    ----------
    code : int
        Exit code, or minus the number of the signal.
    stage : str
        The stage that began last.
    changes : int
        How often something below the working directory was changed.
    timeline : list of (str, float)
        The stages and when they began, in seconds.
    """

    code: int
    stage: str
    changes: int
    timeline: list[tuple[str, float]]
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def spans(self) -> Iterator[tuple[str, int, float]]:
        """Each stage, the how-manieth of its name it was, and how long it took in seconds."""
        seen: dict[str, int] = {}
        ends = [at for _, at in self.timeline[1:]]
        for (stage, begin), end in zip(self.timeline, ends, strict=False):
            seen[stage] = seen.get(stage, 0) + 1
            yield stage, seen[stage], end - begin


class Forks:
    """The process that forks; see :func:`forking`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        words: Sequence[str | Path],
        folder: Path,
        *,
        kill: Kill | None = None,
        fill: Fill | None = None,
        clock: Sequence[float] = (),
    ) -> Ended:
        """Run ``nsdbench`` with ``words`` as its arguments in ``folder``.

        ``clock`` holds what is added to the time of day in seconds, one number per look at it, over and over.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        log = folder.parent / f".{folder.name}.log"
        wanted = {
            "words": [str(word) for word in words],
            "folder": str(folder),
            "log": str(log),
            "kill": asdict(kill or Kill()),
            "fill": asdict(fill) if fill else None,
            "clock": list(clock),
        }
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        log = answer.pop("log")
        texts = [Path(f"{log}.{name}") for name in ("out", "err")]
        out, err = (path.read_text() for path in texts)
        for path in texts:
            path.unlink()
        timeline = [(stage, at) for stage, at in answer.pop("timeline")]
        return Ended(**answer, timeline=timeline, out=out, err=err)


@contextlib.contextmanager
def forking() -> Iterator[Forks]:
    """Start a process that forks, and end it afterwards."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin is not None
    try:
        yield Forks(process)
    finally:
        process.stdin.close()
        process.wait(timeout=60)


class _Board:
    """What the child tells its parent, in memory they share: how many stages began, the last one, changes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)
        self.fill: Fill | None = None  # in the child only

    def clear(self) -> None:
        self._memory[:] = bytes(4096)

    def _number(self, place: int) -> int:
        return int.from_bytes(self._memory[4 * place : 4 * place + 4], "little")

    def _count(self, place: int) -> int:
        value = self._number(place) + 1
        self._memory[4 * place : 4 * place + 4] = value.to_bytes(4, "little")
        return value

    def begin(self, stage: str) -> None:
        index = self._count(0)  # the list of stages follows from place 2
        self._memory[8 + index] = STAGES.index(stage)
        if self.fill and self.fill.stage == stage and self.stages.count(stage) == self.fill.nth:
            ballast = Path(self.fill.ballast)
            with ballast.open("wb") as file:
                free = shutil.disk_usage(ballast.parent).free - self.fill.left
                os.posix_fallocate(file.fileno(), 0, max(free, 1))

    def change(self) -> int:
        return self._count(1)

    @property
    def changes(self) -> int:
        return self._number(1)

    @property
    def stages(self) -> list[str]:
        n = self._number(0)
        return ["start", *(STAGES[index] for index in self._memory[9 : 9 + n])]


def _announce(board: _Board) -> None:
    """Let every stage say that it begins."""
    for name, stage in BEGINNINGS.items():
        module, _, path = name.partition(":")
        *owners, attribute = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, attribute, _announced(getattr(owner, attribute), stage, board))


def _announced(function: Callable[..., Any], stage: str, board: _Board) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        board.begin(stage)
        return function(*args, **kwargs)

    return wrapper


def _count_changes(folder: str, board: _Board, fatal: int) -> None:
    """Count changes below ``folder`` from now on, and die just before the one of number ``fatal``."""
    flush = os.fsync

    def happens(path: str = "") -> None:
        if board.change() == fatal:
            if path and Path(path).is_file():
                os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(descriptor: int) -> None:
        happens(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        flush(descriptor)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        # a relative name stands for one in an open folder, as in the removal of a tree
        if isinstance(path, (str, Path)) and (str(path).startswith(folder) or not Path(path).is_absolute()):
            happens()

    os.fsync = fsync
    sys.addaudithook(hook)


def _set_clock(offsets: Sequence[float]) -> None:
    """Let the time of day jump with every look at it; what measures durations goes on as ever."""
    from nsdbench import manifest

    looks, true_time, true_now = iter(range(10**9)), time.time, datetime.datetime.now

    def offset() -> float:
        return offsets[next(looks) % len(offsets)]

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return true_now(tz) + datetime.timedelta(seconds=offset())

    time.time = lambda: true_time() + offset()
    time.time_ns = lambda: int((true_time() + offset()) * 1e9)
    manifest.datetime = types.SimpleNamespace(datetime=Jumping, UTC=datetime.UTC)  # type: ignore[attr-defined]


def _serve() -> None:
    # what the commands import
    import h5py  # noqa: F401
    import nibabel  # noqa: F401
    import pandas  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.io  # noqa: F401
    import short_decoder  # noqa: F401
    import torch

    from nsdbench import cli, compare, external, features, inspection, manifest, report, runner, sim  # noqa: F401

    manifest.git_commit()  # so that no child has to ask
    torch.set_num_threads(1)
    board = _Board()
    _announce(board)
    for line in sys.stdin:
        print(json.dumps(_one(json.loads(line), board)), flush=True)


def _one(wanted: Mapping[str, Any], board: _Board) -> dict[str, Any]:
    board.clear()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        become(wanted["log"], wanted["folder"], wanted["words"], lambda: _prepare(wanted, board))
    timeline, status = _follow(pid, Kill(**wanted["kill"]), board, start)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stage": timeline[-1][0],
        "changes": board.changes,
        "timeline": timeline,
        "log": wanted["log"],
    }


def _follow(pid: int, kill: Kill, board: _Board, start: float) -> tuple[list[tuple[str, float]], int]:
    """Watch a child until it ends, and kill it when its time has come; a child that hangs is killed too."""
    timeline = [("start", 0.0)]
    due = start + PATIENCE_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        now, stages = time.monotonic(), board.stages
        for stage in stages[len(timeline) :]:
            timeline.append((stage, now - start))
            if stage == kill.stage and stages[: len(timeline)].count(stage) == kill.nth:
                due = now + kill.delay
        if ended:
            return [*timeline, ("end", now - start)] if status == 0 else timeline, status
        if now >= due:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _prepare(wanted: Mapping[str, Any], board: _Board) -> None:
    """Arrange what shall happen to the child."""
    board.fill = Fill(**wanted["fill"]) if wanted["fill"] else None
    if wanted["clock"]:
        _set_clock(wanted["clock"])
    _count_changes(wanted["folder"], board, wanted["kill"]["change"])


if __name__ == "__main__":
    _serve()
