"""The known truths of docs/sim.md, on ``tiny``; the tolerances are about four standard deviations over seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from nsdbench.sim.decoders import correlate, read_subject, two_way
from nsdbench.sim.truths import encoding, floors, measure, ncsnr_recovery, six_way, task_rows

Simulated = Callable[[str], Path]


def stored(root: Path, kind: str) -> np.ndarray:
    name = {"core": "betas_*_RR/betas_session01.hdf5", "imagery": "nsdimagery*/betas_nsdimagery.hdf5"}[kind]
    path = next((root / "nsddata_betas/ppdata/subj01/func1pt8mm").glob(name))
    with h5py.File(path) as file:
        return file["betas"][:]


def test_two_way_identification_is_one_for_the_truth_and_half_for_a_constant() -> None:
    truth = np.random.default_rng(0).standard_normal((12, 30)).astype(np.float32)
    assert two_way(truth, truth) == 1
    assert two_way(np.zeros_like(truth), truth) == 0.5


def test_correlations_agree_with_numpy() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 4, 9)).astype(np.float32)
    assert np.allclose(correlate(a, b), np.corrcoef(a, b)[:4, 4:], atol=1e-5)


def test_s1_without_signal_seen_images_are_at_chance(simulated: Simulated) -> None:
    scores = measure(simulated("sim:tiny,snr=0"))
    for space in ("pixel", "low", "sem"):
        assert scores[f"seen/{space}"] == pytest.approx(0.5, abs=0.1)  # 60 images of two subjects


def test_s2_decoding_grows_with_the_signal(simulated: Simulated) -> None:
    scores = [measure(simulated(f"sim:tiny,snr={snr}")) for snr in (0, 0.5, 1, 2)]
    for space in ("low", "sem"):
        assert np.all(np.diff([s[f"seen/{space}"] for s in scores]) > 0.01)


def test_s3_imagery_grows_with_its_gain(simulated: Simulated) -> None:
    scores = [measure(simulated(f"sim:tiny,isnr={isnr}")) for isnr in (0, 1, 4)]
    for key in ("imagery/low", "imagery_B/sem"):
        assert np.all(np.diff([s[key] for s in scores]) > 0.02)


def test_s3_the_imagery_gain_leaves_vision_and_core_betas_untouched(tiny: Path, simulated: Simulated) -> None:
    other = simulated("sim:tiny,isnr=4")
    vision, imagery = task_rows("vision", "ABC"), task_rows("imagery", "ABC")
    a, b = stored(tiny, "imagery"), stored(other, "imagery")
    assert np.array_equal(stored(tiny, "core"), stored(other, "core"))
    assert np.array_equal(a[vision], b[vision])
    assert not np.array_equal(a[imagery], b[imagery])


def test_s4_imagery_lies_below_vision(tiny: Path) -> None:
    scores = measure(tiny)
    for key in ("low", "sem"):
        assert scores[f"imagery/{key}"] < scores[f"vision/{key}"]
        assert scores[f"imagery_B/{key}"] < scores[f"vision_B/{key}"]


def test_s5_without_imagery_gain_trials_hold_the_cue_letter_and_nothing_else(simulated: Simulated) -> None:
    root = simulated("sim:tiny,isnr=0")
    signal = np.load(root / "sim_truth/subj01.npz")["imagery_signal"]
    data = read_subject(root, 1)
    rows, letters_only = task_rows("imagery", "ABC"), task_rows("attention", "ABC")[::2]
    for letter in "HWS":
        alike = signal[rows[data.cue[rows] == letter]]
        assert np.all(alike == signal[letters_only[data.cue[letters_only] == letter]][0])


def test_s5_without_imagery_gain_image_decoders_are_at_chance(simulated: Simulated) -> None:
    scores = measure(simulated("sim:tiny,isnr=0"))
    assert scores["imagery/low"] == pytest.approx(0.5, abs=0.16)
    assert scores["imagery/sem"] == pytest.approx(0.5, abs=0.16)


def test_s6_early_and_high_regions_carry_different_content(tiny: Path) -> None:
    v1, high = measure(tiny, "v1"), measure(tiny, "high")
    assert v1["seen/low"] > high["seen/low"]
    assert high["seen/sem"] > v1["seen/sem"] + 0.05


def test_s9_rows_shifted_by_one_lose_the_targets(tiny: Path) -> None:
    right, wrong = measure(tiny), measure(tiny, shift=1)
    assert right["vision/low"] > 0.65
    assert wrong["vision/low"] < 0.57


def test_s10_the_noise_ceiling_estimate_recovers_the_truth(tiny: Path) -> None:
    recovery = ncsnr_recovery(tiny)
    assert recovery["r"] > 0.9
    assert recovery["ratio"] == pytest.approx(1, abs=0.03)


def test_s11_a_linear_encoder_explains_early_voxels_better_than_high_ones(tiny: Path) -> None:
    accuracy = encoding(tiny, 1)
    assert accuracy["early"] > accuracy["high"] > 0.1


def test_s12_a_mean_image_correlates_with_every_image_and_more_than_a_random_one(tiny: Path) -> None:
    scores = floors(tiny)
    assert scores["mean_image"] == pytest.approx(0.25, abs=0.06)
    assert scores["random_image"] == pytest.approx(0.07, abs=0.05)


@pytest.mark.slow
def test_s1_no_signal_gives_chance_on_the_default_dataset(simulated: Simulated) -> None:
    scores = measure(simulated("sim:snr=0"))
    for space in ("pixel", "low", "sem"):
        assert scores[f"seen/{space}"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_s4_imagery_lies_below_vision_for_every_seed(simulated: Simulated, seed: int) -> None:
    scores = measure(simulated(f"sim:seed={seed}"))
    for space in ("pixel", "low", "sem"):
        assert scores[f"imagery/{space}"] < scores[f"vision/{space}"]
    assert scores["imagery_B/sem"] < scores["vision_B/sem"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("region", "kind", "real"),
    [
        *(("all", "vision", 0.332), ("early", "vision", 0.466), ("high", "vision", 0.155)),
        *(("all", "imagery", 0.229), ("early", "imagery", 0.174), ("high", "imagery", 0.208)),
        *(("all", "transfer", 0.245), ("early", "transfer", 0.163), ("high", "transfer", 0.237)),
    ],
)
def test_single_trial_identification_of_set_b_lies_near_the_real_session(
    simulated: Simulated, region: str, kind: str, real: float
) -> None:
    scores = [six_way(simulated(f"sim:seed={seed}"), "B", region)[kind] for seed in range(3)]
    assert np.mean(scores) == pytest.approx(real, abs=0.12)
