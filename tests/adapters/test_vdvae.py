"""The hierarchical autoencoder: published names and sizes, its arithmetic in plain NumPy, and its random numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nsdbench.adapters.nets import vdvae
from nsdbench.adapters.nets.checkpoints import mini, on_meta
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import BILINEAR, resized
from nsdbench.adapters.nets.vdvae import (
    MEAN,
    MINI,
    PUBLISHED,
    SD,
    VDVAE,
    Block,
    Config,
    Gaussian,
    layers,
    mini_vdvae,
)
from nsdbench.errors import WeightsError
from nsdbench.pretraining.corpus import native
from nsdbench.weights import REGISTRY

TINY = Config(
    weights_id="vdvae-imagenet64-ema",
    image=16,
    width=32,
    zdim=4,
    mixtures=3,
    encoder="16x2,16d2,8x2,8d2,4x1,4d4,1x2",
    decoder="1x1,4m1,4x1,8m4,8x1,16m8,16x2",
    regressed=5,
)
Array = NDArray[np.float64]


def randomised(config: Config, seed: int = 0) -> VDVAE:
    """A network whose every parameter matters: at first priors, biases and learnt states are zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VDVAE(config).eval().requires_grad_(False)
        for value in network.parameters():
            value += 0.1 * torch.randn(value.shape)
    return network


@pytest.fixture(scope="module")
def network() -> VDVAE:
    return randomised(TINY)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (4, 16, 16, 3), np.uint8)


def noise(*keys: int) -> ItemNoise:
    return ItemNoise([np.random.default_rng(key) for key in keys])


