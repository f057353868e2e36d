"""MindEye1's diffusion stage: its solver against known flows, its rough image, its choice among candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.unipc import PUBLISHED, UniPCSampling, denoise
from nsdbench.adapters.nets.variation import (
    Variation,
    best_of,
    image_tokens,
    rough_images,
    variations,
)
from nsdbench.errors import ReconstructionError, UsageError

PREDICTIONS = ("epsilon", "v_prediction")
TIMES = (999, 949, 899, 849, 799, 749, 699, 649, 599, 549, 500, 450, 400, 350, 300, 250, 200, 150, 100, 50)
LAST = 0.02916
"""Noise per signal at time 0, where the solver stops."""


def signal(time: int) -> float:
    """The share of signal variance, as the product that defines it."""
    roots = [0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * k / 999 for k in range(time + 1)]
    return math.prod(1 - root**2 for root in roots)


class Network:
    """Predicts for data whose expected clean image is known, and remembers the steps."""

    def __init__(self, image: Callable[[Tensor, float], Tensor], prediction: str = "epsilon") -> None:
        self.image, self.prediction = image, prediction
        self.times: list[int] = []
        self.seen: list[Tensor] = []

    def __call__(self, latents: Tensor, time: Tensor) -> Tensor:
        self.times.append(int(time))
        self.seen.append(latents)
        a = signal(int(time))
        clean = self.image(latents, a)
        noise = (latents - a**0.5 * clean) / (1 - a) ** 0.5
        return noise if self.prediction == "epsilon" else a**0.5 * noise - (1 - a) ** 0.5 * clean


def gaussian(mean: float, sd: float) -> Callable[[Tensor, float], Tensor]:
    """The expected image of data from a normal distribution."""
    return lambda latents, a: mean + a**0.5 * sd**2 * (latents - a**0.5 * mean) / (a * sd**2 + 1 - a)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sampling_of(steps: int, strength: float, prediction: str = "epsilon") -> UniPCSampling:
    return UniPCSampling(steps, strength, 1.0, prediction)


def test_the_published_run_begins_at_the_fourth_of_twenty_steps() -> None:
    network = Network(lambda latents, _: latents * 0)
    denoise(network, normal(1, 4, 2, 2), normal(1, 4, 2, 2, seed=1), PUBLISHED)
    assert PUBLISHED.first == 3
    assert tuple(network.times) == TIMES[3:]


def test_a_rough_image_gets_noise_of_the_level_of_the_first_step() -> None:
    network = Network(lambda latents, _: latents * 0)
    start, noise = normal(2, 4, 2, 2), normal(2, 4, 2, 2, seed=1)
    denoise(network, start, noise, PUBLISHED)
    a = signal(849)
    torch.testing.assert_close(network.seen[0], a**0.5 * start + (1 - a) ** 0.5 * noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("start", "strength"), [(None, 0.85), (normal(2, 4, 2, 2, seed=3), 1.0)])
def test_without_a_rough_image_all_steps_are_run_from_noise(start: Tensor | None, strength: float) -> None:
    network, noise = Network(lambda latents, _: latents * 0), normal(2, 4, 2, 2)
    denoise(network, start, noise, sampling_of(20, strength))
    assert tuple(network.times) == TIMES
    torch.testing.assert_close(network.seen[0], noise)


def test_at_strength_zero_the_rough_image_stays_as_it_is() -> None:
    network, start = Network(lambda latents, _: latents * 0), normal(1, 4, 2, 2)
    torch.testing.assert_close(denoise(network, start, start + 1, sampling_of(20, 0.0)), start)
    assert network.times == []


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_network_that_always_sees_the_same_image_leads_to_it(prediction: str, steps: int) -> None:
    wanted, noise = torch.linspace(-2, 2, 16).reshape(1, 4, 2, 2), normal(3, 4, 2, 2)
    found = denoise(Network(lambda *_: wanted, prediction), None, noise, sampling_of(steps, 1.0, prediction))
    # on the way to one image the noise direction never changes: what is left of it at time 0 is known
    a = signal(999)
    direction = (noise - a**0.5 * wanted) / (1 - a) ** 0.5
    expected = (wanted + LAST * direction) / math.hypot(1, LAST)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_normal_data_are_reached_with_an_error_that_more_than_halves_with_the_step(prediction: str) -> None:
    mean, sd = 0.7, 0.5
    noise = torch.tensor([[-2.0], [0.3], [1.5]])
    a, end = signal(999), 1 / math.hypot(1, LAST)
    deviations = (noise - a**0.5 * mean) / math.sqrt(a * sd**2 + 1 - a)
    exact = end * mean + deviations * math.sqrt(end**2 * sd**2 + 1 - end**2)
    errors = []
    for steps in (20, 40, 80):
        network = Network(gaussian(mean, sd), prediction)
        found = denoise(network, None, noise, sampling_of(steps, 1.0, prediction))
        errors.append(float((found - exact).abs().max()))
    assert errors[0] < 0.1
    assert errors[0] / errors[1] > 2.1
    assert errors[1] / errors[2] > 2.1


def by_hand(network: Callable[[Tensor, Tensor], Tensor], noise: Tensor, times: tuple[int, ...]) -> Tensor:
    """UniPC with B(h) = exp(h) - 1 and order 2, as in section 3 of the paper, in float64.

    The first step and the last one have order 1; the corrector uses the prediction at its own, uncorrected point.
    """
    levels = [signal(time) for time in (*times, 0)]
    half_log = [0.5 * math.log(a / (1 - a)) for a in levels]
    x, clean, corrected_from = noise.double(), [], None
    for i, time in enumerate(times):
        a = levels[i]
        clean.append((x - (1 - a) ** 0.5 * network(x, torch.tensor(time))) / a**0.5)
        if corrected_from is not None:
            x = step(half_log, levels, i - 1, corrected_from, clean, known_end=True)
        corrected_from = x
        first_order = i in (0, len(times) - 1)
        x = step(half_log, levels, i, x, clean[-1:] if first_order else clean, known_end=False)
    return x


def step(
    half_log: list[float], levels: list[float], i: int, x: Tensor, clean: list[Tensor], known_end: bool
) -> Tensor:
    """From point i to the next; with ``known_end`` the last prediction is the one there."""
    h = half_log[i + 1] - half_log[i]
    *before, now = clean[:-1] if known_end else clean
    places, slopes = [], []
    if before and i > 0:
        place = (half_log[i - 1] - half_log[i]) / h
        places.append(place)
        slopes.append((before[-1] - now) / place)
    if known_end:
        places.append(1.0)
        slopes.append(clean[-1] - now)
    growth = math.expm1(-h)
    phi = growth / -h - 1
    right = [phi / growth, 2 * (phi / -h - 0.5) / growth][: len(places)]
    left = [[place**k for place in places] for k in range(len(places))]
    # with one slope the paper replaces the solution by one half
    weights = [0.5] if len(places) == 1 else np.linalg.solve(left, right).tolist() if places else []
    change = sum((weight * slope for weight, slope in zip(weights, slopes, strict=True)), now * 0)
    a = levels[i + 1]
    shrink = ((1 - a) / (1 - levels[i])) ** 0.5
    return shrink * x - a**0.5 * growth * (now + change)


def test_steps_are_those_of_the_paper() -> None:
    mixing = normal(8, 8, seed=4).double() / 8**0.5

    def network(latents: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(latents @ mixing.to(latents.dtype) + time / 1000)

    noise = normal(3, 8)
    found = denoise(network, None, noise, sampling_of(20, 1.0))
    torch.testing.assert_close(found.double(), by_hand(network, noise, TIMES), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("steps", "strength"), [(0, 0.5), (1000, 0.5), (20, 1.5), (20, -0.1)])
def test_samplings_that_cannot_be_run_are_refused(steps: int, strength: float) -> None:
    with pytest.raises(UsageError, match="not possible"):
        sampling_of(steps, strength)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ReconstructionError, match="denoised latents"):
        denoise(lambda latents, _: latents / 0, None, torch.ones(1, 4, 2, 2), PUBLISHED)


class Towards(nn.Module):
    """A denoiser that always sees one clean image, and remembers what it was told."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.network = Network(lambda *_: latents)
        self.told: list[Tensor] = []

    def image_condition(self, tokens: Tensor) -> Tensor:
        return tokens

    def text_condition(self, tokens: Tensor, *, states: bool = False) -> Tensor:
        return tokens

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        image: Tensor | None = None,
        text: Tensor | None = None,
        text_share: float = 0.0,
    ) -> Tensor:
        assert image is not None
        self.told.append(image)
        return self.network(latents, times)


