"""Any number of processes may write one leaderboard at once; nobody ever reads anything but whole files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import crowd
import numpy as np
import pyarrow as pa
import pytest

from nsdbench import leaderboard
from nsdbench.schema import ITEMS, Provenance

ORIGIN = Provenance("simulated", "stimuli", "dataset", created_at="2026-01-01T00:00:00+00:00")
WRITERS = 16


def _source(folder: Path, n_runs: int) -> Path:
    """Write the leaderboard files of some runs, one after the other."""
    for run in range(n_runs):
        rows = [
            {
                "run_id": f"run{run}", "dataset": "sim", "model": f"model{run}", "preset": "mini", "subject": 1,
                "split": "imagery", "stimulus_set": target[0], "stimulus": target, "sample": 0, "metric": "pixcorr",
                "metric_version": 1, "metric_profile": "nsdbench-v1", "pool": "none", "value": value, "floor": 0.0,
                "reason": None,
            }
            for target, value in zip(("A1", "A2", "B1", "B2"), np.linspace(0, 1 / (run + 1), 4), strict=True)
        ]  # fmt: skip
        leaderboard.append(folder, leaderboard.summarize(pa.Table.from_pylist(rows, schema=ITEMS), ORIGIN))
    return folder


def _crowd(tmp_path: Path, n_runs: int, rounds: int) -> dict[str, Any]:
    source, board = _source(tmp_path / "source", n_runs), tmp_path / "board"
    words = [sys.executable, crowd.__file__, str(source), str(board), str(WRITERS), str(rounds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert {f.name: f.read_bytes() for f in board.iterdir()} == {
        f.name: f.read_bytes() for f in source.iterdir()
    }
    found: dict[str, Any] = json.loads(done.stdout)
    writes = n_runs * rounds * WRITERS
    print(
        f"\n{WRITERS} writers: {writes} writes of {n_runs} files, "
        f"{sum(found['reads'])} readings meanwhile, {sum(map(len, found['faults']))} faults"
    )
    return found


def test_sixteen_writers_of_one_leaderboard_leave_what_one_would_and_nobody_reads_half_a_file(
    tmp_path: Path,
) -> None:
    found = _crowd(tmp_path, n_runs=3, rounds=1)
    assert found["failed"] == [] and found["faults"] == [[], []]


@pytest.mark.slow
def test_sixteen_writers_of_a_large_leaderboard_do_not_disturb_each_other(tmp_path: Path) -> None:
    found = _crowd(tmp_path, n_runs=40, rounds=3)
    assert found["failed"] == [] and found["faults"] == [[], []]
    assert found["files"] == [40, 40] and min(found["reads"]) > 10
