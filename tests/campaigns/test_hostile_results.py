"""Results that somebody else made to harm: run folders, tables, names in pages and terminals, links, plug-ins, settings."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hostile_files as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_cases import harmless, refused, score
from own_process import OwnProcesses

from nsdbench.schema import LEADERBOARD

Words = tuple[str, ...]


@pytest.fixture
def run_folder(scored: Path, ground: Path) -> Path:
    """The run folder of a copy of it."""
    shutil.copytree(scored / "runs", ground / "runs")
    return next((ground / "runs").rglob("run.json")).parent


COMPARE, REPORT = ("compare", "runs"), ("report", "runs", "--out", "page")
AGAIN = ("--targets", "t", "--metrics", "ssim")


def with_entry(**entries: Any) -> Callable[[str], str]:
    """Replace entries of a JSON object; a name ``a__b`` means entry ``b`` of entry ``a``."""

    def edit(text: str) -> str:
        document = json.loads(text)
        for name, value in entries.items():
            *outer, last = name.split("__")
            functools.reduce(lambda inside, key: inside[key], outer, document)[last] = value
        return json.dumps(document)

    return edit


def with_number(text: str) -> Callable[[str], str]:
    return lambda document: document.replace('"timings": {', f'"timings": {{"a": {text}, ')


MANIFESTS: dict[str, tuple[Callable[[str], str], Words | None, str]] = {
    "run-id-leads-out": (with_entry(run_id="../../x"), None, "cannot be the run id of a run"),
    "model-leads-out": (with_entry(model="../../x"), None, "cannot be the model of a run"),
    "model-steers-the-terminal": (with_entry(model="\x1b[2J"), None, "cannot be the model of a run"),
    "subject-is-text": (with_entry(subject="1"), None, "cannot be the subject of a run"),
    "subject-is-astronomical": (with_entry(subject=10**30), None, "cannot be the subject of a run"),
    "targets-are-a-number": (with_entry(targets=5), REPORT, "lacks or misspells a field: targets"),
    "notes-are-one-text": (with_entry(notes="<script>"), REPORT, "lacks or misspells a field: notes"),
    "config-is-a-list": (with_entry(config=[]), REPORT, "lacks or misspells a field: config"),
    "origin-is-a-list": (with_entry(provenance=[]), COMPARE, "provenance is unreadable"),
    "date-is-a-number": (with_entry(provenance__created_at=5), COMPARE, "provenance is unreadable"),
    "voxels-beyond-counting": (with_entry(provenance__n_voxels=10**30), COMPARE, "provenance is unreadable"),
    "environment-is-a-list": (with_entry(environment=[1]), REPORT, "lacks or misspells a field: environment"),
    "a-name-twice": (lambda text: '{"run_id": "other", ' + text.lstrip()[1:], None, "'run_id' is given twice"),
    "not-a-number": (with_number("NaN"), None, "NaN is not a number"),
    "a-number-without-end": (with_number("1e999"), None, "1e999 is too large"),
    "a-number-of-5000-digits": (with_number("9" * 5000), None, "is not valid JSON"),
    "lists-in-lists-in-lists": (lambda _: "[" * 100_000, None, "is not valid JSON"),
    "nul-bytes": (lambda _: "\0" * 100, None, "is not valid JSON"),
}  # fmt: skip


# some in every run of the tests, all of them in `make test-all`
OFTEN = ("run-id-leads-out", "targets-are-a-number", "a-name-twice", "with-text-for-numbers", "of-the-future")


def cases(table: Iterable[str]) -> list[Any]:
    """Mark as slow what is not done often."""
    return [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in table]


@pytest.mark.parametrize("case", cases(MANIFESTS))
def test_a_manifest_is_refused(case: str, processes: OwnProcesses, run_folder: Path, ground: Path) -> None:
    edit, words, said = MANIFESTS[case]
    (run_folder / "run.json").write_text(edit((run_folder / "run.json").read_text()))
    given = words or ("score", str(run_folder.relative_to(ground)), *AGAIN)
    refused(processes.run(given, ground), ground, said)


def relink(path: Path, target: Path) -> None:
    if path.exists():
        path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("name", "said"),
    [(".lock", "symbolic links"), ("reconstructions.h5", "damaged or not a file of reconstructions")],
)
def test_a_link_in_a_run_folder_leads_nowhere(
    name: str, said: str, processes: OwnProcesses, run_folder: Path, ground: Path
) -> None:
    relink(run_folder / name, ground.parent / "outside" / "precious")
    words = ("score", str(run_folder.relative_to(ground)), *AGAIN)
    refused(processes.run(words, ground), ground, said)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "scores.parquet"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(
    name: str, processes: OwnProcesses, run_folder: Path, ground: Path
) -> None:
    (run_folder / name).unlink()
    os.mkfifo(run_folder / name)
    outcome = processes.run(("score", str(run_folder.relative_to(ground)), *AGAIN), ground)
    harmless(outcome, ground)
    assert outcome.code == (2 if name == "run.json" else 0), outcome


@pytest.mark.slow
def test_similarities_that_run_code_are_not_read(
    processes: OwnProcesses, run_folder: Path, ground: Path
) -> None:
    gadget = np.array([hostile.Gadget(ground.parent / "canary")], object)
    np.savez(run_folder / "similarity-nsdbench-v1.npz", pool_ids=gadget, targets=gadget)
    words = ("score", str(run_folder.relative_to(ground)), *AGAIN)
    refused(processes.run(words, ground), ground, "pickled Python objects, which are never loaded")


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 2, 5], ids=["data-set", "model", "run"])
def test_results_are_not_written_behind_a_link(
    level: int, processes: OwnProcesses, run_folder: Path, ground: Path
) -> None:
    linked = ground / Path(*run_folder.relative_to(ground).parts[: level + 1])
    shutil.rmtree(linked)
    linked.symlink_to(ground.parent / "outside")
    refused(processes.run(score("t"), ground), ground, "is a link; results are neither written nor deleted")


@pytest.mark.slow
def test_fresh_deletes_nothing_behind_a_link(processes: OwnProcesses, tiny_root: Path, ground: Path) -> None:
    (ground / "runs" / "sim").mkdir(parents=True)
    words = (
        "run", "--model", "mean_image", "--data-dir", str(tiny_root), "--subject", "1", "--split", "vision",
        "--metrics", "pixcorr", "--cache", "cache",
    )  # fmt: skip
    planned = json.loads(processes.run((*words, "--plan", "--json"), ground).out)["cells"][0]["folder"]
    (ground / planned).parent.mkdir(parents=True)
    (ground / planned).symlink_to(ground.parent / "outside")
    outcome = processes.run((*words, "--fresh"), ground)
    assert [path.name for path in (ground.parent / "outside").iterdir()] == ["precious"]
    assert outcome.code == 2
    assert "is a link; results are neither written nor deleted behind links" in outcome.err


def row(**replaced: Any) -> dict[str, Any]:
    plain = {
        "dataset": "sim", "model": "m", "preset": "p", "split": "vision", "subject": "1", "stimulus_set": "AB",
        "metric": "ssim", "metric_version": 1, "metric_profile": "nsdbench-v1", "direction": "higher",
        "pool": "none", "protocol_key": "k", "status": "measured", "run_id": "r", "value": 0.5, "chance": 0.1,
        "n_targets": 12, "n_samples": 1, "n_subjects": 1, "n_items_null": 0,
    }  # fmt: skip
    return dict.fromkeys(LEADERBOARD.names) | plain | replaced


def board(version: bytes = b"leaderboard/1", **replaced: Any) -> pa.Table:
    table = pa.Table.from_pylist([row(**replaced)], schema=LEADERBOARD)
    return table.replace_schema_metadata({b"nsdbench.schema": version})


def same(kind: str) -> pa.Table:
    """Every column has the right name and a wrong type."""
    cell = {"text": "x", "nested": [{"a": 1}]}[kind]
    return pa.table({name: [cell] for name in LEADERBOARD.names}).replace_schema_metadata(
        LEADERBOARD.metadata
    )


def repeating(n_rows: int, text: str) -> pa.Table:
    """A table that is small on disk, and large once every row has its own text."""
    columns = []
    for field in LEADERBOARD:
        value = text if field.name == "source" else row()[field.name]
        if pa.types.is_string(field.type) and value is not None:
            zeros = pa.array(np.zeros(n_rows, np.int8))
            columns.append(pa.DictionaryArray.from_arrays(zeros, pa.array([value])))
        else:
            columns.append(pa.nulls(n_rows, field.type))
    table = pa.Table.from_arrays(columns, names=LEADERBOARD.names)
    return table.replace_schema_metadata(LEADERBOARD.metadata)


TABLES: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "of-somebody-else": (lambda: pa.table({"a": [1]}), "a table of unknown schema"),
    "of-the-future": (lambda: board(b"leaderboard/9"), "written by a newer nsdbench"),
    "of-a-version-of-5000-digits": (lambda: board(b"leaderboard/" + b"9" * 5000), "holds leaderboard/999"),
    "of-a-version-that-only-looks-like-a-number": (lambda: board("leaderboard/²".encode()), "not leaderboard/1"),
    "of-a-version-that-is-no-text": (lambda: board(b"leaderboard/\xff\x1b[2J"), "not leaderboard/1"),
    "with-text-for-numbers": (lambda: same("text"), "does not have the types of leaderboard/1"),
    "with-lists-for-numbers": (lambda: same("nested"), "does not have the types of leaderboard/1"),
    "without-columns": (lambda: board().select(["model"]), "dataset is missing"),
    "with-a-column-more": (lambda: board().append_column("x", pa.array([1])), "x is unknown"),
    "with-nan": (lambda: board(value=float("nan")), "holds NaN or infinity"),
    "that-steers-the-terminal": (lambda: board(model="\x1b[2J"), "characters that cannot be shown"),
    "that-runs-backwards": (lambda: board(source="a\u202egnp"), "characters that cannot be shown"),
    "of-a-terabyte-once-it-is-read": (lambda: repeating(10**6, "x" * 2**20), "repeats a text of 1048576"),
    "of-21-million-rows": (lambda: repeating(21 * 10**6, "x"), "declares 21000000 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", cases(TABLES))
def test_a_table_is_refused(case: str, processes: OwnProcesses, ground: Path) -> None:
    make, said = TABLES[case]
    pq.write_table(make(), ground / "x.parquet")
    refused(processes.run(("compare", "x.parquet"), ground), ground, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", [("compare",), ("report", "--out", "page"), ("check", "--baseline", "x.parquet")]
)
@pytest.mark.parametrize(
    "content", [b"PAR1" + bytes(99) + b"PAR1", b"PAR1" + bytes(99) + b"\xff\xff\xff\x7fPAR1", None]
)
def test_a_file_that_only_looks_like_a_table_is_refused_by_every_verb(
    verb: Words, content: bytes | None, processes: OwnProcesses, ground: Path
) -> None:
    if content is None:
        os.mkfifo(ground / "x.parquet")
    else:
        (ground / "x.parquet").write_bytes(content)
    said = "is not a regular file" if content is None else "is not a Parquet file"
    refused(processes.run((verb[0], "x.parquet", *verb[1:]), ground), ground, said)


def test_arrow_types_that_unpickle_are_not_revived(processes: OwnProcesses, ground: Path) -> None:
    table = board()
    pickled = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": hostile.pickled(ground.parent / "canary"),
    }
    fields = [field.with_metadata(pickled if field.name == "model" else None) for field in table.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    pq.write_table(pa.Table.from_arrays(table.columns, schema=schema), ground / "x.parquet")
    outcome = processes.run(("compare", "x.parquet"), ground)
    harmless(outcome, ground)
    assert outcome.code == 0, outcome.err


FORMULA, MARKUP = "=cmd|'/C calc'!A0", "<img src=x onerror=alert(1)>![x](http://localhost:1/x.png)"


def test_a_spreadsheet_finds_no_formula(processes: OwnProcesses, ground: Path) -> None:
    pq.write_table(board(model=FORMULA, source="@SUM(1)", chance=-0.5), ground / "x.parquet")
    outcome = processes.run(("compare", "x.parquet", "--format", "csv"), ground)
    (found,) = csv.DictReader(io.StringIO(outcome.out))
    assert (found["model"], found["source"], found["chance"]) == (f"'{FORMULA}", "'@SUM(1)", "-0.5")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["html", "markdown"])
def test_names_are_no_markup(format: str, processes: OwnProcesses, ground: Path) -> None:
    pq.write_table(board(model=MARKUP), ground / "x.parquet")
    outcome = processes.run(("compare", "x.parquet", "--format", format), ground)
    assert outcome.code == 0
    assert "<img" not in outcome.out
    assert format == "html" or "](http" not in outcome.out


def test_names_of_folders_do_not_steer_the_terminal(processes: OwnProcesses, ground: Path) -> None:
    pq.write_table(board(), ground / "x.parquet")
    folder = ground / "d\x1b[2J\nerror: fine\u202e"
    folder.mkdir()
    (folder / "run.json").write_text('{"status": "started"}')
    outcome = processes.run(("compare", "."), ground)
    harmless(outcome, ground)
    assert r"d\x1b[2J\nerror: fine\u202e" in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('\\x1b[2J boom\\nerror: fine')", "RuntimeError: .*boom"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("Model = 5", "is not a subclass of"),
    ],
    ids=["raises", "exits", "is-no-model"],
)
@pytest.mark.parametrize("way", ["named", "installed"])
def test_a_plug_in_that_fails_is_named(
    way: str, code: str, said: str, processes: OwnProcesses, ground: Path
) -> None:
    site = ground / "site"
    (site / "evil-1.dist-info").mkdir(parents=True)
    (site / "evil-1.dist-info" / "METADATA").write_text("Name: evil\nVersion: 1\n")
    entry = "[nsdbench.adapters]\nevil = evil_plug_in:Model\n"
    (site / "evil-1.dist-info" / "entry_points.txt").write_text(entry)
    (site / "evil_plug_in.py").write_text(code)
    model = "evil" if way == "installed" else "evil_plug_in:Model"
    outcome = processes.run(("run", "--model", model), ground, {"PYTHONPATH": "site"})
    refused(outcome, ground, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "words", "said"),
    [
        ("NSDBENCH_DATA", "/dev/null", ("data", "info"), "/dev/null"),
        ("NSDBENCH_DATA", "/no\x1b[2J\nerror: fine", ("data", "info"), r"/no\\x1b\[2J\\nerror: fine"),
        ("NSDBENCH_CACHE", "/dev/null/x", ("data", "simulate", "--preset", "tiny"), "/dev/null"),
        ("NSDBENCH_WEIGHTS", "/dev/null", ("score", "t", *AGAIN[:2], "--split", "vision", "--metrics", "clip"), "missing in"),
    ],
    ids=["data-device", "data-terminal", "cache-device", "weights-device"],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(
    name: str, value: str, words: Words, said: str, processes: OwnProcesses, ground: Path
) -> None:
    refused(processes.run(words, ground, {name: value}), ground, said)


@pytest.mark.slow
def test_a_manifest_of_odd_values_makes_a_page(
    processes: OwnProcesses, run_folder: Path, ground: Path
) -> None:
    edit = with_entry(environment={"libraries": [1], "python": {}}, config={"decoder_weights": 5, "load": 7})
    (run_folder / "run.json").write_text(edit((run_folder / "run.json").read_text()))
    outcome = processes.run(REPORT, ground)
    harmless(outcome, ground)
    assert outcome.code == 0, outcome.err


def test_a_manifest_in_a_page_stays_text(processes: OwnProcesses, run_folder: Path, ground: Path) -> None:
    """What a browser makes of the page is looked at in test_hostile_page.py."""
    edit = with_entry(
        notes=["<script>alert(1)</script>\x1b[2J"], provenance__source="<img src=x onerror=alert(1)>"
    )
    (run_folder / "run.json").write_text(edit((run_folder / "run.json").read_text()))
    outcome = processes.run(REPORT, ground)
    harmless(outcome, ground)
    page = (ground / "page" / "index.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img src=x" not in page
