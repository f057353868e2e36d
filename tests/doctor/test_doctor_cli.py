"""``nsdbench doctor`` as a user types it."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer

from nsdbench.cli import app, main
from nsdbench.fetch import terms


def nsdbench(*args: str | Path, expect: int = 0) -> str:
    """Run a command as ``main`` does, in this process, and return what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["nsdbench", *map(str, args)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert end.value.code == expect, err.getvalue()
    return out.getvalue()


def document(*args: str | Path, expect: int = 0) -> dict[str, Any]:
    return dict(json.loads(nsdbench("doctor", "--json", *args, expect=expect)))


def parsed(command: str) -> dict[str, Any]:
    """Return the options of a command line after our own parser has accepted all of them."""
    group: Any = typer.main.get_command(app)
    program, *args = shlex.split(command)
    context = group.make_context(program, list(args))
    while hasattr(group, "resolve_command"):
        name, group, args = group.resolve_command(context, args)
        context = group.make_context(name, list(args), parent=context)
    return dict(context.params)


def test_every_command_it_prints_is_one_of_ours(tmp_path: Path) -> None:
    found = document("--split", "all", "--data-dir", tmp_path, "--weights-dir", tmp_path / "a shelf")
    commands = [command for row in found["models"] for command in row["commands"]]
    commands += found["first_row"]["commands"]
    assert len(commands) > 20
    for command in commands:
        options = parsed(command)
        verb = command.split()[1]
        if verb in ("data", "run"):
            assert Path(options["data_dir"]) == tmp_path
        if verb in ("weights", "run"):
            assert Path(options["weights_dir"]) == tmp_path / "a shelf"


def test_an_option_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--no-such"):
        parsed("nsdbench data fetch --no-such 1")


def test_its_command_for_data_fetches_what_it_calls_missing(tmp_path: Path) -> None:
    root = tmp_path / "nsd"
    root.mkdir()
    (row,) = document("--model", "takagi", "--subject", "2", "--data-dir", root)["models"]
    missing = {
        f["file"]
        for c in row["cells"]
        for gap in c["missing"]
        if gap["source"] == "data"
        for f in gap["files"]
    }
    fetch = shlex.split(row["commands"][0])[1:]
    plan = json.loads(nsdbench(*fetch, "--offline", "--json"))
    fetched = {
        f["file"]: f["optional"] for f in plan["files"] if f["bytes_to_fetch"] or f["state"] != "there"
    }
    assert missing <= fetched.keys()
    assert {file for file, optional in fetched.items() if not optional} <= missing


@pytest.mark.parametrize("preset", ["published", "retrained"])
def test_its_command_for_weights_fetches_what_it_calls_missing(tmp_path: Path, preset: str) -> None:
    (row,) = document(
        "--model", "mindeye2", "--subject", "1,7", "--preset", preset, "--weights-dir", tmp_path
    )["models"]
    missing = {
        f["file"]
        for c in row["cells"]
        for gap in c["missing"]
        if gap["source"] == "weights"
        for f in gap["files"]
    }
    command = shlex.split(row["commands"][1])[1:]
    listed = ["weights", "list", *command[2:], "--missing", "--json"]
    assert {entry["id"] for entry in json.loads(nsdbench(*listed))["weights"]} == missing


def test_what_is_missing_is_no_failure(tmp_path: Path) -> None:
    found = document("--weights-dir", tmp_path)
    assert found["ok"] and {row["state"] for row in found["models"]} == {"missing"}


def test_a_directory_that_is_not_there_is_one(tmp_path: Path) -> None:
    found = document("--data-dir", tmp_path / "nowhere", expect=1)
    assert [f["what"] for f in found["findings"] if f["state"] == "problem"] == ["NSD"]


def test_a_complete_data_set_is_ready(sound: Path) -> None:
    out = nsdbench("doctor", "--data-dir", sound, "--model", "ridge,mindeye2")
    assert "missing" not in out.split("model", 1)[1]
    assert out.count(" ready") >= 2


def test_the_environment_names_the_directory_and_commands_do_not_repeat_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSDBENCH_DATA", str(tmp_path))
    (row,) = document("--model", "ridge", "--subject", "1")["models"]
    assert "--data-dir" not in row["commands"][0]


def test_a_chosen_model_is_shown_with_commands_and_an_estimate_that_is_called_one(tmp_path: Path) -> None:
    out = nsdbench("doctor", "--model", "mindeye2", "--subject", "1", "--data-dir", tmp_path)
    assert "-> nsdbench data fetch --for imagery --subject 1" in out
    assert "-> nsdbench weights fetch --model mindeye2 --preset published --subject 1" in out
    assert "estimated from counted operations" in out
    assert "checkpoint of the subject: 1 file, about 8.9 GB: mindeye2-subj01-40sess" in out


def test_verbose_names_every_file(tmp_path: Path) -> None:
    few, all_ = (
        nsdbench("doctor", "--model", "ridge", "--subject", "1", "--data-dir", tmp_path, *more)
        for more in ((), ("-v",))
    )
    assert "betas_session40.hdf5" not in few and "and 37 more" in few
    assert "betas_session40.hdf5" in all_ and "more" not in all_


def test_without_data_it_shows_the_way_to_a_first_row() -> None:
    out = nsdbench("doctor", "--model", "ridge", "--subject", "1")
    assert "simulated data work now: nsdbench run --model ridge --dataset sim" in out
    assert "nsdbench run --dataset nsd --model ridge --split both --subject 1" in out


def test_access_is_shown_and_the_token_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {f["what"]: f for f in document("--model", "ridge")["findings"]}
    assert before["NSD terms"]["state"] == "missing" and "none" in before["hub token"]["finding"]
    terms.accept()
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("NSDBENCH_OFFLINE", "1")
    out = nsdbench("doctor", "--model", "ridge", "--json")
    after = {f["what"]: f for f in json.loads(out)["findings"]}
    assert after["NSD terms"]["state"] == "ok" and "offline" in after["network"]["finding"]
    assert after["hub token"]["finding"] == "present" and "secret" not in out


def test_a_read_only_cache_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with mock.patch("nsdbench.doctor.machine.is_writable", return_value=False):
        found = document("--model", "ridge", "--cache", tmp_path, expect=1)
    assert "cache" in [f["what"] for f in found["findings"] if f["state"] == "problem"]


def test_json_holds_every_cell_and_every_estimate(tmp_path: Path) -> None:
    found = document("--model", "ridge,icnn", "--split", "all", "--subject", "1,2", "--data-dir", tmp_path)
    cells = [(row["model"], c["split"], c["subject"]) for row in found["models"] for c in row["cells"]]
    assert len(cells) == len(set(cells)) == 2 * 3 * 2
    estimates = {e["model"]: e for e in found["estimates"]}
    assert estimates["icnn"]["device_bytes"] > estimates["ridge"]["device_bytes"] == 0
    assert all("not measured" in e["basis"] for e in estimates.values())
