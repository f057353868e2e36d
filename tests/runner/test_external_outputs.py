"""Embeddings and captions that come with reconstructions made elsewhere are scored and tell runs apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nsdbench import external, reconstructions
from nsdbench.external import ScoreJob, Truth
from nsdbench.scoring import ScoreSettings
from nsdbench.types import Reconstructions

IDS = ("img1", "img2", "img3")
METRICS = ("retrieval_image_top1", "retrieval_brain_top1")


@pytest.fixture
def recon(rng: np.random.Generator) -> Reconstructions:
    return Reconstructions(
        rng.integers(0, 256, (3, 2, 16, 16, 3), dtype=np.uint8),
        IDS,
        embeddings={"space": np.eye(3, dtype=np.float32)},
        gallery={"space": np.eye(3, dtype=np.float16)},
        gallery_ids=IDS,
    )


@pytest.fixture
def truth(tmp_path: Path, rng: np.random.Generator) -> Truth:
    (tmp_path / "targets").mkdir()
    for id in IDS:
        image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "targets" / f"{id}.png")
    return Truth(None, tmp_path / "targets")


def score(recon: Reconstructions, truth: Truth, folder: Path) -> external.ScoredPath:
    reconstructions.save(recon, folder / "mine.h5")
    job = ScoreJob(folder / "mine.h5", "vision", 1, "mine", folder / "runs", folder / "board")
    settings = ScoreSettings(metrics=("pixel_2way",), cache=folder, where_possible=METRICS)
    return external.score_external(job, truth, settings)


def test_a_file_with_embeddings_is_scored_by_them(
    recon: Reconstructions, truth: Truth, tmp_path: Path
) -> None:
    rows = score(recon, truth, tmp_path).rows
    found = {row["metric"]: (row["value"], row["chance"], row["n_samples"]) for row in rows}
    assert {name: found[name] for name in METRICS} == dict.fromkeys(METRICS, (1.0, pytest.approx(1 / 3), 1))
    assert found["pixel_2way"][2] == 2


def test_a_file_without_them_has_no_such_rows(recon: Reconstructions, truth: Truth, tmp_path: Path) -> None:
    bare = Reconstructions(recon.images, recon.targets)
    assert {row["metric"] for row in score(bare, truth, tmp_path).rows} == {"pixel_2way"}


def test_equal_images_with_other_embeddings_or_captions_are_another_run(
    recon: Reconstructions, truth: Truth, tmp_path: Path
) -> None:
    variants = [
        recon,
        replace(recon, embeddings={"space": -np.eye(3, dtype=np.float32)}),
        replace(recon, gallery={"space": -np.eye(3, dtype=np.float16)}),
        replace(recon, captions=(("a", "b"),) * 3),
        Reconstructions(recon.images, recon.targets),
    ]
    folders = [score(one, truth, tmp_path).folder for one in (*variants, recon)]
    assert len(set(folders)) == len(variants)
    assert folders[0] == folders[-1]
