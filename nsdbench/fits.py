"""The folder of a fitted decoder: its facts, with an inventory by which a part of it is never taken for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsdbench.data.cache import fingerprint
from nsdbench.errors import DataError
from nsdbench.store import read_json, write_json

FACTS = "fit.json"
AGAIN = "Copy it again, or delete the folder: the same command then fits the model again."


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a fit beside the files that its decoder has written, with an inventory of these."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(folder / FACTS, {**facts, "files": {name: fingerprint(folder / name) for name in names}})


def read(folder: Path) -> dict[str, Any]:
    """Return the facts of a fit.

    Raises
    ------
    DataError
        If a file of the folder is missing or not the one that was written. Of large files a sample is looked at, which
        costs milliseconds; folders of earlier versions have no inventory.
    """
    try:
        facts = read_json(folder / FACTS)
    except DataError as error:
        raise DataError(f"the fit in {folder} is not whole: {error.message}", remedy=AGAIN) from error
    if not isinstance(facts, dict) or not {"n_voxels", "n_trials", "provenance"} <= facts.keys():
        raise DataError(f"{folder / FACTS} is not the record of a fit", remedy=AGAIN)
    inventory = facts.get("files", {})
    if not isinstance(inventory, dict):
        raise DataError(f"{folder / FACTS} is not the record of a fit", remedy=AGAIN)
    for name, known in inventory.items():
        path = folder / name
        if not path.is_file() or fingerprint(path) != known:
            why = "has other content than was written" if path.is_file() else "is missing"
            raise DataError(f"the fit in {folder} is not whole: {name} {why}", remedy=AGAIN)
    return facts
