"""MindEye's losses against sums written out term by term, and the mixing of voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.adapters.mindeye.losses import (
    Contrastive,
    bimixco,
    cosine_anneal,
    mix,
    mixco,
    mixco_within,
    soft_clip,
    soft_cont,
    unit,
)

Array = NDArray[np.float64]


def units(n: int, channels: int, seed: int) -> Tensor:
    return unit(torch.randn(n, channels, generator=torch.Generator().manual_seed(seed)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def softmax_by_hand(logits: Array) -> Array:
    return np.exp(logits) / np.exp(logits).sum()


def cross_entropy_by_hand(logits: Array, labels: Array) -> float:
    """Mean over rows of minus the sum of label times log of share."""
    rows = [
        -sum(q * math.log(p) for q, p in zip(label, softmax_by_hand(row), strict=True))
        for row, label in zip(logits, labels, strict=True)
    ]
    return sum(rows) / len(rows)


def in_numpy(*tensors: Tensor) -> list[Array]:
    return [tensor.double().numpy() for tensor in tensors]


# Contrastive losses -------------------------------------------------------------------------------------------------


def test_bimixco_is_its_formula_written_out() -> None:
    preds, targets, temperature = units(4, 5, 1), units(4, 5, 2), 0.1
    partners, betas = torch.tensor([2, 0, 3, 1]), torch.tensor([0.7, 1.0, 0.2, 0.9])
    labels = np.zeros((4, 4))
    for i in range(4):
        labels[i, i] = betas[i]
        labels[i, partners[i]] = 1 - betas[i]
    p, t = in_numpy(preds, targets)
    logits = np.array([[p[i] @ t[j] / temperature for j in range(4)] for i in range(4)])
    expected = (cross_entropy_by_hand(logits, labels) + cross_entropy_by_hand(logits.T, labels.T)) / 2
    assert float(bimixco(preds, targets, temperature, partners, betas)) == pytest.approx(expected, rel=1e-5)


def test_bimixco_without_mixing_is_the_usual_contrastive_loss_in_both_directions() -> None:
    preds, targets = units(6, 5, 1), units(6, 5, 2)
    logits, own = preds @ targets.T / 0.006, torch.arange(6)
    expected = sum(torch.nn.functional.cross_entropy(side, own) for side in (logits, logits.T)) / 2
    torch.testing.assert_close(bimixco(preds, targets, 0.006), expected)


def test_an_unmixed_item_that_is_its_own_partner_has_no_label_as_published() -> None:
    preds, targets = units(3, 5, 1), units(3, 5, 2)
    partners, betas = torch.tensor([0, 2, 1]), torch.ones(3)
    labels = np.diag([0.0, 1.0, 1.0])
    p, t = in_numpy(preds, targets)
    logits = p @ t.T / 0.5
    expected = (cross_entropy_by_hand(logits, labels) + cross_entropy_by_hand(logits.T, labels)) / 2
    assert float(bimixco(preds, targets, 0.5, partners, betas)) == pytest.approx(expected, rel=1e-5)


def test_soft_clip_is_its_formula_written_out() -> None:
    preds, targets, temperature = units(4, 5, 1), units(4, 5, 2), 0.2
    p, t = in_numpy(preds, targets)
    labels = np.array(
        [softmax_by_hand(np.array([t[i] @ t[j] for j in range(4)]) / temperature) for i in range(4)]
    )
    logits = np.array([[p[i] @ t[j] / temperature for j in range(4)] for i in range(4)])
    expected = (cross_entropy_by_hand(logits, labels) + cross_entropy_by_hand(logits.T, labels)) / 2
    assert float(soft_clip(preds, targets, temperature)) == pytest.approx(expected, rel=1e-5)


def test_soft_cont_is_its_formula_written_out() -> None:
    student, teacher, augmented, temperature = units(4, 5, 1), units(4, 5, 2), units(4, 5, 3), 0.2
    s, t, a = in_numpy(student, teacher, augmented)
    taught = np.array([[t[i] @ a[j] / temperature for j in range(4)] for i in range(4)])
    learnt = np.array([[s[i] @ a[j] / temperature for j in range(4)] for i in range(4)])
    ahead = cross_entropy_by_hand(learnt, np.array([softmax_by_hand(row) for row in taught]))
    back = cross_entropy_by_hand(learnt.T, np.array([softmax_by_hand(row) for row in taught.T]))
    loss = soft_cont(student, teacher, augmented, temperature)
    assert float(loss) == pytest.approx((ahead + back) / 2, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000), st.floats(0.05, 1))
def test_no_student_does_better_than_the_teacher(n: int, seed: int, temperature: float) -> None:
    """Cross-entropy is smallest, the entropy of the labels, where both distributions are the same."""
    student, teacher, augmented = (units(n, 4, seed + i) for i in range(3))
    best = soft_cont(teacher, teacher, augmented, temperature)
    assert float(soft_cont(student, teacher, augmented, temperature)) >= float(best) - 1e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000), st.floats(0.05, 1))
def test_the_order_of_a_batch_does_not_matter(n: int, seed: int, temperature: float) -> None:
    preds, targets, order = (
        units(n, 4, seed),
        units(n, 4, seed + 1),
        torch.randperm(n, generator=generator(seed)),
    )
    for loss in (bimixco, soft_clip):
        straight, shuffled = (
            loss(preds, targets, temperature),
            loss(preds[order], targets[order], temperature),
        )
        torch.testing.assert_close(shuffled, straight, rtol=1e-4, atol=1e-5)


def test_small_temperatures_keep_their_precision_in_mixed_precision() -> None:
    preds, targets = units(32, 64, 1), units(32, 64, 2)
    exact = soft_clip(preds, targets, 0.004)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(soft_clip(preds, targets, 0.004), exact)


# Mixing -------------------------------------------------------------------------------------------------------------


def test_voxels_are_mixed_with_those_of_their_partner() -> None:
    voxels = torch.randn(40, 3, 7, generator=generator(5))
    mixed, partners, betas, selected = mixco(voxels, generator())
    for i in range(40):
        expected = betas[i] * voxels[i] + (1 - betas[i]) * voxels[partners[i]]
        torch.testing.assert_close(mixed[i], expected)
    assert sorted(partners.tolist()) == list(range(40))
    assert torch.equal(betas[~selected], torch.ones(int((~selected).sum())))
    torch.testing.assert_close(mixed[~selected], voxels[~selected])


def test_half_of_the_items_are_mixed_with_shares_of_the_published_distribution() -> None:
    """Beta(b, b) has the mean 1/2 and the variance 1 / (4 (2 b + 1))."""
    _, _, betas, selected = mixco(torch.zeros(40_000, 1), generator())
    assert float(selected.float().mean()) == pytest.approx(0.5, abs=0.01)
    drawn = betas[selected]
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(drawn.var()) == pytest.approx(1 / (4 * 1.3), abs=0.005)


def test_mixing_is_reproducible_and_draws_anew_each_time() -> None:
    voxels, rng = torch.randn(30, 4, generator=generator(5)), generator(3)
    first, second = mixco(voxels, rng), mixco(voxels, rng)
    again = mixco(voxels, generator(3))
    assert torch.equal(first.voxels, again.voxels)
    assert not torch.equal(first.partners, second.partners)
    assert not torch.equal(first.betas[first.selected].sum(), second.betas[second.selected].sum())


def test_subjects_are_mixed_among_themselves_and_partners_count_in_the_whole_batch() -> None:
    parts = [torch.randn(n, width, generator=generator(n)) for n, width in ((5, 3), (8, 4), (6, 2))]
    voxels, mixture = mixco_within(parts, generator())
    starts = (0, 5, 13)
    for start, part, mixed in zip(starts, parts, voxels, strict=True):
        rows = slice(start, start + len(part))
        local = mixture.partners[rows] - start
        assert sorted(local.tolist()) == list(range(len(part)))
        torch.testing.assert_close(mixed, mix(part, local, mixture.betas[rows]))


def test_the_published_bug_looks_partners_up_among_the_first_rows() -> None:
    parts = [torch.randn(6, 3, generator=generator(i)) for i in range(3)]
    voxels, mixture = mixco_within(parts, generator(), legacy_bugs=True)
    right_voxels, right = mixco_within(parts, generator())
    assert int(mixture.partners.max()) == 5
    starts = torch.tensor([0, 6, 12]).repeat_interleave(6)
    assert torch.equal(mixture.partners + starts, right.partners)
    assert all(torch.equal(a, b) for a, b in zip(voxels, right_voxels, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 1000))
def test_partners_of_a_batch_are_a_permutation(sizes: list[int], seed: int) -> None:
    _, mixture = mixco_within([torch.zeros(n, 2) for n in sizes], generator(seed))
    assert sorted(mixture.partners.tolist()) == list(range(sum(sizes)))
    assert mixture.voxels.shape == (sum(sizes), 0)


# Schedule -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 1), st.floats(0.001, 1), st.integers(2, 200))
def test_the_annealed_temperature_runs_from_start_to_end_along_half_a_cosine(
    a: float, b: float, n: int
) -> None:
    values = cosine_anneal(a, b, n)
    expected = [b + (a - b) / 2 * (1 + math.cos(math.pi * k / (n - 1))) for k in range(n)]
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert (values[0], values[-1]) == pytest.approx((a, b))


@pytest.mark.parametrize(("epochs", "mixed"), [(240, 79), (150, 49)])
def test_the_published_schedules(epochs: int, mixed: int) -> None:
    schedule = Contrastive(epochs)
    assert schedule.mixed_epochs == mixed
    temperatures = [schedule.temperature(epoch) for epoch in range(epochs)]
    assert temperatures[:mixed] == [0.006] * mixed
    assert temperatures[mixed:] == pytest.approx(cosine_anneal(0.004, 0.0075, epochs - mixed).tolist())
    assert [schedule.mixes(epoch) for epoch in (mixed - 1, mixed)] == [True, False]


def test_the_loss_of_an_epoch_is_the_one_of_its_schedule() -> None:
    schedule, tokens = Contrastive(10), torch.randn(4, 3, 5, generator=generator())
    targets = torch.randn(4, 3, 5, generator=generator(1))
    mixture = mixco(torch.zeros(4, 1), generator(2))
    preds, wanted = unit(tokens), unit(targets)
    early = bimixco(preds, wanted, 0.006, mixture.partners, mixture.betas)
    torch.testing.assert_close(schedule.loss(2, tokens, targets, mixture), early)
    torch.testing.assert_close(schedule.loss(2, tokens, targets), bimixco(preds, wanted, 0.006))
    torch.testing.assert_close(schedule.loss(3, tokens, targets), soft_clip(preds, wanted, 0.004))


def test_embeddings_are_flattened_to_unit_length() -> None:
    torch.testing.assert_close(unit(torch.tensor([[[3.0], [4.0]]])), torch.tensor([[0.6, 0.8]]))
