"""The committed published leaderboards: complete, unchanged, and equal to the reference figures."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.compute as pc
import pytest

from nsdbench import leaderboard, published
from nsdbench.compare import twin
from nsdbench.comparison import results
from nsdbench.errors import DataError
from nsdbench.types import SPLITS

COMMITTED = Path(__file__).resolve().parents[2] / "leaderboards"
TABLES = [*(f"{split}.parquet" for split in SPLITS), published.ITEMS_FILE]
DOCUMENTS = [*(f"{split}.md" for split in SPLITS), "NOTICE.md", "SOURCES.md"]
TWO_WAY = {"alexnet2", "alexnet5", "inception", "clip"}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """All published rows."""
    return leaderboard.merge(leaderboard.read(COMMITTED / f"{split}.parquet") for split in SPLITS).to_pylist()


@pytest.fixture(scope="module")
def means(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of the authors' file over all subjects by model, split, set, metric."""
    chosen = [r for r in rows if r["source"].startswith("mirage_repo_results") and r["subject"] == "mean"]
    return {(r["model"], r["split"], r["stimulus_set"], r["metric"]): r for r in chosen}


@pytest.fixture(scope="module")
def rebuilt(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published leaderboards built anew."""
    out = tmp_path_factory.mktemp("leaderboards")
    published.build(shared / "data" / "published", out)
    return out


# published-results, section 2: model, split, set -> metric -> value
REFERENCE = {
    ("mindeye1", "imagery", "AB"): {
        "pixcorr": 0.0856, "ssim": 0.3492, "alexnet2": 0.5956, "alexnet2_corrected": 0.6866, "alexnet5": 0.6100,
        "inception": 0.5203, "inception_corrected": 0.6112, "clip": 0.5472, "effnet": 0.9477, "swav": 0.5642,
        "brain_corr_nsdgeneral": 0.1547,
    },
    ("icnn", "vision", "AB"): {"pixcorr": 0.2241, "alexnet5_corrected": 0.9044, "brain_corr_evc": 0.4421},
    ("mindeye2", "imagery", "A"): {"alexnet2": 0.2496, "alexnet2_corrected": 0.3405, "ssim": 0.5493},
    ("icnn", "imagery", "B"): {"clip": 0.1545, "clip_corrected": 0.2455},
    ("mirage", "vision", "B"): {"swav": 0.5549, "clip_corrected": 0.7875},
    ("neuropictor", "imagery", "B"): {"pixcorr": 0.0031},
}  # fmt: skip


@pytest.mark.parametrize("cell", REFERENCE, ids="-".join)
def test_means_equal_the_reference_figures(
    means: dict[tuple[str, ...], dict[str, Any]], cell: tuple[str, str, str]
) -> None:
    for metric, value in REFERENCE[cell].items():
        assert means[(*cell, metric)]["value"] == pytest.approx(value, abs=6e-5), metric


@pytest.mark.parametrize(
    ("model", "percent"),
    [("mindeye1", 52.03), ("brain_diffuser", 52.73), ("icnn", 49.39), ("mindeye2", 46.02)],
)
def test_the_printed_inception_column_carries_the_offset(
    means: dict[tuple[str, ...], dict[str, Any]], model: str, percent: float
) -> None:
    row = means[model, "imagery", "AB", "inception"]
    assert 100 * row["value"] == pytest.approx(percent, abs=0.006)
    assert row["chance"] == pytest.approx(0.5 - 1 / 11)


def test_corrected_scores_stand_beside_the_published_ones_one_eleventh_higher(
    means: dict[tuple[str, ...], dict[str, Any]],
) -> None:
    corrected = {key: row for key, row in means.items() if key[3].endswith("_corrected")}
    assert len(corrected) == 8 * 2 * 3 * 4
    for (*cell, metric), row in corrected.items():
        as_published = means[(*cell, metric.removesuffix("_corrected"))]
        assert row["value"] - as_published["value"] == pytest.approx(1 / 11, abs=2e-6)
        assert (as_published["metric_profile"], row["metric_profile"]) == ("imagery-asrun", "imagery-fixed")
        assert (
            row["value_printed"]
            == as_published["value_printed"]
            == pytest.approx(as_published["value"], abs=6e-5)
        )
        assert row["chance"] == 0.5


def test_intervals_of_the_authors_scores_contain_their_values(
    means: dict[tuple[str, ...], dict[str, Any]],
) -> None:
    assert len(means) == 8 * 2 * 3 * 15
    for row in means.values():
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert (row["n_subjects"], row["n_samples"], row["ci_method"]) == (4, 10, "bca_t")


def test_the_item_scores_are_complete() -> None:
    items = leaderboard.read_items(COMMITTED / published.ITEMS_FILE)
    assert len(items) == 7_680 * 15
    assert items.group_by(["model", "subject", "split", "stimulus", "sample"]).aggregate([]).num_rows == 7_680
    assert items["value"].null_count == 0
    two_way = items.filter(
        pc.is_in(
            items["metric"],
            pc.unique(items["metric"]).filter(pc.match_substring(pc.unique(items["metric"]), "_corrected")),
        )
    )
    elevenths = np.asarray(two_way["value"]) * 11
    assert np.abs(elevenths - elevenths.round()).max() < 1e-9
    assert (elevenths.min(), elevenths.max()) == (0, pytest.approx(11))


def test_every_row_is_published_with_source_and_verification(rows: list[dict[str, Any]]) -> None:
    assert {row["status"] for row in rows} == {"published"}
    assert {row["source"].rpartition(" | ")[2] for row in rows} == {"verified", "secondary"}
    known = (COMMITTED / "SOURCES.md").read_text()
    assert all(f"## {row['source'].partition(' | ')[0]}\n" in known for row in rows)


def test_no_protocol_key_joins_two_sources_or_test_sets(rows: list[dict[str, Any]]) -> None:
    by_key: dict[str, set[tuple[str, ...]]] = {}
    for row in rows:
        by_key.setdefault(row["protocol_key"], set()).add(
            (row["source"], row["stimulus_set"], row["metric"], row["split"])
        )
    assert all(len(found) == 1 for found in by_key.values())


def test_test_sets_of_core_nsd_are_kept_apart(rows: list[dict[str, Any]]) -> None:
    sets = Counter(row["stimulus_set"] for row in rows if row["split"] == "shared1000")
    assert sets == {"shared1000": 478, "shared982": 169, "shared test set": 64}


def test_identification_on_core_nsd_carries_no_offset(rows: list[dict[str, Any]]) -> None:
    chances = {row["chance"] for row in rows if row["split"] == "shared1000" and row["metric"] in TWO_WAY}
    assert chances == {0.5}


def test_the_takagi_value_is_kept_as_quoted_and_as_corrected(rows: list[dict[str, Any]]) -> None:
    found = {
        row["metric"]: row
        for row in rows
        if row["model"] == "takagi_decoded_text" and row["split"] == "imagery"
    }
    assert found["inception"]["value"] == 0.4326
    assert (found["inception_corrected"]["value"], found["inception_corrected"]["value_printed"]) == (
        0.5235,
        0.4326,
    )


def test_the_licence_of_the_authors_file_is_beside_it() -> None:
    notice = (COMMITTED / "NOTICE.md").read_text()
    assert "Copyright (c) 2023 MedARC" in notice
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in notice
    assert published.ITEMS_FILE in notice


def test_each_leaderboard_has_its_markdown_twin() -> None:
    for split in SPLITS:
        table = leaderboard.read(COMMITTED / f"{split}.parquet")
        assert (COMMITTED / f"{split}.md").read_text() == twin(table, title=f"Published results: {split}")


def test_the_package_finds_the_committed_files() -> None:
    assert [path.resolve() for path in results.published_files()] == [COMMITTED / name for name in TABLES]


def test_a_rebuild_gives_the_committed_tables(rebuilt: Path) -> None:
    """Interval ends are sums whose order, and so last bit, is the processor's."""
    for name in TABLES:
        tables = [leaderboard.read_file(folder / name) for folder in (rebuilt, COMMITTED)]
        assert tables[0].schema.equals(tables[1].schema, check_metadata=True), name
        found, committed = (table.to_pandas() for table in tables)
        pd.testing.assert_frame_equal(found, committed, check_exact=False, rtol=1e-12, atol=0)


def test_two_builds_give_the_same_bytes(rebuilt: Path, shared: Path, tmp_path: Path) -> None:
    published.build(shared / "data" / "published", tmp_path)
    for name in [*TABLES, *DOCUMENTS]:
        assert (rebuilt / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_rebuild_gives_the_committed_documents(rebuilt: Path) -> None:
    for name in DOCUMENTS:
        assert (rebuilt / name).read_text() == (COMMITTED / name).read_text(), name


def test_every_tabulated_result_is_there_with_its_value(shared: Path, rows: list[dict[str, Any]]) -> None:
    with (shared / "data" / "published" / published.RESULTS).open(newline="") as handle:
        tabulated = list(csv.DictReader(handle))
    assert len(tabulated) == 2421
    sets = {
        "simple+complex": "AB",
        "simple": "A",
        "complex": "B",
        "unspecified": "unstated",
        "not stated in the note": "unstated",
    }
    ours = {
        (
            r["source"].split(" | ")[0],
            r["source"].split(" | ")[1],
            r["model"],
            r["split"],
            r["stimulus_set"],
            r["subject"],
            r["metric"],
        ): r
        for r in rows
    }
    for row in tabulated:
        subject = (
            row["subjects"].removeprefix("subj").lstrip("0") if row["subjects"].startswith("subj") else "mean"
        )
        split = "shared1000" if row["dataset"] == "NSD" else row["split"]
        key = (
            row["source_id"],
            row["table_or_figure"],
            row["model"],
            split,
            sets.get(row["stimulus_set"], row["stimulus_set"]),
            subject,
            row["metric"],
        )
        assert ours[key]["value"] == pytest.approx(float(row["value"]), abs=1e-4), key


def test_no_unverified_result_is_shipped(shared: Path, rows: list[dict[str, Any]]) -> None:
    with (shared / "data" / "published" / "published_unverified.csv").open(newline="") as handle:
        recalled = list(csv.DictReader(handle))
    ours = {
        (r["source"].partition(" | ")[0], r["model"], r["subject"], r["metric"], r["value"]) for r in rows
    }
    assert recalled
    for row in recalled:
        assert (row["source_id"], row["model"], "mean", row["metric"], float(row["value"])) not in ours, row


def test_rows_that_are_neither_verified_nor_secondary_are_refused() -> None:
    items = leaderboard.read_items(COMMITTED / published.ITEMS_FILE)
    with pytest.raises(DataError, match="neither verified nor secondary"):
        published.published_rows(items, [{"source_id": "x", "verified": "no"}])


def test_a_missing_source_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nsd_imagery_per_sample"):
        published.build(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", TABLES)
def test_duckdb_pandas_and_polars_read_the_committed_files(name: str) -> None:
    path = COMMITTED / name
    n = len(leaderboard.read_file(path))
    assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(n,)]
    assert len(pd.read_parquet(path)) == n
    assert pl.read_parquet(path).height == n


def test_comparing_published_results_loads_no_heavy_module() -> None:
    code = (
        "import sys; from nsdbench.compare import compare; compare([], published=True);"
        "print(*{'torch', 'pandas', 'scipy.stats', 'torchvision', 'matplotlib', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
