"""Runs ``nsdbench`` command lines in processes of their own, each with limits, without importing torch for each.

One process imports everything once and forks for every command line: what a user's process would do, in milliseconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

MEMORY = 2**30  # address space that a command may take beyond what the imports took
SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """How a command line ended: exit code (negative: killed by that signal), what it printed, time and memory it took."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float

    @property
    def shown(self) -> str:
        return self.out + self.err


class OwnProcesses:
    """The process that forks; see :func:`starting`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(
        self, words: Sequence[str | bytes | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run ``nsdbench`` with ``words`` as its arguments in ``folder``."""
        log = folder.parent / f".{folder.name}.log"
        wanted = {
            "words": [os.fsdecode(word) for word in words],
            "folder": str(folder),
            "log": str(log),
            "environment": dict(environment or {}),
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        texts = [Path(f"{log}.{name}").read_text("utf-8", "surrogateescape") for name in ("out", "err")]
        return Outcome(answer["code"], *texts, answer["seconds"], answer["peak_mb"])


@contextlib.contextmanager
def starting() -> Iterator[OwnProcesses]:
    """Start the process that forks, and end it afterwards."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield OwnProcesses(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


def _serve() -> None:
    # what the commands import
    import h5py  # noqa: F401
    import nibabel  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.io  # noqa: F401
    import torch  # noqa: F401

    from nsdbench import cli, conversion, external, report, runner  # noqa: F401

    # and what they import on the way to a refusal
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        sys.argv = [
            "nsdbench",
            "score",
            "nothing",
            "--targets",
            "nowhere",
            "--split",
            "vision",
            "--metrics",
            "pixcorr",
        ]
        cli.main()
    for line in sys.stdin:
        print(json.dumps(_one(json.loads(line))), flush=True)


def _one(wanted: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        become(wanted["log"], wanted["folder"], wanted["words"], lambda: _confine(wanted["environment"]))
    _, status, used = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - start,
        "peak_mb": used.ru_maxrss / 2**10,
    }


def become(log: str, folder: str, words: Sequence[str], prepare: Callable[[], None]) -> NoReturn:
    """Turn a forked child into the command line; ``prepare`` runs when what it prints already goes to the log."""
    code = 99
    try:
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        sys.argv = ["nsdbench", *words]
        prepare()
        from nsdbench.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - shown to the test, which expects none
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _confine(environment: Mapping[str, str]) -> None:
    """Limit memory and time, and take over the variables of the caller."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(int(os.environ.get("ALARM", SECONDS)))  # what hangs uses no processor time
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(":"))


if __name__ == "__main__":
    _serve()
