"""Integrity checks 1 to 4 and 7 to 8: beta files and the values in them.

Every check has one stable name. It raises :class:`IntegrityError` under that name to refuse, and returns the
warnings that a result must carry.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.betas import SCALE, BetaHeader, read_betas
from nsdbench.data.facts import table
from nsdbench.data.fetched import changed
from nsdbench.data.layout import again
from nsdbench.data.rois import Grid, Voxels
from nsdbench.errors import IntegrityError
from nsdbench.store import sha256_file

Warnings = tuple[str, ...]
OK: Warnings = ()
_STEP = {"imagery": 1.0, "core": 4 / 3}  # seconds between released samples
MAX_DEAD = 0.01  # ours: share of voxels that may lack data
MAX_PERCENT = 110.0  # int16 / 300 reaches 109.2


def check_rows(header: BetaHeader, n_rows: int) -> Warnings:
    """Check 1, ``beta_rows``: the number of betas is the session's."""
    if header.n_rows != n_rows:
        raise IntegrityError(
            "beta_rows",
            f"{header.path} holds {header.n_rows} betas, the session has {n_rows}",
            remedy="NSD-Imagery has 720 rows (attention trials own two), a core session 750. "
            + again(header.path),
        )
    return OK


def check_grid(header: BetaHeader, grid: Grid) -> Warnings:
    """Check 1, ``beta_grid``: the axes are those of the subject's 1.8 mm volume."""
    if header.grid != grid:
        axes = " The axes are reversed: HDF5 must be (T, Z, Y, X)." if header.grid == grid[::-1] else ""
        raise IntegrityError(
            "beta_grid",
            f"{header.path} has grid {header.grid}, the subject has {grid}.{axes}",
            remedy="Use the func1pt8mm betas of this subject as released.",
        )
    return OK


def check_chunks(header: BetaHeader) -> Warnings:
    """Check 1, ``beta_chunks``: HDF5 chunks are single voxels' time courses, as released."""
    if header.scaling is None and header.chunks != (header.n_rows, 1, 1, 1):
        return (f"beta_chunks: {header.path.name} has chunks {header.chunks}, the release has (T, 1, 1, 1)",)
    return OK


def check_size(header: BetaHeader, *, real: bool) -> Warnings:
    """Check 2, ``beta_size``: an HDF5 of the real NSD is at least as large as its values.

    Generated data sets may leave voxels unallocated, which HDF5 reads as 0.
    """
    needed = int(np.prod(header.grid)) * header.n_rows * header.dtype.itemsize
    if real and header.scaling is None and header.path.stat().st_size < needed:
        raise IntegrityError(
            "beta_size",
            f"{header.path} has {header.path.stat().st_size} bytes, its values alone need {needed}",
            remedy=f"The download is incomplete. {again(header.path)}",
        )
    return OK


def check_object_hashes(root: Path) -> Warnings:
    """Check 2, ``object_hash``: SHA-256 of the few files for which others reported one (a single source each)."""
    notes = []
    for row in table("object_sha256"):
        path = root / row["s3_key"]
        if path.is_file() and (found := sha256_file(path)) != row["sha256"]:
            notes.append(
                f"object_hash: {row['s3_key']} has {found[:12]}..., others report {row['sha256'][:12]}..."
            )
    return tuple(notes)


def check_fetched(root: Path) -> Warnings:
    """Section 6, ``fetched``: files brought by ``data fetch`` are still what arrived. Files that are gone do not count."""
    return tuple(f"fetched: {key} is not what was fetched; {again(root / key)}" for key in changed(root))


def check_nifti_header(header: BetaHeader, kind: str) -> Warnings:
    """Check 3, ``nifti_header``: values are stored unscaled; sampling step and affine as released."""
    if header.scaling is None or header.affine is None:
        return OK
    if header.scaling != (1.0, 0.0):
        raise IntegrityError(
            "nifti_header",
            f"{header.path} scales its values by {header.scaling}; the release stores unscaled x300 integers",
            remedy="Use the file as released, not a re-saved copy.",
        )
    notes = []
    if header.step is None or abs(header.step - _STEP[kind]) > 1e-3:
        notes.append(
            f"nifti_header: {header.path.name} has step {header.step} s, the release {_STEP[kind]:.4g} s"
        )
    if not np.allclose(header.affine[:3, :3], np.eye(3) * 1.8, atol=1e-3):
        notes.append(f"nifti_header: {header.path.name} is not on a diagonal 1.8 mm grid")
    return tuple(notes)


