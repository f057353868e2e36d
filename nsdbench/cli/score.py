"""``nsdbench score``: score reconstructions that were made elsewhere, or add metrics to run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, Verbose, emit_json, say


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        epilog="Example: nsdbench score recons/ --split imagery --subject 1 --name my_model --targets my_targets/"
    )(score)


def score(
    paths: Annotated[
        list[Path], typer.Argument(help="Folder of PNG/JPEG, .npy, .pt (tensors only), .h5, or run folders.")
    ],
    split: Annotated[
        str,
        typer.Option(metavar="SPLIT", help="vision, imagery or shared1000 (not needed for run folders)."),
    ] = "",
    subject: Annotated[
        int | None,
        typer.Option(min=1, max=8, metavar="N", help="Subject the reconstructions belong to. Default: 1."),
    ] = None,
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="Model name for the rows. Default: name of the file or folder."),
    ] = "",
    targets: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=options.DATA,
            help="Score against this folder of images (ids = file stems) instead of a data set.",
        ),
    ] = None,
    dataset: options.DatasetName = "auto",
    data_dir: options.DataDir = None,
    metrics: options.MetricIds = None,
    profile: options.ProfileName = "nsdbench-v1",
    precision: options.PrecisionName = "fp32",
    weights: options.WeightsKind = "pretrained",
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
    leaderboard: options.Board = None,
    cache: options.Cache = None,
    as_json: options.RowsAsJson = False,
    verbose: Verbose = False,
) -> None:
    """Score finished reconstructions against a data set's targets or a folder of target images."""
    from nsdbench import external, protocol
    from nsdbench.errors import UsageError

    if name and len(paths) > 1:
        raise UsageError(
            "--name fits one path only", remedy="Score the paths one by one, or leave --name out."
        )
    if targets and (data_dir or dataset != "auto"):
        raise UsageError(
            "--targets takes the place of a data set", remedy="Leave out --dataset and --data-dir."
        )
    bars, used = Bars(), options.pick_device(device)
    scoring = options.Scoring(metrics, profile, weights, weights_dir, used, cache, precision)
    scoring.check()
    data = None
    if targets is None:
        data, line = protocol.resolve_dataset(dataset, data_dir, cache=cache, progress=bars)
        say(line)
    settings = scoring.settings(simulated=data is not None and protocol.is_simulated(data))
    notes, rows = [], []
    if subject is None and not all((path / "run.json").is_file() for path in paths):
        notes.append("no --subject was given: the rows say subject 1")
    for path in paths:
        job = external.ScoreJob(
            path, split, subject or 1, name or path.resolve().stem, out, leaderboard or out / "leaderboard"
        )
        result = external.score_external(job, external.Truth(data, targets), settings, progress=bars)
        rows += result.rows
        notes += [note for note in result.notes if note not in notes]
    if as_json:
        emit_json({"rows": rows, "notes": notes})
        return
    for note in notes:
        say(f"note: {note}")
    _print_rows(rows)


def _print_rows(rows: list[dict[str, object]]) -> None:
    from nsdbench.cli.output import table

    arrow = {"higher": "↑", "lower": "↓"}
    body = [
        [
            str(row["model"]), str(row["subject"]), str(row["split"]), str(row["stimulus_set"]),
            f"{row['metric']} {arrow[str(row['direction'])]}", str(row["pool"]), _number(row["value"]),
            f"[{_number(row['ci_low'])}, {_number(row['ci_high'])}]", _number(row["chance"]),
            f"{row['n_targets']} x {row['n_samples']}", str(row["status"]),
        ]
        for row in rows
    ]  # fmt: skip
    table(
        [
            "model",
            "subject",
            "split",
            "set",
            "metric",
            "pool",
            "value",
            "95 % CI",
            "chance",
            "targets x samples",
            "status",
        ],
        body,
    )


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"
