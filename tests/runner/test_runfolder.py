"""Scores are added to a run folder without losing, mixing or mislabelling what is there."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nsdbench import leaderboard, reconstructions, runfolder, similarity
from nsdbench.errors import DataError
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.runfolder import StoredRun
from nsdbench.schema import Provenance, RunKey
from nsdbench.scoring import ScoreSettings
from nsdbench.store import locked, sha256_file
from nsdbench.types import Reconstructions, Stimuli

IDS = ("img1", "img2", "img3")
MANIFEST = RunManifest(
    RunKey("run", "sim", "model", "mini", 1, "shared1000"), "started", Provenance("simulated", "s", "d"), {}
)


@pytest.fixture
def stimuli(rng: np.random.Generator) -> Stimuli:
    images = {name: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for name in IDS}
    return Stimuli(IDS, ("core",) * 3, frozenset(IDS), images.__getitem__, "hash")


@pytest.fixture
def recon(rng: np.random.Generator) -> Reconstructions:
    return Reconstructions(rng.integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8), IDS[:2])


Score = Callable[..., StoredRun]


@pytest.fixture
def score(tmp_path: Path, stimuli: Stimuli, recon: Reconstructions) -> Score:
    folder = tmp_path / "run"
    reconstructions.save(recon, folder / "reconstructions.h5")

    def add(*metrics: str, before: StoredRun | None = None, **options: object) -> StoredRun:
        settings = replace(ScoreSettings(metrics=metrics, cache=tmp_path), **options)  # type: ignore[arg-type]
        manifest = before.manifest if before else MANIFEST
        return runfolder.score_folder(folder, manifest, before, recon, stimuli, settings)

    return add


def names(run: StoredRun) -> set[str]:
    return set(run.items["metric"].to_pylist())


def test_metrics_that_another_process_added_meanwhile_are_kept(score: Score, tmp_path: Path) -> None:
    score("pixcorr")
    score("gabor_2way", before=None)  # began when nothing was there
    assert names(runfolder.stored(tmp_path / "run")) == {"pixcorr", "gabor_2way"}
    assert similarity.read(tmp_path / "run" / "similarity-nsdbench-v1.npz").matrices.keys() == {
        "pixcorr",
        "gabor_2way",
    }


EXTRA = ("retrieval_image_top1", "caption_rouge1")


def test_a_run_is_complete_without_what_its_model_does_not_give(score: Score) -> None:
    run = score("pixcorr", where_possible=EXTRA)
    assert names(run) == {"pixcorr"}
    assert runfolder.missing_metrics(run, ScoreSettings(metrics=("pixcorr",), where_possible=EXTRA)) == ()
    asked = ScoreSettings(metrics=("pixcorr", *EXTRA))
    assert runfolder.missing_metrics(run, asked) == EXTRA


def test_a_run_lacks_what_its_model_gives_until_it_is_scored(
    tmp_path: Path, stimuli: Stimuli, recon: Reconstructions
) -> None:
    full = replace(
        recon,
        embeddings={"space": np.eye(2, 3, dtype=np.float32)},
        captions=(("a bird",), ("a boat",)),
        gallery={"space": np.eye(3, dtype=np.float32)},
        gallery_ids=IDS,
    )
    described = replace(stimuli, captions={"img1": ("a red bird",)})
    reconstructions.save(full, tmp_path / "reconstructions.h5")
    plain = ScoreSettings(metrics=("pixcorr",), cache=tmp_path)
    wider = replace(plain, where_possible=EXTRA)
    before = runfolder.score_folder(tmp_path, MANIFEST, None, full, described, plain)
    assert runfolder.missing_metrics(before, wider) == EXTRA
    after = runfolder.score_folder(tmp_path, before.manifest, before, full, described, wider)
    assert names(after) == {"pixcorr", *EXTRA}
    assert runfolder.missing_metrics(after, wider) == ()
    assert similarity.read(tmp_path / "similarity-nsdbench-v1.npz").matrices[
        "retrieval_image_top1"
    ].shape == (3, 2, 1)


def test_scores_of_other_reconstructions_are_not_added_to(score: Score, tmp_path: Path) -> None:
    before = score("pixcorr")
    other = Reconstructions(np.full((2, 1, 32, 32, 3), 9, np.uint8), IDS[:2])
    reconstructions.save(other, tmp_path / "run" / "reconstructions.h5")
    with pytest.raises(DataError, match=r"reconstructions\.h5 is not the file"):
        score("ssim", before=before)


def test_a_new_version_of_a_metric_replaces_the_old_scores(score: Score, tmp_path: Path) -> None:
    old = score("pixcorr", "ssim")
    rows = [
        row | ({"metric_version": 0, "value": 0.5} if row["metric"] == "ssim" else {})
        for row in old.items.to_pylist()
    ]
    table = type(old.items).from_pylist(rows, schema=old.items.schema)
    sha256 = sha256_file(tmp_path / "run" / "reconstructions.h5")
    leaderboard.write_items(tmp_path / "run" / "scores.parquet", table, reconstructions=sha256)
    new = score("pixcorr", "ssim", before=runfolder.stored(tmp_path / "run"))
    assert new.items.equals(old.items)


def test_matrices_of_scores_that_are_gone_are_removed(score: Score, tmp_path: Path) -> None:
    score("pixcorr", profile="mindeye")
    (tmp_path / "run" / "run.json").unlink()
    score("pixcorr")
    assert [path.name for path in (tmp_path / "run").glob("*.npz")] == ["similarity-nsdbench-v1.npz"]


def test_matrices_of_another_profile_stay_with_their_scores(score: Score, tmp_path: Path) -> None:
    score("gabor_2way", before=score("pixcorr", profile="mindeye"))
    found = {path.stem: set(similarity.read(path).matrices) for path in (tmp_path / "run").glob("*.npz")}
    assert found == {"similarity-mindeye": {"pixcorr"}, "similarity-nsdbench-v1": {"gabor_2way"}}


def test_the_manifest_names_the_weights_by_hash_and_the_size_of_the_pool(
    score: Score, tmp_path: Path
) -> None:
    score("alexnet2", weights="random")
    manifest = read_manifest(tmp_path / "run")
    assert manifest.weights.keys() == {"random-alexnet"}
    assert len(manifest.weights["random-alexnet"]) == 64
    assert manifest.provenance.n_stimuli == 3


def test_a_partial_result_is_so_labelled_even_without_a_pool(score: Score) -> None:
    run = score("pixcorr")
    row = leaderboard.summarize(run.items, run.manifest.provenance).to_pylist()[0]
    assert (row["pool"], row["n_targets"], row["n_items_null"]) == ("none", 2, 1)


def _hold(folder: Path, log: Path) -> None:
    with locked(folder):
        with log.open("a") as handle:
            handle.write("in ")
        time.sleep(0.1)
        with log.open("a") as handle:
            handle.write("out ")


def test_a_lock_lets_one_process_in_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hold, args=(tmp_path, tmp_path / "log")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3


def test_the_same_metric_under_another_profile_is_another_metric(score: Score) -> None:
    run = score("pixcorr")
    settings = ScoreSettings(metrics=("pixcorr",))
    assert runfolder.missing_metrics(run, settings) == ()
    assert runfolder.missing_metrics(run, replace(settings, profile="mindeye")) == ("pixcorr",)
