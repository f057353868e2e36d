"""The miniature networks come with the package, are what their hashes say, and keep to simulated data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nsdbench.errors import UsageError, WeightsError
from nsdbench.metrics import registry
from nsdbench.metrics.nets import load_net
from nsdbench.metrics.nets.mini import FOLDER, MINI_NETS, SHIPPED, shipped
from nsdbench.metrics.profiles import PROFILES
from nsdbench.metrics.registry import HEADLINE, METRICS, MINI, SIM_DEFAULT
from nsdbench.schema import RunKey
from nsdbench.scoring import ScoreSettings, score
from nsdbench.store import sha256_file
from nsdbench.types import Reconstructions, Stimuli

NAMES = tuple(net.name for net in MINI_NETS)
NODES = {
    "mini_alexnet": {"features.4": (64, 16, 16), "features.11": (96, 8, 8)},
    "mini_inception": {"avgpool": (192,)},
    "mini_effnet": {"avgpool": (192,)},
    "mini_clip": {"image_embeds": (64,)},
    "mini_swav": {"avgpool": (192,)},
}


def _images(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).random((n, 3, 64, 64), dtype=np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_load_strictly_under_their_recorded_hash(name: str, tmp_path: Path) -> None:
    net = load_net(name, weights_dir=tmp_path)
    assert (net.weights_id, net.untrained) == (f"{name}-v1", False)
    assert (
        net.weights_sha256 == SHIPPED[net.weights_id] == sha256_file(FOLDER / f"{net.weights_id}.safetensors")
    )


def test_every_shipped_file_belongs_to_a_network_and_they_are_small() -> None:
    sizes = {path.stem: path.stat().st_size for path in FOLDER.iterdir()}
    assert sizes.keys() == SHIPPED.keys()
    assert max(sizes.values()) < 4 * 2**20
    assert sum(sizes.values()) < 8 * 2**20


def test_altered_and_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is missing"):
        shipped("mini_clip-v1", tmp_path)
    path = tmp_path / "mini_clip-v1.safetensors"
    shutil.copy(FOLDER / path.name, path)
    assert shipped("mini_clip-v1", tmp_path)[0] == path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="has sha256"):
        shipped("mini_clip-v1", tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_features_are_repeatable_and_do_not_depend_on_the_batch(name: str, weights: str) -> None:
    net, images = load_net(name, weights=weights), _images(5)  # type: ignore[arg-type]
    found, again = net(images), net(images)
    assert {node: tuple(values.shape[1:]) for node, values in found.items()} == NODES[name]
    for node, values in found.items():
        assert torch.equal(values, again[node])
        alone = net(images[2:3])[node]
        torch.testing.assert_close(alone, values[2:3], rtol=0, atol=1e-5 * float(values.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_gives_them_64_pixels_and_other_sizes_are_refused(name: str) -> None:
    assert {rules.net_size(name) for rules in PROFILES.values()} == {64}
    with pytest.raises(UsageError, match="64 x 64 pixels, got 96"):
        load_net(name, weights="random")(torch.zeros(1, 3, 96, 96))


def test_each_metric_is_the_small_sister_of_a_headline_metric() -> None:
    assert tuple(name.removeprefix("mini_") for name in SIM_DEFAULT) == HEADLINE
    assert set(MINI) == {name for name in METRICS if name.startswith("mini_")}
    for name in MINI:
        small, big = METRICS[name], METRICS[name.removeprefix("mini_")]
        assert (small.kind, small.direction, small.chance) == (big.kind, big.direction, big.chance)
        assert small.nets == tuple(f"mini_{net}" for net in big.nets)
        ours, theirs = (
            registry.load(name).features.nodes,
            registry.load(name.removeprefix("mini_")).features.nodes,
        )
        assert ours == theirs


def test_real_images_cannot_be_scored_with_networks_of_the_simulated_world() -> None:
    assert registry.for_data("ssim,mini-clip", simulated=True) == ("ssim", "mini_clip")
    with pytest.raises(UsageError, match="mini_clip cannot score real images") as caught:
        registry.for_data("ssim,mini-clip", simulated=False)
    assert "Ask for clip" in caught.value.remedy


def test_all_metrics_of_real_data_leave_out_those_of_the_simulated_world() -> None:
    everything = registry.for_data("all", simulated=True)
    assert tuple(n for n in everything if n not in MINI) == registry.for_data("all", simulated=False)
    assert set(MINI) <= set(everything)


def test_the_default_metrics_of_simulated_data_score_true_images_as_perfect(tmp_path: Path) -> None:
    pictures = (
        np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    )
    ids = ("img00000", "img00001", "img00002")
    truth = dict(zip(ids, pictures, strict=True))
    stimuli = Stimuli(ids, ("core",) * 3, frozenset(ids), truth.__getitem__, "hash")
    key = RunKey("run", "sim", "model", "mini", 1, "shared1000")
    settings = ScoreSettings(SIM_DEFAULT, cache=tmp_path)
    found = score(Reconstructions(pictures[:, None], ids), stimuli, key, settings=settings)
    assert not found.untrained
    assert found.weights_ids == tuple(sorted(SHIPPED))
    for row in found.items.to_pylist():
        best = 0.0 if METRICS[row["metric"]].kind == "distance" else 1.0
        assert row["value"] == pytest.approx(best, abs=1e-6), row["metric"]
