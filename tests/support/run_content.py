"""What two executions of the same command must have in common: everything on the disk but times."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ORIGIN = ("created_at", "git_commit")
DATA = "sim:tiny,subjects=1"
ATTEMPTS = "jobs"  # folder with one record per call of the command
NOT_EQUAL = ("timings", "environment", "seconds", "command")  # of the records of a run and of a fit


def command(models: str, split: str = "both", metrics: str = "pixcorr,pixel_2way,mini_clip") -> list[str]:
    """Return a cheap ``nsdbench run`` that keeps everything in its working directory."""
    words = (
        f"run --dataset {DATA} --model {models} --split {split} --samples 2 --train-trials 60 --cache cache"
    )
    return [*words.split(), "--metrics", metrics]


SMALL = command("mean_image", "imagery", "pixcorr")
"""The smallest run there is, for the tests of every day."""


def content(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Return a hash of every file below a folder by its relative name, equal for equal results.

    Item scores, similarity matrices, reconstructions and fitted decoders must agree in every byte, records in all but how
    they were called and how long it took, leaderboards in all but dates and commits. Any other file counts too, so nothing may be left behind.
    """
    return {
        str(path.relative_to(folder)): _hash(path)
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and not is_passing(path.relative_to(folder))
    }


def left_behind(folder: Path) -> list[str]:
    """Return the temporary files below a folder."""
    found = (path.relative_to(folder) for path in folder.rglob(".*.tmp*"))
    return [str(path) for path in found if not is_passing(path)]


def is_passing(path: Path) -> bool:
    """Say whether a file, named from the folder of the runs, is a lock, a sign of life, or the record of one call."""
    return path.name == ".lock" or "status." in path.name or ATTEMPTS in path.parts


def _hash(path: Path) -> str:
    if path.name in ("run.json", "fit.json"):
        return _digest({k: v for k, v in _undated(path).items() if k not in NOT_EQUAL})
    if "leaderboard" in path.parts and path.suffix == ".parquet":
        table = pq.read_table(path).drop_columns(list(ORIGIN))
        return _digest(
            [table.to_pylist(), {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}]
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _undated(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    for name in ORIGIN:
        document["provenance"].pop(name, None)
    return document


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
