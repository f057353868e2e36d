"""Writers of the small files of NSD and NSD-Imagery, in the layout of the public bucket, with made-up content.

For tests and benchmarks: no value here comes from the real data.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import scipy.io
from PIL import Image

B3 = "betas_fithrf_GLMdenoise_RR"
LETTERS = {"A": "HRVLPE", "B": "WKBCDT", "C": "SZMYNF"}
# (name, number, task, first row, number of rows)
RUNS = (
    ("visA", 1, "vision", 0, 48),
    ("attA", 2, "attention", 48, 96),
    ("imgA_1", 3, "imagery", 144, 48),
    ("visB", 4, "vision", 192, 48),
    ("attB", 5, "attention", 240, 96),
    ("imgB_1", 6, "imagery", 336, 48),
    ("visC", 7, "vision", 384, 48),
    ("attC", 8, "attention", 432, 96),
    ("imgC_1", 9, "imagery", 528, 48),
    ("imgA_2", 10, "imagery", 576, 48),
    ("imgB_2", 11, "imagery", 624, 48),
    ("imgC_2", 12, "imagery", 672, 48),
)
TSV_COLUMNS = [
    "SUBJECT",
    "SESSION",
    "RUN",
    "TRIAL",
    "CONDITION",
    "CUE",
    "FRAMEFILE",
    "IMAGEFILE",
    "GROUNDTRUTH",
    "ISCORRECT",
    "CHANGEMIND",
    "TOTAL1",
    "TOTAL2",
    "BUTTON",
    "TRIALONSET",
    "TRIALEND",
    "IMAGEONSET",
    "IMAGESERIESENDS",
    "FINALDECISIONTIME",
    "RT",
]
RESPONSE_COLUMNS = [
    "SUBJECT",
    "SESSION",
    "RUN",
    "TRIAL",
    "73KID",
    "10KID",
    "TIME",
    "ISOLD",
    "ISCORRECT",
    "RT",
    "CHANGEMIND",
    "MEMORYRECENT",
    "MEMORYFIRST",
    "ISOLDCURRENT",
    "ISCORRECTCURRENT",
    "TOTAL1",
    "TOTAL2",
    "BUTTON",
    "MISSINGDATA",
]


def sequences(rng: np.random.Generator) -> dict[str, tuple[str, str]]:
    labels: dict[str, tuple[str, str]] = {}
    for s, letters in LETTERS.items():
        shown = rng.permutation(list(letters * 8))
        cue = shown.copy()
        # swap the letters of mismatch trials around a cycle, so that every letter stays on screen eight times
        for k, letter in enumerate(letters):
            at = np.flatnonzero(shown == letter)
            cue[rng.choice(at, 4, replace=False)] = letters[(k + 1) % 6]
        labels[f"vis{s}"] = ("".join(shown), "".join(cue))
        labels[f"img{s}_1"] = ("".join(shown),) * 2
        labels[f"img{s}_2"] = ("".join(rng.permutation(shown)),) * 2
        labels[f"att{s}"] = ("".join(rng.permutation(shown)),) * 2
    return labels


def target_names(shared: np.ndarray) -> dict[str, str]:
    a = [f"bar_{d:03d}.0deg_450L_43W" for d in (0, 45, 90, 135)] + [
        f"crs_{d:03d}.0deg_450L_43W" for d in (0, 45)
    ]
    b = [f"shared{k:04d}_nsd{i:05d}" for k, i in enumerate(shared[:5], start=1)] + ["shared0000_nsd00000"]
    c = ["stripes", "zebra", "mammal", "yellow", "banana", "fruit"]
    return {
        f"{s}{k}": n for s, names in zip("ABC", (a, b, c), strict=True) for k, n in enumerate(names, start=1)
    }


def roi_path(root: Path, subject: int, name: str) -> Path:
    folder = root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm"
    return (
        folder / f"{name}.nii.gz"
        if name in ("brainmask", "valid_nsdimagery")
        else folder / f"roi/{name}.nii.gz"
    )


def core_path(root: Path, subject: int, session: int) -> Path:
    folder = root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/{B3}"
    return folder / f"betas_session{session:02d}.hdf5"


def imagery_path(root: Path, subject: int) -> Path:
    folder = root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/nsdimagery{B3}"
    return folder / "betas_nsdimagery.hdf5"


def table_path(root: Path, subject: int, run: str) -> Path:
    return root / f"nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{run}.tsv"


def write_hdf5(path: Path, stored: np.ndarray) -> None:
    """Write (T, X, Y, Z) betas as the release does: reversed axes, one chunk per voxel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reversed_axes = np.ascontiguousarray(stored.transpose(0, 3, 2, 1))
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=reversed_axes, chunks=(len(stored), 1, 1, 1))


