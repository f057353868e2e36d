"""What this machine has: versions, device, data, weights, disk, and what it may fetch. Nothing connects to anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nsdbench import __version__, protocol, weights
from nsdbench.data.facts import MARKER_NAME, Expectations, marker_expectations, nsd_expectations
from nsdbench.data.layout import Layout
from nsdbench.errors import DataError, NsdbenchError, WeightsError
from nsdbench.fetch import terms
from nsdbench.manifest import environment, git_commit
from nsdbench.store import cache_root, free_bytes, nearest, read_json
from nsdbench.weights.hub import token
from nsdbench.weights.planning import How
from nsdbench.weights.records import known_sha256
from nsdbench.weights.shelves import home_of, is_writable

GIB = 2**30
# the simulated data set and its caches need about half of this
ENOUGH_CACHE = 1 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    state : {"ok", "missing", "warning", "problem"}
        ``missing`` and ``warning`` are no failures: they say what some purposes would need, or could lack.
    what, finding, remedy : str
    """

    state: Literal["ok", "missing", "warning", "problem"]
    what: str
    finding: str
    remedy: str = ""


@dataclass(frozen=True)
class Root:
    """The data directory that was named, and what its files must look like.

    Attributes
    ----------
    path : Path or None
        None where no directory was named.
    expectations : Expectations
        The real NSD, or what the marker file of the directory declares.
    by_option : bool
        Whether the directory was named by an option, so that commands have to name it too.
    """

    path: Path | None
    expectations: Expectations
    by_option: bool = False

    @property
    def looked_at(self) -> Path:
        """Return the directory to look for files in; one that cannot exist where none was named."""
        return self.path or Path(os.devnull, "nsd")


def find_root(data_dir: Path | None) -> tuple[Root, Finding]:
    """Return the data directory and a line about it."""
    path = protocol.data_root(data_dir)
    if path is None:
        finding = Finding(
            "missing", "NSD", "no data directory; sim will be used",
            f"set {protocol.DATA_VARIABLE} or give --data-dir (see docs/real-data.md)",
        )  # fmt: skip
        return Root(None, nsd_expectations()), finding
    try:
        expectations = _expectations(path)
    except NsdbenchError as error:
        return Root(path, nsd_expectations(), data_dir is not None), Finding(
            "problem", "NSD", error.message, error.remedy
        )
    return Root(path, expectations, data_dir is not None), _about(path, expectations)


def _expectations(path: Path) -> Expectations:
    if not path.is_dir():
        raise DataError(f"{path} is not a directory", remedy="Give the directory that holds nsddata/.")
    marker = path / MARKER_NAME
    if not marker.is_file():
        return nsd_expectations()
    declared = read_json(marker)
    if not isinstance(declared, dict):
        raise DataError(f"{marker} is not a JSON object")
    return marker_expectations(declared)


def _about(path: Path, expectations: Expectations) -> Finding:
    subjects = [s for s in Layout(path).subjects() if s in expectations.subjects]
    if not subjects:
        return Finding("missing", "NSD", f"{path} holds no betas yet", "see the commands below")
    note = "" if expectations.real else " (generated: not real brain data)"
    named = ", ".join(map(str, subjects))
    return Finding(
        "ok", "NSD", f"data set {expectations.dataset} in {path}{note}; subjects {named}",
        "nsdbench data verify checks the files",
    )  # fmt: skip


def versions() -> Iterator[Finding]:
    """Yield the versions of nsdbench, Python and the libraries."""
    facts = environment()
    commit = git_commit()
    yield Finding("ok", "nsdbench", __version__ + (f" ({commit})" if commit else ""))
    yield Finding("ok", "python", f"{facts['python']} on {facts['platform']}, {facts['cpu_count']} cores")
    for name, version in facts["libraries"].items():
        absent = version == "absent"
        yield Finding("problem" if absent else "ok", name, version, f"pip install {name}" if absent else "")


def weights_here(weights_dir: Path | None) -> Iterator[Finding]:
    """Yield one line about the weights folder and one for every file that is wrong.

    Hashes that are known are compared, and sizes; a file that was never read is not read now.
    """
    where = weights.folder(weights_dir)
    try:
        listed = [row for row in weights.listed(where) if row.state != "shipped"]
        here = [row for row in listed if row.state == "present"]
        unread = 0
        for row in here:
            assert row.path is not None
            if known_sha256(row.path, home_of(where)) is None:
                unread += 1
                yield from _wrong_size(row)
                continue
            for status in weights.verify(where, [row.weights.id]):
                if status.status == "bad":
                    yield Finding("problem", status.id, status.detail, f"nsdbench weights fetch {status.id}")
    except WeightsError as error:
        yield Finding("problem", "weights", error.message, error.remedy)
        return
    size = sum(row.size or 0 for row in here)
    line = f"{len(here)} of {len(listed)} files in {where}, {size / 1e9:.1f} GB"
    yield Finding(
        "ok", "weights", line + (f"; {unread} not verified yet" if unread else ""),
        "nsdbench weights verify reads them all" if unread else "",
    )  # fmt: skip


def _wrong_size(row: weights.Listed) -> Iterator[Finding]:
    published, path = row.weights.size, row.path
    if published is None or path is None or path.name != row.weights.filename or row.size == published:
        return
    yield Finding(
        "problem", row.weights.id, f"{path} has {row.size} bytes, the published file {published}",
        f"delete it and run `nsdbench weights fetch {row.weights.id}`",
    )  # fmt: skip


def access() -> Iterator[Finding]:
    """Yield what may be fetched: the terms of NSD, offline mode, the token of the hub (which is never shown)."""
    accepted = terms.accepted()
    if accepted is None:
        yield Finding(
            "missing", "NSD terms", "not accepted yet", "nsdbench data fetch shows them and asks, once"
        )
    else:
        yield Finding("ok", "NSD terms", f"accepted on {accepted.accepted_at[:10]}, {terms.place()}")
    if How().unconnected:
        yield Finding("ok", "network", "offline by NSDBENCH_OFFLINE or HF_HUB_OFFLINE: nothing is fetched")
    else:
        yield Finding("ok", "network", "fetching is allowed (doctor itself never connects)")
    known = "present" if token() else "none; gated repositories of the hub ask for one"
    yield Finding("ok", "hub token", known, "" if token() else "hf auth login, or set HF_TOKEN")


@dataclass(frozen=True)
class Place:
    """A folder that will be written to, the disk it is on, and its free bytes."""

    what: str
    path: Path
    device: int
    free: int
    writable: bool


def places(root: Path | None, weights_dir: Path | None, cache: Path | None) -> tuple[Place, ...]:
    """Return where files go: cache, weights, and data if a directory was named."""
    named = {"cache": cache_root(cache), "weights": home_of(weights.folder(weights_dir))}
    return tuple(_place(what, path) for what, path in (named | ({"data": root} if root else {})).items())


def _place(what: str, path: Path) -> Place:
    return Place(what, path, nearest(path).stat().st_dev, free_bytes(path), is_writable(path))


def cache_finding(place: Place) -> Finding:
    """Return the line about the cache, without which nothing runs."""
    if not place.writable:
        return Finding(
            "problem", "cache", f"{place.path} is not writable", "set NSDBENCH_CACHE to a writable directory"
        )
    short = place.free < ENOUGH_CACHE
    return Finding(
        "problem" if short else "ok", "cache", f"{place.path}, {place.free / 1e9:.0f} GB free",
        "set NSDBENCH_CACHE to a larger disk" if short else "",
    )  # fmt: skip
