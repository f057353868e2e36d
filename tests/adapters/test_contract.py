"""The adapter contract: what is refused, and the arithmetic of the floors and of ridge."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, item_rng
from nsdbench.adapters.floors import MeanImage, RandomImage
from nsdbench.adapters.ridge import Ridge
from nsdbench.errors import DataError, ProtocolError, UsageError
from nsdbench.types import Stimuli, Trials

SIDE = 64


@pytest.fixture
def world(rng: np.random.Generator) -> tuple[Trials, Stimuli]:
    """60 images of two kinds, three repeats each; betas carry the brightness of four quadrants linearly."""
    images = {}
    for i in range(60):
        quadrants = rng.integers(20, 236, size=(2, 2, 3))
        images[f"img{i:05d}"] = np.kron(quadrants, np.ones((SIDE // 2, SIDE // 2, 1))).astype(np.uint8)
    ids = tuple(images)
    code = np.stack([images[i][:: SIDE // 2, :: SIDE // 2].reshape(-1) / 255.0 for i in ids])
    mixing = rng.normal(size=(code.shape[1], 40))
    rows = np.repeat(np.arange(60), 3)
    betas = (code @ mixing)[rows] + 0.05 * rng.normal(size=(180, 40))
    trials = Trials(
        betas=betas.astype(np.float32),
        stimulus=np.array(ids)[rows],
        split="train",
        stimulus_set=np.full(180, "core"),
        repeat=np.tile([0, 1, 2], 60),
        run=np.ones(180, np.int64),
        subject=1,
        rois={},
    )
    stimuli = Stimuli(ids, ("core",) * 60, frozenset(ids), images.__getitem__, "hash")
    return trials, stimuli


def as_test(trials: Trials, split: str = "vision") -> Trials:
    return replace(trials.average_repeats(), split=split)


def test_every_registered_model_is_an_adapter_under_its_own_name() -> None:
    for name in registry.ADAPTERS:
        adapter = registry.load(name)
        assert issubclass(adapter, Adapter)
        assert adapter.name == name


def test_unknown_models_are_refused_with_near_names() -> None:
    with pytest.raises(UsageError) as error:
        registry.load("rigde")
    assert "ridge" in error.value.remedy


def test_hyphens_and_lists_are_understood() -> None:
    assert registry.expand("mean-image, ridge,ridge") == ("mean_image", "ridge")
    assert set(registry.expand("all")) >= {"ridge", "mean_image", "random_image"}


def test_an_import_error_of_a_foreign_model_is_shown_as_itself() -> None:
    with pytest.raises(UsageError, match="No module named 'no_such_package'"):
        registry.load("no_such_package.decoder:Decoder")


def test_a_class_that_is_no_adapter_is_refused() -> None:
    with pytest.raises(UsageError, match="not a subclass"):
        registry.load("collections:OrderedDict")


@pytest.mark.parametrize("name", [":", "collections:", ":Ridge", ".relative:Ridge", "two:co:lons"])
def test_a_malformed_location_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        registry.load(name)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An importable module in which a test can put classes."""
    module = types.ModuleType("foreign_decoders")
    monkeypatch.setitem(sys.modules, "foreign_decoders", module)
    return module


def test_a_class_without_its_methods_is_refused_by_the_names_of_what_it_lacks(
    foreign: types.ModuleType,
) -> None:
    foreign.Half = type("Half", (Adapter,), {"name": "half", "learn": MeanImage.learn})  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="lacks generate, load, paper, save"):
        registry.load("foreign_decoders:Half")


def test_a_foreign_class_cannot_take_over_the_results_of_a_built_in_model(foreign: types.ModuleType) -> None:
    foreign.Better = type("Better", (Ridge,), {})  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="calls itself 'ridge'"):
        registry.load("foreign_decoders:Better")


def test_any_error_while_a_foreign_module_is_imported_is_shown_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exploding_decoder.py").write_text("raise RuntimeError('needs a fork of torch')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="RuntimeError: needs a fork of torch"):
        registry.load("exploding_decoder:Decoder")


@pytest.mark.parametrize("split", ["vision", "imagery", "shared1000"])
def test_no_test_split_may_enter_a_fit(world: tuple[Trials, Stimuli], split: str) -> None:
    trials, stimuli = world
    with pytest.raises(ProtocolError, match="split"):
        MeanImage().fit(replace(trials, split=split), stimuli)


