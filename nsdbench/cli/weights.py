"""``nsdbench weights``: list, download, check and convert the networks behind the metrics and decoders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nsdbench.cli.output import Bars, Verbose, emit_json, say
from nsdbench.errors import UsageError

app = typer.Typer(
    help="List, download, check and convert the networks behind the metrics and decoders.",
    no_args_is_help=True,
)

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
    rows = [asdict(w) | {"present": weights.is_present(w, folder)} for w in weights.REGISTRY.values()]
    if as_json:
        emit_json({"folder": str(folder), "weights": rows})
        return
    say(f"weights folder: {folder}")
    for row in rows:
        print(f"{'present' if row['present'] else 'missing'}  {row['id']}")
        print(f"         {row['source']}")
        print(f"         used by: {', '.join(row['used_by']) or '-'}   licence: {row['licence']}")
        print(f"         {row['url']}")


@app.command(epilog="Example: nsdbench weights fetch --metrics clip,inception --model mindeye2 --subject 1")
def fetch(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of weights, see `nsdbench weights list`.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Fetch what these metrics need, comma separated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Fetch what these models need to run as published, comma separated.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="With --model: and their published checkpoints of these subjects."),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Base URL that holds the files under the same names.")
    ] = None,
    weights_dir: Folder = None,
    verbose: Verbose = False,
) -> None:
    """Download weights; interrupted downloads continue, and hashes are checked."""
    from nsdbench import weights

    named, scored = ids or [], _needed(metrics) if metrics else ()
    wanted = list(dict.fromkeys([*named, *scored, *(_run_with(model, subject) if model else ())]))
    if not wanted:
        raise UsageError(
            "nothing to fetch",
            remedy="Name ids, or --metrics or a --model that use networks; `nsdbench weights list` shows all.",
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


@app.command(epilog="Example: nsdbench weights convert mindeye2-unclip6 --half")
def convert(
    source: Annotated[
        str, typer.Argument(metavar="ID|FILE", help="Id of weights that are here, or a checkpoint.")
    ],
    half: Annotated[
        bool, typer.Option("--half", help="Round to half precision, which halves the file.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: beside the source, where it is used from now on."),
    ] = None,
    weights_dir: Folder = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the weights of a checkpoint as safetensors, and nothing else that it holds.

    Optimizers and whatever code a pickle asks for are left behind; no code is run. The original may then be deleted.
    """
    from nsdbench import conversion, weights
    from nsdbench.adapters.mindeye.checkpoints import prepared

    folder = weights.folder(weights_dir)
    known = weights.REGISTRY.get(source)
    path = folder / known.filename if known else Path(source)
    if not known and not path.exists():
        raise UsageError(
            f"{source} is neither the id of weights nor a file", remedy="See `nsdbench weights list`."
        )
    if known and not path.is_file():
        weights.require([known.id], folder)
        raise UsageError(
            f"{path} is not here, only another form of it", remedy="Fetch it, or use the form that is here."
        )
    converted = conversion.convert(
        path,
        out,
        half=half,
        drop=known.unused if known else (),
        prepare=prepared,
        source_sha256=weights.checked_sha256(known, path) if known else None,
        progress=Bars(),
    )
    if as_json:
        emit_json(asdict(converted) | {"path": str(converted.path)})
        return
    say(f"{path.stat().st_size:,} bytes became {converted.path.stat().st_size:,}")
    print(converted.path)


def _needed(metrics: str) -> tuple[str, ...]:
    from nsdbench import weights
    from nsdbench.metrics.registry import expand

    return weights.for_metrics(expand(metrics))


def _run_with(models: str, subjects: str | None) -> list[str]:
    from nsdbench.adapters import registry
    from nsdbench.protocol import subject_numbers

    numbers = subject_numbers(subjects) if subjects else ()
    found: list[str] = []
    for adapter in map(registry.load, registry.expand(models)):
        found += adapter.requires.get("published", ())
        for number in numbers:
            found += adapter.required("published", number)
    return found
