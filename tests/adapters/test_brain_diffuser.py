"""Brain Diffuser on a small world with random networks: ridges, normalisation over the query, stages, seeds, storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from nsdbench.adapters import brain_diffuser
from nsdbench.adapters.base import Context, item_rng
from nsdbench.adapters.brain_diffuser import BrainDiffuser, Features, Settings
from nsdbench.adapters.brain_diffuser_networks import Networks
from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.ddim import Sampling
from nsdbench.adapters.nets.pixels import BILINEAR, Images, resized
from nsdbench.adapters.nets.vdvae import VDVAE, Config
from nsdbench.adapters.nets.versatile import PublishedDenoiser
from nsdbench.errors import DataError, UsageError, WeightsError

SMALL = Settings(32, Sampling(4, 0.75, 7.5), (50.0, 60.0, 100.0))
LADDER = Config(
    "none", 16, 32, 4, 3, "16x2,16d2,8x2,8d2,4x1,4d4,1x2", "1x1,4m1,4x1,8m4,8x1,16m8,16x2", regressed=5
)
SIZES = (644, 17 * 32, 16 * 32)


class Small(BrainDiffuser):
    name = "small_brain_diffuser"
    presets = ("small",)
    settings: ClassVar[Mapping[str, Settings]] = {"small": SMALL}


def variant(**changed: Any) -> type[Small]:
    """Return the small adapter with other settings."""

    class Changed(Small):
        settings: ClassVar[Mapping[str, Settings]] = {"small": replace(SMALL, **changed)}

    return Changed


@pytest.fixture(scope="session")
def networks(
    small_autoencoder: Autoencoder, small_denoiser: PublishedDenoiser, small_clip: nn.Module
) -> Networks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        ladder = VDVAE(LADDER).eval().requires_grad_(False)

    def image_tokens(images: Images) -> Tensor:
        seen = torch.from_numpy(resized(images, 64, BILINEAR)).permute(0, 3, 1, 2).float() / 255
        return clip.image_tokens(small_clip, seen)

    def text_tokens(captions: Sequence[str]) -> Tensor:
        return clip.text_tokens(small_clip, captions)

    grey = np.full((1, 64, 64, 3), 127, np.uint8)
    return Networks(
        ladder,
        small_autoencoder,
        small_denoiser,
        image_tokens,
        text_tokens,
        image_tokens(grey),
        text_tokens([""]),
    )


@pytest.fixture(scope="session")
def fit(networks: Networks, small_world: Any) -> Callable[..., Any]:
    """Return a function that fits a class on the small world."""

    def fitted(kind: type[Small] = Small, with_networks: Networks = networks) -> Small:
        model = kind()
        model.networks = with_networks
        model.fit(small_world.train, small_world.stimuli)
        return model

    return fitted


@pytest.fixture(scope="session")
def model(fit: Callable[..., Any]) -> Small:
    """The method as published, fitted."""
    fitted: Small = fit()
    return fitted


def side_by_side(features: Any) -> np.ndarray:
    return np.concatenate([part.astype(np.float64) for part in features.flat], axis=1)


def rows(features: Features, chosen: list[int]) -> Features:
    return Features(*(part[chosen] for part in (features.latents, features.image, features.text)))


def published(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The normalisation of the paper, written out."""
    standard = (predictions - predictions.mean(0)) / np.maximum(predictions.std(0), 1e-12)
    return standard * truth.std(0) + truth.mean(0)


def test_the_published_settings_are_those_of_the_paper() -> None:
    settings = BrainDiffuser.settings["published"]
    assert settings.penalties == (5e4, 6e4, 1e5)
    assert settings.penalty_unit == "1"
    assert settings.sampling == Sampling(50, 0.75, 7.5, "epsilon", "step_before")
    assert (settings.side, settings.text_share, settings.normalise) == (512, 0.4, "query")


def test_missing_weights_are_named_before_anything_is_fitted(small_world: Any, tmp_path: Path) -> None:
    model = BrainDiffuser("published", Context(weights_dir=tmp_path))
    with pytest.raises(WeightsError, match="missing"):
        model.fit(small_world.train, small_world.stimuli)
    assert not hasattr(model, "fitted")


def test_features_are_latents_and_tokens_of_the_right_sizes(model: Small, small_world: Any) -> None:
    features = model.features(small_world.stimuli, small_world.train.targets[:3])
    assert tuple(part.shape[1] for part in features.flat) == SIZES
    assert {part.dtype for part in features.flat} == {np.dtype(np.float16)}


