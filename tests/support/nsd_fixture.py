"""Builds a small data set in the file layout of the public NSD bucket, with known values."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import nibabel
import numpy as np
from nsd_files import (
    affine,
    core_path,
    imagery_path,
    roi_path,
    sequences,
    table_path,  # noqa: F401 - tests use it
    target_names,
    write_design,
    write_hdf5,
    write_responses,
    write_table,
    write_tables,
    write_targets,
    write_volume,
)
from PIL import Image


@dataclass(frozen=True)
class Plan:
    """Sizes of a fixture. Every image is shown three times in ``sessions * trials_per_session`` trials."""

    grids: Mapping[int, tuple[int, int, int]] = field(
        default_factory=lambda: {1: (12, 14, 10), 2: (11, 13, 10)}
    )
    sessions: int = 4
    trials_per_session: int = 30
    n_shared: int = 10
    side: int = 16
    seed: int = 0

    @property
    def n_seen(self) -> int:
        return self.sessions * self.trials_per_session // 3

    @property
    def n_images(self) -> int:
        return self.n_shared + (self.n_seen - self.n_shared) * len(self.grids)


@dataclass(frozen=True)
class Built:
    """The root of a fixture and the truth behind its files.

    ``core[subject]`` and ``imagery[subject]`` are the stored int16 betas, shape (T, X, Y, Z); ``labels[run]`` are
    the CONDITION and CUE strings; ``image[subject]`` is the 0-based image of every core trial.
    """

    root: Path
    plan: Plan
    core: dict[int, np.ndarray]
    imagery: dict[int, np.ndarray]
    volumes: dict[int, dict[str, np.ndarray]]
    labels: dict[str, tuple[str, str]]
    names: dict[str, str]
    image: dict[int, np.ndarray]
    ordering: np.ndarray
    subjectim: np.ndarray


def build(root: Path, plan: Plan | None = None) -> Built:
    """Write a complete data set under ``root`` and return its truth."""
    plan = plan or Plan()
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 7]))
    ordering, subjectim = _design(plan, rng)
    labels = sequences(rng)
    shared = subjectim[min(plan.grids) - 1, : plan.n_shared]
    names = target_names(shared)
    _write_experiment(root, plan, ordering, subjectim, names)
    core, imagery, volumes, image = {}, {}, {}, {}
    for subject, grid in plan.grids.items():
        volumes[subject] = _volumes(grid, rng)
        core[subject] = _stored((plan.sessions * plan.trials_per_session, *grid), rng, sd=2.0)
        imagery[subject] = _stored((720, *grid), rng, sd=1.4)
        image[subject] = subjectim[subject - 1, ordering - 1] - 1
        _write_subject(root, plan, subject, volumes[subject], core[subject], imagery[subject])
        write_tables(root, subject, labels, names, shared)
        write_responses(root, subject, ordering, image[subject], plan.trials_per_session)
    _write_marker(root, plan, volumes)
    return Built(root, plan, core, imagery, volumes, labels, names, image, ordering, subjectim)


def _design(plan: Plan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ordering = rng.permutation(np.repeat(np.arange(1, plan.n_seen + 1), 3))
    subjectim = np.zeros((8, plan.n_seen), np.int64)
    ids = rng.permutation(np.arange(1, plan.n_images + 1))  # 1-based 73k ids
    shared, own = ids[: plan.n_shared], ids[plan.n_shared :].reshape(len(plan.grids), -1)
    for row, subject in enumerate(plan.grids):
        subjectim[subject - 1] = [*shared, *own[row]]
    return ordering, subjectim


def _volumes(grid: tuple[int, int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    inside = np.zeros(grid, bool)
    inside[4:, :9] = True  # the rest is -1, so that `!= 0` selects far too much
    general = np.where(inside, (rng.random(grid) < 0.5).astype(int), -1)
    areas = np.where(inside, rng.integers(0, 8, grid), -1)
    areas[5, 2] = -1  # nsdgeneral voxels without any area, as no careless `!= 0` expects
    streams = np.where(inside, rng.integers(0, 8, grid), -1)
    return {
        "nsdgeneral": general,
        "prf-visualrois": areas,
        "streams": streams,
        "brainmask": np.ones(grid, int),
    }


def _stored(shape: tuple[int, ...], rng: np.random.Generator, *, sd: float) -> np.ndarray:
    mean = rng.normal(0.5, 0.5, shape[1:]).astype(np.float32)
    percent = mean + sd * rng.standard_normal(shape, dtype=np.float32)
    return np.clip(np.trunc(300 * percent + np.copysign(0.5, percent)), -32767, 32767).astype(np.int16)


def _write_experiment(
    root: Path, plan: Plan, ordering: np.ndarray, subjectim: np.ndarray, names: Mapping[str, str]
) -> None:
    nsd = root / "nsddata/experiments/nsd"
    nsd.mkdir(parents=True)
    shared_ids = subjectim[min(plan.grids) - 1, : plan.n_shared]
    write_design(root, ordering, subjectim, shared_ids)
    with (nsd / "nsd_stim_info_merged.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["", "cocoId", "nsdId", "shared1000", "sim_captions"])
        for k in range(plan.n_images):
            shared = bool(np.isin(k + 1, shared_ids))
            writer.writerow([k, 1000 + k, k, shared, json.dumps([f"picture {k}", f"again {k}"])])
    bricks = root / "nsddata_stimuli/stimuli/nsd"
    bricks.mkdir(parents=True)
    with h5py.File(bricks / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = np.stack([picture(k, plan.side) for k in range(plan.n_images)])
    write_targets(root, names, lambda target: target_picture(target, names[target], plan.side))


def write_session(
    root: Path, subject: int, *, shared: np.ndarray, side: int, rng: np.random.Generator
) -> None:
    """Write the small files of one subject's imagery session: tables, pair lists, target images, design."""
    names = target_names(shared)
    write_targets(root, names, lambda target: target_picture(target, names[target], side))
    write_tables(root, subject, sequences(rng), names, shared)


