"""The terms of the Natural Scenes Dataset: shown, accepted by a person, and remembered for that person."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from nsdbench import __version__
from nsdbench.errors import DataError, UsageError
from nsdbench.store import digest, read_json, write_json

ANSWER = "accept"
CONFIG_VARIABLE = "XDG_CONFIG_HOME"

TEXT = """\
Terms of the Natural Scenes Dataset (NSD)

nsdbench fetches files that belong to NSD, from its public bucket or as MindEye2 prepared them. They stand under a data
use agreement. This is what it asks, in our words; the agreement itself counts: http://naturalscenesdataset.org (see
"Terms and Conditions" there, and fill in the access form before the first download).

 1. Use the data for research and education only, and do not sell them.
 2. Do not pass on the data or any part of them, nor what is derived from single files: betas, masks, trial tables,
    behaviour, stimuli, features of stimuli, caches. Scores, voxel counts and hashes may be published.
 3. Make no attempt to find out who the subjects are.
 4. Everyone on your team who uses the data accepts the same terms; the rules of your institution apply as well.
 5. In publications, cite Allen et al. (2022), "A massive 7T fMRI dataset to bridge cognitive neuroscience and
    artificial intelligence", Nature Neuroscience 25, and give the funding line that NSD asks for.

The pictures shown are photographs from COCO, under terms of their own: https://cocodataset.org/#termsofuse
"""


@dataclass(frozen=True)
class Acceptance:
    """That a person accepted the terms: when, which wording, and in which version of nsdbench."""

    accepted_at: str
    terms: str
    nsdbench_version: str


def version() -> str:
    """Return the hash of the wording; another wording is asked for again."""
    return digest(TEXT)


def place() -> Path:
    """Return where this person's acceptance is remembered."""
    given = os.environ.get(CONFIG_VARIABLE)
    return (Path(given) if given else Path.home() / ".config") / "nsdbench" / "nsd-terms.json"


def accepted() -> Acceptance | None:
    """Return this person's acceptance of the present wording, or None."""
    if not place().is_file():
        return None
    try:
        found = Acceptance(**read_json(place()))
    except (DataError, TypeError):
        return None  # damaged: ask again
    return found if found.terms == version() else None


def accept() -> Acceptance:
    """Remember that this person accepts the present wording.

    Raises
    ------
    DataError
        If it cannot be written down.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    acceptance = Acceptance(now, version(), __version__)
    try:
        write_json(place(), asdict(acceptance))
    except OSError as error:
        raise DataError(
            f"the acceptance of the terms cannot be written to {place()} ({error.strerror})",
            remedy=f"Set {CONFIG_VARIABLE} to a folder that you may write to.",
        ) from error
    return acceptance


def require() -> None:
    """Raise a UsageError unless this person has accepted the present wording."""
    if accepted() is None:
        raise UsageError(
            "the terms of the Natural Scenes Dataset are not accepted; nothing was fetched",
            remedy="Read them with `nsdbench data fetch` on a terminal and type `accept`, or give --accept-terms.",
        )
