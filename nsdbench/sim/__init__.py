"""The embedded simulated dataset: NSD and NSD-Imagery with known truths, written in the real file layout.

Examples
--------
>>> from nsdbench.sim import SimConfig, ensure
>>> root = ensure(SimConfig(preset="tiny"))  # doctest: +SKIP
"""

from __future__ import annotations

import os
from pathlib import Path

from nsdbench.sim.config import SIM_VERSION, SimConfig, parse_config
from nsdbench.store import atomic_directory, cache_root
from nsdbench.types import Progress, Silent

__all__ = ["SIM_VERSION", "SimConfig", "ensure", "generate", "parse_config"]
_MOST_WORKERS = 4  # each holds about 0.5 GB of the default preset


def generate(
    config: SimConfig, root: Path, progress: Progress | None = None, workers: int | None = None
) -> None:
    """Write the complete dataset to the new directory ``root``; either all of it appears there or nothing.

    The content does not depend on ``workers``, the number of processes (default: one per core, at most four).

    Raises
    ------
    UsageError
        If ``root`` exists and is not an empty directory.
    """
    from nsdbench.errors import UsageError
    from nsdbench.sim.dataset import write_dataset

    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists already", remedy="Name a new directory for the simulated dataset.")
    with atomic_directory(root) as temporary:
        write_dataset(
            config, temporary, progress or Silent(), workers or min(_MOST_WORKERS, os.cpu_count() or 1)
        )


def ensure(config: SimConfig, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the directory of the dataset, generating it on first use.

    It lies at ``<cache>/sim/<preset>-<hash>``, so other parameters or another generator version never meet old files.
    """
    root = cache_root(cache) / "sim" / f"{config.preset}-{config.hash()}"
    if not root.is_dir():
        generate(config, root, progress)
    return root
