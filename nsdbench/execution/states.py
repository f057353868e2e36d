"""What has become of every cell below a folder of runs.

The run folder is the truth: ``complete`` there means complete, whatever an executor thinks. Executors are only asked which
tasks they still have; a cell that nobody has and that is not complete either failed, was cancelled, or is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nsdbench import pulse, runfolder
from nsdbench.errors import DataError
from nsdbench.execution import jobs
from nsdbench.execution.executor import Executor, Presence
from nsdbench.execution.jobs import ExecutorName, Job, JobCell
from nsdbench.execution.local import LocalExecutor
from nsdbench.execution.slurm import SlurmExecutor
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.pulse import Pulse
from nsdbench.schema import RunKey

State = Literal["complete", "running", "queued", "failed", "cancelled", "lost", "unknown"]
_BACKWARDS = ("score", "reconstruct", "fit")
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class CellState:
    """One row of ``nsdbench status``.

    Attributes
    ----------
    key : RunKey
    folder : Path
        Run folder.
    job : str
        Number of the newest job that has the cell; empty if none is on record.
    state : {"complete", "running", "queued", "failed", "cancelled", "lost", "unknown"}
        ``lost``: not complete, without an error on record, and no living process or queue knows of it. ``unknown``: the
        same, but its process was on another machine, which alone can tell.
    stage : str
        The stage that runs or is next; for what ended early, the last one that was begun.
    elapsed_s : float or None
        Seconds of the stage that runs; of all stages together once they are complete.
    host, gpus : str
        Where that was.
    line : str
        The error, the loop that runs and how far it is, or the last line of the log.
    """

    key: RunKey
    folder: Path
    job: str
    state: State
    stage: str = ""
    elapsed_s: float | None = None
    host: str = ""
    gpus: str = ""
    line: str = ""

    @property
    def pending(self) -> bool:
        """Whether something will still become of it without anybody's help."""
        return self.state in ("queued", "running")


class _Here:
    """The jobs of processes that take their cells one after the other."""

    def submit(self, job: Job) -> None:
        raise TypeError("such a job has no tasks: whoever made it does the work")

    def poll(self, job: Job) -> Mapping[int, Presence]:
        return {}

    def cancel(self, job: Job, tasks: Iterable[int]) -> None:
        """Nothing but the process itself could be stopped."""


def executor_of(job: Job) -> Executor:
    """Return what can be asked about the tasks of a job, and told to drop them."""
    executors: dict[ExecutorName, Executor] = {
        "here": _Here(), "local": LocalExecutor(), "slurm": SlurmExecutor()
    }  # fmt: skip
    return executors[job.executor]


def survey(runs: Path) -> tuple[CellState, ...]:
    """Return the states of all cells below a folder of runs, by model, subject and split.

    Raises
    ------
    ExecutionError
        If Slurm should have some of them and does not answer.
    """
    found: dict[Path, CellState] = {}
    for job in jobs.all_of(runs):
        wanted = [i for i, cell in enumerate(job.cells) if cell.folder not in found]
        found |= {job.cells[i].folder: state for i, state in of_cells(job, wanted).items()}
    for path in runs.glob(f"*/*/subj*/*/*/{runfolder.MANIFEST}"):  # of runs whose job is not on record
        folder = path.parent.relative_to(runs)
        if folder not in found and (manifest := _manifest(path.parent)):
            found[folder] = _unrecorded(runs, folder, manifest)
    return tuple(sorted(found.values(), key=_order))


def _unrecorded(runs: Path, folder: Path, manifest: RunManifest) -> CellState:
    """Return the state of a run that no job on record has: made by an older version, or moved here."""
    cell = JobCell(manifest.key, folder, folder.parents[1] / "fit" / str(manifest.config.get("fit", "none")))
    state = CellState(manifest.key, runs / folder, "", "lost")
    return (
        _complete(state, manifest) if manifest.status == "complete" else _ended(state, cell, runs, manifest)
    )


def _order(state: CellState) -> tuple[str, str, str, int, str, str]:
    key = state.key
    return key.dataset, key.model, key.preset, key.subject, key.split, key.run_id


def of_cells(job: Job, places: Iterable[int]) -> dict[int, CellState]:
    """Return the states of some cells of a job, by their place in it.

    Raises
    ------
    ExecutionError
        If some are not settled and their executor does not answer.
    """
    manifests = {place: _manifest(job.runs / job.cells[place].folder) for place in places}
    view = _View(job, {}, job.cancelled())
    if not all(view.settled(place, manifest) for place, manifest in manifests.items()):
        view = replace(view, presence=executor_of(job).poll(job))
    return {place: view.state(place, manifest) for place, manifest in manifests.items()}


