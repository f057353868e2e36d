"""Which weights metrics and models use, where their files are, and whether they are the right ones."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nsdbench.conversion import Converted, conversion_of, is_converted
from nsdbench.download import download
from nsdbench.errors import UsageError, WeightsError
from nsdbench.store import cache_root, read_json, sha256_file, write_json
from nsdbench.types import Progress, Silent
from nsdbench.weight_entries import REGISTRY, Weights

__all__ = [
    "HASHES",
    "PINS",
    "REGISTRY",
    "WEIGHTS_VARIABLE",
    "Located",
    "Status",
    "Weights",
    "checked_sha256",
    "entry",
    "fetch",
    "folder",
    "for_metrics",
    "is_present",
    "locate",
    "require",
    "verify",
]
WEIGHTS_VARIABLE = "NSDBENCH_WEIGHTS"
PINS, HASHES = "pins.json", ".hashes.json"


@dataclass(frozen=True)
class Located:
    """A weights file that was found and whose hash was checked.

    Attributes
    ----------
    weights : Weights
        What it is.
    path : Path
        Where it is: the published file, or its conversion.
    sha256 : str
        Hash that says which numbers these are: that of the published file, also for a conversion that kept them all;
        that of the conversion if it rounded them.
    """

    weights: Weights
    path: Path
    sha256: str


@dataclass(frozen=True)
class Status:
    """What :func:`verify` found out about one file; ``detail`` is one line for people."""

    id: str
    filename: str
    status: Literal["ok", "missing", "bad"]
    detail: str
    sha256: str | None = None


def folder(given: Path | None = None) -> Path:
    """Return the weights folder: ``given``, else ``$NSDBENCH_WEIGHTS``, else ``weights`` in the cache."""
    return given if given is not None else _default_folder()


def _default_folder() -> Path:
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named) if named else cache_root() / "weights"


def entry(id: str) -> Weights:
    """Return the registered weights ``id``.

    Raises
    ------
    UsageError
        If there are none.
    """
    if id not in REGISTRY:
        raise UsageError(f"there are no weights {id!r}", remedy=f"Known ids: {', '.join(REGISTRY)}.")
    return REGISTRY[id]


def for_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the weights that these metrics need, without repeats; pixel metrics need none."""
    wanted = set(metrics)
    return tuple(w.id for w in REGISTRY.values() if wanted.intersection(w.used_by))


def require(ids: Iterable[str], folder: Path) -> None:
    """Check that all these weights are in ``folder``, without reading them.

    Raises
    ------
    WeightsError
        If some are not there: one message that names every file, and one command that gets them all.
    """
    missing = [wanted for wanted in map(entry, ids) if _present(wanted, folder) is None]
    if missing:
        where = "" if folder == _default_folder() else f" --weights-dir {shlex.quote(str(folder))}"
        addresses = "".join(f"\n     {wanted.filename}: {wanted.url}" for wanted in missing)
        raise WeightsError(
            f"{len(missing)} weights file{'s' if len(missing) > 1 else ''} missing in {folder}: "
            + ", ".join(wanted.filename for wanted in missing),
            remedy=f"Run `nsdbench weights fetch {' '.join(wanted.id for wanted in missing)}{where}`, or download "
            f"and put there:{addresses}",
        )


def _present(wanted: Weights, folder: Path) -> Weights | None:
    """Return the entry whose file is in ``folder``: the wanted one, or else one that repackages it."""
    candidates = (wanted, *(w for w in REGISTRY.values() if w.same_as == wanted.id))
    return next((w for w in candidates if is_present(w, folder)), None)


def is_present(weights: Weights, folder: Path) -> bool:
    """Whether the file, or a conversion of it, is in ``folder``."""
    path = folder / weights.filename
    return path.is_file() or is_converted(path)


def locate(id: str, folder: Path) -> Located:
    """Return the file of weights ``id`` after checking its hash.

    A conversion of the file (`nsdbench weights convert`) is preferred. If both are absent, a repackaged one
    (``same_as``) is taken.

    Raises
    ------
    WeightsError
        If no file is there (the message says which, where, and how to get it), or its hash is wrong.
    """
    require([id], folder)
    return _located(_present(entry(id), folder) or entry(id), folder)


def _located(weights: Weights, folder: Path) -> Located:
    path = folder / weights.filename
    converted = conversion_of(path)
    if path.is_file():
        sha256 = checked_sha256(weights, path)
        if converted is None or converted.source_sha256 != sha256:
            return Located(weights, path, sha256)
    assert converted is not None, f"{weights.filename} vanished"
    _check_conversion(weights, path, converted)
    return Located(weights, converted.path, converted.identity)


def _check_conversion(weights: Weights, source: Path, converted: Converted) -> None:
    wrong = _mismatch(weights, converted.source_sha256, source)
    if not wrong and (sha256 := _remembered_sha256(converted.path)) != converted.sha256:
        wrong = f"its sha256 is {sha256}, the conversion wrote {converted.sha256}"
    if wrong:
        raise WeightsError(
            f"{converted.path} is not the right file: {wrong}",
            remedy="Delete it and the JSON file beside it, and convert again.",
        )
    if weights.sha256 is None:
        _update(source.parent / PINS, weights.filename, converted.source_sha256)


