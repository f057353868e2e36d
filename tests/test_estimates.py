"""What `run --plan` says before anything is computed, against counts by hand and against finished runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nsdbench import runner
from nsdbench.adapters import floors, registry, ridge
from nsdbench.adapters.base import Context
from nsdbench.cells import RunRequest
from nsdbench.data import Dataset, LoadOptions
from nsdbench.doctor.metrics import PER_IMAGE, WITHOUT_NETWORKS, flop_per_image
from nsdbench.estimates import Plan, estimate
from nsdbench.metrics.nets.loading import NETS
from nsdbench.metrics.profiles import DEFAULT, profile
from nsdbench.scoring import ScoreSettings


@pytest.fixture
def data(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    """The mean training image of one subject, both splits, one metric without a network."""
    return RunRequest(
        models=("mean_image",),
        splits=("vision", "imagery"),
        subjects=(1,),
        load=LoadOptions(),
        scoring=ScoreSettings(metrics=("pixcorr",)),
        out=tmp_path / "runs",
        leaderboard=tmp_path / "board",
    )


def stages(plan: Plan) -> list[tuple[str, ...]]:
    return [tuple(cell.stages) for cell in plan.cells]


def test_a_fit_is_counted_once_and_the_other_split_says_so(data: Dataset, request_: RunRequest) -> None:
    plan = estimate(data, request_)
    assert stages(plan) == [("fit", "reconstruct", "score"), ("reconstruct", "score")]
    assert [cell.reused for cell in plan.cells] == [(), ("fit of vision",)]
    assert not request_.out.exists()


def test_what_is_there_is_reused_stage_by_stage(data: Dataset, request_: RunRequest) -> None:
    vision = dataclasses.replace(request_, splits=("vision",))
    runner.execute(data, vision)
    plan = estimate(data, request_)
    assert stages(plan) == [(), ("reconstruct", "score")]
    assert [cell.reused for cell in plan.cells] == [("fit", "reconstructions", "scores"), ("fit",)]
    more = dataclasses.replace(vision, scoring=ScoreSettings(metrics=("pixcorr", "ssim")))
    assert stages(estimate(data, more)) == [("score",)]
    manifest = next(request_.out.rglob("vision/*/run.json"))
    manifest.unlink()  # as if killed while scoring
    assert estimate(data, vision).cells[0].reused == ("fit", "reconstructions")
    fresh = dataclasses.replace(vision, fresh=True)
    assert stages(estimate(data, fresh)) == [("fit", "reconstruct", "score")]


def test_bytes_are_those_of_the_images_and_not_less_than_what_is_written(
    data: Dataset, request_: RunRequest
) -> None:
    drawn = dataclasses.replace(request_, models=("random_image",), n_samples=3, splits=("vision",))
    cell = estimate(data, drawn).cells[0]
    targets = len(data.stimuli("vision", 1).has_image)
    assert cell.stages["reconstruct"].n_bytes == targets * 3 * 3 * floors.FLOOR_SIZE**2
    assert cell.n_bytes is not None
    runner.execute(data, drawn)
    written = sum(f.stat().st_size for f in cell.cell.folder.parent.parent.rglob("*") if f.is_file())
    assert 0 < written - 100_000 < cell.n_bytes  # manifest, scores and similarities are small


def test_a_stored_regression_has_the_size_that_was_counted(data: Dataset, request_: RunRequest) -> None:
    linear = dataclasses.replace(request_, models=("ridge",), splits=("vision",))
    cell = estimate(data, linear).cells[0]
    runner.execute(data, linear)
    written = sum(f.stat().st_size for f in cell.cell.fit_folder.iterdir())
    counted = cell.stages["fit"].n_bytes
    assert counted is not None
    assert counted == pytest.approx(written, rel=0.05)
    assert counted == 4 * data.trials(1, "vision").n_voxels * 3 * ridge.SIZE**2


def test_single_trials_are_drawn_one_by_one(data: Dataset, request_: RunRequest) -> None:
    single = dataclasses.replace(request_, load=LoadOptions(average="none"))
    mean, each = (estimate(data, r).cells[0].stages["reconstruct"].n_bytes for r in (request_, single))
    assert mean is not None
    assert each == 8 * mean


def test_fits_on_some_trials_take_less(data: Dataset, request_: RunRequest) -> None:
    full = dataclasses.replace(request_, models=("takagi",), preset="mini")
    seconds = [
        estimate(data, r).cells[0].stages["fit"].seconds
        for r in (full, dataclasses.replace(full, train_trials=30))
    ]
    assert seconds[0] is not None
    assert seconds[1] is not None
    assert seconds[1] < seconds[0]


def test_memory_of_the_device_is_main_memory_on_a_cpu(data: Dataset, request_: RunRequest) -> None:
    mini = dataclasses.replace(request_, models=("mindeye2",), preset="mini")
    here = estimate(data, mini)
    there = estimate(data, dataclasses.replace(mini, context=Context("cuda")))
    assert here.device_memory == 0
    assert there.device_memory > 0
    assert here.host_memory <= there.device_memory + there.host_memory
    fits = [plan.cells[0].stages["fit"] for plan in (here, there)]
    sums = [(fit.device_memory or 0) + (fit.host_memory or 0) for fit in fits]
    assert sums[0] == sums[1]


def test_features_are_counted_where_they_are_kept(
    data: Dataset, request_: RunRequest, tmp_path: Path
) -> None:
    mini = dataclasses.replace(request_, models=("takagi",), preset="mini")
    kept = dataclasses.replace(mini, context=Context(features=tmp_path))
    assert estimate(data, mini).feature_bytes == 0
    assert estimate(data, kept).feature_bytes > 0


def test_what_nobody_counted_is_unknown_and_missing_in_the_totals(
    data: Dataset, request_: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsdbench.estimates.costs_of", lambda *args: None)
    plan = estimate(data, request_)
    fit = plan.cells[0].stages["fit"]
    assert (fit.seconds, fit.n_bytes, fit.device_memory, fit.host_memory) == (None, None, None, None)
    assert plan.cells[0].seconds is None
    assert plan.unknown == ("mean_image",)
    assert plan.n_bytes == 0


def test_each_network_counts_once_however_many_metrics_look_through_it() -> None:
    assert flop_per_image(("pixcorr",)) == WITHOUT_NETWORKS
    alone = WITHOUT_NETWORKS + PER_IMAGE["alexnet"]
    assert flop_per_image(("alexnet2", "alexnet5", "pixcorr")) == alone
    assert flop_per_image(("alexnet2", "clip")) == alone + PER_IMAGE["clip"]


def test_a_network_that_nobody_counted_leaves_scoring_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PER_IMAGE, "alexnet")  # type: ignore[arg-type]
    assert flop_per_image(("alexnet2", "clip")) is None


def count(name: str) -> int:
    size = profile(DEFAULT).net_size(name)
    with torch.device("meta"):
        module = NETS[name].build().eval()
        images = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        NETS[name].nodes(module, images)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", ["alexnet", "mini_alexnet", "mini_clip", "mini_swav"])
def test_counting_a_network_again_gives_the_table(name: str) -> None:
    assert count(name) == PER_IMAGE[name]


@pytest.mark.slow
def test_counting_all_networks_again_gives_the_table() -> None:
    assert {name: count(name) for name in NETS} == dict(PER_IMAGE)


def test_every_builtin_model_is_counted(data: Dataset, request_: RunRequest) -> None:
    plan = estimate(data, dataclasses.replace(request_, models=tuple(registry.ADAPTERS)))
    assert plan.unknown == ()
    assert all(cell.n_bytes for cell in plan.cells)
