"""The authors' own scores of subject 1, where the real data, the published weights and a GPU are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nsdbench.adapters.base import Context
from nsdbench.cells import RunRequest
from nsdbench.data import Dataset, LoadOptions
from nsdbench.metrics.registry import HEADLINE
from nsdbench.runner import execute, summaries
from nsdbench.scoring import ScoreSettings

ANCHORS = {
    "mindeye1": (982, (0.3925, 0.3467, 0.9738, 0.9865, 0.9453, 0.9434, 0.6345, 0.3578)),
    "mindeye2": (1000, (0.3740, 0.4395, 0.9791, 0.9911, 0.9600, 0.9369, 0.6075, 0.3363)),
}
"""Images, and what the authors' notebooks print for them, in the order of the headline metrics."""
TOLERANCE = 0.02  # one draw per image, seeded otherwise, and images at other sizes


@pytest.mark.slow
@pytest.mark.parametrize("model", ANCHORS)
def test_the_published_checkpoint_scores_what_its_authors_print(model: str, tmp_path: Path) -> None:
    root = os.environ.get("NSDBENCH_DATA")
    if root is None or not torch.cuda.is_available():
        pytest.skip("needs the Natural Scenes Dataset (NSDBENCH_DATA), the published weights and a GPU")
    shared, expected = ANCHORS[model]
    request = RunRequest(
        models=(model,),
        splits=("shared1000",),
        subjects=(1,),
        load=LoadOptions(core_norm="session_z", shared=shared),  # type: ignore[arg-type]
        scoring=ScoreSettings(device="cuda"),
        out=tmp_path,
        leaderboard=tmp_path / "leaderboard",
        preset="published",
        n_samples=1,
        context=Context("cuda"),
    )
    (table,) = summaries(execute(Dataset.open(Path(root)), request))
    rows = [row for row in table.to_pylist() if row["subject"] == "1"]
    found = {row["metric"]: row["value"] for row in rows}
    assert [found[metric] for metric in HEADLINE] == pytest.approx(expected, abs=TOLERANCE)
