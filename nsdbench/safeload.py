"""Reads tensors from files made elsewhere without ever running code from them."""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nsdbench.errors import WeightsError
from nsdbench.torchzip import (
    REMEDY,
    View,
    entry_of,
    map_storages,
    read_storage,
    refusal,
    require_stored,
    root_of,
    structure_of,
    tensor_of,
)

MAX_OBJECTS = 50_000  # a pickle can name one object many times, so the walk needs a bound of its own
T = TypeVar("T")
CONTAINERS = ("model_state_dict", "state_dict", "model")
"""Where training checkpoints keep the weights, in the order in which they are looked for."""
FINITE_BLOCK = 2**24  # numbers looked at together, so that the check needs no memory of its own


def load_state(path: Path, *, keep: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint, on the CPU and in their stored precision.

    The format is recognized by content: safetensors, a ``torch.save`` file (zip or older), or a TorchScript
    archive, of which only the tensors are read. Tensors of a zip are mapped from the file, not copied, so that it may be
    larger than the memory.

    Parameters
    ----------
    path : Path
        The file.
    keep : tuple of str
        If given, only entries whose name starts with one of these are returned; all but files from before the zip
        format are then read only in part.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, names any Python object besides tensors, or holds no named tensors.
    """
    kind = _kind(path)
    if kind == "safetensors":
        return _guarded(path, lambda: _load_safetensors(path, keep))
    if kind == "torchscript":
        return _guarded(path, lambda: _load_torchscript(path, keep))
    if zipfile.is_zipfile(path):
        with contextlib.suppress(
            WeightsError
        ):  # of an unusual file; PyTorch's own reader says what is wrong with it
            return _guarded(path, lambda: _map_state(path, keep))
    return {name: value for name, value in _named_tensors(path, load_pt(path)).items() if _kept(name, keep)}


def load_checkpoint(
    path: Path, *, keep: tuple[str, ...] = (), drop: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Return the weights in a training checkpoint, without running any code that the rest of it asks for.

    Optimizers and schedules pickle functions and classes; what they name is never looked up, and objects without
    behaviour take their place. Weights are mapped from the file, not copied, so that a file larger than the memory can
    be read tensor by tensor; tensors that share their numbers become independent copies. The weights are the entry
    ``model_state_dict``, ``state_dict`` or ``model``, or else the whole file, and lose the prefixes ``module.`` and
    ``_orig_mod.`` of parallel and compiled models.

    Parameters
    ----------
    path : Path
        A ``torch.save`` file, or safetensors.
    keep, drop : tuple of str
        Only weights whose name starts with one of ``keep`` (if given) and none of ``drop`` are returned.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, sharded, holds no weights, or a weight is no tensor or not finite.
    """
    if path.is_dir():
        raise WeightsError(
            f"{path} is a folder, such as DeepSpeed writes, not one file of weights",
            remedy="Merge it where DeepSpeed is installed (deepspeed.utils.zero_to_fp32), and give the merged file.",
        )
    kind = _kind(path)
    if kind == "torchscript":
        raise WeightsError(f"{path} is a TorchScript archive, not a training checkpoint")
    if kind == "safetensors":
        state = _guarded(path, lambda: _load_safetensors(path, keep))
    else:
        state = _guarded(
            path, lambda: _map_checkpoint(path) if zipfile.is_zipfile(path) else _load_older(path)
        )
    chosen = {name: value for name, value in state.items() if _kept(name, keep) and not name.startswith(drop)}
    if not chosen:
        raise WeightsError(f"{path} holds no weights of the wanted names", remedy="It is another checkpoint.")
    require_finite(chosen, path)
    return chosen


def require_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights with a value that is not finite.

    Raises
    ------
    WeightsError
        If there is one; the message names ``source`` and the tensor.
    """
    for name, value in state.items():
        if not value.is_floating_point() or not value.numel():
            continue
        blocks = torch.split(value.reshape(-1), FINITE_BLOCK)
        if not all(torch.isfinite(torch.stack(block.aminmax())).all() for block in blocks):
            raise WeightsError(f"{source}: {name} holds a value that is not finite", remedy=REMEDY)


def load_pt(path: Path) -> Any:
    """Return what ``torch.save`` stored: tensors and plain containers only, on the CPU.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or names any other Python object.
    """
    return _guarded(path, lambda: _load_restricted(path))


def _load_restricted(path: Path) -> Any:
    _kind(path)  # raises what can be said of a file before it is read
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            require_stored(archive)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for tensor in _tensors(loaded):
        # with strides of 0, any size could be made of nothing
        if tensor.layout == torch.strided and tensor.device.type == "cpu":
            has, needs = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.itemsize
            if needs > has:
                raise ValueError(f"a tensor of shape {tuple(tensor.shape)} on {has} bytes")
    return loaded


def _tensors(loaded: Any) -> Iterator[Tensor]:
    """Yield the tensors in plain containers, each container looked into once."""
    waiting, seen = [loaded], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, dict | list | tuple | set) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node.values() if isinstance(node, dict) else node)


def _guarded(path: Path, read: Callable[[], T]) -> T:
    try:
        with warnings.catch_warnings():  # what PyTorch thinks of the format of a hostile file
            warnings.simplefilter("ignore")
            return read()
    except WeightsError:
        raise
    except Exception as error:  # foreign bytes can break a parser in any way; all are one news to the user
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise refusal(path, refused[1]) from error
        raise WeightsError(
            f"{path} is damaged or holds no tensors ({_reason(error)})", remedy=REMEDY
        ) from error


def _reason(error: Exception) -> str:
    """First line of the message; PyTorch's own advice, to switch the protection off, is not passed on."""
    text = str(error).strip() or type(error).__name__
    unpickler = re.search(r"WeightsUnpickler error: (.+)", text)
    if unpickler:
        return unpickler[1]
    return "not written by torch.save" if "weights_only" in text else text.splitlines()[0]


def _kind(path: Path) -> str:
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise WeightsError(f"{path} is not a regular file")
    try:
        with path.open("rb") as handle:
            head = handle.read(9)
        if not head.startswith(b"PK"):
            return "safetensors" if head[8:9] == b"{" else "pickle"
        with zipfile.ZipFile(path) as archive:
            script = any(name.endswith("/constants.pkl") for name in archive.namelist())
            return "torchscript" if script else "pickle"
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path} is damaged or cut short ({error})", remedy=REMEDY) from error


