"""``run --workers``, ``status`` and ``cancel`` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsdbench import leaderboard
from nsdbench.cli import app, executors
from nsdbench.cli.status import Watch
from nsdbench.execution import slots
from nsdbench.execution.states import CellState
from nsdbench.schema import RunKey

CELL = CellState(RunKey("r", "sim", "ridge", "standard", 1, "vision"), Path("runs/r"), "1", "queued", "fit")


@pytest.fixture
def options(tiny_root: Path, sim_cache: Path) -> list[str]:
    return ["--data-dir", str(tiny_root), "--cache", str(sim_cache), "--metrics", "pixcorr", "--subject", "1"]


def nsdbench(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nsdbench", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_workers_end_on_the_leaderboard_of_one_process(tmp_path: Path, options: list[str]) -> None:
    request = ["run", "--model", "mean_image", "--split", "vision", *options]
    at_once = nsdbench(tmp_path, *request, "--out", "slots", "--workers", "2")
    in_turn = nsdbench(tmp_path, *request, "--out", "here")
    _, messages = at_once.communicate()
    assert (at_once.returncode, in_turn.wait()) == (0, 0), messages
    assert "mean_image-standard subj01 vision: complete" in messages
    boards = [
        leaderboard.read(tmp_path / runs / "leaderboard").drop_columns(["created_at"])
        for runs in ("slots", "here")
    ]
    assert boards[0].equals(boards[1])
    shown = CliRunner().invoke(app, ["status", str(tmp_path / "slots")])
    assert "mean_image-standard subj01 vision  complete" in shown.stdout
    document = json.loads(CliRunner().invoke(app, ["status", str(tmp_path / "here"), "--json"]).stdout)
    assert document["counts"] == {"complete": 1} and document["cells"][0]["job"] == "1"


def test_a_run_in_one_process_can_be_seen_and_cancelled(tmp_path: Path, options: list[str]) -> None:
    """Its decoder fits for ever, so that it is found at work."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    child = subprocess.Popen(
        [sys.executable, "-m", "nsdbench", "run", "--model", "slow_model:Slow", "--split", "vision", *options],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    runs = tmp_path / "runs"
    deadline = time.monotonic() + 120
    while not list(runs.glob("*/*/subj01/fit/*.status.json")):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.05)
    shown = CliRunner().invoke(app, ["status", str(runs)])
    assert "slow-standard subj01 vision  running  fit" in shown.stdout
    part = CliRunner().invoke(app, ["cancel", str(runs), "--model", "ridge"])
    assert part.exit_code == 0 and child.poll() is None
    CliRunner().invoke(app, ["cancel", str(runs)])
    assert child.wait(60) == 128 + signal.SIGINT
    assert "cancelled" in CliRunner().invoke(app, ["status", str(runs)]).stdout


def test_nothing_to_cancel_is_said(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["cancel", str(tmp_path)])
    assert outcome.exit_code == 0 and "nothing that was asked for" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "cloud"], "no executor 'cloud'"),
        (["--executor", "slurm", "--workers", "2"], "--workers is for"),
        (["--cluster", "x.toml"], "--cluster is for"),
    ],
)
def test_options_that_contradict_each_other_are_misuse(arguments: list[str], message: str) -> None:
    from nsdbench.errors import UsageError

    with pytest.raises(UsageError, match=message):
        app(["run", "--model", "ridge", *arguments], standalone_mode=False)


def test_a_missing_folder_of_runs_is_misuse(tmp_path: Path) -> None:
    from nsdbench.errors import UsageError

    for verb in ("status", "cancel"):
        with pytest.raises(UsageError, match="no folder of runs"):
            app([verb, str(tmp_path / "none")], standalone_mode=False)


def test_away_from_a_terminal_every_change_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsdbench.cli.status.PAUSE_S", 0.0)
    running = replace(CELL, state="running")
    failed = replace(CELL, state="failed", line="no \x1b[31mroom\nleft")
    seen = iter([[CELL], [running], [running], [failed]])
    watch = Watch(lambda: next(seen))
    assert [watch.tick() for _ in range(4)] == [True, True, True, False]
    assert capsys.readouterr().err.splitlines() == [
        "ridge-standard subj01 vision: running fit",
        r"ridge-standard subj01 vision: failed fit: no \x1b[31mroom left",
    ]


def test_a_scheduler_that_is_silent_for_a_while_ends_no_watch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nsdbench.errors import ExecutionError

    monkeypatch.setattr("nsdbench.cli.status.PAUSE_S", 0.0)
    answers = iter([[CELL], ExecutionError("squeue gives no answer"), [replace(CELL, state="complete")]])

    def states() -> list[CellState]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = Watch(states)
    assert [watch.tick() for _ in range(3)] == [True, True, False]
    assert "squeue gives no answer" in capsys.readouterr().err


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> slots.Slot:
    monkeypatch.setattr(slots.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(slots, "gpu_of", lambda device: "0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return slots.Slot("0")


def test_a_run_waits_for_a_gpu_that_another_process_has(
    one_gpu: slots.Slot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    with one_gpu.lease() as held:

        def give_up(seconds: float) -> None:
            waits.append(seconds)
            os.close(held)  # type: ignore[arg-type]

        monkeypatch.setattr(executors.time, "sleep", give_up)
        with executors._own_gpu("cuda"):
            assert waits
        os.dup2(os.open(os.devnull, os.O_RDONLY), held)  # type: ignore[arg-type]
    assert capsys.readouterr().err.count("waiting for GPU 0") == 1


def test_on_a_cluster_gpus_are_the_business_of_slurm(
    one_gpu: slots.Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    done = threading.Event()
    with one_gpu.lease(), executors._own_gpu("cuda"):
        done.set()
    assert done.is_set()
