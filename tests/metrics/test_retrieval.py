"""Retrieval: exact expectation over galleries, both directions under their right names, truthful gaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nsdbench.metrics import retrieval
from nsdbench.metrics.identification import ranks
from nsdbench.metrics.retrieval import cosine_matrix, top1
from nsdbench.schema import RunKey
from nsdbench.scoring import Scored, ScoreSettings, score
from nsdbench.types import Reconstructions, Stimuli

KEY = RunKey("run", "sim", "model", "mini", 1, "vision")
BOTH = ("retrieval_image_top1", "retrieval_brain_top1")
AB = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
Floats = NDArray[np.float64]


def stimuli_of(ids: tuple[str, ...]) -> Stimuli:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return Stimuli(ids, tuple(id[0] for id in ids), frozenset(ids), lambda _: image, "hash")


def recon_of(
    brain: Any, gallery: Any, ids: tuple[str, ...], n_samples: int = 3, **more: Any
) -> Reconstructions:
    images = np.zeros((len(ids), n_samples, 4, 4, 3), np.uint8)
    return Reconstructions(
        images,
        ids,
        embeddings={"space": np.asarray(brain, np.float32)},
        gallery={"space": np.asarray(gallery, np.float32)},
        gallery_ids=ids,
        **more,
    )


def run(recon: Reconstructions, ids: tuple[str, ...], *metrics: str, **options: Any) -> Scored:
    return score(recon, stimuli_of(ids), KEY, settings=ScoreSettings(metrics=metrics or BOTH, **options))


def values(scored: Scored, metric: str, pool: str, name: str = "value") -> list[Any]:
    return [r[name] for r in scored.items.to_pylist() if (r["metric"], r["pool"]) == (metric, pool)]


def test_the_two_directions_by_hand() -> None:
    """Two brains look most like image 1, so one of them finds a wrong image; yet image 2 finds its own brain."""
    ids = ("img1", "img2", "img3")
    gallery = [[1, 0], [0, 1], [-1, 0]]
    brain = [[1, 0.1], [1, 0.2], [-1, 0.1]]
    scored = run(recon_of(brain, gallery, ids), ids)
    assert values(scored, "retrieval_image_top1", "all3") == [1, 0, 1]
    # image 2 points up: brains have the cosines .0995, .196 and .0995 with it, its own is the best
    assert values(scored, "retrieval_brain_top1", "all3") == [1, 1, 1]
    assert scored.similarity["retrieval_image_top1"].shape == (3, 3, 1)
    assert np.allclose(
        scored.similarity["retrieval_image_top1"][:, 1, 0], np.array([1, 0.2, -1]) / np.sqrt(1.04)
    )


def test_an_embedding_belongs_to_a_target_and_not_to_a_sample() -> None:
    ids = ("img1", "img2")
    scored = run(recon_of(np.eye(2), np.eye(2), ids, n_samples=5), ids)
    assert values(scored, BOTH[0], "all2", "sample") == [0, 0]
    assert values(scored, BOTH[0], "all2", "floor") == [0.5, 0.5]


def test_only_the_direction_of_an_embedding_matters() -> None:
    rng = np.random.default_rng(0)
    brain, gallery = rng.normal(size=(2, 12, 3, 4))
    scale = np.exp(rng.normal(size=(12, 1, 1)))
    first = run(recon_of(brain, gallery, AB), AB)
    second = run(recon_of(brain * scale, gallery / scale, AB), AB)
    assert values(first, BOTH[0], "AB12") == values(second, BOTH[0], "AB12")
    assert values(first, BOTH[1], "within6") == values(second, BOTH[1], "within6")


def test_imagery_targets_choose_among_twelve_and_within_their_set() -> None:
    rng = np.random.default_rng(1)
    brain, gallery = rng.normal(size=(2, 12, 5))
    cosines = (gallery / np.linalg.norm(gallery, axis=1)[:, None]) @ (
        brain / np.linalg.norm(brain, axis=1)[:, None]
    ).T
    scored = run(recon_of(brain, gallery, AB), AB)
    for metric, r in zip(BOTH, (cosines, cosines.T), strict=True):
        blocks = [r[:6, :6], r[6:, 6:]]
        assert values(scored, metric, "AB12") == list(r.argmax(axis=0) == np.arange(12))
        assert values(scored, metric, "within6") == [
            x for b in blocks for x in b.argmax(axis=0) == np.arange(6)
        ]
        assert set(values(scored, metric, "AB12", "floor")) == {1 / 12}
        assert set(values(scored, metric, "within6", "floor")) == {1 / 6}


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 7), st.integers(2, 6), st.integers(0, 999), st.booleans())
def test_the_expectation_is_that_of_all_galleries(n: int, m: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    r: Floats = rng.integers(0, 3, (n, n)) / 2 if tied else rng.random((n, n))
    original, retrieval.GALLERY = retrieval.GALLERY, m
    try:
        found, chance = top1(r, np.arange(n), (np.arange(n),))
    finally:
        retrieval.GALLERY = original
    size = min(m, n)
    for j in range(n):
        others = [i for i in range(n) if i != j]
        galleries = list(combinations(others, size - 1))
        wins = [all(r[i, j] < r[j, j] for i in gallery) for gallery in galleries]
        assert found[j] == pytest.approx(np.mean(wins))
    assert chance == pytest.approx(np.full(n, 1 / size))


def test_a_thousand_images_are_galleries_of_three_hundred() -> None:
    """One rival of 999: the gallery leaves it out with probability 1 - 299/999."""
    r = np.zeros((1000, 1))
    r[0], r[7] = 0.5, 0.9
    found, chance = top1(r, np.array([0]), (np.arange(1000),))
    assert found[0] == pytest.approx(1 - 299 / 999)
    assert chance[0] == pytest.approx(1 / 300)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999))
def test_relabelling_images_relabels_the_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    r, order = rng.random((8, 8)), rng.permutation(8)
    groups = (np.arange(8),)
    plain, _ = top1(r, np.arange(8), groups)
    shuffled, _ = top1(r[np.ix_(order, order)], np.arange(8), groups)
    assert np.array_equal(plain[order], shuffled)


def test_without_information_the_score_is_chance() -> None:
    """The mean over all permutations of the images is one over the number of alternatives, whatever the matrix."""
    rng = np.random.default_rng(3)
    r = rng.random((5, 5))
    shifts = [top1(r[np.roll(np.arange(5), s)], np.arange(5), (np.arange(5),))[0].mean() for s in range(5)]
    assert np.mean(shifts) == pytest.approx(1 / 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_cosines_agree_with_the_plain_formula_however_they_are_stored(dtype: type) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(3, 700, 500)).astype(dtype), rng.normal(size=(2, 700, 500)).astype(dtype)
    flat_a, flat_b = a.reshape(3, -1).astype(np.float64), b.reshape(2, -1).astype(np.float64)
    plain = flat_a @ flat_b.T / np.linalg.norm(flat_a, axis=1)[:, None] / np.linalg.norm(flat_b, axis=1)
    assert np.allclose(cosine_matrix(a, b), plain, rtol=0, atol=1e-12)


def test_equal_embeddings_are_ties_and_ties_are_failures() -> None:
    ids = ("img1", "img2", "img3")
    gallery = [[1, 0], [1, 0], [0, 1]]
    scored = run(recon_of(gallery, gallery, ids), ids)
    assert values(scored, BOTH[0], "all3") == [0, 0, 1]


def test_a_zero_embedding_fails_and_says_why() -> None:
    ids = ("img1", "img2")
    scored = run(recon_of([[0, 0], [0, 1]], np.eye(2), ids), ids)
    assert values(scored, BOTH[0], "all2") == [0, 1]
    assert values(scored, BOTH[0], "all2", "reason") == [
        "an embedding is zero: similarity defined as 0",
        None,
    ]


def test_reconstructions_without_embeddings_have_nulls_that_say_so() -> None:
    ids = ("img1", "img2")
    bare = Reconstructions(np.zeros((2, 1, 4, 4, 3), np.uint8), ids)
    scored = run(bare, ids)
    assert values(scored, BOTH[0], "all2") == [None, None]
    assert set(values(scored, BOTH[0], "all2", "reason")) == {"the decoder gives no embedding"}
    assert any("the decoder gives no embedding" in note for note in scored.notes)


def test_where_possible_means_no_rows_without_embeddings() -> None:
    ids = ("img1", "img2")
    bare = Reconstructions(np.zeros((2, 1, 4, 4, 3), np.uint8), ids)
    assert not set(BOTH) & set(run(bare, ids, "pixel_2way", where_possible=BOTH).items["metric"].to_pylist())
    full = run(recon_of(np.eye(2), np.eye(2), ids), ids, "pixel_2way", where_possible=BOTH)
    assert set(BOTH) < set(full.items["metric"].to_pylist())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gallery": {}}, "there are none of the ground truths"),
        (
            {"embeddings": {"a": np.eye(3), "b": np.eye(3)}, "gallery": {"a": np.eye(3), "b": np.eye(3)}},
            "several spaces: a, b",
        ),
        ({"gallery_ids": ("img1", "img2", "img9")}, "1 of 3 ground truths have no embedding"),
    ],
)
def test_embeddings_that_cannot_be_used_are_explained(change: dict[str, Any], reason: str) -> None:
    ids = ("img1", "img2", "img3")
    scored = run(replace(recon_of(np.eye(3), np.eye(3), ids), **change), ids)
    for metric in BOTH:
        assert values(scored, metric, "all3") == [None] * 3
        assert reason in values(scored, metric, "all3", "reason")[0]


def test_fewer_brains_than_images_do_not_make_the_choice_easier() -> None:
    ids = ("img1", "img2", "img3")
    gallery = [[1, 0], [0, 1], [1, 0.1]]
    part = Reconstructions(
        np.zeros((2, 1, 4, 4, 3), np.uint8),
        ids[:2],
        embeddings={"space": np.array([[1, 0.2], [0, 1]], np.float32)},
        gallery={"space": np.array(gallery, np.float32)},
        gallery_ids=ids,
    )
    scored = run(part, ids)
    assert values(scored, BOTH[0], "all3") == [0, 1]  # the third image is nearer to the first brain
    assert values(scored, BOTH[1], "all3") == [None, None]
    assert "1 of 3 brain embeddings are missing" in values(scored, BOTH[1], "all3", "reason")[0]


def test_the_order_of_targets_and_gallery_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    brain, gallery = rng.normal(size=(2, 12, 4)).astype(np.float32)
    order, other = rng.permutation(12), rng.permutation(12)
    mixed = replace(
        recon_of(brain[order], gallery[other], tuple(AB[i] for i in order)),
        gallery_ids=tuple(AB[i] for i in other),
    )
    assert run(mixed, AB).items.equals(run(recon_of(brain, gallery, AB), AB).items)


def test_the_matrix_of_a_direction_gives_its_ranks() -> None:
    rng = np.random.default_rng(7)
    scored = run(recon_of(*rng.normal(size=(2, 12, 4)), AB), AB)
    for metric in BOTH:
        k = ranks(scored.similarity[metric][..., 0], np.arange(12))
        assert values(scored, metric, "AB12") == list(k == 0)


def test_a_lonely_target_has_no_alternative() -> None:
    scored = run(recon_of([[1, 0]], [[1, 0]], ("img1",)), ("img1",))
    assert values(scored, BOTH[0], "all1", "reason") == ["the pool has no distractor"]


def test_large_embeddings_in_order_are_not_copied() -> None:
    from nsdbench.byproducts import _rows

    array = np.zeros((3, 2), np.float32)
    assert _rows(array, ("a", "b", "c"), ("a", "b", "c")) is array
