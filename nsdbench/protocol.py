"""The benchmark protocol: which data set, which subjects, which splits, which preset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nsdbench.errors import DataError, UsageError
from nsdbench.types import SPLITS, Progress, Silent, Split

if TYPE_CHECKING:
    from nsdbench.adapters.base import Adapter
    from nsdbench.data import Dataset

DATA_VARIABLE = "NSDBENCH_DATA"
# A generated data set in the full file layout of NSD, for trying the way of real data without them. Its name stands in every
# result, so that ``--dataset nsd`` may read it and none of its numbers can pass for one of real brains.
SYNTHETIC = "nsd-synthetic"
# The subjects with all 40 sessions, on whom every published reconstruction was made.
SUBJECTS = (1, 2, 5, 7)
GROUPS: dict[str, tuple[Split, ...]] = {"both": ("vision", "imagery"), "all": SPLITS}


def expand_splits(text: str) -> tuple[Split, ...]:
    """Turn ``"both"``, ``"all"`` or a comma-separated list into split ids.

    Raises
    ------
    UsageError
        If a name is no split.
    """
    if text in GROUPS:
        return GROUPS[text]
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in SPLITS:
            hint = (
                "The test images of core NSD are called shared1000. "
                if name in ("seen", "test", "nsd")
                else ""
            )
            raise UsageError(
                f"there is no split {name!r}", remedy=f"{hint}Choose from: {', '.join(SPLITS)}, both, all."
            )
    return tuple(split for split in SPLITS if split in names)


def expand_subjects(text: str | None, dataset: Dataset) -> tuple[int, ...]:
    """Turn ``"1,2"`` into subject numbers; None means those of the protocol (1, 2, 5, 7) that are present."""
    if text is None:
        chosen = tuple(s for s in SUBJECTS if s in dataset.subjects) or dataset.subjects
        if not chosen:
            raise DataError(f"{dataset.root} holds no subject with NSD-Imagery betas")
        return chosen
    subjects = subject_numbers(text)
    missing = [s for s in subjects if s not in dataset.subjects]
    if missing:
        present = ", ".join(map(str, dataset.subjects)) or "none"
        raise UsageError(
            f"subject {missing[0]} is not in {dataset.root}", remedy=f"Subjects present: {present}."
        )
    return subjects


def subject_numbers(text: str) -> tuple[int, ...]:
    """Turn ``"1,2"`` into numbers, without looking for the subjects."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"--subject takes numbers such as 1 or 1,2,5,7, not {text!r}") from None


def data_root(given: Path | None) -> Path | None:
    """Return the data directory: ``given``, else ``$NSDBENCH_DATA``, else None."""
    named = os.environ.get(DATA_VARIABLE)
    return given or (Path(named) if named else None)


def data_home(given: Path | None) -> Path:
    """Return the data directory that files are fetched into.

    Raises
    ------
    UsageError
        If none is named.
    """
    root = data_root(given)
    if root is None:
        raise UsageError("where should the files go?", remedy=f"Give --data-dir DIR or set {DATA_VARIABLE}.")
    return root


def resolve_dataset(
    name: str, data_dir: Path | None, *, cache: Path | None = None, progress: Progress | None = None
) -> tuple[Dataset, str]:
    """Open the data set that a command names and say in one sentence which one it is.

    Parameters
    ----------
    name : str
        ``"auto"``, ``"nsd"``, or ``"sim"`` with optional parameters (``"sim:tiny"``, ``"sim:snr=0,seed=3"``).
    data_dir : Path or None
        Root of a data set on disk; None means ``$NSDBENCH_DATA``.
    cache : Path or None
        Cache directory; None means the default.

    Returns
    -------
    tuple of Dataset and str
        The data set and a line that says what will be used.

    Raises
    ------
    UsageError, DataError
        If the name is unknown, or a data set was asked for that is not there. There is no silent fallback:
        ``auto`` means the simulation only where no data directory was given at all.
    """
    from nsdbench.data import Dataset

    if name.partition(":")[0] == "sim":
        if data_dir is not None:
            raise UsageError(
                "--dataset sim and --data-dir exclude each other",
                remedy="Leave out --dataset to read the directory, whatever data set it holds.",
            )
        return _simulated(name, cache, progress or Silent())
    if name not in ("auto", "nsd"):
        raise UsageError(
            f"there is no data set {name!r}", remedy="Choose auto, nsd or sim (sim:tiny, sim:snr=0, ...)."
        )
    root = data_root(data_dir)
    if root is None:
        if name == "nsd":
            raise UsageError(
                "--dataset nsd needs the directory that holds NSD",
                remedy=f"Give --data-dir DIR or set {DATA_VARIABLE}.",
            )
        dataset, line = _simulated("sim", cache, progress or Silent())
        return dataset, f"{line} (no --data-dir and no {DATA_VARIABLE}: not real brain data)"
    dataset = Dataset.open(root, cache=cache)
    if name == "nsd" and dataset.id not in ("nsd", SYNTHETIC):
        raise UsageError(f"{root} holds the data set {dataset.id!r}, not the real NSD")
    note = " (generated in the layout of NSD: not real brain data)" if dataset.id == SYNTHETIC else ""
    return dataset, f"data set: {dataset.id} in {root}{note}"


def _simulated(name: str, cache: Path | None, progress: Progress) -> tuple[Dataset, str]:
    from nsdbench.data import Dataset
    from nsdbench.sim import ensure, parse_config

    config = parse_config(name)
    root = ensure(config, cache, progress)
    return Dataset.open(root, cache=cache), f"data set: simulated NSD ({name}) in {root}"


def default_preset(adapter: type[Adapter], dataset: Dataset) -> str:
    """Return the preset used when none was asked for: ``mini`` on simulated data where there is one."""
    if is_simulated(dataset) and "mini" in adapter.presets:
        return "mini"
    return adapter.presets[0]


def is_simulated(dataset: Dataset) -> bool:
    """Return True unless the data set is the real NSD."""
    return dataset.id != "nsd"


def status(dataset: Dataset) -> str:
    """Return how rows on this data set are labelled when the metric networks are trained."""
    return "simulated" if is_simulated(dataset) else "measured"
