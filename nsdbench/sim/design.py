"""Trial orders of the core sessions and of the imagery session. They are common to all subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.facts import table
from nsdbench.sim.config import SimConfig
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.sim.stimuli import N_SET_B, SHARED, ImageKey, exemplars
from nsdbench.sim.targets import ARTWORK

Ints = NDArray[np.int64]
TRIALS_PER_RUN = 48
STREAM_LENGTH = 24
RUN_LENGTHS = (63, 62) * 6
"""Trials in the 12 runs of a core session."""


@dataclass(frozen=True)
class CoreDesign:
    """Core trials.

    Attributes
    ----------
    order : int array of shape (n_trials,)
        1-based 10k id of each trial (``masterordering``).
    images : int array of shape (8, n_seen)
        1-based ``imgBrick`` row of each 10k id per subject (``subjectim``); 0 for absent subjects.
    """

    order: Ints
    images: Ints

    @property
    def repeats(self) -> Ints:
        """1-based trial numbers of the three presentations of each 10k id, shape (n_seen, 3)."""
        return np.argsort(self.order, kind="stable").reshape(-1, 3) + 1


def core_design(config: SimConfig, brick: list[ImageKey]) -> CoreDesign:
    """Return the core design: every image three times, never twice in a row, across whole sessions."""
    sizes = config.sizes
    row = {key: i + 1 for i, key in enumerate(brick)}
    images = np.zeros((8, sizes.n_seen), np.int64)
    for subject in config.effective_subjects:
        seen = [ImageKey(SHARED, i) for i in range(sizes.n_shared)]
        seen += [ImageKey(subject, i) for i in range(sizes.n_own)]
        images[subject - 1] = [row[key] for key in seen]
    rng = stream(config.seed, Purpose.CORE_ORDER, sizes.n_seen)
    return CoreDesign(_unrepeated(rng, np.repeat(np.arange(1, sizes.n_seen + 1), 3)), images)


def _unrepeated(rng: np.random.Generator, items: Ints) -> Ints:
    """Return a random order of ``items`` without equal neighbours, uniform over all such orders."""
    while True:
        order = rng.permutation(items)
        if np.all(order[1:] != order[:-1]):
            return order


@dataclass(frozen=True)
class Target:
    """One of the 18 things that are seen or imagined. ``number`` counts from 0 within the set."""

    stimulus_set: str
    number: int
    cue: str
    name: str


@dataclass(frozen=True)
class Run:
    """One run of the imagery session.

    Attributes
    ----------
    number, name, task, stimulus_set
        As in the real session: 1, "visA", "vision", "A".
    target, cue : int arrays of shape (48,)
        Number within the set of the target (CONDITION) and of the letter on screen (CUE).
    image : int array of shape (48,)
        Vision of set C: shared image shown (0-based); attention: 1 where the target appears in the stream.
    stream : int array of shape (48, 24)
        Attention: shared images in the stream.
    slots : int array of shape (48,)
        Onsets in units of the trial spacing.
    """

    number: int
    name: str
    task: Literal["vision", "attention", "imagery"]
    stimulus_set: str
    target: Ints
    cue: Ints
    image: Ints
    stream: Ints
    slots: Ints

    @property
    def onsets(self) -> Ints:
        """Trial onsets in seconds from the start of the run."""
        return self.slots * (8 if self.task == "attention" else 4)


@dataclass(frozen=True)
class ImageryDesign:
    """The 12 runs and the 18 targets (in the order A1..C6)."""

    runs: tuple[Run, ...]
    targets: tuple[Target, ...]

    def of_set(self, stimulus_set: str) -> tuple[Target, ...]:
        """Return the six targets of a set."""
        return tuple(t for t in self.targets if t.stimulus_set == stimulus_set)


def imagery_design(config: SimConfig, core: CoreDesign) -> ImageryDesign:
    """Return the imagery session's design. ``imgX_1`` repeats the order of ``visX``, ``imgX_2`` has its own."""
    first = config.effective_subjects[0] - 1
    shared = core.images[first, : config.sizes.n_shared]
    targets = tuple(_target(row, shared) for row in table("targets"))
    orders: dict[str, Ints] = {}
    runs = []
    for row in table("runs"):
        rng = stream(config.seed, Purpose.IMAGERY_ORDER, int(row["run_number"]))
        key = row["stimulus_set"]
        order = _unrepeated(rng, np.repeat(np.arange(6), 8))
        if row["run_name"] == f"img{key}_1":
            order = orders[key]
        if row["task"] == "vision":
            orders[key] = order
        runs.append(_run(row, order, config.sizes.n_shared, rng))
    return ImageryDesign(tuple(runs), targets)


def _target(row: dict[str, str], shared: Ints) -> Target:
    number, name = int(row["target_number"]) - 1, row["target_name"]
    if row["stimulus_set"] == "B":
        name = f"{shared_name(number, shared) if number < N_SET_B else ARTWORK}.png"
    return Target(row["stimulus_set"], number, row["cue"], name)


def shared_name(index: int, shared: Ints) -> str:
    """Return ``sharedAAAA_nsdBBBBB``: the 1-based 10k id and the 1-based ``imgBrick`` row of a shared image."""
    return f"shared{index + 1:04d}_nsd{shared[index]:05d}"


def _run(row: dict[str, str], order: Ints, n_shared: int, rng: np.random.Generator) -> Run:
    task = row["task"]
    image = np.zeros(TRIALS_PER_RUN, np.int64)
    shown = np.zeros((TRIALS_PER_RUN, STREAM_LENGTH), np.int64)
    cue = order
    if task == "vision":
        cue = _half_wrong(rng, order)
        if row["stimulus_set"] == "C":
            for concept in range(6):
                image[order == concept] = rng.permutation(exemplars(concept))
    if task == "attention":
        image[rng.permutation(TRIALS_PER_RUN)[: TRIALS_PER_RUN // 2]] = 1
        shown = np.stack([rng.permutation(n_shared)[:STREAM_LENGTH] for _ in range(TRIALS_PER_RUN)])
    return Run(
        number=int(row["run_number"]),
        name=row["run_name"],
        task=task,  # type: ignore[arg-type]
        stimulus_set=row["stimulus_set"],
        target=order,
        cue=cue,
        image=image,
        stream=shown,
        slots=_slots(rng, first=2 if task == "attention" else 3),
    )


def _half_wrong(rng: np.random.Generator, order: Ints) -> Ints:
    """Return cues that name the image on 4 of 8 trials of each target and another target on the rest, 8 of each."""
    wrong = np.concatenate([rng.permutation(np.flatnonzero(order == t))[:4] for t in range(6)])
    cue = order.copy()
    while np.any(cue[wrong] == order[wrong]):
        cue[wrong] = rng.permutation(order[wrong])
    return cue


def _slots(rng: np.random.Generator, first: int) -> Ints:
    """Return 48 increasing slots from ``first`` on, with five single gaps between trials."""
    gaps = np.sort(rng.permutation(np.arange(1, TRIALS_PER_RUN))[:5])
    return first + np.arange(TRIALS_PER_RUN) + np.searchsorted(gaps, np.arange(TRIALS_PER_RUN), side="right")
