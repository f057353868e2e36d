"""Core sessions one at a time, so that preparing a subject needs no room for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from nsdbench.data.layout import Layout, find_betas
from nsdbench.data.needs import SESSION, Need
from nsdbench.data.options import LoadOptions
from nsdbench.errors import DataError
from nsdbench.fetch import terms
from nsdbench.fetch.origin import ask, check_same
from nsdbench.fetch.plan import plan_files, wanted_files
from nsdbench.fetch.request import PUBLIC_ENDPOINT, Request
from nsdbench.fetch.routes import Bucket, Hub, Routes
from nsdbench.fetch.run import carry_out
from nsdbench.transfer import SILENT, Client, Meter

_DEFAULTS = LoadOptions()


def session_fetcher(
    root: Path,
    subject: int,
    options: LoadOptions = _DEFAULTS,
    *,
    endpoint: str = PUBLIC_ENDPOINT,
    client: Client,
    meter: Meter = SILENT,
    warn: Callable[[str], None] = lambda text: None,
) -> Callable[[int], Path]:
    """Return a function that brings the beta file of one core session (1, 2, ...) and returns its path.

    Masks, design, tables and pair lists are fetched here, the large image file is not. The function leaves a session
    that is there alone, and brings it again after its file was deleted.

    Parameters
    ----------
    client : Client
        Stays open as long as the function is used.
    warn : callable
        Told what is odd about a file, see :class:`nsdbench.fetch.Outcome`.

    Raises
    ------
    UsageError
        If the terms are not accepted, or ``root`` belongs to another data set.
    FetchError
        If a server does not have a file.
    """
    terms.require()
    request = Request(root, ("train",), (subject,), options, "bucket", endpoint)
    routes = Routes(Bucket(client, endpoint), Hub(client, None))
    origin = ask(routes, prepared=False)
    check_same(root, origin, endpoint)
    layout, sessions, others = Layout(root), {}, []
    for need in wanted_files(request, origin):
        match = SESSION.search(need.key)
        if match:
            sessions[int(match.group(1))] = replace(need, stand_in=None)
        elif root / need.key != layout.images:
            others.append(need)

    def bring(needs: Iterable[Need]) -> None:
        result = carry_out(plan_files(request, origin, needs, routes), meter=meter)
        for outcome in result.outcomes:
            if outcome.warning:
                warn(outcome.warning)
        error = result.error()
        if error is not None:
            raise error

    def fetch_session(session: int) -> Path:
        if session not in sessions:
            raise DataError(f"subject {subject} has no session {session} to fetch")
        bring([sessions[session]])
        return find_betas(layout.core_betas(subject, session, options.beta_version))

    bring(others)
    return fetch_session
