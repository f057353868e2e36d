"""The core NSD design: which image each trial showed, and which trials are the test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.foreign import read_mat
from nsdbench.data.layout import again
from nsdbench.errors import DataError, ProtocolError

Ints = NDArray[np.int64]
EARLY_SESSIONS = 30  # what every subject completed; defines the 515 images
WITHHELD_SESSIONS = 3  # released in 2023 only; papers before used the rest, which leaves 982 images


@dataclass(frozen=True)
class Design:
    """``nsd_expdesign.mat``; all ids are 1-based as stored.

    Attributes
    ----------
    ordering : int array of shape (n_trials,)
        10k id shown on each trial, the same for all subjects.
    subjectim : int array of shape (n_subjects, n_ids)
        73k id of each 10k id; rows of subjects without data are 0.
    shared : int array of shape (n_shared,)
        73k ids of the shared images: 10k ids 1 ... n_shared.
    """

    path: Path
    ordering: Ints
    subjectim: Ints
    shared: Ints


@dataclass(frozen=True)
class CoreTrials:
    """The trials of one subject in acquisition order; all arrays have one entry per trial.

    Attributes
    ----------
    image : int array
        0-based row of ``imgBrick``.
    session : int array
        1-based session.
    repeat : int array
        0-based repeat of the image.
    shared : bool array
        Whether the image is a shared (test) image.
    """

    image: Ints
    session: Ints
    repeat: Ints
    shared: NDArray[np.bool_]


def read_design(path: Path) -> Design:
    """Read ``nsd_expdesign.mat``.

    Raises
    ------
    DataError
        If the file is missing, damaged or lacks a variable.
    """
    loaded = read_mat(path, ["masterordering", "subjectim", "sharedix"])
    try:
        ordering, subjectim, shared = (np.asarray(array).astype(np.int64) for array in loaded)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} holds other things than numbers ({error})", remedy=again(path)) from error
    return Design(path, ordering.reshape(-1), np.atleast_2d(subjectim), shared.reshape(-1))


def core_trials(design: Design, subject: int, sessions: int, trials_per_session: int) -> CoreTrials:
    """Return the trials of a subject: 73k id = ``subjectim[subject, masterordering[trial]]``."""
    n = sessions * trials_per_session
    ids = design.ordering[:n]
    return CoreTrials(
        image=design.subjectim[subject - 1, ids - 1] - 1,
        session=np.arange(n) // trials_per_session + 1,
        repeat=count_repeats(ids),
        shared=ids <= len(design.shared),
    )


def count_repeats(ids: NDArray[Any] | Sequence[str]) -> Ints:
    """Return how often each entry occurred before: 0 for the first, 1 for the second, ..."""
    _, inverse, counts = np.unique(np.asarray(ids), return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    repeats = np.empty(len(order), np.int64)
    repeats[order] = rank
    return repeats


def sessions_used(definition: int, sessions: int) -> int:
    """Return how many sessions a test-set definition reads: all, all but the last three, or the first 30.

    Raises
    ------
    ProtocolError
        If the data set has too few sessions for the definition.
    """
    used = {1000: sessions, 982: sessions - WITHHELD_SESSIONS, 515: EARLY_SESSIONS}[definition]
    if not 0 < used <= sessions:
        raise ProtocolError(
            f"the test set shared{definition} is not defined on a data set with {sessions} sessions",
            remedy="Use shared1000, which needs no minimum.",
        )
    return used


def split_rows(
    trials: CoreTrials, definition: int, sessions: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the training rows and the test rows of a test-set definition as two masks over the trials.

    Both come from the sessions the definition uses. ``shared982`` are the shared images that occur in them (with
    40 sessions: trials 1 ... 27750), ``shared515`` those that occur three times.
    """
    used = trials.session <= sessions_used(definition, sessions)
    test = used & trials.shared
    if definition == 515:
        images, counts = np.unique(trials.image[test], return_counts=True)
        test &= np.isin(trials.image, images[counts == 3])
    return used & ~trials.shared, test


def image_ids(images: Ints) -> NDArray[np.str_]:
    """Return stimulus ids ``img%05d`` of 0-based ``imgBrick`` rows."""
    return np.array([f"img{i:05d}" for i in images.tolist()])
