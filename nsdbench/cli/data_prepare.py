"""The verb ``nsdbench data prepare``."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from nsdbench.cli import data_betas, data_features, options
from nsdbench.cli.output import Verbose, emit_json
from nsdbench.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to ``nsdbench data``."""
    app.command(epilog="Example: nsdbench data prepare --data-dir /data/nsd --subject 1 --fetch --prune")(
        prepare
    )


def prepare(
    data_dir: options.DataDir = None,
    subject: Annotated[
        str | None, typer.Option(help="Subjects, such as 1 or 1,2,5,7. Default: those of the benchmark.")
    ] = None,
    beta_version: options.BetaVersion = "b3",
    roi: Annotated[str, typer.Option(help="nsdgeneral or streams.")] = "nsdgeneral",
    shared: Annotated[int, typer.Option(help="Test-set definition: 1000, 982 or 515.")] = 1000,
    core_norm: options.CoreNorm = "train_stats",
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete each raw session file once its rows are safe in the store."),
    ] = False,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Download each raw session just before it is read, where it is absent."),
    ] = False,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="With --fetch: a mirror of the public bucket.")
    ] = None,
    model: data_features.Models = None,
    preset: data_features.Preset = None,
    shard: data_features.ShardOf = None,
    device: options.Device = "auto",
    weights_dir: options.WeightsDir = None,
    cache: options.Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Reduce the core sessions of subjects to the voxels in use, and standardize them.

    Raw session files (1.1 GB each, 30 to 40 per subject) are read one by one
    into a compact store below the data directory, nsdbench_prepared/, which
    holds the same values (0.9 GB for subject 1). From then on the loader reads
    the store: same numbers, same keys, so earlier runs are reused. Killed at
    any point, the same command continues. Where another process prepares the
    same store, the two take turns.
    """
    from nsdbench.data import LoadOptions

    choices: Any = {"beta_version": beta_version, "roi": roi, "shared": shared, "core_norm": core_norm}
    chosen = LoadOptions(**choices)  # it refuses unknown values
    if shard and (prune or fetch):
        raise UsageError(
            "--shard computes a part of the features and prepares no betas",
            remedy="Leave out --prune and --fetch.",
        )
    if endpoint and not fetch:
        raise UsageError("--endpoint says where --fetch downloads from", remedy="Add --fetch.")
    downloads = data_betas.Downloads(chosen, endpoint) if fetch else None
    with downloads or contextlib.nullcontext():
        opened, subjects = data_betas.open_data(data_dir, subject, cache, downloads)
        request = data_features.requested(
            opened,
            subjects,
            chosen,
            models=model,
            preset=preset,
            shard=shard,
            device=device,
            weights_dir=weights_dir,
            cache=cache,
        )
        betas: list[dict[str, Any]] = []
        if shard is None:
            betas = data_betas.prepare(opened, subjects, chosen, downloads, prune=prune)
    features = data_features.prepare(opened, request) if request else []
    if as_json:
        emit_json({"dataset": opened.id, "root": str(opened.root), "betas": betas, "features": features})
