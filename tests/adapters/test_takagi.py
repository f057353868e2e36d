"""Takagi & Nishimoto on a small world with random networks: regression, intercept, stages, seeds, storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from nsdbench.adapters import takagi
from nsdbench.adapters.base import Context, item_rng
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.ddim import Sampling
from nsdbench.adapters.nets.pixels import BICUBIC, resized
from nsdbench.adapters.nets.versatile import PublishedDenoiser
from nsdbench.adapters.takagi import Features, Networks, Settings, Takagi
from nsdbench.errors import DataError, WeightsError

SMALL = Settings(16, 32, Sampling(5, 0.8, 5.0))
Text = Callable[[Sequence[str]], Tensor]


class SmallTakagi(Takagi):
    name = "small_takagi"
    presets = ("small",)
    settings: ClassVar[Mapping[str, Settings]] = {"small": SMALL}


class SmallCorrected(SmallTakagi):
    settings: ClassVar[Mapping[str, Settings]] = {"small": replace(SMALL, intercept="corrected")}


class SmallCoarse(SmallTakagi):
    stochastic = False
    settings: ClassVar[Mapping[str, Settings]] = {"small": replace(SMALL, use="z")}


class SmallText(SmallTakagi):
    settings: ClassVar[Mapping[str, Settings]] = {"small": replace(SMALL, use="c")}


@pytest.fixture(scope="session")
def networks(
    small_autoencoder: Autoencoder, small_denoiser: PublishedDenoiser, text_states: Text
) -> Networks:
    return Networks(small_autoencoder, small_denoiser, text_states, text_states([""]))


@pytest.fixture
def fit(networks: Networks, small_world: Any) -> Callable[..., Any]:
    """Return a function that fits a class on the small world."""

    def fitted(kind: type[SmallTakagi] = SmallTakagi, train: Any = None) -> SmallTakagi:
        model = kind()
        model.networks = networks
        model.fit(train or small_world.train, small_world.stimuli)
        return model

    return fitted


def test_the_published_sizes_are_those_of_the_paper() -> None:
    published = Takagi.settings["published"]
    assert (published.coarse_side, published.side) == (320, 512)
    assert published.sampling == Sampling(50, 0.8, 5.0, "epsilon", "step_before")
    assert published.penalties == (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    assert published.intercept == "published"


def test_missing_weights_are_named_before_anything_is_fitted(small_world: Any, tmp_path: Path) -> None:
    model = Takagi("published", Context(weights_dir=tmp_path))
    with pytest.raises(WeightsError, match="missing"):
        model.fit(small_world.train, small_world.stimuli)
    assert not hasattr(model, "decoders")


@pytest.mark.parametrize(("feature", "columns"), [("z", slice(0, 120)), ("c", slice(120, 240))])
def test_each_feature_is_ridge_without_intercept_on_the_trials_of_its_region(
    fit: Callable[..., Any], small_world: Any, feature: str, columns: slice
) -> None:
    model, train = fit(), small_world.train
    decoder = model.decoders[feature]
    x = train.betas[:, columns].astype(np.float64)
    x = (x - x.mean(0)) / x.std(0)
    true = getattr(model.features(small_world.stimuli, train.targets), feature)
    y = true.reshape(len(true), -1)[np.searchsorted(train.targets, train.stimulus)]
    some = np.random.default_rng(0).choice(y.shape[1], 6, replace=False)
    for target in some:
        oracle = Ridge(alpha=decoder.penalty[target], fit_intercept=False).fit(x, y[:, target])
        np.testing.assert_allclose(decoder.coef[:, target], oracle.coef_, atol=1e-5)


def test_a_constant_added_to_a_feature_is_lost_as_published_and_kept_when_corrected(
    fit: Callable[..., Any], networks: Networks, small_world: Any
) -> None:
    shifted = replace(networks, text_states=lambda captions: networks.text_states(captions) + 40)
    for kind, expected in ((SmallTakagi, 0.0), (SmallCorrected, 40.0)):
        model, other = fit(kind), kind()
        other.networks = shifted
        other.fit(small_world.train, small_world.stimuli)
        difference = other.predict(small_world.test).c - model.predict(small_world.test).c
        np.testing.assert_allclose(difference, expected, atol=2e-3)


def test_published_predictions_of_a_constant_target_are_zero(
    fit: Callable[..., Any], small_world: Any
) -> None:
    model = fit()
    first_token = model.predict(small_world.test).c[:, 0]  # the start of every caption
    np.testing.assert_allclose(first_token, 0, atol=1e-5)
    assert np.abs(model.decoders["c"].y_mean).max() > 0.1


def test_rows_standardized_in_their_own_runs_are_not_standardized_again(
    fit: Callable[..., Any], small_world: Any
) -> None:
    model, test = fit(), small_world.test
    own = replace(test, provenance={"normalization": "run_z"})
    decoder = model.decoders["z"]
    expected = test.betas[:, :120] @ decoder.coef
    np.testing.assert_allclose(model.predict(own).z.reshape(8, -1), expected, rtol=1e-5, atol=1e-6)
    scaled = (test.betas[:, :120] - decoder.x_mean) / decoder.x_sd
    np.testing.assert_allclose(
        model.predict(test).z.reshape(8, -1), scaled @ decoder.coef, rtol=1e-5, atol=1e-6
    )
    assert model.attributes(own)["query_standardised"] is True


def test_a_missing_region_is_named(fit: Callable[..., Any], small_world: Any) -> None:
    train = small_world.train
    lacking = replace(train, rois={"stream_early": train.rois["stream_early"]})
    with pytest.raises(DataError, match="stream_ventral"):
        fit(train=lacking)
    with pytest.raises(DataError, match="stream_early"):
        fit(train=replace(train, rois={name: mask & False for name, mask in train.rois.items()}))


def test_captions_are_required(fit: Callable[..., Any], networks: Networks, small_world: Any) -> None:
    model = SmallTakagi()
    model.networks = networks
    with pytest.raises(DataError, match="has no caption"):
        model.fit(small_world.train, replace(small_world.stimuli, captions={}))


def test_the_text_feature_is_the_mean_over_captions_that_are_not_empty(
    fit: Callable[..., Any], networks: Networks, small_world: Any
) -> None:
    model = fit()
    found = model.features(small_world.stimuli, ["img00001"]).c[0]
    states = networks.text_states(["a blue ball", "a picture of a blue ball"])
    np.testing.assert_allclose(found, states.mean(0).numpy(), atol=1e-6)


def test_features_do_not_depend_on_their_company(fit: Callable[..., Any], small_world: Any) -> None:
    model, ids = fit(), small_world.train.targets
    many, one = model.features(small_world.stimuli, ids[:40]), model.features(small_world.stimuli, ids[7:8])
    np.testing.assert_allclose(many.z[7:8], one.z, atol=1e-5)


def test_the_coarse_variant_is_the_decoded_latent_enlarged(
    fit: Callable[..., Any], networks: Networks, small_world: Any
) -> None:
    model = fit(SmallCoarse)
    images = model.reconstruct(small_world.test, n_samples=3).images
    z = torch.from_numpy(model.predict(small_world.test).z)
    for row in range(8):
        expected = resized(networks.autoencoder.decode_pixels(z[row : row + 1]), 32, BICUBIC)
        np.testing.assert_array_equal(images[row], expected)


def test_the_text_variant_ignores_the_latents(fit: Callable[..., Any], small_world: Any) -> None:
    model = fit(SmallText)
    features = model.predict(small_world.test)
    blank = Features(np.zeros_like(features.z), features.c)
    one, other = (model.render(Features(f.z[:2], f.c[:2]), ["B0", "B1"], 1, 0) for f in (features, blank))
    np.testing.assert_array_equal(one, other)


def test_without_diffusion_the_image_is_the_coarse_one_encoded_again(
    fit: Callable[..., Any], networks: Networks, small_world: Any
) -> None:
    class Still(SmallTakagi):
        settings: ClassVar[Mapping[str, Settings]] = {"small": replace(SMALL, sampling=Sampling(5, 0.0, 5.0))}

    model = fit(Still)
    features = model.predict(small_world.test)
    z = torch.from_numpy(features.z[:1])
    coarse = resized(networks.autoencoder.decode_pixels(z), 32, BICUBIC)
    drawn = torch.from_numpy(item_rng(3, "B0", 0).standard_normal((1, 4, 16, 16), np.float32))
    expected = networks.autoencoder.decode_pixels(networks.autoencoder.encode_pixels(coarse, drawn))
    np.testing.assert_array_equal(model.render(features, ["B0"], 1, 3)[0], expected)


def test_images_depend_on_seed_target_and_sample_but_not_on_company_or_order(
    fit: Callable[..., Any], small_world: Any
) -> None:
    model, test = fit(), small_world.test
    whole = model.reconstruct(test, n_samples=2, seed=1)
    assert whole.images.shape == (8, 2, 32, 32, 3)
    rows = np.array([5, 2])
    part = model.reconstruct(test.select(rows), n_samples=2, seed=1)
    np.testing.assert_array_equal(part.images, whole.images[rows])
    assert not np.array_equal(whole.images[:, 0], whole.images[:, 1])
    assert not np.array_equal(model.reconstruct(test, n_samples=2, seed=2).images, whole.images)


def test_more_samples_than_fit_into_a_batch_are_the_same_samples(
    fit: Callable[..., Any], small_world: Any
) -> None:
    class Narrow(SmallTakagi):
        settings: ClassVar[Mapping[str, Settings]] = {"small": replace(SMALL, at_once=2)}

    test = small_world.test.select(np.array([0]))
    one, other = (fit(kind).reconstruct(test, n_samples=5).images for kind in (SmallTakagi, Narrow))
    # other batch sizes take other kernels, which round differently
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_stored_model_reconstructs_the_same(
    fit: Callable[..., Any], networks: Networks, small_world: Any, tmp_path: Path
) -> None:
    model = fit()
    model.save(tmp_path)
    loaded = SmallTakagi.load(tmp_path)
    loaded.networks = networks
    test = replace(small_world.test, rois={})  # regions are known from the fit
    np.testing.assert_array_equal(
        loaded.reconstruct(test, n_samples=1).images, model.reconstruct(test, n_samples=1).images
    )


def test_what_shaped_the_images_is_recorded(fit: Callable[..., Any], small_world: Any) -> None:
    found = fit().reconstruct(small_world.test, n_samples=1).attributes
    assert found["intercept"] == "published"
    assert found["noise_level"] == "step_before"
    assert (found["use"], found["guidance"], found["strength"], found["steps"]) == ("zc", 5.0, 0.8, 5)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (takagi.TakagiCoarse, {"use": "z"}),
        (takagi.TakagiText, {"use": "c"}),
        (takagi.TakagiCorrected, {"intercept": "corrected"}),
    ],
)
def test_variants_differ_from_the_method_in_one_setting(kind: type[Takagi], changed: dict[str, Any]) -> None:
    for preset, settings in Takagi.settings.items():
        assert kind.settings[preset] == replace(settings, **changed)
    assert kind.name != Takagi.name
    assert kind.stochastic == (changed != {"use": "z"})
