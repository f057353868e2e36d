"""``nsdbench compare`` from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsdbench.cli import app
from nsdbench.errors import UsageError
from nsdbench.schema import LEADERBOARD

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "leaderboard-1.parquet"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_holds_the_leaderboard_columns_and_notes() -> None:
    document = json.loads(run(str(FIXTURE), "--json"))
    assert set(document) == {"rows", "notes", "conclusions", "pairs", "gaps", "agreement"}
    assert len(document["rows"]) == 18
    assert set(document["rows"][0]) == {*LEADERBOARD.names, "labels", "name"}
    assert document["rows"][0]["labels"] == ["simulated"]


def test_format_json_is_the_same_as_the_json_flag() -> None:
    assert run(str(FIXTURE), "--json") == run(str(FIXTURE), "--format", "json")


def test_csv_has_one_line_per_row() -> None:
    lines = list(csv.DictReader(io.StringIO(run(str(FIXTURE), "--format", "csv"))))
    assert len(lines) == 18
    assert lines[0]["labels"] == "simulated"


@pytest.mark.parametrize("format", ["table", "markdown", "html"])
def test_readable_formats_show_values_intervals_labels_and_chance(format: str) -> None:
    printed = run(str(FIXTURE), "--format", format)
    for said in (
        "ridge",
        "pixcorr ↑",
        ".355",
        "simulated",
        "chance",
        "mean of 2 subjects",
        "95 % BCa interval",
    ):
        assert said in printed


def test_metrics_can_be_comma_separated_or_repeated() -> None:
    both = run(str(FIXTURE), "--metric", "pixcorr,alexnet2", "--json")
    assert both == run(str(FIXTURE), "--metric", "pixcorr", "--metric", "alexnet2", "--json")
    one = json.loads(run(str(FIXTURE), "--metric", "pixcorr", "--json"))
    assert {row["metric"] for row in one["rows"]} == {"pixcorr"}


def test_published_results_need_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run("--published", "--split", "imagery", "--metric", "inception")
    assert "AS PUBLISHED" in printed
    assert ".409" in printed
    assert "VISION" not in printed


def test_nothing_to_compare_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no folder \./runs") as caught:
        run()
    assert "--published" in caught.value.remedy


def test_without_a_path_the_runs_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "leaderboard").mkdir(parents=True)
    (tmp_path / "runs" / "leaderboard" / "one.parquet").write_bytes(FIXTURE.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert "ridge" in run()


def test_an_unknown_split_is_misuse() -> None:
    with pytest.raises(UsageError, match="dreams"):
        run(str(FIXTURE), "--split", "dreams")


@pytest.mark.parametrize("value", ["", ",", "ridge,icnn"])
def test_differences_are_to_one_model(value: str) -> None:
    with pytest.raises(UsageError, match="--against takes one model"):
        run(str(FIXTURE), "--against", value)
