"""The CI job of docs/regression-check.md works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nsdbench.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
SUMMARY = "GITHUB_STEP_SUMMARY"


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def steps() -> list[dict[str, Any]]:
    (block,) = code("regression-check.md", "yaml")
    (job,) = yaml.safe_load(block)["jobs"].values()
    return list(job["steps"])


def commands() -> list[list[str]]:
    """Return the words of every ``nsdbench`` command of the job, in order."""
    scripts = [step["run"] for step in steps() if step.get("run", "").startswith("nsdbench ")]
    return [shlex.split(script) for script in scripts]


def written() -> list[list[str]]:
    """Return the words of the commands in the shell blocks and in the text of the page."""
    lines = "".join(code("regression-check.md", "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def environment(folder: Path) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith("NSDBENCH")}
    return found | {SUMMARY: str(folder / "summary.md"), "MPLBACKEND": "agg"}


def bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script like a step of the job does; -P keeps the folder off the path, like the installed command."""
    command = f'nsdbench() {{ {shlex.quote(sys.executable)} -P -m nsdbench "$@"; }}\n{script}'
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [*commands(), *written()], ids=" ".join)
def test_the_command_line_knows_every_documented_command(words: list[str]) -> None:
    program, verb, *arguments = words
    assert program == "nsdbench"
    group = typer.main.get_command(app)
    group.commands[verb].make_context(verb, arguments)  # raises for options that do not exist


def test_the_job_installs_decodes_checks_and_uploads_the_page() -> None:
    assert [words[1] for words in commands()] == ["run", "check", "report"]
    assert any("pip install" in step.get("run", "") for step in steps())
    (upload,) = (step for step in steps() if "upload-artifact" in step.get("uses", ""))
    assert upload["with"]["path"] == commands()[-1][-1]
    assert upload["if"] == "always()"


@pytest.mark.slow
def test_the_job_passes_with_its_own_baseline_and_fails_without_a_model(tmp_path: Path) -> None:
    (example,) = (block for block in code("adapters.md", "python") if block.startswith("# my_decoder.py\n"))
    (tmp_path / "my_decoder.py").write_text(example)
    decode, check, report = (step["run"] for step in steps() if step.get("run", "").startswith("nsdbench "))
    done = bash(f"{decode}\n{check.split(' --summary')[0]} --update", tmp_path)
    assert done.returncode == 0, done.stderr
    done = bash(f"{check}\n{report}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ok: " in done.stdout
    assert (tmp_path / "summary.md").read_text().startswith("## nsdbench check\n\n**ok: ")
    assert (tmp_path / commands()[-1][-1] / "index.html").is_file()
    other = decode.replace("my_decoder:NearestImage", "mean_image").replace("--out runs", "--out other")
    done = bash(f"{other}\n{check.replace('check runs', 'check other')}", tmp_path)
    assert done.returncode == 1
    assert "FAILED sim nearest_image-standard " in done.stdout
    assert "**FAILED: " in (tmp_path / "summary.md").read_text()
