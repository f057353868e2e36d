"""Features prepared before any fit: in shares, for models that learn from them, with a fit that finds them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from nsdbench.adapters import featurefiles, featurestore
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.featurefiles import SHARD
from nsdbench.adapters.featurestore import FeatureStore, Kind
from nsdbench.cells import RunRequest
from nsdbench.cli import app
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import DataError, UsageError, WeightsError
from nsdbench.preparation.features import FeaturesRequest, Share, prepare_features, require_preparable
from nsdbench.runner import execute
from nsdbench.scoring import ScoreSettings
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli, Trials


@pytest.fixture(scope="module")
def dataset(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


@pytest.fixture
def request_(tmp_path: Path) -> FeaturesRequest:
    return FeaturesRequest(("icnn",), (1, 7), LoadOptions(), Context(features=tmp_path / "features"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurefiles, "SHARD", 64)
    monkeypatch.setattr("nsdbench.preparation.features.SHARD", 64)


@given(n=st.integers(0, 2000), of=st.integers(1, 9))
def test_shares_are_whole_files_that_together_are_everything_once(n: int, of: int) -> None:
    ids = [f"img{k:05d}" for k in range(n)]
    shares = [Share(number, of).take(ids) for number in range(1, of + 1)]
    assert sorted(itertools.chain(*shares)) == ids
    files = [tuple(ids[start : start + SHARD]) for start in range(0, n, SHARD)]
    for share in shares:
        assert {share[start : start + SHARD] for start in range(0, len(share), SHARD)} <= set(files)
    sizes = [-(-len(share) // SHARD) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Share.parse(text)
    assert Share.parse("2/3") == Share(2, 3)


@pytest.mark.usefixtures("small_shards")
def test_jobs_fill_the_store_together_and_the_whole_finds_nothing_left(
    dataset: Dataset, request_: FeaturesRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for number in (1, 2):
        plans = prepare_features(dataset, replace(request_, share=Share(number, 2)))
        assert [plan.subject for plan in plans] == [1, 7]
        counts.append([len(plan.ids) for plan in plans])
    totals = [len(dataset.stimuli("train", subject).ids) for subject in (1, 7)]
    assert np.sum(counts, axis=0).tolist() == totals
    assert np.min(counts) > 0
    monkeypatch.setattr(featurestore, "resized", lambda *_: pytest.fail("computed again"))
    plans = prepare_features(dataset, request_)
    assert [len(plan.ids) for plan in plans] == totals
    assert [plan.n_bytes for plan in plans] == [total * 3 * 64 * 64 for total in totals]


def test_missing_weights_are_named_before_anything_is_computed(
    dataset: Dataset, request_: FeaturesRequest, tmp_path: Path
) -> None:
    context = replace(request_.context, weights_dir=tmp_path / "none")
    wanted = replace(request_, models=("icnn", "brain_diffuser"), preset="published", context=context)
    with pytest.raises(WeightsError, match="missing") as caught:
        prepare_features(dataset, wanted)
    assert "nsdbench weights fetch" in caught.value.remedy
    assert not (tmp_path / "features").exists()


def test_missing_images_are_named_before_anything_is_computed(
    dataset: Dataset, request_: FeaturesRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(type(dataset.layout), "images", property(lambda _: tmp_path / "nsd_stimuli.hdf5"))
    with pytest.raises(DataError, match=r"nsd_stimuli\.hdf5"):
        require_preparable(dataset, request_)


def test_models_that_learn_nothing_from_features_are_left_out_or_refused(
    dataset: Dataset, request_: FeaturesRequest
) -> None:
    told: list[str] = []
    wanted = replace(request_, models=("ridge", "icnn"), subjects=(7,))
    prepare_features(dataset, wanted, report=lambda plan: told.append(plan.model))
    assert told == ["icnn"]
    for models, preset in ((("ridge",), None), (("mindeye1", "mindeye2"), "published")):
        with pytest.raises(UsageError, match=f"nothing to prepare for {models[0]}"):
            prepare_features(dataset, replace(request_, models=models, preset=preset))


class Large(Adapter):
    """Keeps one number per image, and says that it is a gigabyte."""

    name = "large"
    paper = "none"
    stochastic = False
    computed: list[str] = []  # noqa: RUF012 - counted over several instances

    def prepared_bytes(self, n_images: int) -> int:
        return n_images * 10**9

    def prepare(self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None) -> None:
        def compute(some: tuple[str, ...]) -> dict[str, np.ndarray]:
            self.computed.extend(dict.fromkeys(some))
            return {"numbers": np.array([int(stimulus[3:]) for stimulus in some])}

        store = FeatureStore.of(self.context)
        found = store.read(Kind("large", 1), stimuli, ids, compute, progress or Silent())
        assert np.asarray(found["numbers"]).tolist() == [int(stimulus[3:]) for stimulus in ids]

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        self.prepare(stimuli, train.targets)

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        images = np.zeros((len(trials), 1, 64, 64, 3), np.uint8)
        return Reconstructions(images, tuple(trials.stimulus.tolist()))

    def save(self, folder: Path) -> None:
        (folder / "n.json").write_text(json.dumps(self.n_voxels))

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Any:
        model = cls(preset, context)
        model.n_voxels = json.loads((folder / "n.json").read_text())
        return model


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> type[Large]:
    monkeypatch.setattr(Large, "computed", [])
    monkeypatch.setattr("nsdbench.adapters.registry.load", lambda name: Large)
    return Large


def run_of_large(tmp_path: Path, **changes: Any) -> RunRequest:
    wanted = RunRequest(
        models=("large",),
        splits=("vision",),
        subjects=(7,),
        load=LoadOptions(),
        scoring=ScoreSettings(metrics=("pixcorr",), cache=tmp_path),
        out=tmp_path / "runs",
        leaderboard=tmp_path / "board",
        context=Context(features=tmp_path / "features"),
    )
    return replace(wanted, **changes)


def test_a_run_says_how_much_it_keeps_and_the_next_one_with_other_betas_reuses_it(
    dataset: Dataset, tmp_path: Path, large: type[Large]
) -> None:
    said: list[str] = []
    for norm in ("train_stats", "session_z"):
        execute(dataset, run_of_large(tmp_path, load=LoadOptions(core_norm=norm)), say=said.append)  # type: ignore[arg-type]
    ids = dataset.train(7).targets
    assert large.computed == list(ids)
    sizes = [line for line in said if f"{len(ids)}.0 GB" in line]
    assert len(sizes) == 2 and "--no-keep-features" in sizes[0] and str(tmp_path / "features") in sizes[0]
    execute(dataset, run_of_large(tmp_path, fresh=True, context=Context()), say=said.append)
    assert len(large.computed) == 2 * len(ids)


def test_a_fit_on_some_trials_finds_what_was_prepared(
    dataset: Dataset, request_: FeaturesRequest, tmp_path: Path, large: type[Large]
) -> None:
    (plan,) = prepare_features(dataset, replace(request_, models=("large",), subjects=(7,)))
    assert large.computed == list(plan.ids) == list(dataset.train(7).targets)
    execute(dataset, run_of_large(tmp_path, train_trials=60))
    assert len(large.computed) == len(plan.ids)


@pytest.fixture
def synthetic_root(tiny_root: Path, tmp_path: Path) -> Path:
    """The simulated data set under the name that ``--dataset nsd`` reads."""
    root = tmp_path / "nsd"
    root.mkdir()
    for path in tiny_root.iterdir():
        (root / path.name).symlink_to(path)
    marker = root / "nsdbench-dataset.json"
    facts = json.loads(marker.read_text()) | {"dataset": "nsd-synthetic"}
    marker.unlink()
    marker.write_text(json.dumps(facts))
    return root


def test_the_command_computes_a_share_of_the_features_and_no_betas(
    synthetic_root: Path, tmp_path: Path, dataset: Dataset
) -> None:
    places = ["--data-dir", str(synthetic_root), "--cache", str(tmp_path / "cache"), "--subject", "7"]
    command = ["data", "prepare", *places, "--model", "icnn", "--json", "--device", "cpu"]
    result = CliRunner().invoke(app, [*command, "--shard", "1/1"], catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    n = len(dataset.stimuli("train", 7).ids)
    assert document["features"] == [
        {"model": "icnn", "preset": "mini", "subject": 7, "images": n, "bytes": n * 3 * 64 * 64}
    ]
    assert document["betas"] == []
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["features"]
    assert not list(synthetic_root.glob("nsdbench_prepared"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "1/2"], "no --model"),
        (["--model", "icnn", "--shard", "3/2"], "--shard"),
        (["--model", "nothing"], "nothing"),
        (["--model", "ridge"], "nothing to prepare"),
        (["--model", "icnn", "--shard", "1/2", "--prune"], "prepares no betas"),
        (["--model", "icnn", "--shard", "1/2", "--fetch"], "prepares no betas"),
        (["--endpoint", "http://localhost"], "--endpoint"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    more: list[str], message: str, synthetic_root: Path, tmp_path: Path
) -> None:
    places = ["--data-dir", str(synthetic_root), "--cache", str(tmp_path / "cache"), "--subject", "7"]
    result = CliRunner().invoke(app, ["data", "prepare", *places, *more, "--device", "cpu"])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("verb", "called"),
    [
        (["run", "--model", "takagi"], "nsdbench.runner.execute"),
        (["pretrain", "--model", "mindeye2", "--out", "start"], "nsdbench.starts.pretrain"),
    ],
)
def test_fits_keep_features_in_the_cache_unless_told_not_to(
    verb: list[str], called: str, sim_cache: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path | None] = []

    def taken(dataset: Dataset, request: Any, **_: Any) -> list[Any]:
        folders.append(request.context.features)
        return []

    monkeypatch.setattr(called, taken)
    places = ["--dataset", "sim:tiny", "--cache", str(sim_cache), "--subject", "7", "--device", "cpu"]
    for more in ([], ["--no-keep-features"]):
        CliRunner().invoke(app, [*verb, *places, *more], catch_exceptions=False)
    assert folders == [sim_cache / "features", None]