def picture(row: int, side: int) -> np.ndarray:
    """Return image ``row`` of imgBrick: its colour encodes the row, so that index errors are visible."""
    image = np.zeros((side, side, 3), np.uint8)
    image[..., 0], image[..., 1] = row % 256, row // 256
    image[: side // 2, :, 2] = np.random.default_rng(row).integers(0, 256, (side // 2, side))
    return image


def target_picture(target: str, name: str, side: int) -> Image.Image:
    """Return the PNG of a target: grey for set A, the NSD picture for scenes, noise for the artwork."""
    number = int(target[1])
    if target[0] == "A":
        return Image.fromarray(np.full((side, side), 20 * number, np.uint8))
    if number < 6:
        return Image.fromarray(picture(int(name[-5:]) - 1, side))
    return Image.fromarray(np.random.default_rng(99).integers(0, 256, (side, side, 3), dtype=np.uint8))


def _write_subject(
    root: Path,
    plan: Plan,
    subject: int,
    volumes: Mapping[str, np.ndarray],
    core: np.ndarray,
    imagery: np.ndarray,
) -> None:
    for name, volume in volumes.items():
        write_volume(roi_path(root, subject, name), volume)
    n = plan.trials_per_session
    for session in range(1, plan.sessions + 1):
        write_hdf5(core_path(root, subject, session), core[(session - 1) * n : session * n])
    write_hdf5(imagery_path(root, subject), imagery)


def write_nifti(path: Path, stored: np.ndarray, *, step: float = 1.0, slope: float = 0.0) -> None:
    """Write (T, X, Y, Z) betas as a NIfTI twin: unscaled, sform only, slab centre at world 0."""
    volume = stored.transpose(1, 2, 3, 0)
    image = nibabel.Nifti1Image(volume, affine(volume.shape[:3]), dtype=volume.dtype)
    image.header["pixdim"][4] = step
    nibabel.save(image, path)
    if slope:
        patch_header(path, 112, np.float32(slope))


def patch_header(path: Path, offset: int, value: np.generic) -> None:
    """Overwrite a header field of a .nii.gz: scl_slope lies at byte 112, vox_offset at 108, datatype at 70."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + value.nbytes] = value.tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def edit_table(path: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    """Read a table, let ``change`` edit its rows in place, and write it back."""
    with path.open(newline="") as handle:
        reader = csv.DictReader(handle, delimiter="\t")
        rows, columns = list(reader), list(reader.fieldnames or ())
    change(rows)
    write_table(path, rows, columns)


def _write_marker(root: Path, plan: Plan, volumes: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    subjects = {
        str(s): {
            "grid": list(plan.grids[s]),
            "nsdgeneral": int((v["nsdgeneral"] > 0).sum()),
            "sessions": plan.sessions,
        }
        for s, v in volumes.items()
    }
    marker = {
        "dataset": "nsd-synthetic",
        "hash": f"fixture{plan.seed}",
        "version": 1,
        "trials_per_session": plan.trials_per_session,
        "n_shared": plan.n_shared,
        "n_images": plan.n_images,
        "beta_versions": ["b3"],
        "subjects": subjects,
    }
    (root / "nsdbench-dataset.json").write_text(json.dumps(marker))


def write_prepared(folder: Path, built: Built) -> None:
    """Write MindEye2's prepared core files: betas by the pooled recipe, indices, shared mask, images, one archive."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = built.plan
    shared_trials = built.ordering <= plan.n_shared
    for subject in plan.grids:
        mask = built.volumes[subject]["nsdgeneral"] == 1
        rows = built.core[subject][:, mask].astype(np.float64) / 300
        mean, sd = rows[~shared_trials].mean(axis=0), rows[~shared_trials].std(axis=0, ddof=1)
        with h5py.File(folder / f"betas_all_subj{subject:02d}_fp32_renorm.hdf5", "w") as file:
            file["betas"] = ((rows - mean) / sd).astype(np.float32)
        with h5py.File(folder / "COCO_73k_subj_indices.hdf5", "a") as file:
            file[f"subj{subject:02d}"] = built.image[subject]
        write_behaviour(folder / f"wds/subj{subject:02d}/train/0.tar", built.image[subject])
    shared = np.zeros(plan.n_images, bool)
    shared[built.subjectim[min(plan.grids) - 1, : plan.n_shared] - 1] = True
    np.save(folder / "shared1000.npy", shared)
    with h5py.File(folder / "coco_images_224_float16.hdf5", "w") as file:
        images = np.stack([picture(k, plan.side) for k in range(plan.n_images)])
        file["images"] = (images.transpose(0, 3, 1, 2) / 255).astype(np.float16)


def write_behaviour(path: Path, image: np.ndarray) -> None:
    """Write a webdataset archive whose ``behav`` rows name the image of every third global trial."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for k, trial in enumerate(range(0, len(image), 3)):
            row = np.full((1, 17), -1.0)
            row[0, [0, 5]] = image[trial], trial
            for name, array in (("behav", row), ("past_behav", np.zeros((1, 15, 17)))):
                stream = io.BytesIO()
                np.save(stream, array)
                info = tarfile.TarInfo(f"sample{k:09d}.{name}.npy")
                info.size = len(stream.getvalue())
                tar.addfile(info, io.BytesIO(stream.getvalue()))