def checked_sha256(weights: Weights, path: Path) -> str:
    """Return the SHA-256 of ``path``, a file of ``weights``, after comparing it with the registry and the pins.

    Weights without a published full hash are pinned on first use: the hash is written to ``pins.json`` beside
    them, and another file under the same name is refused from then on. Hashes are remembered by size and time
    of modification, so that large files are read once.

    Raises
    ------
    WeightsError
        If the file is not the published or the pinned one.
    """
    sha256 = _remembered_sha256(path)
    wrong = _mismatch(weights, sha256, path)
    if wrong:
        raise WeightsError(
            f"{path} is not the right file: {wrong}",
            remedy=f"Delete it and run `nsdbench weights fetch {weights.id}`.",
        )
    if weights.sha256 is None:
        _update(path.parent / PINS, weights.filename, sha256)
    return sha256


def _mismatch(weights: Weights, sha256: str, path: Path) -> str:
    """Say why the file ``path`` with this hash cannot be taken for ``weights``; empty if it can."""
    if not weights.accepts(sha256):
        return f"its sha256 is {sha256}, the published file has {weights.expected}"
    pins = path.parent / PINS
    pinned = _read(pins).get(weights.filename)
    if pinned is None and weights.md5 and path.is_file() and (md5 := _md5(path)) != weights.md5:
        return f"its md5 is {md5}, the published file has {weights.md5}"
    return "" if pinned in (None, sha256) else f"its sha256 is {sha256}, but {pins} holds {pinned}"


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(id: str, folder: Path, *, progress: Progress | None = None, base_url: str | None = None) -> Path:
    """Download weights ``id`` into ``folder`` and return the path; a file that is already right is kept.

    Interrupted downloads continue where they stopped if a published hash can prove the result. The file gets
    its name only after size and hash were checked.

    Parameters
    ----------
    id : str
        Id of the weights.
    folder : Path
        Weights folder; made if necessary.
    progress : Progress, optional
        Told about every MiB.
    base_url : str, optional
        Mirror that holds the files under their names in the registry.

    Raises
    ------
    WeightsError
        If the download fails or delivers another file.
    """
    weights = entry(id)
    path = folder / weights.filename
    if path.is_file():
        checked_sha256(weights, path)
        return path
    if is_present(weights, folder):
        return _located(weights, folder).path
    url = f"{base_url.rstrip('/')}/{weights.filename}" if base_url else weights.url
    provable = bool(weights.sha256 or weights.sha256_prefixes or weights.md5)
    # nothing could prove that two halves belong together, nor keep two processes from mixing theirs
    part = folder / f".{weights.filename}{'' if provable else '.' + secrets.token_hex(6)}.part"
    download(url, part, progress=progress or Silent())
    sha256 = sha256_file(part)
    wrong = _mismatch(weights, sha256, part)
    if weights.size is not None and part.stat().st_size != weights.size:
        wrong = f"it has {part.stat().st_size} bytes instead of {weights.size}"
    if wrong:
        part.unlink()
        raise WeightsError(
            f"{url} delivered another file: {wrong}", remedy="Nothing was kept. Try another --mirror."
        )
    part.replace(path)
    checked_sha256(weights, path)
    return path


def verify(given: Path | None = None) -> list[Status]:
    """Return the state of the registered files in the weights folder (see :func:`folder`).

    Of repackaged files only those that are present are listed, and where one is, the original may be absent.
    """
    where = folder(given)
    present = {w.id for w in REGISTRY.values() if is_present(w, where)}
    replaced = {REGISTRY[id].same_as for id in present}
    return [
        _status(w, where) for w in REGISTRY.values() if w.id in present or not (w.same_as or w.id in replaced)
    ]


def _status(weights: Weights, folder: Path) -> Status:
    if not is_present(weights, folder):
        return Status(weights.id, weights.filename, "missing", f"not in {folder}")
    try:
        located = _located(weights, folder)
    except WeightsError as error:
        return Status(weights.id, weights.filename, "bad", error.message)
    proof = (
        "as published" if weights.sha256 or weights.sha256_prefixes or weights.md5 else "pinned on first use"
    )
    form = "" if located.path.name == weights.filename else f", as {located.path.name}"
    detail = f"sha256 {located.sha256[:12]}..., {proof}{form}"
    return Status(weights.id, weights.filename, "ok", detail, located.sha256)


def _remembered_sha256(path: Path) -> str:
    facts = path.stat()
    stamp = [facts.st_size, facts.st_mtime_ns]
    known = _read(path.parent / HASHES).get(path.name)
    if isinstance(known, dict) and known.get("stamp") == stamp:
        return str(known["sha256"])
    sha256 = sha256_file(path)
    _update(path.parent / HASHES, path.name, {"stamp": stamp, "sha256": sha256})
    return sha256


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is not a table of file names", remedy="Delete it; it is made again.")
    return found


def _update(path: Path, name: str, value: Any) -> None:
    table = _read(path)
    if table.get(name) == value:
        return
    with _unless_read_only():  # a folder shared by an administrator: results carry the hash anyway
        write_json(path, table | {name: value})


@contextlib.contextmanager
def _unless_read_only() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
