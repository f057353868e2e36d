"""One subject: anatomy, voxel models, core sessions, imagery session, and all files of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nsdbench.sim.anatomy import Anatomy, build_anatomy
from nsdbench.sim.behaviour import RESPONSE_COLUMNS, RUN_COLUMNS, response_rows, run_rows
from nsdbench.sim.config import TRIALS_PER_SESSION, SimConfig
from nsdbench.sim.design import RUN_LENGTHS, CoreDesign, ImageryDesign, Ints
from nsdbench.sim.encoding import Encoder, draw_voxels
from nsdbench.sim.features import Features
from nsdbench.sim.files import write_betas, write_nifti, write_table, write_truth
from nsdbench.sim.imagery import IMAGERY_NOISE, RUN_BETAS, Extras, imagery_signal
from nsdbench.sim.noise import autoregress, draw_ncsnr, trial_noise
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.sim.stimuli import SHARED, ImageKey, codes

Floats = NDArray[np.float32]
BETAS = "betas_fithrf_GLMdenoise_RR"
_SESSION_OFFSET, _SESSION_GAIN = 0.3, 0.05


@dataclass(frozen=True)
class World:
    """What all subjects share."""

    config: SimConfig
    core: CoreDesign
    imagery: ImageryDesign
    extras: Extras


@dataclass(frozen=True)
class Scale:
    """How unit signals and unit noise become percent signal change, per brain voxel.

    ``mean`` and ``amplitude`` are in percent; ``signal`` and ``noise`` are the parts of a unit variance.
    """

    mean: Floats
    amplitude: Floats
    signal: Floats
    noise: Floats

    def percent(self, signal: Floats, noise: Floats) -> Floats:
        """Return betas in percent signal change."""
        return np.asarray(
            self.mean + self.amplitude * (self.signal * signal + self.noise * noise), np.float32
        )


def make_subject(root: Path, world: World, subject: int, features: Features) -> dict[str, Any]:
    """Write all files of ``subject`` below ``root`` and return its entry in the dataset marker.

    ``features`` are those of the images the subject sees, in the order of their 10k ids.
    """
    with threadpool_limits(1):  # the order of float sums must not depend on the machine
        return _make_subject(root, world, subject, features)


@dataclass(frozen=True)
class _Brain:
    """One subject: unit-variance signals (n_seen, n_voxels), noise-ceiling SNR (n_voxels,), geometry and scale."""

    anatomy: Anatomy
    signal: Floats
    ncsnr: Floats
    scale: Scale

    @property
    def where(self) -> NDArray[np.int64]:
        """C-order indices of the brain voxels in the grid."""
        return np.flatnonzero(self.anatomy.brain)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which brain voxels belong to nsdgeneral."""
        return np.asarray(self.anatomy.nsdgeneral.ravel()[self.where] == 1)

    def spread(self, values: Floats, outside: Floats | float = 0.0) -> Floats:
        """Place the columns of nsdgeneral voxels among those of the other brain voxels."""
        inside = self.inside
        columns = np.empty((len(values), len(inside)), np.float32)
        columns[:, inside] = values
        columns[:, ~inside] = outside
        return columns

    def noise(self, run_lengths: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """Return trial noise of unit variance in all brain voxels; there is nothing else outside nsdgeneral."""
        inner = trial_noise(self.signal, self.ncsnr, self.anatomy.region, run_lengths, rng)
        n_outside = len(self.where) - self.anatomy.n_voxels
        white = rng.standard_normal((sum(run_lengths), n_outside), np.float32)
        return self.spread(inner, autoregress(white, run_lengths))


def _make_subject(root: Path, world: World, subject: int, features: Features) -> dict[str, Any]:
    config = world.config
    anatomy = build_anatomy(subject, config.sizes.voxel_divisor)
    voxels = draw_voxels(anatomy.region, stream(config.seed, Purpose.VOXELS, subject))
    unexplained = _codes(config, subject)
    encoder = Encoder(voxels, features, unexplained)
    ncsnr = draw_ncsnr(anatomy.region, subject, stream(config.seed, Purpose.NCSNR, subject))
    ncsnr *= np.float32(config.snr)
    scale = _scale(anatomy, ncsnr, stream(config.seed, Purpose.VOXELS, subject, 1))
    brain = _Brain(anatomy, encoder.seen(features, unexplained), ncsnr, scale)
    imagery = imagery_signal(config, encoder, features, world.imagery, world.extras, subject)
    _write_anatomy(root, anatomy, subject, config.sizes.n_sessions)
    _write_core(root, world, subject, brain)
    _write_imagery(root, config.seed, subject, brain, imagery)
    _write_behaviour(root, world, subject)
    truth: dict[str, NDArray[Any]] = {
        "ncsnr": ncsnr,
        "region": anatomy.region,
        "signal": brain.signal.astype(np.float16),
        "imagery_signal": imagery.astype(np.float16),
    }
    write_truth(root / f"sim_truth/subj{subject:02d}.npz", truth)
    return {"grid": list(anatomy.grid), "nsdgeneral": anatomy.n_voxels, "sessions": config.sizes.n_sessions}


def _codes(config: SimConfig, subject: int) -> Floats:
    sizes = config.sizes
    keys = [ImageKey(SHARED, i) for i in range(sizes.n_shared)]
    return codes(config.seed, keys + [ImageKey(subject, i) for i in range(sizes.n_own)])


def _scale(anatomy: Anatomy, ncsnr: Floats, rng: np.random.Generator) -> Scale:
    general = anatomy.nsdgeneral[anatomy.brain == 1] == 1
    spread = np.zeros(len(general), np.float32)
    spread[general] = ncsnr
    total = np.asarray(np.sqrt(1 + spread**2), np.float32)
    mean = np.asarray(0.65 + 0.6 * rng.standard_normal(len(general), np.float32), np.float32)
    amplitude = 1.25 * np.exp(0.35 * rng.standard_normal(len(general), np.float32))
    return Scale(mean, np.asarray(amplitude, np.float32), spread / total, np.float32(1) / total)


def _write_core(root: Path, world: World, subject: int, brain: _Brain) -> None:
    folder, grid = _beta_folder(root, subject) / BETAS, brain.anatomy.grid
    standard = []
    for session in range(world.config.sizes.n_sessions):
        rng = stream(world.config.seed, Purpose.CORE_NOISE, subject, session)
        trials = world.core.order[session * TRIALS_PER_SESSION : (session + 1) * TRIALS_PER_SESSION] - 1
        offset = _SESSION_OFFSET * rng.standard_normal(len(brain.where), np.float32)
        gain = 1 + _SESSION_GAIN * rng.standard_normal(len(brain.where), np.float32)
        noise = brain.noise(RUN_LENGTHS, rng)
        betas = brain.scale.percent(offset + gain * brain.spread(brain.signal[trials]), gain * noise)
        write_betas(folder / f"betas_session{session + 1:02d}.hdf5", betas, brain.where, grid)
        standard.append(_zscore(betas[:, brain.inside]))
    volume = np.full(brain.anatomy.brain.size, np.nan, np.float32)
    volume[brain.where] = 0
    volume[brain.where[brain.inside]] = estimate_ncsnr(np.concatenate(standard), world.core.repeats - 1)
    write_nifti(folder / "ncsnr.nii.gz", volume.reshape(grid))


def _beta_folder(root: Path, subject: int) -> Path:
    return root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm"


def _zscore(betas: Floats) -> Floats:
    return np.asarray((betas - betas.mean(axis=0)) / betas.std(axis=0, ddof=1), np.float32)


def estimate_ncsnr(betas: Floats, repeats: Ints) -> Floats:
    """Return the noise-ceiling SNR (n_voxels,) estimated as NSD does.

    ``v`` is the root of the mean over images of the unbiased variance over the repeats of session-wise z-scored
    betas; ncsnr = sqrt(max(0, 1 - v**2)) / v (Allen et al. 2022, Nature Neuroscience, "noise ceiling").

    Parameters
    ----------
    betas : float32 array (n_trials, n_voxels)
    repeats : int array (n_images, 3)
        0-based trials of each image.
    """
    variance = betas[repeats].var(axis=1, ddof=1, dtype=np.float64).mean(axis=0)
    return np.asarray(np.sqrt(np.maximum(0, 1 - variance) / variance), np.float32)


def _write_imagery(root: Path, seed: int, subject: int, brain: _Brain, imagery: Floats) -> None:
    rng = stream(seed, Purpose.IMAGERY_NOISE, subject)
    betas = brain.scale.percent(brain.spread(imagery), IMAGERY_NOISE * brain.noise(RUN_BETAS, rng))
    path = _beta_folder(root, subject) / f"nsdimagery{BETAS}/betas_nsdimagery.hdf5"
    write_betas(path, betas, brain.where, brain.anatomy.grid)


def _write_anatomy(root: Path, anatomy: Anatomy, subject: int, n_sessions: int) -> None:
    folder = root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm"
    rois = {"nsdgeneral": anatomy.nsdgeneral, "prf-visualrois": anatomy.prf, "streams": anatomy.streams}
    for name, volume in rois.items():
        write_nifti(folder / f"roi/{name}.nii.gz", volume)
    write_nifti(folder / "brainmask.nii.gz", anatomy.brain)
    write_nifti(folder / "valid.nii.gz", anatomy.brain.astype(np.float32))
    for session in [f"session{s + 1:02d}" for s in range(n_sessions)] + ["nsdimagery"]:
        write_nifti(folder / f"valid_{session}.nii.gz", anatomy.brain)


def _write_behaviour(root: Path, world: World, subject: int) -> None:
    seed = world.config.seed
    path = root / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"
    write_table(path, RESPONSE_COLUMNS, response_rows(seed, subject, world.core))
    shared = world.core.images[subject - 1, : world.config.sizes.n_shared]
    for run in world.imagery.runs:
        path = root / f"nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{run.name}.tsv"
        write_table(path, RUN_COLUMNS, run_rows(seed, subject, run, world.imagery, shared))
