"""The pool of slots on this machine, with workers that only note when they ran and where."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsdbench.adapters.base import Context
from nsdbench.cells import RunRequest
from nsdbench.data import LoadOptions
from nsdbench.errors import UsageError
from nsdbench.execution import jobs, local, slots
from nsdbench.execution.jobs import Job, Task
from nsdbench.execution.local import LocalExecutor
from nsdbench.execution.order import Order, Source
from nsdbench.execution.slots import Slot
from nsdbench.scoring import ScoreSettings

SUPPORT = Path(__file__).resolve().parents[1] / "support"
GPUS = (Slot("0"), Slot("1"))


@pytest.fixture(autouse=True)
def small_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "WORKER", "slot_worker")
    monkeypatch.setattr(local, "PAUSE_S", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setattr(slots.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Job]:
    def make(tasks: Sequence[Task]) -> Job:
        request = RunRequest(
            ("ridge",), ("vision",), (1,), LoadOptions(), ScoreSettings(), tmp_path / "runs", tmp_path / "board",
            context=Context(),
        )  # fmt: skip
        return jobs.create("local", Order(request, Source("sim"), "", tmp_path), (), tasks)

    return make


def notes(job: Job) -> dict[int, tuple[float, float, str]]:
    """Return begin, end and GPU of every task that ended well."""
    found = {}
    for path in (job.folder / "notes").iterdir():
        if not path.suffix:
            began, ended, gpu, _ = path.read_text().split(" ")
            found[int(path.name)] = (float(began), float(ended), gpu)
    return found


def fits(n: int) -> list[Task]:
    return [Task("fit", (place,)) for place in range(n)]


def overlap(a: tuple[float, float, Any], b: tuple[float, float, Any]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def test_two_tasks_at_once_never_share_a_gpu(make: Callable[..., Job]) -> None:
    job = make(fits(6))
    LocalExecutor(GPUS).submit(job)
    ran = notes(job)
    assert len(ran) == 6 and {gpu for *_, gpu in ran.values()} == {"0", "1"}
    pairs = list(itertools.combinations(ran.values(), 2))
    assert any(overlap(a, b) for a, b in pairs)
    assert not any(overlap(a, b) and a[2] == b[2] for a, b in pairs)


def test_a_task_begins_when_those_before_it_have_ended_well_or_not(make: Callable[..., Job]) -> None:
    job = make(
        [
            *fits(2),
            Task("reconstruct", (0,), (0,)),
            Task("score", (0,), (2,)),
            Task("publish", (0, 1), (1, 3)),
        ]
    )
    (job.folder / "fail-0").touch()
    LocalExecutor((Slot(), Slot())).submit(job)
    ran = notes(job)
    assert set(ran) == {1, 2, 3, 4}
    assert ran[2][1] <= ran[3][0] and max(ran[1][1], ran[3][1]) <= ran[4][0]


def test_cells_that_were_begun_go_before_others(make: Callable[..., Job]) -> None:
    job = make([*fits(3), Task("reconstruct", (0,), (0,))])
    LocalExecutor((Slot(),)).submit(job)
    ran = notes(job)
    assert sorted(ran, key=lambda task: ran[task][0]) == [0, 3, 1, 2]


def test_threads_are_shared_among_the_slots(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    job = make(fits(1))
    LocalExecutor((Slot(),) * 4).submit(job)
    assert (job.folder / "notes" / "0").read_text().split()[-1] == "3"


def test_a_gpu_that_another_process_holds_is_left_alone(make: Callable[..., Job]) -> None:
    job = make(fits(3))
    with GPUS[0].lease():
        LocalExecutor(GPUS).submit(job)
    assert {gpu for *_, gpu in notes(job).values()} == {"1"}
    assert {line for task in range(3) for line in job.log(task).read_text().split("\n")} == {"at work", ""}


def test_a_worker_holds_its_gpu_even_without_its_parent(make: Callable[..., Job]) -> None:
    job = make(fits(1))
    (job.folder / "hold").touch()
    pool = local._Pool(job, GPUS[:1])
    pool.step()
    running = pool._running[0]
    os.close(os.open(os.devnull, os.O_RDONLY))
    descriptor_closed = running.held.pop_all()  # as if this process had died: its own hold is given up ...
    with pytest.raises(BlockingIOError), GPUS[0].lease():
        pass
    running.process.kill()
    running.process.wait()
    descriptor_closed.close()
    with GPUS[0].lease():  # ... and that of the worker ends with it
        pass


def started(job: Job, n: int) -> None:
    end = time.monotonic() + 30
    while len(list((job.folder / "notes").glob("*.began"))) < n:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_waits_and_runs_can_be_asked_and_cancelled_from_outside(make: Callable[..., Job]) -> None:
    job = make(fits(4))
    (job.folder / "notes").mkdir()
    (job.folder / "hold").touch()
    thread = threading.Thread(target=_submit, args=(job, (Slot(), Slot())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)  # not in a thread
        thread.start()
        started(job, 2)
        outside = LocalExecutor()
        assert outside.poll(job) == {0: "running", 1: "running", 2: "queued", 3: "queued"}
        job.add_cancelled({1, 2})
        outside.cancel(job, {1, 2})
        started(job, 3)
        assert outside.poll(job) == {0: "running", 3: "running"}
        (job.folder / "hold").unlink()
        thread.join()
    assert set(notes(job)) == {0, 3}
    assert outside.poll(job) == {}


def _submit(job: Job, where: tuple[Slot, ...]) -> None:
    LocalExecutor(where).submit(job)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(
    make: Callable[..., Job], how: signal.Signals, tmp_path: Path
) -> None:
    job = make(fits(2))
    (job.folder / "notes").mkdir()
    (job.folder / "hold").touch()
    script = (
        "import sys; from pathlib import Path; from nsdbench.execution import jobs, local; "
        "from nsdbench.execution.slots import Slot; local.WORKER = 'leashed_worker'; "
        "local.LocalExecutor((Slot(), Slot())).submit(jobs.read(Path(sys.argv[1])))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(job.folder)], stderr=subprocess.DEVNULL)
    started(job, 2)
    parent.send_signal(how)
    assert parent.wait(30) != 0
    pids = [int(path.read_text()) for path in (job.folder / "notes").glob("*.began")]
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert notes(job) == {}


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-1a")
    assert slots.find(2, "cuda") == (Slot("4"), Slot("GPU-1a"))
    assert slots.gpu_of("cuda:1") == "GPU-1a"
    with pytest.raises(UsageError, match="3 workers need 3 GPUs, 2"):
        slots.find(3, "cuda")
    assert slots.find(3, "cpu") == (Slot(),) * 3


def test_lock_files_of_gpus_follow_no_link(tmp_path: Path) -> None:
    (tmp_path / "nsdbench-gpu-0.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="nsdbench-gpu-0"), GPUS[0].lease():
        pass
    assert not (tmp_path / "elsewhere").exists()
