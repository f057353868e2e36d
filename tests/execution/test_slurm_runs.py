"""Whole benchmarks as array jobs on a real Slurm with two GPUs that are none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import SlurmCluster

from nsdbench import leaderboard
from nsdbench.execution import states
from nsdbench.execution.states import CellState

pytestmark = pytest.mark.xdist_group("slurm")
CLUSTER = 'gpus = 1\ncpus = 1\nmemory = "1500MB"\ntime = 50\nsetup = ["export OMP_NUM_THREADS=1"]\n'
MINIS = "mindeye1,mindeye2,brain_diffuser,takagi,icnn"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def nsdbench(tiny_root: Path, sim_cache: Path, tmp_path: Path) -> Run:
    """The command, in a folder of its own with a cluster file."""
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    data = ["--data-dir", str(tiny_root), "--cache", str(sim_cache), "--device", "cpu"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = [*arguments, *(data if arguments[0] == "run" else [])]
        return subprocess.run(
            [sys.executable, "-m", "nsdbench", *given],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    return run


def board(runs: Path) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard without what no two runs have in common."""
    return leaderboard.read(runs / "leaderboard").drop_columns(["created_at"]).to_pylist()


def sabotage(folder: Path) -> Path:
    """Put a folder where a cell will want to write its reconstructions."""
    obstacle = folder / "reconstructions.h5"
    (obstacle / "occupied").mkdir(parents=True)
    return obstacle


def planned(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("run", *arguments, "--plan", "--json").stdout)["cells"]
    return found


def by_cell(found: list[CellState] | tuple[CellState, ...]) -> dict[tuple[str, int, str], str]:
    return {(cell.key.model, cell.key.subject, cell.key.split): cell.state for cell in found}


def test_a_failing_cell_fails_alone_and_the_rest_ends_on_the_same_leaderboard(
    slurm: SlurmCluster, nsdbench: Run, tmp_path: Path
) -> None:
    request = [
        "--model",
        "ridge,mean_image",
        "--split",
        "vision",
        "--subject",
        "1,7",
        "--metrics",
        "pixcorr,pixel_2way",
    ]
    on_slurm = [*request, "--out", "slurm", "--executor", "slurm", "--cluster", "cluster.toml"]
    bad = next(
        cell for cell in planned(nsdbench, *on_slurm) if (cell["model"], cell["subject"]) == ("ridge", 7)
    )
    obstacle = sabotage(tmp_path / bad["folder"])

    first = nsdbench("run", *on_slurm, "--wait")
    assert first.returncode == 2, first.stderr
    assert "1 of 4 cells are not complete; ridge subj07 vision: failed" in first.stderr
    found = states.survey(tmp_path / "slurm")
    assert [cell.key.model for cell in found if cell.state != "complete"] == ["ridge"]
    assert {row["model"] for row in board(tmp_path / "slurm")} == {"ridge", "mean_image"}

    (obstacle / "occupied").rmdir()
    obstacle.rmdir()
    second = nsdbench("run", *on_slurm, "--wait", "--json")
    assert second.returncode == 0, second.stderr
    assert (
        "job 2: 3 tasks are with Slurm" in second.stderr
    )  # reconstruct and score one cell, and the leaderboard
    nsdbench("run", *request, "--out", "here")
    assert board(tmp_path / "slurm") == board(tmp_path / "here")


@pytest.mark.slow
def test_five_decoders_cancelled_killed_and_resumed_end_where_the_local_executor_does(
    slurm: SlurmCluster, nsdbench: Run, tmp_path: Path
) -> None:
    request = ["--model", MINIS, "--split", "both", "--subject", "1,7", "--samples", "1"]
    on_slurm = [*request, "--out", "slurm", "--executor", "slurm", "--cluster", "cluster.toml"]
    bad = next(
        c
        for c in planned(nsdbench, *on_slurm)
        if (c["model"], c["subject"], c["split"]) == ("takagi", 7, "imagery")
    )
    obstacle = sabotage(tmp_path / bad["folder"])
    runs = tmp_path / "slurm"
    assert nsdbench("run", *on_slurm).returncode == 0
    cancelled = nsdbench("cancel", "slurm", "--model", "icnn", "--subject", "7")
    assert "job 1: 2 cells cancelled" in cancelled.stderr

    killed: list[CellState] = []

    def look() -> bool:
        """Watch who has which GPU, and kill the first reconstruction that is seen."""
        found = states.survey(runs)
        at_work = [cell for cell in found if cell.state == "running" and cell.gpus]
        tasks = {
            (cell.key.model, cell.key.subject, cell.stage if cell.stage == "fit" else cell.key.split)
            for cell in at_work
        }
        assert len({cell.gpus for cell in at_work}) == len(tasks) <= 2
        if not killed and (victim := next((c for c in at_work if c.stage == "reconstruct"), None)):
            pulse = states.pulse.read(victim.folder / "status.json")
            if pulse and pulse.beating:
                os.kill(pulse.process.pid, signal.SIGKILL)
                killed.append(victim)
        return not any(cell.pending for cell in found)

    slurm.wait_until(look, patience=3000)
    slurm.wait_until_empty()
    ends = by_cell(states.survey(runs))
    lost = (killed[0].key.model, killed[0].key.subject, killed[0].key.split)
    expected = {
        ("takagi", 7, "imagery"): "failed",
        ("icnn", 7, "vision"): "cancelled",
        ("icnn", 7, "imagery"): "cancelled",
    }
    assert ends == dict.fromkeys(ends, "complete") | {lost: "lost"} | expected

    (obstacle / "occupied").rmdir()
    obstacle.rmdir()
    again = nsdbench("run", *on_slurm, "--wait")
    assert again.returncode == 0, again.stderr
    assert "20 cells (16 reused)" in again.stderr
    assert set(by_cell(states.survey(runs)).values()) == {"complete"}
    assert nsdbench("run", *request, "--out", "local", "--workers", "2").returncode == 0
    assert board(runs) == board(tmp_path / "local")
