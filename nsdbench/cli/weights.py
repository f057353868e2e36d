"""``nsdbench weights``: list, download, check and convert the networks behind the metrics and decoders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsdbench.cli.output import Bars, Verbose, emit_json, fail, say
from nsdbench.cli.weights_text import (
    addresses,
    advise,
    announce,
    described,
    error_document,
    item_document,
    row_document,
    totals,
)
from nsdbench.errors import NsdbenchError, UsageError

if TYPE_CHECKING:
    from nsdbench.weights.planning import Item

app = typer.Typer(
    help="List, download, check and convert the networks behind the metrics and decoders.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        help="Weights folder, or several as in PATH, of which the first writable one is added to. "
        "Default: $NSDBENCH_WEIGHTS, or one in the cache.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Metrics = Annotated[str | None, typer.Option(help="What these metrics need, comma separated.")]
Model = Annotated[str | None, typer.Option(help="What these models need, comma separated.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="With --model: to run in this preset. Default: as published, else the model's own default."
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(metavar="N,N", help="With --model: and their published checkpoints of these subjects."),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Connect to nothing; also with NSDBENCH_OFFLINE=1 or HF_HUB_OFFLINE=1."),
]


@app.command("list", epilog="Example: nsdbench weights list --model mindeye2 --subject 1 --missing --urls")
def list_(
    metrics: Metrics = None,
    model: Model = None,
    preset: Preset = None,
    subject: Subject = None,
    missing: Annotated[bool, typer.Option("--missing", help="Only what is not here.")] = False,
    urls: Annotated[
        bool, typer.Option("--urls", help="Print addresses and file names for another program to download.")
    ] = False,
    downloader: Annotated[
        str, typer.Option(help="With --urls, for: curl (-K), aria2 (-i), or wget (a shell script).")
    ] = "curl",
    weights_dir: Folder = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show weights files: what they are, how large, whether they are here and what proves them, who uses them.

    Nothing is read or downloaded. Sizes with ~ are estimates, with > a part of the whole.
    """
    from nsdbench import weights

    folder = weights.folder(weights_dir)
    rows = weights.listed(folder, _chosen((), metrics, model, preset, subject))
    if missing:
        rows = tuple(row for row in rows if row.state == "missing" and not row.weights.same_as)
    if urls:
        print(addresses(rows, downloader), end="")
    elif as_json:
        emit_json({"folder": str(folder), "weights": [row_document(row) for row in rows]})
    else:
        say(f"weights folder: {folder}")
        for row in rows:
            print(described(row))
        print(totals(rows))


@app.command(epilog="Example: nsdbench weights fetch --metrics clip,inception --model mindeye2 --subject 1")
def fetch(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of weights, see `nsdbench weights list`.")
    ] = None,
    metrics: Metrics = None,
    model: Model = None,
    preset: Preset = None,
    subject: Subject = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be downloaded.")] = False,
    mirror: Annotated[
        str | None, typer.Option(help="Base URL that holds the files under the same names.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of a mirror of the Hugging Face hub. Default: $HF_ENDPOINT.")
    ] = None,
    offline: Offline = False,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Files under way at once.")] = 4,
    weights_dir: Folder = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Download weights; interrupted downloads continue, hashes are checked, and the cache of the hub is used.

    Sizes are shown first. Where a file fails, the others go on, and the exit code is 2.
    """
    from nsdbench import weights
    from nsdbench.cli.meter import ByteMeter
    from nsdbench.weights.fetching import carry_out
    from nsdbench.weights.planning import How
    from nsdbench.weights.planning import plan as planned

    wanted = _chosen(ids or (), metrics, model, preset, subject) or []
    wanted = [id for id in wanted if id not in weights.SHIPPED]
    if not wanted:
        raise UsageError(
            "nothing to fetch",
            remedy="Name ids, or --metrics or a --model that use networks; `nsdbench weights list` shows all.",
        )
    how = How(mirror, endpoint, offline, parallel)
    items = planned(wanted, weights_dir, how)
    announce(items, print if plan and not as_json else say)
    if plan:
        errors = {item.weights.id: item.error for item in items if item.error is not None}
        if as_json:
            emit_json({"files": [item_document(item) for item in items]})
        return _end(errors, tell=not as_json)
    arrived: dict[str, Path] = {}
    with ByteMeter() as meter:
        failures = carry_out(
            items, how, meter=meter, done=lambda item: arrived.update({item.weights.id: item.path})
        )
    _report(items, arrived, {item.weights.id: error for item, error in failures}, as_json)


@app.command(epilog="Example: nsdbench weights verify clip-vit-l14-openai --json")
def verify(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of weights; default: all, and what comes with nsdbench.")
    ] = None,
    weights_dir: Folder = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check the hash of every weights file that is here, in all folders, and say against what; exit 1 if one is wrong."""
    from nsdbench import weights

    folder = weights.folder(weights_dir)
    found = weights.verify(folder, ids, shipped=True)
    ok = all(status.status != "bad" for status in found)
    if as_json:
        rows = [asdict(status) | {"path": status.path and str(status.path)} for status in found]
        emit_json({"ok": ok, "folder": str(folder), "weights": rows})
    else:
        say(f"weights folder: {folder}")
        several = len(weights.folders(folder)) > 1
        for status in found:
            where = f"  {status.path}" if several and status.path else ""
            print(f"{status.status:8} {status.id:40} {status.detail}{where}")
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
    from nsdbench.weights.shelves import is_writable, writable_folder

    folder = weights.folder(weights_dir)
    known = weights.REGISTRY.get(source)
    path = weights.place_of(known, folder) if known else Path(source)
    if not known and not path.exists():
        raise UsageError(
            f"{source} is neither the id of weights nor a file", remedy="See `nsdbench weights list`."
        )
    if known and not path.is_file():
        weights.require([known.id], folder)
        raise UsageError(
            f"{path} is not here, only another form of it", remedy="Fetch it, or use the form that is here."
        )
    if (
        known and out is None and not is_writable(path.parent)
    ):  # of a shared folder into one's own, where it is found
        out = conversion.converted_path(writable_folder(folder) / known.filename)
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


