"""Getting the files of a plan: each is proven before it gets its name, and recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from nsdbench.errors import NsdbenchError, RefusedByServer, WeightsError
from nsdbench.store import atomic_path, nearest, sha256_file
from nsdbench.transfer import SILENT, Client, Fetched, Job, Meter, fetch_all, require_room
from nsdbench.weights import hub
from nsdbench.weights.entry import HubFile, size_text
from nsdbench.weights.planning import How, Item, agrees, asked, plan, wanted
from nsdbench.weights.records import Pin, pin, remember_sha256
from nsdbench.weights.shelves import home_of, located_in


def carry_out(
    items: Iterable[Item],
    how: How | None = None,
    *,
    meter: Meter = SILENT,
    done: Callable[[Item], None] = lambda item: None,
) -> list[tuple[Item, NsdbenchError]]:
    """Get the files of a plan; where one fails, the others go on.

    Files in the cache of huggingface_hub are linked into the weights folder, or copied where the file system cannot, after
    their hash was checked. Downloads can be interrupted and continue the next time. Files that are here are checked.

    Parameters
    ----------
    items : iterable of Item
        What :func:`plan` returned.
    how : How, optional
        As it was planned.
    meter : Meter
        Told about every byte that arrives.
    done : callable
        Called with every item whose file is in its place.

    Returns
    -------
    list of (Item, NsdbenchError)
        What failed.

    Raises
    ------
    WeightsError
        If files are missing and no connection may be tried: which, how large, and from where.
    FetchError
        If the disk is too small.
    """
    how, items = how or How(), tuple(items)
    failures = [(item, item.error) for item in items if item.error is not None]
    waiting = [item for item in items if item.state == "download"]
    copied = [item for item in items if item.cached and not _can_link(item.cached.content, item.path)]
    _require_room(copied if how.unconnected else [*waiting, *copied])
    for item in items:
        if item.state == "here":
            failures += _checked(item, done)
        elif item.state == "cached" and not _adopted(item, done):
            waiting.append(_again(item, how))  # the cache holds something else under that name
    if waiting and how.unconnected:
        raise offline_error(waiting)
    failures += [(item, item.error) for item in waiting if item.error is not None]
    return failures + _downloaded([item for item in waiting if item.error is None], how, meter, done)


def _checked(item: Item, done: Callable[[Item], None]) -> list[tuple[Item, NsdbenchError]]:
    try:
        path = located_in(item.weights, item.path.parent, home_of(item.path.parent)).path
    except WeightsError as error:
        return [(item, error)]
    done(replace(item, path=path))
    return []


def _again(item: Item, how: How) -> Item:
    missing = replace(wanted(item.weights, item.path.parent, how), proof=item.proof)
    if how.unconnected:
        return missing
    with Client() as client:
        return asked(missing, how, client)


def offline_error(items: Iterable[Item]) -> WeightsError:
    """Return the error for files that are missing while no connection may be tried."""
    missing = tuple(items)
    lines = "".join(
        f"\n     {item.path.name} ({size_text(item.size, exact=item.exact)}): {item.url}" for item in missing
    )
    return WeightsError(
        f"{len(missing)} weights file{'s' if len(missing) > 1 else ''} missing in {missing[0].path.parent}, and no "
        "connection is tried (--offline, NSDBENCH_OFFLINE or HF_HUB_OFFLINE)",
        remedy="Fetch them on a connected machine (`nsdbench weights list --missing --urls` prints a list for curl, "
        f"aria2 or wget), put them there under these names, and run `nsdbench weights verify`:{lines}",
    )


# into the folder


def _can_link(content: Path, path: Path) -> bool:
    return content.stat().st_dev == nearest(path.parent).stat().st_dev


def _require_room(items: Iterable[Item]) -> None:
    needed: dict[Path, int] = {}
    for item in items:
        part = item.path.with_name(f".{item.path.name}.part")
        have = part.stat().st_blocks * 512 if part.exists() else 0
        needed[item.path.parent] = needed.get(item.path.parent, 0) + max(0, (item.size or 0) - have)
    for place, n_bytes in needed.items():
        place.mkdir(parents=True, exist_ok=True)
        require_room(place, n_bytes)


class _OtherContent(Exception):
    """The cache holds something else than its name says."""


def _adopted(item: Item, done: Callable[[Item], None]) -> bool:
    """Put a file of huggingface_hub's cache into its place; False if it is not the right one."""
    assert item.cached is not None
    try:
        with atomic_path(item.path) as temporary:
            _link_or_copy(item.cached.content, temporary)
            sha256 = sha256_file(temporary)
            if not item.cached.is_content(temporary, sha256) or not agrees(item.proof, sha256):
                raise _OtherContent
    except _OtherContent:
        return False
    _record(item, sha256, "sha256" if item.cached.sha256 else "git sha1")
    done(item)
    return True


