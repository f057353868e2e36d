"""Places where a task can run on this machine: a processor or one whole GPU."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nsdbench.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Slot:
    """Room for one task.

    Attributes
    ----------
    gpu : str or None
        What :data:`VISIBLE` is set to for the task; None leaves the environment alone.
    """

    gpu: str | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return "CPU" if self.gpu is None else f"GPU {self.gpu}"

    @contextlib.contextmanager
    def lease(self) -> Iterator[int | None]:
        """Hold the GPU against other nsdbench processes of this machine; yield a file descriptor that holds it too.

        A child process that inherits the descriptor goes on holding the GPU if this process dies. Without a GPU, or where the
        system has no locks, the descriptor is None.

        Raises
        ------
        BlockingIOError
            If another process holds it.
        """
        if self.gpu is None:
            yield None
            return
        try:
            import fcntl  # not on Windows
        except ImportError:
            yield None
            return
        descriptor = _open(Path(tempfile.gettempdir()) / f"nsdbench-gpu-{_file_name(self.gpu)}.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    """Open a lock file that another user may have made: reading it is enough for locking it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _file_name(gpu: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in gpu)


def find(workers: int, device: str) -> tuple[Slot, ...]:
    """Return so many slots: GPUs of their own for tasks on GPUs, else shares of the processors.

    Raises
    ------
    UsageError
        If there are fewer GPUs than workers, since two tasks never share one.
    """
    if not device.startswith("cuda"):
        return (Slot(),) * workers
    gpus = visible_gpus()
    if workers > len(gpus):
        raise UsageError(
            f"{workers} workers need {workers} GPUs, {len(gpus)} can be seen here",
            remedy=f"Use --workers {len(gpus)}: two tasks never share a GPU.",
        )
    return tuple(Slot(gpu) for gpu in gpus[:workers])


def gpu_of(device: str) -> str | None:
    """Return the GPU that a torch device means, as :data:`VISIBLE` names it; None for the processor."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    gpus, place = visible_gpus(), int(number or 0)
    return gpus[place] if place < len(gpus) else None


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as :data:`VISIBLE` names them."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))