@dataclass(frozen=True)
class _View:
    """A job, the tasks of it that wait or run, and the cells that are cancelled."""

    job: Job
    presence: Mapping[int, Presence]
    cancelled: frozenset[int]

    def settled(self, place: int, manifest: RunManifest | None) -> bool:
        """Whether a cell is complete and will stay as it is: a job may also be about to add metrics to it."""
        complete = manifest is not None and manifest.status == "complete"
        return complete and [self.job.tasks[i].stage for i in self._tasks(place)] != ["score"]

    def state(self, place: int, manifest: RunManifest | None) -> CellState:
        cell, tasks = self.job.cells[place], self._tasks(place)
        if not self.settled(place, manifest):
            here = self.job.executor == "here"
            active = self._in_process(cell) if here else self._active(cell, tasks)
            if active:
                return active
        if manifest and manifest.status == "complete":
            return _complete(self._blank(cell), manifest)
        ended = _ended(self._blank(cell), cell, self.job.runs, manifest)
        if place in self.cancelled:
            ended = replace(ended, state="cancelled")
        elif ended.state == "lost" and self.job.executor != "slurm" and not self.job.process.here:
            return replace(ended, state="unknown", host=self.job.process.host)
        return replace(ended, line=ended.line or _last_line([self.job.log(task) for task in tasks]))

    def _tasks(self, place: int) -> list[int]:
        """Return the tasks of one cell, in the order of their stages."""
        return [i for i, t in enumerate(self.job.tasks) if place in t.cells and t.stage != "publish"]

    def _blank(self, cell: JobCell) -> CellState:
        return CellState(cell.key, self.job.runs / cell.folder, self.job.name, "lost")

    def _active(self, cell: JobCell, tasks: Iterable[int]) -> CellState | None:
        """Return the state of a cell some of whose tasks wait or run, else None."""
        present = [task for task in tasks if task in self.presence]
        if not present:
            return None
        task = next((task for task in present if self.presence[task] == "running"), present[0])
        stage = self.job.tasks[task].stage
        state = replace(self._blank(cell), state=self.presence[task], stage=stage)
        if state.state == "queued":
            return state
        state = replace(state, line=_last_line([self.job.log(task)]))
        return _located(state, _pulse(cell, self.job.runs, stage))

    def _in_process(self, cell: JobCell) -> CellState | None:
        """Return the state of a cell whose process is still at work, else None."""
        if not self.job.process.alive:
            return None
        for stage in _BACKWARDS:
            beat = _pulse(cell, self.job.runs, stage)
            if beat and beat.process == self.job.process and not beat.ended:
                return _located(replace(self._blank(cell), state="running", stage=stage), beat)
        return replace(self._blank(cell), state="queued", stage="fit")


def _complete(state: CellState, manifest: RunManifest) -> CellState:
    elapsed = round(sum(manifest.timings.values()), 1)
    return replace(state, state="complete", elapsed_s=elapsed, host=str(manifest.environment.get("host", "")))


def _ended(state: CellState, cell: JobCell, runs: Path, manifest: RunManifest | None) -> CellState:
    """Return the state of a cell that is not complete and that nobody works on, from its run folder."""
    beat = next(filter(None, (_pulse(cell, runs, stage) for stage in _BACKWARDS)), None)
    if beat:
        state = _located(replace(state, stage=beat.stage), replace(beat, step=""))
    if manifest and manifest.status == "failed":
        return replace(state, state="failed", line=manifest.error or "")
    return state


def _located(state: CellState, beat: Pulse | None) -> CellState:
    if beat is None:
        return state
    where = replace(state, elapsed_s=beat.elapsed_s, host=beat.process.host, gpus=beat.gpus)
    return replace(where, line=beat.step or state.line)


def _pulse(cell: JobCell, runs: Path, stage: str) -> Pulse | None:
    """Return the sign of life of a stage of a cell, if that was its latest."""
    fit = cell.fit_folder.with_name(f"{cell.fit_folder.name}.{pulse.FILE}")
    found = pulse.read(runs / (fit if stage == "fit" else cell.folder / pulse.FILE))
    return found if found and found.stage == stage else None


def _manifest(folder: Path) -> RunManifest | None:
    try:
        return read_manifest(folder)
    except DataError:
        return None


def _last_line(logs: Iterable[Path]) -> str:
    """Return the last line of the last log that holds any."""
    last = ""
    for log in logs:
        try:
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            continue
        last = next((line.strip() for line in reversed(lines) if line.strip()), last)
    return last
