"""Writers of the real dataset's file formats, byte for byte reproducible."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

VOXEL_MM = 1.8
_MAT_HEADER = b"MATLAB 5.0 MAT-file, simulated by nsdbench"
_MAT_HEADER_LENGTH = 116


def write_nifti(path: Path, volume: NDArray[Any]) -> None:
    """Write a volume (X, Y, Z) as the real files are: 1.8 mm, sform only, slope 0 so that nothing is rescaled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = np.array(volume.shape)
    header_class: Any = nib.Nifti1Header  # untyped
    header = header_class(endianness="<")
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(volume.shape)
    header.set_zooms((VOXEL_MM,) * 3)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = (1 - (shape + 1) / 2) * VOXEL_MM  # the centre of the slab is the origin
    header.set_sform(affine, code=1)
    header.set_qform(None, code=0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    header["scl_slope"] = 0
    header["scl_inter"] = 0
    body = header.binaryblock + bytes(4) + volume.astype(volume.dtype.newbyteorder("<")).tobytes(order="F")
    path.write_bytes(gzip.compress(body, compresslevel=6, mtime=0))


def write_betas(
    path: Path, psc: NDArray[np.float32], where: NDArray[np.int64], grid: tuple[int, int, int]
) -> None:
    """Write ``/betas``: int16 of 300 times percent signal change, (T, Z, Y, X), one chunk per voxel.

    Parameters
    ----------
    psc : float32 array of shape (n_trials, n_brain)
        Percent signal change of the brain voxels.
    where : int array of shape (n_brain,)
        C-order indices of those voxels in the (X, Y, Z) grid; all others are 0.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.zeros((int(np.prod(grid)), len(psc)), np.int16)
    scaled = psc.T * np.float32(300)
    rounded = np.copysign(
        np.floor(np.abs(scaled) + np.float32(0.5)), scaled
    )  # half away from zero, as MATLAB does
    stored[where] = np.clip(rounded, -32767, 32767).astype(np.int16)
    volume = stored.reshape(*grid, len(psc)).transpose(3, 2, 1, 0)
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "betas", data=np.ascontiguousarray(volume), chunks=(len(psc), 1, 1, 1), track_times=False
        )


def write_images(path: Path, images: NDArray[np.uint8]) -> None:
    """Write ``imgBrick`` (n, side, side, 3), one chunk per image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=images, chunks=(1, *images.shape[1:]), track_times=False)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_mat(path: Path, variables: Mapping[str, Any]) -> None:
    """Write a MATLAB 5 file with a fixed header text; SciPy's names the hour of writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, dict(variables), do_compression=True)
    with path.open("r+b") as file:
        file.write(_MAT_HEADER.ljust(_MAT_HEADER_LENGTH))


def cell(rows: Iterable[Iterable[Any]]) -> NDArray[np.object_]:
    """Return nested values as an object array, which MATLAB reads as a cell array."""
    values = [list(row) for row in rows]
    array = np.empty((len(values), len(values[0])), object)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            array[i, j] = value
    return array


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write tab-separated values with full precision; NaN is written ``NaN``, None as an empty field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(_field(value) for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    number = float(value)
    return "NaN" if np.isnan(number) else f"{number:.20g}"


def write_truth(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as an uncompressed ``.npz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **dict(arrays))


def write_document(path: Path, value: Any) -> None:
    """Write indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
