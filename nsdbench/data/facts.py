"""What the real NSD and NSD-Imagery files must look like, read from the tables in ``facts/``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from nsdbench.errors import DataError
from nsdbench.store import digest

BetaVersion = Literal["b1", "b2", "b3"]
BETA_VERSIONS: tuple[BetaVersion, ...] = get_args(BetaVersion)
MARKER_NAME = "nsdbench-dataset.json"
IMAGERY_ROWS = 720
Task = Literal["vision", "attention", "imagery"]


@dataclass(frozen=True, slots=True)
class Run:
    """One acquisition run of the NSD-Imagery session; ``start:stop`` are its 0-based beta rows."""

    number: int
    name: str
    task: Task
    stimulus_set: str
    n_trials: int
    start: int
    stop: int

    @property
    def n_betas(self) -> int:
        """Rows of the run: one per trial, two per attention trial (cue and detection)."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Target:
    """One of the 18 NSD-Imagery targets; file names come from the pair lists of the data set."""

    id: str
    stimulus_set: str
    cue: str
    has_image: bool


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """Expected sizes of one subject; counts of shared images are None where a data set does not state them."""

    grid: tuple[int, int, int]
    n_voxels: int
    sessions: int
    shared_images: int | None = None
    shared_trials: int | None = None
    shared_trials_early: int | None = None  # without the last three sessions


@dataclass(frozen=True)
class Expectations:
    """What the files of a data set must look like: the real NSD, or what a marker file declares.

    Attributes
    ----------
    dataset : str
        ``"nsd"``, or the name in the marker file.
    content_hash : str
        Identifies the data set in results. For the real NSD it covers the fact tables, which every file is
        held to, so that two laboratories with different subsets of the files get the same value.
    real : bool
        True if no marker file is present: file sizes and published hashes then apply as well.
    """

    dataset: str
    content_hash: str
    real: bool
    trials_per_session: int
    n_shared: int
    n_images: int
    beta_versions: tuple[str, ...]
    subjects: Mapping[int, SubjectFacts]
    marker: Mapping[str, Any] | None = None

    def of(self, subject: int) -> SubjectFacts:
        """Return the facts of ``subject``; DataError if the data set does not know it."""
        try:
            return self.subjects[subject]
        except KeyError:
            known = ", ".join(map(str, sorted(self.subjects)))
            raise DataError(
                f"data set {self.dataset} has no subject {subject}", remedy=f"Choose from: {known}."
            ) from None


def table(name: str) -> list[dict[str, str]]:
    """Read one of the CSV tables of ``facts/``."""
    text = files("nsdbench.data").joinpath("facts", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def runs() -> tuple[Run, ...]:
    """Return the 12 runs of the NSD-Imagery session in acquisition order."""
    return tuple(
        Run(
            number=int(row["run_number"]),
            name=row["run_name"],
            task=row["task"],  # type: ignore[arg-type]
            stimulus_set=row["stimulus_set"],
            n_trials=int(row["n_behaviour_trials"]),
            start=int(row["beta_start0"]),
            stop=int(row["beta_stop0"]),
        )
        for row in table("runs")
    )


@cache
def targets() -> tuple[Target, ...]:
    """Return the 18 NSD-Imagery targets ``A1`` ... ``C6`` in canonical order."""
    return tuple(
        Target(
            id=row["stimulus_set"] + row["target_number"],
            stimulus_set=row["stimulus_set"],
            cue=row["cue"],
            has_image=row["has_fixed_image"] == "1",
        )
        for row in table("targets")
    )


@cache
def letters(stimulus_set: str) -> str:
    """Return the six cue letters of a set in target order."""
    return "".join(t.cue for t in targets() if t.stimulus_set == stimulus_set)


@cache
def nsd_expectations() -> Expectations:
    """Return what the real NSD must look like."""
    names = ("runs", "targets", "subjects")
    return Expectations(
        dataset="nsd",
        content_hash=digest(*(table(name) for name in names)),
        real=True,
        trials_per_session=750,
        n_shared=1000,
        n_images=73000,
        beta_versions=BETA_VERSIONS,
        subjects={int(row["subject"][-2:]): _subject(row) for row in table("subjects")},
    )


def _subject(row: Mapping[str, str]) -> SubjectFacts:
    return SubjectFacts(
        grid=(int(row["nx"]), int(row["ny"]), int(row["nz"])),
        n_voxels=int(row["nsdgeneral_voxels"]),
        sessions=int(row["core_sessions"]),
        shared_images=int(row["shared1000_images_seen"]),
        shared_trials=int(row["shared1000_trials_all_sessions"]),
        shared_trials_early=int(row["shared1000_trials_without_last3_sessions"]),
    )


def marker_expectations(marker: Mapping[str, Any]) -> Expectations:
    """Return what a marker file (``nsdbench-dataset.json``) declares.

    Raises
    ------
    DataError
        If a field is missing or has the wrong type.
    """
    if marker.get("dataset") == "nsd":
        raise DataError(
            f"{MARKER_NAME} calls its data set nsd, the name of the real one",
            remedy="Remove the marker if this is the real NSD, so that its files are held to the published facts.",
        )
    try:
        subjects = {
            _two_digits(number): SubjectFacts(
                _grid(entry["grid"]), int(entry["nsdgeneral"]), _two_digits(entry["sessions"])
            )
            for number, entry in marker["subjects"].items()
        }
        return Expectations(
            dataset=str(marker["dataset"]),
            content_hash=str(marker["hash"]),
            real=False,
            trials_per_session=int(marker["trials_per_session"]),
            n_shared=int(marker["n_shared"]),
            n_images=int(marker["n_images"]),
            beta_versions=tuple(map(str, marker["beta_versions"])),
            subjects=subjects,
            marker=marker,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{MARKER_NAME} is incomplete: {error!r}",
            remedy="Write the data set again (nsdbench data simulate), or remove the marker if this is the real NSD.",
        ) from error


def _two_digits(value: Any) -> int:
    """Return a number of a subject or of sessions; names of files have two digits for it."""
    if not 0 <= (number := int(value)) <= 99:
        raise ValueError(f"{number} does not have two digits")
    return number


def _grid(value: Any) -> tuple[int, int, int]:
    x, y, z = map(int, value)
    return x, y, z
