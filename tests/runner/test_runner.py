"""Runs are keyed by content, resumable, and never mix what must stay apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from nsdbench import leaderboard, runfolder, runner, stages
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.floors import MeanImage
from nsdbench.cells import RunRequest, plan
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import DataError, ProtocolError, WeightsError
from nsdbench.manifest import read_manifest
from nsdbench.reconstructions import load as load_reconstructions
from nsdbench.scoring import ScoreSettings
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli, Trials


@pytest.fixture(scope="module")
def dataset(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


@pytest.fixture
def request_(tmp_path: Path, sim_cache: Path) -> RunRequest:
    return RunRequest(
        models=("mean_image", "random_image"),
        splits=("vision", "imagery"),
        subjects=(1,),
        load=LoadOptions(),
        scoring=ScoreSettings(metrics=("pixcorr", "pixel_2way"), cache=sim_cache),
        out=tmp_path / "runs",
        leaderboard=tmp_path / "runs" / "leaderboard",
        n_samples=2,
    )


Register = Callable[[type[Adapter]], None]


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Make a class available as a model under its own name."""

    def register(adapter: type[Adapter]) -> None:
        monkeypatch.setitem(sys.modules, "foreign", types.SimpleNamespace(Model=adapter))
        monkeypatch.setitem(registry.ADAPTERS, adapter.name, registry.Entry("foreign:Model", "for a test"))

    return register


def item_values(folder: Path) -> list[tuple[object, ...]]:
    """All item scores below ``folder``, without what differs between two executions."""
    rows: list[tuple[object, ...]] = []
    for path in sorted(folder.rglob("scores.parquet")):
        rows += [tuple(row.values()) for row in leaderboard.read_items(path).to_pylist()]
    return rows


def test_every_cell_ends_complete_with_scores_and_manifest(dataset: Dataset, request_: RunRequest) -> None:
    results = runner.execute(dataset, request_)
    assert len(results) == 4
    for result in results:
        manifest = read_manifest(result.cell.folder)
        assert manifest.status == "complete"
        assert manifest.provenance.status == "simulated"
        assert manifest.targets == [f"{s}{i}" for s in "AB" for i in range(1, 7)]
        recon = load_reconstructions(result.cell.folder / "reconstructions.h5")
        assert recon.n_samples == (2 if result.cell.key.model == "random_image" else 1)
        assert set(result.run.items["split"].to_pylist()) == {result.cell.key.split}


class Seer(MeanImage):
    """Decodes embeddings (the truth, of all things) and captions beside its image."""

    name = "seer"

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        recon = super().generate(trials, n_samples, seed, progress)
        captions = (("a bird by the sea",) * n_samples,) * recon.n_targets
        return replace(recon, embeddings=self.embed(None, recon.targets), captions=captions)  # type: ignore[arg-type]

    def embed(
        self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None
    ) -> dict[str, NDArray[np.float32]]:
        return {"letters": np.array([[ord(c) for c in id] for id in ids], np.float32)}


def test_what_a_model_gives_besides_images_is_kept_scored_and_resumed(
    dataset: Dataset, request_: RunRequest, foreign: Register
) -> None:
    foreign(Seer)
    extra = ("retrieval_image_top1", "caption_rouge1")
    wider = replace(request_.scoring, metrics=("pixcorr",), where_possible=extra)
    request = replace(request_, models=("mean_image", "seer"), splits=("vision",), scoring=wider)
    plain, seer = runner.execute(dataset, request)
    assert set(plain.run.items["metric"].to_pylist()) == {"pixcorr"}
    assert set(seer.run.items["metric"].to_pylist()) == {"pixcorr", *extra}
    recon = load_reconstructions(seer.cell.folder / "reconstructions.h5")
    assert recon.gallery_ids == recon.targets
    assert np.array_equal(recon.gallery["letters"], recon.embeddings["letters"])
    rows = [row for row in seer.run.items.to_pylist() if row["metric"] == "retrieval_image_top1"]
    assert [row["value"] for row in rows] == [1.0] * 24
    assert all(result.reused for result in runner.execute(dataset, request))


