"""iCNN: feature decoders against closed forms, contrast, the two loops against plain reimplementations, every stage."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import savemat
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters import unit_files
from nsdbench.adapters.base import Context
from nsdbench.adapters.icnn import Icnn, Settings
from nsdbench.adapters.icnn_networks import (
    CONTRAST_FILE,
    ENCODER,
    ENCODER_FILE,
    GENERATOR,
    GENERATOR_FILE,
    Networks,
    published_bounds,
    published_contrast,
    published_networks,
)
from nsdbench.adapters.inversion import (
    SIMILARITY,
    AdamW,
    Descent,
    display,
    invert,
    rescale,
    similarity,
    spread,
)
from nsdbench.adapters.nets import generator, vgg
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.adapters.nets.generator import Generator, GeneratorConfig
from nsdbench.adapters.nets.vgg import Vgg, VggConfig
from nsdbench.adapters.unit_files import TrainingFeatures, UnitFiles
from nsdbench.errors import DataError, ReconstructionError, WeightsError

ENCODES = VggConfig(((6,), (8,)), hidden=20, classes=10, size=24, scale=64.0)
MAKER = GeneratorConfig((16, 16, 16, 256), (4, 8), (("deconv1", 6, True), ("deconv0", 3, True)), 24)
SELECTED = 25


def random_networks() -> Networks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network, maker = Vgg(ENCODES), Generator(MAKER)
        for module in (*network.modules(), *maker.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    with torch.no_grad():
        network.features[0].weight[2] = 0  # a channel that is the same for all images
        maker.upper.fill_(3.0)
    return Networks(network.eval().requires_grad_(False), maker.eval().requires_grad_(False))


class TinyIcnn(Icnn):
    """All stages at toy size."""

    settings: ClassVar = {"mini": Settings(ENCODES.layers, Descent(12), n_selected=SELECTED, at_once=3)}

    @cached_property
    def networks(self) -> Networks:
        return random_networks()


class AdamIcnn(TinyIcnn):
    """The other published loop, with its scaling."""

    settings: ClassVar = {
        "mini": replace(TinyIcnn.settings["mini"], loop=AdamW(5), scaling="train_mean_scale"),
    }


@pytest.fixture(scope="module")
def adapter(small_world: Any) -> Icnn:
    found = TinyIcnn("mini")
    found.fit(small_world.train, small_world.stimuli)
    return found


# decoders


def brute_force(x: NDArray[Any], y: NDArray[Any], rows: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
    """Predictions for one unit, step by step: z-score, correlate, select, solve with a penalised bias."""
    z = (y - y.mean()) / y.std(ddof=1)
    of_trials = z[rows]
    r = np.array([np.corrcoef(column, of_trials)[0, 1] for column in x.T])
    chosen = np.argsort(-np.abs(r), kind="stable")[:SELECTED]
    extended = np.column_stack([x[:, chosen], np.ones(len(x))])
    w = np.linalg.inv(extended.T @ extended + 100 * np.eye(SELECTED + 1)) @ extended.T @ of_trials
    return np.column_stack([query[:, chosen], np.ones(len(query))]) @ w * y.std(ddof=1) + y.mean()


def test_every_layer_is_decoded_as_the_definition_says(adapter: Icnn, small_world: Any) -> None:
    train, test = small_world.train, small_world.test
    mean, sd = train.betas.mean(0), train.betas.std(0, ddof=1)
    x, query = (train.betas - mean) / sd, (test.betas - mean) / sd
    truth = adapter.features(small_world.stimuli, train.targets)
    rows = np.searchsorted(train.targets, train.stimulus)
    decoded = adapter.predict(test)
    for name, values in truth.items():
        flat, found = values.reshape(len(values), -1), decoded[name].reshape(len(test), -1)
        for unit in (0, 7, flat.shape[1] - 1):
            expected = brute_force(x.astype(float), flat[:, unit].astype(float), rows, query)
            assert np.allclose(found[:, unit], expected, atol=2e-4), (name, unit)


def test_a_constant_unit_is_predicted_by_its_value(adapter: Icnn, small_world: Any) -> None:
    bias = float(adapter.networks.vgg.features[0].bias[2])
    assert np.allclose(adapter.predict(small_world.test)["conv1_1"][:, 2], bias, atol=1e-6)


def test_rows_that_the_data_set_standardized_by_run_are_taken_as_they_are(
    adapter: Icnn, small_world: Any
) -> None:
    test, fit = small_world.test, adapter.fitted
    by_hand = replace(test, betas=(test.betas - fit.x_mean) / fit.x_sd, provenance={"normalization": "run_z"})
    for name, values in adapter.predict(test).items():
        assert np.allclose(values, adapter.predict(by_hand)[name], atol=1e-5)
    raw = replace(test, provenance={"normalization": "run_z"})
    assert not np.allclose(adapter.predict(raw)["fc7"], adapter.predict(test)["fc7"], atol=1e-2)


def test_passes_over_the_images_change_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 24, 24, 3), dtype=np.uint8)
    network, layers = random_networks().vgg, ("conv1_1", "conv2_1", "fc7")
    whole = TrainingFeatures(network, layers, images, 2**30)
    parts = TrainingFeatures(network, layers, images, 4 * 30 * 1000)
    assert (len(whole.passes), len(parts.passes)) == (1, 5)
    assert whole.n_units == 6 * 24**2 + 8 * 12**2 + 20
    joined = np.concatenate([one[:, :] for one in parts.passes], axis=1)
    assert np.array_equal(joined, whole.passes[0][:, :])
    assert parts.held is not None
    assert parts.held[1].shape == parts.passes[-1].shape  # the earlier ones are forgotten


@pytest.mark.parametrize("n_voxels", [40, 70_000])
def test_decoders_come_back_from_their_files(tmp_path: Path, n_voxels: int) -> None:
    rng = np.random.default_rng(0)
    block = unit_files.UnitDecoders(
        np.sort(rng.integers(0, n_voxels, (5, 3)), axis=1).astype(np.int32),
        rng.standard_normal((5, 3)).astype(np.float32),
        *rng.standard_normal((3, 5)).astype(np.float32),
        n_voxels,
    )
    x = rng.standard_normal((2, n_voxels)).astype(np.float32)
    halves = [
        replace(
            block,
            **{name: getattr(block, name)[rows] for name in ("voxels", "weights", "bias", "y_mean", "y_sd")},
        )
        for rows in (slice(0, 2), slice(2, 5))
    ]
    (tmp_path / "saved").mkdir()
    UnitFiles.write(tmp_path, halves, 5, 3, n_voxels).save(tmp_path / "saved")
    opened = UnitFiles.open(tmp_path / "saved", n_voxels)
    assert np.array_equal(opened.predict(x), block.predict(x))
    assert opened.voxels.dtype == (np.uint16 if n_voxels == 40 else np.int32)


def test_decoders_that_do_not_fit_on_the_disk_are_refused_before_they_are_fitted(tmp_path: Path) -> None:
    def never() -> Iterator[Any]:
        pytest.fail("a decoder was fitted")
        yield

    with pytest.raises(DataError, match="GB left"):
        UnitFiles.write(tmp_path, never(), 10**12, 500, 10_000)


def test_damaged_decoders_are_refused(adapter: Icnn, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    (tmp_path / unit_files.WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(DataError, match="stored decoders"):
        TinyIcnn.load(tmp_path, "mini")


# contrast


MAPS = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 6.0]]]])  # one image, two channels
UNITS = torch.tensor([[1.0, 4.0, 7.0]])


def test_contrast_is_the_deviation_over_space_averaged_over_channels() -> None:
    assert spread(MAPS, 0).tolist() == pytest.approx([(5**0.5 + 3**0.5) / 2])
    assert spread(MAPS, 1).tolist() == pytest.approx([((20 / 3) ** 0.5 + 2) / 2])
    assert spread(UNITS, 1).tolist() == pytest.approx([3.0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [1, 4, 7]),
        ("shen", [6 / 6**0.5, 24 / 6**0.5, 42 / 6**0.5]),
        # mean 4, sd 3: centred -3, 0, 3, times 6 / 3
        ("feature_std", [-2, 4, 10]),
        # minus the training mean (1, 1, 1): 0, 3, 6 with mean 3 and sd 3; times two about 3, plus 1
        ("feature_std_train_mean_center", [-2, 4, 10]),
        # minus the training mean: 0, 3, 6, times 6 / 3, plus 1
        ("train_mean_scale", [1, 7, 13]),
    ],
)
def test_contrast_is_restored_as_each_variant_says(how: Any, expected: list[float]) -> None:
    found = rescale(UNITS, 6.0, torch.ones(1, 3), how)
    assert found.tolist()[0] == pytest.approx(expected)


def test_the_training_mean_decides_what_is_stretched() -> None:
    mean = torch.tensor([[0.0, 4.0, 2.0]])  # differences 1, 0, 5 with mean 2 and variance 7
    found = rescale(UNITS, 7**0.5 * 3, mean, "feature_std_train_mean_center")
    assert found.tolist()[0] == pytest.approx([2 - 3, 2 - 6 + 4, 2 + 9 + 2], abs=1e-5)


def test_a_rescaled_item_has_the_wanted_contrast_whatever_the_others_are() -> None:
    others = torch.cat([MAPS, 10 * MAPS.flip(3)])
    found = rescale(others, 2.5, torch.zeros(1, 2, 2, 2), "feature_std")
    assert spread(found).tolist() == pytest.approx([2.5, 2.5])
    assert torch.equal(found[:1], rescale(MAPS, 2.5, torch.zeros(1, 2, 2, 2), "feature_std"))


def test_a_flat_layer_stays_finite() -> None:
    assert rescale(torch.ones(1, 3), 2.0, torch.ones(1, 3), "feature_std_train_mean_center").isfinite().all()


def test_the_contrast_of_true_features_is_their_mean_over_training_images(
    adapter: Icnn, small_world: Any
) -> None:
    truth = adapter.features(small_world.stimuli, small_world.train.targets)
    for name, found in zip(adapter.fitted.layers, adapter.fitted.contrast, strict=True):
        values = truth[str(name)].reshape(
            len(truth["fc6"]), *((-1,) if "fc" in name else (len(truth[str(name)][0]), -1))
        )
        assert found == pytest.approx(values.std(-1, ddof=1).mean(), rel=1e-5)


# similarity


def test_similarity_is_that_of_dists() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 6.0]), np.array([2.0, 2.0, 4.0, 4.0])  # means 3, 3; variances 3.5, 1
    covariance = ((x - 3) * (y - 3)).mean()
    expected = -(0.2 * (18 + 1e-6) / (18 + 1e-6) + 0.6 * (2 * covariance + 1e-6) / (4.5 + 1e-6)) / 0.8
    a, b = (torch.tensor(values, dtype=torch.float32) for values in (x, y))
    assert similarity(a[None], b[None], (0.2, 0.6)).item() == pytest.approx(expected)
    maps = [values.view(1, 1, 2, 2) for values in (a, b)]
    assert similarity(*maps, (0.2, 0.6)).item() == pytest.approx(expected)


def test_similarity_is_averaged_over_channels_and_best_for_equal_features() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    whole = similarity(x, y, (0.3, 0.7))
    parts = torch.stack([similarity(x[:, [c]], y[:, [c]], (0.3, 0.7)) for c in range(3)])
    assert torch.allclose(whole, parts.mean(0), atol=1e-6)
    assert torch.allclose(similarity(x, x, (0.3, 0.7)), -torch.ones(2), atol=1e-6)


def test_every_published_layer_has_its_two_constants(shared: Path) -> None:
    import json

    listed = json.loads((shared / "data/icnn/dists_weights.json").read_text())["layers"]
    assert {name: (values["alpha"], values["beta"]) for name, values in listed.items()} == dict(SIMILARITY)
    assert tuple(SIMILARITY) == vgg.PUBLISHED.layers


# loops


class LinearGenerator(nn.Module):
    """Images that are linear in the code: no canvas around them."""

    def __init__(self, matrix: Tensor, upper: float) -> None:
        super().__init__()
        self.matrix = matrix  # (pixels, code)
        self.upper = torch.full((matrix.shape[1],), upper)
        self.codes: list[Tensor] = []

    def forward(self, code: Tensor) -> Tensor:
        self.codes.append(code.detach().clone())
        return (code @ self.matrix.T).view(len(code), 3, 2, -1)

    image = forward

    def centre(self, canvas: Tensor) -> Tensor:
        return canvas


class PixelNetwork(nn.Module):
    """Two layers: the pixels, and three times the pixels."""

    config = VggConfig(((3,),), 1, 1, 2)

    def forward(self, x: Tensor, layers: Any = None) -> dict[str, Tensor]:
        return {"conv1_1": x, "fc6": 3 * x.flatten(1)}


MATRIX = np.random.default_rng(1).standard_normal((12, 5))
WANTED = np.random.default_rng(2).standard_normal((1, 12))
NOISE = np.random.default_rng(3).standard_normal((2, 5))


def run(
    loop: Descent | AdamW, noise: NDArray[Any] = NOISE, upper: float = 0.8
) -> tuple[NDArray[Any], list[Tensor]]:
    generator = LinearGenerator(torch.from_numpy(MATRIX), upper)
    wanted = {"conv1_1": torch.from_numpy(WANTED).view(1, 3, 2, 2), "fc6": torch.from_numpy(3 * WANTED + 1)}
    images = invert(generator, PixelNetwork(), wanted, torch.from_numpy(noise), loop)  # type: ignore[arg-type]
    return images.flatten(1).numpy(), generator.codes


def plain_descent(z: NDArray[Any], iterations: int, upper: float) -> NDArray[Any]:
    """One image, with the gradient written out."""
    wanted = [(1, WANTED[0]), (3, 3 * WANTED[0] + 1)]
    weights = np.array([1 / (target @ target) for _, target in wanted])
    weights /= weights.sum()
    step = np.zeros_like(z)
    for i in range(iterations):
        image = MATRIX @ z
        slope = sum(
            w * 2 * factor * MATRIX.T @ (factor * image - target)
            for w, (factor, target) in zip(weights, wanted, strict=True)
        )
        step = 0.9 * step + slope / np.abs(slope).mean()
        z = z - (2 + i * (1e-10 - 2) / iterations) * step
        z = np.clip(0.99 * z, 0, upper)
    return image


def test_descent_is_the_published_loop_for_every_image_of_a_batch() -> None:
    images, codes = run(Descent(15))
    assert len(codes) == 15
    for image, noise in zip(images, NOISE, strict=True):
        assert np.allclose(image, plain_descent(noise, 15, 0.8), atol=1e-6)


def test_descent_keeps_codes_within_their_bounds_after_the_first_step() -> None:
    _, codes = run(Descent(10))
    later = torch.stack(codes[1:])
    assert torch.equal(codes[0], torch.from_numpy(NOISE))
    assert (float(later.min()), float(later.max())) == (0.0, pytest.approx(0.8))


def plain_adamw(z: NDArray[Any], iterations: int, rate: float) -> NDArray[Any]:
    """Squared errors alone; Loshchilov & Hutter's update, and a bound that the gradient does not see."""
    first, second = np.zeros_like(z), np.zeros_like(z)
    for i in range(1, iterations + 1):
        image = MATRIX @ np.maximum(z, 0)
        slope = np.zeros_like(z)
        for factor, target in ((1, WANTED[0]), (3, 3 * WANTED[0] + 1)):
            slope += 2 * factor * MATRIX.T @ (factor * image - target) / (target @ target) / 2
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        update = first / (1 - 0.9**i) / (np.sqrt(second / (1 - 0.999**i)) + 1e-8)
        z = z * (1 - rate * 0.01) - rate * update
    return image


