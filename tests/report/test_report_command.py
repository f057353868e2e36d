"""``nsdbench report`` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsdbench.cli import app
from nsdbench.errors import UsageError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_page_is_named_in_one_line(runs: Path, tmp_path: Path) -> None:
    assert run(str(runs), "--out", str(tmp_path / "page")) == f"{tmp_path / 'page' / 'index.html'}\n"


def test_json_names_page_size_models_and_notes(runs: Path, tmp_path: Path) -> None:
    document = json.loads(run(str(runs), "--out", str(tmp_path), "--json", "--no-stimuli"))
    page = tmp_path / "index.html"
    assert document["page"] == str(page)
    assert document["bytes"] == page.stat().st_size
    assert document["models"] == ["icnn", "random_image", "ridge"]
    assert "Target images left out (--no-stimuli)." in document["notes"]


def test_options_reach_the_gallery(runs: Path, tmp_path: Path) -> None:
    options = ("--gallery-targets", "2", "--gallery-samples", "1", "--gallery-subject", "2")
    run(str(runs), "--out", str(tmp_path), *options)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == 2 * 3 * 2  # targets x models x splits; the targets themselves are missing
    assert "Subject 2; --gallery-subject shows others: 1." in page


def test_nothing_to_report_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="nothing to report"):
        run("--out", str(tmp_path / "page"))


def test_a_damaged_run_ends_with_exit_code_2_and_one_sentence(damaged: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nsdbench", "report", str(damaged), "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["error"]["kind"] == "ReconstructionError"
    assert "Traceback" not in done.stderr and not done.stdout


def test_writing_a_page_needs_neither_torch_nor_the_global_state_of_pyplot(
    runs: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
from pathlib import Path
from nsdbench import report
report.write([Path({str(runs)!r})], Path({str(tmp_path)!r}))
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "matplotlib.pyplot"} & set(done.stdout.split())
