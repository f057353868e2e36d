"""What getting weights will take: where each file comes from, how large it is, and what will prove it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nsdbench.errors import NsdbenchError, UsageError, WeightsError
from nsdbench.transfer import Client, Proof, Remote, ask_all
from nsdbench.weights import hub
from nsdbench.weights.entry import Weights
from nsdbench.weights.records import PINS, pin_of
from nsdbench.weights.registry import entry
from nsdbench.weights.shelves import folder, folders, holding, writable_folder

OFFLINE_VARIABLES = ("NSDBENCH_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class How:
    """Where files come from.

    Attributes
    ----------
    mirror : str or None
        Base URL that holds the files under their names in the weights folder.
    endpoint : str or None
        Address of the hub or a mirror of it; default: ``$HF_ENDPOINT``, else huggingface.co.
    offline : bool
        Connect to nothing. Also where ``$NSDBENCH_OFFLINE`` or ``$HF_HUB_OFFLINE`` is 1.
    parallel : int
        Files under way at once.
    """

    mirror: str | None = None
    endpoint: str | None = None
    offline: bool = False
    parallel: int = 4

    @property
    def unconnected(self) -> bool:
        """Whether no connection may be tried."""
        yes = ("1", "true", "yes", "on")
        return self.offline or any(os.environ.get(name, "").lower() in yes for name in OFFLINE_VARIABLES)


@dataclass(frozen=True)
class Item:
    """One file of a plan.

    Attributes
    ----------
    weights : Weights
    state : {"here", "cached", "download", "failed"}
        ``"cached"``: in the cache of huggingface_hub, from where it is taken. ``"failed"``: see ``error``.
    path : Path
        Where it is or will be.
    url : str
        Where it comes from.
    size : int or None
        In bytes.
    exact : bool
        Whether the size was published or told by the server.
    proof : Proof
        What the content will be compared with.
    facts : mapping
        What will be recorded beside its pin.
    git_sha1 : str or None
        Git's hash of a small file of the hub.
    remote : Remote or None
        What the server says, where it is not the hub.
    cached : Cached or None
    error : NsdbenchError or None
    """

    weights: Weights
    state: Literal["here", "cached", "download", "failed"]
    path: Path
    url: str = ""
    size: int | None = None
    exact: bool = False
    proof: Proof = field(default_factory=Proof)
    facts: Mapping[str, Any] = field(default_factory=dict)
    git_sha1: str | None = None
    remote: Remote | None = None
    cached: hub.Cached | None = None
    error: NsdbenchError | None = None


def plan(ids: Iterable[str], where: Path | None = None, how: How | None = None) -> tuple[Item, ...]:
    """Return what getting weights will take: servers are asked for sizes and hashes, nothing is written.

    Parameters
    ----------
    ids : iterable of str
    where : Path, optional
        Weights folders; see :func:`~nsdbench.weights.shelves.folder`.
    how : How, optional

    Raises
    ------
    UsageError
        If there are no such weights.
    WeightsError
        If files are missing and no folder is writable.
    """
    how, chosen = how or How(), [entry(id) for id in dict.fromkeys(ids)]
    where = folder(where)
    with Client() as client:
        return tuple(ask_all(lambda weights: _planned(weights, where, how, client), chosen))


def _planned(weights: Weights, where: Path, how: How, client: Client) -> Item:
    held = holding(weights, where)
    if held is not None:
        path = held / weights.filename
        return Item(weights, "here", path, size=path.stat().st_size if path.is_file() else None, exact=True)
    item = wanted(weights, where, how)
    cached = hub.cached(weights.hub) if weights.hub is not None else None
    if weights.hub is not None and cached is not None:
        facts = _facts(
            weights.hub.url(hub.endpoint(how.endpoint), cached.commit), cached.commit, cached.sha256
        )
        size = cached.content.stat().st_size
        return replace(item, state="cached", cached=cached, size=size, exact=True, facts=facts)
    return item if how.unconnected else asked(item, how, client)


def wanted(weights: Weights, where: Path, how: How) -> Item:
    """Return what is known of a missing file without asking anybody."""
    path = writable_folder(where) / weights.filename
    pins = (pin_of(place, weights.filename) for place in folders(where))
    pinned = next(filter(None, pins), None)
    proof = Proof(
        size=weights.size,
        sha256=weights.sha256 or (pinned.sha256 if pinned else None),
        sha256_prefixes=weights.sha256_prefixes,
        md5=None if pinned else weights.md5,
    )
    url = _address(weights, how)
    exact = weights.size is not None
    return Item(weights, "download", path, url, weights.n_bytes, exact, proof, _facts(url, None, None))


def _address(weights: Weights, how: How) -> str:
    if how.mirror:
        if not how.mirror.startswith(("https://", "http://")):
            raise UsageError(
                f"{how.mirror} is not a web address", remedy="Give a mirror as https://host/folder."
            )
        return f"{how.mirror.rstrip('/')}/{weights.filename}"
    return weights.hub.url(hub.endpoint(how.endpoint)) if weights.hub else weights.url


def _facts(url: str, commit: str | None, hub_sha256: str | None) -> dict[str, Any]:
    known = {"url": url, "commit": commit, "hub_sha256": hub_sha256}
    return {name: value for name, value in known.items() if value is not None}


def asked(item: Item, how: How, client: Client) -> Item:
    """Return the item with what its server says."""
    try:
        if item.weights.hub is None or how.mirror:
            remote = client.head(item.url)
            size, exact = (item.size, item.exact) if remote.size is None else (remote.size, True)
            return replace(item, remote=remote, size=size, exact=exact)
        return _told_by_hub(item, hub.inquire(item.weights.hub, hub.endpoint(how.endpoint)))
    except NsdbenchError as error:
        return replace(item, state="failed", error=error)


def _told_by_hub(item: Item, told: hub.HubFacts) -> Item:
    known = item.proof
    if told.sha256 and not agrees(known, told.sha256):
        raise WeightsError(
            f"{item.url} is now another file: its sha256 is {told.sha256}, expected {known.sha256}",
            remedy=f"Nothing was downloaded. To take the new one after all, delete {item.weights.filename} from "
            f"{item.path.parent / PINS}; results made with it are not comparable to earlier ones.",
        )
    return replace(
        item,
        url=told.url,
        size=told.size if told.size is not None else item.size,
        exact=told.size is not None or item.exact,
        proof=replace(known, size=known.size or told.size, sha256=known.sha256 or told.sha256),
        facts=_facts(told.url, told.commit, told.sha256),
        git_sha1=told.git_sha1,
    )


def agrees(proof: Proof, sha256: str) -> bool:
    """Whether a hash is none that a proof rules out."""
    whole = proof.sha256 in (None, sha256)
    return whole and (not proof.sha256_prefixes or sha256.startswith(proof.sha256_prefixes))
