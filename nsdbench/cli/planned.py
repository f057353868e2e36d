"""``nsdbench run --plan``: what would run, what is there already, and what it would take."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nsdbench.cli.amounts import as_size, as_time
from nsdbench.cli.output import emit_json, table

if TYPE_CHECKING:
    from nsdbench.cells import RunRequest
    from nsdbench.data import Dataset
    from nsdbench.estimates import CellEstimate, Plan

WIDTH = 100
SHORT = {"reconstructions": "images"}


def show(data: Dataset, request: RunRequest, *, as_json: bool) -> None:
    """Print the plan; nothing is computed or written."""
    from nsdbench.estimates import estimate

    plan = estimate(data, request)
    if as_json:
        emit_json(document(plan))
        return
    gpu = plan.device_memory > 0
    header = ["cell", "subject", "split", "state", "reuses", "writes", *(["GPU"] * gpu), "memory", "time"]
    table(header, [_row(cell, gpu) for cell in plan.cells])
    print()
    for paragraph in _totals(plan):
        print(textwrap.fill(paragraph, WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _row(cell: CellEstimate, gpu: bool) -> list[str]:
    key = cell.cell.key
    row = [f"{key.model}-{key.preset}", f"subj{key.subject:02d}", key.split, cell.state, _reuses(cell)]
    if not cell.stages:
        return [*row, *("-",) * (3 + gpu)]
    sizes = [cell.n_bytes, *([cell.device_memory] if gpu else []), cell.host_memory]
    seconds = "?" if cell.seconds is None else as_time(cell.seconds)
    return [*row, *("?" if size is None else as_size(size) if size else "-" for size in sizes), seconds]


def _reuses(cell: CellEstimate) -> str:
    if not cell.stages:
        return "all"
    return ", ".join(SHORT.get(what, what) for what in cell.reused) or "-"


def _totals(plan: Plan) -> Iterator[str]:
    left = [cell for cell in plan.cells if cell.stages]
    yield f"{len(plan.cells)} cells, {len(plan.cells) - len(left)} complete, {len(left)} to run."
    if not left:
        return
    times = ", ".join(f"{stage} {as_time(seconds)}" for stage, seconds in plan.seconds.items())
    yield f"time, one cell after the other: {as_time(sum(plan.seconds.values()))} ({times})"
    where = f"{as_size(plan.device_memory)} on the GPU, " if plan.device_memory else ""
    yield f"memory of the largest stage: {where}{as_size(plan.host_memory)} besides Python and its libraries"
    kept = ""
    if plan.feature_bytes:
        kept = f"; features of training images at most {as_size(plan.feature_bytes)} in {plan.features}"
    yield f"written: at most {as_size(plan.n_bytes)}{kept}"
    yield f"estimated from counted operations, not measured: {plan.basis}"
    if plan.unknown:
        yield f"not counted, and missing in the totals: {', '.join(plan.unknown)}"


def document(plan: Plan) -> dict[str, Any]:
    """Return everything as JSON; null is what is not known."""
    return {
        "cells": [_cell(cell) for cell in plan.cells],
        "totals": {
            "seconds": dict(plan.seconds),
            "bytes": plan.n_bytes,
            "feature_bytes": plan.feature_bytes,
            "device_bytes": plan.device_memory,
            "host_bytes": plan.host_memory,
            "not_counted": list(plan.unknown),
        },
        "basis": f"estimated from counted operations, not measured: {plan.basis}",
    }


def _cell(found: CellEstimate) -> dict[str, Any]:
    cell = found.cell
    return {
        "model": cell.key.model,
        "preset": cell.key.preset,
        "subject": cell.key.subject,
        "split": cell.key.split,
        "samples": cell.n_samples,
        "run_id": cell.key.run_id,
        "folder": str(cell.folder),
        "fit_folder": str(cell.fit_folder),
        "state": found.state,
        "reused": list(found.reused),
        "stages": {
            name: {
                "seconds": stage.seconds,
                "bytes": stage.n_bytes,
                "device_bytes": stage.device_memory,
                "host_bytes": stage.host_memory,
            }
            for name, stage in found.stages.items()
        },
        "seconds": found.seconds,
        "bytes": found.n_bytes,
        "device_bytes": found.device_memory,
        "host_bytes": found.host_memory,
    }
