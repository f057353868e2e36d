"""Signals of the imagery session: what each of its 720 betas holds before noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nsdbench.data.facts import runs
from nsdbench.sim.anatomy import EARLIEST, HIGH, REGIONS
from nsdbench.sim.config import SimConfig
from nsdbench.sim.design import ImageryDesign, Run
from nsdbench.sim.encoding import Encoder, per_voxel
from nsdbench.sim.features import N_SEMANTIC, Features, concatenate, low_level
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.sim.stimuli import CODE_LENGTH, EXTRA, N_EXEMPLARS, N_SET_B, SHARED, ImageKey, codes, exemplars
from nsdbench.sim.targets import blank, draw_artwork, draw_bars, draw_letter
from nsdbench.sim.vocabulary import BACKGROUNDS, CATEGORIES

Floats = NDArray[np.float32]
IMAGERY_NOISE = np.float32(1.5)
RUN_BETAS = tuple(run.n_betas for run in runs())
BAR_CONTRAST = 1.4
"""Gain of V1 to V3 for bars and crosses: black on an empty screen drives them more than a scene does."""
_CODE_OVERLAP = 0.5
_CONCEPT_SHARES = (0.6, 0.4)
_TARGET_IN_STREAM = 0.2
_VIVIDNESS_SD = 0.3
_LAPSES = 0.05


@dataclass(frozen=True)
class Extras:
    """Pictures outside the core sets: bars and crosses, the artwork, the 18 cue letters, a blank screen.

    ``features`` holds them in that order; ``images`` the seven targets among them.
    """

    images: NDArray[np.uint8]
    features: Features


def make_extras(seed: int, design: ImageryDesign) -> Extras:
    """Draw the extra pictures and compute their features."""
    artwork, figures = draw_artwork(stream(seed, Purpose.ARTWORK))
    targets = np.stack([*(draw_bars(t.name) for t in design.of_set("A")), artwork])
    pictures = np.concatenate(
        [targets, np.stack([draw_letter(t.cue) for t in design.targets]), blank()[None]]
    )
    semantic = np.zeros((len(pictures), N_SEMANTIC, figures.size), np.float32)
    person = CATEGORIES.index("person")
    semantic[6, [person, len(CATEGORIES)]] = figures.ravel()  # "person" is the first super-category as well
    background = np.zeros((len(pictures), len(BACKGROUNDS)), np.float32)
    with threadpool_limits(1):  # the order of float sums must not depend on the machine
        low = low_level(pictures)
    return Extras(targets, Features(low, semantic, background))


@dataclass(frozen=True)
class _Bank:
    """Signals of everything that can be seen or imagined, by set: (6, n_voxels), and for set C (6, 8, n_voxels)."""

    seen: dict[str, Floats]
    imagined: dict[str, Floats]
    shared: Floats
    letters: dict[str, Floats]


def imagery_signal(
    config: SimConfig,
    encoder: Encoder,
    features: Features,
    design: ImageryDesign,
    extras: Extras,
    subject: int,
) -> Floats:
    """Return the noise-free signal of the session's betas (720, n_voxels), in units of the core signal's sd.

    ``features`` are those of the subject's core images; the shared ones come first.
    """
    bank = _make_bank(config, encoder, features, extras)
    rng = stream(config.seed, Purpose.IMAGERY_CONTENT, subject)
    region = encoder.voxels.region
    gain = np.float32(config.isnr) * per_voxel(region, "gain")
    adapted = _gain_of(HIGH, region, config.scene_gain)
    rows = []
    for run in design.runs:
        letters = np.float32(config.cue) * bank.letters[run.stimulus_set][run.cue]
        if run.task == "vision":
            rows.append(letters + _seen(run, bank) * (adapted if run.stimulus_set == "B" else np.float32(1)))
        elif run.task == "imagery":
            rows.append(letters + gain * _imagined(run, bank, rng))
        else:
            rows.append(np.stack([letters, _attended(run, bank)], axis=1).reshape(-1, len(region)))
    return np.concatenate(rows).astype(np.float32)


def _gain_of(regions: tuple[str, ...], region: NDArray[np.int64], gain: float) -> Floats:
    """Return ``gain`` for the voxels of ``regions`` and 1 for all others."""
    return np.where(np.isin(region, [REGIONS.index(r) for r in regions]), np.float32(gain), np.float32(1))


def _make_bank(config: SimConfig, encoder: Encoder, features: Features, extras: Extras) -> _Bank:
    n_shared, seed, region = config.sizes.n_shared, config.seed, encoder.voxels.region
    code_gain = np.ones((len(extras.features), len(region)), np.float32)
    code_gain[:6] = per_voxel(region, "bars")
    contrast = _gain_of(EARLIEST, region, BAR_CONTRAST)
    extra_codes = np.zeros((len(extras.features), CODE_LENGTH), np.float32)
    extra_codes[:7] = codes(seed, [ImageKey(EXTRA, i) for i in range(7)])
    shared_codes = codes(seed, [ImageKey(SHARED, i) for i in range(n_shared)])
    extra = encoder.seen(extras.features, extra_codes, code_gain)
    shared = encoder.seen(features[:n_shared], shared_codes)
    core = slice(0, N_SET_B + N_EXEMPLARS * 6)
    pictures = concatenate([extras.features[:7], features[core]])
    gains = np.concatenate([code_gain[:7], np.ones((len(pictures) - 7, len(region)), np.float32)])
    remembered = remembered_codes(seed, np.concatenate([extra_codes[:7], shared_codes[core]]))
    imagined = encoder.imagined(pictures, remembered, gains)
    concept = np.stack([exemplars(c) for c in range(6)])
    return _Bank(
        seen={
            "A": contrast * extra[:6],
            "B": np.concatenate([shared[:N_SET_B], extra[6:7]]),
            "C": shared[concept],
        },
        imagined={
            "A": contrast * imagined[:6],
            "B": np.concatenate([imagined[7 : 7 + N_SET_B], imagined[6:7]]),
            "C": imagined[7 + concept],
        },
        shared=shared,
        letters={s: extra[7 + 6 * i : 13 + 6 * i] - extra[-1] for i, s in enumerate("ABC")},
    )


def remembered_codes(seed: int, seen: Floats) -> Floats:
    """Return codes that correlate 0.5 with ``seen``: what imagery keeps of the unexplained part."""
    fresh = codes(seed, [ImageKey(EXTRA, 1000 + i) for i in range(len(seen))])
    return np.asarray(_CODE_OVERLAP * seen + np.sqrt(1 - _CODE_OVERLAP**2) * fresh, np.float32)


def _seen(run: Run, bank: _Bank) -> Floats:
    return bank.shared[run.image] if run.stimulus_set == "C" else bank.seen[run.stimulus_set][run.target]


def _imagined(run: Run, bank: _Bank, rng: np.random.Generator) -> Floats:
    signals = bank.imagined[run.stimulus_set][run.target]
    if run.stimulus_set == "C":
        mean, picked = _CONCEPT_SHARES
        one = signals[np.arange(len(signals)), rng.integers(8, size=len(signals))]
        signals = mean * signals.mean(axis=1) + picked * one
    vividness = np.clip(rng.normal(1, _VIVIDNESS_SD, len(signals)), 0, 2) * (
        rng.random(len(signals)) >= _LAPSES
    )
    return np.asarray(vividness[:, None] * signals, np.float32)


def _attended(run: Run, bank: _Bank) -> Floats:
    """Return the detection epochs: the mean of the stream, and the target where it appears."""
    flow = np.stack([bank.shared[images].mean(axis=0) for images in run.stream])
    targets = bank.seen[run.stimulus_set][run.target]
    targets = targets.mean(axis=1) if targets.ndim == 3 else targets
    return np.asarray(flow + _TARGET_IN_STREAM * run.image[:, None] * targets, np.float32)
