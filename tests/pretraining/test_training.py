"""Training is seeded, can be interrupted anywhere, and reads nothing but its own scenes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.adapters.nets.shipped import SHIPPED
from nsdbench.errors import DataError
from nsdbench.metrics.nets import NETS
from nsdbench.metrics.nets.mini import MINI_NETS
from nsdbench.pretraining.corpus import LABELS, Corpus, corpus, native
from nsdbench.pretraining.recipes import DECODERS, METRICS
from nsdbench.pretraining.shipping import ship
from nsdbench.pretraining.tasks import Contrast, Task, balanced
from nsdbench.pretraining.training import Recipe, train
from nsdbench.pretraining.words import Words
from nsdbench.safeload import load_state
from nsdbench.sim.scenes import render_scene, sample_scene
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.types import Silent


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus("train", 24, 0, tmp_path_factory.mktemp("scenes"), Silent())


def _short(name: str) -> Recipe:
    return replace(METRICS[name], steps=3, batch=8)


def _trained(recipe: Recipe, scenes: Corpus, checkpoint: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    task = train(recipe, scenes, seed, checkpoint, Silent())
    assert isinstance(task, Task)
    return task.state_dict()


def test_there_is_a_recipe_for_every_network() -> None:
    assert METRICS.keys() == {net.name for net in MINI_NETS}
    assert {recipe.weights_id for recipe in DECODERS.values()} == SHIPPED.keys()


@pytest.mark.parametrize("name", ["mini_alexnet", "mini_clip", "mini_swav"])
def test_an_interrupted_training_ends_with_the_same_weights(
    name: str, scenes: Corpus, tmp_path: Path
) -> None:
    recipe = _short(name)
    whole = _trained(recipe, scenes, tmp_path / "whole.pt")
    pieces = [train(recipe, scenes, 0, tmp_path / "pieces.pt", Silent(), seconds=0) for _ in range(3)]
    assert pieces[:2] == [None, None]
    last = pieces[2]
    assert last is not None
    assert all(torch.equal(value, whole[name]) for name, value in last.state_dict().items())


def test_an_unknown_network_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "nsdbench.pretraining",
        "metrics",
        "--only",
        "mini_clap",
        "--cache",
        str(tmp_path),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "no network 'mini_clap'" in found.stderr
    assert not any(tmp_path.iterdir())


def test_another_seed_gives_other_weights(scenes: Corpus, tmp_path: Path) -> None:
    recipe = _short("mini_alexnet")
    first, second = (_trained(recipe, scenes, tmp_path / f"{seed}.pt", seed) for seed in (0, 1))
    assert not torch.equal(first["trunk.0.weight"], second["trunk.0.weight"])


def test_training_leaves_the_global_generator_alone(scenes: Corpus, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    _trained(_short("mini_swav"), scenes, tmp_path / "a.pt")
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_checkpoint_of_another_training_is_refused(scenes: Corpus, tmp_path: Path) -> None:
    recipe = _short("mini_alexnet")
    train(recipe, scenes, 0, tmp_path / "a.pt", Silent(), seconds=0)
    with pytest.raises(DataError, match="belongs to another training"):
        train(replace(recipe, rate=1e-4), scenes, 0, tmp_path / "a.pt", Silent())


def test_a_shipped_file_holds_the_trunk_in_half_precision_and_is_the_same_every_time(
    scenes: Corpus, tmp_path: Path
) -> None:
    recipe = _short("mini_inception")
    task = train(recipe, scenes, 0, tmp_path / "a.pt", Silent())
    assert task is not None
    assert ship(task, recipe, 0, tmp_path / "x") == ship(task, recipe, 0, tmp_path / "y")
    state = load_state(tmp_path / "x/mini_inception-v1.safetensors")
    module = NETS["mini_inception"].build()
    module.load_state_dict(state, strict=True)
    for name, value in task.trunk.state_dict().items():
        torch.testing.assert_close(state[name].to(value.dtype), value, rtol=1e-3, atol=1e-6)


def test_every_scene_depends_on_its_own_number_only(scenes: Corpus, tmp_path: Path) -> None:
    fewer = corpus("train", 6, 0, tmp_path, Silent())
    assert np.array_equal(fewer.images, scenes.images[:6])
    assert fewer.captions.tolist() == scenes.captions[:6].tolist()
    for name in LABELS:
        assert np.array_equal(fewer.labels[name], scenes.labels[name][:6])


def test_training_and_held_out_scenes_and_those_of_the_data_set_are_drawn_apart() -> None:
    rng = stream(0, Purpose.SCENE, 0)
    of_the_data_set = render_scene(sample_scene(rng), rng).image
    pictures = [native("train", 0, 0)[1], native("held_out", 0, 0)[1], of_the_data_set]
    assert not any(np.array_equal(pictures[i], pictures[i - 1]) for i in range(3))


def test_labels_name_the_main_object_and_the_place(scenes: Corpus) -> None:
    for i in range(6):
        scene, _ = native("train", i, 0)
        said = {name: options[scenes.labels[name][i]] for name, options in LABELS.items()}
        assert said == {
            "category": scene.main.category, "background": scene.background, "colour": scene.main.colour
        }  # fmt: skip


def test_captions_become_numbers_that_spell_them_out_again(scenes: Corpus) -> None:
    words = Words(scenes.captions)
    back = {number: word for word, number in words.index.items()}
    for row, caption in zip(words.encode(scenes.captions[:, 1]), scenes.captions[:, 1], strict=True):
        assert " ".join(back[n] for n in row.tolist() if n) == caption


def test_half_of_the_contrastive_batches_come_from_two_places(scenes: Corpus) -> None:
    task = Contrast(scenes, NETS["mini_clip"].build())
    rng = np.random.default_rng(0)
    places = [len(set(scenes.labels["background"][task.pick(24, rng)].tolist())) for _ in range(60)]
    assert 15 < sum(n <= 2 for n in places) < 45


@given(st.integers(0, 2**32 - 1))
def test_balanced_assignments_use_every_prototype_equally(seed: int) -> None:
    scores = torch.rand(12, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    shares = balanced(scores, sharpness=0.5, rounds=50)
    torch.testing.assert_close(shares.sum(1), torch.ones(12))
    torch.testing.assert_close(shares.sum(0), torch.full((4,), 3.0), rtol=1e-3, atol=1e-3)
