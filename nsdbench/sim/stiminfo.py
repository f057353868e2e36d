"""``nsd_stim_info_merged.csv``: one row per image, the real columns and the simulated scene's content."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from nsdbench.sim.design import CoreDesign
from nsdbench.sim.scenes import Scene, captions, instances
from nsdbench.sim.stimuli import SHARED, ImageKey

_SUBJECTS = range(1, 9)
COLUMNS = (
    *("", "cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"),
    *(f"subject{s}" for s in _SUBJECTS),
    *(f"subject{s}_rep{r}" for s in _SUBJECTS for r in range(3)),
    *("sim_captions", "sim_objects", "sim_background"),
)


def write_stim_info(path: Path, brick: list[ImageKey], scenes: list[Scene], design: CoreDesign) -> None:
    """Write the table. ``subjectN_repK`` are 1-based trial numbers, 0 for images the subject never sees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = [dict(zip(row.tolist(), design.repeats.tolist(), strict=True)) for row in design.images]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for i, (key, scene) in enumerate(zip(brick, scenes, strict=True)):
            writer.writerow([i, *_picture(i, key), *_presentations(i + 1, seen), *_content(scene)])


def _picture(row: int, key: ImageKey) -> list[Any]:
    return [900000 + row, "train2017", "(0.0, 0.0, 0.0, 0.0)", 0.0, row, False, False, key.owner == SHARED]


def _presentations(identifier: int, seen: list[dict[int, list[int]]]) -> list[int]:
    trials = [subject.get(identifier, [0, 0, 0]) for subject in seen]
    return [int(t[0] > 0) for t in trials] + [number for t in trials for number in t]


def _content(scene: Scene) -> list[str]:
    return [json.dumps(captions(scene)), json.dumps(instances(scene)), scene.background]
