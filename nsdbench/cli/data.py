"""The verbs ``nsdbench data info|verify|simulate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli import data_fetch, data_prepare
from nsdbench.cli.output import Bars, Verbose, emit_json, say, table

if TYPE_CHECKING:
    from nsdbench.data import Dataset

app = typer.Typer(help="Fetch, check, prepare and simulate data sets.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Directory that holds NSD (nsddata/, nsddata_betas/). [env: NSDBENCH_DATA]"),
]
Name = Annotated[
    str, typer.Option("--dataset", help="auto, nsd, or sim with parameters (sim:tiny, sim:snr=0.5).")
]
Cache = Annotated[Path | None, typer.Option(help="Cache directory. [env: NSDBENCH_CACHE]")]


def _resolve(name: str, data_dir: Path | None, cache: Path | None) -> tuple[Dataset, str]:
    from nsdbench.protocol import resolve_dataset

    return resolve_dataset(name, data_dir, cache=cache, progress=Bars())


@app.command(epilog="Example: nsdbench data info --data-dir /data/nsd")
def info(
    dataset: Name = "auto",
    data_dir: DataDir = None,
    cache: Cache = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say which data set will be used and what it holds: subjects, trials, voxels, sizes."""
    from nsdbench.data.fetched import states
    from nsdbench.data.overview import NSD_TERMS, describe, stimulus_bytes

    opened, line = _resolve(dataset, data_dir, cache)
    subjects = describe(opened)
    images = {"images": opened.expectations.n_images, "image_bytes": stimulus_bytes(opened.layout)}
    fetched = states(opened.root)
    terms = NSD_TERMS if opened.id == "nsd" else None
    if as_json:
        head = {"dataset": opened.id, "root": str(opened.root), "content_hash": opened.content_hash}
        emit_json(
            {**head, **images, "fetched": fetched, "terms": terms, "subjects": [asdict(s) for s in subjects]}
        )
        return
    print(line)
    rows = [
        [
            str(s.subject),
            str(s.n_voxels),
            " x ".join(map(str, s.grid)),
            f"{s.core_trials} of {s.core_trials_total} ({s.core_layout})",
            f"{s.stored_sessions} sessions, {_mib(s.stored_bytes)}" if s.stored_sessions else "-",
            str(s.imagery_rows),
            _mib(s.n_bytes),
        ]
        for s in subjects
    ]
    table(["subject", "nsdgeneral", "grid", "core trials", "store", "imagery betas", "size"], rows)
    print(
        f"core images: {images['images']} ({_mib(images['image_bytes']) if images['image_bytes'] else 'absent'})"
    )
    if fetched:
        print(f"fetched files: {', '.join(f'{n} {data_fetch.VERIFIED[how]}' for how, n in fetched.items())}")
    if terms:
        print(terms)


@app.command(epilog="Example: nsdbench data verify --data-dir /data/nsd --subject 1,2")
def verify(
    dataset: Name = "auto",
    data_dir: DataDir = None,
    subject: Annotated[
        str | None, typer.Option(help="Subjects, such as 1 or 1,2,5,7. Default: all present.")
    ] = None,
    beta_version: Annotated[str, typer.Option(help="b3, b2 or b1.")] = "b3",
    shared: Annotated[int, typer.Option(help="Test-set definition: 1000, 982 or 515.")] = 1000,
    cache: Cache = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run every integrity check on a data set. Exit 1 if one fails."""
    from nsdbench.data import LoadOptions
    from nsdbench.data import verify as run_checks
    from nsdbench.protocol import expand_subjects

    opened, line = _resolve(dataset, data_dir, cache)
    say(line)
    chosen = expand_subjects(subject, opened) if subject else None
    options = LoadOptions(beta_version=beta_version, shared=shared)  # type: ignore[arg-type]  # it refuses others
    results = run_checks(opened.root, chosen, options=options, progress=Bars())
    counts = {s: sum(r.status == s for r in results) for s in ("ok", "warning", "failed", "skipped")}
    if as_json:
        emit_json({"ok": not counts["failed"], "counts": counts, "checks": [asdict(r) for r in results]})
    else:
        table(
            ["status", "check", "where", "message"],
            [[r.status, r.check, r.where, r.message] for r in results],
        )
        say(", ".join(f"{n} {status}" for status, n in counts.items()))
    if counts["failed"]:
        raise typer.Exit(1)


@app.command(epilog="Example: nsdbench data simulate --preset tiny --snr 0.5 --out /tmp/sim")
def simulate(
    preset: Annotated[str, typer.Option(help="tiny, default or large.")] = "default",
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    snr: Annotated[
        float, typer.Option(help="Factor on the signal-to-noise ratio of every voxel; 0 = no signal.")
    ] = 1.0,
    isnr: Annotated[
        float, typer.Option(help="Factor on the imagery signal; 0 = imagery without content.")
    ] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Directory to write. Default: the cache.")] = None,
    cache: Cache = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write the simulated data set in the file layout of NSD; the same parameters give the same bytes."""
    from nsdbench.sim import SimConfig, ensure, generate

    config = SimConfig(preset=preset, seed=seed, snr=snr, isnr=isnr)  # type: ignore[arg-type]  # it refuses others
    if out is None:
        root = ensure(config, cache, Bars())
    else:
        root = out
        generate(config, root, Bars())
    document: dict[str, Any] = {"root": str(root), "hash": config.hash(), "parameters": config.parameters()}
    if as_json:
        emit_json(document)
        return
    print(root)
    say(f"simulated data set {document['hash']}; use it with --data-dir {root}")


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"


data_fetch.register(app)
data_prepare.register(app)