def test_imagery_rows_hidden_in_a_training_split_are_refused(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    sets = trials.stimulus_set.copy()
    sets[7] = "B"
    with pytest.raises(ProtocolError):
        Ridge().fit(replace(trials, stimulus_set=sets), stimuli)


def test_training_images_unknown_to_the_stimuli_are_refused(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    with pytest.raises(ProtocolError, match="not training stimuli"):
        Ridge().fit(trials, stimuli.of(stimuli.ids[:-1]))


def test_nan_betas_are_refused_with_their_place(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    betas = trials.betas.copy()
    betas[5, 3] = np.nan
    with pytest.raises(DataError, match="row 5, voxel 3"):
        Ridge().fit(replace(trials, betas=betas), stimuli)


def test_an_unfitted_adapter_refuses_to_reconstruct(world: tuple[Trials, Stimuli]) -> None:
    with pytest.raises(ProtocolError, match="fitted"):
        Ridge().reconstruct(as_test(world[0]))


def test_other_voxels_than_in_the_fit_are_refused(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    model = Ridge()
    model.fit(trials, stimuli)
    with pytest.raises(DataError, match="40 voxels"):
        model.reconstruct(as_test(replace(trials, betas=trials.betas[:, :39])))


def test_mean_image_is_the_mean_of_the_distinct_training_images(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    model = MeanImage()
    # an image shown more often must not weigh more
    more = trials.select(np.concatenate([np.arange(180), np.zeros(50, np.int64)]))
    model.fit(more, stimuli)
    expected = np.rint(np.mean([stimuli.image(i) for i in stimuli.ids], axis=0)).astype(np.uint8)
    recon = model.reconstruct(as_test(trials), n_samples=4)
    assert recon.n_samples == 1  # deterministic models give one sample
    np.testing.assert_array_equal(recon.images[3, 0], expected)


def test_random_image_draws_training_images_only_and_depends_on_target_and_sample(
    world: tuple[Trials, Stimuli],
) -> None:
    trials, stimuli = world
    model = RandomImage()
    model.fit(trials, stimuli)
    recon = model.reconstruct(as_test(trials), n_samples=6, seed=1)
    known = {stimuli.image(i).tobytes() for i in stimuli.ids}
    drawn = [image.tobytes() for image in recon.images.reshape(-1, SIDE, SIDE, 3)]
    assert set(drawn) <= known
    assert len(set(drawn)) > 50  # 360 draws from 60 images


def test_random_image_is_uniform_over_the_training_images(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    model = RandomImage()
    model.fit(trials, stimuli)
    recon = model.reconstruct(as_test(trials), n_samples=50)
    pool = {image.tobytes(): i for i, image in enumerate(model.images)}
    counts = np.bincount([pool[x.tobytes()] for x in recon.images.reshape(-1, SIDE, SIDE, 3)], minlength=60)
    chi_square = float(np.sum((counts - 50) ** 2 / 50))
    assert chi_square < 105  # 59 degrees of freedom: p = 0.0002


def test_ridge_recovers_images_that_betas_encode_linearly(world: tuple[Trials, Stimuli]) -> None:
    trials, stimuli = world
    model = Ridge()
    keep = np.isin(trials.stimulus, stimuli.ids[:50])
    model.fit(trials.select(keep), stimuli)
    held_out = as_test(trials.select(~keep))
    recon = model.reconstruct(held_out)
    truth = np.stack([stimuli.image(i) for i in held_out.stimulus]).astype(float)
    error = np.abs(recon.images[:, 0].astype(float) - truth).mean()
    assert error < 8  # grey levels; the mean image is off by about 54


def test_ridge_on_shuffled_betas_does_no_better_than_the_mean_image(
    world: tuple[Trials, Stimuli], rng: np.random.Generator
) -> None:
    trials, stimuli = world
    keep = np.isin(trials.stimulus, stimuli.ids[:50])
    train, held_out = trials.select(keep), as_test(trials.select(~keep))
    shuffled = replace(train, betas=rng.normal(size=train.betas.shape).astype(np.float32))
    errors = []
    for model in (Ridge(), MeanImage()):
        model.fit(shuffled, stimuli)
        images = model.reconstruct(held_out).images[:, 0].astype(float)
        errors.append(np.abs(images - np.stack([stimuli.image(i) for i in held_out.stimulus])).mean())
    assert errors[0] > 0.97 * errors[1]


@pytest.mark.parametrize("name", ["ridge", "mean_image", "random_image"])
def test_a_loaded_adapter_reconstructs_exactly_what_the_fitted_one_does(
    world: tuple[Trials, Stimuli], tmp_path: Path, name: str
) -> None:
    trials, stimuli = world
    adapter = registry.load(name)
    model = adapter()
    model.fit(trials, stimuli)
    model.save(tmp_path)
    test = as_test(trials)
    np.testing.assert_array_equal(
        model.reconstruct(test, seed=5).images, adapter.load(tmp_path).reconstruct(test, seed=5).images
    )


def test_item_draws_depend_on_seed_stimulus_and_sample_only() -> None:
    draws = {item_rng(s, t, k).integers(2**62) for s in (0, 1) for t in ("A1", "A2", "1A") for k in (0, 1)}
    assert len(draws) == 12
    assert item_rng(3, "A1", 2).integers(2**62) == item_rng(3, "A1", 2).integers(2**62)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="preset"):
        Ridge("published")