def write_volume(path: Path, volume: np.ndarray, dtype: Any = np.int16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume.astype(dtype), affine(volume.shape)), path)


def affine(shape: tuple[int, ...]) -> np.ndarray:
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    affine[:3, 3] = [(1 - (n + 1) / 2) * 1.8 for n in shape]
    return affine


def write_tables(
    root: Path,
    subject: int,
    labels: Mapping[str, tuple[str, str]],
    names: Mapping[str, str],
    shared: np.ndarray,
) -> None:
    for run, number, task, _, _ in RUNS:
        rows = []
        conditions, cues = labels[run]
        skipped = 0
        for k, (condition, cue) in enumerate(zip(conditions, cues, strict=True)):
            skipped += k in (8, 17, 25, 33, 41)
            onset = 16.0 + 8 * k if task == "attention" else 12.0 + 4 * (k + skipped)
            stem = "blank00000_00000000"
            if task == "vision":
                exemplar = int(shared[k % len(shared)])
                stem = f"shared{k + 1:04d}_nsd{exemplar:05d}"
                if run != "visC":
                    s = run[3]
                    stem = names[f"{s}{LETTERS[s].index(condition) + 1}"]
            row = dict.fromkeys(TSV_COLUMNS, "")
            row |= {"SUBJECT": subject, "SESSION": 1, "RUN": number, "TRIAL": k + 1, "TRIALONSET": onset}
            row |= {"CONDITION": condition, "CUE": cue, "FRAMEFILE": f"{stem}_cue{cue}.png", "RT": "NaN"}
            rows.append(row)
        write_table(table_path(root, subject, run), rows, TSV_COLUMNS)


def write_responses(
    root: Path, subject: int, ordering: np.ndarray, image: np.ndarray, trials_per_session: int
) -> None:
    """Write ``responses.tsv``: the 10k id (1-based) and the image (0-based here, 1-based in the file) of each trial."""
    rows = []
    for k, (k10, row) in enumerate(zip(ordering.tolist(), image.tolist(), strict=True)):
        session, trial = divmod(k, trials_per_session)
        line = dict.fromkeys(RESPONSE_COLUMNS, "NaN")
        line |= {"SUBJECT": subject, "SESSION": session + 1, "RUN": 1, "TRIAL": trial + 1}
        rows.append(line | {"73KID": row + 1, "10KID": k10})
    path = root / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"
    write_table(path, rows, RESPONSE_COLUMNS)


def write_targets(root: Path, names: Mapping[str, str], draw: Callable[[str], Image.Image]) -> None:
    """Write pair lists, the images of the 12 targets that have one, and the design matrices."""
    imagery = root / "nsddata/experiments/nsdimagery"
    imagery.mkdir(parents=True, exist_ok=True)
    for s, letters in LETTERS.items():
        pairs = np.empty((6, 3), object)
        for k, letter in enumerate(letters):
            pairs[k] = [k + 1, names[f"{s}{k + 1}"], letter]
        scipy.io.savemat(imagery / f"{s}_pair_list.mat", {"pair_list": pairs})
        for k in range(1, 7 if s != "C" else 1):
            path = imagery / "rawtargetimages" / f"set{s}" / f"{names[f'{s}{k}']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(f"{s}{k}").save(path)
    cells = np.empty((1, 12), object)
    for k, (_, _, task, _, n) in enumerate(RUNS):
        design = np.zeros((480 if task == "attention" else 240, 36))
        design[np.arange(n) * 2 + 10, k % 36] = 1
        cells[0, k] = design
    scipy.io.savemat(imagery / "designmatrixGLMsingle.mat", {"stimulus": cells})


def write_design(root: Path, ordering: np.ndarray, subjectim: np.ndarray, shared: np.ndarray) -> None:
    """Write ``nsd_expdesign.mat``; all ids are 1-based."""
    path = root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"masterordering": ordering[None], "subjectim": subjectim, "sharedix": shared[None]}
    scipy.io.savemat(path, document)


def write_table(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
