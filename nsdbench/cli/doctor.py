"""``nsdbench doctor``: what is here, what each model lacks, and what it would take."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli.amounts import as_size, as_time
from nsdbench.cli.output import Verbose, emit_json, table

if TYPE_CHECKING:
    from nsdbench.doctor import Estimate, Finding, Report
    from nsdbench.doctor.costs import Memory, Work
    from nsdbench.doctor.readiness import Gap, Summary

FEW = 3  # files of one kind that are named


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: nsdbench doctor --model mindeye2 --subject 1 --data-dir /data/nsd")(doctor)


def doctor(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model ids, separated by commas, with all details. Default: all."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(metavar="SPLIT", help="vision, imagery, shared1000, both (vision + imagery) or all."),
    ] = "both",
    subject: Annotated[
        str | None, typer.Option(metavar="N,N", help="Subject numbers. Default: 1,2,5,7.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Preset of the models. Default: as `nsdbench run`.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Reconstructions per target.")] = 10,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Root of NSD on disk. Default: $NSDBENCH_DATA.")
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with weights. Default: $NSDBENCH_WEIGHTS.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="Cache directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Say for each model whether it is ready or which files are missing, how to get them, and what it takes.

    Also versions, device, disk and access. Nothing connects to anything.
    Memory and time are estimates from counted operations, not measurements.
    Exit 1 if something is wrong; what is only missing is not.
    """
    from nsdbench.doctor import Question, examine

    report = examine(Question(model or "all", split, subject, preset, samples, data_dir, weights_dir, cache))
    if as_json:
        emit_json(document(report))
    else:
        _print(report, detailed=verbose or model is not None, every_file=verbose)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: Report, *, detailed: bool, every_file: bool) -> None:
    for finding in report.findings:
        print(f"{finding.state:8} {finding.what}: {finding.finding}")
        if finding.remedy:
            print(f"         -> {finding.remedy}")
    print()
    header = ["model", "preset", "splits", "subjects", "state", "memory", "fit", "drawing"]
    table(header, [_row(summary, report) for summary in report.summaries])
    if report.estimates:
        print("memory and time per subject are estimated from counted operations, not measured:")
        for basis in dict.fromkeys(estimate.rates.basis for estimate in report.estimates):
            models = [e.model for e in report.estimates if e.rates.basis == basis]
            print(f"  {', '.join(models)}: {basis}")
    if detailed:
        for summary in report.summaries:
            _details(summary, report, every_file=every_file)
    else:
        print("details and commands: nsdbench doctor --model NAME; every file: -v")
    if report.steps:
        print("\nsimulated data work now: nsdbench run --model ridge --dataset sim")
        print("the shortest way to a first row of real data:")
        for command in report.steps:
            print(f"  {command}")
        sizes = [f"about {as_size(n)} with --source {name}" for name, n in report.step_bytes.items()]
        print(f"the first one fetches {' or '.join(sizes)}")


def _row(summary: Summary, report: Report) -> list[str]:
    estimate = report.estimate(summary.model, summary.preset)
    subjects = ",".join(map(str, summary.subjects))
    row = [summary.model, summary.preset, ",".join(summary.splits), subjects, _state(summary)]
    if estimate is None:
        return [*row, "not counted", "", ""]
    seconds = sum(timed.seconds for timed in estimate.splits if timed.split in summary.splits)
    return [
        *row,
        _memory(estimate),
        as_time(estimate.fit_seconds) if estimate.fit else "-",
        as_time(seconds),
    ]


def _state(summary: Summary) -> str:
    if summary.state in ("ready", "impossible"):
        return summary.state
    never = f"; impossible for {_subjects(summary)}" if summary.impossible else ""
    if summary.state == "part":
        return f"ready{never}"
    files = summary.files
    return f"missing {_count(files)}, {_amount(files)}{never}"


def _subjects(summary: Summary) -> str:
    return ",".join(map(str, dict.fromkeys(cell.subject for cell in summary.impossible)))


def _memory(estimate: Estimate) -> str:
    sizes = {"GPU": estimate.device_memory, "CPU": estimate.host_memory}
    return ", ".join(f"{as_size(size)} {where}" for where, size in sizes.items() if size) or "-"


def _details(summary: Summary, report: Report, *, every_file: bool) -> None:
    print(f"\n{summary.model}-{summary.preset}, {', '.join(summary.splits)}: {_state(summary)}")
    for gap in summary.gaps:
        print(f"  {gap.what}: {_count(gap.files)}, {_amount(gap.files)}: {_named(gap, every_file)}")
    for reason in dict.fromkeys(cell.reason for cell in summary.impossible):
        print(f"  impossible: {reason}")
    for command in summary.commands:
        print(f"  -> {command}")
    estimate = report.estimate(summary.model, summary.preset)
    if estimate is not None:
        for line in _costs(estimate, summary.splits):
            print(f"  {line}")


