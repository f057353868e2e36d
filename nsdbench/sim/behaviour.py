"""Behavioural tables of the core sessions and of the imagery session, with the real columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nsdbench.sim.config import TRIALS_PER_SESSION
from nsdbench.sim.design import RUN_LENGTHS, CoreDesign, ImageryDesign, Ints, Run, shared_name
from nsdbench.sim.seeds import Purpose, stream

RESPONSE_COLUMNS = [
    "SUBJECT",
    "SESSION",
    "RUN",
    "TRIAL",
    "73KID",
    "10KID",
    "TIME",
    "ISOLD",
    "ISCORRECT",
    "RT",
    "CHANGEMIND",
    "MEMORYRECENT",
    "MEMORYFIRST",
    "ISOLDCURRENT",
    "ISCORRECTCURRENT",
    "TOTAL1",
    "TOTAL2",
    "BUTTON",
    "MISSINGDATA",
]
RUN_COLUMNS = [
    "SUBJECT",
    "SESSION",
    "RUN",
    "TRIAL",
    "CONDITION",
    "CUE",
    "FRAMEFILE",
    "IMAGEFILE",
    "GROUNDTRUTH",
    "ISCORRECT",
    "CHANGEMIND",
    "TOTAL1",
    "TOTAL2",
    "BUTTON",
    "TRIALONSET",
    "TRIALEND",
    "IMAGEONSET",
    "IMAGESERIESENDS",
    "FINALDECISIONTIME",
    "RT",
]
_FIRST_DAY = 737000.0
_NAN = float("nan")


def response_rows(seed: int, subject: int, design: CoreDesign) -> Iterator[list[Any]]:
    """Yield one row of ``responses.tsv`` per core trial, in order.

    The simulated observer recognises old images in four of five trials and leaves one in a hundred unanswered.
    """
    rng = stream(seed, Purpose.BEHAVIOUR, subject)
    places = [(run + 1, trial + 1) for run, length in enumerate(RUN_LENGTHS) for trial in range(length)]
    seen: dict[int, list[int]] = {}
    for t, image in enumerate(design.order.tolist()):
        session, within = divmod(t, TRIALS_PER_SESSION)
        run, trial = places[within]
        before = seen.setdefault(image, [])
        old, old_today = bool(before), any(b // TRIALS_PER_SESSION == session for b in before)
        time = _FIRST_DAY + 7 * session + (run * 300 + trial * 4) / 86400
        recent = (t - before[-1] - 1, t - before[0] - 1) if old else (_NAN, _NAN)
        ids = [int(design.images[subject - 1, image - 1]), image]
        right, reaction, changed, right_today, *presses = _respond(rng, old, old_today)
        memory = [changed, *recent, int(old_today), right_today]
        yield [subject, session + 1, run, trial, *ids, time, int(old), right, reaction, *memory, *presses, 0]
        before.append(t)


def _respond(rng: np.random.Generator, old: bool, old_today: bool) -> tuple[float, ...]:
    """Return ISCORRECT, RT, CHANGEMIND, ISCORRECTCURRENT, TOTAL1, TOTAL2 and BUTTON (1 new, 2 old)."""
    answered, correct = rng.random() > 0.01, rng.random() < 0.8
    if not answered:
        return (_NAN,) * 7
    says_old = old if correct else not old
    return (correct, rng.uniform(450, 2400), 0, says_old == old_today, not says_old, says_old, 1 + says_old)


def run_rows(seed: int, subject: int, run: Run, design: ImageryDesign, shared: Ints) -> Iterator[list[Any]]:
    """Yield the 48 rows of one run's table. ``shared`` holds the 1-based ``imgBrick`` rows of the shared images."""
    rng = stream(seed, Purpose.BEHAVIOUR, subject, run.number)
    letters = [t.cue for t in design.of_set(run.stimulus_set)]
    duration = 7.0 if run.task == "attention" else 3.0
    for trial, onset in enumerate(run.onsets.tolist()):
        target, cue = int(run.target[trial]), int(run.cue[trial])
        end = onset + duration
        reaction = float(rng.uniform(600, 2600))
        truth, correct, button = _answer(rng, run, trial)
        series = (onset + 4.0, onset + 7.0) if run.task == "attention" else (None, None)
        yield [
            *(subject, 1, run.number, trial + 1, letters[target], letters[cue]),
            *(_frame(run, trial, design, shared, letters[cue]), _appearing(run, trial, design)),
            *(truth, correct, 0, int(button == 1), int(button == 2), button),
            *(onset, end, *series, onset + reaction / 1000, reaction),
        ]


def _answer(rng: np.random.Generator, run: Run, trial: int) -> tuple[int | None, int | None, int]:
    """Return ground truth, correctness and button: 1 for match, present or vivid, 2 otherwise."""
    slip = bool(rng.random() < 0.05)
    if run.task == "imagery":
        return None, None, 2 if slip else 1
    truth = int(run.image[trial] if run.task == "attention" else run.target[trial] == run.cue[trial])
    said = 1 - truth if slip else truth
    return truth, int(said == truth), 1 if said else 2


def _frame(run: Run, trial: int, design: ImageryDesign, shared: Ints, letter: str) -> str:
    if run.task != "vision":
        return f"blank00000_00000000_cue{letter}.png"
    if run.stimulus_set == "C":
        return f"{shared_name(int(run.image[trial]), shared)}_cue{letter}.png"
    name = design.of_set(run.stimulus_set)[int(run.target[trial])].name
    return f"{name.removesuffix('.png')}_cue{letter}.png"


def _appearing(run: Run, trial: int, design: ImageryDesign) -> str | None:
    """Return the file of the target in an attention stream; empty when it is absent."""
    if run.task != "attention" or not run.image[trial]:
        return None
    return design.of_set(run.stimulus_set)[int(run.target[trial])].name
