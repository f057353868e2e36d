"""MindEye1 as a decoder: averaged betas, candidates and the choice among them, storage, and published checkpoints."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional

from nsdbench import runner
from nsdbench.adapters import registry
from nsdbench.adapters.base import Context, item_rng
from nsdbench.adapters.mindeye import mini
from nsdbench.adapters.mindeye.encoder import EncoderConfig, MindEye1Config
from nsdbench.adapters.mindeye.encoder import MindEye1 as Network
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig, VoxelLatents
from nsdbench.adapters.mindeye.mindeye1 import PUBLISHED, MindEye1, Settings
from nsdbench.adapters.mindeye.networks import Networks1, mini_networks1
from nsdbench.adapters.mindeye.training import Plan
from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import from_signed
from nsdbench.adapters.nets.unipc import PUBLISHED as PUBLISHED_SAMPLING
from nsdbench.adapters.nets.unipc import UniPCSampling
from nsdbench.adapters.nets.variation import variations
from nsdbench.cells import RunRequest
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import DataError, UsageError, WeightsError
from nsdbench.manifest import read_manifest
from nsdbench.scoring import ScoreSettings
from nsdbench.types import Reconstructions

MINI = MindEye1.settings["mini"]
PRIOR = replace(mini.PRIOR1, steps=3)
BRIEF = replace(
    MINI,
    sampling=replace(MINI.sampling, steps=3, strength=0.7),
    candidates=2,
    plan=Plan(1, 8, 1e-3),
    low_plan=Plan(1, 8, 1e-3),
    at_once=2,
)


@functools.cache
def networks(sampling: UniPCSampling) -> Networks1:
    return mini_networks1(Context(), sampling, BRIEF.side)


class Small(MindEye1):
    """One short epoch, and few steps."""

    name = "small_mindeye1"
    presets = ("mini",)
    settings: ClassVar[Mapping[str, Settings]] = {"mini": BRIEF}

    @property
    def networks(self) -> Networks1:  # type: ignore[override]
        return networks(self.chosen.sampling)


class Still(Small):
    """Without diffusion: the rough image is the result."""

    settings: ClassVar[Mapping[str, Settings]] = {
        "mini": replace(BRIEF, sampling=replace(BRIEF.sampling, strength=0.0), candidates=1)
    }


class Many(Small):
    settings: ClassVar[Mapping[str, Settings]] = {"mini": replace(BRIEF, candidates=3)}


@pytest.fixture(scope="module")
def fitted(scenes: Any) -> Small:
    model = Small()
    model.fit(scenes.train, scenes.stimuli)
    return model


@pytest.fixture(scope="module")
def whole(fitted: Small, scenes: Any) -> Reconstructions:
    return fitted.reconstruct(scenes.test, n_samples=1)


def as_kind(model: Small, kind: type[Small]) -> Small:
    """The same fit with other settings."""
    other = kind()
    other.__dict__ |= {name: model.__dict__[name] for name in ("brains", "scaling", "facts", "n_voxels")}
    return other


def test_the_published_settings_are_those_of_the_paper() -> None:
    assert (PUBLISHED.side, PUBLISHED.candidates, PUBLISHED.sampling) == (512, 16, PUBLISHED_SAMPLING)
    assert (PUBLISHED.plan, PUBLISHED.low_plan) == (Plan(240, 32, 3e-4, 1e-2), Plan(120, 8, 5e-4, 1e-2))
    assert PUBLISHED.model.prior.scale == pytest.approx(27.7128, abs=1e-4)
    assert PUBLISHED.altered
    assert not PUBLISHED.legacy_bugs


def test_every_target_has_its_samples_and_tokens(fitted: Small, scenes: Any) -> None:
    found = fitted.reconstruct(scenes.test.of_stimuli(["A2", "B4"]), n_samples=3)
    assert found.targets == ("A2", "B4")
    assert found.images.shape == (2, 3, clip.SIZE, clip.SIZE, 3)
    assert not found.captions
    assert found.embeddings["mini-tokens"].shape == (2, clip.IMAGE_TOKENS, clip.WIDTH)
    assert not np.array_equal(found.images[0, 0], found.images[0, 1])
    assert (found.attributes["candidates"], found.attributes["strength"]) == (2, 0.7)


def test_the_seed_fixes_every_draw(fitted: Small, scenes: Any) -> None:
    one = scenes.test.of_stimuli(["B1"])
    first, again, other = (fitted.reconstruct(one, n_samples=1, seed=seed).images for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_target_does_not_depend_on_its_company_or_place(
    fitted: Small, scenes: Any, whole: Reconstructions
) -> None:
    rows = np.array([2, 0])
    part = fitted.reconstruct(scenes.test.select(rows), n_samples=1)
    assert np.array_equal(part.images, whole.images[rows])
    assert np.array_equal(part.embeddings["mini-tokens"], whole.embeddings["mini-tokens"][rows])


def test_a_stored_decoder_reconstructs_the_same(
    fitted: Small, scenes: Any, whole: Reconstructions, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    again = Small.load(tmp_path).reconstruct(scenes.test, n_samples=1)
    assert np.array_equal(again.images, whole.images)
    assert np.array_equal(again.embeddings["mini-tokens"], whole.embeddings["mini-tokens"])
    assert again.attributes == whole.attributes


@torch.no_grad()
def test_betas_are_averaged_before_the_network(fitted: Small, scenes: Any) -> None:
    found, brains = fitted.predict(scenes.test), fitted.brains
    betas = torch.from_numpy(scenes.test.betas)
    backbone, wanted = brains["high_level"].voxel2clip(betas)  # type: ignore[operator]
    for name, expected in (("tokens", backbone), ("wanted", wanted), ("latents", brains["low_level"](betas))):
        np.testing.assert_allclose(getattr(found, name), expected.numpy(), atol=1e-5)


def test_core_betas_are_standardized_and_those_of_imagery_are_not_again(fitted: Small, scenes: Any) -> None:
    core = replace(scenes.test, provenance={"normalization": "train_stats"})
    assert fitted.scaling is not None
    scaled = replace(scenes.test, betas=fitted.scaling(scenes.test.betas))
    assert np.array_equal(fitted.predict(core).wanted, fitted.predict(scaled).wanted)
    assert not np.array_equal(fitted.predict(core).wanted, fitted.predict(scenes.test).wanted)


@pytest.mark.filterwarnings("error")
def test_betas_that_cannot_be_written_are_read_without_a_warning(fitted: Small, scenes: Any) -> None:
    betas = scenes.test.betas.copy()
    betas.setflags(write=False)  # as those mapped from a file
    found = fitted.predict(replace(scenes.test, betas=betas))
    assert np.array_equal(found.wanted, fitted.predict(scenes.test).wanted)


def candidates(model: Small, features: Any, row: int, sample: int) -> torch.Tensor:
    """All candidates of one sample, in [0, 1]."""
    noise = ItemNoise([item_rng(0, "x", sample)]).spread(model.chosen.candidates)
    tokens, latents = (torch.from_numpy(v[row : row + 1]) for v in (features.tokens, features.latents))
    drawn = model.brains["high_level"].sample(tokens.expand(len(noise.rngs), -1, -1), noise)  # type: ignore[operator]
    norms = drawn[:, 0].norm(dim=1)[:, None, None]
    return variations(model.networks.stage, drawn / norms, latents, noise)


def test_the_candidate_whose_tokens_are_most_like_the_decoded_ones_is_kept(
    fitted: Small, scenes: Any
) -> None:
    model = as_kind(fitted, Many)
    features = model.predict(scenes.test)
    row = replace(
        features, **{name: getattr(features, name)[1:2] for name in ("tokens", "wanted", "latents")}
    )
    images = model.render(row, ["x"], 1, 0)[0, 0]
    own = candidates(model, row, 0, 0)
    likeness = [
        float(
            functional.cosine_similarity(
                model.networks.embed(c[None]).flatten(), torch.from_numpy(row.wanted).flatten(), dim=0
            )
        )
        for c in own
    ]
    levels = [from_signed(c[None] * 2 - 1)[0].astype(int) for c in own]
    errors = [np.abs(level - images).mean() for level in levels]
    assert int(np.argmin(errors)) == int(np.argmax(likeness))
    assert errors[int(np.argmax(likeness))] < 0.01
    assert sorted(errors)[1] > 1  # candidates do differ


def test_the_choice_follows_the_wanted_tokens_alone(fitted: Small, scenes: Any) -> None:
    model = as_kind(fitted, Many)
    features = model.predict(scenes.test.of_stimuli(["B1"]))
    own = candidates(model, features, 0, 0)
    for k in (0, 2):
        wanted = model.networks.embed(own[k : k + 1]).numpy()
        found = model.render(replace(features, wanted=wanted), ["x"], 1, 0)[0, 0].astype(int)
        assert np.abs(found - from_signed(own[k : k + 1] * 2 - 1)[0]).mean() < 0.01


def test_without_diffusion_the_rough_image_is_the_result(fitted: Small, scenes: Any) -> None:
    model = as_kind(fitted, Still)
    features = model.predict(scenes.test)
    rough = model.networks.stage.autoencoder.decode(torch.from_numpy(features.latents)).clamp(-1, 1)
    found = model.reconstruct(scenes.test, n_samples=2).images
    for sample in (0, 1):
        assert np.abs(found[:, sample].astype(int) - from_signed(rough)).max() <= 1


def test_true_images_are_embedded_in_the_space_of_the_decoded_ones(
    fitted: Small, scenes: Any, whole: Reconstructions
) -> None:
    embedded = fitted.embed(scenes.stimuli, scenes.stimuli.ids[3:5])
    assert embedded.keys() == whole.embeddings.keys()
    (tokens,) = embedded.values()
    np.testing.assert_allclose(np.linalg.norm(tokens[:, 0].astype(float), axis=1), 1, atol=1e-3)


def test_true_features_of_unseen_scenes_become_near_copies(scenes: Any, pixel_correlation: Any) -> None:
    stimuli = scenes.dataset.stimuli("shared1000")
    found = MindEye1("mini").copies(stimuli, stimuli.ids[:3])
    for image, id in zip(found.images[:, 0], stimuli.ids, strict=False):
        assert pixel_correlation(image, stimuli.image(id)) > 0.8


def test_mindeye1_has_nothing_that_subjects_share(scenes: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part that subjects share"):
        Small().pretrain([(scenes.train, scenes.stimuli)], tmp_path)


def test_a_batch_that_cannot_be_filled_is_named(scenes: Any) -> None:
    from nsdbench.errors import TrainingError

    with pytest.raises(TrainingError, match="do not fill one batch of 8"):
        Small().fit(scenes.train.of_stimuli(scenes.train.targets[:5]), scenes.stimuli)


# published checkpoints


class Published(Still):
    """The published preset with miniature networks; its checkpoints are found by their published names."""

    name = "small_published1"
    presets = ("published",)
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {"published": ()}
    settings: ClassVar[Mapping[str, Settings]] = {"published": Still.settings["mini"]}


def checkpoints(voxels: int) -> tuple[Network, VoxelLatents]:
    torch.manual_seed(5)
    encoder = EncoderConfig(24, 2, clip.IMAGE_TOKENS, clip.WIDTH, 16)
    form = LowLevelConfig(4, 8, (32, 32, 32), maps_dim=6)
    return Network(voxels, MindEye1Config(encoder, PRIOR)), VoxelLatents(voxels, 24, 2, form)


@pytest.fixture
def context(publish: Any, scenes: Any) -> Context:
    """A weights folder with the checkpoints of subject 1, the only ones that were published."""
    high, low = checkpoints(scenes.train.n_voxels)
    publish("mindeye1-subj01", high)
    return Context(weights_dir=publish("mindeye1-lowlevel-subj01", low))


@torch.no_grad()
def test_a_published_decoder_is_adopted_and_stored_as_the_name_of_its_checkpoint(
    scenes: Any, context: Context, tmp_path: Path
) -> None:
    model = Published(None, context)
    model.adopt(1)
    assert model.n_voxels == scenes.train.n_voxels
    high, low = (network.eval() for network in checkpoints(scenes.train.n_voxels))
    betas, found = torch.from_numpy(scenes.test.betas), model.predict(scenes.test)
    np.testing.assert_allclose(found.wanted, high.voxel2clip(betas)[1].numpy(), atol=1e-5)
    np.testing.assert_allclose(found.latents, low(betas).numpy(), atol=1e-5)
    folder = tmp_path / "fit"
    folder.mkdir()
    model.save(folder)
    assert [path.name for path in folder.iterdir()] == ["model.json"]
    loaded = Published.load(folder, None, context)
    one, other = (m.reconstruct(scenes.test, n_samples=1) for m in (model, loaded))
    assert np.array_equal(one.images, other.images)
    assert one.attributes["networks"] == "published checkpoint of subject 1"


def test_a_published_decoder_refuses_other_voxels_and_betas_that_are_not_standardized(
    scenes: Any, context: Context
) -> None:
    model = Published(None, context)
    model.adopt(1)
    with pytest.raises(DataError, match="655 voxels, these trials have 528"):
        model.reconstruct(scenes.dataset.trials(7, "vision"))
    raw = scenes.dataset.trials(1, "vision", LoadOptions(imagery_norm="none"))
    with pytest.raises(DataError, match="reads standardized betas, and the normalization of these is none"):
        model.reconstruct(raw)


def test_both_checkpoints_of_the_subject_are_among_the_required_weights() -> None:
    assert MindEye1.required("published", 1)[-2:] == ("mindeye1-subj01", "mindeye1-lowlevel-subj01")
    with pytest.raises(WeightsError, match="mindeye1-subj02 are not published There are: mindeye1-subj01"):
        MindEye1.required("published", 2)


# through the runner


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[MindEye1]], None]:
    def registered(adapter: type[MindEye1]) -> None:
        monkeypatch.setitem(sys.modules, "foreign", types.SimpleNamespace(Model=adapter))
        monkeypatch.setitem(registry.ADAPTERS, adapter.name, registry.Entry("foreign:Model", "for a test"))

    return registered


@pytest.fixture
def request_(tmp_path: Path, sim_cache: Path) -> RunRequest:
    scoring = ScoreSettings(metrics=("pixcorr",), where_possible=("retrieval_image_top1",), cache=sim_cache)
    return RunRequest(
        models=(Published.name,), splits=("vision",), subjects=(1,), load=LoadOptions(), scoring=scoring,
        out=tmp_path / "runs", leaderboard=tmp_path / "board", n_samples=1,
    )  # fmt: skip


def test_a_run_of_a_published_decoder_needs_no_core_trials(
    scenes: Any, request_: RunRequest, register: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise AssertionError("core trials were read")

    register(Published)
    monkeypatch.setattr(Dataset, "train", unavailable)
    (result,) = runner.execute(scenes.dataset, replace(request_, context=context))
    assert set(result.run.items["metric"].to_pylist()) == {"pixcorr", "retrieval_image_top1"}
    manifest = read_manifest(result.cell.folder)
    assert set(manifest.config["decoder_weights"]) == {"mindeye1-subj01", "mindeye1-lowlevel-subj01"}
    assert manifest.provenance.decoder_train_trials is None


def test_a_missing_checkpoint_is_named_before_anything_runs(
    scenes: Any, request_: RunRequest, register: Any, context: Context
) -> None:
    register(Published)
    assert context.weights_dir is not None
    request = replace(request_, models=("mean_image", Published.name), context=context)
    with pytest.raises(WeightsError, match="subj07 are not published"):
        runner.execute(scenes.dataset, replace(request, subjects=(1, 7)))
    (context.weights_dir / "mindeye1-lowlevel-subj01.pth").unlink()
    with pytest.raises(WeightsError, match=r"1 weights file missing .*mindeye1-lowlevel-subj01\.pth"):
        runner.execute(scenes.dataset, request)
    assert not request.out.exists()