def test_adamw_bounds_codes_below_in_the_forward_pass_only_and_never_above() -> None:
    images, codes = run(AdamW(20, start_sd=1.0, similarity=0.0), upper=0.1)
    for image, noise in zip(images, NOISE, strict=True):
        assert np.allclose(image, plain_adamw(noise, 20, 0.1), atol=1e-6)
    assert float(torch.stack(codes).min()) == 0.0
    assert float(torch.stack(codes).max()) > 0.1


def test_the_similarity_part_of_the_loss_counts() -> None:
    assert not np.allclose(run(AdamW(20, similarity=0.0))[0], run(AdamW(20))[0], atol=1e-3)


@pytest.mark.parametrize("loop", [Descent(10), AdamW(5)])
def test_an_image_does_not_depend_on_its_batch(loop: Descent | AdamW) -> None:
    assert np.allclose(run(loop)[0][1:], run(loop, NOISE[1:])[0], atol=1e-9)


def test_the_features_of_the_result_come_close_to_the_wanted_ones() -> None:
    networks = random_networks()
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = networks.vgg(networks.generator.image(3 * torch.rand(1, 16)))
    noise = torch.randn(1, 16)

    def error(found: dict[str, Tensor]) -> float:
        return float(sum((found[n] - w).square().sum() / w.square().sum() for n, w in wanted.items()))

    with torch.no_grad():
        before = error(networks.vgg(networks.generator.image(noise.clamp(min=0))))
        found = invert(networks.generator, networks.vgg, wanted, noise, Descent(100, rate=0.5))
        assert error(networks.vgg(found)) < 0.1 * before


