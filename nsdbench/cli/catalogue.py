"""Verbs that show what there is: models, metrics, check-adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nsdbench.cli.output import Bars, Verbose, emit_json, say, table


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(epilog="Example: nsdbench models --json")(models)
    app.command(epilog="Example: nsdbench metrics")(metrics)
    app.command("check-adapter", epilog="Example: nsdbench check-adapter my_package.decoder:MyDecoder")(
        check_adapter
    )


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def models(as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the models that can be run."""
    from nsdbench.adapters.registry import table as known

    rows = [
        {"model": name, "summary": e.summary, "baseline": e.baseline, "target": e.target}
        for name, e in known().items()
    ]
    if as_json:
        emit_json({"models": rows})
        return
    table(["model", "summary"], [[str(r["model"]), str(r["summary"])] for r in rows])


def metrics(as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the metrics, the metric profiles and the checks of `nsdbench inspect`."""
    from nsdbench.metrics.profiles import PROFILES
    from nsdbench.metrics.registry import CHECKS
    from nsdbench.metrics.registry import table as known

    entries = known()
    if as_json:
        emit_json({
            "metrics": [
                {"metric": n, "summary": e.summary, "direction": e.direction, "version": e.version, "nets": list(e.nets),
                 "weights": list(e.weights), "needs": list(e.needs)}
                for n, e in entries.items()
            ],
            "profiles": [{"profile": n, "summary": p.summary} for n, p in PROFILES.items()],
            "checks": [{"check": n, **asdict(c)} for n, c in CHECKS.items()],
        })  # fmt: skip
        return
    arrow = {"higher": "↑", "lower": "↓"}
    table(
        ["metric", "", "network", "what"],
        [
            [name, arrow[e.direction], ", ".join((*e.nets, *e.weights)) or "-", e.summary]
            for name, e in entries.items()
        ],
    )
    print()
    table(["profile", "what it reproduces"], [[name, p.summary] for name, p in PROFILES.items()])
    print()
    table(
        ["check (nsdbench inspect)", "needs", "what it asks"],
        [[name, c.needs, c.summary] for name, c in CHECKS.items()],
    )


def check_adapter(
    name: Annotated[str, typer.Argument(help="Model id or package.module:Class.")],
    preset: Annotated[
        str | None, typer.Option(help="Preset to check. Default: mini where there is one, else the first.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache directory.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run the conformance suite of an adapter on small simulated data. Exit 1 if a check fails."""
    from nsdbench import conformance

    results = conformance.check(name, preset, cache=cache, progress=Bars())
    counts = {o: sum(r.outcome == o for r in results) for o in ("passed", "failed", "skipped")}
    if as_json:
        emit_json({"ok": not counts["failed"], "checks": [asdict(r) for r in results]})
    else:
        table(["outcome", "check", "detail"], [[r.outcome, r.check, r.detail] for r in results])
        say(f"{name}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}")
    if counts["failed"]:
        raise typer.Exit(1)
