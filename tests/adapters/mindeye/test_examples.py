"""What the MindEyes learn from: which betas a batch gets, how they are standardized, and which targets go with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nsdbench.adapters.mindeye.examples import Examples, Targets
from nsdbench.adapters.scaling import Scaling
from nsdbench.types import Trials

SHOWN = ("c", "a", "b", "a", "c", "a", "b", "a", "b")  # a four times, b three times, c twice
BETAS = np.random.default_rng(0).normal(5, 3, (len(SHOWN), 6)).astype(np.float32)
UNSCALED = Scaling(np.zeros(6, np.float32), np.ones(6, np.float32))


def targets(n: int = 3) -> Targets:
    """Targets whose numbers are those of their images."""
    numbers = np.arange(n)
    return Targets(
        np.broadcast_to(numbers[:, None, None], (n, 2, 4)).astype(np.float16),
        np.broadcast_to(numbers[:, None, None, None], (n, 3, 2, 2)).astype(np.float32) / 3,
        (numbers[:, None, None, None] + np.array([0, 0.5])[:, None, None] + np.zeros((n, 2, 4, 5))).astype(
            np.float16
        ),
    )


def trials(shown: tuple[str, ...] = SHOWN, betas: np.ndarray = BETAS) -> Trials:
    n = len(shown)
    core, numbers = np.full(n, "core"), np.arange(n)
    return Trials(betas, np.array(shown), "train", core, numbers, numbers, 1, {})


@pytest.fixture
def examples() -> Examples:
    return Examples.of(trials(), UNSCALED, targets(), "cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(betas: torch.Tensor) -> list[int]:
    """Which row of BETAS each row is."""
    found = (betas.numpy()[:, None] == BETAS).all(2)
    assert (found.sum(1) == 1).all()
    return list(found.argmax(1))


def test_rows_are_sorted_by_image_in_the_order_of_their_trials(examples: Examples) -> None:
    assert [rows.tolist() for rows in examples.trials_of] == [[1, 3, 5, 7], [2, 6, 8], [0, 4]]
    assert examples.n_images == 3


def test_a_repeat_is_counted_in_a_circle_by_image(examples: Examples) -> None:
    images = torch.tensor([2, 0, 1])
    assert rows_of(examples.repeat(images, 0)) == [0, 1, 2]
    assert rows_of(examples.repeat(images, 1)) == [4, 3, 6]
    assert rows_of(examples.repeat(images, 2)) == [0, 5, 8]  # c was shown twice
    assert rows_of(examples.repeat(images, 7)) == [4, 7, 6]


def test_each_image_draws_one_of_its_own_repeats_evenly(examples: Examples) -> None:
    images, draws = torch.tensor([0, 1, 2] * 2000), rng()
    drawn = rows_of(examples.one(images, draws))
    shares = np.bincount(drawn, minlength=9) / 2000
    expected = np.array([1 / {"a": 4, "b": 3, "c": 2}[image] for image in SHOWN])
    np.testing.assert_allclose(shares, expected, atol=0.04)
    assert all(SHOWN[row] == "abc"[i] for row, i in zip(drawn, images.tolist(), strict=True))


def test_blended_betas_are_averages_means_and_single_trials_in_published_shares(examples: Examples) -> None:
    images = torch.tensor([0, 1, 2])
    means = np.stack([BETAS[own].mean(0) for own in examples.trials_of])
    kinds = {"single": 0, "mean": 0, "average": 0}
    for seed in range(400):
        found = examples.blended(images, rng(seed)).numpy()
        if (found[:, None] == BETAS).all(2).any(1).all():
            kinds["single"] += 1
        elif np.allclose(found, means, atol=1e-5):
            kinds["mean"] += 1
        else:
            kinds["average"] += 1
            for own, row in zip(examples.trials_of, found, strict=True):
                shares = np.linalg.lstsq(BETAS[own].T.astype(float), row, rcond=None)[0]
                np.testing.assert_allclose(BETAS[own].T @ shares, row, atol=1e-4)
                assert shares.sum() == pytest.approx(1, abs=1e-4)
                assert (shares > -1e-4).all()
    assert kinds["single"] / 400 == pytest.approx(0.2, abs=0.06)
    assert kinds["mean"] / 400 == pytest.approx(0.3, abs=0.07)
    assert kinds["average"] / 400 == pytest.approx(0.5, abs=0.08)


def test_averages_differ_between_images_of_a_batch() -> None:
    shown, betas = (
        ("a", "b") * 3,
        np.repeat(np.arange(3, dtype=np.float32), 2)[:, None] + np.zeros((1, 6), np.float32),
    )
    both = Examples.of(trials(shown, betas), UNSCALED, targets(2), "cpu")
    seed = next(s for s in range(99) if float(torch.rand((), generator=rng(s))) < 0.5)
    found = both.blended(torch.tensor([0, 1]), rng(seed))[:, 0]
    assert not torch.isclose(found[0], found[1])


@pytest.mark.parametrize("way", ["repeat", "one", "blended"])
def test_batches_are_standardized_and_the_trials_left_alone(way: str) -> None:
    stored = BETAS.copy()
    stored.setflags(write=False)
    scaling = Scaling.of(stored, ddof=0)
    raw, scaled = (
        Examples.of(trials(betas=values), statistics, targets(), "cpu")
        for values, statistics in ((stored, scaling), ((BETAS - BETAS.mean(0)) / BETAS.std(0), UNSCALED))
    )
    assert raw.betas is stored
    found, again = (
        getattr(one, way)(torch.tensor([1, 0, 2]), 1 if way == "repeat" else rng(3)) for one in (raw, scaled)
    )
    torch.testing.assert_close(found, again, atol=1e-5, rtol=1e-5)
    assert found.dtype == torch.float32


def test_an_epoch_shows_every_image_once_in_full_batches(examples: Examples) -> None:
    many = replace(examples, trials_of=examples.trials_of * 5)  # 15 images
    batches = list(many.shuffled(4, rng()))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert many.steps(4) == 3
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == 12
    assert set(seen) <= set(range(15))
    assert torch.cat(list(many.shuffled(4, rng(1)))).tolist() != seen


def test_targets_follow_their_images_as_float32(examples: Examples) -> None:
    images = torch.tensor([2, 0])
    tokens, latents, (teacher, altered) = (
        examples.tokens(images), examples.latents(images), examples.maps(images),
    )  # fmt: skip
    assert [t.dtype for t in (tokens, latents, teacher)] == [torch.float32] * 3
    assert tokens[:, 0, 0].tolist() == [2, 0]
    torch.testing.assert_close(latents[:, 0, 0, 0], torch.tensor([2 / 3, 0]))
    assert (teacher[:, 0, 0].tolist(), altered[:, 0, 0].tolist()) == ([2, 0], [2.5, 0.5])
    assert teacher.shape == (2, 4, 5)
