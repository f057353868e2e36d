from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nsdbench.data import facts
from nsdbench.sim.objects import paint
from nsdbench.sim.scenes import SIDE, Wish, captions, render_scene, sample_scene
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.sim.stimuli import CONCEPTS, SET_B, ImageKey, render_block, wish_for
from nsdbench.sim.targets import GREY, draw_bars, draw_letter
from nsdbench.sim.vocabulary import BACKGROUNDS, CATEGORIES, CATEGORY_TABLE, SUPERCATEGORIES

SHARED = Path(os.environ.get("NSDBENCH_SHARED", Path(__file__).parents[3] / "shared"))


def test_the_vocabulary_has_the_documented_size() -> None:
    assert (len(BACKGROUNDS), len(CATEGORIES), len(SUPERCATEGORIES)) == (10, 20, 10)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_silhouette_fills_a_fair_part_of_its_box(category: str) -> None:
    scene = sample_scene(stream(0, Purpose.PRETRAINING, 1), Wish(categories=(category,), texture="plain"))
    canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    box = scene.main.box
    share = np.asarray(paint(canvas, scene.main)).mean() / 255 / (box[2] * box[3])
    assert 0.2 < share < 0.95


def test_mirroring_an_object_mirrors_its_silhouette() -> None:
    thing = sample_scene(stream(0, Purpose.PRETRAINING, 2), Wish(categories=("dog",))).main
    canvas = Image.new("RGB", (224, 224))
    placed = {"box": (0.25, 0.25, 0.5, 0.5)}
    left, right = (paint(canvas, type(thing)(**{**vars(thing), **placed, "flip": f})) for f in (False, True))
    assert np.mean(np.asarray(left) != np.asarray(right)[:, ::-1]) < 0.01


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_wish_for_a_background_is_granted(background: str) -> None:
    assert (
        sample_scene(stream(0, Purpose.PRETRAINING, 3), Wish(background=background)).background == background
    )


def test_zebras_are_always_striped() -> None:
    wish = Wish(categories=("zebra",))
    assert {sample_scene(stream(0, Purpose.PRETRAINING, i), wish).main.texture for i in range(20)} == {
        "stripes"
    }


def test_the_scenes_of_set_b_have_their_forced_content() -> None:
    scenes = render_block(5, [ImageKey(0, i) for i in range(5)]).scenes
    assert [(s.background, s.main.category) for s in scenes] == [(w.background, *w.categories) for w in SET_B]


def test_eight_shared_images_satisfy_each_concept() -> None:
    scenes = render_block(5, [ImageKey(0, i) for i in range(5, 53)]).scenes
    mains = [[s.main for s in scenes[8 * c : 8 * c + 8]] for c in range(6)]
    assert all(t.texture == "stripes" and t.category != "zebra" for t in mains[0])
    assert all(t.category == "zebra" for t in mains[1])
    assert all(CATEGORY_TABLE[t.category][0] == "mammal" for t in mains[2])
    assert all(t.colour == "yellow" for t in mains[3])
    assert all(t.category == "banana" for t in mains[4])
    assert all(CATEGORY_TABLE[t.category][0] == "fruit" for t in mains[5])


def test_only_the_first_shared_images_have_forced_content() -> None:
    forced = 5 + 8 * len(CONCEPTS)
    assert wish_for(ImageKey(0, forced)) == wish_for(ImageKey(1, 0)) == Wish()


def test_an_image_does_not_depend_on_its_block() -> None:
    keys = [ImageKey(1, i) for i in range(4)]
    whole, part = render_block(0, keys), render_block(0, keys[2:3])
    assert np.array_equal(whole.images[2:3], part.images)
    assert np.array_equal(whole.features.low[2:3], part.features.low)


def test_another_seed_gives_another_image() -> None:
    key = [ImageKey(1, 0)]
    assert not np.array_equal(render_block(0, key).images, render_block(1, key).images)


def test_visible_coverage_never_exceeds_the_picture() -> None:
    for i in range(20):
        rng = stream(0, Purpose.PRETRAINING, i)
        coverage = render_scene(sample_scene(rng), rng).coverage
        assert coverage.min() >= 0
        assert coverage.sum(axis=0).max() <= 1 + 1e-6


def test_a_scene_has_five_captions_that_name_its_main_object() -> None:
    scene = sample_scene(stream(0, Purpose.PRETRAINING, 9))
    assert len(captions(scene)) == 5
    assert all(scene.main.category in caption for caption in captions(scene))


def test_a_horizontal_bar_has_the_length_and_width_of_its_name() -> None:
    dark = draw_bars("bar_000.0deg_450L_43W")[..., 0] < GREY / 2
    assert np.ptp(np.flatnonzero(dark.any(axis=0))) + 1 == pytest.approx(450 / 714 * SIDE, abs=2)
    assert np.ptp(np.flatnonzero(dark.any(axis=1))) + 1 == pytest.approx(43 / 714 * SIDE, abs=2)


def test_bars_agree_with_independent_drawings_of_the_targets() -> None:
    folder = SHARED / "data/real/nsdimagery-recons/groundtruth"
    if not folder.is_dir():
        pytest.skip("reference drawings are not on this machine")
    for row in facts.table("targets")[:6]:
        name = f"A{row['target_number']}_{row['cue']}.png"
        reference = Image.open(folder / name).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        difference = np.abs(np.asarray(reference, float) - draw_bars(row["target_name"])[..., 0])
        assert difference.mean() < 0.5


def test_every_cue_letter_is_a_different_small_mark_at_fixation() -> None:
    letters = [draw_letter(row["cue"])[..., 0] for row in facts.table("targets")]
    for letter in letters:
        rows, columns = np.nonzero(letter != GREY)
        assert np.ptp(rows) + 1 == 10
        assert max(abs(rows - SIDE / 2)) <= 6
        assert max(abs(columns - SIDE / 2)) <= 6
    assert len({letter.tobytes() for letter in letters}) == 18