def _named(gap: Gap, every_file: bool) -> str:
    names = [file.name for file in gap.files]
    if every_file:
        return "".join(f"\n    {name}" for name in names)
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def _costs(estimate: Estimate, splits: Collection[str]) -> Iterator[str]:
    yield f"estimated from counted operations for subject {estimate.subject}, {estimate.rates.basis}:"
    fit = estimate.fit
    if fit is not None:
        disk = f", {as_size(fit.disk)} on disk" if fit.disk else ""
        yield (
            f"  fit: {as_time(estimate.fit_seconds)}, {_operations(fit.work)}; {_held(fit.device)}"
            f"{_main(fit.host_memory)}{disk}"
        )
    for timed in estimate.splits:
        if timed.split not in splits:
            continue
        yield (
            f"  {timed.split}, {timed.targets} targets x {timed.samples}: {as_time(timed.seconds)}, "
            f"{_operations(timed.cost.work)}; {_held(timed.cost.device)}{_main(timed.cost.host_memory)}"
        )


def _held(memory: Memory) -> str:
    if not memory.weights:
        return ""
    parts = ", ".join(f"{name} {as_size(size)}" for name, size in memory.weights.items())
    return f"{as_size(memory.total)} on the device ({parts}; tensors {as_size(memory.tensors)} in {memory.largest}); "


def _main(n_bytes: int) -> str:
    return f"{as_size(n_bytes)} of main memory" if n_bytes else "little main memory"


def _operations(work: Work) -> str:
    kinds = {"half": work.half, "single": work.single, "double on the CPU": work.host}
    return ", ".join(f"{_tera(flop)} TFLOP {kind}" for kind, flop in kinds.items() if flop) or "no operations"


def _tera(flop: float) -> str:
    value = flop / 1e12
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _count(files: Any) -> str:
    return f"{len(files)} file" + ("s" if len(files) != 1 else "")


def _amount(files: Any) -> str:
    """Return the size of files in words: exactly, about, or at least where some sizes are unknown."""
    known = sum(file.size or 0 for file in files)
    if any(file.size is None for file in files):
        return f"{as_size(known)} and some of unknown size" if known else "of unknown size"
    return as_size(known) if all(file.exact for file in files) else f"about {as_size(known)}"


def document(report: Report) -> dict[str, Any]:
    """Return everything as JSON."""
    return {
        "ok": report.ok,
        "findings": [_finding(finding) for finding in report.findings],
        "models": [_summary(summary, report) for summary in report.summaries],
        "estimates": [_estimate(estimate) for estimate in report.estimates],
        "first_row": {"commands": list(report.steps), "bytes_by_source": dict(report.step_bytes)},
        "places": [
            {"what": p.what, "path": str(p.path), "bytes_free": p.free, "writable": p.writable}
            for p in report.places
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding)


def _summary(summary: Summary, report: Report) -> dict[str, Any]:
    return {
        "model": summary.model,
        "preset": summary.preset,
        "splits": list(summary.splits),
        "state": summary.state,
        "files": len(summary.files),
        "bytes": sum(file.size or 0 for file in summary.files),
        "exact": all(file.exact for file in summary.files),
        "commands": list(summary.commands),
        "cells": [
            {
                "split": cell.split,
                "subject": cell.subject,
                "state": cell.state,
                "reason": cell.reason,
                "missing": [_gap(gap) for gap in cell.gaps],
            }
            for cell in summary.cells
        ],
    }


def _gap(gap: Gap) -> dict[str, Any]:
    files = [{"file": f.name, "bytes": f.size, "exact": f.exact} for f in gap.files]
    return {"what": gap.what, "source": gap.source, "files": files}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "model": estimate.model,
        "preset": estimate.preset,
        "subject": estimate.subject,
        "basis": f"estimated from counted operations, not measured: {estimate.rates.basis}",
        "device_bytes": estimate.device_memory,
        "host_bytes": estimate.host_memory,
        "fit": estimate.fit and asdict(estimate.fit) | {"seconds": estimate.fit_seconds},
        "splits": [
            {"split": t.split, "targets": t.targets, "samples": t.samples, "seconds": t.seconds}
            | asdict(t.cost)
            for t in estimate.splits
        ],
    }
