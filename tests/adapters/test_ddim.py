"""Partial DDIM against the formulas of the paper, and guidance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nsdbench.adapters.nets.ddim import Sampling, denoise, guided, timetable
from nsdbench.errors import ReconstructionError, UsageError

BRAIN_DIFFUSER = Sampling(50, 0.75, 7.5)
TAKAGI = Sampling(50, 0.8, 5.0)
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def pair(n: int = 2) -> tuple[Tensor, Tensor]:
    start, noise = torch.randn(2, n, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return start, noise


def network(x: Tensor, time: Tensor) -> Tensor:
    return torch.tanh(x) * 0.7 + torch.sin(time.float() / 300)


def by_hand(
    start: Tensor, noise: Tensor, level: int, times: list[int], step: int, velocity: bool
) -> np.ndarray:
    """DDIM with eta 0 in float64, written out."""
    x = np.sqrt(ALPHAS[level]) * start.double().numpy() + np.sqrt(1 - ALPHAS[level]) * noise.double().numpy()
    for time in times:
        out = network(torch.from_numpy(x), torch.tensor(time)).numpy()
        a = ALPHAS[time]
        before = ALPHAS[max(time - step, 0)]
        eps = np.sqrt(a) * out + np.sqrt(1 - a) * x if velocity else out
        x0 = np.sqrt(a) * x - np.sqrt(1 - a) * out if velocity else (x - np.sqrt(1 - a) * out) / np.sqrt(a)
        x = np.sqrt(before) * x0 + np.sqrt(1 - before) * eps
    return x


def test_brain_diffuser_adds_noise_at_741_and_runs_37_steps_from_721() -> None:
    level, times = timetable(BRAIN_DIFFUSER)
    assert level == 741
    assert times == tuple(range(721, 0, -20))
    assert len(times) == 37


def test_takagi_adds_noise_at_801_and_runs_40_steps_from_781() -> None:
    level, times = timetable(TAKAGI)
    assert (level, times[0], times[-1], len(times)) == (801, 781, 1, 40)


def test_the_tiny_configurations_have_the_known_schedules() -> None:
    assert timetable(Sampling(4, 0.75, 1)) == (751, (501, 251, 1))
    assert timetable(Sampling(5, 0.8, 1)) == (801, (601, 401, 201, 1))


def test_stock_pipelines_add_noise_at_the_first_step() -> None:
    assert timetable(replace(BRAIN_DIFFUSER, noise_level="first_step"))[0] == 721


@pytest.mark.parametrize("velocity", [False, True])
def test_the_loop_is_ddim_without_added_noise(velocity: bool) -> None:
    start, noise = pair()
    sampling = Sampling(10, 0.7, 1.0, "v_prediction" if velocity else "epsilon")
    expected = by_hand(start, noise, 701, [601, 501, 401, 301, 201, 101, 1], 100, velocity)
    found = denoise(network, start, noise, sampling)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5 * np.abs(expected).max())


def test_the_noise_level_makes_a_difference_that_could_not_go_unnoticed() -> None:
    start, noise = pair()
    one, other = (
        denoise(network, start, noise, replace(BRAIN_DIFFUSER, noise_level=level))
        for level in ("step_before", "first_step")
    )
    assert (one - other).abs().max() > 0.01


def test_strength_zero_returns_the_start_unchanged() -> None:
    start, noise = pair()

    def never(x: Tensor, time: Tensor) -> Tensor:
        raise AssertionError("no step was asked for")

    assert torch.equal(denoise(never, start, noise, replace(BRAIN_DIFFUSER, strength=0.0)), start)


def test_a_true_noise_prediction_gives_the_image_back() -> None:
    start, noise = pair()
    found = denoise(lambda x, time: noise, start, noise, replace(BRAIN_DIFFUSER, noise_level="first_step"))
    # the last step ends at the noise level of time 0, which is small but not nothing
    end = np.sqrt(ALPHAS[0]) * start + np.sqrt(1 - ALPHAS[0]) * noise
    torch.testing.assert_close(found, end.float(), atol=1e-4, rtol=0)


def test_strength_one_has_no_step_before_the_first() -> None:
    with pytest.raises(UsageError, match="no noise level before"):
        timetable(replace(TAKAGI, strength=1.0))
    assert timetable(replace(TAKAGI, strength=1.0, noise_level="first_step"))[0] == 981


@pytest.mark.parametrize("changed", [{"strength": 1.5}, {"strength": -0.1}, {"steps": 0}, {"steps": 1001}])
def test_impossible_settings_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="not possible"):
        replace(TAKAGI, **changed)


def test_latents_that_are_not_finite_are_refused() -> None:
    start, noise = pair()
    with pytest.raises(ReconstructionError, match="denoised latents"):
        denoise(lambda x, time: x * torch.inf, start, noise, TAKAGI)


class Linear:
    """A denoiser whose answer is the sum of its conditions."""

    calls = 0

    def image_condition(self, tokens: Tensor) -> Tensor:
        return tokens

    def text_condition(self, tokens: Tensor, *, states: bool = False) -> Tensor:
        return tokens

    def __call__(
        self,
        latents: Tensor,
        times: Tensor,
        image: Tensor | None = None,
        text: Tensor | None = None,
        text_share: float = 0.0,
    ) -> Tensor:
        self.calls += 1
        assert image is not None and text is not None
        total = (1 - text_share) * image.sum((1, 2)) + text_share * text.sum((1, 2))
        return latents + total[:, None, None, None]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_guidance_extrapolates_from_both_empty_conditions_to_both_given_ones(guidance: float) -> None:
    denoiser = Linear()
    given = {"image": torch.ones(2, 3, 1), "text": torch.full((2, 1, 1), 5.0)}
    nothing = {"image": torch.zeros(1, 3, 1), "text": torch.full((1, 1, 1), 1.0)}
    x = torch.zeros(2, 4, 2, 2)
    found = guided(denoiser, given, nothing, guidance, text_share=0.4)(x, torch.tensor(1))
    under, without = 0.6 * 3 + 0.4 * 5, 0.4 * 1
    torch.testing.assert_close(found, torch.full_like(x, without + guidance * (under - without)))
    assert denoiser.calls == 1
