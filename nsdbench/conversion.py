"""Checkpoints as safetensors: readable in part, smaller where wanted, and free of everything but weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsdbench.errors import DataError, UsageError, WeightsError
from nsdbench.store import atomic_path, read_json, sha256_file, write_json
from nsdbench.types import Progress, Silent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Prepare = Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, Any]]]

SUFFIX = ".safetensors"
BLOCK = 2**24  # numbers written together
_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Converted:
    """A converted file and where it comes from.

    Attributes
    ----------
    path : Path
        The safetensors file.
    sha256 : str
        Its hash.
    source_sha256 : str
        Hash of the file that was converted.
    half : bool
        Whether numbers were rounded to half precision; otherwise all are those of the source.
    """

    path: Path
    sha256: str
    source_sha256: str
    half: bool

    @property
    def identity(self) -> str:
        """Hash that says which numbers these are: that of the source unless they were rounded."""
        return self.sha256 if self.half else self.source_sha256


def converted_path(source: Path) -> Path:
    """Return where the conversion of ``source`` lies: beside it."""
    return source.with_name(source.name + SUFFIX)


def facts_path(path: Path) -> Path:
    """Return where the facts about the converted file ``path`` lie: beside it."""
    return path.with_name(path.name + ".json")


def is_converted(source: Path) -> bool:
    """Whether a conversion lies beside ``source``, which itself may be gone."""
    path = converted_path(source)
    return path.is_file() and facts_path(path).is_file()


def conversion_of(source: Path) -> Converted | None:
    """Return the conversion beside ``source``, or None.

    Raises
    ------
    WeightsError
        If the facts beside it cannot be understood.
    """
    if not is_converted(source):
        return None
    path = converted_path(source)
    try:
        facts = read_json(facts_path(path))
        hashes = [facts["sha256"], facts["source_sha256"]]
        if not all(isinstance(value, str) and len(value) == 64 for value in hashes):
            raise ValueError
        return Converted(path, hashes[0], hashes[1], bool(facts["half"]))
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{facts_path(path)} does not say what {path.name} was converted from",
            remedy="Delete both, and convert again.",
        ) from error


def convert(
    source: Path,
    out: Path | None = None,
    *,
    half: bool = False,
    drop: tuple[str, ...] = (),
    prepare: Prepare | None = None,
    source_sha256: str | None = None,
    progress: Progress | None = None,
) -> Converted:
    """Write the weights of a checkpoint as safetensors, and facts about them as JSON beside that.

    Weights are streamed from file to file, so that neither has to fit into memory.

    Parameters
    ----------
    source : Path
        As :func:`nsdbench.safeload.load_checkpoint` reads it; stays as it is.
    out : Path, optional
        File to write; default: beside the source.
    half : bool
        Round numbers to half precision, except vectors such as the gains of norms, which are few.
    drop : tuple of str
        Beginnings of names that are left out.
    prepare : callable, optional
        Gets the weights by name and returns them as they shall be written, and what else to note in the facts.
    source_sha256 : str, optional
        Hash of the source, if it is known already.
    progress : Progress, optional
        Told about every block.

    Raises
    ------
    WeightsError
        If the source cannot be read, holds a value that is not finite, or ``half`` cannot hold one.
    UsageError
        If ``out`` is the source.
    """
    from nsdbench.safeload import load_checkpoint

    path = out or converted_path(source)
    if path.resolve() == source.resolve():
        raise UsageError(f"the conversion of {source} cannot replace it", remedy="Name another file.")
    state: dict[str, Tensor] = load_checkpoint(source, drop=drop)
    facts: dict[str, Any] = {}
    if prepare is not None:
        state, facts = prepare(state)
    identity = source_sha256 or sha256_file(source)
    # the facts come last: without them, or with other hashes in them, the file is not taken for a conversion
    with atomic_path(path) as temporary:
        sha256 = _write(temporary, state, half, progress or Silent())
    write_json(
        facts_path(path),
        facts
        | {
            "source": source.name,
            "source_sha256": identity,
            "sha256": sha256,
            "half": half,
            "left_out": list(drop),
            "tensors": len(state),
        },
    )
    return Converted(path, sha256, identity, half)


def _write(path: Path, state: Mapping[str, Tensor], half: bool, progress: Progress) -> str:
    """Write a safetensors file and return its SHA-256.

    The format is the length of a JSON header as 8 bytes, the header, and the numbers without gaps; the widest types
    come first, which keeps all of them aligned.
    """
    types = {name: _stored_type(value, half) for name, value in state.items()}
    order = sorted(state, key=lambda name: (-types[name].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        start, end = end, end + state[name].numel() * types[name].itemsize
        header[name] = {
            "dtype": _NAMES[str(types[name]).removeprefix("torch.")],
            "shape": list(state[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    hasher = hashlib.sha256()
    with path.open("wb") as handle:
        for part in (len(text).to_bytes(8, "little"), text):
            hasher.update(part)
            handle.write(part)
        for name in progress.track(order, "converting weights"):
            for block in _blocks(name, state[name], types[name]):
                hasher.update(block)
                handle.write(block)
    return hasher.hexdigest()


def _stored_type(value: Tensor, half: bool) -> torch.dtype:
    import torch

    rounded = half and value.is_floating_point() and value.ndim > 1 and value.dtype.itemsize > 2
    return torch.float16 if rounded else value.dtype


def _blocks(name: str, value: Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    import torch

    for block in torch.split(value.reshape(-1), BLOCK) if value.numel() else ():
        stored = block.to(dtype)
        if dtype != value.dtype and not torch.isfinite(stored).all():
            raise WeightsError(
                f"{name} holds values that half precision cannot", remedy="Convert without --half."
            )
        yield stored.contiguous().view(torch.uint8).numpy().data
