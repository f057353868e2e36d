"""Reference decoders of the simulated dataset: ridge regression from betas to pixels, Gabor energy and content.

They read the written files with h5py, nibabel and NumPy only, so what they find does not depend on the loader.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from nsdbench.data.facts import table
from nsdbench.sim.features import N_GABOR, low_level, pool

Floats = NDArray[np.float32]
SPACES = ("pixel", "low", "sem")
BETAS = "betas_fithrf_GLMdenoise_RR"
PENALTIES = np.logspace(1, 6, 11)


@dataclass(frozen=True)
class SubjectData:
    """One subject as read from the files.

    Attributes
    ----------
    core : float32 array (n_seen, n_voxels)
        Mean over the repeats of session-wise z-scored betas, by 10k id.
    images : int array (n_seen,)
        0-based ``imgBrick`` row of each 10k id.
    session : float32 array (720, n_voxels)
        Imagery session in percent signal change.
    condition, cue : str arrays (720,)
        Letters per beta row; attention rows carry them twice.
    early : bool array (n_voxels,)
        In V1 to hV4.
    """

    core: Floats
    images: NDArray[np.int64]
    session: Floats
    condition: NDArray[np.str_]
    cue: NDArray[np.str_]
    early: NDArray[np.bool_]
    v1: NDArray[np.bool_]


def read_subject(root: Path, subject: int) -> SubjectData:
    """Read what the decoders need of one subject."""
    folder = root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm"
    rois = root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi"
    general = read_volume(rois / "nsdgeneral.nii.gz") == 1
    prf = read_volume(rois / "prf-visualrois.nii.gz")[general]
    design = scipy.io.loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    sessions = sorted((folder / BETAS).glob("betas_session*.hdf5"))
    core = np.concatenate([_zscore(_read_betas(path, general)) for path in sessions])
    order = design["masterordering"][0].astype(int)
    repeats = np.argsort(order, kind="stable").reshape(-1, 3)
    letters = [_letters(root, subject, row) for row in table("runs")]
    return SubjectData(
        core=core[repeats].mean(axis=1),
        images=design["subjectim"][subject - 1].astype(np.int64) - 1,
        session=_read_betas(folder / f"nsdimagery{BETAS}/betas_nsdimagery.hdf5", general),
        condition=np.concatenate([a for a, _ in letters]),
        cue=np.concatenate([b for _, b in letters]),
        early=prf > 0,
        v1=(prf == 1) | (prf == 2),
    )


def read_volume(path: Path) -> NDArray[Any]:
    """Return a NIfTI volume as stored, (X, Y, Z)."""
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def _read_betas(path: Path, mask: NDArray[np.bool_]) -> Floats:
    with h5py.File(path) as file:
        volume = file["betas"][:].transpose(0, 3, 2, 1)
    return np.asarray(volume[:, mask] / np.float32(300), np.float32)


def _letters(root: Path, subject: int, row: dict[str, str]) -> tuple[list[str], list[str]]:
    path = root / f"nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{row['run_name']}.tsv"
    with path.open(encoding="utf-8") as file:
        trials = list(csv.DictReader(file, delimiter="\t"))
    times = 2 if row["task"] == "attention" else 1
    return [t["CONDITION"] for t in trials for _ in range(times)], [
        t["CUE"] for t in trials for _ in range(times)
    ]


def _zscore(betas: Floats) -> Floats:
    return np.asarray((betas - betas.mean(axis=0)) / betas.std(axis=0, ddof=1), np.float32)


def zscore_runs(session: Floats) -> Floats:
    """Return the imagery session z-scored per voxel within each of its 12 runs."""
    runs = [slice(int(r["beta_start0"]), int(r["beta_stop0"])) for r in table("runs")]
    return np.concatenate([_zscore(session[rows]) for rows in runs])


def target_spaces(root: Path) -> dict[str, tuple[Floats, Floats]]:
    """Return per space the values of all core images and of the 12 targets of sets A and B."""
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        images = file["imgBrick"][:]
    content = np.load(root / "sim_truth/stimuli.npz")
    sem = np.concatenate([content["coverage"][:, :30], content["background"]], axis=1)
    names = [str(row[1][0]) for s in "AB" for row in scipy.io.loadmat(_pair_list(root, s))["pair_list"]]
    folder = root / "nsddata/experiments/nsdimagery/rawtargetimages"
    pictures = np.stack(
        [np.asarray(Image.open(folder / f"set{'AB'[i // 6]}" / n)) for i, n in enumerate(names)]
    )
    seen = np.zeros((12, sem.shape[1]), np.float32)
    seen[6:11] = sem[[int(n[14:19]) - 1 for n in names[6:11]]]
    seen[11, [0, 20]] = 0.2  # the artwork shows two people, in front of none of the ten backgrounds
    return {
        "pixel": (_pixels(images), _pixels(pictures)),
        "low": (_low(images), _low(pictures)),
        "sem": (sem, seen),
    }


def _pair_list(root: Path, stimulus_set: str) -> Path:
    return root / f"nsddata/experiments/nsdimagery/{stimulus_set}_pair_list.mat"


def _pixels(images: NDArray[np.uint8]) -> Floats:
    """Return 14 x 14 RGB pixels, (n, 588)."""
    channels = [pool(images[..., c].astype(np.float32), 14).reshape(len(images), -1) for c in range(3)]
    return np.concatenate(channels, axis=1)


def _low(images: NDArray[np.uint8]) -> Floats:
    """Return Gabor energy on a 4 x 4 grid, (n, 384)."""
    parts = []
    for start in range(0, len(images), 100):
        maps = low_level(images[start : start + 100])[:, :N_GABOR]
        parts.append(pool(maps.reshape(-1, 16, 16), 4).reshape(len(maps), -1))
    return np.concatenate(parts)


class Ridge:
    """Ridge regressions from one set of betas to any number of target spaces.

    The penalty of each space is the one that predicts the last ``n_validation`` images best.

    Parameters
    ----------
    betas : float32 array (n_images, n_voxels)
    """

    def __init__(self, betas: Floats, n_validation: int = 100) -> None:
        self._betas = betas
        self._n_fit = len(betas) - min(n_validation, len(betas) // 4)
        kernel = (betas @ betas.T).astype(np.float64)
        self._held_out = kernel[self._n_fit :, : self._n_fit].astype(np.float32)
        self._part = np.linalg.eigh(kernel[: self._n_fit, : self._n_fit])
        self._whole = np.linalg.eigh(kernel)

    def weights(self, targets: Floats) -> Floats:
        """Return the weights (n_voxels, n_features) for standardised ``targets`` (n_images, n_features)."""
        fit, held_out = targets[: self._n_fit], targets[self._n_fit :]
        guesses = [self._held_out @ _dual(self._part, fit, p) for p in PENALTIES]
        scores = [np.diag(correlate(guess, held_out)).mean() for guess in guesses]
        best = float(PENALTIES[int(np.argmax(scores))])
        return np.asarray(self._betas.T @ _dual(self._whole, targets, best), np.float32)


def _dual(eigen: tuple[NDArray[np.float64], NDArray[np.float64]], targets: Floats, penalty: float) -> Floats:
    values, vectors = eigen
    return np.asarray(vectors @ ((vectors.T @ targets) / (values + penalty)[:, None]), np.float32)


def standardise(values: Floats, reference: Floats) -> Floats:
    """Return ``values`` in standard deviations from the mean of ``reference``, feature by feature."""
    sd = reference.std(axis=0)
    return np.asarray((values - reference.mean(axis=0)) / np.where(sd > 1e-6, sd, 1), np.float32)


def correlate(a: Floats, b: Floats) -> Floats:
    """Return Pearson correlations between the rows of ``a`` and of ``b``; constant rows correlate 0."""
    a, b = (m - m.mean(axis=1, keepdims=True) for m in (a, b))
    norms = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return np.asarray(a @ b.T / np.where(norms > 0, norms, 1), np.float32)


def two_way(predictions: Floats, truth: Floats) -> float:
    """Return two-way identification: how often the own truth correlates better than another one; ties count 1/2."""
    r = np.round(correlate(predictions, truth), 6)
    own = np.diag(r)[:, None]
    wins = (own > r) + 0.5 * (own == r)
    n = len(r)
    return float((wins.sum() - 0.5 * n) / (n * (n - 1)))


def average(rows: Floats, labels: NDArray[np.str_], order: list[str]) -> Floats:
    """Return the mean row of each label in ``order``."""
    return np.stack([rows[labels == label].mean(axis=0) for label in order])
