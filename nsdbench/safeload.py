"""Reads tensors from files made elsewhere without ever running code from them."""

from __future__ import annotations

import collections
import itertools
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from torch import Tensor

from nsdbench.errors import WeightsError

MAX_PICKLE_BYTES = 64 * 2**20  # the structure alone; tensors live in files of their own
MAX_OBJECTS = 50_000  # a pickle can name one object many times, so the walk needs a bound of its own
T = TypeVar("T")
REMEDY = "Nothing in it was executed. Get the file again from its original source."

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def load_state(path: Path, *, keep: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint, on the CPU and in their stored precision.

    The format is recognized by content: safetensors, a ``torch.save`` file (zip or older), or a TorchScript
    archive, of which only the tensors are read.

    Parameters
    ----------
    path : Path
        The file.
    keep : tuple of str
        If given, only entries whose name starts with one of these are returned; TorchScript and safetensors
        files are then read only in part.

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
    return {name: value for name, value in _named_tensors(path, load_pt(path)).items() if _kept(name, keep)}


def load_pt(path: Path) -> Any:
    """Return what ``torch.save`` stored: tensors and plain containers only, on the CPU.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or names any other Python object.
    """
    return _guarded(path, lambda: torch.load(path, map_location="cpu", weights_only=True))


def _guarded(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except WeightsError:
        raise
    except Exception as error:  # foreign bytes can break a parser in any way; all are one news to the user
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise _refusal(path, refused[1]) from error
        raise WeightsError(
            f"{path} is damaged or holds no tensors ({_reason(error)})", remedy=REMEDY
        ) from error


def _refusal(path: Path, name: str) -> WeightsError:
    return WeightsError(f"{path} asks for the Python object {name}; only tensors are read", remedy=REMEDY)


def _reason(error: Exception) -> str:
    """First line of the message; PyTorch's own advice, to switch the protection off, is not passed on."""
    text = str(error).strip() or type(error).__name__
    unpickler = re.search(r"WeightsUnpickler error: (.+)", text)
    if unpickler:
        return unpickler[1]
    return "not written by torch.save" if "weights_only" in text else text.splitlines()[0]


def _kind(path: Path) -> str:
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
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix(
            "data.pkl"
        )
        if archive.getinfo(f"{root}data.pkl").file_size > MAX_PICKLE_BYTES:
            raise WeightsError(f"{path} has an implausibly large structure", remedy=REMEDY)
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise WeightsError(f"{path} was written on a big-endian machine")
        with archive.open(f"{root}data.pkl") as handle:
            tree = _StructureReader(handle, path).load()
        views = {name: view for name, view in _walk(tree) if _kept(name, keep)}
        storages = {view.storage: _read_storage(archive, root, view.storage) for view in views.values()}
        return {
            name: torch.as_strided(storages[view.storage], view.shape, view.stride, view.offset)
            for name, view in views.items()
        }


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor that has been described but not read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _StructureReader(pickle.Unpickler):
    """Rebuilds the tree of a TorchScript archive from inert objects.

    Of the names a pickle may mention, modules become empty containers, storages become descriptions, and the
    one tensor constructor becomes :class:`_View`; every other name is refused before it is looked up. The
    stand-ins belong to this reader, so that a hostile file cannot alter them for the next one.
    """

    def __init__(self, handle: IO[bytes], path: Path) -> None:
        super().__init__(handle)
        self._path = path

        class Container:
            attributes: Mapping[str, Any] = {}  # replaced, never changed

            def __setstate__(self, state: Any) -> None:
                self.attributes = state if isinstance(state, dict) else {}

        self.container = Container
        self._names: dict[str, Any] = {
            **_STORAGES,
            "torch._utils._rebuild_tensor_v2": lambda storage, offset, shape, stride, *_: _View(
                storage, offset, tuple(shape), tuple(stride)
            ),
            "torch.jit._pickle.restore_type_tag": lambda value, _: value,
            "collections.OrderedDict": collections.OrderedDict,
            **{f"torch.jit._pickle.{name}": list for name in _LISTS},
        }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module.partition(".")[0] == "__torch__":
            return self.container
        if full not in self._names:
            raise _refusal(self._path, full)
        return self._names[full]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _refusal(self._path, str(kind))
        return _Storage(str(key), dtype, int(count))


def _walk(tree: Any) -> Iterator[tuple[str, _View]]:
    """Yield every tensor below ``tree`` under its dotted name, as ``state_dict`` would call it."""
    waiting = [("", tree)]
    for seen in itertools.count():
        if not waiting:
            return
        if seen > MAX_OBJECTS:
            raise ValueError(f"more than {MAX_OBJECTS} objects")
        prefix, node = waiting.pop()
        if isinstance(node, _View):
            yield prefix.removesuffix("."), node
        for name, value in getattr(node, "attributes", {}).items():
            if isinstance(value, _View) or hasattr(value, "attributes"):
                waiting.append((f"{prefix}{name}.", value))


def _read_storage(archive: zipfile.ZipFile, root: str, storage: _Storage) -> Tensor:
    entry = archive.getinfo(f"{root}data/{storage.key}")
    expected = storage.count * storage.dtype.itemsize
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != expected:
        raise ValueError(f"storage {storage.key} has {entry.file_size} bytes instead of {expected}")
    if not expected:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(archive.read(entry)), dtype=storage.dtype)
