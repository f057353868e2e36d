"""MindEye's prior against formulas written out for one number at a time, closed forms, and the published listings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from nsdbench.adapters.nets.checkpoints import filled, on_meta
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.prior import MINDEYE1, MINDEYE2, Prior, PriorConfig, cosine_schedule, ddim_grid
from nsdbench.adapters.nets.prior_transformer import Attention, Norm, Rotary, bias_buckets, rotated
from nsdbench.errors import UsageError, WeightsError

TINY = PriorConfig(dim=8, tokens=3, depth=2, heads=2, dim_head=6, steps=12, scale=3.0)
Array = NDArray[np.float64]


def tiny(config: PriorConfig = TINY, seed: int = 0) -> Prior:
    """A network whose gains are random too; fresh ones are all 1."""
    torch.manual_seed(seed)
    prior = Prior(config)
    for name, parameter in prior.named_parameters():
        if name.endswith(".g"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return prior.eval()


def item_noise(n: int, seed: int = 0) -> ItemNoise:
    return ItemNoise([np.random.default_rng([seed, i]) for i in range(n)])


def rand(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Constant(torch.nn.Module):
    """Predicts the same embedding whatever it reads, and counts."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value
        self.times: list[int] = []

    def forward(self, noisy: Tensor, times: Tensor, brain: Tensor, keep: object = None) -> Tensor:
        self.times.append(int(times[0]))
        return self.value.expand_as(noisy)


class Gaussian(torch.nn.Module):
    """The best possible predictor for embeddings of independent numbers with a given mean and sd."""

    def __init__(self, mean: float, sd: float, steps: int) -> None:
        super().__init__()
        self.mean, self.sd = mean, sd
        self.signal = torch.from_numpy(cosine_schedule(steps)["alphas_cumprod"])

    def forward(self, noisy: Tensor, times: Tensor, brain: Tensor, keep: object = None) -> Tensor:
        a = self.signal[times][:, None, None]
        gain = a.sqrt() * self.sd**2 / (a * self.sd**2 + 1 - a)
        return (self.mean + gain * (noisy - a.sqrt() * self.mean)).float()


# The published form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "count"), [(MINDEYE1, 56_055_184), (MINDEYE2, 259_865_216)])
def test_published_configurations_have_the_published_number_of_parameters(
    config: PriorConfig, count: int
) -> None:
    assert sum(p.numel() for p in on_meta(lambda: Prior(config)).parameters()) == count


