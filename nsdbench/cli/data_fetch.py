"""The verb ``nsdbench data fetch``: real data from the public bucket, or as MindEye2 prepared them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli.options import DATA
from nsdbench.cli.output import Verbose, emit_json, say, table

if TYPE_CHECKING:
    from nsdbench.data.needs import Need
    from nsdbench.data.options import LoadOptions
    from nsdbench.fetch import Item, Plan, Request, Result

WHERE = "Where from"
VERIFIED = {  # how a file's content was verified
    "sha256": "verified by a SHA-256 known beforehand",
    "md5": "verified by an MD5 known beforehand",
    "etag": "verified by the server's checksum",
    "size": "unverified (size only)",
}


def register(app: typer.Typer) -> None:
    """Add the verb to ``nsdbench data``."""
    app.command(epilog="Example: nsdbench data fetch --data-dir /data/nsd --for imagery --subject 1 --plan")(
        fetch
    )


def fetch(
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the files go; created if absent. Default: $NSDBENCH_DATA."),
    ] = None,
    purposes: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="WHAT,WHAT",
            rich_help_panel=DATA,
            help="imagery (vision and imagery splits; enough for published checkpoints), train (fitting models here), "
            "shared1000, captions, or all but captions. Default: imagery, or what --split says.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            rich_help_panel=DATA,
            help="What these splits need: vision, imagery, shared1000, both, all.",
        ),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="N,N", rich_help_panel=DATA, help="Subjects. Default: 1,2,5,7.")
    ] = None,
    beta_version: Annotated[
        str, typer.Option(metavar="VERSION", rich_help_panel=DATA, help="b1, b2 or b3 (GLMdenoise_RR).")
    ] = "b3",
    shared: Annotated[
        int,
        typer.Option(
            metavar="SET",
            rich_help_panel=DATA,
            help="1000: all sessions; 982: all but the last three; 515: the first 30.",
        ),
    ] = 1000,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=WHERE,
            help="Core trials from the bucket (raw), or from mindeye2 (prepared: smaller, b3 nsdgeneral only). "
            "Default: bucket, unless prepared betas are there.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", rich_help_panel=WHERE, help="A mirror of the public bucket."),
    ] = None,
    hub_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", rich_help_panel=WHERE, help="A mirror of the hub.")
    ] = None,
    connections: Annotated[
        int, typer.Option(min=1, max=64, rich_help_panel=WHERE, help="Connections at once.")
    ] = 8,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms of NSD without being asked.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print files, sizes and free disk, and fetch nothing.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="A plan from known sizes, without any server.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Fetch exactly the files that a plan needs, check them, and continue where an interrupted fetch stopped.

    The terms of the Natural Scenes Dataset are shown first and accepted once.
    """
    from nsdbench.data.needs import PREPARED_REPO
    from nsdbench.fetch import make_plan, open_routes

    request = _request(
        data_dir, (purposes, split), subject, _options(beta_version, shared), (source, endpoint, hub_endpoint)
    )
    say(_choice(request, given=bool(purposes or split)))
    if offline:
        _show_plan(make_plan(request, None), as_json=as_json)
        return
    if not plan:
        _agree(accept_terms)
    with open_routes(request.endpoint, request.hub_endpoint) as routes:
        made = make_plan(request, routes)
        if request.source is None and any(item.need.repo == PREPARED_REPO for item in made.items):
            say("core trials: MindEye2's prepared betas are there; --source bucket fetches the raw sessions")
        if plan:
            _show_plan(made, as_json=as_json)
            return
        _carry_out(made, connections, as_json=as_json)


def _options(beta_version: str, shared: int) -> LoadOptions:
    from nsdbench.data import LoadOptions

    return LoadOptions(beta_version=beta_version, shared=shared)  # type: ignore[arg-type]  # it refuses others


def _request(
    data_dir: Path | None,
    what: tuple[str | None, str | None],
    subject: str | None,
    options: LoadOptions,
    places: tuple[str | None, str | None, str | None],
) -> Request:
    from nsdbench.fetch import PUBLIC_ENDPOINT, Request, purposes_of
    from nsdbench.protocol import data_home, expand_splits, subject_numbers

    names, split = what
    source, endpoint, hub_endpoint = places
    return Request(
        root=data_home(data_dir),
        purposes=purposes_of(names, expand_splits(split) if split else ()),
        subjects=subject_numbers(subject) if subject else None,
        options=options,
        source=source,  # type: ignore[arg-type]  # it refuses others
        endpoint=endpoint or PUBLIC_ENDPOINT,
        hub_endpoint=hub_endpoint,
    )


def _choice(request: Request, *, given: bool) -> str:
    subjects = ",".join(map(str, request.subjects)) if request.subjects else "of the protocol (1,2,5,7)"
    line = f"--for {','.join(request.purposes)}, subjects {subjects}, betas {request.options.beta_version}"
    if given:
        return line
    return f"{line}: enough for --split both with published checkpoints; models that are fitted here also need --for train"


