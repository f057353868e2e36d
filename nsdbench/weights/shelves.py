"""Where weights lie: one folder or several, looked through in order, of which the first writable one is added to."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nsdbench.conversion import Converted, conversion_of, is_converted
from nsdbench.errors import WeightsError
from nsdbench.store import cache_root, nearest
from nsdbench.weights import registry
from nsdbench.weights.entry import Weights
from nsdbench.weights.records import PINS, Pin, pin, pin_of, remembered_sha256
from nsdbench.weights.registry import entry

WEIGHTS_VARIABLE = "NSDBENCH_WEIGHTS"


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


def folder(given: Path | None = None) -> Path:
    """Return the weights folder: ``given``, else ``$NSDBENCH_WEIGHTS``, else ``weights`` in the cache.

    It can also name several folders, as ``PATH`` does; see :func:`folders`.
    """
    return given if given is not None else _default_folder()


def _default_folder() -> Path:
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named) if named else cache_root() / "weights"


def folders(where: Path) -> tuple[Path, ...]:
    """Return the folders that ``where`` names, separated by ``:`` (``;`` on Windows) as in ``PATH``."""
    if where.is_dir():
        return (where,)
    return tuple(Path(part).expanduser() for part in str(where).split(os.pathsep) if part) or (where,)


def writable_folder(where: Path) -> Path:
    """Return the first folder that files can be added to; it need not exist yet.

    Raises
    ------
    WeightsError
        If none of them is writable.
    """
    found = next(filter(is_writable, folders(where)), None)
    if found is None:
        raise WeightsError(
            f"no file can be added to {where}: not writable",
            remedy="Name a folder of your own before it, which is filled while the other is still read: "
            f"{WEIGHTS_VARIABLE}=/my/weights{os.pathsep}{where}",
        )
    return found


def is_writable(folder: Path) -> bool:
    """Whether files can be added to a folder, which need not exist yet."""
    existing = nearest(folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def home_of(where: Path) -> Path:
    """Return where notes on files in read-only folders go: the first writable folder, else the one in the cache."""
    return next(filter(is_writable, folders(where)), cache_root() / "weights")


def require(ids: Iterable[str], folder: Path) -> None:
    """Check that all these weights are in ``folder``, without reading them.

    Raises
    ------
    WeightsError
        If some are not there: one message that names every file, and one command that gets them all.
    """
    missing = [wanted for wanted in map(entry, ids) if find(wanted, folder) is None]
    if missing:
        where = "" if folder == _default_folder() else f" --weights-dir {shlex.quote(str(folder))}"
        addresses = "".join(
            f"\n     {wanted.filename} ({wanted.size_text}): {wanted.url}" for wanted in missing
        )
        raise WeightsError(
            f"{len(missing)} weights file{'s' if len(missing) > 1 else ''} missing in {folder}: "
            + ", ".join(wanted.filename for wanted in missing),
            remedy=f"Run `nsdbench weights fetch {' '.join(wanted.id for wanted in missing)}{where}`, or download "
            f"and put there:{addresses}",
        )


def find(wanted: Weights, where: Path) -> tuple[Weights, Path] | None:
    """Return the entry whose file is here, and its folder: the wanted one, or else one that repackages it."""
    candidates = (wanted, *(w for w in registry.REGISTRY.values() if w.same_as == wanted.id))
    found = ((w, held) for w in candidates if (held := holding(w, where)) is not None)
    return next(found, None)


def holding(weights: Weights, where: Path) -> Path | None:
    """Return the first folder that holds the file or a conversion of it."""
    return next((folder for folder in folders(where) if holds(folder, weights)), None)


def place_of(weights: Weights, where: Path) -> Path:
    """Return the published file: where it is, or where it would be in the first folder that holds another form of it."""
    places = [folder / weights.filename for folder in folders(where)]
    present = [path for path in places if path.is_file()] or [p for p in places if is_converted(p)]
    return (present or places)[0]


def is_present(weights: Weights, folder: Path) -> bool:
    """Whether the file, or a conversion of it, is in ``folder``."""
    return holding(weights, folder) is not None


def holds(folder: Path, weights: Weights) -> bool:
    """Whether the file, or a conversion of it, is in this one folder."""
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
    found = find(entry(id), folder)
    assert found is not None, f"{id} vanished"
    return located_in(*found, home_of(folder))


def located_in(weights: Weights, folder: Path, home: Path) -> Located:
    """Return the file of ``weights`` in this one folder; see :func:`locate`."""
    path = folder / weights.filename
    converted = conversion_of(path)
    if path.is_file():
        sha256 = checked_sha256(weights, path, home)
        if converted is None or converted.source_sha256 != sha256:
            return Located(weights, path, sha256)
    assert converted is not None, f"{weights.filename} vanished"
    _check_conversion(weights, path, converted, home)
    return Located(weights, converted.path, converted.identity)


def _check_conversion(weights: Weights, source: Path, converted: Converted, home: Path) -> None:
    wrong = mismatch(weights, converted.source_sha256, source, home)
    if not wrong and (sha256 := remembered_sha256(converted.path, home)) != converted.sha256:
        wrong = f"its sha256 is {sha256}, the conversion wrote {converted.sha256}"
    if wrong:
        raise WeightsError(
            f"{converted.path} is not the right file: {wrong}",
            remedy="Delete it and the JSON file beside it, and convert again.",
        )
    _pin_first(weights, source.parent, converted.source_sha256, home)


def checked_sha256(weights: Weights, path: Path, home: Path | None = None) -> str:
    """Return the SHA-256 of ``path``, a file of ``weights``, after comparing it with the registry and the pins.

    Weights without a published full hash are pinned on first use: the hash is written to ``pins.json`` beside
    them (or in ``home``, where that folder cannot be written), and another file under the same name is refused from
    then on. Hashes are remembered by size and time of modification, so that large files are read once.

    Raises
    ------
    WeightsError
        If the file is not the published or the pinned one.
    """
    home = home or path.parent
    sha256 = remembered_sha256(path, home)
    wrong = mismatch(weights, sha256, path, home)
    if wrong:
        raise WeightsError(
            f"{path} is not the right file: {wrong}",
            remedy=f"Delete it and run `nsdbench weights fetch {weights.id}`.",
        )
    _pin_first(weights, path.parent, sha256, home)
    return sha256


def _pin_first(weights: Weights, folder: Path, sha256: str, home: Path) -> None:
    if weights.sha256 is None and valid_pin(weights, folder, home) is None:
        pin(folder, weights.filename, Pin(sha256)) or pin(home, weights.filename, Pin(sha256))


def valid_pin(weights: Weights, folder: Path, home: Path) -> tuple[Pin, Path] | None:
    """Return what is recorded about a file in a folder, and where: there, or where notes on read-only folders go."""
    for place in (folder, home):
        if (found := pin_of(place, weights.filename)) is not None:
            return found, place / PINS
    return None


def mismatch(weights: Weights, sha256: str, path: Path, home: Path) -> str:
    """Say why the file ``path`` with this hash cannot be taken for ``weights``; empty if it can."""
    if not weights.accepts(sha256):
        return f"its sha256 is {sha256}, the published file has {weights.expected}"
    pinned = valid_pin(weights, path.parent, home)
    if pinned is None and weights.md5 and path.is_file() and (md5 := _md5(path)) != weights.md5:
        return f"its md5 is {md5}, the published file has {weights.md5}"
    if pinned is None or pinned[0].sha256 == sha256:
        return ""
    return f"its sha256 is {sha256}, but {pinned[1]} holds {pinned[0].sha256}"


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
