"""``nsdbench pretrain``: what several subjects have in common, as a start for fits on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, Verbose, say
from nsdbench.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        epilog="Example: nsdbench pretrain --model mindeye2 --subject 2,5,7 --out start, then: "
        "nsdbench run --model mindeye2 --subject 1 --train-trials 195 --start start"
    )(pretrain)


def pretrain(
    model: Annotated[str, typer.Option(metavar="NAME", help="Model id, or package.module:Class.")],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", rich_help_panel=options.FILES, help="New folder for the result.")
    ],
    subject: Annotated[str | None, typer.Option(metavar="N,N", help="Subjects to learn from.")] = None,
    published_without: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train nothing: take the published pretraining on all subjects but this one."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Preset of the model. Default: mini on sim, else the first."),
    ] = None,
    dataset: options.DatasetName = "auto",
    data_dir: options.DataDir = None,
    beta_version: options.BetaVersion = "b3",
    core_norm: options.CoreNorm = "train_stats",
    train_trials: options.TrainTrials = None,
    keep_features: options.KeepFeatures = True,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    verbose: Verbose = False,
) -> None:
    """Let a model learn what subjects have in common, as a start for fits on another subject with few trials.

    Only training trials of core NSD are used. The same command continues an
    interrupted pretraining.
    """
    from nsdbench import protocol, starts
    from nsdbench.adapters import registry
    from nsdbench.adapters.base import Context
    from nsdbench.data import LoadOptions

    # whatever can be refused without the data is refused before a data set is simulated
    name, used = registry.one(model), options.pick_device(device)
    if subject is None and published_without is not None:
        starts.take_published(name, published_without, out, Context("cpu", weights_dir))
        say(f"{name}: the published pretraining without subject {published_without} is in {out}")
        return
    if subject is None or published_without is not None:
        raise UsageError(
            "a pretraining is either trained on subjects or taken as published",
            remedy="Give --subject 2,5,7 or --published-without 1.",
        )
    starts.require_pretrainable(name, preset, out)
    protocol.subject_numbers(subject)
    preparation: dict[str, Any] = {"beta_version": beta_version, "core_norm": core_norm}
    load = LoadOptions(**preparation)  # refuses unknown values
    bars = Bars()
    data, line = protocol.resolve_dataset(dataset, data_dir, cache=cache, progress=bars)
    say(line)
    subjects = protocol.expand_subjects(subject, data)
    context = Context(used, weights_dir, features=options.features_folder(keep_features, cache))
    request = starts.PretrainRequest(name, subjects, load, out, preset, context, train_trials)
    starts.pretrain(data, request, progress=bars)
    say(f"{name}: pretrained on subjects {', '.join(map(str, subjects))} in {out}")
    say(f"begin from it: nsdbench run --model {name} --start {out}")
