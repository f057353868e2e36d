"""Caption metrics: hand-counted words, one reference per image, honest gaps, chance from wrong images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.errors import WeightsError
from nsdbench.metrics.captions import rouge1, rouge_l, words
from nsdbench.metrics.registry import METRICS
from nsdbench.schema import RunKey
from nsdbench.scoring import Scored, ScoreSettings, score
from nsdbench.types import Reconstructions, Stimuli

KEY = RunKey("run", "sim", "model", "mini", 1, "vision")
IDS = ("img1", "img2", "img3", "img4")
HUMAN = {
    "img1": ("a red bird", "another bird"),
    "img2": ("a blue boat by the sea",),
    "img3": ("the green house",),
    "img4": ("two dogs run",),
}
SENTENCES = st.lists(st.sampled_from(["a", "red", "bird", "by", "the", "sea"]), max_size=8)


def stimuli_of(captions: dict[str, tuple[str, ...]] = HUMAN) -> Stimuli:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return Stimuli(IDS, ("core",) * 4, frozenset(IDS), lambda _: image, "hash", captions)


def recon_of(*captions: tuple[str, ...], **more: Any) -> Reconstructions:
    n_samples = len(captions[0]) if captions else 1
    return Reconstructions(np.zeros((4, n_samples, 4, 4, 3), np.uint8), IDS, captions=captions, **more)


def run(recon: Reconstructions, *metrics: str, stimuli: Stimuli | None = None, **options: Any) -> Scored:
    return score(recon, stimuli or stimuli_of(), KEY, settings=ScoreSettings(metrics=metrics, **options))


def column(scored: Scored, metric: str, name: str = "value") -> list[Any]:
    return [row[name] for row in scored.items.to_pylist() if row["metric"] == metric]


@pytest.mark.parametrize(
    ("reference", "caption", "one", "longest"),
    [
        ("a red bird", "a red bird", 1, 1),
        ("a red bird", "bird red a", 1, 1 / 3),  # the same words, only one of them in order
        ("the cat sat on the mat", "the cat on the mat", 10 / 11, 10 / 11),
        ("a a a b", "a a", 2 / 3, 2 / 3),  # words count as often as both have them
        ("a b c d", "a x c y d z", 6 / 10, 6 / 10),  # gaps do not matter
        ("a b", "c d", 0, 0),
        ("a b", "", 0, 0),
        ("", "", 0, 0),
    ],
)
def test_rouge_by_hand(reference: str, caption: str, one: float, longest: float) -> None:
    assert rouge1(words(reference), words(caption)) == pytest.approx(one)
    assert rouge_l(words(reference), words(caption)) == pytest.approx(longest)


def test_words_are_lower_case_runs_of_ascii_letters_and_digits_and_are_not_stemmed() -> None:
    assert words("A bird's\tnest; 2 EGGS, café—x_y") == [
        "a",
        "bird",
        "s",
        "nest",
        "2",
        "eggs",
        "caf",
        "x",
        "y",
    ]
    assert rouge1(words("dogs"), words("dog")) == 0


@given(SENTENCES, SENTENCES)
def test_rouge_is_symmetric_between_nothing_and_all_and_order_only_costs(a: list[str], b: list[str]) -> None:
    for measure in (rouge1, rouge_l):
        assert measure(a, b) == measure(b, a)
        assert 0 <= measure(a, b) <= 1
    assert rouge_l(a, b) <= rouge1(a, b)
    assert rouge1(a, b[::-1]) == rouge1(a, b)


def _common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence by its definition."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + _common(a[1:], b[1:])
    return max(_common(a[1:], b), _common(a, b[1:]))


@given(SENTENCES, SENTENCES)
def test_rouge_l_is_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    common = _common(a, b)
    assert rouge_l(a, b) == pytest.approx(2 * common / (len(a) + len(b)) if common else 0)


def test_every_sample_is_scored_against_the_first_human_caption() -> None:
    recon = recon_of(
        ("a red bird", "another bird"), ("boat", "x"), ("the green house", ""), ("dogs", "run two")
    )
    scored = run(recon, "caption_rouge1", "caption_rougeL")
    assert column(scored, "caption_rouge1") == pytest.approx([1, 2 / 5, 2 / 7, 0, 1, 0, 1 / 2, 4 / 5])
    assert column(scored, "caption_rougeL") == pytest.approx([1, 2 / 5, 2 / 7, 0, 1, 0, 1 / 2, 2 / 5])
    assert column(scored, "caption_rouge1", "sample") == [0, 1] * 4
    assert set(column(scored, "caption_rouge1", "pool")) == {"none"}


def test_the_floor_is_the_score_against_other_images() -> None:
    same = tuple((HUMAN[id][0],) for id in IDS)
    floors = column(run(recon_of(*same), "caption_rouge1"), "caption_rouge1", "floor")
    others = [[HUMAN[j][0] for j in IDS if j != i] for i in IDS]
    expected = [
        np.mean([rouge1(words(o), words(own)) for o in wrong])
        for (own,), wrong in zip(same, others, strict=True)
    ]
    assert floors == pytest.approx(expected)  # of four images, all three wrong ones


def test_an_image_without_a_human_caption_has_a_null_that_says_so() -> None:
    known = {id: texts for id, texts in HUMAN.items() if id != "img3"}
    scored = run(recon_of(("a",), ("a",), ("a",), ("a",)), "caption_rouge1", stimuli=stimuli_of(known))
    assert column(scored, "caption_rouge1") == [0.5, pytest.approx(2 / 7), None, 0]
    assert column(scored, "caption_rouge1", "reason") == [None, None, "the ground truth has no caption", None]


def test_a_decoder_without_captions_has_nulls_only_where_they_were_asked_for() -> None:
    asked = run(recon_of(), "caption_rouge1")
    assert set(column(asked, "caption_rouge1", "reason")) == {"the decoder gives no caption"}
    default = run(recon_of(), "pixel_2way", where_possible=("caption_rouge1",))
    assert set(default.items["metric"].to_pylist()) == {"pixel_2way"}


def test_without_any_reference_nothing_is_scored_unasked() -> None:
    recon = recon_of(("a",), ("a",), ("a",), ("a",))
    default = run(recon, "pixel_2way", stimuli=stimuli_of({}), where_possible=("caption_rouge1",))
    assert set(default.items["metric"].to_pylist()) == {"pixel_2way"}
    asked = run(recon, "caption_rouge1", stimuli=stimuli_of({}))
    assert set(column(asked, "caption_rouge1", "reason")) == {"there are no captions of the ground truths"}


def test_machine_captions_of_the_ground_truths_are_references_of_their_own() -> None:
    recon = recon_of(
        *((text,) for text in ("a bird", "a boat", "a house", "a dog")),
        gallery_ids=("img2", "img1", "img4", "img3"),
        gallery_captions=("a boat", "a plane", "a dog", "the house"),
    )
    scored = run(recon, "caption_rouge1_git")
    assert column(scored, "caption_rouge1_git") == [0.5, 1, 0.5, 1]


def test_the_order_of_targets_does_not_matter() -> None:
    captions = (("a red bird",), ("a boat",), ("house",), ("dogs run",))
    order = [2, 0, 3, 1]
    mixed = replace(recon_of(*(captions[i] for i in order)), targets=tuple(IDS[i] for i in order))
    assert run(mixed, "caption_rougeL").items.equals(run(recon_of(*captions), "caption_rougeL").items)


def test_missing_weights_of_a_caption_metric_are_named_before_anything_is_scored(tmp_path: Any) -> None:
    for name in ("caption_meteor", "caption_sentence", "caption_clip_b", "caption_clip_l"):
        with pytest.raises(WeightsError, match="missing in"):
            run(recon_of(("a",), ("a",), ("a",), ("a",)), name, weights_dir=tmp_path)


def test_the_published_scores_have_a_form_for_each_reference() -> None:
    human = {name for name, entry in METRICS.items() if "human captions" in entry.needs}
    assert {f"{name}_git" for name in human} == {
        n for n, e in METRICS.items() if "machine captions" in e.needs
    }
    assert {name for name in human if not METRICS[name].weights} == {"caption_rouge1", "caption_rougeL"}