def _link_or_copy(content: Path, path: Path) -> None:
    try:  # no symbolic link: it would lead into somebody's home, and break when that is tidied
        os.link(content, path)
    except OSError:
        shutil.copyfile(content, path)


def _record(item: Item, sha256: str, verified: str) -> None:
    place = item.path.parent
    now = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {**item.facts, "date": now, "size": item.path.stat().st_size, "verified": verified}
    remember_sha256(item.path, sha256, place)
    pin(place, item.path.name, Pin(sha256, facts))


def _downloaded(
    items: list[Item], how: How, meter: Meter, done: Callable[[Item], None]
) -> list[tuple[Item, NsdbenchError]]:
    failures: list[tuple[Item, NsdbenchError]] = []
    for at_hub in (False, True):  # the token of the hub goes nowhere else
        group = [item for item in items if at_hub == (item.weights.hub is not None and not how.mirror)]
        if group:
            headers = _authorization() if at_hub else None
            with Client(headers=headers) as client:
                failures += _group(client, group, how, meter, done)
    return failures


def _authorization() -> dict[str, str] | None:
    known = hub.token()
    return {"Authorization": f"Bearer {known}"} if known else None


def _group(
    client: Client, items: list[Item], how: How, meter: Meter, done: Callable[[Item], None]
) -> list[tuple[Item, NsdbenchError]]:
    by_path = {item.path: item for item in items}

    def finished(job: Job, fetched: Fetched) -> None:
        _accept(by_path[job.path], fetched)
        done(by_path[job.path])

    jobs = [Job(item.url, item.path, item.proof, item.remote) for item in items]
    failed = fetch_all(client, jobs, workers=how.parallel, meter=meter, done=finished)
    return [(by_path[job.path], _explained(by_path[job.path], error, how)) for job, error in failed]


def _accept(item: Item, fetched: Fetched) -> None:
    """Compare a download with what only git's hash can tell, and record it."""
    if item.git_sha1 and hub.git_sha1(item.path) != item.git_sha1:
        item.path.unlink()
        raise WeightsError(
            f"{item.url} delivered another file than the hub announced", remedy="Nothing was kept. Try again."
        )
    digits = item.proof.sha256_prefixes and not item.proof.sha256  # only the first of the hash were known
    verified = "git sha1" if item.git_sha1 else "sha256 digits" if digits else fetched.verified
    _record(item, fetched.sha256, verified)


def _explained(item: Item, error: NsdbenchError, how: How) -> NsdbenchError:
    if isinstance(error, RefusedByServer) and isinstance(item.weights.origin, HubFile) and not how.mirror:
        return hub.refused(item.weights.origin, hub.endpoint(how.endpoint))
    return error


def fetch(id: str, where: Path | None = None, how: How | None = None, *, meter: Meter = SILENT) -> Path:
    """Get one file and return its path; see :func:`plan` and :func:`carry_out`.

    Raises
    ------
    NsdbenchError
        If it could not be had: :class:`~nsdbench.errors.WeightsError` or :class:`~nsdbench.errors.FetchError`.
    """
    found: list[Item] = []
    failures = carry_out(plan([id], where, how), how, meter=meter, done=found.append)
    if failures:
        raise failures[0][1]
    return found[0].path
