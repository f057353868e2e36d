"""``nsdbench run``: from betas to scored reconstructions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli import executors, options, planned
from nsdbench.cli.output import Bars, Verbose, emit_json, say

if TYPE_CHECKING:
    from nsdbench.cells import RunRequest
    from nsdbench.stages import CellResult


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        epilog="Example: nsdbench run --model ridge,mean_image,random_image --split both --subject 1"
    )(run)


def run(
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Model id, several separated by commas, all, or package.module:Class."
        ),
    ],
    split: Annotated[
        str,
        typer.Option(metavar="SPLIT", help="vision, imagery, shared1000, both (vision + imagery) or all."),
    ] = "both",
    subject: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Subject numbers. Default: those of 1,2,5,7 that are present."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Preset of the model. Default: mini on sim, else the first."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Reconstructions per target, if the model draws any.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Determines every draw.")] = 0,
    dataset: options.DatasetName = "auto",
    data_dir: options.DataDir = None,
    beta_version: options.BetaVersion = "b3",
    core_norm: options.CoreNorm = "train_stats",
    shared: Annotated[
        int,
        typer.Option(
            metavar="N", rich_help_panel=options.DATA, help="Test set of shared1000: 1000, 982 or 515."
        ),
    ] = 1000,
    imagery_norm: Annotated[
        str,
        typer.Option(
            metavar="NORM", rich_help_panel=options.DATA, help="NSD-Imagery: run_z, none or core_train_stats."
        ),
    ] = "run_z",
    imagery_runs: Annotated[
        str,
        typer.Option(
            metavar="RUNS",
            rich_help_panel=options.DATA,
            help="all, or only the first (1) or second (2) imagery run.",
        ),
    ] = "all",
    label_source: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=options.DATA,
            help="condition: the image shown; cue: the letter on the screen, wrong on half of the vision trials.",
        ),
    ] = "condition",
    average: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            rich_help_panel=options.DATA,
            help="mean: average the repeats of a target; none: single trials.",
        ),
    ] = "mean",
    metrics: options.MetricIds = None,
    profile: options.ProfileName = "nsdbench-v1",
    precision: options.PrecisionName = "fp32",
    weights: options.WeightsKind = "pretrained",
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
    leaderboard: options.Board = None,
    cache: options.Cache = None,
    train_trials: options.TrainTrials = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=options.FITS,
            help="Begin fits from a pretraining, see `nsdbench pretrain`.",
        ),
    ] = None,
    keep_features: options.KeepFeatures = True,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Recompute instead of reusing what is there.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=options.EXECUTION,
            help="local, or slurm: array jobs on a cluster (needs nsdbench[slurm]).",
        ),
    ] = "local",
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=options.EXECUTION,
            help="Processes at once on this machine; with cuda, each on a GPU of its own.",
        ),
    ] = 1,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=options.EXECUTION,
            help="GPUs, memory, time, partition ... for Slurm, as TOML.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            rich_help_panel=options.EXECUTION,
            help="With slurm: show the tasks until the last has ended.",
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would run and what would be reused.")
    ] = False,
    as_json: options.RowsAsJson = False,
    verbose: Verbose = False,
) -> None:
    """Fit models on core NSD, reconstruct seen and imagined targets, score them, update the leaderboard.

    The same command continues an interrupted run and reuses a finished one.
    Results of fits on some of the trials, or from a pretraining, are filed and
    shown as a preset of their own, such as mini+195trials.
    """
    from nsdbench import cells, protocol
    from nsdbench.adapters import registry
    from nsdbench.adapters.base import Context
    from nsdbench.data import LoadOptions
    from nsdbench.execution.order import Source
    from nsdbench.execution.slots import find
    from nsdbench.starts import Recipe

    # whatever can be refused without the data is refused before a data set is simulated
    executors.check(executor, workers, cluster)
    models, splits = registry.expand(model), protocol.expand_splits(split)
    # the nodes of a cluster have other devices than this machine
    used = device if executor == "slurm" else options.pick_device(device)
    for name in models:
        Recipe(start, train_trials).require(registry.load(name), preset)
    if subject is not None:
        protocol.subject_numbers(subject)
    preparation: dict[str, Any] = {  # LoadOptions refuses unknown values
        "beta_version": beta_version,
        "core_norm": core_norm,
        "shared": shared,
        "imagery_norm": imagery_norm,
        "label_source": label_source,
        "imagery_runs": imagery_runs,
        "average": average,
    }
    load = LoadOptions(**preparation)
    scoring = options.Scoring(metrics, profile, weights, weights_dir, used, cache, precision)
    scoring.check()

    bars = Bars()
    source = Source(dataset, data_dir, cache)
    data, line = source.open(bars)
    say(line)
    request = cells.RunRequest(
        models=models,
        splits=splits,
        subjects=protocol.expand_subjects(subject, data),
        load=load,
        scoring=scoring.settings(simulated=protocol.is_simulated(data)),
        out=out,
        leaderboard=leaderboard or out / "leaderboard",
        preset=preset,
        n_samples=samples,
        seed=seed,
        context=Context(used, weights_dir, start, features=options.features_folder(keep_features, cache)),
        train_trials=train_trials,
        fresh=fresh,
    )
    if plan:
        planned.show(data, request, as_json=as_json)
        return
    if executor == "slurm":
        results = executors.run_on_slurm(data, request, source, cluster, wait=wait)
    elif workers > 1:
        results = executors.run_in_slots(data, request, source, find(workers, used))
    else:
        results = executors.run_here(data, request, source, bars)
    if results is not None:
        _report(results, request, as_json)


def _report(results: list[CellResult], request: RunRequest, as_json: bool) -> None:
    from nsdbench import runner

    notes = list(dict.fromkeys(note for result in results for note in result.run.manifest.notes))
    if as_json:
        emit_json(
            {
                "rows": [row for table in runner.summaries(results) for row in table.to_pylist()],
                "notes": notes,
            }
        )
        return
    for note in notes:
        say(f"note: {note}")
    reused = sum(result.reused for result in results)
    say(
        f"{len(results)} cells ({reused} reused); run folders in {request.out}, leaderboard in {request.leaderboard}"
    )
    say(f"compare them: nsdbench compare {shlex.quote(str(request.out))}")
