"""Scoring joins by id, scores every image once and says what is undefined, missing or skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.errors import DataError, ReconstructionError, UsageError, WeightsError
from nsdbench.measurement import mismatches
from nsdbench.metrics.gabor import gabor_energy
from nsdbench.metrics.identification import two_way
from nsdbench.metrics.profiles import PROFILES
from nsdbench.metrics.resize import Views
from nsdbench.schema import ITEMS, ITEMS_UNIQUE, RunKey
from nsdbench.scoring import Scored, ScoreSettings, pools, score
from nsdbench.types import Reconstructions, Stimuli

AB = tuple(f"{s}{i}" for s in "AB" for i in range(1, 7))
C = tuple(f"C{i}" for i in range(1, 7))
CHEAP = ("gabor_2way",)
FREE = ("pixcorr", "ssim", "pixel_2way", "gabor_2way")
KEY = RunKey("run", "sim", "model", "mini", 1, "vision")
NODES = {
    "alexnet": ("features.1", "features.4", "features.7", "features.9", "features.11"),
    "inception": ("avgpool",),
    "clip": ("image_embeds",),
    "effnet": ("avgpool",),
    "swav": ("avgpool",),
}


@dataclass
class TinyNet:
    """A random linear network that counts the images it has seen."""

    name: str
    weights_id: str = "tiny"
    weights_sha256: str = "0" * 64
    preprocessing_version: int = 1
    untrained: bool = True
    seen: Counter[int] = field(default_factory=Counter)

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen[images.shape[-1]] += len(images)
        generator = torch.Generator().manual_seed(len(self.name))
        small = torch.nn.functional.adaptive_avg_pool2d(images, 6)
        found = {}
        for node, channels in zip(NODES[self.name], (64, 192, 384, 256, 256), strict=False):
            weight = torch.randn(channels, 3, 1, 1, generator=generator)
            found[node] = torch.nn.functional.conv2d(small, weight).relu()
        return found


def tiny_nets() -> dict[str, TinyNet]:
    return {name: TinyNet(name) for name in NODES}


def photo(seed: int, side: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0].clamp(0, 1)
    return (255 * fine.permute(1, 2, 0).numpy()).round().astype(np.uint8)


def stimuli_of(images: Mapping[str, np.ndarray], without: tuple[str, ...] = ()) -> Stimuli:
    ids = tuple(sorted((*images, *without)))
    name = f"{ids} {sum(int(image.sum()) for image in images.values())}"
    return Stimuli(ids, tuple(i[0] for i in ids), frozenset(images), images.__getitem__, name)


@pytest.fixture(scope="module")
def stimuli() -> Stimuli:
    return stimuli_of({stimulus: photo(i) for i, stimulus in enumerate(AB)}, without=C)


def noisy(stimuli: Stimuli, targets: tuple[str, ...] = AB, n_samples: int = 2) -> Reconstructions:
    rng = np.random.default_rng(5)
    images = np.stack([stimuli.image(t) if t in stimuli.has_image else photo(99) for t in targets])
    noise = rng.integers(0, 128, (len(targets), n_samples, *images.shape[1:]))
    return Reconstructions((images[:, None] // 2 + noise).astype(np.uint8), targets)


Scorer = Callable[..., Scored]


@pytest.fixture
def run(tmp_path: Path) -> Scorer:
    def scorer(recon: Reconstructions, stimuli: Stimuli, *metrics: str, **options: object) -> Scored:
        nets = options.pop("nets", None)
        chosen = ScoreSettings(metrics=metrics or CHEAP, cache=tmp_path)
        return score(recon, stimuli, KEY, settings=replace(chosen, **options), nets=nets or tiny_nets())  # type: ignore[arg-type]

    return scorer


def column(scored: Scored, metric: str, pool: str, name: str = "value") -> list[float | None]:
    """Return one column of the item table in the order of stimulus and sample."""
    return [r[name] for r in scored.items.to_pylist() if r["metric"] == metric and r["pool"] == pool]


def test_every_metric_pool_and_image_has_one_sorted_row(run: Scorer, stimuli: Stimuli) -> None:
    items = run(noisy(stimuli), stimuli, *FREE).items
    keys = [tuple(row[name] for name in ITEMS_UNIQUE) for row in items.to_pylist()]
    assert items.schema.equals(ITEMS, check_metadata=True)
    assert keys == sorted(set(keys))
    assert len(items) == 24 * (2 + 2 * 2)


def test_identification_is_reported_among_twelve_and_within_each_set(run: Scorer, stimuli: Stimuli) -> None:
    scored = run(noisy(stimuli), stimuli)
    r = scored.similarity["gabor_2way"]
    flat, target = r.reshape(12, 24), np.repeat(np.arange(12), 2)
    assert column(scored, "gabor_2way", "AB12") == two_way(flat, target).tolist()
    within = [*two_way(flat[:6, :12], target[:12]), *two_way(flat[6:, 12:], target[12:] - 6)]
    assert column(scored, "gabor_2way", "within6") == within


def test_other_ground_truths_form_one_pool_named_by_its_size() -> None:
    assert list(pools(("img00001", "img00007"))) == ["all2"]
    assert list(pools(AB)) == ["AB12", "within6"]
    assert [rows.tolist() for rows in pools(AB)["within6"]] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_similarity_is_the_correlation_of_pixels(run: Scorer, stimuli: Stimuli) -> None:
    recon = noisy(stimuli)
    scored = run(recon, stimuli, "pixcorr")
    profile = PROFILES["nsdbench-v1"]
    truth = Views([stimuli.image("B2")], profile, truth=True).pixels().numpy().ravel()
    image = Views([recon.images[3, 1]], profile, truth=False).pixels().numpy().ravel()
    assert scored.similarity["pixcorr"].shape == (12, 12, 2)
    expected = np.corrcoef(truth.astype(np.float64), image.astype(np.float64))[0, 1]
    assert scored.similarity["pixcorr"][scored.pool_ids.index("B2"), 3, 1] == pytest.approx(
        expected, abs=1e-9
    )


def test_identical_images_score_the_best_possible_values(run: Scorer, stimuli: Stimuli) -> None:
    images = np.stack([stimuli.image(t) for t in AB])[:, None]
    best = {
        "pixcorr": 1,
        "ssim": 1,
        "pixel_2way": 1,
        "clip": 1,
        "effnet": 0,
        "rmse": 0,
        "psnr": 100,
        "lpips": 0,
    }
    scored = run(Reconstructions(images, AB), stimuli, *best)
    for row in scored.items.to_pylist():
        assert row["value"] == pytest.approx(best[row["metric"]], abs=1e-6)


def test_order_of_targets_is_irrelevant(run: Scorer, stimuli: Stimuli) -> None:
    recon = noisy(stimuli)
    order = np.random.default_rng(0).permutation(12)
    shuffled = Reconstructions(recon.images[order], tuple(AB[i] for i in order))
    assert run(shuffled, stimuli, "gabor_2way", "rmse").items.equals(
        run(recon, stimuli, "gabor_2way", "rmse").items
    )


def test_batch_size_is_irrelevant(run: Scorer, stimuli: Stimuli, tmp_path: Path) -> None:
    metrics = ("pixcorr", "ssim", "gabor_2way", "alexnet2", "swav", "lpips")
    one = run(noisy(stimuli), stimuli, *metrics, batch_size=1, cache=tmp_path / "one")
    many = run(noisy(stimuli), stimuli, *metrics, batch_size=7, cache=tmp_path / "many")
    assert one.items.drop_columns(["value", "floor"]).equals(many.items.drop_columns(["value", "floor"]))
    for name in ("value", "floor"):
        assert np.allclose(one.items[name].to_numpy(), many.items[name].to_numpy(), atol=1e-6)


def test_set_c_is_never_image_scored_and_is_named(run: Scorer, stimuli: Stimuli) -> None:
    scored = run(noisy(stimuli, AB + C), stimuli)
    assert scored.targets == AB
    assert set(scored.items["stimulus_set"].to_pylist()) == {"A", "B"}
    assert any("no fixed image: C1, C2, C3, C4, C5, C6" in note for note in scored.notes)


def test_missing_reconstructions_are_counted_and_stay_distractors(run: Scorer, stimuli: Stimuli) -> None:
    scored = run(noisy(stimuli, AB[:10]), stimuli)
    assert scored.pool_ids == AB
    assert any("2 of 12 ground truths have no reconstruction: B5, B6" in note for note in scored.notes)
    full = run(noisy(stimuli), stimuli)
    assert len(column(scored, "gabor_2way", "AB12")) == 20
    assert len(column(full, "gabor_2way", "AB12")) == 24


def test_unknown_targets_are_skipped_and_named(run: Scorer, stimuli: Stimuli) -> None:
    scored = run(noisy(stimuli, (*AB, "X1")), stimuli)
    assert any("not among the ground truths: X1" in note for note in scored.notes)


def test_nothing_in_common_is_an_error_that_shows_both_sides(run: Scorer, stimuli: Stimuli) -> None:
    with pytest.raises(ReconstructionError, match=r"X1.*A1, A2"):
        run(noisy(stimuli, ("X1",)), stimuli)


def test_a_difference_in_size_is_said(run: Scorer, stimuli: Stimuli) -> None:
    recon = Reconstructions(noisy(stimuli).images[:, :, :32, :32], AB)
    assert any("48 pixels" in note and "32" in note for note in run(recon, stimuli).notes)


def test_a_constant_reconstruction_is_defined_counted_and_explained(run: Scorer, stimuli: Stimuli) -> None:
    recon = noisy(stimuli)
    recon.images[0, 1] = 120
    scored = run(recon, stimuli, "pixcorr", "pixel_2way", "gabor_2way", "ssim")
    rows = [row for row in scored.items.to_pylist() if (row["stimulus"], row["sample"]) == ("A1", 1)]
    values = {(row["metric"], row["pool"]): row["value"] for row in rows if row["reason"]}
    identification = {(f"{m}_2way", pool): 0.5 for m in ("pixel", "gabor") for pool in ("AB12", "within6")}
    assert values == {("pixcorr", "none"): 0.0, **identification}
    assert sum(row["reason"] is not None for row in scored.items.to_pylist()) == len(values)
    assert any(note.startswith("pixcorr, pool none, 1 of 24 items: constant image") for note in scored.notes)
    assert not np.isnan(scored.similarity["pixcorr"]).any()


def test_constant_network_features_have_distance_one(run: Scorer, stimuli: Stimuli) -> None:
    recon = noisy(stimuli)
    recon.images[0, 0] = 0  # the tiny network has no bias, so black gives all zeros
    scored = run(recon, stimuli, "effnet")
    assert column(scored, "effnet", "none")[0] == 1.0
    assert column(scored, "effnet", "none", "reason")[0] == "constant features: distance defined as 1"


def test_a_single_ground_truth_has_no_identification_score(run: Scorer) -> None:
    alone = stimuli_of({"A1": photo(0)})
    scored = run(noisy(alone, ("A1",)), alone, "gabor_2way", "ssim")
    assert column(scored, "gabor_2way", "all1") == [None, None]
    assert column(scored, "gabor_2way", "all1", "reason") == ["the pool has no distractor"] * 2
    assert column(scored, "ssim", "none", "floor") == [None, None]


def test_floors_are_mismatched_means(run: Scorer, stimuli: Stimuli) -> None:
    scored = run(noisy(stimuli), stimuli, "pixcorr", "effnet", "clip")
    for metric, sign in (("pixcorr", 1), ("effnet", -1)):
        r = scored.similarity[metric]
        wrong = [np.delete(r[:, t, s], t).mean() for t in range(12) for s in range(2)]
        floors = np.array(wrong) if sign == 1 else 1 - np.array(wrong)
        assert column(scored, metric, "none", "floor") == pytest.approx(floors.tolist())
    assert set(column(scored, "clip", "AB12", "floor")) == {0.5}


def test_pair_metrics_take_their_floor_from_three_shifted_targets(run: Scorer, stimuli: Stimuli) -> None:
    recon = noisy(stimuli)
    assert mismatches(12) == (3, 6, 9)
    scored = run(recon, stimuli, "rmse")
    shifted = [
        column(
            run(Reconstructions(recon.images, tuple(np.roll(AB, -shift))), stimuli, "rmse"), "rmse", "none"
        )
        for shift in (3, 6, 9)
    ]
    # rolling the labels by the shift scores image i against truth i + shift; rows are sorted by truth
    back = [
        np.roll(np.reshape(values, (12, 2)), -shift, axis=0)
        for values, shift in zip(shifted, (3, 6, 9), strict=True)
    ]
    assert column(scored, "rmse", "none", "floor") == pytest.approx(np.mean(back, axis=0).ravel().tolist())


@given(st.integers(1, 2000))
def test_shifts_never_pair_a_target_with_itself(n: int) -> None:
    shifts = mismatches(n)
    assert len(shifts) == min(3, n - 1)
    assert all(0 < shift < n for shift in shifts)


def test_imagery_as_run_is_lower_by_exactly_one_eleventh(run: Scorer, stimuli: Stimuli) -> None:
    recon = noisy(stimuli)
    fixed = run(recon, stimuli, "clip", profile="imagery-fixed")
    as_run = run(recon, stimuli, "clip", profile="imagery-asrun")
    difference = np.subtract(column(fixed, "clip", "AB12"), column(as_run, "clip", "AB12"))
    assert np.abs(difference - 1 / 11).max() < 1e-15
    assert set(column(as_run, "clip", "AB12", "floor")) == {0.5 - 1 / 11}


def test_profile_is_written_into_every_row(run: Scorer, stimuli: Stimuli) -> None:
    scored = run(noisy(stimuli), stimuli, "pixcorr", profile="mindeye")
    assert set(scored.items["metric_profile"].to_pylist()) == {"mindeye"}
    assert any("unrounded" in note for note in scored.notes)


def test_networks_see_every_image_once_whatever_the_number_of_metrics(run: Scorer, stimuli: Stimuli) -> None:
    nets = tiny_nets()
    run(noisy(stimuli), stimuli, "alexnet2", "alexnet5", "lpips", "inception", "effnet", nets=nets)
    seen = {name: dict(net.seen) for name, net in nets.items() if net.seen}
    assert seen == {"alexnet": {256: 36}, "inception": {342: 36}, "effnet": {255: 36}}


def test_ground_truth_features_are_computed_once_and_then_read(run: Scorer, stimuli: Stimuli) -> None:
    first = run(noisy(stimuli), stimuli, "alexnet2", "swav")
    nets = tiny_nets()
    again = run(noisy(stimuli), stimuli, "alexnet2", "swav", nets=nets)
    assert nets["alexnet"].seen == {256: 24}
    assert again.items.equals(first.items)


@pytest.mark.parametrize("change", ["weights_sha256", "preprocessing_version", "stimuli", "profile"])
def test_cached_features_are_used_only_for_the_same_content(
    run: Scorer, stimuli: Stimuli, change: str
) -> None:
    run(noisy(stimuli), stimuli, "swav")
    nets, options = tiny_nets(), {}
    if change == "stimuli":
        stimuli = replace(stimuli, content_hash="other")
    elif change == "profile":
        options["profile"] = "mindeye"
    else:
        setattr(nets["swav"], change, "1" * 64 if change == "weights_sha256" else 2)
    run(noisy(stimuli), stimuli, "swav", nets=nets, **options)
    assert nets["swav"].seen == {224: 36}


def test_a_truncated_cache_file_is_named(run: Scorer, stimuli: Stimuli, tmp_path: Path) -> None:
    run(noisy(stimuli), stimuli, "swav")
    (file,) = (tmp_path / "features").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=file.name):
        run(noisy(stimuli), stimuli, "swav")


def test_an_interrupted_computation_leaves_no_cache_file(
    run: Scorer, stimuli: Stimuli, tmp_path: Path
) -> None:
    class Failing(TinyNet):
        def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            if self.seen:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        run(noisy(stimuli), stimuli, "swav", nets={"swav": Failing("swav")})
    assert not list((tmp_path / "features").iterdir())


def test_weights_and_untrained_networks_are_reported(run: Scorer, stimuli: Stimuli) -> None:
    trained = {name: replace(net, untrained=False) for name, net in tiny_nets().items()}
    assert not run(noisy(stimuli), stimuli).untrained
    assert run(noisy(stimuli), stimuli).weights_ids == ()
    assert run(noisy(stimuli), stimuli, "clip").untrained
    assert not run(noisy(stimuli), stimuli, "clip", nets=trained).untrained
    assert run(noisy(stimuli), stimuli, "clip").weights_ids == ("tiny",)


def test_a_ground_truth_that_is_not_square_is_refused_by_name(run: Scorer) -> None:
    wide = stimuli_of({"A1": photo(0)[:30], "A2": photo(1)})
    with pytest.raises(DataError, match="A1 is uint8"):
        run(noisy(stimuli_of({"A2": photo(1)}), ("A2",)), wide)


def test_unknown_and_absent_metrics_are_misuse(run: Scorer, stimuli: Stimuli) -> None:
    with pytest.raises(UsageError, match="pixcor"):
        run(noisy(stimuli), stimuli, "pixcor")
    with pytest.raises(UsageError, match="no metric"):
        score(noisy(stimuli), stimuli, KEY, settings=ScoreSettings(metrics=()))


def test_stage_one_of_a_profile_is_that_of_each_side(run: Scorer, stimuli: Stimuli) -> None:
    rules = PROFILES["imagery-fixed"]  # reconstructions go to 512 pixels first, ground truths do not
    recon = noisy(stimuli, n_samples=1)
    scored = run(recon, stimuli, "gabor_2way", profile="imagery-fixed")
    truth = gabor_energy(Views([stimuli.image("A3")], rules, truth=True))["energy"].ravel()
    image = gabor_energy(Views([recon.images[0, 0]], rules, truth=False))["energy"].ravel()
    expected = np.corrcoef(truth.double(), image.double())[0, 1]
    assert scored.similarity["gabor_2way"][2, 0, 0] == pytest.approx(expected, abs=1e-9)


def test_random_weights_of_the_real_networks_are_labelled_untrained(stimuli: Stimuli, tmp_path: Path) -> None:
    chosen = ScoreSettings(metrics=("alexnet2", "lpips"), weights="random", cache=tmp_path)
    scored = score(noisy(stimuli, n_samples=1), stimuli, KEY, settings=chosen)
    assert scored.untrained
    assert scored.weights_ids == ("random-alexnet",)
    assert len(column(scored, "lpips", "none")) == 12


def test_a_network_that_overflows_is_a_weights_error(run: Scorer, stimuli: Stimuli) -> None:
    class Overflowing(TinyNet):
        def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {node: values / 0 for node, values in super().__call__(images).items()}

    with pytest.raises(WeightsError, match="swav gives values at avgpool that are not finite"):
        run(noisy(stimuli), stimuli, "swav", nets={"swav": Overflowing("swav")})


def test_missing_weights_stop_before_any_number(stimuli: Stimuli, tmp_path: Path) -> None:
    chosen = ScoreSettings(metrics=("alexnet2",), weights_dir=tmp_path / "weights", cache=tmp_path)
    with pytest.raises(WeightsError, match="alexnet"):
        score(noisy(stimuli), stimuli, KEY, settings=chosen)