@pytest.mark.parametrize(
    ("config", "listing", "prefix"),
    [
        (MINDEYE1, "mindeye1_prior_257_final_subj01_bimixco_softclip_byol", ""),
        (MINDEYE2, "mindeye2_final_subj01_pretrained_40sess_24bs", "diffusion_prior."),
        (MINDEYE2, "mindeye2_multisubject_subj01_1024hid_nolow_300ep", "diffusion_prior."),
    ],
)
def test_names_and_shapes_are_the_published_ones(
    shared: Path, config: PriorConfig, listing: str, prefix: str
) -> None:
    listed = json.loads((shared / f"data/state_dicts/{listing}.json").read_text())
    parts = (f"{prefix}net.", f"{prefix}noise_scheduler.")
    expected = {
        name.removeprefix(prefix): tuple(shape) for name, shape in listed.items() if name.startswith(parts)
    }
    state = on_meta(lambda: Prior(config)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_weights_survive_safetensors(tmp_path: Path) -> None:
    prior, path = tiny(), tmp_path / "prior.safetensors"
    save_file(prior.state_dict(), path)
    loaded = filled(on_meta(lambda: Prior(TINY)), load_file(path), "test")
    x, brain, times = rand(2, 3, 8), rand(2, 3, 8, seed=2), torch.tensor([3, 7])
    with torch.no_grad():
        torch.testing.assert_close(loaded.predict(x, times, brain), prior.predict(x, times, brain))


def test_the_layers_share_one_frozen_set_of_rotary_frequencies() -> None:
    loaded = filled(on_meta(lambda: Prior(TINY)), tiny().state_dict(), "test")
    frozen = [name for name, p in tiny().named_parameters() if not p.requires_grad]
    assert frozen == ["net.causal_transformer.layers.0.0.rotary_emb.freqs"]
    assert len({id(m) for m in loaded.modules() if isinstance(m, Rotary)}) == 1


@pytest.mark.parametrize(
    "name", ["noise_scheduler.betas", "net.causal_transformer.layers.1.0.rotary_emb.freqs"]
)
def test_a_checkpoint_with_other_constants_is_refused(name: str) -> None:
    state = tiny().state_dict()
    state[name] = state[name] * 1.01
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        Prior(TINY).load_state_dict(state)


def test_constants_of_another_kind_of_number_are_refused() -> None:
    state = tiny().state_dict()
    state["noise_scheduler.betas"] = torch.ones(12, dtype=torch.int64)
    with pytest.raises(WeightsError, match="betas"):
        Prior(TINY).load_state_dict(state)


@pytest.mark.parametrize(("dim", "dim_head"), [(7, 4), (2, 4), (8, 5)])
def test_odd_widths_are_refused(dim: int, dim_head: int) -> None:
    with pytest.raises(UsageError, match="even"):
        PriorConfig(dim, 3, 1, 2, dim_head)


def test_constants_stored_in_half_precision_are_recognised_and_restored() -> None:
    prior = Prior(TINY)
    prior.load_state_dict({name: value.half() for name, value in tiny().state_dict().items()})
    expected = torch.from_numpy(cosine_schedule(12)["sqrt_recip_alphas_cumprod"]).float()
    assert torch.equal(prior.noise_scheduler.sqrt_recip_alphas_cumprod, expected)


def test_a_missing_name_is_reported_by_the_strict_load() -> None:
    state = tiny().state_dict()
    del state["noise_scheduler.posterior_variance"]
    with pytest.raises(WeightsError, match="posterior_variance"):
        filled(Prior(TINY), state, "test")


# The network --------------------------------------------------------------------------------------------------------


def norm_by_hand(x: Array, gain: Array, eps: float = 1e-5) -> Array:
    return (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + eps) * gain


def turned_by_hand(x: Array, position: int) -> Array:
    out, pairs = x.copy(), min(32, len(x)) // 2
    for k in range(pairs):
        angle = position * 10000 ** (-2 * k / (2 * pairs))
        a, b = x[2 * k], x[2 * k + 1]
        out[2 * k] = a * math.cos(angle) - b * math.sin(angle)
        out[2 * k + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def bucket_by_hand(distance: int) -> int:
    if distance < 16:
        return max(distance, 0)
    return min(31, 16 + math.floor(16 * math.log(distance / 16) / math.log(8)))


def attention_by_hand(weights: dict[str, Array], bias: Array, x: Array) -> Array:
    """The change of all tokens of one item; ``bias`` is (buckets, heads), ``x`` is (tokens, dim)."""
    null, gain = weights["null_kv"], weights["norm.g"]
    heads, width = bias.shape[1], null.shape[1]
    normed = np.stack([norm_by_hand(token, gain) for token in x])
    keys, values = [null[0]], [null[1]]
    for position, token in enumerate(normed):
        both = weights["to_kv.weight"] @ token
        keys.append(turned_by_hand(both[:width], position))
        values.append(both[width:])
    changes = []
    for i, token in enumerate(normed):
        parts = []
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            query = turned_by_hand(weights["to_q.weight"][rows] @ token, i)
            logits = [
                16 * query @ key / np.linalg.norm(query) / np.linalg.norm(key)
                + bias[bucket_by_hand(i - j), head]
                for j, key in enumerate(keys)
            ]
            shares = np.exp(logits) / np.exp(logits).sum()
            parts.append(sum(share * value for share, value in zip(shares, values, strict=True)))
        changes.append(
            norm_by_hand(weights["to_out.0.weight"] @ np.concatenate(parts), weights["to_out.1.g"])
        )
    return np.stack(changes)


def network_by_hand(state: dict[str, Array], noisy: Array, time: int, brain: Array, depth: int) -> Array:
    """The whole prediction for one item, in float64."""
    tokens, dim = noisy.shape
    frequencies = [math.exp(-k * math.log(10000) / (dim // 2 - 1)) for k in range(dim // 2)]
    wave = np.array([math.sin(time * f) for f in frequencies] + [math.cos(time * f) for f in frequencies])
    for layer in ("0.0", "1.0", "2"):
        name = f"net.to_time_embeds.0.1.net.{layer}"
        wave = state[f"{name}.weight"] @ wave + state[f"{name}.bias"]
        wave = wave if layer == "2" else wave / (1 + np.exp(-wave))
    x = np.concatenate([brain, wave[None], noisy + state["net.learned_query"]])
    root = "net.causal_transformer."
    bias = state[f"{root}rel_pos_bias.relative_attention_bias.weight"]
    for i in range(depth):
        prefix = f"{root}layers.{i}.0."
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        x = x + attention_by_hand(own, bias, x)
        gain, up, down = (state[f"{root}layers.{i}.1.{name}"] for name in ("0.g", "1.weight", "5.weight"))
        hidden = np.stack([norm_by_hand(token, gain) for token in x]) @ up.T
        a, b = np.split(hidden, 2, axis=1)
        x = x + (a * b / (1 + np.exp(-b))) @ down.T
    ends = [norm_by_hand(token / token.max(), state[f"{root}norm.g"]) for token in x[-tokens:]]
    return np.stack(ends) @ state[f"{root}project_out.weight"].T


def in_numpy(prior: Prior) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in prior.state_dict().items()}


@pytest.mark.parametrize("time", [0, 11])
def test_the_prediction_is_the_formula_written_out(time: int) -> None:
    prior, noisy, brain = tiny(), rand(2, 3, 8), rand(2, 3, 8, seed=2)
    with torch.no_grad():
        predicted = prior.predict(noisy, torch.tensor([5, time]), brain)
    by_hand = network_by_hand(in_numpy(prior), noisy[1].double().numpy(), time, brain[1].double().numpy(), 2)
    np.testing.assert_allclose(predicted[1], by_hand, rtol=1e-4, atol=1e-5)


def test_attention_over_long_sequences_is_the_formula_written_out() -> None:
    """In 161 tokens distances reach beyond the last bucket; of 52 channels, as in MindEye 2, 32 are turned."""
    prior = tiny(PriorConfig(dim=6, tokens=80, depth=1, heads=2, dim_head=52, steps=12))
    attention, biases = prior.net.causal_transformer.layers[0][0], prior.net.causal_transformer.rel_pos_bias
    x = rand(1, 161, 6)
    with torch.no_grad():
        change = attention(x, biases(), attention.rotary_emb.turns(161))
    own = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    bias = biases.relative_attention_bias.weight.detach().double().numpy()
    np.testing.assert_allclose(
        change[0], attention_by_hand(own, bias, x[0].double().numpy()), rtol=1e-3, atol=1e-4
    )


def test_keys_before_the_query_fall_in_the_buckets_of_t5_and_later_ones_in_the_first() -> None:
    buckets = bias_buckets(515)
    distances = {15: 15, 16: 16, 31: 21, 127: 31, 128: 31, 514: 31}
    assert {distance: int(buckets[514, 514 - distance]) for distance in distances} == distances
    assert buckets.shape == (515, 516)
    assert not buckets[np.triu_indices(515, k=0, m=516)].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 50))
def test_turned_queries_and_keys_meet_by_their_distance_alone(i: int, j: int, shift: int) -> None:
    q, k, turns = rand(16), rand(16, seed=2), Rotary(16).turns(300)
    here = rotated(q, turns[i]) @ rotated(k, turns[j])
    there = rotated(q, turns[i + shift]) @ rotated(k, turns[j + shift])
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)


def test_the_order_of_a_batch_does_not_matter() -> None:
    prior, x, brain = tiny(), rand(4, 3, 8), rand(4, 3, 8, seed=2)
    times, order = torch.tensor([0, 3, 7, 11]), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        straight = prior.predict(x, times, brain)
        shuffled = prior.predict(x[order], times[order], brain[order])
    torch.testing.assert_close(shuffled, straight[order])


def test_a_dropped_brain_has_no_influence_and_a_kept_one_has() -> None:
    prior, x, times = tiny(), rand(2, 3, 8), torch.tensor([3, 7])
    none, every = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    one, other = rand(2, 3, 8, seed=2), rand(2, 3, 8, seed=3)
    with torch.no_grad():
        dropped = [prior.predict(x, times, brain, (none, every)) for brain in (one, other)]
        kept = [prior.predict(x, times, brain, (every, every)) for brain in (one, other)]
        null = prior.predict(x, times, prior.net.null_brain_embeds.expand(2, -1, -1))
    assert torch.equal(*dropped)
    assert torch.equal(dropped[0], null)
    assert not torch.allclose(*kept)


def test_a_dropped_image_has_no_influence_on_its_own_item_only() -> None:
    prior, brain, times = tiny(), rand(2, 3, 8, seed=2), torch.tensor([3, 7])
    keep = (torch.ones(2, dtype=torch.bool), torch.tensor([False, True]))
    with torch.no_grad():
        first, second = (prior.predict(rand(2, 3, 8, seed=seed), times, brain, keep) for seed in (4, 5))
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


@pytest.mark.parametrize(
    ("dtype", "eps"), [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.float64, 1e-3)]
)
def test_the_norm_adds_more_to_the_variance_of_other_types_than_float32(
    dtype: torch.dtype, eps: float
) -> None:
    x = torch.tensor([[0.0, 0.125]]).to(dtype)
    expected = 0.0625 / math.sqrt(0.0625**2 + eps)
    torch.testing.assert_close(
        Norm(2)(x).double(), torch.tensor([[-expected, expected]]).double(), rtol=1e-4, atol=0
    )


