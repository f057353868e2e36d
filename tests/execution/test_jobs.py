"""Folders of jobs, orders and signs of life: what processes tell each other through files."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nsdbench import pulse
from nsdbench.cells import RunRequest, plan
from nsdbench.data import Dataset
from nsdbench.errors import DataError
from nsdbench.execution import jobs
from nsdbench.execution.jobs import Job, Task
from nsdbench.execution.submission import tasks_of
from nsdbench.pulse import Process, this_process
from nsdbench.store import read_json, write_json


def test_a_job_is_read_back_as_it_was_written(job: Job) -> None:
    assert jobs.read(job.folder) == job


def test_the_order_of_a_job_plans_the_same_cells(job: Job, dataset: Dataset, request_: RunRequest) -> None:
    again = plan(dataset, jobs.read(job.folder).order.request)
    assert again == plan(dataset, request_)


def test_jobs_are_numbered_upwards_whatever_is_deleted(
    job: Job, dataset: Dataset, request_: RunRequest
) -> None:
    order = job.order
    second = jobs.create("here", order, ())
    third = jobs.create("here", order, ())
    (second.folder / "job.json").unlink()
    assert [job.name, second.name, third.name] == ["1", "2", "3"]
    assert [found.name for found in jobs.all_of(request_.out)] == ["3", "1"]
    assert jobs.create("here", order, ()).name == "4"


def test_stages_wait_for_each_other_and_a_fit_serves_both_splits(job: Job) -> None:
    kinds = [task.stage for task in job.tasks]
    assert kinds == ["fit"] * 4 + ["reconstruct"] * 8 + ["score"] * 8 + ["publish"]
    fits = [task.cells for task in job.tasks if task.stage == "fit"]
    assert fits == [(0, 1), (2, 3), (4, 5), (6, 7)]
    for place, task in enumerate(job.tasks):
        assert all(earlier < place for earlier in task.after)
        if task.stage == "reconstruct":
            assert [set(job.tasks[i].cells) >= set(task.cells) for i in task.after] == [True]
        if task.stage == "score":
            assert [job.tasks[i].stage for i in task.after] == ["reconstruct"]
    assert {job.tasks[i].stage for i in job.tasks[-1].after} == {"score"}
    assert job.tasks[-1].cells == tuple(range(8))


def test_stages_whose_files_are_there_are_left_out(dataset: Dataset, request_: RunRequest) -> None:
    cells = plan(dataset, replace(request_, models=("ridge",), subjects=(1,)))
    cells[0].fit_folder.mkdir(parents=True)
    cells[1].folder.mkdir(parents=True)
    (cells[1].folder / "reconstructions.h5").touch()
    assert tasks_of(cells, (0, 1)) == (
        Task("reconstruct", (0,)),
        Task("score", (0,), (0,)),
        Task("score", (1,)),
        Task("publish", (0, 1), (1, 2)),
    )


def test_handles_and_cancelled_cells_add_up(job: Job) -> None:
    job.add_handles({0: "7_0"})
    job.add_handles({3: "8"})
    job.add_cancelled({2})
    job.add_cancelled({5, 2})
    again = jobs.read(job.folder)
    assert again.handles() == {0: "7_0", 3: "8"}
    assert again.cancelled() == {2, 5}


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"schema": "job/1"}', '{"schema": "job/2"}'])
def test_a_damaged_job_is_an_error_by_name_and_left_out_of_the_list(job: Job, damage: str) -> None:
    (job.folder / "job.json").write_text(damage)
    with pytest.raises(DataError, match="job"):
        jobs.read(job.folder)
    assert list(jobs.all_of(job.runs)) == []


def test_a_foreign_type_in_the_order_is_an_error_by_name(job: Job) -> None:
    document = read_json(job.folder / "job.json")
    document["order"]["request"]["scoring"] = 3
    write_json(job.folder / "job.json", document)
    with pytest.raises(DataError, match="order"):
        jobs.read(job.folder)


def test_the_data_set_of_an_order_must_not_have_changed(job: Job) -> None:
    with pytest.raises(DataError, match="has changed"):
        replace(job.order, dataset_hash="0").dataset()


def test_a_process_is_alive_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = pulse.process_of(child.pid)
    assert process.alive and this_process().alive
    assert not replace(process, started=process.started + 1).alive  # the number was given to another one
    assert not replace(process, host="elsewhere").alive
    child.communicate()
    assert not process.alive


def test_a_zombie_is_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    process = pulse.process_of(pid)
    while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        pass
    assert not process.alive
    os.waitpid(pid, 0)


class _Spy:
    """A progress that looks at the sign of life in the middle of a loop."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def track(self, items, label, total=None):  # type: ignore[no-untyped-def]
        yield from items


def test_a_pulse_tells_the_loop_and_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    monkeypatch.setattr(pulse, "BEAT_S", 0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    steps = set()
    with pulse.beating(path, "fit", _Spy(path)) as progress:
        for _ in progress.track(range(3), "outer"):
            for _ in progress.track("ab", "inner"):
                before = path.stat().st_mtime_ns
                while path.stat().st_mtime_ns == before:
                    pass
                found = pulse.read(path)
                assert found and found.beating and found.gpus == "3" and found.process == this_process()
                steps.add(found.step)
    assert steps == {"inner 0/2", "inner 1/2"}
    ended = pulse.read(path)
    assert ended and ended.ended and not ended.beating and ended.error is None


def test_a_pulse_keeps_the_error_that_the_stage_was_left_with(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with pytest.raises(ValueError, match="no"), pulse.beating(path, "score", _Spy(path)):
        raise ValueError("no")
    found = pulse.read(path)
    assert found and found.error == "ValueError: no"


def test_a_disk_that_takes_no_pulse_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pulse.beating(tmp_path / "file" / "status.json", "fit", _Spy(tmp_path)):
        pass
    assert pulse.read(tmp_path / "file" / "status.json") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"stage": 1, "process": {"host": "a", "pid": "1", "started": 0}, "gpus": "", "elapsed_s": 1}',
    ],
)
def test_an_unreadable_pulse_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    assert pulse.read(tmp_path / "status.json") is None


@pytest.mark.parametrize("pid", [-1, 0, 2**40])
def test_what_is_no_number_of_a_process_is_not_alive(pid: int) -> None:
    assert not Process(this_process().host, pid, 0).alive