def test_the_same_request_is_reused_without_touching_a_file(dataset: Dataset, request_: RunRequest) -> None:
    first = runner.execute(dataset, request_)
    stamps = {p: p.stat().st_mtime_ns for p in request_.out.rglob("*.h5")}
    second = runner.execute(dataset, request_)
    assert all(result.reused for result in second)
    assert stamps == {p: p.stat().st_mtime_ns for p in request_.out.rglob("*.h5")}
    assert [r.run.items.to_pylist() for r in first] == [r.run.items.to_pylist() for r in second]


def test_another_metric_is_added_without_reconstructing_again(dataset: Dataset, request_: RunRequest) -> None:
    first = runner.execute(dataset, request_)
    stamps = {p: p.stat().st_mtime_ns for p in request_.out.rglob("*.h5")}
    wider = replace(request_, scoring=replace(request_.scoring, metrics=("pixcorr", "ssim")))
    second = runner.execute(dataset, wider)
    assert stamps == {p: p.stat().st_mtime_ns for p in request_.out.rglob("*.h5")}
    assert not any(result.reused for result in second)
    for before, after in zip(first, second, strict=True):
        old = before.run.items.to_pylist()
        assert [row for row in after.run.items.to_pylist() if row["metric"] != "ssim"] == old
        assert "ssim" in after.run.items["metric"].to_pylist()


def test_fresh_and_resumed_runs_give_the_same_scores(dataset: Dataset, request_: RunRequest) -> None:
    runner.execute(dataset, request_)
    first = item_values(request_.out)
    runner.execute(dataset, replace(request_, fresh=True))
    assert item_values(request_.out) == first


def test_a_metric_that_cannot_be_added_leaves_the_finished_run_as_it_was(
    dataset: Dataset, request_: RunRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = runner.execute(dataset, request_)

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runfolder, "score", broken)
    wider = replace(request_, scoring=replace(request_.scoring, metrics=("pixcorr", "ssim")))
    with pytest.raises(RuntimeError):
        runner.execute(dataset, wider)
    monkeypatch.undo()
    again = runner.execute(dataset, request_)
    assert all(result.reused for result in again)
    assert [r.run.items.to_pylist() for r in first] == [r.run.items.to_pylist() for r in again]


def test_scores_of_random_networks_never_replace_others(dataset: Dataset, request_: RunRequest) -> None:
    request = replace(request_, models=("mean_image",))
    runner.execute(dataset, request)
    untrained = replace(request, scoring=replace(request.scoring, weights="random"))
    assert not any(result.reused for result in runner.execute(dataset, untrained))
    assert all(result.reused for result in runner.execute(dataset, request))


def test_missing_weights_are_refused_before_anything_is_computed(
    dataset: Dataset, request_: RunRequest, tmp_path: Path
) -> None:
    scoring = replace(request_.scoring, metrics=("pixcorr", "clip"), weights_dir=tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"ViT-L-14\.pt"):
        runner.execute(dataset, replace(request_, scoring=scoring))
    assert not request_.out.exists()


def test_missing_weights_of_a_model_are_refused_before_anything_is_computed(
    dataset: Dataset, request_: RunRequest, foreign: Register, tmp_path: Path
) -> None:
    class Hungry(MeanImage):
        name = "hungry"
        requires: ClassVar = {"standard": ("clip-vit-l14-openai",)}

    foreign(Hungry)
    context = Context(weights_dir=tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"ViT-L-14\.pt"):
        runner.execute(dataset, replace(request_, models=("mean_image", "hungry"), context=context))
    assert not request_.out.exists()


