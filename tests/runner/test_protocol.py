"""Which data set, splits and subjects a command means; what a manifest must hold."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nsdbench import protocol
from nsdbench.errors import DataError, UsageError
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.runfolder import SCORES, stored
from nsdbench.schema import Provenance, RunKey

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def test_split_groups_are_expanded_in_a_fixed_order() -> None:
    assert protocol.expand_splits("both") == ("vision", "imagery")
    assert protocol.expand_splits("all") == ("vision", "imagery", "shared1000")
    assert protocol.expand_splits("imagery,vision") == ("vision", "imagery")
    with pytest.raises(UsageError) as error:
        protocol.expand_splits("seen")
    assert "shared1000" in error.value.remedy


def test_auto_means_the_simulation_only_where_no_directory_was_given(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSDBENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError):
        protocol.resolve_dataset("auto", None)
    monkeypatch.setenv("NSDBENCH_DATA", str(tiny_root))
    dataset, line = protocol.resolve_dataset("auto", None)
    assert dataset.id == "sim" and str(tiny_root) in line


def test_simulated_data_never_passes_as_nsd(tiny_root: Path) -> None:
    with pytest.raises(UsageError, match="not the real NSD"):
        protocol.resolve_dataset("nsd", tiny_root)
    with pytest.raises(UsageError, match="exclude"):
        protocol.resolve_dataset("sim", tiny_root)
    dataset, _ = protocol.resolve_dataset("auto", tiny_root)
    assert protocol.is_simulated(dataset) and protocol.status(dataset) == "simulated"


def test_only_a_generated_copy_of_the_layout_answers_to_the_name_of_nsd_and_says_so(
    tiny_root: Path, tmp_path: Path
) -> None:
    marker = json.loads((tiny_root / "nsdbench-dataset.json").read_text()) | {"dataset": protocol.SYNTHETIC}
    (tmp_path / "nsdbench-dataset.json").write_text(json.dumps(marker))
    (tmp_path / "nsddata_betas/ppdata/subj01/func1pt8mm").mkdir(parents=True)
    dataset, line = protocol.resolve_dataset("nsd", tmp_path)
    assert dataset.id == "nsd-synthetic" and "not real brain data" in line
    assert protocol.is_simulated(dataset) and protocol.status(dataset) == "simulated"


def test_default_subjects_are_those_of_the_protocol_that_are_present(tiny_root: Path) -> None:
    dataset, _ = protocol.resolve_dataset("auto", tiny_root)
    assert protocol.expand_subjects(None, dataset) == (1, 7)
    assert protocol.expand_subjects("7,1,7", dataset) == (7, 1)
    with pytest.raises(UsageError, match="subject 2"):
        protocol.expand_subjects("1,2", dataset)


@pytest.fixture
def manifest() -> RunManifest:
    key = RunKey("0123456789abcdef", "sim", "ridge", "standard", 1, "vision")
    return RunManifest(
        key, "started", Provenance("simulated", "s", "d"), {"seed": 0}, environment={"python": "3.11"}
    )


def test_a_manifest_survives_the_disk(manifest: RunManifest, tmp_path: Path) -> None:
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert json.loads((tmp_path / "run.json").read_text())["model"] == "ridge"


def test_only_complete_runs_count(manifest: RunManifest, tmp_path: Path) -> None:
    assert stored(tmp_path) is None
    shutil.copy(FIXTURES / "scores-1.parquet", tmp_path / SCORES)
    manifest.write(tmp_path)
    assert stored(tmp_path) is None
    replace(manifest, status="complete").write(tmp_path)
    assert stored(tmp_path) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "run/9"}', '{"schema": "run/1", "run_id": "x"}'])
def test_a_damaged_or_foreign_manifest_is_a_named_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json"):
        read_manifest(tmp_path)
