"""Files that try to run code, to take all memory, or to lead elsewhere."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.lib import format as npy


class Gadget:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.canary)!r}, 'w').write('executed')",)


def pickled(canary: Path) -> bytes:
    """Return a pickle that runs code."""
    return pickle.dumps(Gadget(canary), protocol=2)


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """Return the beginning of a ``.npy`` file that declares an array."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npy_text(header: str) -> bytes:
    """Return the beginning of a ``.npy`` file whose header is any text."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def torch_zip(
    path: Path, structure: bytes, *, storage: bytes = b"", compress: bool = False, code: str = ""
) -> None:
    """Write an archive as ``torch.save`` does, with any structure and one storage."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", structure)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", storage)
        if code:
            archive.writestr("archive/constants.pkl", pickle.dumps(()))
            archive.writestr("archive/code/__torch__.py", code)


def tensor_structure(shape: tuple[int, ...], stride: tuple[int, ...], count: int) -> bytes:
    """Return the structure of one uint8 tensor on a storage of ``count`` numbers."""
    out = io.BytesIO()

    class Writer(pickle._Pickler):  # type: ignore[name-defined]
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.ByteStorage, "0", "cpu", count) if value == "STORAGE" else None

    class Stub:
        def __reduce__(self) -> tuple[Any, ...]:
            import torch._utils

            return torch._utils._rebuild_tensor_v2, ("STORAGE", 0, shape, stride, False, {})

    Writer(out, protocol=2).dump(Stub())
    return out.getvalue()


def memo_bomb() -> bytes:
    """Return a pickle of 10 bytes that makes the unpickler reserve 64 GB for what it may remember."""
    return b"\x80\x02}r\xff\xff\xff\xff."


def safetensors(header: Mapping[str, Any], body: bytes, length: int | None = None) -> bytes:
    """Return a safetensors file with any header, and perhaps another length of it."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def recon_file(path: Path, targets: list[str], members: Mapping[str, Callable[[h5py.File], Any]]) -> None:
    """Write a file of reconstructions; ``members`` called on the open file replace ``images`` and ``targets``."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (len(targets), 1, 16, 16, 3), np.uint8)
    plain: dict[str, Callable[[h5py.File], Any]] = {
        "images": lambda file: file.create_dataset("images", data=images),
        "targets": lambda file: file.create_dataset("targets", data=targets, dtype=h5py.string_dtype()),
    }
    with h5py.File(path, "w") as file:
        file.attrs["schema"], file.attrs["attributes"] = "reconstructions/1", "{}"
        for make in (plain | dict(members)).values():
            make(file)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, rows: bytes | None = None) -> bytes:
    """Return a PNG file that declares a grey image and holds anything."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows or b"\0" * (width + 1) * min(height, 16)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + png_chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """Return a PNG chunk whose text unpacks to 256 MB."""
    return png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28)))
