"""From an image to another one by diffusion: noise is added up to some level, then removed under a condition.

The steps are those of DDIM (Song et al. 2021, arXiv 2010.02502) without added noise, run by diffusers' scheduler with the
noise schedule of Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from nsdbench.adapters.nets.pixels import require_finite
from nsdbench.errors import UsageError
from nsdbench.types import JsonScalar

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

TRAIN_STEPS = 1000
Predict = Callable[[Tensor, Tensor], Tensor]
"""From latents (n, ...) and a time (scalar) to what the network predicts, of the shape of the latents."""


class Denoiser(Protocol):
    """A network that predicts noise (or v) under conditions on images, on texts or on both."""

    def image_condition(self, tokens: Tensor) -> Tensor:
        """Return image tokens (n, tokens, channels) as the network reads them."""
        ...

    def text_condition(self, tokens: Tensor, *, states: bool = False) -> Tensor:
        """Return text tokens (n, tokens, channels), or hidden states of a text, as the network reads them."""
        ...

    def __call__(
        self,
        latents: Tensor,
        times: Tensor,
        image: Tensor | None = None,
        text: Tensor | None = None,
        text_share: float = 0.0,
    ) -> Tensor:
        """Return the prediction for noisy latents, of their shape."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How far an image is taken back into noise, and how it returns.

    Attributes
    ----------
    steps : int
        Steps from pure noise to an image; 50 in both papers.
    strength : float
        Share of the steps that are run, 0 (none) to 1 (all).
    guidance : float
        Weight of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598); 1 switches it off.
    prediction : {"epsilon", "v_prediction"}
        What the network was trained to predict.
    noise_level : {"step_before", "first_step"}
        Noise is added at the level of the step before the first one that is run, as Brain Diffuser and Takagi &
        Nishimoto do, or at the level of the first step itself, as diffusers' pipelines do.
    """

    steps: int
    strength: float
    guidance: float
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    noise_level: Literal["step_before", "first_step"] = "step_before"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TRAIN_STEPS or not 0 <= self.strength <= 1:
            raise UsageError(f"sampling with {self.steps} steps and strength {self.strength} is not possible")

    @property
    def attributes(self) -> dict[str, JsonScalar]:
        """The settings by name, for the record of a reconstruction."""
        return asdict(self)


def timetable(sampling: Sampling) -> tuple[int, tuple[int, ...]]:
    """Return the time at whose level noise is added, and the times of the denoising steps in their order.

    Raises
    ------
    UsageError
        If the noise level would lie beyond the schedule: at strength 1 there is no step before the first one.
    """
    times = _scheduler(sampling).timesteps.tolist()
    run = times[sampling.steps - int(sampling.strength * sampling.steps) :]
    if not run:
        return 0, ()
    level = run[0] + (TRAIN_STEPS // sampling.steps if sampling.noise_level == "step_before" else 0)
    if level >= TRAIN_STEPS:
        raise UsageError(
            "at strength 1 there is no noise level before the first step",
            remedy='Use a strength below 1, or noise_level="first_step".',
        )
    return level, tuple(run)


def denoise(predict: Predict, start: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
    """Return latents of a new image near ``start``.

    Parameters
    ----------
    predict : callable
        See :data:`Predict` and :func:`guided`.
    start : tensor of shape (n, ...)
        Latents of the image to begin with; returned as they are at strength 0.
    noise : tensor of the shape of ``start``
        Standard normal numbers, the only random ingredient.
    sampling : Sampling

    Raises
    ------
    ReconstructionError
        If the result is not finite.
    """
    level, times = timetable(sampling)
    if not times:
        return start
    scheduler = _scheduler(sampling)
    latents: Tensor = scheduler.add_noise(start, noise, torch.tensor([level]))
    for time in times:
        prediction = predict(latents, torch.tensor(time, device=latents.device))
        latents = scheduler.step(prediction, time, latents, return_dict=False)[0]
    require_finite(latents, "denoised latents")
    return latents


def guided(
    denoiser: Denoiser,
    given: Mapping[str, Tensor],
    nothing: Mapping[str, Tensor],
    guidance: float,
    text_share: float,
) -> Predict:
    """Return the prediction under guidance, ``p0 + g (p - p0)`` with ``p0`` the one without a condition.

    Parameters
    ----------
    denoiser : Denoiser
    given : mapping of str to tensor of shape (n, tokens, channels)
        Conditions by name, ``"image"`` and ``"text"``, as :meth:`Denoiser.image_condition` and
        :meth:`~Denoiser.text_condition` return them.
    nothing : mapping of str to tensor of shape (1, tokens, channels) or (n, tokens, channels)
        The same for an empty image and an empty text; all conditions are exchanged together.
    guidance : float
        The weight g; at 1 the network runs on the given conditions only.
    text_share : float
        Passed on to the denoiser.
    """
    if guidance == 1:
        return lambda latents, time: denoiser(latents, time, **given, text_share=text_share)
    both = {name: torch.cat([nothing[name].expand_as(tokens), tokens]) for name, tokens in given.items()}

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        twice = denoiser(torch.cat([latents, latents]), time, **both, text_share=text_share)
        without, under = twice.chunk(2)
        return without + guidance * (under - without)

    return predict


def _scheduler(sampling: Sampling) -> DDIMScheduler:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=sampling.prediction,
    )
    scheduler.set_timesteps(sampling.steps)
    return scheduler
