"""Small item tables for the leaderboard tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nsdbench import leaderboard
from nsdbench.schema import ITEMS, Provenance

TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
Make = Callable[..., pa.Table]
Write = Callable[..., Path]


def _items(
    value: Callable[[str, int, int], float] | float = 0.5,
    *,
    model: str = "ridge",
    subjects: tuple[int, ...] = (1,),
    split: str = "imagery",
    metrics: tuple[tuple[str, str], ...] = (("pixcorr", "none"), ("alexnet2", "AB12")),
    targets: tuple[str, ...] = TARGETS,
    n_samples: int = 2,
    **constant: Any,
) -> pa.Table:
    """Return items whose value is ``value(stimulus, sample, subject)`` in every metric."""
    rows = [
        {
            "run_id": f"{model}-{subject}-{split}",
            "dataset": "sim",
            "model": model,
            "preset": "mini",
            "subject": subject,
            "split": split,
            "stimulus_set": stimulus[0] if stimulus[0] in "AB" else "core",
            "stimulus": stimulus,
            "sample": sample,
            "metric": metric,
            "metric_version": 1,
            "metric_profile": "nsdbench-v1",
            "pool": pool,
            "value": value(stimulus, sample, subject) if callable(value) else value,
            "floor": 0.1 if pool == "none" else None,
            "reason": None,
            **constant,
        }
        for subject in subjects
        for metric, pool in metrics
        for stimulus in targets
        for sample in range(n_samples)
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


@pytest.fixture
def make_items() -> Make:
    """Factory of item tables."""
    return _items


@pytest.fixture
def noisy(rng: np.random.Generator) -> Callable[[str, int, int], float]:
    """A value per item that depends on the item only."""
    table = {(t, k, s): float(rng.normal(0.5, 0.1)) for t in TARGETS for k in range(10) for s in range(1, 9)}
    return lambda stimulus, sample, subject: table[stimulus, sample, subject]


@pytest.fixture
def origin() -> Provenance:
    """Provenance of a simulated run."""
    return Provenance(
        "simulated",
        "stimuli",
        "data",
        beta_version="b3",
        normalization="run_z",
        averaging="mean",
        created_at="2026-01-01",
    )


@pytest.fixture
def write_run(tmp_path: Path, make_items: Make, origin: Provenance) -> Write:
    """Factory of run folders as the runner leaves them."""

    def write(
        value: Any = 0.5,
        *,
        model: str = "ridge",
        subject: int = 1,
        split: str = "imagery",
        status: str = "complete",
        name: str = "",
        provenance: Provenance = origin,
        **more: Any,
    ) -> Path:
        run_id = name or f"{model}-{subject}-{split}"
        folder = tmp_path / "runs" / "sim" / f"{model}-mini" / f"subj{subject:02d}" / split / run_id
        folder.mkdir(parents=True)
        items = make_items(value, model=model, subjects=(subject,), split=split, run_id=run_id, **more)
        leaderboard.write_items(folder / "scores.parquet", items)
        document = {"status": status, "run_id": run_id, "provenance": asdict(provenance)}
        (folder / "run.json").write_text(json.dumps(document))
        return folder

    return write