@pytest.mark.parametrize(("kind", "penalty"), [(0, 50.0), (1, 60.0), (2, 100.0)])
def test_predictions_are_those_of_one_ridge_per_token_normalised_over_the_query(
    model: Small, small_world: Any, kind: int, penalty: float
) -> None:
    averaged, test = small_world.train.average_repeats(), small_world.test
    mean, sd = averaged.betas.astype(np.float64).mean(0), averaged.betas.astype(np.float64).std(0, ddof=1)
    x, query = (averaged.betas - mean) / sd, (test.betas - mean) / sd
    truth = model.features(small_world.stimuli, averaged.targets).flat[kind][:, :64].astype(np.float64)
    oracle = Ridge(alpha=penalty).fit(x, truth).predict(query)
    expected = published(oracle, truth)
    found = model.predict(test).flat[kind][:, :64]
    varying = oracle.std(0) > 1e-9
    np.testing.assert_allclose(found[:, varying], expected[:, varying], atol=2e-4 * truth.std())
    np.testing.assert_allclose(
        found[:, ~varying], np.broadcast_to(truth.mean(0), found.shape)[:, ~varying], atol=1e-5
    )


def test_normalised_predictions_have_the_moments_of_the_training_features(
    model: Small, small_world: Any
) -> None:
    found, truth = side_by_side(model.predict(small_world.test)), side_by_side(model.fitted_features)
    np.testing.assert_allclose(found.mean(0), truth.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.std(0), truth.std(0), atol=1e-4)


def test_a_constant_added_to_a_feature_shifts_predictions_by_exactly_that(
    fit: Callable[..., Any], model: Small, networks: Networks, small_world: Any
) -> None:
    shifted = replace(networks, text_tokens=lambda captions: networks.text_tokens(captions) + 8)
    other = fit(with_networks=shifted)
    one, two = model.predict(small_world.test), other.predict(small_world.test)
    # features are kept in half precision, whose steps are 0.008 around 8
    np.testing.assert_allclose(two.text - one.text, 8, atol=0.1)
    np.testing.assert_allclose((two.text - one.text).mean(), 8, atol=2e-3)
    np.testing.assert_array_equal(two.image, one.image)


def test_permuted_targets_give_permuted_images(model: Small, small_world: Any) -> None:
    order = np.random.default_rng(1).permutation(8)
    one = model.predict(small_world.test)
    other = model.predict(small_world.test.select(order))
    for a, b in zip(one.flat, other.flat, strict=True):
        np.testing.assert_allclose(b, a[order], atol=1e-4)


def test_other_targets_matter_as_published_but_not_with_training_statistics(
    fit: Callable[..., Any], model: Small, small_world: Any
) -> None:
    test, other = small_world.test, small_world.train.select(np.arange(20, 28))
    changed = replace(test, betas=np.concatenate([test.betas[:4], other.betas[4:]]))
    assert model.transductive
    assert not np.allclose(model.predict(test).latents[:4], model.predict(changed).latents[:4], atol=1e-3)
    alone = fit(variant(normalise="train"))
    assert not alone.transductive
    np.testing.assert_allclose(alone.predict(test).latents[:4], alone.predict(changed).latents[:4], atol=1e-5)


def test_few_targets_are_refused_unless_statistics_come_from_training(
    fit: Callable[..., Any], model: Small, small_world: Any
) -> None:
    few = small_world.test.select(np.arange(7))
    with pytest.raises(UsageError, match="7 are too few") as error:
        model.reconstruct(few)
    assert "BrainDiffuserTrain" in error.value.remedy
    for normalise in ("train", "none"):
        one = few.select(np.array([0]))
        assert fit(variant(normalise=normalise)).predict(one).latents.shape == (1, 644)


def test_training_statistics_are_those_of_predictions_for_images_left_out(
    fit: Callable[..., Any], small_world: Any
) -> None:
    model = fit(variant(normalise="train"))
    x, truth = model.gram.x.astype(np.float64), model.fitted.latents[:, :5].astype(np.float64)
    left_out = np.empty_like(truth)
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        left_out[i] = Ridge(alpha=50).fit(x[others], truth[others]).predict(x[i : i + 1])[0]
    np.testing.assert_allclose(model.fitted.p_mean[:5], left_out.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.fitted.p_sd[:5], left_out.std(0), atol=1e-6)


def test_predictions_as_they_are_shrink_towards_the_mean(fit: Callable[..., Any], small_world: Any) -> None:
    raw = side_by_side(fit(variant(normalise="none")).predict(small_world.test))
    model = fit()
    truth = side_by_side(model.fitted_features)
    assert raw.std(0).mean() < 0.8 * truth.std(0).mean()
    expected = published(raw, truth)
    found = side_by_side(model.predict(small_world.test))
    varying = raw.std(0) > 1e-6
    np.testing.assert_allclose(found[:, varying], expected[:, varying], atol=5e-3)


