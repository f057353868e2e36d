"""``nsdbench weights``: list, download and check the networks behind the metrics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nsdbench.cli.output import Bars, Verbose, emit_json, say
from nsdbench.errors import UsageError

app = typer.Typer(help="List, download and check the networks behind the metrics.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option("--weights-dir", help="Weights folder. Default: $NSDBENCH_WEIGHTS, or one in the cache."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list", epilog="Example: nsdbench weights list --json")
def list_(weights_dir: Folder = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Show every weights file: what it is, which metrics use it, whether it is here."""
    from nsdbench import weights

    folder = weights.folder(weights_dir)
    rows = [asdict(w) | {"present": (folder / w.filename).is_file()} for w in weights.REGISTRY.values()]
    if as_json:
        emit_json({"folder": str(folder), "weights": rows})
        return
    say(f"weights folder: {folder}")
    for row in rows:
        print(f"{'present' if row['present'] else 'missing'}  {row['id']}")
        print(f"         {row['source']}")
        print(f"         used by: {', '.join(row['used_by']) or '-'}   licence: {row['licence']}")
        print(f"         {row['url']}")


@app.command(epilog="Example: nsdbench weights fetch --metrics clip,inception")
def fetch(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of weights, see `nsdbench weights list`.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Fetch what these metrics need, comma separated.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Base URL that holds the files under the same names.")
    ] = None,
    weights_dir: Folder = None,
    verbose: Verbose = False,
) -> None:
    """Download weights; interrupted downloads continue, and hashes are checked."""
    from nsdbench import weights

    wanted = list(dict.fromkeys([*(ids or []), *(_needed(metrics) if metrics else ())]))
    if not wanted:
        raise UsageError(
            "nothing to fetch",
            remedy="Name ids, or --metrics that use networks; `nsdbench weights list` shows both.",
        )
    for id in wanted:
        weights.entry(id)  # refuse a misspelt id before the first download
    bars = Bars()
    for id in wanted:
        print(weights.fetch(id, weights.folder(weights_dir), progress=bars, base_url=mirror))


@app.command(epilog="Example: nsdbench weights verify --json")
def verify(weights_dir: Folder = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Check the hash of every weights file that is here; exit 1 if one is wrong."""
    from nsdbench import weights

    folder = weights.folder(weights_dir)
    found = weights.verify(folder)
    ok = all(status.status != "bad" for status in found)
    if as_json:
        emit_json({"ok": ok, "folder": str(folder), "weights": [asdict(status) for status in found]})
    else:
        say(f"weights folder: {folder}")
        for status in found:
            print(f"{status.status:8} {status.id:40} {status.detail}")
    if not ok:
        raise typer.Exit(1)


def _needed(metrics: str) -> tuple[str, ...]:
    from nsdbench import weights
    from nsdbench.metrics.registry import expand

    return weights.for_metrics(expand(metrics))
