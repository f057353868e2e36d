"""What there is to say of weights: a list that reads no file, and a verification that reads all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nsdbench.conversion import conversion_of
from nsdbench.errors import WeightsError
from nsdbench.store import sha256_file
from nsdbench.weights import registry
from nsdbench.weights.entry import Weights
from nsdbench.weights.records import Pin, pin_of
from nsdbench.weights.registry import entry
from nsdbench.weights.shelves import find, folder, folders, holds, home_of, is_present, located_in, valid_pin
from nsdbench.weights.shipped import SHIPPED, shipped_path


@dataclass(frozen=True)
class Status:
    """What :func:`verify` found out about one file.

    Attributes
    ----------
    id, filename : str
    status : {"ok", "missing", "bad"}
    detail : str
        One line for people.
    sha256 : str or None
    path : Path or None
        The file that was looked at.
    verified : str
        What its hash was compared with; see :func:`proof_of`.
    """

    id: str
    filename: str
    status: Literal["ok", "missing", "bad"]
    detail: str
    sha256: str | None = None
    path: Path | None = None
    verified: str = ""


@dataclass(frozen=True)
class Listed:
    """What can be said of weights without reading them.

    Attributes
    ----------
    weights : Weights
    state : {"present", "missing", "shipped"}
        ``"shipped"`` comes with nsdbench. Where a repackaged file stands in for weights, they are present.
    path : Path or None
        The file, or its conversion.
    size : int or None
        Bytes on disk if it is here, else as published; None if unknown.
    exact : bool
        Whether ``size`` is more than an estimate.
    verified : str
        What proves the content, or could; see :func:`proof_of`.
    """

    weights: Weights
    state: Literal["present", "missing", "shipped"]
    path: Path | None
    size: int | None
    exact: bool
    verified: str


def proof_of(weights: Weights, pinned: Pin | None) -> str:
    """Say in two words what proves a file to be the right one.

    ``"sha256 published"`` and ``"md5 published"`` by the authors, ``"sha256 digits published"`` in the name of the file,
    ``"sha256 from hub"`` if the hub named it before the download; ``"pinned"`` only says that the file is the one that
    was there at first, and ``"not pinned yet"`` that it has not been looked at.
    """
    if weights.sha256 or weights.md5:
        return f"{weights.published} published"
    if pinned is not None and pinned.told_by_hub:
        return "sha256 from hub"
    return f"{weights.published} published" if weights.published else "pinned" if pinned else "not pinned yet"


def listed(where: Path, ids: Collection[str] | None = None) -> tuple[Listed, ...]:
    """Return what can be said of weights without reading them; of all, also those that come with nsdbench, if no ids."""
    chosen = [*registry.REGISTRY.values(), *SHIPPED.values()] if ids is None else [_known(id) for id in ids]
    return tuple(_listed(weights, where) for weights in chosen)


def _known(id: str) -> Weights:
    return SHIPPED[id] if id in SHIPPED else entry(id)


def _listed(weights: Weights, where: Path) -> Listed:
    if weights.id in SHIPPED:
        return Listed(weights, "shipped", shipped_path(weights), weights.size, True, "sha256 published")
    found = find(weights, where)
    if found is None:
        # nothing is here to be proven; a pin says what a download will be compared with
        pins = (pin_of(folder, weights.filename) for folder in folders(where))
        proof = proof_of(weights, next(filter(None, pins), None))
        return Listed(weights, "missing", None, weights.n_bytes, weights.size is not None, proof)
    held, folder = found
    source = folder / held.filename
    converted = conversion_of(source)
    path = converted.path if converted else source
    pinned = valid_pin(held, folder, home_of(where))
    return Listed(
        weights, "present", path, path.stat().st_size, True, proof_of(held, pinned[0] if pinned else None)
    )


def verify(
    given: Path | None = None, ids: Collection[str] | None = None, *, shipped: bool = False
) -> list[Status]:
    """Return the state of registered files in the weights folders (see :func:`folder`), every copy of them.

    Of repackaged files only those that are present are listed, and where one is, the original may be absent.

    Parameters
    ----------
    given : Path, optional
    ids : collection of str, optional
        Only these weights.
    shipped : bool
        Also look at the files that come with nsdbench.
    """
    where = folder(given)
    chosen = [entry(id) for id in ids if id not in SHIPPED] if ids is not None else list(_expected(where))
    own = [SHIPPED[id] for id in ids if id in SHIPPED] if ids is not None else list(SHIPPED.values())
    found = [status for weights in chosen for status in _statuses(weights, where)]
    return found + ([_shipped_status(weights) for weights in own] if shipped or ids is not None else [])


def _expected(where: Path) -> Iterator[Weights]:
    present = {w.id for w in registry.REGISTRY.values() if is_present(w, where)}
    replaced = {registry.REGISTRY[id].same_as for id in present}
    for weights in registry.REGISTRY.values():
        if weights.id in present or not (weights.same_as or weights.id in replaced):
            yield weights


def _statuses(weights: Weights, where: Path) -> list[Status]:
    holders = [folder for folder in folders(where) if holds(folder, weights)]
    if not holders:
        return [Status(weights.id, weights.filename, "missing", f"not in {where}")]
    return [_status(weights, folder, home_of(where)) for folder in holders]


def _status(weights: Weights, folder: Path, home: Path) -> Status:
    path = folder / weights.filename
    try:
        located = located_in(weights, folder, home)
        pinned = valid_pin(weights, folder, home)
    except WeightsError as error:
        return Status(weights.id, weights.filename, "bad", error.message, path=path)
    except OSError as error:  # one unreadable file must not hide what the others are
        detail = f"{path} cannot be read ({error.strerror})"
        return Status(weights.id, weights.filename, "bad", detail, path=path)
    proof = proof_of(weights, pinned[0] if pinned else None)
    form = "" if located.path.name == weights.filename else f", as {located.path.name}"
    detail = f"sha256 {located.sha256[:12]}..., {proof}{form}"
    return Status(weights.id, weights.filename, "ok", detail, located.sha256, located.path, proof)


def _shipped_status(weights: Weights) -> Status:
    path = shipped_path(weights)
    sha256 = sha256_file(path) if path.is_file() else None
    if sha256 != weights.sha256:
        state = "is missing" if sha256 is None else f"has sha256 {sha256}, not {weights.sha256}"
        detail = f"{path}, a part of nsdbench, {state}"
        return Status(weights.id, weights.filename, "bad", detail, sha256, path)
    detail = f"sha256 {weights.sha256[:12] if weights.sha256 else ''}..., comes with nsdbench"
    return Status(weights.id, weights.filename, "ok", detail, sha256, path, "comes with nsdbench")