def levels(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def test_names_and_shapes_are_those_of_the_published_checkpoint(shared: Path) -> None:
    listing = json.loads((shared / "data" / "state_dicts" / "vdvae_imagenet64.json").read_text())
    listed = {name: tuple(shape) for name, shape in listing.items()}
    state = on_meta(lambda: VDVAE(PUBLISHED)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == listed


def test_the_published_network_has_the_published_sizes() -> None:
    parameters = on_meta(lambda: VDVAE(PUBLISHED)).parameters()
    assert sum(value.numel() for value in parameters) == 125_005_860
    assert len(list(layers(PUBLISHED.encoder))) == 65
    assert PUBLISHED.sizes[:31] == (16,) * 2 + (256,) * 4 + (1024,) * 8 + (4096,) * 16 + (16384,)
    assert (len(PUBLISHED.sizes), sum(PUBLISHED.sizes), PUBLISHED.n_latents) == (75, 1_451_040, 91_168)


def test_a_small_network_has_the_counted_size() -> None:
    assert sum(value.numel() for value in VDVAE(TINY).parameters()) == 68_270
    assert TINY.n_latents == 644


def test_the_miniature_network_is_small() -> None:
    assert sum(value.numel() for value in VDVAE(MINI).parameters()) <= 1_500_000
    assert MINI.n_latents == 8 + 2 * 128 + 3 * 512 + 2048


def test_layers_read_repeats_reductions_and_mixing() -> None:
    assert list(layers("8x2,8d4,2m1")) == [(8, 1, 0), (8, 1, 0), (8, 4, 0), (2, 1, 1)]


# ---- arithmetic, written out


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def convolved(x: Array, conv: torch.nn.Module) -> Array:
    """Correlate (channels, rows, columns) with the kernels of ``conv``, zeros around."""
    weight, bias = (value.detach().double().numpy() for value in (conv.weight, conv.bias))
    margin = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (1, 2))
    return np.einsum("ihwyx,oiyx->ohw", windows, weight) + bias[:, None, None]


def through(x: Array, block: Block) -> Array:
    for conv in (block.c1, block.c2, block.c3, block.c4):
        x = convolved(gelu(x), conv)
    return x


def ladder_by_hand(
    network: VDVAE, image: Array, draws: list[Array]
) -> tuple[Array, list[Array], list[float]]:
    """Posterior pass of one image (3, S, S): final state, latents, and the divergence of every block."""
    x = convolved((image - 115.92961967) / 69.37404, network.encoder.in_conv)
    seen = {x.shape[1]: x}
    for block, (_, down, _) in zip(network.encoder.enc_blocks, layers(TINY.encoder), strict=True):
        x = x + through(x, block)
        side = x.shape[1] // down
        x = x.reshape(len(x), side, down, side, down).mean((2, 4))
        seen[side] = x
    states = {b.shape[2]: b[0].double().numpy() for b in network.decoder.bias_xs}
    latents, divergences = [], []
    for block, (side, _, mixed), eps in zip(
        network.decoder.dec_blocks, layers(TINY.decoder), draws, strict=True
    ):
        x = states[side]
        if mixed:
            x = x + states[mixed].repeat(side // mixed, 1).repeat(side // mixed, 2)
        qm, qv = np.split(through(np.concatenate([x, seen[side]]), block.enc), 2)
        pm, pv, extra = np.split(through(x, block.prior), [4, 8])
        z = qm + np.exp(qv) * eps
        q, p = (
            torch.distributions.Normal(torch.from_numpy(m), torch.from_numpy(np.exp(v)))
            for m, v in ((qm, qv), (pm, pv))
        )
        divergences.append(float(torch.distributions.kl_divergence(q, p).sum()))
        latents.append(z)
        x = x + extra + convolved(z, block.z_proj)
        states[side] = x + through(x, block.resnet)
    gain, bias = (value[0].double().numpy() for value in (network.decoder.gain, network.decoder.bias))
    return states[TINY.image] * gain + bias, latents, divergences


def test_the_posterior_pass_is_that_of_the_paper(network: VDVAE, images: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(7)
    draws = [
        rng.standard_normal((4, side, side), np.float32).astype(np.float64)
        for side, _, _ in layers(TINY.decoder)
    ]
    image = levels(images[:1])
    state, latents, divergences = ladder_by_hand(network, image[0].double().numpy(), draws)
    states, found, costs = network.posterior_pass(image, noise(7))
    for one, other in zip(found, latents, strict=True):
        np.testing.assert_allclose(one[0], other, atol=1e-4)
    np.testing.assert_allclose([float(cost.sum()) for cost in costs], divergences, rtol=1e-4)
    pixels = network.decoder.pixels(states[16])[0]
    np.testing.assert_allclose(pixels, convolved(state, network.decoder.out_net.out_conv), atol=1e-3)


def test_small_resolutions_have_no_neighbours() -> None:
    assert {Block(4, 2, 4, side).c2.kernel_size for side in (1, 2)} == {(1, 1)}
    assert Block(4, 2, 4, 4).c2.kernel_size == (3, 3)


def test_divergence_is_the_closed_form() -> None:
    rng = torch.Generator().manual_seed(0)
    q, p = (Gaussian(torch.randn(50, generator=rng), torch.randn(50, generator=rng)) for _ in range(2))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.log_sd.exp()), torch.distributions.Normal(p.mean, p.log_sd.exp())
    )
    torch.testing.assert_close(q.divergence(p), expected, rtol=1e-4, atol=1e-5)


def test_the_bound_is_cost_of_pixels_and_latents(network: VDVAE, images: NDArray[np.uint8]) -> None:
    pixels, latents = network.negative_elbo(levels(images), noise(0, 1, 2, 3))
    assert pixels.shape == (4,)
    assert latents.shape == (4, 8)
    _, _, divergences = network.posterior_pass(levels(images), noise(0, 1, 2, 3))
    torch.testing.assert_close(latents[:, 3], divergences[3].sum((1, 2, 3)))


# ---- drawing


def test_true_latents_of_all_blocks_give_the_posterior_pass_back(
    network: VDVAE, images: NDArray[np.uint8]
) -> None:
    states, latents, _ = network.posterior_pass(levels(images), noise(0, 1, 2, 3))
    expected = network.decoder.pixels(states[16])
    for seeds in ((4, 5, 6, 7), (8, 9, 10, 11)):  # there is nothing left to draw
        torch.testing.assert_close(network.manual_pass(latents, noise(*seeds)), expected)


def test_missing_latents_are_drawn_from_the_prior(network: VDVAE, images: NDArray[np.uint8]) -> None:
    _, latents, _ = network.posterior_pass(levels(images), noise(0, 1, 2, 3))
    priors: list[Tensor] = []
    last = network.decoder.dec_blocks[-1]
    handle = last.prior.register_forward_hook(lambda *call: priors.append(call[-1]))
    found = network.manual_pass(latents[:-1], noise(4, 5, 6, 7))
    handle.remove()
    mean, log_sd = priors[0][:, :8].chunk(2, 1)
    drawn = mean + log_sd.exp() * noise(4, 5, 6, 7).normal(4, 16, 16)
    torch.testing.assert_close(found, network.manual_pass([*latents[:-1], drawn], noise(0, 0, 0, 0)))


def test_draws_belong_to_their_item_alone(network: VDVAE, images: NDArray[np.uint8]) -> None:
    together = network.flat_latents(images, noise(0, 1, 2, 3))
    alone = network.flat_latents(images[2:3], noise(2))
    torch.testing.assert_close(together[2:3], alone, rtol=1e-5, atol=1e-5)
    pictures = network.picture(together, noise(0, 1, 2, 3)).astype(int)
    # convolutions of other batches may round differently: nearly all pixels agree, most others by one level
    assert np.mean(np.abs(pictures[2] - network.picture(together[2:3], noise(2))[0]) > 1) < 0.01


def test_equal_seeds_give_equal_pictures_and_others_do_not(network: VDVAE, images: NDArray[np.uint8]) -> None:
    latents = network.flat_latents(images, noise(0, 1, 2, 3))
    np.testing.assert_array_equal(latents, network.flat_latents(images, noise(0, 1, 2, 3)))
    one, same, other = (
        network.picture(latents, noise(*seeds)) for seeds in ((0, 1, 2, 3),) * 2 + ((4, 5, 6, 7),)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5


def test_flat_latents_are_the_maps_of_the_first_blocks_side_by_side(
    network: VDVAE, images: NDArray[np.uint8]
) -> None:
    flat = network.flat_latents(images, noise(0, 1, 2, 3))
    _, maps, _ = network.posterior_pass(levels(images), noise(0, 1, 2, 3))
    assert (flat.shape, flat.dtype) == ((4, 644), torch.float32)
    torch.testing.assert_close(flat[:, 4 + 64 + 64 :][:, :256].reshape(4, 4, 8, 8), maps[3])


def test_a_picture_is_the_draw_of_its_flat_latents(network: VDVAE, images: NDArray[np.uint8]) -> None:
    _, maps, _ = network.posterior_pass(levels(images), noise(0, 1, 2, 3))
    flat = torch.cat([one.flatten(1) for one in maps[:5]], 1)
    source = noise(4, 5, 6, 7)
    pixels = network.manual_pass(maps[:5], source)
    drawn = vdvae.logistics.sample(pixels, source.uniform(3, 16, 16), source.uniform(3, 16, 16))
    expected = ((drawn + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1)
    np.testing.assert_array_equal(network.picture(flat, noise(4, 5, 6, 7)), expected)


def test_uniform_numbers_keep_off_the_ends() -> None:
    drawn = noise(0).uniform(1_000_000)
    assert 1e-5 <= float(drawn.min()) < 3e-5
    assert 1 - 3e-5 < float(drawn.max()) <= 1 - 9.9e-6


def test_images_enter_through_pillow_and_the_published_statistics(network: VDVAE) -> None:
    large = np.random.default_rng(0).integers(0, 256, (1, 425, 425, 3), np.uint8)
    seen: list[Tensor] = []
    handle = network.encoder.in_conv.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    network.flat_latents(large, noise(0))
    handle.remove()
    small = np.asarray(Image.fromarray(large[0]).resize((16, 16), Image.Resampling.BILINEAR), np.float64)
    assert (MEAN, SD) == (115.92961967, 69.37404)
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0), (small - 115.92961967) / 69.37404, atol=1e-5)


# ---- checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Tensor]], Path]:
    """Return a function that stores a state as the published file, for a small network in place of the published."""
    monkeypatch.setattr(vdvae, "PUBLISHED", TINY)

    def store(state: dict[str, Tensor]) -> Path:
        torch.save(state, tmp_path / REGISTRY[TINY.weights_id].filename)
        return tmp_path

    return store


def test_a_checkpoint_of_parallel_training_is_read(
    checkpoint: Callable[[dict[str, Tensor]], Path], network: VDVAE
) -> None:
    folder = checkpoint({f"module.{name}": value for name, value in network.state_dict().items()})
    loaded = vdvae.published_vdvae(folder, "cpu")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(
    checkpoint: Callable[[dict[str, Tensor]], Path], network: VDVAE
) -> None:
    state = network.state_dict()
    del state["decoder.gain"]
    with pytest.raises(WeightsError, match=r"decoder\.gain"):
        vdvae.published_vdvae(checkpoint(state), "cpu")


def test_the_published_weights_are_registered_under_the_id_of_the_network() -> None:
    assert REGISTRY[PUBLISHED.weights_id].url.endswith("imagenet64-iter-1600000-model-ema.th")


def test_shipped_weights_draw_unseen_scenes_from_their_true_latents() -> None:
    scenes = np.stack([native("held_out", i, 0)[1] for i in range(6)])
    network = mini(mini_vdvae(), MINI.weights_id, "cpu")
    found = network.picture(network.flat_latents(scenes, noise(*range(6))), noise(*range(6)))
    error = found.astype(float) - resized(scenes, MINI.image, BILINEAR)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 22


@pytest.mark.slow
def test_the_published_network_runs_both_ways() -> None:
    network = randomised(PUBLISHED)
    for value in network.parameters():  # random networks this deep overflow unless they are tame
        value *= 0.1
    image = np.random.default_rng(0).integers(0, 256, (1, 425, 425, 3), np.uint8)
    latents = network.flat_latents(image, noise(0))
    assert latents.shape == (1, 91_168)
    assert torch.isfinite(latents).all()
    assert network.picture(latents, noise(0)).shape == (1, 64, 64, 3)
