"""What the shipped metric networks can do on simulated scenes that no network has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nsdbench.metrics.registry import METRICS, MINI
from nsdbench.pretraining.corpus import Corpus, corpus, native
from nsdbench.pretraining.evaluation import LADDERS, damaged, ladder, probe
from nsdbench.types import Silent

FIT, TEST = 400, 200
CATEGORY = dict.fromkeys(MINI, 0.5) | {"mini_swav": 0.25}
"""Least category accuracy (20 categories, the most frequent one 0.1) of a linear reading fitted on 400 scenes;
the one network that never saw a label is asked for less."""


@pytest.fixture(scope="module")
def scenes() -> NDArray[np.uint8]:
    return np.stack([native("held_out", i, 0)[1] for i in range(40)])


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    found = corpus("held_out", FIT + TEST, 0, tmp_path_factory.mktemp("scenes"), Silent())
    return _part(found, slice(FIT)), _part(found, slice(FIT, None))


def _part(whole: Corpus, rows: slice) -> Corpus:
    labels = {name: values[rows] for name, values in whole.labels.items()}
    return replace(whole, images=whole.images[rows], labels=labels, captions=whole.captions[rows])


@pytest.fixture(scope="module", params=LADDERS)
def means(request: pytest.FixtureRequest, scenes: NDArray[np.uint8]) -> dict[str, list[float]]:
    return ladder(scenes, request.param)


@pytest.mark.parametrize("name", MINI)
def test_more_damage_never_gets_a_better_score(name: str, means: dict[str, list[float]]) -> None:
    worse = np.array(means[name]) if METRICS[name].direction == "lower" else 1 - np.array(means[name])
    assert worse[0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(worse) >= 0).all()
    assert worse[-1] > 0.02


@pytest.mark.parametrize("name", MINI)
def test_features_tell_the_category_of_an_object_far_above_chance(
    name: str, halves: tuple[Corpus, Corpus]
) -> None:
    accuracy = probe(name, *halves)
    assert accuracy["category"] > CATEGORY[name]
    assert accuracy["background"] > 0.9


@pytest.mark.parametrize("kind", LADDERS)
def test_the_first_step_of_a_ladder_changes_nothing(kind: str, scenes: NDArray[np.uint8]) -> None:
    assert np.array_equal(damaged(scenes, kind, LADDERS[kind][0]), scenes)


def test_the_last_step_of_the_scene_ladder_is_another_scene(scenes: NDArray[np.uint8]) -> None:
    assert np.array_equal(damaged(scenes, "wrong scene", 1)[1:], scenes[:-1])


def test_blur_keeps_flat_images_and_noise_has_the_given_strength() -> None:
    grey = np.full((2, 112, 112, 3), 128, np.uint8)
    assert np.array_equal(damaged(grey, "blur", 4), grey)
    assert damaged(grey, "noise", 10).std() == pytest.approx(10, rel=0.02)


def test_scenes_of_the_cache_are_read_back_as_rendered(tmp_path: Path) -> None:
    first, again = (corpus("train", 5, 3, tmp_path, Silent()) for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert first.captions.tolist() == again.captions.tolist()
    assert len(list(tmp_path.iterdir())) == 1
