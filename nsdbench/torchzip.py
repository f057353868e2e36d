"""The zip archives of PyTorch, read without ever looking up a name that they mention.

An archive holds a pickle, the structure, in which tensors are views of storages, and each storage as a file of its own.
"""

from __future__ import annotations

import collections
import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from nsdbench.errors import WeightsError

MAX_PICKLE_BYTES = 64 * 2**20  # the structure alone; tensors live in files of their own
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
MAPPED_BYTES = 2**32  # of a file, mapped at once; every mapping costs a file descriptor
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: magic, lengths of name and extra field
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def refusal(path: Path, name: str) -> WeightsError:
    """Return the error that says which object, besides tensors, a file asks for."""
    return WeightsError(f"{path} asks for the Python object {name}; only tensors are read", remedy=REMEDY)


def root_of(archive: zipfile.ZipFile, path: Path) -> str:
    """Return the folder of the archive in which everything lies, after checking what is the same for all kinds."""
    require_stored(archive)
    root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if archive.getinfo(f"{root}data.pkl").file_size > MAX_PICKLE_BYTES:
        raise WeightsError(f"{path} has an implausibly large structure", remedy=REMEDY)
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise WeightsError(f"{path} was written on a big-endian machine")
    return root


def require_stored(archive: zipfile.ZipFile) -> None:
    """Refuse what ``torch.save`` never writes, and what would unpack to more than the file has bytes.

    Raises
    ------
    ValueError
        If files in the archive are compressed, overlap, or share a name.
    """
    # TorchScript compresses its source code, which nobody here reads
    entries = [entry for entry in archive.infolist() if "/code/" not in entry.filename]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its contents are compressed")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("one name stands for several of its contents")
    if sum(entry.file_size for entry in entries) > Path(str(archive.filename)).stat().st_size:
        raise ValueError("its contents overlap")


def structure_of(archive: zipfile.ZipFile, root: str, path: Path, *, tolerant: bool = False) -> Any:
    """Return the structure of an archive, with :class:`View` in place of tensors; see :class:`StructureReader`."""
    text = archive.read(f"{root}data.pkl")
    _check_memo(text)
    return StructureReader(io.BytesIO(text), path, tolerant=tolerant).load()


def _check_memo(text: bytes) -> None:
    """Refuse a pickle that numbers what it remembers so high that Python would reserve all memory for it."""
    for operation, argument, _ in pickletools.genops(text):
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(text):
            raise ValueError(f"it remembers an object as number {argument}")


@dataclass(frozen=True)
class Storage:
    """Numbers in a file of their own."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class View:
    """A tensor that has been described but not read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class StructureReader(pickle.Unpickler):
    """Rebuilds the tree of an archive from inert objects; nothing that the file names is ever looked up.

    Of the names a pickle may mention, modules become empty containers, storages become descriptions, and the
    constructors of tensors become :class:`View`; every other name is refused, or where ``tolerant`` replaced by a
    class without behaviour. The stand-ins belong to this reader, so that a hostile file cannot alter them for the
    next one.
    """

    def __init__(self, handle: IO[bytes], path: Path, *, tolerant: bool = False) -> None:
        super().__init__(handle)
        self._path, self._tolerant = path, tolerant

        class Container:
            attributes: Mapping[str, Any] = {}  # replaced, never changed

            def __setstate__(self, state: Any) -> None:
                self.attributes = state if isinstance(state, dict) else {}

        self.container = Container
        self._names: dict[str, Any] = {
            **_STORAGES,
            "torch._utils._rebuild_tensor_v2": lambda storage, offset, shape, stride, *_: View(
                storage, offset, tuple(shape), tuple(stride)
            ),
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch.jit._pickle.restore_type_tag": lambda value, _: value,
            "collections.OrderedDict": collections.OrderedDict,
            **{f"torch.jit._pickle.{name}": list for name in _LISTS},
        }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._names:
            return self._names[full]
        if self._tolerant:
            return _inert(full)
        if module.partition(".")[0] == "__torch__":
            return self.container
        raise refusal(self._path, full)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        if kind == "storage" and isinstance(dtype, torch.dtype):
            return Storage(str(key), dtype, int(count))
        if self._tolerant:
            return _inert(str(kind))()
        raise refusal(self._path, str(kind))


