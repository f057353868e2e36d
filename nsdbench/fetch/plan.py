"""What has to come, how large it is, and what is there already; found out before anything is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from nsdbench.data.fetched import FetchedFile, read_record
from nsdbench.data.layout import Layout
from nsdbench.data.needs import SOURCES, Need, Source, is_there, needs, total, unique
from nsdbench.errors import (
    FetchError,
    MissingObject,
    NsdbenchError,
    ProtocolError,
    RefusedByServer,
)
from nsdbench.fetch.origin import Origin, ask, check_same, local
from nsdbench.fetch.request import Request
from nsdbench.fetch.routes import Found, Routes
from nsdbench.protocol import SUBJECTS
from nsdbench.store import free_bytes
from nsdbench.transfer import arrived, ask_all

State = Literal["there", "unchecked", "stored", "partial", "missing", "differs", "absent"]
_LEAST = 0.95  # ours; the values alone are 95.8 % of a core beta file, 95.7 % of an imagery file


@dataclass(frozen=True)
class Item:
    """One file of a plan.

    Attributes
    ----------
    need : Need
        The file, its key and what it is for.
    state : str
        ``there``: fetched before and unchanged. ``unchecked``: there by other means, of the right size if the server
        has it; else nothing is found that it could be held against.
        ``stored``: held by a compact store or as NIfTI. ``partial``: begun. ``missing``: to be fetched.
        ``differs``: there with another size, to be fetched again. ``absent``: optional, and not on the server.
    size : int
        Bytes of the whole file.
    exact : bool
        False where ``size`` is what we expect rather than what the server or the disk says.
    left : int
        Bytes still to come.
    found : Found or None
        Where it lies on the server; None if it was not asked.
    verified : str or None
        How a file fetched before was verified.
    """

    need: Need
    state: State
    size: int
    exact: bool = True
    left: int = 0
    found: Found | None = None
    verified: str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that a request needs.

    Attributes
    ----------
    origin : Origin
        The data set on the server.
    items : tuple of Item
        Betas and masks first, in the order of subjects.
    free : int
        Free bytes where the files will lie.
    """

    request: Request
    origin: Origin
    items: tuple[Item, ...]
    free: int

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that the plan covers."""
        return subjects_of(self.request, self.origin)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(item.size for item in self.items if item.state != "absent")

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return sum(item.left for item in self.items)

    @property
    def exact(self) -> bool:
        """False if a size is only what we expect."""
        return all(item.exact for item in self.items if item.state != "absent")

    def to_do(self) -> tuple[Item, ...]:
        """Return the files that must be fetched, or checked if the server has them."""
        return tuple(
            item
            for item in self.items
            if item.state in ("missing", "partial", "differs") or (item.state == "unchecked" and item.found)
        )


def make_plan(request: Request, routes: Routes | None) -> Plan:
    """Find out what a request needs.

    Parameters
    ----------
    routes : Routes or None
        None contacts no server: sizes are then those that we expect.

    Raises
    ------
    MissingObject, RefusedByServer, Unreachable
        If a server does not have a required file; the message names all of them.
    UsageError
        If the directory belongs to another data set.
    """
    if routes is None:
        origin = local(request.root)
    else:
        origin = ask(routes, prepared=_uses_hub(request))
        check_same(request.root, origin, request.endpoint)
    return plan_files(request, origin, wanted_files(request, origin), routes)


def plan_files(request: Request, origin: Origin, wanted: Iterable[Need], routes: Routes | None) -> Plan:
    """Find out what is there of some files, and what a server says of the others; raises as :func:`make_plan`."""
    record = read_record(request.root)
    items = [_on_disk(request.root, need, record) for need in wanted]
    if routes is not None:
        items = _with_server(request.root, items, routes, real=origin.expectations.real)
    return Plan(request, origin, tuple(items), free_bytes(request.root))


def wanted_files(request: Request, origin: Origin, source: Source | None = None) -> tuple[Need, ...]:
    """Return the needs of all subjects of a request, each file once."""
    chosen = source or request.source
    of_subjects = (
        needs(
            request.root,
            origin.expectations,
            request.purposes,
            subject,
            request.options,
            source=chosen,
            names=origin.names,
        )
        for subject in subjects_of(request, origin)
    )
    return unique(chain.from_iterable(of_subjects))


def subjects_of(request: Request, origin: Origin) -> tuple[int, ...]:
    """Return the subjects of a request; where none are named, those of the protocol that the data set has."""
    if request.subjects is not None:
        return request.subjects
    known = origin.expectations.subjects
    return tuple(s for s in SUBJECTS if s in known) or tuple(known)


def compare_routes(request: Request, origin: Origin) -> dict[str, int | None]:
    """Return about how many bytes each route needs; None where a route cannot serve the options."""
    sizes: dict[str, int | None] = {}
    for source in SOURCES:
        try:
            sizes[source] = total(wanted_files(request, origin, source))
        except ProtocolError:
            sizes[source] = None
    return sizes


def _uses_hub(request: Request) -> bool:
    if request.source is None:
        return Layout(request.root).prepared is not None
    return request.source == "mindeye2"


def _on_disk(root: Path, need: Need, record: Mapping[str, FetchedFile]) -> Item:
    """Return what the disk says of a need."""
    path, known = root / need.key, record.get(need.key)
    if path.is_file():
        size = path.stat().st_size
        if known is not None and known.fits(path):
            return Item(need, "there", size, verified=known.verified)
        return Item(need, "unchecked", size)
    if is_there(root, need):
        return Item(need, "stored", 0)
    here = min(arrived(path), need.about)
    return Item(need, "partial" if here else "missing", need.about, exact=False, left=need.about - here)


def _with_server(root: Path, items: Sequence[Item], routes: Routes, *, real: bool) -> list[Item]:
    """Return the items with what the servers say of those that are not settled."""

    def ask_one(item: Item) -> Item | FetchError:
        if item.state in ("there", "stored"):
            return item
        try:
            return _against(root, item, routes.find(item.need), real=real)
        except (MissingObject, RefusedByServer) as error:
            if item.state == "unchecked":
                return item  # nothing to hold it against
            if item.need.optional:
                return replace(item, state="absent", size=0, left=0, exact=True)
            return error
        except FetchError as error:
            return error

    answers = ask_all(ask_one, items)
    problems = [answer for answer in answers if isinstance(answer, FetchError)]
    if problems:
        raise together(problems, len(items), "cannot be fetched")
    return [answer for answer in answers if isinstance(answer, Item)]


def _against(root: Path, item: Item, found: Found, *, real: bool) -> Item:
    """Return an item with what the server says of it."""
    size = item.need.about if found.size is None else found.size
    _check_size(item.need, size, found.url, real=real)
    known = replace(item, size=size, exact=found.size is not None, found=found)
    if item.state == "unchecked":
        return known if item.size == size else replace(known, state="differs", left=size)
    here = min(arrived(root / item.need.key), size)
    return replace(known, state="partial" if here else "missing", left=size - here)


def _check_size(need: Need, size: int, url: str, *, real: bool) -> None:
    """Refuse betas of the real NSD that are smaller than their values: another data set, or a broken copy."""
    if real and need.key.startswith("nsddata_betas/") and size < _LEAST * need.about:
        raise FetchError(
            f"{url} has {size} bytes, the betas of this subject need about {need.about}",
            remedy="This is not the released file. Check --endpoint.",
        )


def together(problems: Sequence[NsdbenchError], of: int, what: str) -> NsdbenchError:
    """Return one error that names every problem; it has their class if they share one."""
    kinds = {type(problem) for problem in problems}
    kind = kinds.pop() if len(kinds) == 1 else FetchError
    remedies = list(dict.fromkeys(problem.remedy for problem in problems if problem.remedy))
    lines = "".join(f"\n  {problem.message}" for problem in problems)
    return kind(f"{len(problems)} of {of} files {what}:{lines}", remedy=" ".join(remedies[:3]))
