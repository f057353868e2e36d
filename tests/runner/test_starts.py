"""Fits from a pretraining, or on some of the trials, are what they say and never pass for the full fit."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from nsdbench import runner, starts
from nsdbench.adapters import registry
from nsdbench.adapters.base import START_FACTS, Context
from nsdbench.adapters.floors import MeanImage
from nsdbench.cells import RunRequest, plan
from nsdbench.compare import compare
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import ProtocolError, UsageError, WeightsError
from nsdbench.manifest import read_manifest
from nsdbench.reconstructions import load as load_reconstructions
from nsdbench.scoring import ScoreSettings
from nsdbench.starts import PretrainRequest
from nsdbench.types import Progress, Stimuli, Trials

WEIGHTS = "grey.npy"


class Sharing(MeanImage):
    """Its shared part is how many trials the subjects have; a fit from it answers with that level of grey."""

    name = "sharing"
    interrupted: ClassVar[bool] = False

    def learn_shared(self, parts: Sequence[tuple[Trials, Stimuli]], folder: Path, progress: Progress) -> None:
        assert self.context.scratch is not None
        self.context.scratch.mkdir(exist_ok=True)
        (self.context.scratch / "half").touch()
        if self.interrupted:
            raise KeyboardInterrupt
        np.save(folder / WEIGHTS, np.uint8(sum(len(trials) for trials, _ in parts) % 251))
        sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        subjects = [trials.subject for trials, _ in parts]
        facts = {"model": self.name, "preset": self.preset, "subjects": subjects, "sha256": sha256}
        (folder / START_FACTS).write_text(json.dumps(facts))

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        super().learn(train, stimuli, progress)
        if self.context.start:
            self.images[:] = np.load(self.context.start / WEIGHTS)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foreign", types.SimpleNamespace(Sharing=Sharing))
    monkeypatch.setitem(registry.ADAPTERS, "sharing", registry.Entry("foreign:Sharing", "for a test"))


@pytest.fixture(scope="module")
def dataset(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


@pytest.fixture
def wanted(tmp_path: Path) -> PretrainRequest:
    return PretrainRequest("sharing", (7,), LoadOptions(), tmp_path / "start")


@pytest.fixture
def request_(tmp_path: Path, sim_cache: Path) -> RunRequest:
    return RunRequest(
        models=("sharing",),
        splits=("vision",),
        subjects=(1,),
        load=LoadOptions(),
        scoring=ScoreSettings(metrics=("pixcorr",), cache=sim_cache),
        out=tmp_path / "runs",
        leaderboard=tmp_path / "runs" / "leaderboard",
    )


def from_start(request: RunRequest, wanted: PretrainRequest) -> RunRequest:
    return replace(request, context=Context(start=wanted.folder))


def test_a_fit_begins_from_what_the_pretraining_left(
    dataset: Dataset, wanted: PretrainRequest, request_: RunRequest
) -> None:
    starts.pretrain(dataset, replace(wanted, train_trials=30))
    (result,) = runner.execute(dataset, from_start(request_, wanted))
    assert np.all(load_reconstructions(result.cell.folder / "reconstructions.h5").images == 30)


def test_a_pretraining_says_what_it_was_made_from(dataset: Dataset, wanted: PretrainRequest) -> None:
    starts.pretrain(dataset, replace(wanted, train_trials=30))
    facts = json.loads((wanted.folder / START_FACTS).read_text())
    assert (facts["model"], facts["preset"], facts["subjects"]) == ("sharing", "standard", [7])
    assert (facts["dataset_hash"], facts["train_trials"]) == (dataset.content_hash, 30)
    assert facts["load"]["beta_version"] == "b3"


def test_unusual_fits_stand_beside_the_full_one_under_their_own_names(
    dataset: Dataset, wanted: PretrainRequest, request_: RunRequest
) -> None:
    starts.pretrain(dataset, wanted)
    tuned = from_start(request_, wanted)
    requests = [request_, replace(request_, train_trials=20), tuned, replace(tuned, train_trials=20)]
    for request in requests:
        runner.execute(dataset, request)
    found = compare([request_.out])
    sha256 = json.loads((wanted.folder / START_FACTS).read_text())["sha256"]
    label = f"pretrained-7-{sha256[:6]}"
    assert {tuple(row["labels"]) for row in found.rows} == {
        ("simulated",),
        ("simulated", "20trials"),
        ("simulated", label),
        ("simulated", "20trials", label),
    }
    counts = {row["preset"]: row["decoder_train_trials"] for row in found.rows}
    every = len(dataset.train(1))
    assert counts == {
        "standard": every,
        "standard+20trials": 20,
        f"standard+{label}": every,
        f"standard+20trials+{label}": 20,
    }
    printed = "\n".join(row[0] for grid in found.grids for band in grid.bands for row in band.rows)
    assert printed.count("sharing") == 4 and printed.count("20trials") == printed.count("pretrained-7") == 2


def test_the_full_fit_keeps_its_name_and_every_run_says_how_it_was_fitted(
    dataset: Dataset, wanted: PretrainRequest, request_: RunRequest
) -> None:
    starts.pretrain(dataset, wanted)
    (plain,) = runner.execute(dataset, request_)
    (tuned,) = runner.execute(dataset, replace(from_start(request_, wanted), train_trials=20))
    assert plain.cell.key.preset == "standard"
    config = read_manifest(plain.cell.folder).config
    assert (config["train_trials"], config["start"]) == (None, None)
    config = read_manifest(tuned.cell.folder).config
    assert config["train_trials"] == 20
    assert (config["start"]["subjects"], config["start"]["model"]) == ([7], "sharing")


def test_another_pretraining_is_another_run(
    dataset: Dataset, wanted: PretrainRequest, request_: RunRequest, tmp_path: Path
) -> None:
    other = replace(wanted, folder=tmp_path / "other", train_trials=31)
    starts.pretrain(dataset, wanted)
    starts.pretrain(dataset, other)
    ids = {plan(dataset, from_start(request_, one))[0].key for one in (wanted, other)}
    assert len(ids) == 2


def test_the_first_trials_are_those_of_the_first_sessions(dataset: Dataset) -> None:
    train = dataset.train(1)
    first = starts.first_trials(train, 25)
    assert np.array_equal(first.betas, train.betas[:25])
    assert np.all(np.diff(train.run) >= 0)
    assert starts.first_trials(train, None) is train


def test_more_trials_than_there_are_is_an_error_that_says_how_many_there_are(
    dataset: Dataset, request_: RunRequest
) -> None:
    every = len(dataset.train(1))
    with pytest.raises(UsageError, match=f"has {every} training trials, not {every + 1}"):
        runner.execute(dataset, replace(request_, train_trials=every + 1))


def test_test_trials_never_enter_a_pretraining(dataset: Dataset, tmp_path: Path) -> None:
    parts = [(dataset.trials(7, "shared1000"), dataset.stimuli("shared1000", 7))]
    with pytest.raises(ProtocolError, match="shared1000"):
        Sharing(context=Context(scratch=tmp_path / "scratch")).pretrain(parts, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_pretraining_keeps_its_state_for_itself_and_drops_it_when_done(
    dataset: Dataset, wanted: PretrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Sharing, "interrupted", True)
        for request in (wanted, wanted, replace(wanted, subjects=(1,))):
            with pytest.raises(KeyboardInterrupt):
                starts.pretrain(dataset, request)
    assert len(list(wanted.folder.parent.glob("start.*.training"))) == 2
    starts.pretrain(dataset, wanted)
    assert len(list(wanted.folder.parent.glob("start.*.training"))) == 1
    assert {path.name for path in wanted.folder.iterdir()} == {WEIGHTS, START_FACTS}


def test_a_folder_that_exists_is_not_written_to(dataset: Dataset, wanted: PretrainRequest) -> None:
    wanted.folder.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        starts.pretrain(dataset, wanted)


def test_missing_weights_are_named_before_anything_is_learnt(
    dataset: Dataset, wanted: PretrainRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Sharing, "requires", {"standard": ("clip-vit-l14-openai",)})
    with pytest.raises(WeightsError, match=r"ViT-L-14\.pt"):
        starts.pretrain(dataset, replace(wanted, context=Context(weights_dir=tmp_path / "empty")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": "sharing", "preset": "standard"}'])
def test_a_folder_without_a_pretraining_is_refused(
    dataset: Dataset, request_: RunRequest, tmp_path: Path, content: str
) -> None:
    (tmp_path / START_FACTS).write_text(content)
    with pytest.raises(UsageError, match="holds no pretraining"):
        plan(dataset, replace(request_, context=Context(start=tmp_path)))


def test_a_pretraining_of_another_model_or_preset_is_refused(
    dataset: Dataset, wanted: PretrainRequest, request_: RunRequest
) -> None:
    starts.pretrain(dataset, wanted)
    path = wanted.folder / START_FACTS
    for change, words in (({"model": "mindeye2"}, "mindeye2-standard"), ({"preset": "huge"}, "sharing-huge")):
        path.write_text(json.dumps({**json.loads(path.read_text()), "model": "sharing", **change}))
        with pytest.raises(UsageError, match=words):
            plan(dataset, from_start(request_, wanted))


def test_a_model_without_a_shared_part_cannot_begin_from_one(
    dataset: Dataset, wanted: PretrainRequest, request_: RunRequest
) -> None:
    starts.pretrain(dataset, wanted)
    with pytest.raises(UsageError, match="ridge cannot begin"):
        plan(dataset, replace(from_start(request_, wanted), models=("ridge",)))


def test_a_published_checkpoint_is_never_said_to_be_fitted_on_some_trials(
    dataset: Dataset, request_: RunRequest
) -> None:
    request = replace(request_, models=("mindeye1",), preset="published", train_trials=20)
    with pytest.raises(UsageError, match="nothing is fitted") as error:
        plan(dataset, request)
    assert "retrained or mini" in error.value.remedy
