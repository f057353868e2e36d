"""The part of ``nsdbench data prepare`` that concerns core betas."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nsdbench.cli.output import LOG, Bars, say
from nsdbench.errors import UsageError

if TYPE_CHECKING:
    from nsdbench.cli.meter import ByteMeter
    from nsdbench.data import Dataset, LoadOptions
    from nsdbench.preparation.betas import BetasPlan, Fetcher, SessionOutcome
    from nsdbench.transfer import Client


@dataclass
class Downloads:
    """What ``--fetch`` brings: a context with one connection pool; sessions come when they are needed."""

    options: LoadOptions
    endpoint: str | None
    fetchers: dict[int, tuple[Fetcher, ByteMeter]] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        from nsdbench.transfer import Client

        self._client: Client = self._stack.enter_context(Client())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def begin(self, root: Path, subject: int) -> None:
        """Fetch masks and design of a subject, and make ready for its sessions."""
        from nsdbench.cli.meter import ByteMeter
        from nsdbench.fetch import PUBLIC_ENDPOINT, session_fetcher

        endpoint = self.endpoint or PUBLIC_ENDPOINT
        with ByteMeter(f"subject {subject}") as meter:
            fetcher = session_fetcher(
                root,
                subject,
                self.options,
                endpoint=endpoint,
                client=self._client,
                meter=meter,
                warn=lambda text: say(f"warning: {text}"),
            )
        self.fetchers[subject] = fetcher, meter


def open_data(
    data_dir: Path | None, subject: str | None, cache: Path | None, downloads: Downloads | None
) -> tuple[Dataset, tuple[int, ...]]:
    """Open the data set and name its subjects; with downloads, it need not hold anything yet."""
    from nsdbench.data import Dataset
    from nsdbench.protocol import data_home, expand_subjects, resolve_dataset, subject_numbers

    if downloads is None:
        dataset, line = resolve_dataset("nsd", data_dir, cache=cache)
        say(line)
        return dataset, expand_subjects(subject, dataset)
    root = data_home(data_dir)
    if subject is None:
        raise UsageError("--fetch needs --subject", remedy="One subject is up to 42 GB; name those you want.")
    subjects = subject_numbers(subject)
    for number in subjects:
        downloads.begin(root, number)
    return Dataset.open(root, cache=cache, may_be_empty=True), subjects


def prepare(
    dataset: Dataset,
    subjects: tuple[int, ...],
    chosen: LoadOptions,
    downloads: Downloads | None,
    *,
    prune: bool,
) -> list[dict[str, Any]]:
    """Plan all subjects, say what will happen, then prepare them one by one; return what was done as JSON."""
    from nsdbench.preparation import betas

    fetch = downloads is not None
    plans: list[BetasPlan] = []
    for subject in subjects:
        if not fetch and betas.needs_none(dataset, subject, chosen):
            say(f"subject {subject}: MindEye2's prepared betas need no preparation")
            continue
        plans.append(betas.plan_betas(dataset, subject, chosen))
        _announce(plans[-1], prune=prune, fetch=fetch)
    betas.require_space(plans, dataset, prune=prune, fetch=fetch)
    return [_subject(dataset, plan, chosen, downloads, prune=prune) for plan in plans]


def _announce(plan: BetasPlan, *, prune: bool, fetch: bool) -> None:
    """Say what will be read, written and deleted."""
    to_read = len(plan.wanted) - len(plan.done) - len(plan.absent)
    parts = [f"{len(plan.wanted)} sessions", f"{len(plan.done)} prepared already"]
    if to_read:
        parts.append(f"{to_read} to read ({size(plan.read_bytes)})")
    if plan.absent:
        parts.append(f"{len(plan.absent)} {'to fetch' if fetch else 'not on disk'}")
    say(f"subject {plan.subject}: {', '.join(parts)}")
    say(
        f"  store: {size(plan.store_bytes)} in {plan.folder}; standardized trials: {size(plan.cache_bytes)} more in the cache"
    )
    if prune and (plan.prunable_bytes or fetch):
        what = f"{size(plan.prunable_bytes)} of raw session files on disk"
        if fetch and plan.absent:
            what = f"{what} and every fetched one" if plan.prunable_bytes else "every fetched session file"
        say(f"  --prune deletes {what}, each once its rows were read back from the store and compared")
        say("  voxels outside the region are gone then: another --roi needs the raw files again")


def _subject(
    dataset: Dataset, plan: BetasPlan, chosen: LoadOptions, downloads: Downloads | None, *, prune: bool
) -> dict[str, Any]:
    """Prepare one subject, say what came of it and return it as JSON."""
    from nsdbench.preparation.betas import prepare_betas
    from nsdbench.types import Silent

    outcomes: list[SessionOutcome] = []

    def report(outcome: SessionOutcome) -> None:
        outcomes.append(outcome)
        what = f"ready in {outcome.seconds:.1f} s" if outcome.added else "ready before"
        LOG.debug("subject %s, session %s of %s: %s", plan.subject, outcome.session, len(plan.wanted), what)
        for warning in outcome.warnings:
            say(f"warning: {warning}")

    if downloads is None:
        prepare_betas(dataset, plan.subject, chosen, prune=prune, progress=Bars(), report=report)
    else:
        fetcher, meter = downloads.fetchers[plan.subject]
        with meter:  # a terminal has room for one bar
            prepare_betas(
                dataset, plan.subject, chosen, prune=prune, fetch=fetcher, progress=Silent(), report=report
            )
    trials = dataset.train(plan.subject, chosen, Bars())
    added = [outcome for outcome in outcomes if outcome.added]
    seconds = sum(outcome.seconds for outcome in added)
    pruned = sum(outcome.pruned_bytes for outcome in outcomes)
    fetched = sum(outcome.raw_bytes for outcome in added if outcome.session in plan.absent)
    document = {
        "subject": plan.subject,
        "store": str(plan.folder),
        "store_bytes": plan.store_bytes,
        "sessions": len(plan.wanted),
        "sessions_read": len(added),
        "seconds_per_session": round(seconds / len(added), 3) if added else None,
        "pruned_bytes": pruned,
        "train_trials": len(trials),
        "n_voxels": trials.n_voxels,
        "warnings": list(trials.provenance["warnings"]),
    }
    _tell(document, left=plan.prunable_bytes + fetched - pruned)
    return document


def _tell(document: dict[str, Any], left: int) -> None:
    """Say what was done, and how many bytes of raw files could go."""
    read = document["sessions_read"]
    pace = f", {read} read at {document['seconds_per_session']:.1f} s each" if read else ""
    say(
        f"subject {document['subject']}: {document['sessions']} sessions prepared{pace}; "
        f"{document['train_trials']} training trials of {document['n_voxels']} voxels are ready"
    )
    if document["pruned_bytes"]:
        say(f"  deleted {size(document['pruned_bytes'])} of raw session files")
    if left:
        say(f"  the raw session files ({size(left)}) are not read any more; --prune deletes them")


def size(n_bytes: int) -> str:
    """Write a number of bytes the way disks are sold: ``"943 MB"``, ``"1.9 GB"``."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