def _agree(accept_terms: bool) -> None:
    """See to it that the terms are accepted, by option or by typing the word; a UsageError otherwise."""
    from nsdbench.fetch import terms

    if terms.accepted() is not None:
        return
    say(terms.TEXT)
    if accept_terms:
        terms.accept()
        say(f"accepted by --accept-terms; remembered in {terms.place()}")
        return
    if _on_terminal():
        say(f"Type `{terms.ANSWER}` to accept these terms; anything else ends here.")
        if _typed() == terms.ANSWER:
            terms.accept()
            say(f"remembered in {terms.place()}")
            return
    terms.require()


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _typed() -> str:
    try:
        return input().strip().strip("`").lower()
    except EOFError:
        return ""


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        emit_json(_document(plan))
        return
    rows = [
        [item.state, _amount(item.size, about=not item.exact), _why(item.need), item.need.key]
        for item in plan.items
    ]
    table(["state", "size", "for", "file"], rows)
    print(_total(plan))
    routes = _document(plan)["routes"]
    if routes:
        parts = [
            f"--source {name} {_amount(size, about=True)}"
            for name, size in routes.items()
            if size is not None
        ]
        print(f"core trials and images by either route, all files: {', '.join(parts)}")


def _total(plan: Plan) -> str:
    about = not plan.exact
    line = (
        f"{len(plan.items)} files, {_amount(plan.size, about=about)}; to fetch: {_amount(plan.left, about=about)} in "
        f"{sum(item.left > 0 for item in plan.items)} files; free on disk: {_amount(plan.free)}"
    )
    return line if plan.left <= plan.free else f"{line} -- NOT ENOUGH"


def _carry_out(plan: Plan, connections: int, *, as_json: bool) -> None:
    from nsdbench.cli.meter import ByteMeter
    from nsdbench.fetch import carry_out

    say(f"{_total(plan)}, {plan.request.root}")
    with ByteMeter() as meter:
        result = carry_out(plan, meter=meter, connections=connections)
    for outcome in result.outcomes:
        if outcome.warning:
            say(f"warning: {outcome.warning}")
    if as_json:
        emit_json(_document(plan, result))
    else:
        _summarize(plan, result)
    error = result.error()
    if error is not None:
        raise error


def _summarize(plan: Plan, result: Result) -> None:
    there = [item.verified for item in plan.items if item.state == "there" and item.verified]
    counts = Counter([*there, *(outcome.verified for outcome in result.outcomes)])
    for state, words in VERIFIED.items():
        if counts[state]:
            print(f"{counts[state]} files {words}")
    alone = [item.need.key for item in plan.items if item.state == "unchecked" and item.found is None]
    if alone:
        print(f"there by other means and not on the server, so unverified: {', '.join(alone)}")
    absent = [item.need.key for item in plan.items if item.state == "absent"]
    if absent:
        print(f"not on the server and not required: {', '.join(absent)}")
    if not result.failures:
        print(f"complete: {plan.request.root}")
        say(f"next: nsdbench data verify --data-dir {plan.request.root}")


def _document(plan: Plan, result: Result | None = None) -> dict[str, Any]:
    from nsdbench.fetch import compare_routes

    core = {"train", "shared1000"} & set(plan.request.purposes)
    document: dict[str, Any] = {
        "root": str(plan.request.root),
        "dataset": plan.origin.expectations.dataset,
        "purposes": list(plan.request.purposes),
        "subjects": list(plan.subjects),
        "beta_version": plan.request.options.beta_version,
        "bytes": plan.size,
        "bytes_to_fetch": plan.left,
        "bytes_free": plan.free,
        "exact": plan.exact,
        "routes": compare_routes(plan.request, plan.origin) if core else {},
        "files": [_entry(item) for item in plan.items],
    }
    if result is not None:
        done = {outcome.key: outcome for outcome in result.outcomes}
        for entry in document["files"]:
            if entry["file"] in done:
                outcome = done[entry["file"]]
                entry |= {
                    "state": "there",
                    "bytes": outcome.size,
                    "bytes_to_fetch": 0,
                    "verified": outcome.verified,
                }
                entry |= {"warning": outcome.warning} if outcome.warning else {}
        document["ok"] = not result.failures
        document["failed"] = {key: error.message for key, error in result.failures}
    return document


def _entry(item: Item) -> dict[str, Any]:
    return {
        "file": item.need.key,
        "state": item.state,
        "bytes": item.size,
        "exact": item.exact,
        "bytes_to_fetch": item.left,
        "why": item.need.why,
        "optional": item.need.optional,
        "url": item.found.url if item.found else None,
        "verified": item.verified,
    }


def _why(need: Need) -> str:
    return f"{need.why} (optional)" if need.optional else need.why


def _amount(n_bytes: int, *, about: bool = False) -> str:
    """Return a size in words."""
    if about and not n_bytes:
        return "unknown"
    factor, unit = next(
        (pair for pair in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if n_bytes >= pair[0]), (1, "B")
    )
    text = f"{n_bytes / factor:.2f} {unit}" if factor > 1 else f"{n_bytes} B"
    return f"about {text}" if about else text
