"""What the checks say about decoders that copy, retrieve, know a category, or ignore the brain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nsdbench.adapters.base import Context
from nsdbench.errors import DataError, UsageError
from nsdbench.inspection import generator as generators
from nsdbench.inspection import questions
from nsdbench.inspection.evidence import Evidence, Unavailable, load_metric
from nsdbench.inspection.generator import Generator
from nsdbench.schema import RunKey
from nsdbench.types import Reconstructions


class Given(Generator):
    """A generator whose copies are known."""

    def __init__(self, made: Reconstructions | None = None) -> None:
        super().__init__(RunKey("0", "sim", "ridge", "standard", 1, "vision"), Context(), Path())
        object.__setattr__(self, "made", made)

    def copies(self, evidence: Evidence) -> Reconstructions:
        return self.made  # type: ignore[attr-defined, no-any-return]


# a decoder that copies its targets


def test_copies_are_told_apart_within_their_set(world) -> None:
    evidence = world().evidence(world().truth)
    check = questions.within_cluster(evidence)
    assert (check.value, check.low, check.high, check.reference) == (1.0, 1.0, 1.0, 0.5)
    assert check.details["sizes"] == [6, 6] and check.n_targets == 12
    assert "better than chance" in check.verdict


def test_copies_are_more_than_retrieval_and_nearest_of_all(world) -> None:
    evidence = world(30).evidence(world(30).truth)
    baseline, novelty = questions.nn_baseline(evidence), questions.novelty(evidence)
    assert baseline.low > 0 and baseline.details["own"] == 1.0
    assert "more than retrieval" in baseline.verdict
    assert novelty.value == 1.0 and novelty.details["top1"] == 1.0
    assert novelty.details["top1_chance"] == pytest.approx(1 / 61)


def test_copies_vary_as_their_targets_do(world) -> None:
    check = generators.output_rank(world().evidence(world().truth), Given())
    assert check.value == pytest.approx(1.0, rel=1e-6)
    assert check.details["dimensions"] == pytest.approx(check.details["dimensions_of_targets"])
    assert "neither surely more nor fewer" in check.verdict


# a decoder that retrieves


@pytest.mark.parametrize("samples", [1, 4])
def test_a_decoder_that_retrieves_gains_exactly_nothing_over_its_neighbours(world, samples: int) -> None:
    here = world(40)
    picks = np.random.default_rng(5).integers(60, size=(40, samples))
    evidence = here.evidence(here.training[picks])
    baseline, novelty = questions.nn_baseline(evidence), questions.novelty(evidence)
    assert (baseline.value, baseline.low, baseline.high) == (0.0, 0.0, 0.0)
    assert baseline.details["own"] == baseline.details["replaced"]
    assert "exactly 0" in baseline.verdict and baseline.n_samples == samples
    assert novelty.details["top1"] == 0.0 and novelty.low < 0.5 < novelty.high
    assert "Not shown" in novelty.verdict


def test_retrieval_of_the_right_neighbour_is_still_retrieval(world) -> None:
    here = world(40)
    alike = here.truth[:, None].astype(float) - here.training[None]
    nearest = here.training[np.abs(alike).mean(axis=(2, 3, 4)).argmin(axis=1)]
    baseline = questions.nn_baseline(here.evidence(nearest))
    assert baseline.details["own"] > 0.6  # identifies its targets well
    assert (baseline.value, baseline.low, baseline.high) == (0.0, 0.0, 0.0)


# a decoder that knows the set


def of_the_set(here) -> np.ndarray:
    """The same picture for all of A, and another one for all of B."""
    return np.stack([here.truth[:6].mean(axis=0), here.truth[6:].mean(axis=0)])[[0] * 6 + [1] * 6].astype(
        np.uint8
    )


def test_knowing_the_set_alone_gives_nothing_within_it(world) -> None:
    here = world()
    check = questions.within_cluster(here.evidence(of_the_set(here)))
    assert check.value == pytest.approx(0.5)
    assert "interval includes chance" in check.verdict


def test_knowing_the_set_alone_explains_the_gap(world) -> None:
    here = world()
    check = questions.cluster_gap(here.evidence(of_the_set(here)))
    assert check.value > 0.1
    assert check.value == pytest.approx(check.reference)
    assert check.details["excess"] == pytest.approx(0.0)
    between, within = check.details["between"], check.details["within"]
    assert check.details["two_way"] == pytest.approx((6 * between + 5 * within) / 11)


def test_the_floor_of_the_twelve_targets_is_773(world) -> None:
    here = world()
    check = questions.set_oracle(here.evidence(of_the_set(here)))
    assert check.reference == pytest.approx(8.5 / 11)
    assert "Not told apart from a decoder that knows the set (A or B)" in check.verdict
    assert "better than" in questions.set_oracle(here.evidence(here.truth)).verdict


def test_other_targets_are_grouped_by_their_features(world) -> None:
    check = questions.within_cluster(world(100).evidence(world(100).truth))
    assert check.details["groups"] == "cluster" and check.details["k"] == 4
    assert sum(check.details["sizes"]) == 100


# decoders that ignore the brain


def test_one_picture_for_all_is_caught(world) -> None:
    here = world()
    evidence = here.evidence(np.repeat(here.training[:1], 12, axis=0))
    rank = generators.output_rank(evidence, Given())
    assert (rank.value, rank.low, rank.high) == (0.0, None, None)
    assert "nothing in them depends on the target" in rank.verdict
    assert questions.within_cluster(evidence).value == pytest.approx(0.5)
    assert questions.novelty(evidence).details["excess"] == pytest.approx(0.0)


def test_samples_that_differ_at_random_share_nothing(world) -> None:
    here = world(40)
    picks = np.random.default_rng(3).integers(60, size=(40, 6))
    rank = generators.output_rank(here.evidence(here.training[picks]), Given())
    assert abs(rank.details["between_targets"]) < 0.1
    assert "of what varies is common to samples" in rank.verdict


# samples and targets


def test_repeating_a_sample_makes_no_interval_narrower(world) -> None:
    here = world()
    mixed = (here.truth // 2 + np.roll(here.truth, 1, axis=0) // 2).astype(np.uint8)
    once, often = here.evidence(mixed), here.evidence(np.repeat(mixed[:, None], 5, axis=1))
    for question in (
        questions.within_cluster,
        questions.nn_baseline,
        questions.novelty,
        questions.set_oracle,
    ):
        one, five = question(once), question(often)
        assert (one.value, one.low, one.high) == pytest.approx((five.value, five.low, five.high))
        assert (one.n_samples, five.n_samples) == (1, 5)


def test_targets_without_reconstruction_stay_distractors(world) -> None:
    here = world()
    whole = here.evidence(here.truth)
    part = replace(whole, recon=Reconstructions(here.truth[:3, None], here.ids[:3]))
    check = questions.set_oracle(part)
    assert check.n_targets == 3 and check.reference == pytest.approx(8.5 / 11)


def test_what_cannot_be_asked_says_why(world) -> None:
    here = world(1)
    with pytest.raises(Unavailable, match="one ground truth"):
        questions.set_oracle(here.evidence(here.truth))
    with pytest.raises(Unavailable, match="too few"):
        questions.within_cluster(world(3).evidence(world(3).truth))
    with pytest.raises(Unavailable, match="2 targets are too few"):
        generators.output_rank(world(2).evidence(world(2).truth), Given())


# the ceiling


def test_the_ceiling_is_what_copies_score_and_the_share_is_measured_from_chance(world) -> None:
    here = world()
    evidence = here.evidence(of_the_set(here))
    run = questions.two_way_scores(evidence).mean()
    check = generators.recovery_ceiling(evidence, Given(Reconstructions(here.truth[:, None], here.ids)))
    assert (check.value, check.reference) == (pytest.approx(run), 1.0)
    assert check.details["share"] == pytest.approx((run - 0.5) / 0.5)
    assert check.details["ceiling_within"] == 1.0
    assert "lost between brain and features" in check.verdict


def test_copies_without_information_are_no_ceiling(world) -> None:
    here = world()
    flat = Reconstructions(np.repeat(here.training[:1, None], 12, axis=0), here.ids)
    check = generators.recovery_ceiling(here.evidence(here.truth), Given(flat))
    assert check.details["share"] is None and "no ceiling" in check.verdict


def test_targets_that_cannot_be_copied_leave_the_comparison(world) -> None:
    here = world()
    some = Reconstructions(here.truth[6:, None], here.ids[6:])
    check = generators.recovery_ceiling(here.evidence(here.truth), Given(some))
    assert check.n_targets == 6 and check.details["n_left_out"] == 6
    assert "6 targets" in check.verdict


def test_the_run_at_its_ceiling_has_no_loss(world) -> None:
    here = world()
    check = generators.recovery_ceiling(
        here.evidence(here.truth), Given(Reconstructions(here.truth[:, None], here.ids))
    )
    assert check.details["loss"] == 0.0 and "no loss by decoding is shown" in check.verdict


# predicted embeddings


def test_the_span_of_training_embeddings_is_told_or_why_it_is_not(world) -> None:
    here = world()
    plain = generators.output_rank(here.evidence(here.truth), Given())
    assert plain.details["span"] == {"unavailable": "the run has no predicted embeddings"}
    evidence = here.evidence(here.truth)
    small = replace(evidence.recon, embeddings={"tokens": np.ones((12, 9), np.float32)})
    check = generators.output_rank(replace(evidence, recon=small), Given())
    assert "more training images than dimensions" in check.details["span"]["unavailable"]


class Stub:
    """An adapter that embeds images as 96 values and copies images that have a caption."""

    name, preset, version = "stub", "mini", 1

    def __init__(self) -> None:
        self.copied: list[tuple[str, ...]] = []

    def verifiable(self) -> bool:
        return True

    def embed(self, stimuli, ids, *, progress=None):
        return {"coarse": np.stack([embedded(stimuli.image(name)) for name in ids])}

    def copies(self, stimuli, ids, *, seed=0, progress=None):
        missing = [name for name in ids if name not in stimuli.captions]
        if missing:
            raise DataError(f"stimulus {missing[0]} has no caption")
        self.copied.append(tuple(ids))
        return Reconstructions(np.stack([stimuli.image(name)[None] for name in ids]), tuple(ids))


class Stubbed(Generator):
    """A generator with that adapter."""

    def __init__(self, cache: Path) -> None:
        super().__init__(RunKey("0", "sim", "stub", "mini", 1, "vision"), Context(), cache)
        object.__setattr__(self, "stub", Stub())

    def adapter(self):
        return self.stub, {}  # type: ignore[attr-defined]


def embedded(image: np.ndarray) -> np.ndarray:
    coarse = image[::8, ::8].reshape(-1).astype(np.float32) / 255
    return np.concatenate([coarse, coarse**2])


def test_predictions_in_the_span_of_training_embeddings_are_recognized(world, tmp_path: Path) -> None:
    here = world()
    training = np.stack([embedded(image) for image in here.training])
    weights = np.random.default_rng(0).standard_normal((12, 60)) / 60
    mean = training.mean(axis=0)  # what a linear decoder with an intercept can predict
    predicted = {"coarse": (mean + weights @ (training - mean)).astype(np.float32)}
    true = {"coarse": np.stack([embedded(image) for image in here.truth])}
    plain = here.evidence(here.truth)
    recon = replace(plain.recon, embeddings=predicted, gallery=true, gallery_ids=here.ids)
    span = generators.output_rank(replace(plain, recon=recon), Stubbed(tmp_path)).details["span"]
    assert span["decoded"] == pytest.approx(1.0, abs=1e-4)
    assert span["targets"] < 0.95
    assert (span["space"], span["dimensions"], span["n_train"]) == ("coarse", 96, 60)


def test_copies_leave_out_targets_without_caption_and_are_made_once(world, tmp_path: Path) -> None:
    here = world()
    evidence = here.evidence(here.truth)
    told = replace(
        evidence, stimuli=replace(evidence.stimuli, captions=dict.fromkeys(here.ids[6:11], ("a",)))
    )
    generator = Stubbed(tmp_path)
    for _ in range(2):
        check = generators.recovery_ceiling(told, generator)
        assert (check.n_targets, check.details["n_left_out"]) == (5, 7)
    assert generator.stub.copied == [here.ids[6:11]]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="A1 has no caption"):
        generator.copies(evidence)


def test_a_single_picture_that_differs_gives_no_interval(world) -> None:
    here = world()
    made = np.repeat(here.training[:1], 12, axis=0)
    made[3] = here.training[1]
    check = generators.output_rank(here.evidence(made), Given())
    assert check.details["dimensions"] == pytest.approx(1.0, abs=1e-3)
    assert (check.low, check.high, check.outcome) == (None, None, "open")
    assert "a single target decides" in check.verdict


def test_a_metric_without_network_cannot_be_looked_through() -> None:
    for name in ("ssim", "pixel_2way", "effnet"):
        with pytest.raises(UsageError, match="does not name the features of a network"):
            load_metric(name)
