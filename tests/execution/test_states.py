"""What becomes of cells: the run folder is believed, executors are only asked what they still have."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nsdbench import pulse
from nsdbench.errors import ExecutionError
from nsdbench.execution import cancelling, jobs, slurm, states
from nsdbench.execution.jobs import Job
from nsdbench.execution.states import CellState, survey
from nsdbench.manifest import RunManifest
from nsdbench.pulse import Process, Pulse, this_process
from nsdbench.schema import Provenance
from nsdbench.store import read_json, write_json

ORIGIN = Provenance(
    status="simulated", stimulus_hash="s", dataset_hash="d", beta_version="b3", normalization="run_z", averaging="mean",
    label_source="condition", nsdbench_version="1", git_commit=None, created_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


def settle(job: Job, place: int, status: str, **further: object) -> None:
    """Write the run folder of a cell as a run with that end leaves it."""
    cell = job.cells[place]
    manifest = RunManifest(cell.key, status, ORIGIN, {}, environment={"host": "node1"}, **further)  # type: ignore[arg-type]
    manifest.write(job.runs / cell.folder)


def of(job: Job) -> list[CellState]:
    return list(states.of_cells(job, range(len(job.cells))).values())


def rewritten(job: Job, **changes: object) -> Job:
    document = read_json(job.folder / "job.json")
    write_json(job.folder / "job.json", document | changes)
    return jobs.read(job.folder)


@pytest.fixture
def dead() -> Process:
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = pulse.process_of(child.pid)
    child.wait()
    return process


def test_cells_whose_process_is_gone_are_lost_unless_their_folder_says_more(job: Job, dead: Process) -> None:
    job = rewritten(job, process=asdict(dead))
    settle(job, 0, "complete", timings={"fit": 60.0, "reconstruct": 5.5})
    settle(job, 1, "failed", error="DataError: a beta is missing")
    settle(job, 2, "started")
    found = of(job)
    assert [cell.state for cell in found] == ["complete", "failed", *["lost"] * 6]
    assert (found[0].elapsed_s, found[0].host) == (65.5, "node1")
    assert found[1].line == "DataError: a beta is missing"
    assert not any(cell.pending for cell in found)


def test_tasks_nobody_began_are_queued_while_the_pool_lives(job: Job) -> None:
    job.add_handles({0: json.dumps(asdict(this_process()))})
    found = of(job)
    assert [(cell.state, cell.stage) for cell in found[:3]] == [
        ("running", "fit"),
        ("running", "fit"),
        ("queued", "fit"),
    ]


def test_a_running_cell_tells_where_how_long_and_how_far(job: Job) -> None:
    job.add_handles({task: json.dumps(asdict(this_process())) for task in (4, 5)})
    cells = [job.runs / cell.folder for cell in job.cells]
    beat = Pulse("reconstruct", Process("node7", 12, 34), "1", 61.5, "diffusion 3/12")
    write_json(cells[0] / pulse.FILE, asdict(beat))
    write_json(cells[1] / pulse.FILE, asdict(replace(beat, stage="score")))  # of an earlier run: says nothing
    job.log(5).write_text("begins\nreads betas\n\n")
    first, second = of(job)[:2]
    assert (first.state, first.stage, first.elapsed_s, first.host, first.gpus, first.line) == (
        "running", "reconstruct", 61.5, "node7", "1", "diffusion 3/12",
    )  # fmt: skip
    assert (second.state, second.elapsed_s, second.line) == ("running", None, "reads betas")


def test_a_killed_cell_tells_what_was_last_heard_of_it(job: Job, dead: Process) -> None:
    job = rewritten(job, process=asdict(dead))
    write_json(
        job.runs / job.cells[0].folder / pulse.FILE, asdict(Pulse("score", dead, "", 3.0, "scoring 1/2"))
    )
    job.log(4).write_text("reconstructed\n")
    job.log(12).write_text("Killed\n")
    found = of(job)[0]
    assert (found.state, found.stage, found.host, found.line) == ("lost", "score", dead.host, "Killed")


def test_cancelled_cells_are_called_so_unless_they_had_ended(job: Job, dead: Process) -> None:
    job = rewritten(job, process=asdict(dead))
    settle(job, 0, "complete")
    job.add_cancelled({0, 1})
    assert [cell.state for cell in of(job)[:3]] == ["complete", "cancelled", "lost"]


def test_the_newest_job_of_a_cell_counts(job: Job, dead: Process) -> None:
    again = rewritten(job, process=asdict(dead))
    newer = job.runs / jobs.JOBS / "2"
    (newer / "log").mkdir(parents=True)
    document = read_json(again.folder / "job.json")
    document |= {
        "process": asdict(this_process()),
        "cells": document["cells"][:1],
        "tasks": document["tasks"][:1],
    }
    write_json(newer / "job.json", document)
    found = {cell.folder: cell for cell in survey(job.runs)}
    first, second = (found[job.runs / cell.folder] for cell in job.cells[:2])
    assert (first.job, first.state) == ("2", "queued")
    assert (second.job, second.state) == ("1", "lost")


def test_runs_without_a_job_on_record_are_there_too(job: Job) -> None:
    settle(job, 0, "complete")
    settle(job, 1, "started")
    (job.folder / "job.json").unlink()
    assert [(cell.job, cell.state) for cell in survey(job.runs)] == [("", "lost"), ("", "complete")]


def test_a_process_that_takes_cells_in_turn_shows_the_one_it_is_at(job: Job) -> None:
    job = rewritten(job, executor="here", tasks=[])
    fit = job.runs / job.cells[0].fit_folder
    write_json(
        fit.with_name(f"{fit.name}.{pulse.FILE}"), asdict(Pulse("fit", this_process(), "", 2.0, "epochs 1/9"))
    )
    found = of(job)
    assert [(cell.state, cell.stage) for cell in found] == [("running", "fit")] * 2 + [("queued", "fit")] * 6
    assert found[0].line == "epochs 1/9"


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Programs that print what files say and note how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "scancel", "sbatch"):
        program = folder / name
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{name}.calls\ncat {folder}/{name}.out 2>/dev/null\n'
            f"if [ -f {folder}/{name}.err ]; then cat {folder}/{name}.err >&2; exit 1; fi\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield folder


def test_slurm_is_believed_about_what_it_has_and_about_nothing_else(
    job: Job, dead: Process, fake_slurm: Path
) -> None:
    job = rewritten(job, executor="slurm", process=asdict(dead))
    job.add_handles({task: f"7_{task}" for task in range(4)} | {4: "8_0", 5: "8_1"})
    (fake_slurm / "squeue.out").write_text(
        "7_1|RUNNING\n7_2|PENDING\n7_3|CONFIGURING\n8_0|PENDING\n9_1|RUNNING\n8_1|COMPLETING\n"
    )
    settle(job, 1, "complete")
    found = of(job)
    assert [cell.state for cell in found] == [
        "queued", "complete", "running", "running", "queued", "queued", "queued", "queued",
    ]  # fmt: skip
    assert [cell.stage for cell in found[:3]] == ["reconstruct", "", "fit"]
    (fake_slurm / "squeue.out").write_text("")
    assert {cell.state for cell in of(job)} == {"complete", "lost"}


def test_a_slurm_that_does_not_answer_loses_nothing(job: Job, dead: Process, fake_slurm: Path) -> None:
    job = rewritten(job, executor="slurm", process=asdict(dead))
    (fake_slurm / "squeue.err").write_text("slurm_load_jobs error: Unable to contact slurm controller\n")
    with pytest.raises(ExecutionError, match="Unable to contact slurm controller"):
        survey(job.runs)
    for place in range(8):
        settle(job, place, "complete")
    assert {cell.state for cell in survey(job.runs)} == {"complete"}  # needs no Slurm


def test_a_complete_cell_to_which_metrics_are_added_is_at_work(job: Job) -> None:
    settle(job, 0, "complete")
    settle(job, 1, "complete")
    document = read_json(job.folder / "job.json")
    job = rewritten(job, tasks=[{"stage": "score", "cells": [0], "after": []}], cells=document["cells"][:2])
    assert [(cell.state, cell.stage) for cell in of(job)] == [("queued", "score"), ("complete", "")]


def test_cells_of_another_machine_are_unknown_not_lost(job: Job) -> None:
    job = rewritten(job, process=asdict(Process("elsewhere", 1, 1)))
    settle(job, 0, "failed", error="x")
    assert [(cell.state, cell.host) for cell in of(job)[:2]] == [("failed", ""), ("unknown", "elsewhere")]


def test_only_tasks_that_no_wanted_cell_needs_are_cancelled(
    job: Job, dead: Process, fake_slurm: Path
) -> None:
    job = rewritten(job, executor="slurm", process=asdict(dead))
    job.add_handles({task: f"{1 + (task > 3) + (task > 11)}_{task}" for task in range(20)} | {20: "4"})
    (fake_slurm / "squeue.out").write_text("".join(f"{id_}|PENDING\n" for id_ in job.handles().values()))
    chosen = [cell for cell in survey(job.runs) if cell.key.subject == 1 and cell.key.split == "vision"]
    assert list(cancelling.cancel(job.runs, chosen)) == ["job 1: 2 cells cancelled"]
    places = [i for i, cell in enumerate(job.cells) if cell.key.subject == 1 and cell.key.split == "vision"]
    gone = {
        job.handles()[i]
        for i, task in enumerate(job.tasks)
        if task.cells[0] in places and len(task.cells) == 1
    }
    assert set((fake_slurm / "scancel.calls").read_text().split()) == gone
    assert job.cancelled() == set(places)


def test_slurm_without_its_programs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutionError, match="no Slurm here: sbatch was not found"):
        slurm.require()


def test_a_job_of_another_machine_cannot_be_cancelled_from_here(job: Job) -> None:
    job = rewritten(job, process=asdict(Process("elsewhere", 1, 1)))
    cell = dataclasses.replace(of(job)[0], state="running")
    with pytest.raises(ExecutionError, match="runs on elsewhere"):
        list(cancelling.cancel(job.runs, [cell]))


def test_one_process_cannot_drop_some_of_its_cells(job: Job) -> None:
    job = rewritten(job, executor="here", tasks=[])
    with pytest.raises(ExecutionError, match="one process"):
        list(cancelling.cancel(job.runs, of(job)[:1]))
