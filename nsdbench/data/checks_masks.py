"""Integrity checks 5 and 7 on volumes: the mask is the subject's, and its voxels were measured."""

from __future__ import annotations

import numpy as np

from nsdbench.data.checks_files import OK, Warnings, check_dead_voxels
from nsdbench.data.facts import SubjectFacts
from nsdbench.data.layout import Layout
from nsdbench.data.options import LoadOptions
from nsdbench.data.rois import Voxels, load_voxels, read_volume
from nsdbench.errors import IntegrityError


def check_roi_count(n_general: int, expected: int) -> Warnings:
    """Check 5, ``roi_count``: nsdgeneral has the subject's number of voxels."""
    if n_general != expected:
        raise IntegrityError(
            "roi_count",
            f"nsdgeneral has {n_general} voxels, this subject's has {expected}",
            remedy="Is this the mask of another subject, or of another resolution?",
        )
    return OK


def checked_voxels(layout: Layout, subject: int, facts: SubjectFacts, options: LoadOptions) -> Voxels:
    """Return the voxels that the options choose, after the checks of their mask."""
    voxels = load_voxels(layout, subject, facts.grid, roi=options.roi, order=options.voxel_order)
    if options.roi == "nsdgeneral":
        check_roi_count(len(voxels), facts.n_voxels)
    return voxels


def check_valid_volumes(layout: Layout, subject: int, voxels: Voxels) -> Warnings:
    """Check 7, ``dead_voxels``: voxels outside the brain mask or invalid in the NSD-Imagery session."""
    notes: Warnings = OK
    for name, what in (
        ("brainmask", "lie outside the brain mask"),
        ("valid_nsdimagery", "are invalid in the NSD-Imagery session"),
    ):
        path = layout.anatomy(subject) / f"{name}.nii.gz"
        if path.is_file():
            volume = read_volume(path)
            if volume.shape != voxels.grid:
                raise IntegrityError(
                    "roi_grid", f"{path} has grid {volume.shape}, the subject has {voxels.grid}"
                )
            notes += check_dead_voxels(np.asarray(voxels.pick(volume) == 0), what)
    return notes
