"""MindEye2 as a decoder: averaging over repeats, stages, storage, pretraining, and published checkpoints."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from nsdbench import runner
from nsdbench.adapters import registry
from nsdbench.adapters.base import START_FACTS, Context, item_rng
from nsdbench.adapters.mindeye import mini
from nsdbench.adapters.mindeye.examples import Examples, Targets
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig
from nsdbench.adapters.mindeye.mindeye2 import BRAIN, PUBLISHED, START, MindEye2, Settings
from nsdbench.adapters.mindeye.networks import Embed, Networks2, mini_embed2, mini_networks2, mini_teachers
from nsdbench.adapters.mindeye.training import Plan
from nsdbench.adapters.mindeye.trunk import MindEye2 as Network
from nsdbench.adapters.mindeye.trunk import MindEye2Config, TrunkConfig
from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.euler import REFINEMENT, UNCLIP, spaced_times
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import from_signed
from nsdbench.adapters.nets.unclip import unclip_images
from nsdbench.cells import RunRequest
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import DataError, UsageError, WeightsError
from nsdbench.manifest import read_manifest
from nsdbench.reconstructions import load as load_reconstructions
from nsdbench.scoring import ScoreSettings
from nsdbench.store import read_json, sha256_file, write_json
from nsdbench.types import Progress, Reconstructions, Silent

T = TypeVar("T")

MINI = MindEye2.settings["mini"]
BRIEF = replace(
    MINI,
    unclip=replace(MINI.unclip, times=spaced_times(2)),
    refinement=replace(MINI.refinement, times=spaced_times(4)[-2:]),
    prior_points=3,
    plan=Plan(1, 8, 1e-3),
    shared_plan=Plan(1, 4, 1e-3),
    at_once=2,
)


@functools.cache
def networks() -> Networks2:
    return mini_networks2(Context(), BRIEF.unclip, BRIEF.refinement)


@functools.cache
def embedder() -> Embed:
    return mini_embed2(Context())


class Small(MindEye2):
    """One short epoch, and few steps."""

    name = "small_mindeye2"
    presets = ("mini",)
    settings: ClassVar[Mapping[str, Settings]] = {"mini": BRIEF}

    @property
    def networks(self) -> Networks2:  # type: ignore[override]
        return networks()

    @property
    def embedder(self) -> Embed:  # type: ignore[override]
        return embedder()


class Unrefined(Small):
    settings: ClassVar[Mapping[str, Settings]] = {"mini": replace(BRIEF, use="unrefined")}


class Blurry(Small):
    settings: ClassVar[Mapping[str, Settings]] = {"mini": replace(BRIEF, use="blurry")}


class Legacy(Small):
    settings: ClassVar[Mapping[str, Settings]] = {"mini": replace(BRIEF, use="blurry", legacy_bugs=True)}


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


def same(one: Reconstructions, other: Reconstructions) -> bool:
    embedded = all(np.array_equal(one.embeddings[k], other.embeddings[k]) for k in one.embeddings)
    return (
        embedded
        and one.embeddings.keys() == other.embeddings.keys()
        and np.array_equal(one.images, other.images)
        and (one.targets, one.captions) == (other.targets, other.captions)
    )


def test_the_published_settings_are_those_of_the_paper_and_its_code() -> None:
    assert (PUBLISHED.side, PUBLISHED.rough_side, PUBLISHED.blend) == (256, 224, 0.25)
    assert (PUBLISHED.unclip, PUBLISHED.refinement, PUBLISHED.prior_points) == (UNCLIP, REFINEMENT, 20)
    for plan, batch in ((PUBLISHED.plan, 24), (PUBLISHED.shared_plan, 6)):
        assert (plan.batch, plan.rate, plan.decay) == (batch, 3e-4, 1e-2)
        # published: 150 epochs of 40 sessions with 750 trials each, not of 9,000 images; the first 2 rise
        assert plan.epochs * 9_000 == pytest.approx(150 * 40 * 750, rel=0.11)
        assert plan.warm / plan.epochs == pytest.approx(2 / 150)
    assert not PUBLISHED.legacy_bugs


def test_every_target_has_its_samples_captions_and_tokens(fitted: Small, scenes: Any) -> None:
    found = fitted.reconstruct(scenes.test, n_samples=3)
    assert found.targets == ("A2", "B1", "B4")
    assert found.images.shape == (3, 3, clip.SIZE, clip.SIZE, 3)
    assert [len(row) for row in found.captions] == [3, 3, 3]
    assert all(isinstance(caption, str) and caption for row in found.captions for caption in row)
    assert found.embeddings["mini-patch-tokens"].shape == (3, clip.IMAGE_TOKENS - 1, clip.WIDTH)
    assert not np.array_equal(found.images[0, 0], found.images[0, 1])
    assert found.attributes["preset"] == "mini"
    assert found.attributes["pretrained_on_subjects"] is None


def test_the_seed_fixes_every_draw(fitted: Small, scenes: Any) -> None:
    two = scenes.test.of_stimuli(["B1"])
    first, again, other = (fitted.reconstruct(two, n_samples=1, seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not np.array_equal(first.images, other.images)


def test_a_target_does_not_depend_on_its_company_or_place(
    fitted: Small, scenes: Any, whole: Reconstructions
) -> None:
    rows = np.array([2, 0])
    part = fitted.reconstruct(scenes.test.select(rows), n_samples=1)
    assert np.array_equal(part.images, whole.images[rows])
    assert part.captions == (whole.captions[2], whole.captions[0])
    for space, values in part.embeddings.items():
        assert np.array_equal(values, whole.embeddings[space][rows])


def test_a_stored_decoder_reconstructs_the_same(
    fitted: Small, scenes: Any, whole: Reconstructions, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    loaded = Small.load(tmp_path)
    again = loaded.reconstruct(scenes.test, n_samples=1)
    assert same(again, whole)
    assert again.attributes == whole.attributes
    assert not any(p.requires_grad for p in loaded.brains[BRAIN].parameters())


@pytest.mark.parametrize("damaged", ["[]", "{}", '{"n_voxels": "many"}', "no JSON"])
def test_a_damaged_record_of_a_fit_is_named(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(damaged)
    with pytest.raises(DataError, match=r"model\.json"):
        Small.load(tmp_path)


def test_outputs_are_averaged_over_repeats_which_matters_for_all_but_the_affine_trunk(
    fitted: Small, scenes: Any
) -> None:
    late, early = fitted.predict(scenes.test), fitted.predict(replace(scenes.test, singles=None))
    # the bound of the reference is 5e-7 of the largest value; miniature sums are as exact
    for name, affine in (("tokens", True), ("wanted", False), ("latents", False)):
        one, other = getattr(late, name), getattr(early, name)
        assert (np.abs(one - other).max() <= 1e-6 * np.abs(one).max()) == affine, name


def test_each_repeat_goes_through_the_network_alone(fitted: Small, scenes: Any) -> None:
    found, network = fitted.predict(scenes.test), fitted.brains[BRAIN].requires_grad_(False)
    rows = scenes.test.singles
    assert set(rows.stimulus) == set(scenes.test.stimulus)
    for k, target in enumerate(scenes.test.stimulus):
        outs = [
            network.backbone(network.ridge(torch.from_numpy(b)[None]))
            for b in rows.betas[rows.stimulus == target]
        ]  # type: ignore[operator]
        assert len(outs) == 8
        for name, own in (("tokens", "backbone"), ("wanted", "retrieval"), ("latents", "latents")):
            mean = torch.cat([getattr(out, own) for out in outs]).mean(0)
            np.testing.assert_allclose(getattr(found, name)[k], mean.numpy(), atol=1e-5)


def test_only_core_images_that_are_refined_are_blended_with_the_blurry_one(
    fitted: Small, scenes: Any
) -> None:
    features, ids = fitted.predict(scenes.shared), scenes.shared.targets
    sharp, blurry, mixed = (
        fitted.render(features, ids, 1, 0, blend=share)[0].astype(int) for share in (0.0, 1.0, 0.25)
    )
    assert np.abs(0.75 * sharp + 0.25 * blurry - mixed).max() <= 1
    assert np.array_equal(blurry, as_kind(fitted, Blurry).render(features, ids, 1, 0)[0])
    core = fitted.reconstruct(scenes.shared, n_samples=1)
    assert np.array_equal(core.images, mixed)
    assert core.attributes["blend"] == 0.25
    imagery = fitted.reconstruct(replace(scenes.shared, split="imagery"), n_samples=1)
    assert np.array_equal(imagery.images, sharp)
    assert imagery.attributes["blend"] == 0.0
    assert as_kind(fitted, Unrefined).reconstruct(scenes.shared, n_samples=1).attributes["blend"] == 0.0


def test_unrefined_images_are_those_of_unclip(fitted: Small, scenes: Any) -> None:
    features = fitted.features(scenes.stimuli, scenes.stimuli.ids[:1])
    images, captions = as_kind(fitted, Unrefined).render(features, ["x"], 2, 5)
    noise = ItemNoise([item_rng(5, "x", k) for k in range(2)])
    expected = unclip_images(
        fitted.networks.unclip, torch.from_numpy(features.tokens).expand(2, -1, -1), noise
    )
    assert np.array_equal(images[0], from_signed(expected * 2 - 1))
    refined, said = fitted.render(features, ["x"], 2, 5)
    assert said == captions
    assert not np.array_equal(refined, images)


def test_true_images_are_embedded_in_the_space_of_the_decoded_ones(
    fitted: Small, scenes: Any, whole: Reconstructions
) -> None:
    ids = scenes.stimuli.ids[3:5]
    embedded = fitted.embed(scenes.stimuli, ids)
    (space,) = whole.embeddings
    assert embedded.keys() == {space}
    assert embedded[space].dtype == np.float16
    np.testing.assert_allclose(
        embedded[space], fitted.features(scenes.stimuli, ids).tokens, rtol=1e-3, atol=1e-3
    )


def test_true_features_of_unseen_scenes_become_near_copies(scenes: Any, pixel_correlation: Any) -> None:
    stimuli = scenes.dataset.stimuli("shared1000")
    ids = stimuli.ids[:3]
    found = MindEye2("mini").copies(stimuli, ids)
    assert found.targets == tuple(ids)
    likeness = np.array(
        [[pixel_correlation(image, stimuli.image(id)) for id in ids] for image in found.images[:, 0]]
    )
    assert likeness.diagonal().mean() > 0.8
    assert (likeness.argmax(axis=1) == np.arange(3)).all()


def test_targets_are_the_tokens_latents_and_maps_of_images_and_of_altered_copies(scenes: Any) -> None:
    model, ids = Small(), scenes.stimuli.ids[:18]  # more than are read at once
    found, features = model.targets(scenes.stimuli, ids, Silent()), model.features(scenes.stimuli, ids)
    assert (found.tokens.dtype, found.latents.dtype, found.maps.dtype) == (np.float16, np.float32, np.float16)
    # the two read the images in batches of other sizes, which some processors multiply in another order
    np.testing.assert_allclose(found.tokens, features.tokens.astype(np.float16), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.latents, features.latents, rtol=1e-5, atol=1e-5)
    side = BRIEF.rough_side
    images = torch.cat(list(model.images(scenes.stimuli, ids)))
    reduced = functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    plain, altered = (torch.from_numpy(found.maps[:, k]).float() for k in (0, 1))
    teacher = mini_teachers(Context()).maps(reduced)
    torch.testing.assert_close(plain, teacher, atol=2e-3, rtol=2e-3)
    alike = functional.cosine_similarity(plain.flatten(1)[:, None], altered.flatten(1)[None], dim=2)
    assert (alike.diagonal() < 0.9999).all()
    assert alike.diagonal().mean() > alike.mean() + 0.05


class Longer(Blurry):
    settings: ClassVar[Mapping[str, Settings]] = {
        "mini": replace(BRIEF, use="blurry", plan=replace(BRIEF.plan, epochs=2))
    }


class Cut(Silent):
    """Interrupts a training in its second epoch."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for number, item in enumerate(items):
            if label.startswith(Small.name) and number == 3:
                raise KeyboardInterrupt
            yield item