def test_the_norm_after_attention_can_be_that_of_half_precision() -> None:
    mixed = Attention(PriorConfig(8, 3, 1, 2, 6, attn_out_norm_eps=1e-3), Rotary(6))
    assert mixed.to_out[1].eps == 1e-3
    assert mixed.norm.eps == "auto"


def test_mixed_precision_stays_near_full_precision() -> None:
    prior, x, brain, times = tiny(), rand(2, 3, 8), rand(2, 3, 8, seed=2), torch.tensor([3, 7])
    with torch.no_grad():
        full = prior.predict(x, times, brain)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = prior.predict(x, times, brain).float()
    assert (mixed - full).norm() < 0.1 * full.norm()
    assert not torch.equal(mixed, full)


# Schedule and loss --------------------------------------------------------------------------------------------------


def test_the_schedule_is_the_squared_cosine_but_for_its_clipped_end() -> None:
    schedule = cosine_schedule(100)
    curve = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(101)]
    np.testing.assert_allclose(schedule["alphas_cumprod"][:99], np.array(curve[1:100]) / curve[0], rtol=1e-12)
    assert schedule["betas"][99] == 0.999
    np.testing.assert_allclose(schedule["alphas_cumprod"][99], schedule["alphas_cumprod"][98] * 0.001)