def check_header(header: BetaHeader, n_rows: int, grid: Grid, *, kind: str, real: bool) -> Warnings:
    """Run every header check that the loader needs before it reads."""
    return (
        check_rows(header, n_rows)
        + check_grid(header, grid)
        + check_chunks(header)
        + check_size(header, real=real)
        + check_nifti_header(header, kind)
    )


def check_formats_agree(first: Path, second: Path, voxels: Voxels) -> Warnings:
    """Check 4, ``formats_agree``: HDF5 and NIfTI hold the same values at 50 random voxels."""
    rng = np.random.default_rng(np.random.SeedSequence([len(voxels), 4]))
    sample = voxels.subset(rng.choice(len(voxels), min(50, len(voxels)), replace=False))
    differ = np.any(read_betas(first, sample) != read_betas(second, sample), axis=0)
    if differ.any():
        x, y, z = sample.coordinates[int(np.argmax(differ))]
        raise IntegrityError(
            "formats_agree",
            f"{first.name} and {second.name} differ at {int(differ.sum())} of {len(sample)} voxels, "
            f"first at x={x}, y={y}, z={z}",
            remedy="One of the two is damaged or was written with other axes; fetch both again.",
        )
    return OK


def check_finite(percent: NDArray[np.float32], where: Path) -> Warnings:
    """Check 8, ``finite``: no NaN or infinity (invalid voxels are stored as 0)."""
    bad = ~np.isfinite(percent)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise IntegrityError(
            "finite",
            f"{where} has {int(bad.sum())} values that are not finite, first at row {row}, voxel column {column}",
            remedy="NSD stores invalid voxels as 0; this file was changed after its release.",
        )
    return OK


def check_range(percent: NDArray[np.float32], where: Path) -> Warnings:
    """Check 8, ``psc_range``: no value beyond what int16 / 300 can hold."""
    top = float(np.abs(percent).max(initial=0.0))
    if top > MAX_PERCENT:
        raise IntegrityError(
            "psc_range",
            f"{where} reaches {top:.0f} % signal change; the release cannot hold more than 109.2 %",
            remedy=f"Was the factor {SCALE:.0f} applied twice?",
        )
    return OK


def check_scale(percent: NDArray[np.float32], where: Path) -> Warnings:
    """Check 8, ``psc_scale``: the median magnitude is that of percent signal change (thresholds ours).

    Looks at up to 512 voxels spread over the columns; a wrong factor shows in all of them.
    """
    median = float(np.median(np.abs(percent[:, :: -(-percent.shape[1] // 512)])))
    if median > 50:
        return (
            f"psc_scale: {where.name} has median |signal| {median:.0f} %: the factor 300 was not removed",
        )
    if median < 0.01:
        return (f"psc_scale: {where.name} has median |signal| {median:.2g} %: divided by 300 twice",)
    return OK


def check_values(percent: NDArray[np.float32], where: Path) -> Warnings:
    """Run the value checks on freshly converted betas."""
    return check_finite(percent, where) + check_range(percent, where) + check_scale(percent, where)


def check_dead_voxels(dead: NDArray[np.bool_], what: str, *, may_fail: bool = True) -> Warnings:
    """Check 7, ``dead_voxels``: few voxels lack data; they are kept as 0 so that columns keep their meaning."""
    if not dead.any():
        return OK
    columns = ", ".join(map(str, np.flatnonzero(dead)[:10]))
    message = f"{int(dead.sum())} of {len(dead)} voxels {what} (columns {columns})"
    if may_fail and dead.mean() > MAX_DEAD:
        raise IntegrityError(
            "dead_voxels",
            f"{message}; more than {MAX_DEAD:.0%} is too many",
            remedy="Check that mask and betas belong to the same subject and session.",
        )
    return (f"dead_voxels: {message}",)
