"""Integrity checks 16 to 20: the core NSD design, the test set, and prepared copies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.checks_files import OK, Warnings
from nsdbench.data.design import CoreTrials, Design
from nsdbench.data.facts import Expectations, SubjectFacts
from nsdbench.data.foreign import read_rows
from nsdbench.errors import DataError, IntegrityError

_SCALE_TOLERANCE = 0.05  # ours


def check_design(design: Design, expectations: Expectations, subject: int) -> Warnings:
    """Check 16, ``core_design``: all ids are 1-based and in range; shared images agree between subjects."""

    def refuse(detail: str) -> None:
        raise IntegrityError(
            "core_design",
            f"{design.path}: {detail}",
            remedy="Ids in this file are 1-based; download it again instead of converting it.",
        )

    n_ids, n_trials = (
        design.subjectim.shape[1],
        expectations.of(subject).sessions * expectations.trials_per_session,
    )
    if len(design.ordering) < n_trials:
        refuse(f"masterordering has {len(design.ordering)} trials, subject {subject} has {n_trials}")
    if design.ordering.min() < 1 or design.ordering.max() > n_ids:
        refuse(f"masterordering is not in 1 ... {n_ids}")
    if len(design.shared) != expectations.n_shared:
        refuse(f"sharedix has {len(design.shared)} images, {expectations.n_shared} are expected")
    if subject > len(design.subjectim):
        refuse(f"subjectim has no row for subject {subject}")
    own = design.subjectim[subject - 1]
    if own.min() < 1 or own.max() > expectations.n_images:
        refuse(f"subjectim of subject {subject} is not in 1 ... {expectations.n_images}")
    present = design.subjectim[design.subjectim.any(axis=1)]
    if np.any(present[:, : len(design.shared)] != design.shared):
        refuse("the shared images differ between subjects or from sharedix")
    if len(np.unique(own)) != n_ids:
        refuse(f"subjectim of subject {subject} names an image twice")
    return OK


def check_stim_info(path: Path, n_images: int) -> Warnings:
    """Check 16, ``stim_info``: ``nsdId`` is the 0-based row number."""
    rows = 0
    for rows, row in enumerate(read_rows(path, ["nsdId"]), start=1):
        if row["nsdId"] != str(rows - 1):
            raise IntegrityError(
                "stim_info",
                f"{path}, row {rows}: nsdId is {row['nsdId']}, expected {rows - 1} (0-based)",
                remedy="Download it again.",
            )
    if rows != n_images:
        raise IntegrityError(
            "stim_info", f"{path} has {rows} rows for {n_images} images", remedy="Download it again."
        )
    return OK


def check_responses(path: Path, trials: CoreTrials) -> Warnings:
    """Check 16, ``responses``: column 73KID of ``responses.tsv`` is the design's image on every trial."""
    try:
        shown = np.array([int(float(row["73KID"])) for row in read_rows(path, ["73KID"])])
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: 73KID is not a number ({error})", remedy="Download it again.") from error
    if len(shown) != len(trials.image):
        raise IntegrityError("responses", f"{path} has {len(shown)} trials, the design {len(trials.image)}")
    wrong = np.flatnonzero(shown - 1 != trials.image)
    if len(wrong):
        raise IntegrityError(
            "responses",
            f"{path}: 73KID differs from the design on {len(wrong)} trials, first in row {wrong[0] + 1}",
            remedy="Are the ids 0-based, or is this the file of another subject?",
        )
    return OK


def check_leakage(train: Iterable[int], held_out: Iterable[int]) -> Warnings:
    """Check 17, ``leakage``: no test image among the training images."""
    both = set(train) & set(held_out)
    if both:
        raise IntegrityError(
            "leakage",
            f"{len(both)} test images are among the training trials, first imgBrick row {min(both)}",
            remedy="Shared images and NSD-Imagery targets never enter a fit; the design file is inconsistent.",
        )
    return OK


def check_trial_repeats(trials: CoreTrials) -> Warnings:
    """Check 17, ``trial_repeats``: no image occurs more than three times."""
    if trials.repeat.max(initial=0) > 2:
        image = int(trials.image[np.argmax(trials.repeat)])
        raise IntegrityError(
            "trial_repeats", f"imgBrick row {image} occurs more than three times in the design"
        )
    return OK


def check_test_set(images: int, rows: int, definition: int, facts: SubjectFacts) -> Warnings:
    """Check 18, ``test_set``: the test set has the published number of images and trials."""
    if facts.shared_images is None or facts.shared_trials is None or facts.shared_trials_early is None:
        expected: tuple[int | None, int] | None = None
    elif definition == 515:
        expected = (515, 1545)
    elif definition == 982:
        expected = (982 if facts.sessions == 40 else None, facts.shared_trials_early)
    else:
        expected = (facts.shared_images, facts.shared_trials)
    if rows == 0 or (expected and (rows != expected[1] or expected[0] not in (None, images))):
        raise IntegrityError(
            "test_set",
            f"shared{definition} has {images} images in {rows} trials, expected {expected}",
            remedy="Is nsd_expdesign.mat the released file?",
        )
    return OK


def check_prepared_rows(
    path: Path, shape: tuple[int, ...], facts: SubjectFacts, trials_per_session: int
) -> Warnings:
    """Check 19, ``prepared_rows``: prepared betas have one row per trial and one column per nsdgeneral voxel."""
    expected = (facts.sessions * trials_per_session, facts.n_voxels)
    if shape != expected:
        raise IntegrityError(
            "prepared_rows",
            f"{path} has shape {shape}, expected {expected}",
            remedy="Download the file again.",
        )
    return OK


def check_prepared_scale(mean: NDArray[np.float64], std: NDArray[np.float64]) -> Warnings:
    """Check 19, ``prepared_scale``: training rows of prepared betas have mean 0 and deviation 1 per voxel."""
    live = std > 0
    odd = live & ((np.abs(mean) > _SCALE_TOLERANCE) | (np.abs(std - 1) > _SCALE_TOLERANCE))
    if odd.any():
        return (
            f"prepared_scale: {int(odd.sum())} of {len(odd)} voxels are not standardized over the training trials",
        )
    return OK


def check_behaviour_columns(rows: NDArray[np.float64], image: NDArray[np.int64], where: Path) -> Warnings:
    """Check 20, ``prepared_behav``: column 0 of ``behav`` is the image of the global trial in column 5."""
    trial = rows[:, 5].astype(np.int64)
    bad = (trial < 0) | (trial >= len(image))
    bad[~bad] = image[trial[~bad]] != rows[~bad, 0]
    if bad.any():
        raise IntegrityError(
            "prepared_behav",
            f"{where}: {int(bad.sum())} of {len(rows)} behav rows name another image than the index file",
            remedy="Do not use this webdataset together with this index file.",
        )
    return OK
