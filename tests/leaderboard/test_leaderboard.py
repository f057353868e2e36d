"""Item scores and leaderboards on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nsdbench import leaderboard
from nsdbench.errors import LeaderboardError
from nsdbench.schema import ITEMS, LEADERBOARD, SCHEMA_KEY, Provenance

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
Make = Callable[..., pa.Table]


def change(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return ``table`` with another column."""
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, pa.array(values))


def test_items_survive_a_round_trip(tmp_path: Path, make_items: Make) -> None:
    items = leaderboard.validate_items(make_items(0.25))
    leaderboard.write_items(tmp_path / "scores.parquet", items)
    assert leaderboard.read_items(tmp_path / "scores.parquet").equals(items)


def test_rows_survive_a_round_trip(tmp_path: Path, make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    leaderboard.write(tmp_path / "imagery.parquet", rows)
    assert leaderboard.read(tmp_path / "imagery.parquet").equals(rows)


def test_identical_content_gives_identical_bytes_whatever_the_order(
    tmp_path: Path, make_items: Make, noisy: Any, rng: np.random.Generator
) -> None:
    items = make_items(noisy, subjects=(1, 2))
    shuffled = items.take(rng.permutation(len(items)))
    leaderboard.write_items(tmp_path / "a.parquet", items)
    leaderboard.write_items(tmp_path / "b.parquet", shuffled)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_summary_does_not_depend_on_the_order_of_items(
    make_items: Make, noisy: Any, origin: Provenance, rng: np.random.Generator
) -> None:
    items = make_items(noisy, subjects=(1, 2))
    shuffled = items.take(rng.permutation(len(items)))
    assert leaderboard.summarize(items, origin).equals(leaderboard.summarize(shuffled, origin))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(make_items: Make, value: float) -> None:
    with pytest.raises(LeaderboardError, match="value holds NaN or infinity"):
        leaderboard.validate_items(make_items(value))


def test_a_missing_value_needs_a_reason(make_items: Make) -> None:
    items = change(make_items(), "value", pa.nulls(48, pa.float64()))
    with pytest.raises(LeaderboardError, match="neither a value nor a reason"):
        leaderboard.validate_items(items)
    assert len(leaderboard.validate_items(change(items, "reason", ["constant image"] * 48))) == 48


def test_a_repeated_item_is_refused_and_named(make_items: Make) -> None:
    items = make_items()
    with pytest.raises(LeaderboardError, match=r"48 rows repeat the key.*stimulus="):
        leaderboard.validate_items(pa.concat_tables([items, items]))


def test_an_unknown_column_is_named(make_items: Make) -> None:
    with pytest.raises(LeaderboardError, match="mood is unknown"):
        leaderboard.validate_items(make_items().append_column("mood", pa.nulls(48)))


def test_a_missing_column_is_named(make_items: Make) -> None:
    with pytest.raises(LeaderboardError, match="metric_profile is missing"):
        leaderboard.validate_items(make_items().drop_columns("metric_profile"))


def test_a_wrong_type_is_refused(make_items: Make) -> None:
    with pytest.raises(LeaderboardError, match="does not have the types"):
        leaderboard.validate_items(change(make_items(), "value", ["high"] * 48))


def test_an_empty_cell_in_a_key_column_is_refused(make_items: Make) -> None:
    with pytest.raises(LeaderboardError, match="column model has 48 empty cells"):
        leaderboard.validate_items(change(make_items(), "model", pa.nulls(48, pa.string())))


def test_an_unknown_split_is_refused(make_items: Make) -> None:
    with pytest.raises(LeaderboardError, match="'dreams'"):
        leaderboard.validate_items(make_items(split="dreams"))


@pytest.mark.parametrize(("column", "value"), [("status", "guessed"), ("direction", "up")])
def test_closed_vocabularies_are_enforced(
    make_items: Make, origin: Provenance, column: str, value: str
) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    with pytest.raises(LeaderboardError, match=value):
        leaderboard.validate(change(rows, column, [value] * len(rows)))


def test_a_row_must_name_its_run_or_its_source(make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    with pytest.raises(LeaderboardError, match="no run_id and no source"):
        leaderboard.validate(change(rows, "run_id", pa.nulls(len(rows), pa.string())))


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"model,value\nridge,1\n"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(LeaderboardError, match="not a Parquet file"):
        leaderboard.read(path)


def test_a_truncated_file_is_refused(tmp_path: Path, make_items: Make) -> None:
    path = tmp_path / "x.parquet"
    leaderboard.write_items(path, make_items())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(LeaderboardError):
        leaderboard.read_items(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LeaderboardError, match=r"absent\.parquet does not exist"):
        leaderboard.read(tmp_path / "absent.parquet")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "unknown schema"),
        ("scores/1", "not leaderboard/1"),
        ("leaderboard/x", "not leaderboard/1"),
        ("leaderboard/2", "newer nsdbench"),
        ("leaderboard/0", "no upgrade from leaderboard/0"),
    ],
)
def test_a_foreign_schema_is_refused_by_name(
    tmp_path: Path, make_items: Make, origin: Provenance, found: str | None, said: str
) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    metadata = {SCHEMA_KEY: found.encode()} if found else None
    pq.write_table(rows.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    with pytest.raises(LeaderboardError, match=said):
        leaderboard.read(tmp_path / "x.parquet")


def test_old_tables_are_upgraded_step_by_step(
    tmp_path: Path, make_items: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = leaderboard.validate_items(make_items())
    old = items.rename_columns(["image" if n == "stimulus" else n for n in items.column_names])
    pq.write_table(old.replace_schema_metadata({SCHEMA_KEY: b"scores/0"}), tmp_path / "x.parquet")
    monkeypatch.setitem(
        leaderboard.UPGRADES,
        "scores/0",
        lambda t: t.rename_columns(["stimulus" if n == "image" else n for n in t.column_names]),
    )
    assert leaderboard.read_items(tmp_path / "x.parquet").equals(items)


def test_the_fixture_of_every_released_schema_still_reads() -> None:
    items = leaderboard.read_items(FIXTURES / "scores-1.parquet")
    assert len(items) == 48
    assert pc.mean(items["value"]).as_py() == pytest.approx(0.375)
    rows = leaderboard.read(FIXTURES / "leaderboard-1.parquet")
    assert len(rows) == 18
    assert set(rows["status"].to_pylist()) == {"simulated"}


def test_a_run_appended_twice_is_there_once(tmp_path: Path, make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    first = leaderboard.append(tmp_path, rows)
    assert leaderboard.append(tmp_path, rows) == first
    assert leaderboard.read(tmp_path).equals(rows)


def test_a_summary_over_subjects_is_stored_as_one_file_per_run_and_one_for_the_mean(
    tmp_path: Path, make_items: Make, origin: Provenance
) -> None:
    rows = leaderboard.summarize(make_items(subjects=(1, 2)), origin)
    files = leaderboard.append(tmp_path, rows)
    assert len(files) == 3
    assert leaderboard.read(tmp_path).equals(rows)


APPEND = """
import sys
from pathlib import Path
import pyarrow as pa
from nsdbench import leaderboard
table = leaderboard.read(Path(sys.argv[1]))
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    runs = pa.array([f"run{number}"] * len(table))
    leaderboard.append(Path(sys.argv[2]), table.set_column(table.schema.get_field_index("run_id"), "run_id", runs))
"""


def test_two_processes_appending_at_once_lose_nothing(
    tmp_path: Path, make_items: Make, origin: Provenance
) -> None:
    leaderboard.write(tmp_path / "one.parquet", leaderboard.summarize(make_items(), origin))
    runs = [("0", "20"), ("10", "30")]  # ten runs are written by both
    arguments = [sys.executable, "-c", APPEND, str(tmp_path / "one.parquet"), str(tmp_path / "board")]
    workers = [subprocess.Popen([*arguments, *numbers]) for numbers in runs]
    assert [worker.wait() for worker in workers] == [0, 0]
    found = leaderboard.read(tmp_path / "board")
    assert set(found["run_id"].to_pylist()) == {f"run{number}" for number in range(30)}
    assert len(list((tmp_path / "board").iterdir())) == 30


def test_files_of_a_writer_at_work_are_not_read(tmp_path: Path, make_items: Make, origin: Provenance) -> None:
    rows = leaderboard.summarize(make_items(), origin)
    leaderboard.append(tmp_path, rows)
    (tmp_path / ".other.0123.tmp.parquet").write_bytes(b"half a file")
    assert leaderboard.read(tmp_path).equals(rows)


def test_merging_counts_equal_rows_once_and_refuses_contradictions(
    make_items: Make, origin: Provenance
) -> None:
    rows = leaderboard.summarize(make_items(0.5), origin)
    assert leaderboard.merge([rows, rows]).equals(rows)
    other = leaderboard.summarize(make_items(0.6), origin)
    with pytest.raises(LeaderboardError, match="repeat the key"):
        leaderboard.merge([rows, other])


def test_a_run_folder_counts_only_when_complete(tmp_path: Path, make_items: Make) -> None:
    leaderboard.write_items(tmp_path / "scores.parquet", make_items())
    (tmp_path / "run.json").write_text(json.dumps({"status": "started", "run_id": "ridge-1-imagery"}))
    with pytest.raises(LeaderboardError, match="status 'started'"):
        leaderboard.read_items(tmp_path)


def test_hashes_of_reconstructions_travel_with_the_items(tmp_path: Path, make_items: Make) -> None:
    for subject in (1, 2):
        leaderboard.write_items(
            tmp_path / f"{subject}.parquet", make_items(subjects=(subject,)), reconstructions=f"sha{subject}"
        )
    merged = leaderboard.merge_items(leaderboard.read_items(tmp_path / f"{s}.parquet") for s in (1, 2))
    leaderboard.write_items(tmp_path / "merged.parquet", merged)
    found = leaderboard.reconstructions(leaderboard.read_items(tmp_path / "merged.parquet"))
    assert found == {"ridge-1-imagery": "sha1", "ridge-2-imagery": "sha2"}


def test_duckdb_pandas_and_polars_read_a_leaderboard_without_nsdbench(
    tmp_path: Path, make_items: Make, noisy: Any, origin: Provenance
) -> None:
    rows = leaderboard.summarize(make_items(noisy, subjects=(1, 2)), origin)
    leaderboard.append(tmp_path, rows)
    expected = sorted(rows["value"].to_pylist())
    query = duckdb.sql(f"select value from '{tmp_path}/*.parquet' order by value").fetchall()
    assert [value for (value,) in query] == expected
    assert sorted(pd.read_parquet(tmp_path)["value"]) == expected
    assert sorted(pl.read_parquet(tmp_path / "*.parquet")["value"].to_list()) == expected


def test_polars_tables_are_accepted_back(make_items: Make) -> None:
    items = leaderboard.validate_items(make_items())
    assert leaderboard.validate_items(pl.from_arrow(items).to_arrow()).equals(items)  # type: ignore[union-attr]


def test_the_schemas_have_ids_that_name_their_version() -> None:
    assert ITEMS.metadata[SCHEMA_KEY] == b"scores/1"
    assert LEADERBOARD.metadata[SCHEMA_KEY] == b"leaderboard/1"


def test_a_run_id_that_leaves_the_directory_is_refused(
    tmp_path: Path, make_items: Make, origin: Provenance
) -> None:
    rows = leaderboard.summarize(make_items(run_id="../elsewhere"), origin)
    with pytest.raises(LeaderboardError, match="cannot be a file name"):
        leaderboard.append(tmp_path / "board", rows)


@pytest.mark.parametrize(
    "provenance",
    [
        None,
        ["simulated"],
        {"status": "simulated"},
        {"mood": "good"},
        {"status": "x", "stimulus_hash": "", "dataset_hash": ""},
    ],
)
def test_a_run_folder_with_damaged_provenance_is_refused(
    tmp_path: Path, make_items: Make, provenance: Any
) -> None:
    leaderboard.write_items(tmp_path / "scores.parquet", make_items())
    (tmp_path / "run.json").write_text(json.dumps({"status": "complete", "provenance": provenance}))
    with pytest.raises(LeaderboardError, match=r"run\.json"):
        leaderboard.read(tmp_path)


def test_a_provenance_field_of_the_wrong_type_is_refused(make_items: Make, origin: Provenance) -> None:
    with pytest.raises(LeaderboardError, match="wrong type"):
        leaderboard.summarize(make_items(), replace(origin, n_voxels="many"))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_run_json_is_refused(tmp_path: Path, make_items: Make, content: str) -> None:
    leaderboard.write_items(tmp_path / "scores.parquet", make_items())
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(LeaderboardError, match=r"run\.json|run folder"):
        leaderboard.read(tmp_path)


@pytest.mark.parametrize("name", ["ridge\x1b[31m", "a\nb", "\u202egnp.exe"])
def test_names_that_would_steer_a_terminal_are_refused(name: str, make_items: Make) -> None:
    with pytest.raises(LeaderboardError, match="cannot be shown"):
        leaderboard.validate_items(make_items(model=name))


@pytest.mark.parametrize("run_id", ["", "..", ".hidden", "../x"])
def test_a_run_id_that_leads_elsewhere_is_no_file_name(
    run_id: str, make_items: Make, origin: Provenance, tmp_path: Path
) -> None:
    rows = leaderboard.summarize(make_items(run_id=run_id), origin)
    with pytest.raises(LeaderboardError, match="cannot be a file name"):
        leaderboard.append(tmp_path / "board", rows)