def test_fresh_fits_once_per_subject_and_resuming_not_at_all(
    dataset: Dataset, request_: RunRequest, foreign: Register
) -> None:
    fits = []

    class Counting(MeanImage):
        name = "counting"

        def learn(self, train, stimuli, progress):  # type: ignore[no-untyped-def]
            fits.append(train.subject)
            super().learn(train, stimuli, progress)

        def generate(self, trials, n_samples, seed, progress):  # type: ignore[no-untyped-def]
            if trials.split == "vision":
                raise ValueError("vision fails, which must not cost imagery its fit")
            return super().generate(trials, n_samples, seed, progress)

    foreign(Counting)
    request = replace(request_, models=("counting",), subjects=(1, 7))
    for fresh in (False, False, True):
        with pytest.raises(ValueError, match="vision fails"):
            runner.execute(dataset, replace(request, fresh=fresh))
    assert fits == [1, 7, 1, 7]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"n_samples": 3},
        {"load": LoadOptions(imagery_norm="none")},
        {"load": LoadOptions(imagery_runs="2")},
    ],
)
def test_what_changes_numbers_changes_the_run_id(
    dataset: Dataset, request_: RunRequest, change: dict
) -> None:
    request = replace(request_, models=("random_image",))
    ids = {c.key.run_id for c in plan(dataset, request)}
    assert not ids & {c.key.run_id for c in plan(dataset, replace(request, **change))}


def test_the_seed_touches_neither_the_fit_nor_a_model_that_draws_nothing(
    dataset: Dataset, request_: RunRequest
) -> None:
    cells = {c.key.model: c for c in plan(dataset, request_)}
    reseeded = {c.key.model: c for c in plan(dataset, replace(request_, seed=1))}
    assert reseeded["random_image"].fit_folder == cells["random_image"].fit_folder
    assert reseeded["random_image"].key != cells["random_image"].key
    assert reseeded["mean_image"].key == cells["mean_image"].key


def test_imagery_options_never_touch_the_fit(dataset: Dataset, request_: RunRequest) -> None:
    fits = {c.fit_folder for c in plan(dataset, request_)}
    for load in (
        LoadOptions(imagery_norm="none"),
        LoadOptions(imagery_runs="1"),
        LoadOptions(label_source="cue"),
    ):
        assert {c.fit_folder for c in plan(dataset, replace(request_, load=load))} == fits


def test_vision_and_imagery_of_a_subject_share_one_fit(dataset: Dataset, request_: RunRequest) -> None:
    cells = plan(dataset, replace(request_, models=("mean_image",)))
    assert len({c.fit_folder for c in cells}) == 1
    assert {c.key.split for c in cells} == {"vision", "imagery"}


def test_single_trials_fill_the_sample_axis(dataset: Dataset, request_: RunRequest) -> None:
    request = replace(request_, models=("mean_image",), load=LoadOptions(average="none"))
    samples = {
        result.cell.key.split: load_reconstructions(result.cell.folder / "reconstructions.h5").n_samples
        for result in runner.execute(dataset, request)
    }
    assert samples == {"vision": 8, "imagery": 16}


@pytest.mark.parametrize("error", [DataError("not to my taste"), ValueError("a bug")])
def test_a_failing_cell_is_recorded_and_the_others_still_run(
    dataset: Dataset, request_: RunRequest, foreign: Register, error: Exception
) -> None:
    class Broken(MeanImage):
        name = "broken"

        def generate(self, trials, n_samples, seed, progress):  # type: ignore[no-untyped-def]
            if trials.split == "vision":
                raise error
            return super().generate(trials, n_samples, seed, progress)

    foreign(Broken)
    with pytest.raises(type(error), match=str(error)):
        runner.execute(dataset, replace(request_, models=("broken", "mean_image")))
    states = {}
    for path in request_.out.rglob("run.json"):
        manifest = read_manifest(path.parent)
        states[manifest.key.model, manifest.key.split] = (manifest.status, manifest.error)
    assert states["broken", "vision"] == ("failed", f"{type(error).__name__}: {error}")
    assert {key for key, (status, _) in states.items() if status == "complete"} == {
        ("broken", "imagery"), ("mean_image", "vision"), ("mean_image", "imagery"),
    }  # fmt: skip
    rows = leaderboard.read(request_.leaderboard / "imagery").to_pylist()
    assert {row["model"] for row in rows} == {"broken", "mean_image"}


def test_a_file_that_cannot_be_written_ends_the_run_at_once(dataset: Dataset, request_: RunRequest) -> None:
    request_.out.parent.mkdir(parents=True, exist_ok=True)
    request_.out.write_text("a file where the folder should be")
    said: list[str] = []
    with pytest.raises(OSError, match="runs"):
        runner.execute(dataset, request_, say=said.append)
    assert not said


