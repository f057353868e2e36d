"""Where the voxels are: a small grid per subject, its brain, and the ROI volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsdbench.data import facts

Volume = NDArray[np.int16]

REAL_NSDGENERAL_1 = 15724
"""nsdgeneral voxels of the real subj01; its ROI proportions are used for every simulated subject."""
EARLY = {"V1v": 594, "V1d": 756, "V2v": 834, "V2d": 599, "V3v": 646, "V3d": 541, "hV4": 687}
EARLIEST = tuple(EARLY)[:6]
"""V1, V2 and V3."""
HIGH = ("ventral", "lateral", "parietal")
REGIONS = (*EARLY, *HIGH)
STREAM_LABELS = {**dict.fromkeys(EARLIEST, 1), "hV4": 2, "ventral": 5, "lateral": 6, "parietal": 7}
_BRAIN, _CORTEX = 1.40, 1.22  # voxels in the brain and in cortex per nsdgeneral voxel


@dataclass(frozen=True)
class Anatomy:
    """Geometry of one subject.

    Attributes
    ----------
    nsdgeneral, prf, streams : int16 arrays of shape (X, Y, Z)
        -1 outside cortex, 0 cortex without label, 1..N labels.
    brain : int16 array of shape (X, Y, Z)
        1 where betas are defined, 0 where they are zero.
    region : int array of shape (n_voxels,)
        Index into ``REGIONS`` of each nsdgeneral voxel, in C order of the (X, Y, Z) mask.
    """

    nsdgeneral: Volume
    prf: Volume
    streams: Volume
    brain: Volume
    region: NDArray[np.int64]

    @property
    def grid(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        x, y, z = self.nsdgeneral.shape
        return x, y, z

    @property
    def n_voxels(self) -> int:
        """Voxels of nsdgeneral."""
        return len(self.region)


def build_anatomy(subject: int, voxel_divisor: int) -> Anatomy:
    """Return the anatomy of ``subject`` with the real nsdgeneral count divided by ``voxel_divisor``."""
    real = facts.nsd_expectations().of(subject)
    n_voxels = int(real.n_voxels / voxel_divisor + 0.5)
    grid = _grid(np.array(real.grid), (2.0 - 0.05 * subject) * n_voxels)
    x, y, z = (a.ravel() for a in np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing="ij"))
    inward = np.argsort(x**2 + y**2 + z**2, kind="stable")
    brain = np.sort(inward[: round(_BRAIN * n_voxels)])
    backward = brain[np.argsort(y[brain], kind="stable")]  # posterior first, as y grows towards the front
    general, cortex = backward[:n_voxels], backward[: round(_CORTEX * n_voxels)]
    region = np.full(len(x), -1)
    region[general] = _regions(general, y, z)
    return Anatomy(
        nsdgeneral=_volume(grid, cortex, general, np.ones(n_voxels)),
        prf=_labels(grid, cortex, region, {name: i + 1 for i, name in enumerate(EARLY)}),
        streams=_labels(grid, cortex, region, STREAM_LABELS),
        brain=(_volume(grid, cortex, brain, np.ones(len(brain))) == 1).astype(np.int16),
        region=region[region >= 0],
    )


def _grid(real: NDArray[np.int64], n_cells: float) -> tuple[int, int, int]:
    """Return a grid of the real proportions, without equal sides so that swapped axes cannot go unnoticed."""
    scale = (n_cells / real.prod()) ** (1 / 3)
    nx, ny, nz = (int(n) for n in np.ceil(real * scale))
    return nx, max(ny, nx + 2), nz + 1 if nz == nx else nz


def _regions(general: NDArray[np.int64], y: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the region of each nsdgeneral voxel; ``general`` goes from posterior to anterior."""
    counts = {name: round(n * len(general) / REAL_NSDGENERAL_1) for name, n in EARLY.items()}
    label = np.empty(len(general), np.int64)
    early = np.arange(sum(counts.values()))
    upward = early[np.argsort(z[general[early]], kind="stable")]
    n_ventral = sum(n for name, n in counts.items() if not name.endswith("d"))
    for half, suffixes in ((upward[:n_ventral], "v4"), (upward[n_ventral:], "d")):
        outward = half[np.argsort(y[general[half]], kind="stable")]
        names = [name for name in EARLY if name[-1] in suffixes]
        label[outward] = np.repeat([REGIONS.index(n) for n in names], [counts[n] for n in names])
    rest = np.arange(len(early), len(general))
    rest = rest[np.argsort(z[general[rest]], kind="stable")]
    cuts = np.round(np.array([0.4, 0.8]) * len(rest)).astype(int)
    for name, part in zip(HIGH, np.split(rest, cuts), strict=True):
        label[part] = REGIONS.index(name)
    return label


def _labels(
    grid: tuple[int, int, int], cortex: NDArray[np.int64], region: NDArray[np.int64], values: dict[str, int]
) -> Volume:
    """Return a label volume. As in the real maps, some labelled voxels lie outside nsdgeneral."""
    label = np.zeros(len(region))
    for name, value in values.items():
        label[region == REGIONS.index(name)] = value
    outside = cortex[region[cortex] < 0]
    label[outside[::4]] = max(values.values())
    return _volume(grid, cortex, cortex, label[cortex])


def _volume(
    grid: tuple[int, int, int],
    cortex: NDArray[np.int64],
    where: NDArray[np.int64],
    values: NDArray[np.float64],
) -> Volume:
    volume = np.full(int(np.prod(grid)), -1, np.int16)
    volume[cortex] = 0
    volume[where] = values
    return volume.reshape(grid)
