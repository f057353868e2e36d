"""Targets and what models made of them, with the scores of every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nsdbench import leaderboard, reconstructions, summary
from nsdbench.comparison.blocks import FLOORS
from nsdbench.comparison.tables import number
from nsdbench.report.content import Content, Panel
from nsdbench.report.images import data_uri
from nsdbench.report.runs import Run, truth
from nsdbench.types import Stimuli

_SHOWN = (
    "clip",
    "alexnet5",
    "gabor_2way",
    "pixcorr",
)  # the score below a picture is the first of these that there is
Named = list[tuple[str, Run]]
Scores = Mapping[tuple[str, int], Mapping[str, float | None]]  # (target, sample) -> metric -> score


@dataclass(frozen=True)
class Choice:
    """What a gallery shows.

    Attributes
    ----------
    n_targets, n_samples : int
        At most so many; targets are chosen evenly by id, samples are the first ones.
    subject : int or None
        Whose reconstructions; None means the first subject of each split.
    stimuli : bool
        Whether to show targets and what shows stimuli itself.
    data_dir : Path or None
        Where the targets are, instead of what the runs say.
    """

    n_targets: int = 12
    n_samples: int = 3
    subject: int | None = None
    stimuli: bool = True
    data_dir: Path | None = None


@dataclass(frozen=True)
class Picture:
    """One picture: address, text for those who do not see it, and the score below it."""

    source: str
    alt: str
    score: str = ""


@dataclass(frozen=True)
class Row:
    """One model: pictures per target, and the scores of each picture as rows of a table."""

    name: str
    cells: tuple[tuple[Picture, ...], ...]
    scores: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Wall:
    """The gallery of one split.

    Attributes
    ----------
    split : str
    caption : str
        What it shows.
    targets : tuple of str
        Ids, one column each.
    truths : tuple of Picture, or None
        Target images; None where they are left out or missing.
    rows : tuple of Row
    metric : str
        Whose score stands below a picture; empty if there is none.
    columns : tuple of str
        Header of the table of scores.
    notes : tuple of str
        What is not shown and why.
    """

    split: str
    caption: str
    targets: tuple[str, ...]
    truths: tuple[Picture | None, ...] | None
    rows: tuple[Row, ...]
    metric: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def walls(content: Content, choice: Choice) -> tuple[Wall, ...]:
    """Return one gallery per set of comparable results that has run folders.

    Raises
    ------
    ReconstructionError, LeaderboardError
        If a run folder is damaged.
    """
    found = (_wall(content, panel, choice) for panel in content.panels)
    return tuple(wall for wall in found if wall is not None)


def _wall(content: Content, panel: Panel, choice: Choice) -> Wall | None:
    by_model = [(content.palette.of(line).name, content.runs_of(line)) for line in panel.lines]
    subjects = sorted({subject for _, runs in by_model for subject in runs})
    if not subjects:
        return None
    subject = choice.subject if choice.subject in subjects else subjects[0]
    runs = [(name, found[subject]) for name, found in by_model if subject in found]
    shown, notes = _shown(runs, choice)
    one = runs[0][1]  # all of a panel have the same targets
    targets = evenly(sorted(one.manifest.targets), choice.n_targets)
    stimuli, missing = _stimuli(one, content.runs, choice)
    if len(targets) < len(one.manifest.targets):
        notes.append(f"{len(targets)} of {len(one.manifest.targets)} targets, chosen evenly by id.")
    if choice.subject not in (None, subject):
        notes.append(
            f"There is no subject {choice.subject} here (--gallery-subject); shown is subject {subject}."
        )
    if len(subjects) > 1:
        others = ", ".join(str(s) for s in subjects if s != subject)
        notes.append(f"Subject {subject}; --gallery-subject shows others: {others}.")
    metrics = panel.metrics
    metric = next((m for name in _SHOWN for m in metrics if summary.base_name(m) == name), "")
    return Wall(
        panel.split,
        f"data set {one.manifest.key.dataset}, subject {subject}",
        targets,
        None if stimuli is None else tuple(_truth(stimuli, target) for target in targets),
        tuple(_row(name, run, targets, choice.n_samples, metrics, metric) for name, run in shown),
        metric,
        ("target", "sample", *metrics),
        (*missing, *notes),
    )


def _shown(runs: Named, choice: Choice) -> tuple[Named, list[str]]:
    """Return the runs that have pictures to show, and what is said about the others."""
    notes = []
    hidden = [] if choice.stimuli else [name for name, run in runs if run.manifest.key.model in FLOORS]
    if hidden:
        notes.append(f"{' and '.join(hidden)} left out: their pictures are stimuli.")
    absent = [name for name, run in runs if not (run.folder / reconstructions.FILENAME).is_file()]
    if absent:
        notes.append(f"No {reconstructions.FILENAME} in the run folder of {' and '.join(absent)}.")
    return [(name, run) for name, run in runs if name not in (*hidden, *absent)], notes


def evenly(ids: Sequence[str], n: int) -> tuple[str, ...]:
    """Return at most ``n`` of ``ids``, evenly spread, the first and the last among them."""
    if len(ids) <= n:
        return tuple(ids)
    return tuple(ids[i] for i in np.linspace(0, len(ids) - 1, n).round().astype(int))


def _stimuli(run: Run, runs: Mapping[str, Run], choice: Choice) -> tuple[Stimuli | None, list[str]]:
    if not choice.stimuli:
        return None, ["Target images left out (--no-stimuli)."]
    found = truth(run, runs, choice.data_dir)
    if found.stimuli is None:
        return None, [f"Target images are missing: {found.problem}. --data-dir names another place."]
    return found.stimuli, []


def _truth(stimuli: Stimuli, target: str) -> Picture | None:
    if target not in stimuli.has_image:
        return None
    return Picture(data_uri(stimuli.image(target)), f"target {target}")


def _row(
    name: str, run: Run, targets: Sequence[str], n_samples: int, metrics: Sequence[str], metric: str
) -> Row:
    images = reconstructions.load_samples(run.folder / reconstructions.FILENAME, targets, n_samples)
    scores = _scores(run, targets, metrics)
    cells, table = [], []
    for target, samples in zip(targets, images, strict=True):
        pictures = []
        for k, image in enumerate(samples):
            values = scores.get((target, k), {})
            said = ", ".join(f"{m} {number(values[m])}" for m in metrics if m in values)
            alt = f"{target} by {name}, sample {k}: {said}".removesuffix(": ")
            pictures.append(Picture(data_uri(image), alt, number(values.get(metric)) if metric else ""))
            table.append((target, str(k), *(number(values.get(m)) for m in metrics)))
        cells.append(tuple(pictures))
    return Row(name, tuple(cells), tuple(table))


def _scores(run: Run, targets: Sequence[str], metrics: Sequence[str]) -> Scores:
    items = leaderboard.read_items(run.folder)
    wanted = pc.and_(
        pc.is_in(items["stimulus"], pa.array(targets, pa.string())),
        pc.is_in(items["metric"], pa.array(metrics, pa.string())),
    )
    found: dict[tuple[str, int], dict[str, float | None]] = {}
    for row in items.filter(wanted).to_pylist():
        if not row["pool"].startswith("within"):
            found.setdefault((row["stimulus"], row["sample"]), {})[row["metric"]] = row["value"]
    return found