# which


def _chosen(
    ids: Iterable[str], metrics: str | None, model: str | None, preset: str | None, subject: str | None
) -> list[str] | None:
    """Return the ids that were asked for, without repeats; None if nothing was."""
    from nsdbench import weights

    ids = [id for id in ids if id in weights.SHIPPED or weights.entry(id)]  # refuses a misspelt id
    if not (ids or metrics or model):
        if preset or subject:
            raise UsageError("--preset and --subject belong to a model", remedy="Name it: --model.")
        return None
    scored = _scored_with(metrics) if metrics else ()
    return list(dict.fromkeys([*ids, *scored, *(_run_with(model, preset, subject) if model else ())]))


def _scored_with(metrics: str) -> tuple[str, ...]:
    from nsdbench import weights
    from nsdbench.metrics.registry import expand

    names = expand(metrics)
    return (*weights.for_metrics(names), *weights.shipped_for_metrics(names))


def _run_with(models: str, preset: str | None, subjects: str | None) -> list[str]:
    from nsdbench.adapters import registry
    from nsdbench.protocol import subject_numbers

    numbers = subject_numbers(subjects) if subjects else ()
    found: list[str] = []
    for adapter in map(registry.load, registry.expand(models)):
        chosen = preset or ("published" if "published" in adapter.presets else adapter.presets[0])
        if chosen not in adapter.presets:
            raise UsageError(
                f"model {adapter.name} has no preset {chosen!r}",
                remedy=f"Choose one of: {', '.join(adapter.presets)}.",
            )
        found += adapter.requires.get(chosen, ())
        for number in numbers:
            found += adapter.required(chosen, number)
    return found


def _report(
    items: tuple[Item, ...], arrived: dict[str, Path], failed: dict[str, NsdbenchError], as_json: bool
) -> None:
    paths = {item.weights.id: arrived[item.weights.id] for item in items if item.weights.id in arrived}
    if as_json:
        rows = [item_document(item) | _outcome(item, paths, failed) for item in items]
        emit_json({"ok": not failed, "files": rows})
    else:
        for path in paths.values():
            print(path)
        advise(paths)
    _end(failed, tell=not as_json)


def _outcome(item: Item, paths: dict[str, Path], failed: dict[str, NsdbenchError]) -> dict[str, object]:
    error = failed.get(item.weights.id)
    if error is not None:
        return {"state": "failed", "error": error_document(error)}
    path = paths[item.weights.id]
    return {"state": "here", "path": str(path), "size": path.stat().st_size, "size_is_exact": True}


def _end(failed: dict[str, NsdbenchError], *, tell: bool) -> None:
    """Say what failed, the last as the error of the whole."""
    if not failed:
        return
    if not tell:
        raise typer.Exit(2)
    *others, (_, last) = failed.items()
    for id, other in others:
        fail(other.kind, f"{id}: {other.message}", other.remedy, as_json=False)
    raise last
