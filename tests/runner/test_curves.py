"""Identification curves of stored runs."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nsdbench import runner, similarity, stages
from nsdbench.cells import RunRequest
from nsdbench.curves import curve
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import DataError, UsageError
from nsdbench.scoring import ScoreSettings

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def run(tiny_root: Path, sim_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> stages.CellResult:
    """One scored run of random images, three samples per target."""
    out = tmp_path_factory.mktemp("runs")
    request = RunRequest(
        models=("random_image",),
        splits=("vision",),
        subjects=(1,),
        load=LoadOptions(),
        scoring=ScoreSettings(metrics=("pixel_2way", "ssim"), cache=sim_cache),
        out=out,
        leaderboard=out / "leaderboard",
        n_samples=3,
    )
    return runner.execute(Dataset.open(tiny_root, cache=sim_cache), request)[0]


def test_the_first_point_is_two_way_identification(run: stages.CellResult) -> None:
    items = run.run.items.to_pylist()
    values = [row["value"] for row in items if row["metric"] == "pixel_2way" and row["pool"] == "AB12"]
    assert curve(run.cell.folder, "pixel_2way").accuracy[0] == pytest.approx(np.mean(values))


def test_every_point_equals_the_count_over_all_sets_of_distractors(run: stages.CellResult) -> None:
    r = similarity.read(run.cell.folder / "similarity-nsdbench-v1.npz").matrices["pixel_2way"]
    found = curve(run.cell.folder, "pixel_2way", q=2)
    for m in (2, 4, 12):
        wins, short_list = [], []
        for target, sample in itertools.product(range(12), range(3)):
            column = r[:, target, sample]
            others = [i for i in range(12) if i != target]
            for drawn in itertools.combinations(others, m - 1):
                better = sum(column[i] >= column[target] for i in drawn)
                wins.append(better == 0)
                short_list.append(better < 2)
        assert found.accuracy[found.m.index(m)] == pytest.approx(np.mean(wins))
        assert found.top[found.m.index(m)] == pytest.approx(np.mean(short_list))


def test_metrics_without_similarities_and_damaged_files_are_refused(
    run: stages.CellResult, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="ssim"):
        curve(run.cell.folder, "ssim")
    with pytest.raises(DataError):
        curve(run.cell.folder, "pixel_2way", profile="mindeye")
    (tmp_path / "similarity-nsdbench-v1.npz").write_bytes(b"PK")
    with pytest.raises(DataError):
        curve(tmp_path, "pixel_2way")


def test_the_documented_snippet_prints_one_line_per_pool_size(run: stages.CellResult, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "metrics.md").read_text(), re.DOTALL)
    (snippet,) = [block for block in blocks if "nsdbench.curves" in block]
    shutil.copytree(run.cell.folder, tmp_path / "demo/runs/sim/ridge-standard/subj01/vision/0123")
    command = [sys.executable, "-c", snippet.replace("gabor_2way", "pixel_2way")]
    lines = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(lines) == 11 and lines[0].startswith("subj01    2 alternatives")