def test_an_image_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ReconstructionError, match="not finite"):
        run(Descent(3), NOISE * np.nan)


# display


def test_display_clips_to_percentiles_and_stretches() -> None:
    pixels = np.arange(101 * 3, dtype=float).reshape(101, 1, 3)  # percentiles 2 and 98 are 6.04 and 295.96
    shown = display(pixels)
    assert (shown.min(), shown.max()) == (0, 255)
    assert shown[50, 0, 1] == int((151 - 6.04) / (295.96 - 6.04) * 255)
    assert shown.dtype == np.uint8
    assert not display(np.full((4, 4, 3), 7.0)).any()


# the whole


@pytest.mark.parametrize("kind", [TinyIcnn, AdamIcnn])
def test_all_stages_run_and_the_seed_and_the_target_fix_the_images(
    adapter: Icnn, small_world: Any, tmp_path: Path, kind: type[Icnn]
) -> None:
    adapter.save(tmp_path)
    adapter = kind.load(tmp_path, "mini")
    test = small_world.test.select(np.arange(3))
    whole = adapter.reconstruct(test, n_samples=4, seed=1)
    assert whole.images.shape == (3, 4, 24, 24, 3)
    assert np.ptp(whole.images, axis=(2, 3, 4)).min() > 0
    part = adapter.reconstruct(test.select(np.array([2, 0])), n_samples=4, seed=1)
    assert np.array_equal(part.images, whole.images[[2, 0]])
    other = adapter.reconstruct(test, n_samples=4, seed=2)
    assert not np.array_equal(other.images, whole.images)


