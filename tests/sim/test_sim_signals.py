from __future__ import annotations

import numpy as np
import pytest

from nsdbench.sim.anatomy import HIGH, REGIONS, build_anatomy
from nsdbench.sim.encoding import Encoder, draw_voxels, fields, imagining, per_voxel
from nsdbench.sim.imagery import remembered_codes
from nsdbench.sim.noise import NCSNR_GAMMA, autoregress, draw_ncsnr, trial_noise
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.sim.stimuli import ImageKey, codes, render_block
from nsdbench.sim.subject import estimate_ncsnr

REGION = build_anatomy(1, 24).region


@pytest.mark.parametrize(("subject", "count"), [(1, 1966), (2, 1785), (5, 1630), (7, 1585)])
def test_nsdgeneral_has_an_eighth_of_the_real_voxels(subject: int, count: int) -> None:
    assert build_anatomy(subject, 8).n_voxels == count


def test_grids_have_no_equal_sides_and_differ_between_subjects() -> None:
    grids = [build_anatomy(s, 8).grid for s in (1, 2, 5, 7)]
    assert len(set(grids)) == 4
    assert all(len(set(grid)) == 3 for grid in grids)


def test_volumes_have_every_kind_of_voxel_that_a_careless_mask_would_catch() -> None:
    anatomy = build_anatomy(1, 8)
    outside = (anatomy.brain == 1) & (anatomy.nsdgeneral != 1)
    assert set(np.unique(anatomy.nsdgeneral)) == {-1, 0, 1}
    assert (anatomy.nsdgeneral == -1).mean() > 0.3
    assert outside.sum() > 0.1 * anatomy.n_voxels
    assert ((anatomy.prf > 0) & (anatomy.nsdgeneral != 1)).any()


def test_region_labels_of_voxels_follow_the_c_order_of_the_mask() -> None:
    anatomy = build_anatomy(1, 8)
    labels = anatomy.prf[anatomy.nsdgeneral == 1]
    assert np.array_equal(labels, np.where(anatomy.region < 7, anatomy.region + 1, 0))


@pytest.fixture(scope="module")
def encoder_and_signal() -> tuple[Encoder, np.ndarray, list]:
    keys = [ImageKey(1, i) for i in range(80)]
    features, unexplained = render_block(0, keys).features, codes(0, keys)
    encoder = Encoder(draw_voxels(REGION, stream(0, Purpose.VOXELS, 1)), features, unexplained)
    return encoder, encoder.seen(features, unexplained), [features, unexplained]


def test_signals_have_mean_zero_and_unit_variance_on_average(encoder_and_signal) -> None:
    _, signal, _ = encoder_and_signal
    assert np.abs(signal.mean(axis=0)).max() < 1e-3
    assert signal.var(axis=0).mean() == pytest.approx(1, abs=0.05)


def test_receptive_fields_are_averages() -> None:
    gauss = fields(draw_voxels(REGION, stream(0, Purpose.VOXELS, 1)), 16)
    assert np.allclose(gauss.sum(axis=0), 1, atol=1e-5)


def test_dorsal_and_ventral_early_fields_lie_in_opposite_halves() -> None:
    voxels = draw_voxels(REGION, stream(0, Purpose.VOXELS, 1))
    names = np.array(REGIONS)[REGION]
    assert np.all(voxels.y[np.char.endswith(names, "d")] >= 0)
    assert np.all(voxels.y[np.char.endswith(names, "v")] <= 0)


def test_imagery_resembles_vision_more_in_high_than_in_early_regions(encoder_and_signal) -> None:
    encoder, seen, (features, unexplained) = encoder_and_signal
    imagined = encoder.imagined(features, unexplained)
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(seen.T, imagined.T, strict=True)])
    high = np.isin(REGION, [REGIONS.index(name) for name in HIGH])
    assert np.allclose(r[high], 1, atol=1e-4)
    assert r[~high].mean() < 0.9


