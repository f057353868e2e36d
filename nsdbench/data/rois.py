"""Which voxels are read, in which order, and the regions they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.foreign import nifti_damage
from nsdbench.data.layout import Layout, again, require
from nsdbench.errors import DataError, IntegrityError

VoxelOrder = Literal["xyz_c", "zyx_c"]
Roi = Literal["nsdgeneral", "streams"]
Grid = tuple[int, int, int]

VISUAL_AREAS = {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "hV4": (7,)}
STREAMS = ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal")
MAX_VOXELS = 2**27  # eight times the largest volume of NSD, 320 voxels a side at 0.8 mm
_MAX_LABEL = {"nsdgeneral": 1, "prf-visualrois": 7, "streams": 7}


@dataclass(frozen=True)
class Voxels:
    """The voxel columns of a data set.

    Attributes
    ----------
    grid : (X, Y, Z)
        Shape of the volume in NIfTI orientation.
    coordinates : int array of shape (n_voxels, 3)
        0-based x, y, z of each column.
    rois : mapping of str to bool array of shape (n_voxels,)
        ``nsdgeneral``, ``V1``, ``V2``, ``V3``, ``hV4``, ``early``, ``high`` and ``stream_*`` where the volumes
        are present. ``early`` is V1 to hV4, ``high`` the rest of nsdgeneral.
    """

    grid: Grid
    coordinates: NDArray[np.int64]
    rois: Mapping[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.coordinates)

    def pick(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return the values of an (X, Y, Z) volume at the voxels, in column order."""
        x, y, z = self.coordinates.T
        values: NDArray[Any] = volume[x, y, z]
        return values

    def xyz_ranks(self) -> NDArray[np.int64]:
        """Return the position of each voxel in the C-order walk of the (X, Y, Z) mask."""
        x, y, z = self.coordinates.T
        return np.argsort(np.lexsort((z, y, x)))

    def subset(self, columns: NDArray[np.int64]) -> Voxels:
        """Return some of the voxels, in the order of ``columns``."""
        return Voxels(self.grid, self.coordinates[columns], {k: v[columns] for k, v in self.rois.items()})


def read_volume(path: Path) -> NDArray[Any]:
    """Read a three-dimensional NIfTI volume in (X, Y, Z) orientation.

    Raises
    ------
    DataError
        If the file is missing, damaged or not three-dimensional.
    """
    import nibabel

    try:
        image: Any = nibabel.load(require(path))
        if math.prod(image.shape) > MAX_VOXELS:  # compressed, a small file can hold any number of them
            raise DataError(f"{path} declares a volume of shape {image.shape}", remedy=again(path))
        volume: NDArray[Any] = np.asanyarray(image.dataobj)
    except nifti_damage() as error:
        raise DataError(f"{path} cannot be read as NIfTI ({error})", remedy=again(path)) from error
    if volume.ndim != 3:
        raise DataError(f"{path} has shape {volume.shape}; a three-dimensional volume is expected")
    return volume


def read_labels(path: Path, grid: Grid) -> NDArray[np.int16]:
    """Read an ROI volume: -1 outside cortex, 0 unlabelled cortex, 1 ... N labels.

    Raises
    ------
    IntegrityError
        ``roi_grid`` if its grid is not the subject's, ``roi_values`` for any other value.
    """
    volume = read_volume(path)
    if volume.shape != grid:
        raise IntegrityError(
            "roi_grid",
            f"{path} has grid {volume.shape}, the subject has {grid}",
            remedy="Is this the mask of another subject or resolution? Only func1pt8mm volumes fit.",
        )
    labels = np.rint(volume)  # the stored type is not documented
    top = _MAX_LABEL[path.name.removesuffix(".nii.gz")]
    if not np.array_equal(labels, volume) or labels.min() < -1 or labels.max() > top:
        raise IntegrityError(
            "roi_values", f"{path} has values outside -1, 0, 1 ... {top}", remedy=again(path)
        )
    return np.asarray(labels, np.int16)


def load_voxels(layout: Layout, subject: int, grid: Grid, *, roi: Roi, order: VoxelOrder) -> Voxels:
    """Return the voxels of ``roi`` (label > 0) in column order, with their regions.

    ``xyz_c`` walks the (X, Y, Z) volume with z fastest, as the MedARC and Brain Diffuser weights assume;
    ``zyx_c`` walks it with x fastest, as Takagi-style arrays do.
    """
    mask = read_labels(layout.roi(subject, roi), grid) > 0  # -1 is outside cortex, so never `!= 0`
    if not mask.any():
        raise IntegrityError("roi_count", f"{layout.roi(subject, roi)} selects no voxel")
    axes = np.argwhere(mask) if order == "xyz_c" else np.argwhere(mask.transpose(2, 1, 0))[:, ::-1]
    bare = Voxels(grid, np.ascontiguousarray(axes), {})
    return Voxels(grid, bare.coordinates, _regions(layout, subject, bare))


def _regions(layout: Layout, subject: int, voxels: Voxels) -> dict[str, NDArray[np.bool_]]:
    def labels(name: str) -> NDArray[Any]:
        return voxels.pick(read_labels(layout.roi(subject, name), voxels.grid))

    inside = np.asarray(labels("nsdgeneral") > 0)
    regions = {"nsdgeneral": inside}
    if layout.roi(subject, "prf-visualrois").is_file():
        areas = labels("prf-visualrois")
        regions |= {name: np.isin(areas, numbers) & inside for name, numbers in VISUAL_AREAS.items()}
        regions["early"] = np.asarray(areas > 0) & inside
        regions["high"] = inside & ~regions["early"]
    if layout.roi(subject, "streams").is_file():
        streams = labels("streams")
        regions |= {f"stream_{name}": np.asarray(streams == k) for k, name in enumerate(STREAMS, start=1)}
    return regions