@pytest.mark.parametrize("steps", [12, 100, 1000])
def test_the_posterior_of_a_step_is_the_product_of_two_gaussians(steps: int) -> None:
    """x_t given x_(t-1), times x_(t-1) given x_0: precisions add, and means are weighted by them."""
    s = cosine_schedule(steps)
    t = slice(1, None)
    likelihood, before = (1 - s["betas"][t]) / s["betas"][t], 1 / (1 - s["alphas_cumprod_prev"][t])
    variance = 1 / (likelihood + before)
    np.testing.assert_allclose(s["posterior_variance"][t], variance, rtol=1e-6)
    of_clean = variance * before * np.sqrt(s["alphas_cumprod_prev"][t])
    np.testing.assert_allclose(s["posterior_mean_coef1"][t], of_clean, rtol=1e-6)
    of_x = variance * np.sqrt(1 - s["betas"][t]) / s["betas"][t]
    np.testing.assert_allclose(s["posterior_mean_coef2"][t], of_x, rtol=1e-6)


def test_a_perfect_prediction_has_no_loss_and_returns_the_image() -> None:
    prior, image = Prior(TINY), rand(1, 3, 8)
    prior.net = Constant(image * TINY.scale)  # type: ignore[assignment]
    loss, predicted = prior.loss(image, image, torch.Generator().manual_seed(0))
    assert float(loss) < 1e-12
    torch.testing.assert_close(predicted, image)


