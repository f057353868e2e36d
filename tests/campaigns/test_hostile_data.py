"""A data directory that somebody else filled to harm: the check that meets the file fails and says why."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hostile_files as hostile
import nibabel
import numpy as np
import pytest
import scipy.io
from hostile_cases import harmless
from own_process import OwnProcesses

pytestmark = pytest.mark.slow
BETAS, MASK = "**/betas_session01.hdf5", "**/nsdgeneral.nii.gz"
DESIGN, BRICK, TABLE = "**/nsd_expdesign.mat", "**/nsd_stimuli.hdf5", "**/responses.tsv"


def linked(name: str) -> Callable[[Path], Any]:
    def make(path: Path) -> None:
        os.mkfifo(path.with_name("pipe.h5"))  # who opens it waits for ever
        with h5py.File(path, "w") as file:
            file[name] = h5py.ExternalLink("pipe.h5", "/x")

    return make


def gigantic(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", (30, 10**5, 10**5, 10**5), np.int16, chunks=(30, 1, 1, 1))


def volume(side: int) -> Callable[[Path], Any]:
    """Write a volume that is mostly declared."""
    header = bytearray(nibabel.Nifti1Header().binaryblock)
    header[40:56] = struct.pack("<8h", 3, side, side, side, 1, 1, 1, 1)
    header[70:74] = struct.pack("<hh", 4, 16)
    header[108:112] = struct.pack("<f", 352)
    header[344:348] = b"n+1\0"
    return lambda path: path.write_bytes(gzip.compress(bytes(header) + bytes(2**20)))


def endless_matrix(path: Path) -> None:
    shape = struct.pack("<iiii", 5, 8, 1, 4)
    scipy.io.savemat(path, {"masterordering": np.zeros((1, 4)), "subjectim": np.zeros((8, 4))})
    text = path.read_bytes()
    assert shape in text
    path.write_bytes(text.replace(shape, struct.pack("<iiii", 5, 8, 2**30, 2**30)))


FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "design-is-a-pickle": (DESIGN, lambda p: p.write_bytes(hostile.pickled(p)), "is not a readable MATLAB file"),
    "design-without-end": (DESIGN, endless_matrix, "is not a readable MATLAB file"),
    "betas-are-a-pickle": (BETAS, lambda p: p.write_bytes(hostile.pickled(p)), "cannot be opened as HDF5"),
    "betas-link-to-a-pipe": (BETAS, linked("betas"), "is a link to somewhere else"),
    "betas-of-petabytes": (BETAS, gigantic, "has grid (100000, 100000, 100000)"),
    "images-link-to-a-pipe": (BRICK, linked("imgBrick"), "is a link to somewhere else"),
    "mask-of-terabytes": (MASK, volume(32767), "declares a volume of shape"),
    "mask-is-a-pickle": (MASK, lambda p: p.write_bytes(hostile.pickled(p)), "cannot be read as NIfTI"),
    "table-of-nul-bytes": (TABLE, lambda p: p.write_bytes(bytes(1000)), "has no column"),
    "table-of-one-word": (TABLE, lambda p: p.write_bytes(b"a" * 10**7), "is not a readable table"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_data_file_fails_its_check(
    case: str, processes: OwnProcesses, tiny_root: Path, ground: Path
) -> None:
    pattern, make, said = FILES[case]
    shutil.copytree(tiny_root, ground / "d", copy_function=os.link)
    path = next((ground / "d").glob(pattern))
    path.unlink()
    make(path)
    outcome = processes.run(("data", "verify", "--data-dir", "d", "--subject", "1"), ground)
    harmless(outcome, ground)
    assert outcome.code in (1, 2), outcome
    assert said in outcome.shown
    assert "Traceback" not in outcome.shown
    assert "unexpected" not in outcome.err