def noise_of(n: int) -> ItemNoise:
    return ItemNoise([np.random.default_rng(k) for k in range(n)])


@pytest.fixture
def stage(small_autoencoder: Autoencoder) -> Variation:
    """The published stage at 16 pixels, with a denoiser that draws one picture whatever it is told."""
    return Variation(Towards(normal(1, 4, 8, 8)), small_autoencoder, PUBLISHED, 16, torch.zeros(1, 5, 3))


def test_images_are_guided_away_from_tokens_of_zeros(stage: Variation) -> None:
    tokens = normal(1, 5, 3)
    images = variations(stage, tokens, None, noise_of(2))
    assert images.shape == (2, 3, 16, 16)
    told = stage.denoiser.told[0]
    torch.testing.assert_close(told, torch.cat([torch.zeros(2, 5, 3), tokens, tokens]))


def test_the_denoised_latents_become_images_between_zero_and_one(stage: Variation) -> None:
    sharp = replace(stage, sampling=sampling_of(300, 1.0))
    target = stage.denoiser.network.image(torch.empty(0), 0.0)
    expected = (stage.autoencoder.decode(target) / 2 + 0.5).clamp(0, 1)
    found = variations(sharp, normal(1, 5, 3), None, noise_of(2))
    torch.testing.assert_close(found, expected.expand(2, -1, -1, -1), rtol=0, atol=0.05)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("as_clip", [True, False])
