"""Carries a plan out: room on disk, transfer, verification, and the record beside the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nsdbench.data.facts import table
from nsdbench.data.fetched import FetchedFile, note
from nsdbench.data.layout import again
from nsdbench.errors import NsdbenchError
from nsdbench.fetch import terms
from nsdbench.fetch.origin import claim
from nsdbench.fetch.plan import Item, Plan, together
from nsdbench.transfer import SILENT, Client, Fetched, Job, Meter, fetch_all, require_room


@dataclass(frozen=True)
class Outcome:
    """One file that is now whole at its place.

    Attributes
    ----------
    verified : {"sha256", "md5", "etag", "size"}
        What its content was held against; "size" means that nobody states a checksum we could use.
    reused : bool
        True if it was there by other means and only checked.
    warning : str
        Empty, or what is odd about it.
    """

    key: str
    size: int
    verified: str
    reused: bool
    warning: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a plan: files that are whole, and those that are not, each with its error."""

    outcomes: tuple[Outcome, ...]
    failures: tuple[tuple[str, NsdbenchError], ...]
    of: int

    def error(self) -> NsdbenchError | None:
        """Return one error that names every file that failed, or None."""
        if not self.failures:
            return None
        error = together([failure for _, failure in self.failures], self.of, "could not be fetched")
        remedy = "Run the same command again: it continues where this one stopped."
        error.remedy = f"{error.remedy} {remedy}".strip()
        return error


def carry_out(plan: Plan, *, meter: Meter = SILENT, connections: int = 8) -> Result:
    """Fetch what is missing and check what was brought by other means. One failing file does not stop the others.

    Parameters
    ----------
    connections : int
        How many connections are open at once, over all files.

    Raises
    ------
    UsageError
        If the terms are not accepted, or the directory belongs to another data set.
    NoRoom
        If the disk is too small for all of it; nothing is fetched then.
    """
    terms.require()
    request, todo = plan.request, plan.to_do()
    if not todo:  # also of a directory that others fill and nobody may write to
        return Result((), (), 0)
    require_room(request.root, plan.left)
    claim(request.root, plan.origin, request.endpoint)
    keeper = _Keeper(request.root, _reported() if plan.origin.expectations.real else {})
    failures: list[tuple[str, NsdbenchError]] = []
    for client, items in _by_client(todo):
        jobs = [
            Job(f.url, request.root / item.need.key, f.proof, f.remote) for item in items if (f := item.found)
        ]
        failed = fetch_all(client, jobs, workers=connections, meter=meter, done=keeper.keep)
        failures += [(job.path.relative_to(request.root).as_posix(), error) for job, error in failed]
    return Result(tuple(keeper.outcomes), tuple(failures), len(todo))


@dataclass
class _Keeper:
    """Judges each file as it becomes whole, and writes it into the record."""

    root: Path
    reported: Mapping[str, str]  # SHA-256 by key that single other people reported
    outcomes: list[Outcome] = field(default_factory=list)

    def keep(self, job: Job, fetched: Fetched) -> None:
        key = job.path.relative_to(self.root).as_posix()
        verified, warning = self._judge(key, fetched)
        note(
            self.root,
            {
                key: FetchedFile(
                    size=fetched.size,
                    mtime_ns=fetched.path.stat().st_mtime_ns,
                    sha256=fetched.sha256,
                    verified=verified,
                    etag=fetched.etag,
                    url=job.url,
                    fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
                )
            },
        )
        self.outcomes.append(Outcome(key, fetched.size, verified, fetched.reused, warning))

    def _judge(self, key: str, fetched: Fetched) -> tuple[str, str]:
        """Return how the content was verified, and a warning where a reported hash differs.

        A reported hash comes from one person each, so it can confirm a file and not condemn it: if the server's own
        checksum fits, the server has another version than that person had.
        """
        reported = self.reported.get(key)
        if reported is None:
            return fetched.verified, ""
        if fetched.sha256 == reported:
            return "sha256", ""
        reason = (
            "it arrived as the server has it, so the released file seems to have changed since"
            if fetched.verified != "size"
            else "the server states no checksum that would tell which of the two is right; "
            f"{again(fetched.path)}"
        )
        return (
            fetched.verified,
            f"{key} has SHA-256 {fetched.sha256[:12]}..., others report {reported[:12]}...: {reason}",
        )


def _reported() -> dict[str, str]:
    return {row["s3_key"]: row["sha256"] for row in table("object_sha256")}


def _by_client(items: Iterable[Item]) -> Iterator[tuple[Client, list[Item]]]:
    """Group items by the connections they come through, the bucket's first."""
    groups: dict[int, tuple[Client, list[Item]]] = {}
    for item in items:
        if item.found is not None:
            groups.setdefault(id(item.found.client), (item.found.client, []))[1].append(item)
    yield from groups.values()
