"""What the runner does around a fit: the state of an unfinished one, and models that take published checkpoints instead."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from nsdbench import runner
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.floors import MeanImage
from nsdbench.cells import RunRequest, plan
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import UsageError, WeightsError
from nsdbench.manifest import read_manifest
from nsdbench.scoring import ScoreSettings
from nsdbench.types import Progress, Reconstructions, Stimuli, Trials

Register = Callable[[type[Adapter]], None]


@pytest.fixture(scope="module")
def dataset(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


@pytest.fixture
def request_(tmp_path: Path, sim_cache: Path) -> RunRequest:
    return RunRequest(
        models=("slow",),
        splits=("vision",),
        subjects=(1,),
        load=LoadOptions(),
        scoring=ScoreSettings(metrics=("pixcorr",), cache=sim_cache),
        out=tmp_path / "runs",
        leaderboard=tmp_path / "board",
        n_samples=1,
    )


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Register:
    def register(adapter: type[Adapter]) -> None:
        monkeypatch.setitem(sys.modules, "foreign", types.SimpleNamespace(Model=adapter))
        monkeypatch.setitem(registry.ADAPTERS, adapter.name, registry.Entry("foreign:Model", "for a test"))

    return register


class Slow(MeanImage):
    """Needs three goes for a fit, and counts them in its scratch folder."""

    name = "slow"
    found: ClassVar[list[int]] = []

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        assert self.context.scratch is not None
        state = self.context.scratch / "state"
        goes = int(state.read_text()) if state.is_file() else 0
        self.found.append(goes)
        if goes < 2:
            self.context.scratch.mkdir(parents=True, exist_ok=True)
            state.write_text(str(goes + 1))
            raise KeyboardInterrupt
        super().learn(train, stimuli, progress)


@pytest.fixture
def slow(foreign: Register) -> type[Slow]:
    Slow.found.clear()
    foreign(Slow)
    return Slow


def scratches(request: RunRequest) -> list[Path]:
    return list(request.out.rglob("*.training"))


def test_an_interrupted_fit_finds_its_state_again_and_drops_it_when_done(
    dataset: Dataset, request_: RunRequest, slow: type[Slow]
) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.execute(dataset, request_)
        assert len(scratches(request_)) == 1
    runner.execute(dataset, request_)
    assert slow.found == [0, 1, 2]
    assert scratches(request_) == []


def test_the_state_of_one_fit_is_not_that_of_another(
    dataset: Dataset, request_: RunRequest, slow: type[Slow]
) -> None:
    for change in ({}, {"subjects": (7,)}, {"train_trials": 100}, {"load": LoadOptions(core_norm="none")}):
        with pytest.raises(KeyboardInterrupt):
            runner.execute(dataset, replace(request_, **change))  # type: ignore[arg-type]
    assert slow.found == [0, 0, 0, 0]
    assert len(scratches(request_)) == 4


def test_fresh_forgets_the_state_of_an_interrupted_fit(
    dataset: Dataset, request_: RunRequest, slow: type[Slow]
) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.execute(dataset, replace(request_, fresh=True))
    assert slow.found == [0, 0]


class Published(MeanImage):
    """Takes what was published for a subject: a shade of grey."""

    name = "published_grey"
    presets = ("published", "standard")
    adopted: ClassVar[list[int]] = []

    @classmethod
    def learns(cls, preset: str) -> bool:
        return preset != "published"

    @classmethod
    def required(cls, preset: str, subject: int) -> tuple[str, ...]:
        if not cls.learns(preset) and subject != 1:
            raise WeightsError(f"nothing was published for subject {subject}")
        return ()

    def adopt(self, subject: int) -> None:
        if self.learns(self.preset):
            super().adopt(subject)
        self.adopted.append(subject)
        self.n_voxels = 655

    def save(self, folder: Path) -> None:
        (folder / "name.json").write_text(json.dumps("grey"))

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Published:
        model = cls(preset, context)
        assert json.loads((folder / "name.json").read_text()) == "grey"
        model.n_voxels = 655
        return model

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        ramp = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
        return Reconstructions(np.tile(ramp, (len(trials), n_samples, 1, 1, 1)), trials.targets)


@pytest.fixture
def published(foreign: Register) -> type[Published]:
    Published.adopted.clear()
    foreign(Published)
    return Published


def test_a_model_that_learns_nothing_adopts_once_and_reads_no_core_trials(
    dataset: Dataset, request_: RunRequest, published: type[Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise AssertionError("core trials were read")

    monkeypatch.setattr(Dataset, "train", unavailable)
    request = replace(request_, models=("published_grey",), splits=("vision", "imagery"), preset="published")
    results = runner.execute(dataset, request)
    assert published.adopted == [1]
    manifest = read_manifest(results[0].cell.folder)
    assert manifest.provenance.decoder_train_trials is None
    assert manifest.provenance.n_voxels == 655
    assert manifest.status == "complete"


def test_preparation_of_core_trials_does_not_touch_what_is_adopted(
    dataset: Dataset, request_: RunRequest, published: type[Published]
) -> None:
    request = replace(request_, models=("published_grey",), preset="published")
    loads = (LoadOptions(), LoadOptions(core_norm="none"))
    fits = {plan(dataset, replace(request, load=load))[0].fit_folder for load in loads}
    assert len(fits) == 1


def test_a_subject_for_whom_nothing_was_published_is_named_before_anything_runs(
    dataset: Dataset, request_: RunRequest, published: type[Published]
) -> None:
    request = replace(request_, models=("published_grey",), subjects=(1, 7), preset="published")
    with pytest.raises(WeightsError, match="nothing was published for subject 7"):
        runner.execute(dataset, request)
    assert not request.out.exists()
    with pytest.raises(UsageError, match="preset standard of published_grey has to be fitted"):
        published("standard").adopt(1)