def _kept(name: str, keep: tuple[str, ...]) -> bool:
    return not keep or name.startswith(keep)


def _named_tensors(path: Path, loaded: Any) -> dict[str, Tensor]:
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise WeightsError(f"{path} holds {type(loaded).__name__}, not a state dict of named tensors")
    return {str(name): value for name, value in inner.items()}


def _load_safetensors(path: Path, keep: tuple[str, ...]) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys() if _kept(name, keep)}  # noqa: SIM118


def _load_torchscript(path: Path, keep: tuple[str, ...]) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = root_of(archive, path)
        views = {name: view for name, view in _walk(structure_of(archive, root, path)) if _kept(name, keep)}
        storages = {view.storage: read_storage(archive, root, view.storage) for view in views.values()}
        return {name: tensor_of(storages[view.storage], view) for name, view in views.items()}


def _load_older(path: Path) -> dict[str, Tensor]:
    """Read a file from before the zip format, which PyTorch's own restricted reader must accept as a whole."""
    state: dict[str, Tensor] = _weights_of(path, load_pt(path), Tensor)
    uses = collections.Counter(value.untyped_storage().data_ptr() for value in state.values())
    return {
        name: value.clone() if uses[value.untyped_storage().data_ptr()] > 1 else value
        for name, value in state.items()
    }


def _map_state(path: Path, keep: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors of a ``torch.save`` file that holds nothing else but plain values, mapped from it."""
    with zipfile.ZipFile(path) as archive:
        root = root_of(archive, path)
        loaded = structure_of(archive, root, path)
        inner = dict.get(loaded, "state_dict", loaded) if isinstance(loaded, dict) else None
        if not isinstance(inner, dict) or not all(isinstance(value, View) for value in dict.values(inner)):
            raise WeightsError(f"{path} holds {type(loaded).__name__}, not a state dict of named tensors")
        views = {str(name): view for name, view in dict.items(inner) if _kept(str(name), keep)}
        entries = {view.storage: entry_of(archive, root, view.storage) for view in views.values()}
    storages = map_storages(path, entries)
    return {name: tensor_of(storages[view.storage], view) for name, view in views.items()}


def _map_checkpoint(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = root_of(archive, path)
        views: dict[str, View] = _weights_of(path, structure_of(archive, root, path, tolerant=True), View)
        entries = {view.storage: entry_of(archive, root, view.storage) for view in views.values()}
    storages = map_storages(path, entries)
    uses = collections.Counter(view.storage for view in views.values())
    tensors = {name: tensor_of(storages[view.storage], view) for name, view in views.items()}
    return {
        name: value.clone() if uses[views[name].storage] > 1 else value for name, value in tensors.items()
    }


def _weights_of(path: Path, loaded: Any, kind: type[T]) -> dict[str, T]:
    """Return the entry that holds the weights, under names without the prefixes of parallel and compiled models."""
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path} holds {_described(loaded)}, not a training checkpoint")
    # through dict itself: a file can give a container attributes, even one called items
    where = next((name for name in CONTAINERS if isinstance(dict.get(loaded, name), dict)), None)
    named: dict[str, T] = {}
    for name, value in dict.items(loaded if where is None else dict.__getitem__(loaded, where)):
        if not isinstance(name, str):
            raise WeightsError(f"{path}: {name!r} is not the name of a tensor", remedy=REMEDY)
        if not isinstance(value, kind):
            raise WeightsError(
                f"{path}: entry {name!r} of {where or 'the file'} is {_described(value)}, not a tensor",
                remedy=REMEDY if where else f"A training checkpoint keeps its weights in {CONTAINERS[0]}.",
            )
        plain = re.sub(r"^(module\.|_orig_mod\.)+", "", name).replace("._orig_mod.", ".")
        if plain in named:
            raise WeightsError(f"{path} holds {plain} twice, with and without a prefix")
        named[plain] = value
    return named


def _described(value: Any) -> str:
    return str(getattr(value, "stands_for", type(value).__name__))


def _walk(tree: Any) -> Iterator[tuple[str, View]]:
    """Yield every tensor below ``tree`` under its dotted name, as ``state_dict`` would call it."""
    waiting = [("", tree)]
    for seen in itertools.count():
        if not waiting:
            return
        if seen > MAX_OBJECTS:
            raise ValueError(f"more than {MAX_OBJECTS} objects")
        prefix, node = waiting.pop()
        if isinstance(node, View):
            yield prefix.removesuffix("."), node
        for name, value in getattr(node, "attributes", {}).items():
            if isinstance(value, View) or hasattr(value, "attributes"):
                waiting.append((f"{prefix}{name}.", value))
