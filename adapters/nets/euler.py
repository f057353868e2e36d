"""From noise to an image with Euler's method, as the SDXL stages of MindEye2 run it.

The probability flow ``dx / d sigma = eps(x, sigma)`` of Song et al. 2021 (arXiv 2011.13456) in the parametrization of Karras
et al. 2022 (arXiv 2206.00364): latents are ``x = x0 + sigma n``, and the network sees them scaled to unit variance.
Steps have explicit times of Stable Diffusion's noise schedule; none of the spacings that diffusers offers gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from nsdbench.adapters.nets.ddim import TRAIN_STEPS, Predict
from nsdbench.adapters.nets.noise import Noise
from nsdbench.adapters.nets.pixels import require_finite
from nsdbench.errors import UsageError
from nsdbench.types import JsonScalar

OFFSET = 0.04
"""Share of the noise that is one number per image, in the start of MindEye2's unCLIP stage."""


@dataclass(frozen=True)
class EulerSampling:
    """Where the steps are, and what the network says there.

    Attributes
    ----------
    times : tuple of int
        Times of the steps, falling, within 0 and 999; the last step ends without noise.
    guidance : float
        Weight of classifier-free guidance; 1 switches it off.
    prediction : {"epsilon", "v_prediction"}
        What the network was trained to predict.
    """

    times: tuple[int, ...]
    guidance: float
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"

    def __post_init__(self) -> None:
        inside = bool(self.times) and self.times[-1] >= 0 and self.times[0] < TRAIN_STEPS
        if not inside or any(late <= early for late, early in pairwise(self.times)):
            raise UsageError(f"sampling needs falling times between 0 and 999, not {self.times}")

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise per signal at the steps, and 0 for the end."""
        return (*noise_scales(self.times), 0.0)

    @property
    def attributes(self) -> dict[str, JsonScalar]:
        """The settings by name, for the record of a reconstruction."""
        return {
            "times": " ".join(map(str, self.times)),
            "guidance": self.guidance,
            "prediction": self.prediction,
        }


def spaced_times(steps: int) -> tuple[int, ...]:
    """Return ``steps`` times that divide 999 to 0 evenly, without the end 0, each cut to a whole number."""
    return tuple((TRAIN_STEPS - 1) * (steps - k) // steps for k in range(steps))


def noise_scales(times: Sequence[int]) -> list[float]:
    """Return noise per signal, ``sqrt((1 - a) / a)`` with the share of signal variance a, at times of the schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    signal = torch.cumprod(1 - betas, dim=0)[list(times)]
    scales: list[float] = ((1 - signal) / signal).sqrt().tolist()
    return scales


UNCLIP = EulerSampling(spaced_times(38), 5.0)
"""MindEye2's unCLIP stage."""
REFINEMENT = EulerSampling(spaced_times(25)[-12:], 5.0)
"""MindEye2's refinement: the last 12 of 25 steps."""


def unclip_start(noise: Noise, shape: Sequence[int], sampling: EulerSampling) -> Tensor:
    """Return latents to start from without an image, (n, *shape): ``z + sigma (n + 0.04 u)``.

    z and n are normal, and u is one normal number per image (the offset noise the model was trained with).
    """
    latents, own, shared = noise.normal(*shape), noise.normal(*shape), noise.normal(*(1 for _ in shape))
    return latents + sampling.sigmas[0] * (own + OFFSET * shared)


def noised(latents: Tensor, noise: Noise, sampling: EulerSampling) -> Tensor:
    """Return latents of an image, (n or 1, ...), with noise of the level of the first step, (n, ...)."""
    return latents + sampling.sigmas[0] * noise.normal(*latents.shape[1:])


def sample(predict: Predict, start: Tensor, sampling: EulerSampling) -> Tensor:
    """Return latents of an image, of the shape of ``start``.

    Parameters
    ----------
    predict : callable
        See :data:`~nsdbench.adapters.nets.ddim.Predict` and :func:`~nsdbench.adapters.nets.ddim.guided`. It gets latents of
        unit variance.
    start : tensor of shape (n, ...)
        From :func:`unclip_start` or :func:`noised`.
    sampling : EulerSampling

    Raises
    ------
    ReconstructionError
        If the result is not finite.
    """
    latents = start
    for time, (sigma, after) in zip(sampling.times, pairwise(sampling.sigmas), strict=True):
        shrink = (1 + sigma**2) ** -0.5
        prediction = predict(latents * shrink, torch.tensor(time, device=latents.device))
        if sampling.prediction == "v_prediction":
            prediction = shrink * prediction + sigma * shrink**2 * latents
        latents = latents + (after - sigma) * prediction
    require_finite(latents, "denoised latents")
    return latents
