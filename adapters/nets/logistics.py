"""Mixtures of discretised logistics as a distribution of 8-bit colours (Salimans et al. 2017, arXiv 1701.05517).

A network gives ``10 * m`` numbers per pixel for ``m`` components: ``m`` logits, then for red, green and blue ``m`` means,
``m`` logarithms of scales and ``m`` coefficients. Colours live in [-1, 1] and depend on each other: the mean of green
moves with red, that of blue with red and green. Coefficients go through tanh; those listed under red move green with
red, those under green move blue with red, those under blue move blue with green.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_LOG_SCALE = -7.0
HALF_STEP = 1 / 255
"""Half the distance of two neighbouring grey levels in [-1, 1]."""
LAST = 0.999
"""Levels beyond this, to either side, are the darkest and the brightest and take all of their tail."""
SMALLEST_SHARE = 1e-5
"""Where a component gives a level less than this, its density in the middle replaces the difference of two tails."""


def sample(parameters: Tensor, choice: Tensor, place: Tensor) -> Tensor:
    """Return one draw of every pixel, (n, 3, H, W) in [-1, 1].

    The component is drawn with the Gumbel trick, then each colour by inverting the logistic distribution function.

    Parameters
    ----------
    parameters : tensor of shape (n, 10 m, H, W)
    choice : tensor of shape (n, m, H, W)
        Uniform numbers strictly between 0 and 1 that choose the component.
    place : tensor of shape (n, 3, H, W)
        Uniform numbers strictly between 0 and 1 that choose the place within it.
    """
    logits, means, log_scales, coefficients = _parts(parameters)
    component = (logits - (-choice.log()).log()).argmax(1)[:, None, None].expand(-1, 3, 1, -1, -1)
    mean, log_scale, coefficient = (
        part.gather(2, component)[:, :, 0] for part in (means, log_scales, coefficients)
    )
    x = mean + log_scale.exp() * torch.logit(place)
    red = x[:, 0].clamp(-1, 1)
    green = (x[:, 1] + coefficient[:, 0] * red).clamp(-1, 1)
    blue = (x[:, 2] + coefficient[:, 1] * red + coefficient[:, 2] * green).clamp(-1, 1)
    return torch.stack([red, green, blue], 1)


def log_likelihood(parameters: Tensor, images: Tensor) -> Tensor:
    """Return the log probability of every pixel's three colours, (n, H, W), in nats.

    Parameters
    ----------
    parameters : tensor of shape (n, 10 m, H, W)
    images : tensor of shape (n, 3, H, W)
        The 256 grey levels, evenly from -1 to 1.
    """
    logits, means, log_scales, coefficients = _parts(parameters)
    red, green, _ = (colour[:, None] for colour in images.unbind(1))
    moved = torch.stack(
        [
            means[:, 0],
            means[:, 1] + coefficients[:, 0] * red,
            means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green,
        ],
        1,
    )
    per_component = _log_share(images[:, :, None], moved, log_scales).sum(1)
    return torch.logsumexp(functional.log_softmax(logits, 1) + per_component, 1)


def _log_share(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the level around ``x`` under one logistic."""
    inverse = (-log_scale).exp()
    middle = inverse * (x - mean)
    above, below = middle + inverse * HALF_STEP, middle - inverse * HALF_STEP
    share = above.sigmoid() - below.sigmoid()
    density = middle - log_scale - 2 * functional.softplus(middle) + math.log(2 * HALF_STEP)
    inner = torch.where(share > SMALLEST_SHARE, share.clamp(min=1e-12).log(), density)
    darkest, brightest = above - functional.softplus(above), -functional.softplus(below)
    return torch.where(x < -LAST, darkest, torch.where(x > LAST, brightest, inner))


def _parts(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split into logits (n, m, H, W) and means, log scales and coefficients (n, 3, m, H, W)."""
    m = parameters.shape[1] // 10
    means, log_scales, coefficients = torch.unflatten(parameters[:, m:], 1, (3, 3, m)).unbind(2)
    return parameters[:, :m], means, log_scales.clamp(min=SMALLEST_LOG_SCALE), coefficients.tanh()
