"""Run the cells of a request one after the other in this process, and put what came out on the leaderboards."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from nsdbench import leaderboard, runfolder
from nsdbench.adapters.base import Adapter
from nsdbench.cells import Cell, RunRequest, plan, require_all_weights
from nsdbench.stages import CellResult, CellRun, Say
from nsdbench.store import remove_directory
from nsdbench.types import Progress

if TYPE_CHECKING:
    from nsdbench.data import Dataset


def execute(
    dataset: Dataset, request: RunRequest, *, progress: Progress | None = None, say: Say = lambda line: None
) -> list[CellResult]:
    """Run every cell that is not there yet, write the leaderboards, and return all results.

    A cell that fails is recorded as ``failed`` and the others still run; then the first error is raised.

    Raises
    ------
    WeightsError
        If weights of a model or metric are missing; nothing has been computed then.
    OSError
        At once, if a file cannot be written.
    Exception
        The error of the first failed cell, after all others have run.
    """
    cells = plan(dataset, request)
    require_all_weights(cells, request)
    for cell in cells:
        runfolder.require_own(cell.folder, request.out)
        runfolder.require_own(cell.fit_folder, request.out)
    if request.fresh:
        remove(cells)
    results: list[CellResult] = []
    failures: list[Exception] = []
    for _, group in itertools.groupby(cells, key=lambda cell: cell.fit_folder):
        adapter: Adapter | None = None  # one fitted decoder in memory at a time
        for cell in group:
            cell_run = CellRun(dataset, request, cell, progress=progress, say=say, adapter=adapter)
            try:
                results.append(cell_run.run())
            except OSError:
                raise  # the disk, not the cell: the others would fail likewise, after their computations
            except Exception as error:  # noqa: BLE001 - kept, shown, and the first one raised at the end
                say(f"{cell.label}: failed: {error}")
                failures.append(error)
            adapter = cell_run.adapter
    write_leaderboards(results, request.leaderboard)
    if failures:
        raise failures[0]
    return results


def remove(cells: Sequence[Cell]) -> None:
    """Delete the runs of ``cells``, and the fitted decoders they share or the unfinished state of these.

    Whoever is killed here leaves what the same command completes: records go before what they speak of, and runs before fits.
    """
    for cell in cells:
        (cell.folder / runfolder.MANIFEST).unlink(missing_ok=True)
    for folder in {folder for cell in cells for folder in (cell.folder, cell.scratch)}:
        if folder.is_dir():
            shutil.rmtree(folder)
    for cell in cells:
        cell.fit_status.unlink(missing_ok=True)
        remove_directory(cell.fit_folder)


def complete(cells: Sequence[Cell]) -> list[CellResult]:
    """Return the results of those cells that are complete."""
    found = ((cell, runfolder.stored(cell.folder)) for cell in cells)
    return [CellResult(cell, run, reused=True) for cell, run in found if run]


def summaries(results: Sequence[CellResult]) -> list[pa.Table]:
    """Return one leaderboard table per model, preset and split, over the subjects of the request."""
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for result in results:
        key = result.cell.key
        groups.setdefault((key.model, key.preset, key.split), []).append(result)
    return [
        leaderboard.summarize(
            pa.concat_tables([member.run.items for member in members]),
            {member.cell.key.run_id: member.run.manifest.provenance for member in members},
        )
        for members in groups.values()
    ]


def write_leaderboards(results: Sequence[CellResult], directory: Path) -> None:
    """Add the summaries of ``results`` to the leaderboard directory, one folder per split."""
    for table in summaries(results):
        leaderboard.append(directory / table["split"][0].as_py(), table)
