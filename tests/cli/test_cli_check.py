"""``nsdbench check`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from nsdbench import leaderboard
from nsdbench.cli import app
from nsdbench.cli.output import explain
from nsdbench.errors import LeaderboardError, UsageError

BASELINE = Path(__file__).resolve().parent.parent / "fixtures" / "scores-1.parquet"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments, "--baseline", str(BASELINE)], catch_exceptions=False)


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    """The baseline with one target ruined."""
    rows: list[dict[str, Any]] = leaderboard.read_items(BASELINE).to_pylist()
    for row in rows:
        row["value"] -= 0.2 if row["stimulus"] == "A2" else 0.1
    path = tmp_path / "worse.parquet"
    leaderboard.write_items(path, pa.Table.from_pylist(rows))
    return path


def test_a_file_passes_against_itself() -> None:
    result = run(str(BASELINE))
    assert result.exit_code == 0
    assert result.stdout == "ok: 48 item scores compared in 2 cells\n"


def test_a_regression_exits_with_1_and_lists_the_worst_items(worse: Path) -> None:
    result = run(str(worse))
    assert result.exit_code == 1
    first, second, third, *_, last = result.stdout.splitlines()
    assert first == "FAILED sim ridge-mini imagery"
    assert second.startswith(
        "  pixcorr (nsdbench-v1): worse by .108 (95 % sure of at least .100, tolerated .010; p < "
    )
    assert third.startswith("    most: subject 1: A2 .375 -> .175, ")
    assert (
        last
        == "FAILED: 2 failure(s) in 1 result(s), first ridge-mini imagery; 48 item scores compared in 2 cells"
    )


def test_json_is_one_document(worse: Path) -> None:
    result = run(str(worse), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (set(document), document["ok"], document["compared"]) == (
        {"ok", "failures", "compared", "moved", "notes"},
        False,
        48,
    )
    assert document["failures"][0]["worst"][0]["stimulus"] == "A2"


def test_the_summary_is_appended_and_an_unset_variable_asks_for_none(worse: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    assert run(str(worse), "--summary", str(summary), "--json").exit_code == 1
    assert run(str(BASELINE), "--summary", str(summary)).exit_code == 0
    lines = summary.read_text().splitlines()
    assert lines[0] == "before"
    assert [line.split()[0] for line in lines if line.startswith("**")] == ["**FAILED:", "**ok:"]
    assert run(str(BASELINE), "--summary", "").exit_code == 0


def test_tolerances_are_given_per_metric(worse: Path) -> None:
    assert run(str(worse), "--tolerance", "pixcorr=0.3", "--tolerance", "alexnet2=0.3").exit_code == 0


@pytest.mark.parametrize("text", ["pixcorr", "pixcorr=much", "pixcorr=-1", "pixcorr=nan"])
def test_a_malformed_tolerance_is_misuse(text: str) -> None:
    with pytest.raises(UsageError, match="METRIC=LOSS"):
        run(str(BASELINE), "--tolerance", text)


def test_update_writes_a_baseline_that_passes_and_keeps_the_old_one_if_there_is_nothing(
    worse: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "new_baseline.parquet"
    runner = CliRunner()
    updated = runner.invoke(app, ["check", str(worse), "--baseline", str(saved), "--update"])
    assert updated.exit_code == 0 and "48 item scores" in updated.stdout
    checked = runner.invoke(app, ["check", str(worse), "--baseline", str(saved), "--exact"])
    assert checked.exit_code == 0
    content = saved.read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LeaderboardError, match="no item scores"):
        runner.invoke(
            app,
            ["check", str(tmp_path / "empty"), "--baseline", str(saved), "--update"],
            catch_exceptions=False,
        )
    assert saved.read_bytes() == content


def test_a_baseline_is_no_folder_and_nothing_is_left_in_or_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        CliRunner().invoke(
            app, ["check", str(BASELINE), "--baseline", str(folder), "--update"], catch_exceptions=False
        )
    assert list(tmp_path.rglob("*")) == [folder]


def test_a_tolerance_for_an_unknown_metric_says_which_ones_there_are() -> None:
    with pytest.raises(UsageError, match="'astrology'") as caught:
        run(str(BASELINE), "--tolerance", "astrology=1")
    assert "pixcorr" in caught.value.remedy


def test_a_failed_write_of_a_library_is_explained_like_any_other() -> None:
    """pyarrow's errors have a number, but no name of a file."""
    kind, message, remedy = explain(PermissionError(13, "Failed to open local file 'b.parquet'"))
    assert (kind, message) == ("PermissionError", "Failed to open local file 'b.parquet'")
    assert "permissions" in remedy
