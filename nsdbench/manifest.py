"""``run.json``: everything needed to understand and repeat one cell of the benchmark."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nsdbench.errors import DataError, UsageError
from nsdbench.schema import Provenance, RunKey, require_types
from nsdbench.store import read_json, write_json

MANIFEST_ID = "run/1"
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pyarrow", "h5py", "pillow", "lpips")
EXTRAS = ("nltk",)  # libraries that only some metrics need


@dataclass(frozen=True)
class RunManifest:
    """The record of one run folder. Readers count a run only if ``status`` is ``complete``.

    Attributes
    ----------
    key : RunKey
        Identity of the cell.
    status : {"started", "complete", "failed"}
        Written first as ``started``; replaced when the cell ends.
    provenance : Provenance
        What the leaderboard rows of this run carry.
    config : mapping
        Arguments as effective: seed, samples, loader options, metrics, profile.
    command : list of str
        The command as given.
    weights : dict of str to str
        SHA-256 by id of the weights that the metrics looked through.
    """

    key: RunKey
    status: Literal["started", "complete", "failed"]
    provenance: Provenance
    config: dict[str, Any]
    command: list[str] = field(default_factory=lambda: list(sys.argv))
    targets: list[str] = field(default_factory=list)
    reconstructions_sha256: str | None = None
    weights: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def dataset_root(self, folder: Path) -> Path | None:
        """Return where the data set of the run in ``folder`` lies, or None if the record does not say.

        A relative path is meant from where the run was started, which is often above the folder. If the data set is found
        nowhere, the path is as recorded.
        """
        named = self.config.get("dataset_root")
        if not isinstance(named, str) or not named:
            return None
        root = Path(named)
        return next(
            (p for p in (root, *(above / root for above in folder.resolve().parents)) if p.is_dir()), root
        )

    def write(self, folder: Path) -> None:
        """Write ``run.json`` into ``folder``, atomically."""
        document = asdict(self)
        document |= document.pop("key")
        # "status" of the row (simulated, measured) lives inside provenance; the top level is the run's own
        write_json(folder / "run.json", {"schema": MANIFEST_ID, **document})


def read_manifest(folder: Path) -> RunManifest:
    """Read ``run.json`` of a run folder.

    Raises
    ------
    DataError
        If the file is missing or was written by another schema.
    """
    path = folder / "run.json"
    document = read_json(path)
    if not isinstance(document, dict) or document.pop("schema", None) != MANIFEST_ID:
        raise DataError(f"{path} is not a run manifest of schema {MANIFEST_ID}")
    try:
        key = RunKey(**{name: document.pop(name) for name in RunKey.__dataclass_fields__})
        provenance = Provenance(**document.pop("provenance"))
        manifest = RunManifest(key=key, provenance=provenance, **document)
        require_types(provenance)
        require_types(manifest)
        return manifest
    except UsageError as error:
        raise DataError(f"{path}: {error.message}") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} lacks or misspells a field: {error}") from error


@functools.cache
def environment() -> dict[str, Any]:
    """Return versions and hardware of this process."""
    versions = {}
    for name in (*LIBRARIES, *EXTRAS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in LIBRARIES:
                versions[name] = "absent"
    return {
        "python": platform.python_version(),
        "libraries": versions,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_count": os.cpu_count(),
        "host": platform.node(),
    }


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the nsdbench checkout, with ``-dirty`` if it was modified; None outside a checkout."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        output = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return output.stdout.strip() or None


def now() -> str:
    """Return the present UTC time in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
