"""Small run folders, made by hand: no decoder and no network is needed to look at a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from nsdbench import leaderboard, reconstructions, similarity
from nsdbench.manifest import RunManifest
from nsdbench.reconstructions import read_targets
from nsdbench.schema import ITEMS, Provenance, RunKey
from nsdbench.types import Reconstructions

TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
METRICS = (("ssim", "none"), ("mini_clip", "AB12"), ("mini_clip", "within6"), ("mini_swav", "none"))
SIZE = 16
MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture per target."""
    folder = tmp_path_factory.mktemp("targets")
    rng = np.random.default_rng(1)
    for target in TARGETS:
        Image.fromarray(rng.integers(0, 256, (120, 120, 3), np.uint8)).save(folder / f"{target}.png")
    return folder


@pytest.fixture(scope="session")
def make_run(target_folder: Path) -> MakeRun:
    """Factory of complete run folders below a path."""
    stimuli = read_targets(target_folder)

    def make(
        root: Path,
        model: str = "ridge",
        *,
        split: str = "vision",
        subject: int = 1,
        dataset: str = "sim",
        n_samples: int = 2,
        targets: tuple[str, ...] = TARGETS,
        quality: float = 0.6,
        metrics: tuple[tuple[str, str], ...] = METRICS,
        matrices: bool = True,
        origin: dict[str, Any] | None = None,
        **manifest: Any,
    ) -> Path:
        key = RunKey(f"{model}{subject}{split}", dataset, model, "mini", subject, split)
        folder = root / dataset / model / f"subj{subject:02d}" / split / key.run_id
        rng = np.random.default_rng([subject, len(model), split == "vision"])
        status = {"sim": "simulated"}.get(dataset, "measured")
        facts = {"status": status, "stimulus_hash": stimuli.content_hash, "dataset_hash": "data"}
        facts |= {"created_at": "2026-01-01", "nsdbench_version": "0.1.0", "git_commit": "abc"}
        manifest = {"config": {"seed": 0, "n_samples": n_samples}, "targets": list(targets)} | manifest
        RunManifest(key, "complete", Provenance(**facts | (origin or {})), **manifest).write(folder)
        values = {pair: rng.normal(quality, 0.1, (len(targets), n_samples)) for pair in metrics}
        shape = (len(targets), n_samples, SIZE, SIZE, 3)
        images = rng.integers(0, 256, shape, np.uint8)
        reconstructions.save(Reconstructions(images, targets), folder / reconstructions.FILENAME)
        if matrices:
            r = rng.normal(0, 0.1, (len(TARGETS), len(targets), n_samples))
            r[[TARGETS.index(target) for target in targets], np.arange(len(targets))] += quality / 4
            named = {metric: r for metric, pool in metrics if pool == "AB12"}
            found = similarity.Similarities(named, TARGETS, targets)
            similarity.write(folder / similarity.file_name("nsdbench-v1"), found)
            values |= {(m, pool): _identified(r, targets, pool) for m, pool in metrics if m in named}
        leaderboard.write_items(folder / "scores.parquet", _items(key, targets, values))
        return folder

    return make


def _identified(r: Any, targets: tuple[str, ...], pool: str) -> Any:
    """Return the two-way scores of similarities, shape (n_targets, n_samples)."""
    out = np.empty(r.shape[1:])
    for row, target in enumerate(targets):
        others = [t for t in TARGETS if pool == "AB12" or t[0] == target[0]]
        own = r[TARGETS.index(target), row]
        out[row] = [
            np.mean([r[TARGETS.index(t), row, k] < own[k] for t in others if t != target])
            for k in range(len(own))
        ]
    return out


def _items(key: RunKey, targets: tuple[str, ...], values: dict[tuple[str, str], Any]) -> pa.Table:
    rows = [
        {
            "run_id": key.run_id, "dataset": key.dataset, "model": key.model, "preset": key.preset,
            "subject": key.subject, "split": key.split,
            "stimulus_set": target[0] if target in TARGETS else "external",
            "stimulus": target, "sample": sample, "metric": metric, "metric_version": 1,
            "metric_profile": "nsdbench-v1", "pool": pool, "value": float(values[metric, pool][row, sample]),
            "floor": 0.5, "reason": None,
        }
        for metric, pool in values
        for row, target in enumerate(targets)
        for sample in range(values[metric, pool].shape[1])
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=ITEMS)


@pytest.fixture(scope="session")
def runs(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a floor on both splits, two subjects each."""
    root = tmp_path_factory.mktemp("runs")
    for model, quality in (("icnn", 0.8), ("ridge", 0.6), ("random_image", 0.5)):
        for split in ("vision", "imagery"):
            for subject in (1, 2):
                worse = 0.1 * (split == "imagery" and model != "random_image")
                make_run(root, model, split=split, subject=subject, quality=quality - worse)
    return root


@pytest.fixture
def damaged(make_run: MakeRun, tmp_path: Path) -> Iterator[Path]:
    """A run folder whose reconstructions are cut off."""
    folder = make_run(tmp_path / "damaged")
    file = folder / reconstructions.FILENAME
    file.write_bytes(file.read_bytes()[:1000])
    yield folder
