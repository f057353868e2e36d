"""Weights of the miniature decoders, which come with nsdbench."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from nsdbench import weights
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_state
from nsdbench.store import sha256_file

FOLDER = weights.shipped_folder("adapters")
SHIPPED: Mapping[str, str] = weights.shipped_hashes("adapters")
"""SHA-256 of every file in :data:`FOLDER`, by weights id."""


def located(ids: Iterable[str], weights_dir: Path | None) -> dict[str, str]:
    """Return the SHA-256 of pretrained weights by id, those that come with nsdbench and those in ``weights_dir``.

    Raises
    ------
    WeightsError
        If a file is missing (the message says which, and how to get it), or its hash is wrong.
    """
    folder = weights.folder(weights_dir)
    return {id: SHIPPED[id] if id in SHIPPED else weights.locate(id, folder).sha256 for id in ids}


def shipped_state(weights_id: str) -> dict[str, Tensor]:
    """Return the tensors of shipped weights, in float32 whatever they are stored in.

    Raises
    ------
    WeightsError
        If the file is missing or altered.
    """
    path = FOLDER / f"{weights_id}.safetensors"
    sha256 = sha256_file(path) if path.is_file() else None
    if sha256 != SHIPPED[weights_id]:
        state = "is missing" if sha256 is None else f"has sha256 {sha256}, not {SHIPPED[weights_id]}"
        raise WeightsError(f"{path}, a part of nsdbench, {state}", remedy="Install nsdbench again.")
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in load_state(path).items()
    }
