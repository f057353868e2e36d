"""Files and names made to harm: each is refused by name, runs nothing, and leaves its surroundings alone.

Every case is a command line in a process of its own, which may take 1 GiB more than its imports. docs/security.md counts
the cases.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import hostile_files as hostile
import joblib
import numpy as np
import pytest
import torch
from hostile_cases import IDS, Words, refused, score, write_images
from own_process import OwnProcesses
from PIL import Image

CONVERT = ("weights", "convert", "x.pth", "--out", "y.safetensors")
Make = Callable[[Path, Path], Any]


def write(name: str, content: bytes) -> Make:
    return lambda work, canary: (work / name).write_bytes(content)


def save_pt(name: str, make: Callable[[Path], Any], **options: Any) -> Make:
    return lambda work, canary: torch.save(make(canary), work / name, **options)


def recon(**members: Callable[[h5py.File, Path], Any]) -> Make:
    """Write ``x.h5``, a file of reconstructions with some members replaced or added."""

    def make(work: Path, canary: Path) -> None:
        chosen = {name: lambda file, make=member: make(file, work) for name, member in members.items()}
        hostile.recon_file(work / "x.h5", list(IDS), chosen)

    return make


def linked(name: str) -> Callable[[h5py.File, Path], Any]:
    """Put a link to another file there, which is a pipe: who opens it waits for ever."""

    def make(file: h5py.File, work: Path) -> None:
        os.mkfifo(work / "pipe.h5")
        file[name] = h5py.ExternalLink("pipe.h5", "/images")

    return make


def virtual(file: h5py.File, work: Path) -> None:
    layout = h5py.VirtualLayout((3, 1, 8, 8, 3), "u1")
    layout[...] = h5py.VirtualSource("elsewhere.h5", "images", (3, 1, 8, 8, 3))
    file.create_virtual_dataset("images", layout)


def outside_bytes(file: h5py.File, work: Path) -> None:
    where = [(str(work.parent / "outside" / "precious"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("images", (3, 1, 8, 8, 3), "u1", external=where)


def pipe(name: str) -> Make:
    return lambda work, canary: os.mkfifo(work / name)


def st(shape: list[int], end: int, **second: Any) -> bytes:
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}, **second}
    return hostile.safetensors(header, b"1234" * 3)


ONES = torch.ones(1).expand(10**6, 10**5)
OVERLAP = {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}
PT, NPY, H5 = score("x.pt"), score("x.npy"), score("x.h5")
ST = ("weights", "convert", "x.safetensors", "--out", "y.safetensors")

FILES: dict[str, tuple[Make, Words, str]] = {
    "pt-zip-runs-code": (save_pt("x.pt", hostile.Gadget), PT, "asks for the Python object exec"),
    "pt-older-runs-code": (
        save_pt("x.pt", hostile.Gadget, _use_new_zipfile_serialization=False), PT, "asks for the Python object exec"
    ),
    "pt-is-a-bare-pickle": (
        lambda work, canary: (work / "x.pt").write_bytes(hostile.pickled(canary)), PT, "asks for the Python object exec"
    ),
    "pt-is-a-script-with-code": (
        lambda work, canary: hostile.torch_zip(work / "x.pt", hostile.pickled(canary), code="import os"),
        PT, "holds no tensors",
    ),
    "pt-repeats-one-number-7e11-times": (
        lambda work, canary: hostile.torch_zip(
            work / "x.pt", hostile.tensor_structure((3, 40, 8000, 8000, 3), (0,) * 5, 1), storage=b"1"
        ),
        PT, r"a tensor of shape \(3, 40, 8000, 8000, 3\) on 1 bytes",
    ),
    "pt-declares-a-terabyte": (
        lambda work, canary: hostile.torch_zip(
            work / "x.pt", hostile.tensor_structure((10**9, 8, 8, 3), (192, 24, 3, 1), 192 * 10**9), storage=b"1"
        ),
        PT, "holds no tensors",
    ),
    "pt-unpacks-to-more-than-it-is": (
        lambda work, canary: hostile.torch_zip(
            work / "x.pt", hostile.tensor_structure((3, 8, 8, 3), (192, 24, 3, 1), 2**28),
            storage=bytes(2**28), compress=True,
        ),
        PT, "its contents are compressed",
    ),
    "pt-is-a-pipe": (pipe("x.pt"), PT, "is not a regular file"),
    "npy-holds-objects": (
        lambda work, canary: np.save(work / "x.npy", np.array([hostile.Gadget(canary)], object), allow_pickle=True),
        NPY, "pickled Python objects, which are never loaded",
    ),
    "npy-is-a-pickle": (
        lambda work, canary: (work / "x.npy").write_bytes(hostile.pickled(canary)), NPY, "never loaded"
    ),
    "npy-is-an-archive-of-objects": (
        lambda work, canary: np.savez((work / "x.npy").open("wb"), np.array([hostile.Gadget(canary)], object)),
        NPY, "an archive instead of one array",
    ),
    "npy-header-is-code": (
        lambda work, canary: (work / "x.npy").write_bytes(
            hostile.npy_text(f"{{'descr': open({str(canary)!r}, 'w'), 'fortran_order': 0, 'shape': ()}}")
        ),
        NPY, "damaged or not a plain array",
    ),
    "npy-header-never-ends": (write("x.npy", hostile.npy_text("(" * 9000)), NPY, "damaged or not a plain array"),
    "npy-declares-a-terabyte": (
        write("x.npy", hostile.npy_header((10**10, 8, 8, 3)) + bytes(99)), NPY, "greater than file size"
    ),
    "npy-declares-a-negative-size": (
        write("x.npy", hostile.npy_header((-3, 8, 8, 3)) + bytes(99)), NPY, "must be positive"
    ),
    "npy-declares-nothing-many-times": (
        write("x.npy", hostile.npy_header((3, 10**6, 10**6, 3), "|V0") + bytes(99)), NPY, "the limits are"
    ),
    "npy-is-a-pipe": (pipe("x.npy"), NPY, "is not a regular file"),
    "h5-declares-images-that-were-never-written": (
        recon(images=lambda f, _: f.create_dataset("images", (3, 40, 8000, 8000, 3), "u1", chunks=(1, 1, 64, 64, 3))),
        H5, "images declares 23040000000 bytes, and holds 0",
    ),
    "h5-declares-more-than-any-disk": (
        recon(images=lambda f, _: f.create_dataset("images", (3, 2**40, 8000, 8000, 3), "u1", chunks=(1, 1, 8, 8, 3))),
        H5, "images declares",
    ),
    "h5-declares-a-billion-targets": (
        recon(targets=lambda f, _: f.create_dataset("targets", (2**30,), h5py.string_dtype(), chunks=(1000,))),
        H5, "targets declares",
    ),
    "h5-declares-embeddings-that-were-never-written": (
        recon(more=lambda f, _: f.create_dataset("embeddings/a", (3, 2**30), np.float32, chunks=(1, 1000))),
        H5, "a declares",
    ),
    "h5-images-link-to-a-pipe": (recon(images=linked("images")), H5, "images is a link"),
    "h5-targets-link-to-a-pipe": (recon(targets=linked("targets")), H5, "targets is a link"),
    "h5-embeddings-link-to-a-pipe": (recon(more=linked("embeddings")), H5, "embeddings is a link"),
    "h5-captions-link-to-a-pipe": (recon(more=linked("captions")), H5, "captions is a link"),
    "h5-images-link-to-themselves": (
        recon(images=lambda f, _: f.__setitem__("images", h5py.SoftLink("/images"))), H5, "images is a link"
    ),
    "h5-images-are-of-another-file": (recon(images=virtual), H5, "not a plain dataset of this file"),
    "h5-images-are-the-bytes-of-any-file": (recon(images=outside_bytes), H5, "not a plain dataset of this file"),
    "h5-images-are-references": (
        recon(images=lambda f, _: f.create_dataset("images", (3, 1, 8, 8, 3), h5py.ref_dtype)), H5, "not uint8"
    ),
    "h5-targets-steer-the-terminal": (
        recon(targets=lambda f, _: f.create_dataset("targets", data=["\x1b[2J", "a", "\u202eb"], dtype=h5py.string_dtype())),
        H5, "characters that cannot be shown",
    ),
    "h5-attributes-nest-for-ever": (
        recon(more=lambda f, _: f.attrs.__setitem__("attributes", "[" * 30000)), H5, "damaged or not a file"
    ),
    "h5-is-a-pipe": (pipe("x.h5"), H5, "is not a regular file"),
    "pth-weights-run-code": (
        save_pt("x.pth", lambda canary: {"state_dict": {"a": hostile.Gadget(canary)}}), CONVERT, "is .*exec, not a tensor"
    ),
    "pth-older-weights-run-code": (
        save_pt("x.pth", lambda canary: {"a": hostile.Gadget(canary)}, _use_new_zipfile_serialization=False),
        CONVERT, "asks for the Python object exec",
    ),
    "pth-of-joblib-runs-code": (
        lambda work, canary: joblib.dump(hostile.Gadget(canary), work / "x.pth"), CONVERT, "holds no tensors"
    ),
    "pth-is-a-script-with-code": (
        lambda work, canary: hostile.torch_zip(work / "x.pth", hostile.pickled(canary), code="import os"),
        CONVERT, "is a TorchScript archive",
    ),
    "pth-of-ten-bytes-reserves-64-gb": (
        lambda work, canary: hostile.torch_zip(work / "x.pth", hostile.memo_bomb()), CONVERT, "remembers an object as number"
    ),
    "pth-repeats-one-number-1e11-times": (
        save_pt("x.pth", lambda _: {"a": ONES}), CONVERT, r"a tensor of shape \(1000000, 100000\)"
    ),
    "pth-older-repeats-one-number-1e11-times": (
        save_pt("x.pth", lambda _: {"a": ONES}, _use_new_zipfile_serialization=False),
        CONVERT, r"a tensor of shape \(1000000, 100000\)",
    ),
    "pth-is-a-pipe": (pipe("x.pth"), CONVERT, "is not a regular file"),
    "safetensors-header-of-exabytes": (
        write("x.safetensors", hostile.safetensors({}, b"", length=2**62)), ST, "header too large"
    ),
    "safetensors-overlap": (write("x.safetensors", st([2], 8, **OVERLAP)), ST, "invalid offset"),
    "safetensors-declare-more-than-is-there": (write("x.safetensors", st([2**40], 2**42)), ST, "damaged"),
    "safetensors-shape-overflows": (write("x.safetensors", st([2**40, 2**40], 12)), ST, "overflow"),
    "safetensors-names-steer-the-terminal": (
        write("x.safetensors", hostile.safetensors(
            {"\x1b[2J\nerror: fine\u202e": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            np.float32(np.nan).tobytes(),
        )),
        ST, "is not finite|holds a value",
    ),
}  # fmt: skip


# one of each kind in every run of the tests, all of them in `make test-all`
OFTEN = (
    "pt-zip-runs-code", "pt-repeats-one-number-7e11-times", "npy-holds-objects", "npy-declares-a-terabyte",
    "h5-declares-images-that-were-never-written", "h5-embeddings-link-to-a-pipe", "pth-weights-run-code",
    "pth-of-ten-bytes-reserves-64-gb", "safetensors-declare-more-than-is-there",
    "of-four-billion-pixels", "whose-name-steers-the-terminal",
)  # fmt: skip


def cases(table: Iterable[str]) -> list[Any]:
    """Mark as slow what is not done often."""
    return [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in table]


@pytest.mark.parametrize("case", cases(FILES))
def test_a_hostile_file_is_refused(case: str, processes: OwnProcesses, ground: Path) -> None:
    make, words, said = FILES[case]
    make(ground, ground.parent / "canary")
    before = sorted(ground.rglob("*"))
    refused(processes.run(words, ground), ground, said)
    assert sorted(ground.rglob("*")) == before, "nothing is written for what is refused"


def replace(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def saved(format: str, **options: Any) -> Callable[[Path], Any]:
    return lambda path: Image.new("RGB", (16, 16)).save(path, format, **options)


def symlink(target: str) -> Callable[[Path], Any]:
    def make(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return make


def renamed(name: str | bytes) -> Callable[[Path], Any]:
    return lambda path: path.rename(path.with_name(os.fsdecode(name)))


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (16, 16), (9, 9, 9))]}
IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of-four-billion-pixels": (replace(hostile.png(60000, 60000)), "decompression bomb|exceeds limit"),
    "too-large": (replace(hostile.png(9000, 9000)), "the limit is 8192"),
    "with-text-of-256-mb": (replace(hostile.png(16, 16, hostile.text_bomb())), "too large"),
    "cut-short": (lambda path: path.write_bytes(path.read_bytes()[:100]), "is damaged"),
    "empty": (replace(b""), "is damaged"),
    "that-is-html": (replace(b"<html><script>alert(1)</script>"), "is damaged or not a PNG"),
    "that-is-postscript": (replace(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "is damaged or not a PNG"),
    "that-is-a-gif": (saved("GIF"), "is damaged or not a PNG"),
    "that-moves": (saved("PNG", **FRAMES), "not a still"),
    "that-is-a-pipe": (as_pipe, "is not a regular file"),
    "that-is-a-device": (symlink("/dev/zero"), "is not a regular file"),
    "that-links-out": (symlink("../t/a1.png"), "leads out of"),
    "that-links-to-itself": (symlink("a1.png"), "is not a regular file"),
    "whose-name-steers-the-terminal": (renamed("\x1b[2Ja.png"), "characters that cannot be shown"),
    "whose-name-runs-backwards": (renamed("a\u202egnp.png"), "characters that cannot be shown"),
    "whose-name-has-two-lines": (renamed("a\nerror: fine.png"), "characters that cannot be shown"),
    "whose-name-is-no-text": (renamed(b"a\xff.png"), "characters that cannot be shown"),
}  # fmt: skip


@pytest.mark.parametrize("case", cases(IMAGES))
def test_an_image_is_refused(case: str, processes: OwnProcesses, ground: Path) -> None:
    shutil.copytree(ground / "t", ground / "r")
    make, said = IMAGES[case]
    make(ground / "r" / "a1.png")
    refused(processes.run(score("r"), ground), ground, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (score("t", "--name", "../../x"), "cannot be the model of a run"),
        (score("t", "--name", "\x1b[2J"), "cannot be the model of a run"),
        (score("t", "--name", "a" * 400), "cannot be the model of a run"),
        (
            ("compare", "no\nerror: nothing wrong\x1b[2J"),
            r"no\\nerror: nothing wrong\\x1b\[2J does not exist",
        ),
        (("run", "--model", "../../evil:Model"), "could not be imported"),
    ],
    ids=["traversal", "terminal", "long", "two-lines", "module"],
)
def test_a_name_on_the_command_line_is_refused(
    words: Words, said: str, processes: OwnProcesses, ground: Path
) -> None:
    refused(processes.run(words, ground), ground, said)


@pytest.mark.parametrize("name", [b"t\xff", b"t\n\x1b[2J"], ids=["no-text", "two-lines"])
def test_what_cannot_be_noted_as_a_source_is_refused_before_it_is_scored(
    name: bytes, processes: OwnProcesses, ground: Path
) -> None:
    (ground / "t").rename(ground / os.fsdecode(name))
    write_images(ground / "t")
    refused(processes.run(score(name), ground), ground, "cannot be noted as the source")
    assert not (ground / "runs").exists()
