"""From noise, or from a rough image, to an image with the solver of MindEye1.

UniPC (Zhao et al. 2023, arXiv 2302.04867) of second order, run by diffusers' scheduler.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from nsdbench.adapters.nets.ddim import TRAIN_STEPS, Predict
from nsdbench.adapters.nets.pixels import require_finite
from nsdbench.errors import UsageError
from nsdbench.types import JsonScalar

if TYPE_CHECKING:
    from diffusers import UniPCMultistepScheduler


@dataclass(frozen=True)
class UniPCSampling:
    """How the noise is removed, and how much of it there is.

    Attributes
    ----------
    steps : int
        Steps from pure noise to an image.
    strength : float
        Share of the steps that are run on a noised rough image. At 1 there is no rough image and the start is pure
        noise; at 0 the rough image is the result.
    guidance : float
        Weight of classifier-free guidance; 1 switches it off.
    prediction : {"epsilon", "v_prediction"}
        What the network was trained to predict.
    """

    steps: int
    strength: float
    guidance: float
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"

    def __post_init__(self) -> None:
        if not 1 <= self.steps < TRAIN_STEPS or not 0 <= self.strength <= 1:
            raise UsageError(f"sampling with {self.steps} steps and strength {self.strength} is not possible")

    @property
    def first(self) -> int:
        """Number of the first step that is run."""
        return self.steps - int(self.steps * self.strength)

    @property
    def attributes(self) -> dict[str, JsonScalar]:
        """The settings by name, for the record of a reconstruction."""
        return asdict(self)


PUBLISHED = UniPCSampling(20, 0.85, 3.5)


def denoise(predict: Predict, start: Tensor | None, noise: Tensor, sampling: UniPCSampling) -> Tensor:
    """Return latents of an image, of the shape of ``noise``.

    Parameters
    ----------
    predict : callable
        See :data:`~nsdbench.adapters.nets.ddim.Predict` and :func:`~nsdbench.adapters.nets.ddim.guided`.
    start : tensor of the shape of ``noise``, or None
        Latents of a rough image; None where there is none, and then all steps are run whatever the strength.
    noise : tensor of shape (n, ...)
        Standard normal numbers, the only random ingredient.
    sampling : UniPCSampling

    Raises
    ------
    ReconstructionError
        If the result is not finite.
    """
    scheduler = _scheduler(sampling)
    times, latents = scheduler.timesteps, noise
    if start is not None and sampling.strength < 1:
        times = times[sampling.first :]
        if not len(times):
            return start
        latents = scheduler.add_noise(start, noise, times[:1].expand(len(noise)))
    for time in times:
        prediction = predict(latents, time.to(latents.device))
        latents = scheduler.step(prediction, time, latents, return_dict=False)[0]
    require_finite(latents, "denoised latents")
    return latents


def _scheduler(sampling: UniPCSampling) -> UniPCMultistepScheduler:
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=sampling.prediction,
        final_sigmas_type="sigma_min",  # what the last step was before diffusers let it end at zero noise
    )
    scheduler.set_timesteps(sampling.steps)
    return scheduler