def _inert(name: str) -> type:
    """Return a class that a pickle may call, fill and extend as if it were ``name``; nothing comes of it."""

    class Inert:
        stands_for = name

        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __setstate__(self, _: Any) -> None: ...
        def __setitem__(self, _: Any, __: Any) -> None: ...
        def append(self, _: Any) -> None: ...
        def extend(self, _: Any) -> None: ...
        def __call__(self, *_: Any, **__: Any) -> Any:
            return self

    return Inert


def entry_of(archive: zipfile.ZipFile, root: str, storage: Storage) -> zipfile.ZipInfo:
    """Return the file of a storage.

    Raises
    ------
    ValueError
        If it is not of the size that the structure says, or not stored plainly.
    """
    entry = archive.getinfo(f"{root}data/{storage.key}")
    expected = storage.count * storage.dtype.itemsize
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != expected:
        raise ValueError(f"storage {storage.key} has {entry.file_size} bytes instead of {expected}")
    return entry


def read_storage(archive: zipfile.ZipFile, root: str, storage: Storage) -> Tensor:
    """Return all numbers of a storage, read and checked by the archive's checksum."""
    return _from_buffer(bytearray(archive.read(entry_of(archive, root, storage))), 0, storage)


def map_storages(path: Path, entries: Mapping[Storage, zipfile.ZipInfo]) -> dict[Storage, Tensor]:
    """Return all numbers of storages, mapped from the file; changes to them stay in memory.

    The file is mapped in parts, because Linux does not map more at once than the machine has memory.
    """
    found: dict[Storage, Tensor] = {}
    with path.open("rb") as handle:
        base: int = 0
        part: mmap.mmap | bytearray = bytearray()  # the part of the file that starts at base
        for storage, entry in sorted(entries.items(), key=lambda item: item[1].header_offset):
            start = _start(handle, entry) if entry.file_size else base
            if start + entry.file_size > base + len(part):
                base = start - start % mmap.ALLOCATIONGRANULARITY
                length = max(MAPPED_BYTES, start + entry.file_size - base)
                length = min(length, path.stat().st_size - base)
                part = mmap.mmap(handle.fileno(), length, access=mmap.ACCESS_COPY, offset=base)
            found[storage] = _from_buffer(part, start - base, storage)
    return found


def _start(handle: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Return where the content of a zip entry starts: after its local header, whose length only itself knows."""
    handle.seek(entry.header_offset)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(handle.read(_LOCAL_HEADER.size))
    if magic != b"PK\x03\x04":
        raise ValueError(f"{entry.filename} is not where the directory says")
    return entry.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)


def _from_buffer(part: mmap.mmap | bytearray, start: int, storage: Storage) -> Tensor:
    if not storage.count:
        return torch.empty(0, dtype=storage.dtype)
    if start % storage.dtype.itemsize:  # not written by torch.save, which aligns; numbers must be
        part = bytearray(part[start : start + storage.count * storage.dtype.itemsize])
        start = 0
    return torch.frombuffer(part, dtype=storage.dtype, count=storage.count, offset=start)


def tensor_of(storage: Tensor, view: View) -> Tensor:
    """Return the tensor that a view describes.

    Raises
    ------
    ValueError
        If it reaches beyond its storage, or repeats its numbers.
    """
    if math.prod(view.shape) > storage.numel():  # with strides of 0, any size could be made of nothing
        raise ValueError(f"a tensor of shape {view.shape} on {storage.numel()} numbers")
    return torch.as_strided(storage, view.shape, view.stride, view.offset)