def test_the_loss_is_the_error_in_the_scaled_space_not_rescaled() -> None:
    prior, image = Prior(TINY), rand(5, 3, 8)
    prior.net = Constant(torch.zeros(3, 8))  # type: ignore[assignment]
    loss, _ = prior.loss(image, image, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(9 * float((image**2).mean()), rel=1e-5)


def test_the_network_is_trained_on_every_time_and_drops_a_fifth_of_both_conditions_independently() -> None:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    class Watcher(torch.nn.Module):
        def forward(self, noisy: Tensor, times: Tensor, brain: Tensor, keep: tuple[Tensor, Tensor]) -> Tensor:
            seen.append((times, *keep))
            return noisy

    prior = Prior(TINY)
    prior.net = Watcher()  # type: ignore[assignment]
    image = torch.zeros(20_000, 1, 1)
    prior.loss(image, image, torch.Generator().manual_seed(0))
    times, brain, noisy = seen[0]
    assert torch.bincount(times, minlength=12).min() > 20_000 / 12 * 0.9
    assert len(times.unique()) == 12
    dropped = [(~brain).float().mean(), (~noisy).float().mean(), (~brain & ~noisy).float().mean()]
    torch.testing.assert_close(torch.stack(dropped), torch.tensor([0.2, 0.2, 0.04]), rtol=0, atol=0.01)


def test_noise_is_added_by_the_level_of_each_time() -> None:
    prior = Prior(PriorConfig(8, 3, 1, 2, 6, steps=100))
    clean, noise, times = rand(3, 3, 8), rand(3, 3, 8, seed=2), torch.tensor([0, 50, 99])
    levels = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (1, 51)]
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    noisy = prior.noise_scheduler.noised(clean, times, noise)
    for item, level in enumerate(levels):
        a = level / start
        torch.testing.assert_close(noisy[item], math.sqrt(a) * clean[item] + math.sqrt(1 - a) * noise[item])


def test_training_learns_to_pass_the_brain_on() -> None:
    torch.manual_seed(0)
    prior, rng = Prior(PriorConfig(16, 2, 1, 2, 8, steps=20)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in prior.parameters() if p.requires_grad], lr=1e-2)
    image, losses = torch.randn(32, 2, 16, generator=rng), []
    for _ in range(150):
        loss, _ = prior.loss(image, image, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])


def test_every_parameter_but_the_constant_takes_part_in_learning() -> None:
    prior = tiny()
    loss, _ = prior.loss(rand(8, 3, 8), rand(8, 3, 8, seed=2), torch.Generator().manual_seed(3), drop=0.5)
    loss.backward()
    idle = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == ["net.causal_transformer.layers.0.0.rotary_emb.freqs"]


# Sampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 2, 5, 12])
def test_a_network_that_predicts_a_constant_samples_that_constant(steps: int | None) -> None:
    prior, value = Prior(TINY), rand(3, 8)
    prior.net = Constant(value * TINY.scale)  # type: ignore[assignment]
    sampled = prior.sample(rand(2, 3, 8), item_noise(2), steps)
    torch.testing.assert_close(sampled, value.expand(2, -1, -1), rtol=1e-5, atol=1e-6)


def test_the_published_grids_are_100_steps_of_ddpm_and_19_of_ddim() -> None:
    prior = Prior(PriorConfig(4, 1, 1, 1, 4))
    prior.net = network = Constant(torch.zeros(1, 4))  # type: ignore[assignment]
    prior.sample(rand(1, 1, 4), item_noise(1))
    assert network.times == list(range(99, -1, -1))
    network.times.clear()
    prior.sample(rand(1, 1, 4), item_noise(1), 20)
    assert network.times == [94, 89, 84, 79, 74, 69, 64, 59, 54, 49, 44, 39, 34, 29, 24, 19, 14, 9, 4]
    assert ddim_grid(100, 20)[-1] == (4, -1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.data())
