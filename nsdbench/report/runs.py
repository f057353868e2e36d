"""The run folders behind the results of a report, and the target images they were scored against."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nsdbench import leaderboard
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import NsdbenchError
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.reconstructions import read_targets
from nsdbench.types import SPLITS, Stimuli

TARGET_FOLDER = "target-folder"  # data set id of results that were scored against a folder of images


@dataclass(frozen=True)
class Run:
    """A complete run folder."""

    folder: Path
    manifest: RunManifest


def find(paths: Iterable[Path], run_ids: Collection[str]) -> dict[str, Run]:
    """Return the runs below ``paths`` that have one of ``run_ids``, by id.

    Raises
    ------
    DataError
        If the ``run.json`` of one of them is damaged.
    """
    found: dict[str, Run] = {}
    for path in paths:
        for file in sorted(path.rglob("run.json")) if path.is_dir() else ():
            document = leaderboard.run_document(file.parent)
            if document.get("status") == "complete" and document.get("run_id") in list(run_ids):
                found.setdefault(document["run_id"], Run(file.parent, read_manifest(file.parent)))
    return found


def in_order(runs: Iterable[Run]) -> list[Run]:
    """Return runs in the order of split, model, preset and subject."""
    return sorted(runs, key=_order)


def _order(run: Run) -> tuple[int, str, str, int]:
    key = run.manifest.key
    return [*SPLITS, key.split].index(key.split), key.model, key.preset, key.subject


@dataclass(frozen=True)
class Truth:
    """Target images of a run, or why there are none."""

    stimuli: Stimuli | None
    problem: str = ""


def truth(run: Run, runs: Mapping[str, Run], data_dir: Path | None) -> Truth:
    """Find the very targets that a run was scored against.

    Parameters
    ----------
    run : Run
    runs : mapping
        All runs: results made elsewhere do not name their data set, but others that share it do.
    data_dir : Path or None
        Root of the data set, or the folder of target images; in place of what ``run.json`` names.
    """
    problems = []
    for root in dict.fromkeys((data_dir,) if data_dir else _roots(run, runs)):
        try:
            stimuli = _open(root, run)
        except NsdbenchError as error:
            problems.append(error.message)
            continue
        if stimuli.content_hash == run.manifest.provenance.stimulus_hash:
            return Truth(stimuli)
        problems.append(f"{root} holds other targets than the ones that were scored")
    return Truth(None, problems[0] if problems else "the results do not say where their data set lies")


def _open(root: Path, run: Run) -> Stimuli:
    key, load = run.manifest.key, run.manifest.config.get("load")
    if key.dataset == TARGET_FOLDER:
        return read_targets(root)
    return Dataset.open(root).stimuli(key.split, *((key.subject, LoadOptions(**load)) if load else ()))


def _roots(run: Run, runs: Mapping[str, Run]) -> Iterator[Path]:
    """Yield where the data set may lie, as this run or others on it say."""
    same = run.manifest.provenance.dataset_hash
    for other in (run, *(r for r in runs.values() if r.manifest.provenance.dataset_hash == same)):
        if root := other.manifest.dataset_root(other.folder):
            yield root
