"""``nsdbench doctor``: what this machine has, and what is missing for which purpose."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nsdbench import __version__, protocol, weights
from nsdbench.errors import NsdbenchError
from nsdbench.manifest import environment, git_commit
from nsdbench.store import cache_root

GIB = 2**30
# the simulated data set and its caches need about half of this
ENOUGH_CACHE = 1 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: Literal["ok", "missing", "problem"]
    what: str
    finding: str
    remedy: str = ""


def examine(data_dir: Path | None, weights_dir: Path | None, cache: Path | None) -> list[Finding]:
    """Return findings about versions, device, data, weights and disk, in this order."""
    return [
        *_versions(),
        _device(),
        *_data(data_dir, cache),
        *_weights(weights_dir),
        _disk(cache_root(cache)),
    ]


def _versions() -> Iterator[Finding]:
    facts = environment()
    commit = git_commit()
    yield Finding("ok", "nsdbench", __version__ + (f" ({commit})" if commit else ""))
    yield Finding("ok", "python", f"{facts['python']} on {facts['platform']}, {facts['cpu_count']} cores")
    for name, version in facts["libraries"].items():
        absent = version == "absent"
        yield Finding("problem" if absent else "ok", name, version, f"pip install {name}" if absent else "")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Finding("ok", "device", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    return Finding("ok", "device", "CPU only; the simulated benchmark needs no GPU, published presets do")


def _data(data_dir: Path | None, cache: Path | None) -> Iterator[Finding]:
    if data_dir is None and not os.environ.get(protocol.DATA_VARIABLE):
        yield Finding(
            "missing", "NSD", "no data directory; sim will be used",
            f"set {protocol.DATA_VARIABLE} or give --data-dir (see docs/data.md)",
        )  # fmt: skip
        return
    try:
        dataset, line = protocol.resolve_dataset("auto", data_dir, cache=cache)
    except NsdbenchError as error:
        yield Finding("problem", "NSD", error.message, error.remedy)
        return
    subjects = ", ".join(map(str, dataset.subjects))
    yield Finding("ok", "NSD", f"{line}; subjects {subjects}", "nsdbench data verify checks the files")


def _weights(weights_dir: Path | None) -> Iterator[Finding]:
    for found in weights.verify(weights_dir):
        remedy = "" if found.status == "ok" else f"nsdbench weights fetch {found.id}"
        yield Finding("problem" if found.status == "bad" else found.status, found.id, found.detail, remedy)


def _disk(root: Path) -> Finding:
    existing = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Finding(
            "problem", "cache", f"{root} is not writable", "set NSDBENCH_CACHE to a writable directory"
        )
    short = free < ENOUGH_CACHE
    return Finding(
        "problem" if short else "ok", "cache", f"{root}, {free / GIB:.0f} GiB free",
        "set NSDBENCH_CACHE to a larger disk" if short else "",
    )  # fmt: skip
