"""The judge of oracle reconstructions, and the sheet that shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nsdbench.metrics.profiles import DEFAULT, MINI_SIZE, profile
from nsdbench.metrics.resize import Views
from nsdbench.pretraining.ceilings import Judge, ceilings
from nsdbench.pretraining.corpus import Corpus, corpus, held_out_stimuli
from nsdbench.pretraining.sheet import MARGIN, TILE, contact_sheet
from nsdbench.types import Silent

FIT, TEST = 300, 60


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus("held_out", FIT + TEST, 0, tmp_path_factory.mktemp("scenes"), Silent())


def _rows(whole: Corpus, rows: slice) -> Corpus:
    labels = {name: values[rows] for name, values in whole.labels.items()}
    return replace(whole, images=whole.images[rows], labels=labels, captions=whole.captions[rows])


@pytest.fixture(scope="module")
def judge(scenes: Corpus) -> Judge:
    return Judge.of(_rows(scenes, slice(TEST, None)))


def test_the_judge_reads_true_scenes_and_not_those_of_others(scenes: Corpus, judge: Judge) -> None:
    held_out = _rows(scenes, slice(TEST))
    others = np.roll(held_out.images, 1, axis=0)
    found = ceilings(judge, held_out, {"same": held_out.images, "others": others})
    assert found["same"] == found["scene"]
    assert found["scene"]["category"] > 0.75
    assert found["scene"]["background"] > 0.95
    assert found["scene"]["pixcorr"] == pytest.approx(1)
    assert found["others"]["category"] < 0.4
    assert found["others"]["pixcorr"] < 0.6


def test_held_out_stimuli_are_the_scenes_of_the_corpus(scenes: Corpus, tmp_path: Path) -> None:
    stimuli = held_out_stimuli(3, 0)
    views = Views([stimuli.image(i) for i in stimuli.ids], profile(DEFAULT), truth=True).at(MINI_SIZE)
    images = (views * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, scenes.images[:3])
    assert [stimuli.captions[i] for i in stimuli.ids] == [tuple(row) for row in scenes.captions[:3].tolist()]


def test_a_contact_sheet_has_a_row_per_stage_and_a_column_per_scene() -> None:
    red, blue = (np.zeros((4, 64, 64, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255
    sheet = contact_sheet({"red": red, "blue": blue}, 3)
    assert sheet.size == (MARGIN + 3 * TILE, 2 * TILE)
    assert sheet.getpixel((MARGIN + 2 * TILE + 5, 5)) == (255, 0, 0)
    assert sheet.getpixel((MARGIN + 5, TILE + 5)) == (0, 0, 255)