def test_options_travel_with_the_images(adapter: Icnn, small_world: Any) -> None:
    facts = adapter.reconstruct(small_world.test.select(np.arange(1)), n_samples=1).attributes
    assert facts["loop"] == "Descent"
    assert facts["loop_iterations"] == 12
    assert facts["feature_scaling"] == "feature_std_train_mean_center"
    assert facts["query_standardised"] is False
    assert facts["layers"] == "conv1_1,conv2_1,fc6,fc7,fc8"


def test_a_stored_decoder_reconstructs_the_same(adapter: Icnn, small_world: Any, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    loaded = TinyIcnn.load(tmp_path, "mini")
    test = small_world.test.select(np.arange(2))
    first, again = (model.reconstruct(test, n_samples=2).images for model in (adapter, loaded))
    assert np.array_equal(first, again)


def test_decoders_of_other_layers_are_refused(adapter: Icnn, small_world: Any, tmp_path: Path) -> None:
    class FewerLayers(TinyIcnn):
        settings: ClassVar = {"mini": replace(TinyIcnn.settings["mini"], layers=("fc7", "fc8"))}

    adapter.save(tmp_path)
    with pytest.raises(DataError, match="other settings"):
        FewerLayers.load(tmp_path, "mini").reconstruct(small_world.test)


def test_features_of_trained_images_are_decoded_better_than_chance(adapter: Icnn, small_world: Any) -> None:
    truth = adapter.features(small_world.stimuli, tuple(small_world.train.stimulus[:8].tolist()))
    decoded = adapter.predict(small_world.test)
    assert np.corrcoef(decoded["fc7"].ravel(), truth["fc7"].ravel())[0, 1] > 0.5


# published


def test_missing_published_weights_are_named_before_anything_is_fitted(
    small_world: Any, tmp_path: Path
) -> None:
    adapter = Icnn("published", Context(weights_dir=tmp_path))
    with pytest.raises(WeightsError, match=r"VGG_ILSVRC_19_layers\.zip.*generator"):
        adapter.fit(small_world.train, small_world.stimuli)


def test_the_published_bounds_are_those_of_the_authors() -> None:
    bounds = published_bounds()
    assert bounds.shape == (4096,)
    assert (float(bounds.min()), float(bounds.max())) == (2.0, 6.0)
    assert float(bounds.mean()) == pytest.approx(3.372, abs=5e-4)


def archive(folder: Path, layers: tuple[str, ...]) -> Path:
    savemat(
        folder / "contrast.mat",
        {name: np.array([[1.0, 2.0, 6.0]]) * (i + 1) for i, name in enumerate(layers)},
    )
    with zipfile.ZipFile(folder / "vgg.zip", "w") as opened:
        opened.write(folder / "contrast.mat", f"VGG_ILSVRC_19_layers/{CONTRAST_FILE}")
    return folder / "vgg.zip"


def test_the_published_contrast_is_averaged_over_channels(tmp_path: Path) -> None:
    found = published_contrast(archive(tmp_path, vgg.PUBLISHED.layers))
    assert found == {name: pytest.approx(3.0 * (i + 1)) for i, name in enumerate(vgg.PUBLISHED.layers)}


def test_a_layer_without_published_contrast_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no entry for fc8"):
        published_contrast(archive(tmp_path, vgg.PUBLISHED.layers[:-1]))


@pytest.mark.slow
def test_published_networks_come_out_of_their_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros in half precision under the published names, with a one here and there: 0.8 GB."""
    monkeypatch.setattr(
        weights.registry, "REGISTRY", {i: replace(w, md5=None) for i, w in weights.REGISTRY.items()}
    )
    networks = on_meta(lambda: nn.ModuleList([Vgg(vgg.PUBLISHED), Generator(generator.PUBLISHED)]))
    encoder, maker = (
        {
            name: torch.randn(value.shape).half()
            for name, value in part.state_dict().items()
            if name != "upper"
        }
        for part in networks
    )
    encoder["features.0.weight"][5], maker["deconv0.weight"][3] = 1, 1
    contrast = {name: np.full((1, 3), 2.0) for name in vgg.PUBLISHED.layers}
    savemat(tmp_path / CONTRAST_FILE, contrast)
    torch.save(encoder, tmp_path / ENCODER_FILE)
    torch.save(maker | {"defc.0.bias": maker["defc7.bias"]}, tmp_path / GENERATOR_FILE)
    for id, members in ((ENCODER, (ENCODER_FILE, CONTRAST_FILE)), (GENERATOR, (GENERATOR_FILE,))):
        with zipfile.ZipFile(tmp_path / weights.entry(id).filename, "w") as opened:
            for member in members:
                opened.write(tmp_path / member, f"folder/{member}")
    found = published_networks("cpu", tmp_path)
    assert torch.equal(found.vgg.features[0].weight, encoder["features.0.weight"].float())
    assert torch.equal(found.generator.deconv0.weight, maker["deconv0.weight"].float())
    assert torch.equal(found.generator.upper, published_bounds())
    assert found.contrast == dict.fromkeys(vgg.PUBLISHED.layers, 2.0)


def test_published_settings_are_those_of_the_paper() -> None:
    chosen = Icnn("published").chosen
    assert (len(chosen.layers), chosen.n_selected, chosen.penalty) == (19, 500, 100.0)
    assert chosen.loop == Descent(iterations=200, rate=2.0, momentum=0.9, decay=0.01, start_sd=1.0)