def test_an_interrupted_fit_goes_on_from_its_scratch_folder(
    fitted: Small, scenes: Any, tmp_path: Path
) -> None:
    targets = fitted.targets(scenes.stimuli, scenes.train.targets, Silent())
    models = [Longer(None, Context(scratch=folder)) for folder in (None, tmp_path, tmp_path)]
    for model in models:
        model.targets = lambda *_: targets  # type: ignore[method-assign]
    whole, cut, resumed = models
    whole.fit(scenes.train, scenes.stimuli)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(scenes.train, scenes.stimuli, progress=Cut())
    assert [path.name for path in tmp_path.iterdir()] == ["mindeye2.pt"]
    resumed.fit(scenes.train, scenes.stimuli)
    assert resumed.facts == whole.facts
    one, other = (model.brains[BRAIN].state_dict() for model in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


# pretraining


class Watched(Blurry):
    """Keeps the weights a fit begins with, and leaves the training out."""

    def targets(self, *_: object) -> Targets:
        return Targets(*np.zeros((3, 0)))

    def trained(self, brains: Any, examples: Examples, progress: Progress) -> dict[str, Any]:
        self.began = {name: value.clone() for name, value in brains[BRAIN].state_dict().items()}
        return {}


class WatchedLegacy(Watched):
    settings: ClassVar[Mapping[str, Settings]] = Legacy.settings


@pytest.fixture(scope="module")
def pretrained(scenes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining on both subjects of the tiny data set."""
    folder, data = tmp_path_factory.mktemp("start"), scenes.dataset
    parts = []
    for subject in (7, 1):
        train = data.train(subject)
        parts.append((train.of_stimuli(train.targets[:8]), data.stimuli("train", subject)))
    Small().pretrain(parts, folder)
    return folder


def state(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / START)


def test_a_pretraining_holds_one_layer_per_subject_and_says_of_whom(pretrained: Path) -> None:
    facts, weights = read_json(pretrained / START_FACTS), state(pretrained)
    assert (facts["model"], facts["preset"], facts["subjects"]) == ("small_mindeye2", "mini", [7, 1])
    assert len(facts["curves"]) == 1
    assert [weights[f"ridge.linears.{k}.weight"].shape[1] for k in (0, 1)] == [528, 655]


def test_a_fit_begins_with_the_pretrained_trunk_and_prior_and_a_layer_of_its_own(
    scenes: Any, pretrained: Path
) -> None:
    plain, started, legacy = Watched(), Watched(None, Context(start=pretrained)), WatchedLegacy()
    legacy.context = started.context
    for model in (plain, started, legacy):
        model.fit(scenes.train, scenes.stimuli)
    shared = state(pretrained)
    for name, value in started.began.items():
        if not name.startswith("ridge."):
            assert torch.equal(value, shared[name]), name
    assert not torch.equal(
        plain.began["backbone.backbone_linear.weight"], shared["backbone.backbone_linear.weight"]
    )
    weight, bias = (started.began[f"ridge.linears.0.{part}"] for part in ("weight", "bias"))
    assert weight.shape[1] == scenes.train.n_voxels
    bound = scenes.train.n_voxels**-0.5
    assert weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert bias.abs().max() <= bound
    assert "ridge.linears.1.weight" not in started.began
    assert torch.equal(legacy.began["ridge.linears.0.bias"], shared["ridge.linears.0.bias"])
    assert torch.equal(legacy.began["ridge.linears.0.weight"], weight)


class TunedWhole(Small):
    settings: ClassVar[Mapping[str, Settings]] = {"mini": replace(BRIEF, tuned="all")}


@pytest.mark.parametrize(("kind", "changes"), [(Small, False), (TunedWhole, True)])
def test_a_fit_from_a_pretraining_tunes_the_layer_of_its_subject_or_everything(
    kind: type[Small], changes: bool, scenes: Any, pretrained: Path
) -> None:
    model = kind(None, Context(start=pretrained))
    began = Watched(None, model.context)
    for one in (began, model):
        one.fit(scenes.train, scenes.stimuli)
    found = model.brains[BRAIN].state_dict()
    name = "backbone.backbone_linear.weight"
    assert torch.equal(found[name], state(pretrained)[name]) is not changes
    assert not torch.equal(found["ridge.linears.0.weight"], began.began["ridge.linears.0.weight"])


def test_a_miniature_fit_begins_with_the_prior_that_is_shipped(scenes: Any) -> None:
    model = Watched()
    model.fit(scenes.train, scenes.stimuli)
    name = "net.learned_query"
    shipped = mini.prior2()
    mini.begin(shipped, mini.PRIOR2_ID)
    assert torch.equal(model.began[f"diffusion_prior.{name}"], shipped.state_dict()[name])


def test_what_a_fit_began_with_is_kept_and_recorded(scenes: Any, pretrained: Path, tmp_path: Path) -> None:
    model = Watched(None, Context(start=pretrained))
    model.fit(scenes.train, scenes.stimuli)
    model.save(tmp_path)
    loaded = Watched.load(tmp_path)
    found = loaded.reconstruct(scenes.test, n_samples=1).attributes
    assert found["pretrained_on_subjects"] == "7,1"
    assert loaded.facts["start"]["sha256"] == read_json(pretrained / START_FACTS)["sha256"]


@pytest.mark.parametrize(("field", "value"), [("model", "mindeye1"), ("preset", "retrained")])
def test_a_pretraining_of_something_else_is_refused(
    scenes: Any, pretrained: Path, tmp_path: Path, field: str, value: str
) -> None:
    write_json(tmp_path / START_FACTS, {**read_json(pretrained / START_FACTS), field: value})
    model = Watched(None, Context(start=tmp_path))
    with pytest.raises(UsageError, match=f"a pretraining of .*{value}.* cannot begin"):
        model.fit(scenes.train, scenes.stimuli)
    (tmp_path / START_FACTS).unlink()
    with pytest.raises(UsageError, match="holds no pretraining"):
        model.fit(scenes.train, scenes.stimuli)


@pytest.mark.parametrize("change", ["absent", "altered", "of another form"])
def test_a_pretraining_that_is_not_what_it_says_is_refused(
    scenes: Any, pretrained: Path, tmp_path: Path, change: str
) -> None:
    facts, weights = read_json(pretrained / START_FACTS), state(pretrained)
    name, words = "backbone.blin1.weight", "is not what the pretraining wrote"
    if change == "of another form":
        weights[name], words = weights[name][:, :3].contiguous(), f"(?s)another form of .* {name}"
    else:
        weights[name] += 1
    if change != "absent":
        save_file(weights, tmp_path / START)
    if change == "of another form":
        facts["sha256"] = sha256_file(tmp_path / START)
    write_json(tmp_path / START_FACTS, facts)
    with pytest.raises(WeightsError, match=words):
        Watched(None, Context(start=tmp_path)).fit(scenes.train, scenes.stimuli)


def test_a_preset_that_learns_nothing_cannot_be_pretrained(scenes: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="preset published of mindeye2 learns nothing"):
        MindEye2("published").pretrain([(scenes.train, scenes.stimuli)], tmp_path)
    assert not list(tmp_path.iterdir())


# published checkpoints

TRUNK = TrunkConfig(
    hidden=24,
    blocks=2,
    tokens=clip.IMAGE_TOKENS - 1,
    dim=clip.WIDTH,
    projector=clip.WIDTH,
    low_level=LowLevelConfig(4, 32, (32, 32), maps_dim=6),
)


class Published(Blurry):
    """The published preset with miniature networks; its checkpoints are found by their published names."""

    name = "small_published2"
    presets = ("published",)
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {"published": ()}
    settings: ClassVar[Mapping[str, Settings]] = {"published": Blurry.settings["mini"]}


def checkpoint(voxels: int) -> Network:
    torch.manual_seed(5)
    return Network([voxels], MindEye2Config(TRUNK, replace(mini.PRIOR2, attn_out_norm_eps=1e-3)))


@pytest.fixture
def context(publish: Any, scenes: Any) -> Context:
    """A weights folder with a checkpoint for subject 1."""
    return Context(weights_dir=publish("mindeye2-subj01-40sess", checkpoint(scenes.train.n_voxels)))


def test_a_published_decoder_is_adopted_and_stored_as_the_name_of_its_checkpoint(
    scenes: Any, context: Context, tmp_path: Path
) -> None:
    model = Published(None, context)
    model.adopt(1)
    assert model.n_voxels == scenes.train.n_voxels
    network = checkpoint(scenes.train.n_voxels).eval()
    own = torch.from_numpy(scenes.test.singles.betas[scenes.test.singles.stimulus == "B1"])
    expected = network.backbone(network.ridge(own)).retrieval.mean(0).detach()  # betas as they are
    np.testing.assert_allclose(model.predict(scenes.test).wanted[1], expected, atol=1e-5)
    folder = tmp_path / "fit"
    folder.mkdir()
    model.save(folder)
    assert [path.name for path in folder.iterdir()] == ["model.json"]
    loaded = Published.load(folder, None, context)
    found = [one.reconstruct(scenes.test, n_samples=1) for one in (model, loaded)]
    assert same(*found)
    assert found[0].attributes["networks"] == "published checkpoint of subject 1"


def test_a_published_decoder_adopts_instead_of_fitting(scenes: Any, context: Context) -> None:
    model, other = Published(None, context), scenes.dataset.train(7)
    model.fit(scenes.train, scenes.stimuli)
    assert model.facts == {"checkpoint_of_subject": 1}
    with pytest.raises(DataError, match="checkpoint of subject 1 reads 655 voxels, these betas have 528"):
        Published(None, context).fit(replace(other, subject=1), scenes.dataset.stimuli("train", 7))


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
    turned = scenes.dataset.trials(1, "vision", LoadOptions(voxel_order="zyx_c"))
    with pytest.raises(DataError, match="trained with voxel_order xyz_c, these betas have zyx_c"):
        model.reconstruct(turned)


def test_a_preset_that_has_to_be_fitted_cannot_adopt() -> None:
    with pytest.raises(UsageError, match="preset mini of small_mindeye2 has to be fitted"):
        Small().adopt(1)


def test_the_checkpoint_of_the_subject_is_among_the_required_weights() -> None:
    assert MindEye2.required("published", 5)[-1] == "mindeye2-subj05-40sess"
    assert not any(id.startswith("mindeye2-subj") for id in MindEye2.required("retrained", 5))
    assert MindEye2.required("mini", 3) == MindEye2.requires["mini"]


def test_subjects_without_a_published_checkpoint_are_told() -> None:
    with pytest.raises(WeightsError, match=r"subj03-40sess are not published There are: .*-subj07-"):
        MindEye2.required("published", 3)


# through the runner


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[MindEye2]], None]:
    def registered(adapter: type[MindEye2]) -> None:
        monkeypatch.setitem(sys.modules, "foreign", types.SimpleNamespace(Model=adapter))
        monkeypatch.setitem(registry.ADAPTERS, adapter.name, registry.Entry("foreign:Model", "for a test"))

    return registered


@pytest.fixture
def request_(tmp_path: Path, sim_cache: Path) -> RunRequest:
    scoring = ScoreSettings(
        metrics=("pixcorr",), where_possible=("retrieval_image_top1", "caption_rouge1"), cache=sim_cache
    )
    return RunRequest(
        models=(Small.name,), splits=("vision",), subjects=(1,), load=LoadOptions(), scoring=scoring,
        out=tmp_path / "runs", leaderboard=tmp_path / "board", n_samples=1, train_trials=48,
    )  # fmt: skip


def test_a_run_scores_retrieval_and_captions(scenes: Any, request_: RunRequest, register: Any) -> None:
    register(Blurry)
    (result,) = runner.execute(scenes.dataset, request_)
    assert set(result.run.items["metric"].to_pylist()) == {
        "pixcorr", "retrieval_image_top1", "caption_rouge1",
    }  # fmt: skip
    recon = load_reconstructions(result.cell.folder / "reconstructions.h5")
    assert recon.gallery.keys() == recon.embeddings.keys()
    assert recon.gallery_ids == recon.targets


def test_a_run_of_a_published_decoder_needs_no_core_trials(
    scenes: Any, request_: RunRequest, register: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise AssertionError("core trials were read")

    register(Published)
    monkeypatch.setattr(Dataset, "train", unavailable)
    request = replace(request_, models=(Published.name,), context=context, train_trials=None)
    (result,) = runner.execute(scenes.dataset, request)
    manifest = read_manifest(result.cell.folder)
    assert list(manifest.config["decoder_weights"]) == ["mindeye2-subj01-40sess"]
    assert manifest.provenance.decoder_train_trials is None
    assert manifest.provenance.n_voxels == scenes.train.n_voxels


@pytest.mark.parametrize(("subject", "words"), [(1, r"mindeye2-subj01-40sess\.pth"), (7, "subj07")])
def test_a_missing_checkpoint_is_named_before_anything_runs(
    scenes: Any, request_: RunRequest, register: Any, tmp_path: Path, subject: int, words: str
) -> None:
    register(Published)
    request = replace(
        request_,
        models=("mean_image", Published.name),
        train_trials=None,
        subjects=(subject,),
        context=Context(weights_dir=tmp_path),
    )
    with pytest.raises(UsageError, match="no preset 'published'"):
        runner.execute(scenes.dataset, replace(request, preset="published"))
    with pytest.raises(WeightsError, match=words):
        runner.execute(scenes.dataset, request)
    assert not request.out.exists()


class Retrained(Watched):
    """The form of the fake checkpoints, to be trained."""

    name = "small_retrained2"
    presets = ("retrained",)
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {"retrained": ()}
    settings: ClassVar[Mapping[str, Settings]] = {
        "retrained": replace(
            BRIEF, tuned="all", model=MindEye2Config(TRUNK, replace(mini.PRIOR2, attn_out_norm_eps=1e-3))
        )
    }

    def untrained(self, voxels: int) -> dict[str, torch.nn.Module]:
        return {BRAIN: Network([voxels], self.chosen.model)}


def test_a_fit_begins_from_the_published_model_of_the_other_subjects(
    scenes: Any, publish: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(6)
    seven = Network([5, 6, 7, 8, 9, 10, 11], Retrained.settings["retrained"].model)
    folder = tmp_path_factory.mktemp("published")
    weights_dir = publish("mindeye2-multisubject-without-subj01", seven)
    Retrained(None, Context(weights_dir=weights_dir)).adopt_shared(1, folder)
    facts = read_json(folder / START_FACTS)
    assert facts["subjects"] == [2, 3, 4, 5, 6, 7, 8]
    assert facts["checkpoint"] == "mindeye2-multisubject-without-subj01"
    model = Retrained(None, Context(start=folder))
    model.fit(scenes.train, scenes.stimuli)
    name = "backbone.backbone_linear.weight"
    assert torch.equal(model.began[name], seven.state_dict()[name])
    assert model.began["ridge.linears.0.weight"].shape[1] == scenes.train.n_voxels


def test_only_the_published_form_begins_from_the_published_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no published pretraining"):
        Small().adopt_shared(1, tmp_path)
    with pytest.raises(WeightsError, match="without-subj03 are not published"):
        Retrained().adopt_shared(3, tmp_path)
