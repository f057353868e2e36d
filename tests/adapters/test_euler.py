"""Euler's method on the probability flow: where its steps are, and what it makes of noise whose way is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nsdbench.adapters.nets.euler import (
    REFINEMENT,
    UNCLIP,
    EulerSampling,
    noise_scales,
    noised,
    sample,
    spaced_times,
    unclip_start,
)
from nsdbench.errors import ReconstructionError, UsageError

PREDICTIONS = ("epsilon", "v_prediction")
PUBLISHED_TIMES = (
    999, 972, 946, 920, 893, 867, 841, 814, 788, 762, 736, 709, 683, 657, 630, 604, 578, 552, 525, 499, 473, 446, 420,
    394, 368, 341, 315, 289, 262, 236, 210, 184, 157, 131, 105, 78, 52, 26,
)  # fmt: skip


class Counting:
    """Noise of a batch of two that is 1, 2, 3 ... everywhere, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def normal(self, *shape: int) -> Tensor:
        self.shapes.append(shape)
        return torch.full((2, *shape), float(len(self.shapes)))


def signal(time: int) -> float:
    """The share of signal variance, as the product that defines it."""
    roots = [0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * k / 999 for k in range(time + 1)]
    return math.prod(1 - root**2 for root in roots)


def predicting(
    image: Callable[[Tensor, float], Tensor], prediction: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that knows the clean image at every step: it says which noise, or which v, belongs to it."""

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        a = signal(int(time))
        clean = image(latents, a)
        noise = (latents - a**0.5 * clean) / (1 - a) ** 0.5
        return noise if prediction == "epsilon" else a**0.5 * noise - (1 - a) ** 0.5 * clean

    return predict


def gaussian(mean: float, sd: float) -> Callable[[Tensor, float], Tensor]:
    """The expected image of data from a normal distribution, given noisy latents of unit scale."""

    def image(latents: Tensor, a: float) -> Tensor:
        return mean + a**0.5 * sd**2 * (latents - a**0.5 * mean) / (a * sd**2 + 1 - a)

    return image


def test_unclip_takes_the_published_times() -> None:
    assert UNCLIP.times == PUBLISHED_TIMES
    assert UNCLIP.sigmas[0] == pytest.approx(14.6146, abs=5e-5)
    assert UNCLIP.sigmas[-1] == 0


def test_refinement_takes_the_last_twelve_of_twenty_five_steps() -> None:
    assert REFINEMENT.times == (479, 439, 399, 359, 319, 279, 239, 199, 159, 119, 79, 39)
    assert REFINEMENT.sigmas[0] == pytest.approx(1.50919, abs=5e-6)


def test_noise_per_signal_follows_from_the_betas() -> None:
    times = (0, 26, 500, 999)
    expected = [math.sqrt((1 - signal(time)) / signal(time)) for time in times]
    assert noise_scales(times) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 5, 38, 1000])
def test_times_fall_from_the_last_of_the_schedule(steps: int) -> None:
    times = spaced_times(steps)
    assert len(times) == steps
    assert times[0] == 999
    np.testing.assert_allclose(times, 999 * (1 - np.arange(steps) / steps), atol=1)
    EulerSampling(times, 1.0)


@pytest.mark.parametrize("times", [(), (1000,), (500, 500), (10, 20), (5, -1)])
def test_times_that_do_not_fall_within_the_schedule_are_refused(times: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="falling times"):
        EulerSampling(times, 1.0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 3, 38])
def test_a_network_that_always_sees_the_same_image_leads_to_it(prediction: str, steps: int) -> None:
    wanted = torch.linspace(-2, 2, 16).reshape(1, 4, 2, 2)
    sampling = EulerSampling(spaced_times(steps), 1.0, prediction)
    start = sampling.sigmas[0] * torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = sample(predicting(lambda *_: wanted, prediction), start, sampling)
    torch.testing.assert_close(found, wanted.expand(3, -1, -1, -1), rtol=0, atol=2e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_normal_data_are_reached_with_an_error_that_halves_with_the_step(prediction: str) -> None:
    mean, sd = 0.7, 0.5
    start = torch.tensor([[-20.0], [3.0], [15.0]])
    errors = []
    for steps in (50, 100, 200):
        sampling = EulerSampling(spaced_times(steps), 1.0, prediction)
        # the flow keeps the number of standard deviations: sd at the end, sqrt(sd^2 + sigma^2) at the start
        exact = mean + sd / math.hypot(sd, sampling.sigmas[0]) * (start - mean)
        found = sample(predicting(gaussian(mean, sd), prediction), start, sampling)
        errors.append(float((found - exact).abs().max()))
    assert errors[-1] < 0.02
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, atol=0.3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampling", [UNCLIP, REFINEMENT], ids=["unclip", "refinement"])
def test_steps_are_those_of_diffusers_scheduler(sampling: EulerSampling, prediction: str) -> None:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
    )
    scheduler.set_timesteps(timesteps=list(sampling.times))
    np.testing.assert_allclose(sampling.sigmas, scheduler.sigmas, rtol=2e-5)
    rng = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, 8, generator=rng) / 8**0.5

    def network(latents: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(latents @ mixing + time / 1000)

    start = sampling.sigmas[0] * torch.randn(5, 8, generator=rng)
    latents = start
    for time in scheduler.timesteps:
        prediction_ = network(scheduler.scale_model_input(latents, time), time)
        latents = scheduler.step(prediction_, time, latents, return_dict=False)[0]
    own = EulerSampling(sampling.times, 1.0, prediction)
    torch.testing.assert_close(sample(network, start, own), latents, rtol=1e-3, atol=1e-3)


def test_the_network_sees_latents_of_unit_variance() -> None:
    seen = []
    sampling = EulerSampling((999, 500), 1.0)

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        seen.append((int(time), float(latents.std())))
        return latents * 0

    start = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(2)) * sampling.sigmas[0]
    sample(predict, start, sampling)
    assert [time for time, _ in seen] == [999, 500]
    assert seen[0][1] == pytest.approx(1, abs=0.02)


def test_unclip_starts_from_noise_with_a_shared_part() -> None:
    noise = Counting()
    start = unclip_start(noise, (4, 6, 6), UNCLIP)
    assert noise.shapes == [(4, 6, 6), (4, 6, 6), (1, 1, 1)]
    expected = 1 + UNCLIP.sigmas[0] * (2 + 0.04 * 3)
    torch.testing.assert_close(start, torch.full((2, 4, 6, 6), expected))


def test_an_image_gets_noise_of_the_level_of_the_first_step() -> None:
    found = noised(torch.full((1, 4, 6, 6), 5.0), Counting(), REFINEMENT)
    torch.testing.assert_close(found, torch.full((2, 4, 6, 6), 5 + REFINEMENT.sigmas[0]))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ReconstructionError, match="denoised latents"):
        sample(lambda latents, _: latents / 0, torch.ones(1, 4, 2, 2), UNCLIP)
