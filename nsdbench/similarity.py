"""The similarity matrices of a run: every reconstruction against every ground truth of its pool, per metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench.errors import DataError
from nsdbench.plainarrays import load_npz
from nsdbench.store import atomic_path


@dataclass(frozen=True)
class Similarities:
    """What identification, and every test of it, is a function of.

    Attributes
    ----------
    matrices : mapping of str to float64 array of shape (n_pool, n_targets, n_samples)
        Per metric; alternatives in rows, 0 where undefined. Retrieval has one "sample".
    pool_ids, targets : tuple of str
        Stimulus ids of the first and second axis, ascending; the targets are among the pool.
    """

    matrices: Mapping[str, NDArray[np.float64]]
    pool_ids: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def truth_row(self) -> NDArray[np.int64]:
        """Row of each target in the pool."""
        place = {stimulus: row for row, stimulus in enumerate(self.pool_ids)}
        return np.array([place[target] for target in self.targets], np.int64)


def file_name(profile: str) -> str:
    """Return the name of the file in a run folder that holds the matrices of one metric profile."""
    return f"similarity-{profile}.npz"


def write(path: Path, found: Similarities) -> None:
    """Write matrices as ``.npz``, atomically: ``r/<metric>`` (float64), ``pool_ids`` and ``targets``."""
    arrays = {f"r/{metric}": matrix for metric, matrix in found.matrices.items()}
    names = {"pool_ids": np.array(found.pool_ids), "targets": np.array(found.targets)}
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, **names, **arrays)


def read(path: Path) -> Similarities:
    """Read what :func:`write` wrote.

    Raises
    ------
    DataError
        If the file is missing, damaged, or something else.
    """
    try:
        arrays = load_npz(path)
        found = Similarities(
            {name.removeprefix("r/"): values for name, values in arrays.items() if name.startswith("r/")},
            tuple(arrays["pool_ids"].tolist()),
            tuple(arrays["targets"].tolist()),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    if fault := _fault(found):
        raise _damaged(path, fault)
    return found


def _fault(found: Similarities) -> str:
    """Say what is wrong with matrices and ids; empty if nothing is."""
    if not found.targets or not all(isinstance(name, str) for name in (*found.pool_ids, *found.targets)):
        return "no targets, or ids that are no text"
    if any(list(ids) != sorted(set(ids)) for ids in (found.pool_ids, found.targets)):
        return "ids are not ascending"
    if not set(found.targets) <= set(found.pool_ids):
        return "a target is not in the pool"
    axes = (len(found.pool_ids), len(found.targets))
    for matrix in found.matrices.values():
        if matrix.ndim != 3 or matrix.shape[:2] != axes or not matrix.size:
            return "shapes do not fit the ids"
        if matrix.dtype != np.float64 or not np.isfinite(matrix).all():
            return "not all similarities are finite numbers"
    return ""


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} holds no readable similarity matrices ({why})",
        remedy="Delete it; what is scored from then on has its matrices again.",
    )