def test_the_rough_image_enters_as_clip_would_see_it(stage: Variation, as_clip: bool) -> None:
    rough = normal(1, 4, 8, 8, seed=7)
    variations(replace(stage, as_clip=as_clip), normal(1, 5, 3), rough, noise_of(2))
    picture = stage.autoencoder.decode(rough) / 2 + 0.5
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    sd = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    seen = (picture - mean) / sd if as_clip else 2 * picture - 1
    draws = noise_of(2)
    start = stage.autoencoder.encode(seen, draws.normal(4, 8, 8))
    a = signal(849)
    expected = a**0.5 * start + (1 - a) ** 0.5 * draws.normal(4, 8, 8)
    first = stage.denoiser.network.seen[0][:2]
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-4)


def test_at_strength_zero_the_rough_image_is_the_result(stage: Variation) -> None:
    rough = normal(1, 4, 8, 8, seed=7)
    found = variations(replace(stage, sampling=sampling_of(20, 0.0)), normal(1, 5, 3), rough, noise_of(3))
    expected = rough_images(stage.autoencoder, rough).clamp(0, 1)
    torch.testing.assert_close(found, expected.expand(3, -1, -1, -1))
    assert stage.denoiser.told == []


def test_an_item_does_not_depend_on_its_companions(stage: Variation) -> None:
    tokens, rough = normal(1, 5, 3), normal(1, 4, 8, 8, seed=7)
    both = variations(stage, tokens, rough, noise_of(2))
    alone = variations(stage, tokens, rough, noise_of(1))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


def test_the_class_token_of_an_image_has_length_one(small_clip: nn.Module) -> None:
    tokens = image_tokens(small_clip, torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    assert tokens.shape == (2, 17, 32)
    torch.testing.assert_close(tokens[:, 0].norm(dim=1), torch.ones(2))


def test_images_of_the_right_size_are_not_changed_before_clip(small_clip: nn.Module) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(image_tokens(small_clip, images), clip.image_tokens(small_clip, images))


def test_the_candidate_with_the_likeliest_tokens_is_taken_whatever_its_scale() -> None:
    wanted = normal(5, 3)
    candidates = torch.stack(
        [normal(5, 3, seed=1), wanted * 0.1 + 0.01, -wanted, wanted + normal(5, 3, seed=2)]
    )
    assert best_of(candidates, wanted) == 1
