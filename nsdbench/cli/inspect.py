"""``nsdbench inspect``: whether reconstructions are more than a category, a retrieved image or a collapsed output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, Verbose, emit_json, say
from nsdbench.errors import WeightsError
from nsdbench.plaintext import visible

if TYPE_CHECKING:
    from nsdbench.inspection import Check, Inspection

WIDTH = 100


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: nsdbench inspect runs/sim/ridge-standard --check nn_baseline,novelty_id")(
        inspect
    )


def inspect(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Run folders or folders of runs. Default: ./runs.")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Which checks, see `nsdbench metrics`. Default: all."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            rich_help_panel=options.SCORING,
            help="Identification metric whose features are compared. Default: clip, mini_clip on sim.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", rich_help_panel=options.DATA, help="Root of the data set. Default: as in the run."
        ),
    ] = None,
    weights: options.WeightsKind = "pretrained",
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Check runs for spurious reconstruction: is there more than a category, retrieval, or one picture for all?

    Answers are kept in checks.json of each run folder. A check that cannot be
    made says why. docs/inspection.md explains each of them.
    """
    from nsdbench.inspection.runs import Inspector, InspectSettings
    from nsdbench.inspection.sources import find_runs

    kind: Any = weights  # ScoreSettings refuses unknown values
    names = tuple(name.strip().replace("-", "_") for name in (check or "").split(",") if name.strip())
    settings = InspectSettings(
        names,
        network and network.replace("-", "_"),
        data_dir,
        kind,
        weights_dir,
        options.pick_device(device),
        cache,
    )
    found = find_runs(options.result_paths(paths, "inspect"))
    inspector = Inspector(settings, progress=Bars())
    done: list[Inspection] = []
    failures: list[Exception] = []
    for folder in found.folders:
        try:
            done.append(inspector.inspect(folder))
        except (OSError, WeightsError):
            raise  # not the run: the others would fail likewise
        except Exception as error:  # noqa: BLE001 - shown, and the first one raised at the end
            failures.append(error)
            if len(found.folders) > 1:
                say(f"{folder}: failed: {error}")
    if as_json and done:
        emit_json({"runs": [one.document() for one in done], "notes": list(found.notes)})
    elif done:
        _print(done)
    if not as_json:
        for note in found.notes:
            say(f"note: {note}")
    if failures:
        raise failures[0]


def _print(done: list[Inspection]) -> None:
    if len(done) == 1:
        _print_one(done[0])
        return
    _print_overview(done)
    say("one run alone is told in sentences: nsdbench inspect RUN")


def _print_one(found: Inspection) -> None:
    from nsdbench.cli.output import table

    training = f", {found.n_train} training images" if found.n_train is not None else ""
    print(f"{_name(found)}, subject {found.subject}, {found.split} ({found.status})")
    print(f"seen through {_eyes(found)}; pool {found.pool}{training}")
    print()
    made = [check for check in found.checks if check.unavailable is None]
    if made:
        table(["check", "value", "95 % CI", "is"], [[check.name, *_cells(check)] for check in made])
        print()
    for check in found.checks:
        _print_wrapped(f"{check.name}: {check.verdict or f'not checked, {check.unavailable}'}")
    for note in found.notes:
        _print_wrapped(f"note: {note}")


def _print_overview(done: list[Inspection]) -> None:
    """Print one table per check, the runs below each other."""
    from nsdbench.cli.output import table
    from nsdbench.metrics.registry import CHECKS

    for network in dict.fromkeys((_eyes(found), found.status) for found in done):
        print(f"seen through {network[0]} ({network[1]})")
    for name, entry in CHECKS.items():
        asked = [(found, check) for found in done for check in found.checks if check.name == name]
        rows = [
            [
                _name(found), str(found.subject), found.split, f"{check.n_targets} x {check.n_samples}",
                *_cells(check),
            ]
            for found, check in asked
            if check.unavailable is None
        ]  # fmt: skip
        if not asked:
            continue
        print(f"\n{name}: {entry.summary}")
        if rows:
            table(["model", "subject", "split", "targets x samples", "value", "95 % CI", "is"], rows)
        for reason, models in _unavailable(asked).items():
            _print_wrapped(f"not checked, {reason}: {', '.join(models)}")


def _unavailable(asked: list[tuple[Inspection, Check]]) -> dict[str, list[str]]:
    """Return the models that a check could not be made on, by reason."""
    models: dict[str, list[str]] = {}
    for found, check in asked:
        if check.unavailable is not None:
            known = models.setdefault(check.unavailable, [])
            if _name(found) not in known:
                known.append(_name(found))
    return models


def _name(found: Inspection) -> str:
    return f"{found.model}-{found.preset}"


def _eyes(found: Inspection) -> str:
    return f"{found.metric} (weights {found.weights_id})"


def _cells(check: Check) -> list[str]:
    """Return value, limits, and where the value lies."""
    limits = "-" if check.low is None else f"[{_number(check.low)}, {_number(check.high)}]"
    where = {"above": "above", "below": "below"}.get(str(check.outcome), "not told apart from")
    return [
        _number(check.value), limits, f"{where} {_number(check.reference)} ({check.reference_label})",
    ]  # fmt: skip


def _print_wrapped(text: str) -> None:
    import textwrap

    print(textwrap.fill(visible(text), WIDTH, subsequent_indent="    "))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0 turns -0 into 0