def test_unequal_repeats_cannot_be_scored_as_single_trials(dataset: Dataset, request_: RunRequest) -> None:
    cell = plan(dataset, replace(request_, models=("mean_image",)))[0]
    trials = dataset.trials(1, "vision", LoadOptions(average="none")).of_stimuli(["A1", "A2"])
    uneven = trials.select(np.arange(1, len(trials)))
    model = MeanImage()
    model.fit(dataset.train(1), dataset.stimuli("train", 1))
    with pytest.raises(ProtocolError, match="is missing for"):
        stages._reconstruct(model, uneven, cell, Silent())


def command(tiny_root: Path, sim_cache: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "nsdbench", "run", "--model", "ridge,random_image", "--split", "both", "--subject", "1",
        "--data-dir", str(tiny_root), "--cache", str(sim_cache), "--samples", "2", "--metrics", "pixcorr,pixel_2way",
        "--out", str(out),
    ]  # fmt: skip


def stop_at(milestone: str, arguments: list[str], out: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a run, send it a signal as soon as a file of this name exists, return exit code and stderr."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and not list(out.rglob(milestone)) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be stopped"
    while True:
        os.killpg(process.pid, number)
        try:
            _, messages = process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            continue  # a library may have swallowed the signal; a person would press Ctrl-C again
        return process.returncode, messages


@pytest.fixture(scope="module")
def undisturbed(
    tiny_root: Path, sim_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[object, ...]]:
    """The scores that :func:`command` ends with if nobody disturbs it."""
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(tiny_root, sim_cache, out), check=True, stderr=subprocess.DEVNULL)
    return item_values(out)


@pytest.mark.parametrize("milestone", ["fit.json", "run.json", "reconstructions.h5", "scores.parquet"])
def test_a_killed_run_resumes_to_the_identical_result(
    tiny_root: Path, sim_cache: Path, tmp_path: Path, milestone: str, undisturbed: list[tuple[object, ...]]
) -> None:
    arguments = command(tiny_root, sim_cache, tmp_path)
    stop_at(milestone, arguments, tmp_path, signal.SIGKILL)
    subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
    assert item_values(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("*.tmp*"))[1:], (
        "more than the one file that was being written is left behind"
    )


def test_an_interrupted_run_says_so_and_leaves_nothing_unfinished_behind(
    tiny_root: Path, sim_cache: Path, tmp_path: Path
) -> None:
    # enough samples that the run is still busy when the signal arrives, however loaded the machine is
    arguments = [*command(tiny_root, sim_cache, tmp_path), "--samples", "200"]
    code, messages = stop_at("fit.json", arguments, tmp_path, signal.SIGINT)
    assert code == 130
    assert "the same command continues" in messages and "Traceback" not in messages
    assert not list(tmp_path.rglob("*.tmp*"))


def test_two_identical_runs_at_once_both_succeed_and_agree(
    tiny_root: Path, sim_cache: Path, tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    arguments = command(tiny_root, sim_cache, tmp_path)
    both = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, messages = process.communicate()
        assert process.returncode == 0, messages
    assert item_values(tmp_path) == undisturbed


def test_scores_of_one_imagery_run_are_not_comparable_with_those_of_both(
    dataset: Dataset, request_: RunRequest
) -> None:
    both = replace(request_, models=("mean_image",), scoring=replace(request_.scoring, metrics=("pixcorr",)))
    half = replace(both, load=LoadOptions(imagery_runs="2"))
    keys: dict[str, list[set[str]]] = {"vision": [], "imagery": []}
    for wanted in (both, half):
        for result in runner.execute(dataset, wanted):
            rows = leaderboard.summarize(result.run.items, result.run.manifest.provenance)
            keys[result.cell.key.split].append(set(rows["protocol_key"].to_pylist()))
    assert keys["vision"][0] == keys["vision"][1]
    assert not keys["imagery"][0] & keys["imagery"][1]
