"""``nsdbench run --plan`` as people and scripts read it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from nsdbench.cli import main


@pytest.fixture
def tiny(tiny_root: Path, sim_cache: Path, tmp_path: Path) -> list[str]:
    return [
        "--data-dir",
        str(tiny_root),
        "--cache",
        str(sim_cache),
        "--out",
        str(tmp_path / "runs"),
        "--device",
        "cpu",
    ]


def plan(*args: str) -> str:
    """Return what the command prints."""
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["nsdbench", "run", "--plan", *args]),
        contextlib.redirect_stdout(out),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert end.value.code == 0
    return out.getvalue()


def document(*args: str) -> Any:
    return json.loads(plan(*args, "--json"))


def test_the_table_of_all_models_fits_a_screen_and_ends_with_totals(tiny: list[str]) -> None:
    lines = plan("--model", "all", "--split", "all", "--subject", "1", *tiny).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["cell", "subject", "split", "state", "reuses", "writes", "memory", "time"]
    assert "24 cells, 0 complete, 24 to run." in lines
    assert "estimated from counted operations, not measured" in " ".join(lines)


def test_totals_are_the_sums_of_the_stages_and_peaks_are_maxima(tiny: list[str]) -> None:
    found = document("--model", "takagi,icnn", "--subject", "1,7", *tiny)
    stages = [stage for cell in found["cells"] for stage in cell["stages"].values()]
    assert found["totals"]["bytes"] == sum(stage["bytes"] for stage in stages)
    assert found["totals"]["host_bytes"] == max(cell["host_bytes"] for cell in found["cells"])
    assert sum(found["totals"]["seconds"].values()) == pytest.approx(
        sum(cell["seconds"] for cell in found["cells"])
    )
    assert [cell["reused"] for cell in found["cells"]] == [[], ["fit of vision"]] * 4


def test_a_model_that_nobody_counted_has_question_marks_and_nulls(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsdbench.estimates.costs_of", lambda *args: None)
    request = ("--model", "mean_image", "--split", "vision", "--subject", "1", *tiny)
    text = plan(*request)
    assert text.splitlines()[1].split()[-3:] == ["?", "?", "?"]
    assert "not counted, and missing in the totals: mean_image" in text
    cell = document(*request)["cells"][0]
    assert cell["seconds"] is None
    assert cell["stages"]["fit"]["bytes"] is None
    assert document(*request)["totals"]["not_counted"] == ["mean_image"]


def test_a_plan_for_a_cluster_needs_none_and_shows_memory_of_gpus(tiny: list[str]) -> None:
    request = ("--model", "mindeye2", "--preset", "mini", "--subject", "1", *tiny)
    lines = plan(*request, "--executor", "slurm", "--device", "auto").splitlines()
    assert "GPU" in lines[0].split()
    assert "on the GPU" in " ".join(lines)