def test_penalties_can_be_counted_in_voxels(fit: Callable[..., Any]) -> None:
    model = fit(variant(penalties=(0.5, 1.0, 2.0), penalty_unit="voxels"))
    assert sorted(set(model.fitted.penalty.tolist())) == [150.0, 300.0, 600.0]
    assert model.fitted.penalty[0] == 150.0


def test_rows_standardized_in_their_own_runs_are_not_standardized_again(
    fit: Callable[..., Any], small_world: Any
) -> None:
    model, test = fit(variant(normalise="none")), small_world.test
    scaled = replace(test, betas=test.betas * model.fitted.x_sd + model.fitted.x_mean)
    own = replace(test, provenance={"normalization": "run_z"})
    np.testing.assert_allclose(model.predict(own).latents, model.predict(scaled).latents, atol=1e-3)
    assert model.attributes(own)["query_standardised"] is True


def test_captions_are_required(networks: Networks, small_world: Any) -> None:
    model = Small()
    model.networks = networks
    with pytest.raises(DataError, match="has no caption"):
        model.fit(small_world.train, replace(small_world.stimuli, captions={}))


def test_the_first_picture_needs_no_draw_of_latents_that_are_given(networks: Networks) -> None:
    """With every latent map given, the distribution of the pixels does not depend on the noise."""
    from nsdbench.adapters.nets.noise import ItemNoise

    maps = [torch.randn(1, 4, r, r) for r in (1, 4, 4, 8, 8, 16, 16, 16)]
    one, other = (networks.vdvae.manual_pass(maps, ItemNoise([item_rng(seed, "B1", 0)])) for seed in (1, 2))
    assert torch.equal(one, other)


def test_images_depend_on_seed_target_and_sample(model: Small, small_world: Any) -> None:
    whole = model.reconstruct(small_world.test, n_samples=2, seed=1).images
    assert whole.shape == (8, 2, 32, 32, 3)
    features = rows(model.predict(small_world.test), [3])
    np.testing.assert_array_equal(model.render(features, ["B3"], 2, 1), whole[3:4])
    assert not np.array_equal(whole[:, 0], whole[:, 1])
    for name, seed in (("B3", 2), ("B4", 1)):
        assert not np.array_equal(model.render(features, [name], 2, seed), whole[3:4])


@pytest.mark.parametrize(("share", "unused"), [(0.0, "text"), (1.0, "image")])
def test_a_share_of_zero_or_one_ignores_the_other_condition(
    fit: Callable[..., Any], small_world: Any, share: float, unused: str
) -> None:
    model = fit(variant(text_share=share))
    features = rows(model.predict(small_world.test), [2])
    other = replace(features, **{unused: np.zeros_like(getattr(features, unused))})
    np.testing.assert_array_equal(model.render(features, ["B2"], 2, 0), model.render(other, ["B2"], 2, 0))


def test_a_stored_model_reconstructs_the_same(
    model: Small, networks: Networks, small_world: Any, tmp_path: Path
) -> None:
    model.save(tmp_path)
    loaded = Small.load(tmp_path)
    loaded.networks = networks
    one, other = (m.predict(small_world.test) for m in (model, loaded))
    for a, b in zip(one.flat, other.flat, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        loaded.render(rows(other, [1]), ["B1"], 1, 0), model.render(rows(one, [1]), ["B1"], 1, 0)
    )


def test_a_damaged_store_is_refused(model: Small, tmp_path: Path) -> None:
    model.save(tmp_path)
    (tmp_path / "features.npz").write_bytes((tmp_path / "features.npz").read_bytes()[:1000])
    with pytest.raises(DataError, match="not a stored Fitted"):
        Small.load(tmp_path)


def test_what_shaped_the_images_is_recorded(model: Small, small_world: Any) -> None:
    found = model.attributes(small_world.test)
    assert (found["normalise"], found["query_items"], found["text_share"]) == ("query", 8, 0.4)
    assert (found["penalties"], found["penalty_unit"]) == ("50, 60, 100", "1")
    assert (found["steps"], found["strength"], found["noise_level"]) == (4, 0.75, "step_before")


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (brain_diffuser.BrainDiffuserTrain, {"normalise": "train"}),
        (brain_diffuser.BrainDiffuserImage, {"text_share": 0.0}),
        (brain_diffuser.BrainDiffuserText, {"text_share": 1.0}),
    ],
)
def test_variants_differ_from_the_method_in_one_setting(
    kind: type[BrainDiffuser], changed: dict[str, Any]
) -> None:
    for preset, settings in BrainDiffuser.settings.items():
        assert kind.settings[preset] == replace(settings, **changed)
    assert kind.name != BrainDiffuser.name
    assert kind.transductive == ("normalise" not in changed)
