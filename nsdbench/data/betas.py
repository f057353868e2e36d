"""Masked reading of single-trial beta files, HDF5 and NIfTI, with bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.foreign import nifti_damage, own_dataset
from nsdbench.data.layout import again
from nsdbench.data.rois import Grid, Voxels
from nsdbench.errors import IntegrityError

SCALE = 300.0  # betas are stored as round(300 x percent signal change)


@dataclass(frozen=True)
class BetaHeader:
    """What the header of a beta file says, in NIfTI orientation.

    ``chunks`` is None for NIfTI; ``scaling`` (slope and intercept that a reader would apply; 1 and 0 if the file
    says none), ``step`` (fourth pixdim, seconds) and ``affine`` are None for HDF5.
    """

    path: Path
    n_rows: int
    grid: Grid
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None = None
    scaling: tuple[float, float] | None = None
    step: float | None = None
    affine: NDArray[np.float64] | None = None


def read_header(path: Path) -> BetaHeader:
    """Open a beta file and return its header.

    Raises
    ------
    IntegrityError
        ``beta_file`` if the file cannot be opened, has no four-dimensional ``/betas``, or holds an odd type.
    """
    return _nifti_header(path) if path.name.endswith((".nii", ".nii.gz")) else _hdf5_header(path)


def _hdf5_header(path: Path) -> BetaHeader:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = own_dataset(file, "betas") if "betas" in file.keys() else None  # noqa: SIM118
            if not isinstance(data, h5py.Dataset) or data.ndim != 4 or data.dtype != np.int16:
                raise IntegrityError(
                    "beta_file",
                    f"{path} has no int16 dataset /betas with four axes",
                    remedy="NSD betas are int16, written as round(300 x percent); is this another file?",
                )
            rows, z, y, x = data.shape
            return BetaHeader(path, rows, (x, y, z), data.dtype, chunks=data.chunks)
    except OSError as error:
        raise IntegrityError(
            "beta_file", f"{path} cannot be opened as HDF5 ({error})", remedy=again(path)
        ) from error


def _nifti_header(path: Path) -> BetaHeader:
    import nibabel

    try:
        image: Any = nibabel.load(path)
        header = image.header
        x, y, z, rows = header.get_data_shape()
    except nifti_damage() as error:
        raise IntegrityError(
            "beta_file", f"{path} cannot be opened as four-dimensional NIfTI ({error})", remedy=again(path)
        ) from error
    dtype = header.get_data_dtype()
    if dtype.kind not in "if":
        raise IntegrityError("beta_file", f"{path} holds {dtype}; int16 or float betas are expected")
    return BetaHeader(
        path,
        int(rows),
        (int(x), int(y), int(z)),
        dtype,
        scaling=(float(image.dataobj.slope), float(image.dataobj.inter)),
        step=float(header["pixdim"][4]),
        affine=np.asarray(image.affine, np.float64),
    )


def read_betas(path: Path, voxels: Voxels) -> NDArray[np.generic]:
    """Return the stored values of the voxels, shape (n_rows, n_voxels), in the stored type.

    HDF5 files are read one image row at a time (their chunks are single voxels' time courses), NIfTI files one
    volume at a time, so memory is the result plus one row or volume.

    Raises
    ------
    IntegrityError
        ``beta_values`` if the data end early or are damaged.
    """
    header = read_header(path)
    read = _read_hdf5 if header.scaling is None else _read_nifti
    try:
        return read(header, voxels)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise IntegrityError("beta_values", f"{path} is damaged: {error}", remedy=again(path)) from error


def _read_hdf5(header: BetaHeader, voxels: Voxels) -> NDArray[np.generic]:
    import h5py

    values = np.empty((header.n_rows, len(voxels)), header.dtype)
    with h5py.File(header.path, "r") as file:
        data = file["betas"]
        read = _time_courses if _is_plain(data) else _row_slab
        for z, y, columns, x in _image_rows(voxels.coordinates):
            values[:, columns] = read(data, z, y, x)
    return values


def _is_plain(data: Any) -> bool:
    """Return True if every chunk is one voxel's time course, stored as it is, as in the release."""
    return bool(data.chunks == (data.shape[0], 1, 1, 1) and data.id.get_create_plist().get_nfilters() == 0)


def _time_courses(data: Any, z: int, y: int, x: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return the time courses of voxels of an image row, chunk by chunk: four times as fast as a selection."""
    try:
        chunks = [data.id.read_direct_chunk((0, z, y, i))[1] for i in x.tolist()]
    except (OSError, RuntimeError):  # damage, or a chunk that was never written and reads as the fill value
        return _row_slab(data, z, y, x)
    return np.frombuffer(b"".join(chunks), data.dtype).reshape(len(x), -1).T


def _row_slab(data: Any, z: int, y: int, x: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return the time courses of voxels of an image row through one selection that spans them."""
    low = int(x.min())
    slab: NDArray[np.generic] = data[:, z, y, low : int(x.max()) + 1]  # h5py shows the axes as (T, Z, Y, X)
    return slab[:, x - low]


def _image_rows(
    coordinates: NDArray[np.int64],
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield z, y, the columns and the x positions of every image row that holds a voxel."""
    x, y, z = coordinates.T
    order = np.lexsort((x, y, z))
    new = (np.diff(z[order]) != 0) | (np.diff(y[order]) != 0)
    for columns in np.split(order, np.flatnonzero(new) + 1):
        yield int(z[columns[0]]), int(y[columns[0]]), columns, x[columns]


def _read_nifti(header: BetaHeader, voxels: Voxels) -> NDArray[np.generic]:
    import nibabel

    offset = int(nibabel.load(header.path).dataobj.offset)  # type: ignore[attr-defined]
    size = int(np.prod(header.grid)) * header.dtype.itemsize
    flat = np.ravel_multi_index(tuple(voxels.coordinates.T), header.grid, order="F")
    values = np.empty((header.n_rows, len(voxels)), header.dtype.newbyteorder("="))
    opener: Any = gzip.open if header.path.name.endswith(".gz") else open
    with opener(header.path, "rb") as stream:
        stream.seek(offset)
        for row in range(header.n_rows):
            volume = stream.read(size)
            if len(volume) < size:
                raise EOFError(f"volume {row + 1} of {header.n_rows} is cut off")
            values[row] = np.frombuffer(volume, header.dtype)[flat]
    return values


def to_percent(stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return percent signal change: the stored values divided by 300. The only place that divides."""
    return np.asarray(np.divide(stored, np.float32(SCALE), dtype=np.float32))
