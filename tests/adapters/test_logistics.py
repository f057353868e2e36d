"""Mixtures of discretised logistics: they are distributions, and samples follow them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nsdbench.adapters.nets.logistics import log_likelihood, sample

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
M = 2


def mixture(
    means: Tensor, log_scales: Tensor, coefficients: Tensor, logits: tuple[float, float] = (0.3, -0.5)
) -> Tensor:
    """Parameters of one pixel, (1, 20, 1, 1), of three (3, 2) tables by colour and component."""
    per_colour = [torch.cat([means[c], log_scales[c], coefficients[c]]) for c in range(3)]
    return torch.cat([torch.tensor(logits, dtype=torch.float64), *per_colour])[None, :, None, None]


def some(seed: int, centre: float, log_scale: float) -> Tensor:
    rng = np.random.default_rng(seed)
    means = torch.from_numpy(centre + 0.05 * rng.standard_normal((3, M)))
    coefficients = torch.from_numpy(rng.standard_normal((3, M)) * 0.1)
    return mixture(means, torch.full((3, M), log_scale, dtype=torch.float64), coefficients)


def pixel(*colours: float) -> Tensor:
    return torch.tensor(colours, dtype=torch.float64)[None, :, None, None]


@pytest.mark.parametrize("centre", [0.1, -1.02, 1.02])
def test_probabilities_of_all_colours_sum_to_one(centre: float) -> None:
    near = LEVELS[(LEVELS - centre).abs() < 0.3]  # more than ten scales around every mean
    colours = torch.cartesian_prod(near, near, near)
    total = log_likelihood(some(0, centre, -4.5).expand(len(colours), -1, -1, -1), colours[:, :, None, None])
    assert float(total.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_the_likelihood_is_the_formula_component_by_component() -> None:
    parameters = some(1, -0.2, -3.0)
    red, green, blue = LEVELS[[97, 120, 101]].tolist()
    rows = parameters[0, M:, 0, 0].reshape(3, 3, M).numpy()
    logits = parameters[0, :M, 0, 0].numpy()
    total = 0.0
    for k in range(M):
        (mr, sr, cr), (mg, sg, cg), (mb, sb, cb) = (colour[:, k] for colour in rows)
        moved = (
            (red, mr, sr),
            (green, mg + math.tanh(cr) * red, sg),
            (blue, mb + math.tanh(cg) * red + math.tanh(cb) * green, sb),
        )
        shares = [
            1 / (1 + math.exp(-(x + 1 / 255 - mean) / math.exp(log_scale)))
            - 1 / (1 + math.exp(-(x - 1 / 255 - mean) / math.exp(log_scale)))
            for x, mean, log_scale in moved
        ]
        total += math.exp(logits[k]) / np.exp(logits).sum() * math.prod(shares)
    assert float(log_likelihood(parameters, pixel(red, green, blue)).exp()) == pytest.approx(total, rel=1e-9)


def test_improbable_levels_have_finite_probability_and_slope() -> None:
    parameters = some(2, -0.9, -7.5).float().requires_grad_(True)
    found = log_likelihood(parameters, pixel(0.9, 0.9, 0.9).float())
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(found).all()
    assert parameters.grad is not None
    assert torch.isfinite(parameters.grad).all()


def test_a_draw_inverts_the_distribution_function_and_couples_the_colours() -> None:
    means = torch.tensor([[0.1, 9.0], [-0.2, 9.0], [0.05, 9.0]], dtype=torch.float64)
    coefficients = torch.tensor([[0.5, 9.0], [-0.3, 9.0], [0.8, 9.0]], dtype=torch.float64)
    parameters = mixture(means, torch.full((3, M), -3.0, dtype=torch.float64), coefficients)
    choice = torch.tensor([0.999, 0.001], dtype=torch.float64)[None, :, None, None]
    r, g, b = sample(parameters, choice, pixel(0.5, 0.9, 0.2))[0, :, 0, 0].tolist()
    scale = math.exp(-3)
    assert r == pytest.approx(0.1)
    assert g == pytest.approx(-0.2 + scale * math.log(0.9 / 0.1) + math.tanh(0.5) * r)
    assert b == pytest.approx(0.05 + scale * math.log(0.2 / 0.8) + math.tanh(-0.3) * r + math.tanh(0.8) * g)


def test_draws_stay_within_the_colours_that_exist() -> None:
    parameters = some(3, 1.5, 0.0)
    ends = sample(parameters, torch.full((1, M, 1, 1), 0.5), pixel(1e-5, 1 - 1e-5, 1e-5))
    assert float(ends.abs().max()) <= 1


def test_scales_have_a_floor() -> None:
    for log_scale in (-7.0, -30.0):
        parameters = mixture(
            torch.zeros(3, M, dtype=torch.float64),
            torch.full((3, M), log_scale, dtype=torch.float64),
            torch.zeros(3, M, dtype=torch.float64),
        )
        found = sample(parameters, torch.full((1, M, 1, 1), 0.5), pixel(0.9, 0.9, 0.9))
        assert float(found[0, 0]) == pytest.approx(math.exp(-7) * math.log(9))


def test_components_are_chosen_by_their_weight_and_levels_by_their_likelihood() -> None:
    n = 20_000
    rng = np.random.default_rng(4)
    parameters = some(5, 0.0, -3.5)
    choice, place = (torch.from_numpy(rng.uniform(1e-5, 1 - 1e-5, (n, k, 1, 1))) for k in (M, 3))
    red = sample(parameters.expand(n, -1, -1, -1), choice, place)[:, 0, 0, 0]
    counts = torch.bincount(((red + 1) * 127.5).round().long(), minlength=256).double()
    window = LEVELS[(LEVELS).abs() < 0.5]
    for level in (120, 128, 136):
        rest = torch.tensor(list(itertools.product([float(LEVELS[level])], window.tolist(), window.tolist())))
        shares = log_likelihood(parameters.expand(len(rest), -1, -1, -1), rest.double()[:, :, None, None])
        expected = float(shares.exp().sum())
        assert abs(float(counts[level]) / n - expected) < 4 * math.sqrt(expected / n)
