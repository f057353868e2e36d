"""MindEye2's prepared core data: standardized betas of nsdgeneral, image indices, images at 224 pixels."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.checks_core import check_design, check_prepared_rows
from nsdbench.data.checks_files import Warnings, check_finite
from nsdbench.data.checks_masks import checked_voxels
from nsdbench.data.core import CoreSource
from nsdbench.data.design import CoreTrials, core_trials, count_repeats, read_design
from nsdbench.data.foreign import own_dataset
from nsdbench.data.layout import again, fetch_command, require
from nsdbench.data.options import LoadOptions
from nsdbench.data.rois import Voxels
from nsdbench.errors import DataError, IntegrityError, ProtocolError
from nsdbench.plainarrays import load_npy

INDEX_NAME = "COCO_73k_subj_indices.hdf5"
SHARED_NAME = "shared1000.npy"
MAX_BEHAVIOUR_BYTES = 2**20
IMAGES_NAME = "coco_images_224_float16.hdf5"


def require_plain(options: LoadOptions) -> None:
    """Raise a ProtocolError unless the options can be served from MindEye2's prepared betas."""
    if (options.core_norm, options.beta_version, options.roi) != ("train_stats", "b3", "nsdgeneral"):
        raise ProtocolError(
            "the prepared MindEye2 betas are b3, nsdgeneral, standardized by training statistics; "
            f"{options.beta_version}, {options.roi}, {options.core_norm} cannot be made from them",
            remedy="Fetch the raw session betas of this subject (nsdbench data fetch --for train --source bucket), or "
            "use the default options.",
        )


@dataclass(frozen=True)  # once more, so that __post_init__ is called
class PreparedCore(CoreSource):
    """Core trials of one subject from ``betas_all_subj0X_fp32_renorm.hdf5``.

    The file holds b3 betas of nsdgeneral in ``xyz_c`` order, already standardized by the pooled statistics of the
    non-shared trials; other preparations cannot be made from it.
    """

    normalized = True

    def __post_init__(self) -> None:
        require_plain(self.options)

    @property
    def path(self) -> Path:
        """The prepared beta file."""
        path = self.layout.prepared_betas(self.subject)
        if path is None:
            raise DataError(f"{self.layout.root} has no prepared betas of subject {self.subject}")
        return path

    @property
    def index(self) -> Path:
        """The file that names the image of every trial."""
        return self.path.with_name(INDEX_NAME)

    def files(self) -> list[Path]:
        layout = self.layout
        shared = self.path.with_name(SHARED_NAME)
        return [
            self.path,
            self.index,
            shared,
            layout.design,
            layout.pair_list("B"),
            *layout.rois(self.subject),
        ]

    @cached_property
    def trials(self) -> CoreTrials:
        """Trials by the image index, test images by ``shared1000.npy`` or the design file."""
        image = read_index(self.index, self.subject)
        expected = self.facts.sessions * self.expectations.trials_per_session
        if len(image) != expected:
            raise IntegrityError(
                "prepared_rows", f"{self.index} names {len(image)} trials, expected {expected}"
            )
        per_session = self.expectations.trials_per_session
        session = np.arange(len(image)) // per_session + 1
        return CoreTrials(image, session, count_repeats(image), self._shared(image))

    def _shared(self, image: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.layout.design.is_file():
            design = read_design(self.layout.design)
            check_design(design, self.expectations, self.subject)
            known = core_trials(
                design, self.subject, self.facts.sessions, self.expectations.trials_per_session
            )
            if not np.array_equal(known.image, image):
                raise IntegrityError(
                    "prepared_rows",
                    f"{self.index} and {design.path} name different images",
                    remedy="Fetch both again.",
                )
            return known.shared
        path = require(self.path.with_name(SHARED_NAME))
        try:
            mask = load_npy(path)
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is not a NumPy array ({error})", remedy=again(path)) from error
        if mask.shape != (self.expectations.n_images,) or mask.sum() != self.expectations.n_shared:
            raise IntegrityError(
                "test_set",
                f"{path} marks {int(mask.sum())} of {mask.size} images as shared, expected "
                f"{self.expectations.n_shared} of {self.expectations.n_images}",
            )
        return np.asarray(mask.astype(bool)[image])

    @cached_property
    def voxels(self) -> Voxels:
        """Voxels by the raw masks where present; otherwise columns without coordinates or regions."""
        if self.layout.roi(self.subject, "nsdgeneral").is_file():
            return checked_voxels(self.layout, self.subject, self.facts, self.options)
        if self.options.voxel_order != "xyz_c":
            raise DataError(
                "another voxel order of prepared betas needs the mask",
                remedy=f"Fetch it: `{fetch_command(self.layout.roi(self.subject, 'nsdgeneral'))}`.",
            )
        n = self.facts.n_voxels
        return Voxels(self.facts.grid, np.full((n, 3), -1), {"nsdgeneral": np.ones(n, bool)})

    def read(self, session: int) -> tuple[NDArray[np.float32], Warnings]:
        import h5py

        start = (session - 1) * self.expectations.trials_per_session
        with _open(self.path) as file:
            data = own_dataset(file, "betas") if "betas" in file.keys() else None  # noqa: SIM118
            if not isinstance(data, h5py.Dataset) or data.dtype != np.float32:
                raise IntegrityError("beta_file", f"{self.path} has no float32 dataset /betas")
            check_prepared_rows(self.path, data.shape, self.facts, self.expectations.trials_per_session)
            block = data[start : start + self.expectations.trials_per_session]
        notes = check_finite(block, self.path)
        if self.options.voxel_order == "zyx_c":
            block = block[:, self.voxels.xyz_ranks()]  # columns are stored in xyz_c order
        return block, notes


def read_index(path: Path, subject: int) -> NDArray[np.int64]:
    """Return the 0-based image of every global trial of a subject."""
    with _open(require(path)) as file:
        name = f"subj{subject:02d}"
        if name not in file.keys():  # noqa: SIM118 - `in file` would follow a link
            raise DataError(f"{path} has no dataset {name}", remedy=again(path))
        return np.asarray(own_dataset(file, name)[:]).astype(np.int64).reshape(-1)


def read_behaviour(archive: Path) -> NDArray[np.float64]:
    """Return the ``behav`` rows of a webdataset archive, shape (n_samples, 17).

    Raises
    ------
    DataError
        If the archive is damaged or holds none.
    """
    try:
        with tarfile.open(archive, "r:") as tar:  # read in place: nothing is unpacked, so nothing can escape
            members = [
                m for m in tar if m.isfile() and m.name.endswith(".behav.npy") and "_behav" not in m.name
            ]
            if large := [m.name for m in members if m.size > MAX_BEHAVIOUR_BYTES]:
                raise ValueError(f"{large[0]} is too large for a row of behaviour")
            streams = (tar.extractfile(m) for m in members)
            rows = [np.load(BytesIO(s.read()), allow_pickle=False).reshape(-1, 17) for s in streams if s]
        return np.concatenate(rows).astype(np.float64)
    except (tarfile.TarError, OSError, ValueError, EOFError, MemoryError, SyntaxError) as error:
        raise DataError(
            f"{archive} has no readable behav rows ({error})", remedy="Download it again."
        ) from error


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise IntegrityError(
            "beta_file", f"{path} cannot be opened as HDF5 ({error})", remedy=again(path)
        ) from error