def test_imagined_fields_of_v1_are_twice_as_large_more_foveal_and_blind_to_fine_detail() -> None:
    seen = draw_voxels(REGION, stream(0, Purpose.VOXELS, 1))
    imagined, v1 = imagining(seen), np.char.startswith(np.array(REGIONS)[REGION], "V1")
    assert np.allclose(imagined.sigma[v1], 2 * seen.sigma[v1])
    for axis in ("x", "y"):
        assert np.allclose(getattr(imagined, axis)[v1], 0.6 * getattr(seen, axis)[v1])
    for band, gain in enumerate((1, 0.7, 0.3, 0.1)):
        channels = slice(6 * band, 6 * band + 6)
        assert np.allclose(imagined.low[v1, channels], gain * seen.low[v1, channels])
    assert np.array_equal(imagined.low[:, 24:], seen.low[:, 24:])


def test_what_imagery_keeps_of_the_unexplained_part_correlates_half_with_what_was_seen() -> None:
    seen = codes(0, [ImageKey(1, i) for i in range(50)])
    kept = remembered_codes(0, seen)
    assert kept.var() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(seen.ravel(), kept.ravel())[0, 1] == pytest.approx(0.5, abs=0.03)


def test_noise_has_unit_variance_and_the_documented_autocorrelation() -> None:
    noise = autoregress(np.random.default_rng(0).standard_normal((4000, 50)).astype(np.float32), (4000,))
    assert noise.var() == pytest.approx(1, abs=0.02)
    assert np.mean(noise[1:] * noise[:-1]) == pytest.approx(0.3, abs=0.02)


def test_noise_starts_afresh_with_every_run() -> None:
    white = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    noise = autoregress(white, (12, 8))
    assert np.array_equal(noise[12], white[12])
    assert not np.array_equal(noise[13], white[13])


def test_trial_noise_has_unit_variance_and_is_shared_between_voxels_with_signal() -> None:
    rng = np.random.default_rng(0)
    signal = np.repeat(rng.standard_normal((200, 1)), 40, axis=1).astype(np.float32)
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    region = np.zeros(40, np.int64)
    runs = (500,) * 4
    loud = trial_noise(signal, np.full(40, 0.5, np.float32), region, runs, rng)
    silent = trial_noise(signal, np.zeros(40, np.float32), region, runs, rng)
    assert loud.var() == pytest.approx(1, abs=0.1)
    assert np.corrcoef(loud.T)[0, 1:].mean() == pytest.approx((1.2 * 0.5) ** 2, abs=0.08)
    assert np.corrcoef(silent.T)[0, 1:].mean() == pytest.approx(0, abs=0.03)


def test_ncsnr_follows_the_gamma_distribution_of_its_area() -> None:
    shape, scale = NCSNR_GAMMA["V1"]
    drawn = draw_ncsnr(np.zeros(20000, np.int64), 1, stream(0, Purpose.NCSNR, 1))
    assert drawn.mean() == pytest.approx(1.09 * shape * scale, rel=0.02)


def test_the_ncsnr_estimator_recovers_a_known_signal_to_noise_ratio() -> None:
    rng = np.random.default_rng(1)
    for true in (0.3, 1.0):
        betas = true * np.repeat(rng.standard_normal((2000, 200)), 3, axis=0) + rng.standard_normal(
            (6000, 200)
        )
        betas = ((betas - betas.mean(axis=0)) / betas.std(axis=0, ddof=1)).astype(np.float32)
        estimate = estimate_ncsnr(betas, np.arange(6000).reshape(-1, 3))
        assert np.median(estimate) == pytest.approx(true, rel=0.03)


def test_imagery_gains_fall_from_early_to_high_areas() -> None:
    gain = per_voxel(np.arange(len(REGIONS)), "gain")
    assert gain[REGIONS.index("V1v")] > gain[REGIONS.index("hV4")] > gain[REGIONS.index("ventral")]
