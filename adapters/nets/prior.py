"""MindEye's diffusion prior: from the embedding a brain predicts to one that an image could have.

A transformer (:mod:`nsdbench.adapters.nets.prior_transformer`) learns to restore image embeddings from noise under the
condition of brain tokens; sampling starts with noise alone. The prior is that of DALL-E 2 (Ramesh et al. 2022, arXiv
2204.06125) as MindEye 1 and 2 use it (Scotti et al. 2023, arXiv 2305.18274; 2024, arXiv 2403.11207): the network
predicts the clean embedding, the schedule is the cosine one of Nichol & Dhariwal (2021, arXiv 2102.09672), samples come
from all T steps of DDPM (Ho et al. 2020, arXiv 2006.11239) in MindEye 1 and from 19 steps of DDIM with eta 1 (Song et
al. 2021, arXiv 2010.02502) in MindEye 2.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nsdbench.adapters.nets.noise import Noise
from nsdbench.adapters.nets.prior_transformer import MINDEYE1, MINDEYE2, Fixed, PriorConfig, PriorNetwork
from nsdbench.errors import UsageError

__all__ = ["MINDEYE1", "MINDEYE2", "Prior", "PriorConfig", "cosine_schedule", "ddim_grid"]

OFFSET, MAX_BETA = 0.008, 0.999


class Prior(nn.Module):
    """The prior with the parameter names of the published models: ``net.*`` and ``noise_scheduler.*``.

    Parameters
    ----------
    config : PriorConfig

    Attributes
    ----------
    net : PriorNetwork
    noise_scheduler : Schedule
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.net = PriorNetwork(config)
        self.noise_scheduler = Schedule(config.steps)

    def predict(
        self, noisy: Tensor, times: Tensor, brain: Tensor, keep: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return the predicted clean embedding, multiplied by the scale; see :class:`PriorNetwork`."""
        predicted: Tensor = self.net(noisy, times, brain, keep)
        return predicted

    def loss(
        self, image: Tensor, brain: Tensor, rng: torch.Generator, drop: float = 0.2
    ) -> tuple[Tensor, Tensor]:
        """Return the training loss of a batch and the embeddings predicted on the way.

        Parameters
        ----------
        image, brain : tensor of shape (n, tokens, dim)
        rng : torch.Generator
            Draws times, noise, and what is dropped.
        drop : float
            Chance of an item to lose its brain tokens, and independently its noisy tokens, to the null tokens.

        Returns
        -------
        loss : scalar tensor
            Mean squared error in the scaled space.
        predicted : tensor of shape (n, tokens, dim)
            In the space of ``image``.
        """
        n, device = len(image), image.device
        clean = image * self.config.scale
        times = torch.randint(self.config.steps, (n,), generator=rng, device=rng.device).to(device)
        noise = torch.randn(image.shape, generator=rng, device=rng.device).to(device)
        kept = (torch.rand(2, n, generator=rng, device=rng.device) >= drop).to(device)
        predicted = self.predict(
            self.noise_scheduler.noised(clean, times, noise), times, brain, (kept[0], kept[1])
        ).float()
        return F.mse_loss(predicted, clean), predicted / self.config.scale

    @torch.no_grad()
    def sample(self, brain: Tensor, noise: Noise, steps: int | None = None) -> Tensor:
        """Return embeddings for brain tokens.

        Parameters
        ----------
        brain : tensor of shape (n, tokens, dim)
        noise : Noise
            Gives the start, then the noise of each step.
        steps : int, optional
            Points of the DDIM grid, 20 in MindEye 2; the network runs once less. Without it DDPM runs all T steps, as in
            MindEye 1.

        Returns
        -------
        tensor of shape (n, tokens, dim)
            In the space of image embeddings.

        Raises
        ------
        UsageError
            If the grid has less than 2 points or more than the schedule.
        """
        x = self._ddpm(brain, noise) if steps is None else self._ddim(brain, noise, steps)
        return x / self.config.scale

    def _ddpm(self, brain: Tensor, noise: Noise) -> Tensor:
        schedule = cosine_schedule(self.config.steps)
        of_clean, of_x = (schedule[f"posterior_mean_coef{i}"].tolist() for i in (1, 2))
        spread = np.exp(0.5 * schedule["posterior_log_variance_clipped"]).tolist()
        x = noise.normal(*brain.shape[1:])
        for t in reversed(range(self.config.steps)):
            mean = of_clean[t] * self._predict_at(x, t, brain) + of_x[t] * x
            drawn = noise.normal(
                *brain.shape[1:]
            )  # also for the last step, which the original draws and drops
            x = mean + spread[t] * drawn if t else mean
        return x

    def _ddim(self, brain: Tensor, noise: Noise, points: int) -> Tensor:
        schedule = cosine_schedule(self.config.steps)
        signal, before = (schedule[name].tolist() for name in ("alphas_cumprod", "alphas_cumprod_prev"))
        x = noise.normal(*brain.shape[1:])
        for t, s in ddim_grid(self.config.steps, points):
            clean = self._predict_at(x, t, brain)
            if s < 0:
                return clean
            # The original takes the signal one time too early here, but not in the noise it infers from x. Kept.
            a, a_s = before[t], before[s]
            inferred = (x - math.sqrt(signal[t]) * clean) / math.sqrt(1 - signal[t])
            x = math.sqrt(a_s) * clean + (1 - a_s) * math.sqrt(a / (a_s * (1 - a))) * inferred
            if s > 0:
                x = x + math.sqrt((1 - a / a_s) * (1 - a_s) / (1 - a)) * noise.normal(*brain.shape[1:])
        return x

    def _predict_at(self, x: Tensor, t: int, brain: Tensor) -> Tensor:
        times = torch.full((len(x),), t, device=x.device)
        return self.predict(x, times, brain).float()


class Schedule(Fixed):
    """The 13 series that published checkpoints carry, float32 buffers of length T; see :func:`cosine_schedule`."""

    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        for name, values in self.constants().items():
            self.register_buffer(name, values)

    def constants(self) -> dict[str, Tensor]:
        """Return the series by name."""
        return {
            name: torch.from_numpy(series.astype(np.float32))
            for name, series in cosine_schedule(self.steps).items()
        }

    def noised(self, clean: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Return noisy embeddings, (n, tokens, dim), at times (n,)."""
        signal, spread = (
            series[times][:, None, None]
            for series in (self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod)
        )
        return signal * clean + spread * noise


def cosine_schedule(steps: int) -> dict[str, NDArray[np.float64]]:
    """Return the cosine schedule and what follows from it, by the names of the published buffers, each (steps,).

    Nichol & Dhariwal (2021, arXiv 2102.09672), equation 17; the posterior of a step is equations 6 and 7 of Ho et al.
    (2020, arXiv 2006.11239).
    """
    angles = (np.arange(steps + 1) / steps + OFFSET) / (1 + OFFSET) * math.pi / 2
    curve = np.cos(angles) ** 2
    betas = np.minimum(1 - curve[1:] / curve[:-1], MAX_BETA)
    signal = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], signal[:-1]])
    variance = betas * (1 - before) / (1 - signal)
    return {
        "betas": betas,
        "alphas_cumprod": signal,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(signal),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - signal),
        "log_one_minus_alphas_cumprod": np.log(1 - signal),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / signal),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / signal - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1 - signal),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - betas) / (1 - signal),
        "p2_loss_weight": np.ones(steps),
    }


def ddim_grid(steps: int, points: int) -> list[tuple[int, int]]:
    """Return the times of the DDIM steps and the times they lead to, the last of which is -1.

    Raises
    ------
    UsageError
        If the grid has less than 2 points or more than ``steps``.
    """
    if not 2 <= points <= steps:
        raise UsageError(f"a DDIM grid of {points} points is not possible with a schedule of {steps} times")
    times = np.linspace(-1, steps, points + 1)[:-1].astype(int)[::-1].tolist()
    return list(itertools.pairwise(times))