def test_a_ddim_grid_falls_from_below_the_end_to_before_the_start(steps: int, data: st.DataObject) -> None:
    points = data.draw(st.integers(2, steps))
    grid = ddim_grid(steps, points)
    assert len(grid) == points - 1
    assert all(steps > t > s >= -1 for t, s in grid)
    assert [s for _, s in grid[:-1]] == [t for t, _ in grid[1:]]
    assert grid[-1][1] == -1


@pytest.mark.parametrize("points", [0, 1, 13])
def test_an_impossible_grid_is_refused(points: int) -> None:
    with pytest.raises(UsageError, match="grid"):
        Prior(TINY).sample(rand(1, 3, 8), item_noise(1), points)


def test_the_first_ddim_step_is_the_formula_written_out() -> None:
    """Two steps: the second returns its prediction, which here is what the network read."""

    class Half(torch.nn.Module):
        def forward(self, noisy: Tensor, times: Tensor, brain: Tensor, keep: object = None) -> Tensor:
            return noisy / 2

    prior = Prior(PriorConfig(4, 1, 1, 1, 4, steps=100))
    prior.net = Half()  # type: ignore[assignment]
    ((t, s), (last, end)) = ddim_grid(100, 3)
    assert (t, s, last, end) == (66, 32, 32, -1)
    draws = np.random.default_rng([0, 0])
    x, n = (draws.standard_normal((1, 4), np.float32) for _ in range(2))
    abar = cosine_schedule(100)["alphas_cumprod"]
    a, a_s = abar[t - 1], abar[s - 1]  # one time early, as published
    eps = (math.sqrt(1 / abar[t]) * x - x / 2) / math.sqrt(1 / abar[t] - 1)
    sigma = math.sqrt((1 - a / a_s) * (1 - a_s) / (1 - a))
    y = math.sqrt(a_s) * x / 2 + math.sqrt(1 - a_s - sigma**2) * eps + sigma * n
    sampled = prior.sample(torch.zeros(1, 1, 4), item_noise(1), 3)
    np.testing.assert_allclose(sampled[0], y / 2, rtol=1e-5)


def test_ddpm_with_the_best_predictor_samples_the_gaussian_it_knows() -> None:
    """Its moments after each step follow a linear recursion, which ends near the true ones."""
    mean, sd, steps = 0.7, 0.4, 100
    prior = Prior(PriorConfig(250, 80, 1, 1, 2, steps=steps))
    prior.net = Gaussian(mean, sd, steps)  # type: ignore[assignment]
    sampled = prior.sample(torch.zeros(1, 80, 250), item_noise(1))
    s, m, v = cosine_schedule(steps), 0.0, 1.0
    for t in range(steps - 1, -1, -1):
        a = s["alphas_cumprod"][t]
        gain = math.sqrt(a) * sd**2 / (a * sd**2 + 1 - a)
        slope = s["posterior_mean_coef1"][t] * gain + s["posterior_mean_coef2"][t]
        m = slope * m + s["posterior_mean_coef1"][t] * (mean - gain * math.sqrt(a) * mean)
        v = slope**2 * v + (s["posterior_variance"][t] if t else 0)
    assert (m, math.sqrt(v)) == pytest.approx((mean, sd), abs=0.02)
    assert float(sampled.mean()) == pytest.approx(m, abs=0.01)
    assert float(sampled.std()) == pytest.approx(math.sqrt(v), abs=0.01)


def test_a_sample_depends_on_its_own_noise_only() -> None:
    prior, brain = tiny(), rand(3, 3, 8)
    noise = item_noise(3)
    together = prior.sample(brain, noise, 5)
    alone = prior.sample(brain[1:2], ItemNoise([np.random.default_rng([0, 1])]), 5)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together, prior.sample(brain, noise, 5))
