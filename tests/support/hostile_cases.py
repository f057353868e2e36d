"""What the hostile cases share: where they happen, and what refusing them means."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from own_process import Outcome
from PIL import Image

IDS = ("a0", "a1", "a2")
Words = tuple[str | bytes, ...]


def score(path: str | bytes, *more: str) -> Words:
    """Return the command line that scores reconstructions against the target images of a place."""
    given = ("--targets", "t", "--split", "vision", "--name", "m", "--metrics", "pixcorr", "--subject", "1")
    return "score", path, *given, *more


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in IDS:
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{name}.png")


def harmless(outcome: Outcome, place: Path) -> None:
    """Nothing was executed, nothing outside was touched, the terminal obeys nobody else."""
    assert not (place.parent / "canary").exists()
    assert [path.name for path in (place.parent / "outside").iterdir()] == ["precious"]
    assert (place.parent / "outside" / "precious").read_text() == "precious"
    assert all(c.isprintable() or c == "\n" for c in outcome.shown)


def refused(outcome: Outcome, place: Path, words: str) -> None:
    """The command ended with exit code 2 and one sentence (and perhaps a remedy) that holds ``words``."""
    harmless(outcome, place)
    assert outcome.code == 2, outcome
    assert re.fullmatch(r"error: .+\n(  -> (?s:.+)\n)?", outcome.err), outcome.err
    assert "unexpected" not in outcome.err, outcome.err
    assert re.search(words, outcome.err), outcome.err
