from __future__ import annotations

import numpy as np
import pytest

from nsdbench.sim.config import SimConfig
from nsdbench.sim.design import CoreDesign, ImageryDesign, core_design, imagery_design
from nsdbench.sim.stimuli import brick_order, exemplars

CONFIG = SimConfig(preset="tiny")


@pytest.fixture(scope="module")
def core() -> CoreDesign:
    return core_design(CONFIG, brick_order(CONFIG))


@pytest.fixture(scope="module")
def design(core: CoreDesign) -> ImageryDesign:
    return imagery_design(CONFIG, core)


def test_every_image_is_shown_three_times_and_never_twice_in_a_row(core: CoreDesign) -> None:
    assert np.array_equal(np.bincount(core.order)[1:], np.full(250, 3))
    assert np.all(core.order[1:] != core.order[:-1])


def test_repeats_name_the_trials_of_each_image(core: CoreDesign) -> None:
    assert np.all(core.order[core.repeats - 1] == np.arange(1, 251)[:, None])


def test_subjects_share_exactly_the_shared_images(core: CoreDesign) -> None:
    first, seventh = core.images[0], core.images[6]
    assert np.array_equal(first[:60], seventh[:60])
    assert not set(first[60:]) & set(seventh[60:])
    assert not core.images[[1, 2, 3, 4, 5, 7]].any()


def test_image_rows_do_not_equal_their_10k_ids(core: CoreDesign) -> None:
    assert np.mean(core.images[0] == np.arange(1, 251)) < 0.05


def test_the_first_imagery_run_repeats_the_order_of_the_vision_run(design: ImageryDesign) -> None:
    runs = {run.name: run for run in design.runs}
    for key in "ABC":
        assert np.array_equal(runs[f"img{key}_1"].target, runs[f"vis{key}"].target)
        assert not np.array_equal(runs[f"img{key}_2"].target, runs[f"vis{key}"].target)


def test_each_target_has_eight_trials_and_none_follows_itself(design: ImageryDesign) -> None:
    for run in design.runs:
        assert np.array_equal(np.bincount(run.target), np.full(6, 8))
        assert np.all(run.target[1:] != run.target[:-1])


def test_vision_cues_name_the_image_on_half_of_the_trials_of_each_target(design: ImageryDesign) -> None:
    for run in design.runs:
        if run.task == "vision":
            assert np.array_equal(np.bincount(run.target[run.cue == run.target]), np.full(6, 4))
            assert np.array_equal(np.bincount(run.cue), np.full(6, 8))
        else:
            assert np.array_equal(run.cue, run.target)


def test_every_exemplar_of_a_concept_is_shown_once(design: ImageryDesign) -> None:
    run = next(run for run in design.runs if run.name == "visC")
    for concept in range(6):
        assert np.array_equal(np.sort(run.image[run.target == concept]), exemplars(concept))


def test_onsets_lie_on_the_trial_grid_with_five_gaps(design: ImageryDesign) -> None:
    for run in design.runs:
        spacing, first, length = (8, 16, 480) if run.task == "attention" else (4, 12, 240)
        steps = np.diff(run.onsets)
        assert run.onsets[0] == first
        assert sorted(set(steps)) == [spacing, 2 * spacing]
        assert np.sum(steps == 2 * spacing) == 5
        assert run.onsets[-1] < length


def test_targets_are_named_by_ids_of_this_dataset(design: ImageryDesign, core: CoreDesign) -> None:
    names = [t.name for t in design.of_set("B")]
    assert names[:5] == [f"shared{i + 1:04d}_nsd{core.images[0, i]:05d}.png" for i in range(5)]
    assert names[5] == "shared0000_nsd00000.png"
