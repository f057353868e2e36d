"""Reconstructions on disk: our HDF5 file, and whatever others have made theirs into."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nsdbench import imagefiles
from nsdbench.errors import DataError, ReconstructionError, WeightsError
from nsdbench.imagefiles import MAX_SIDE
from nsdbench.plainarrays import load_npy
from nsdbench.store import atomic_path, digest, free_bytes, read_json
from nsdbench.types import Embeddings, Reconstructions, Stimuli

SCHEMA = "reconstructions/1"
FILENAME, MANIFEST = "reconstructions.h5", "run.json"
MAX_BYTES = 32 * 2**30
ROOMY, OVERHEAD = (
    1.1,
    2**20,
)  # with so many times the bytes of the arrays, and some more, a disk cannot get full
DEFLATED, SMALL = 1100, 2**20  # how much deflate makes of a byte at most, and what nobody counts
LAYOUTS = "Give (n, H, W, 3), (n, 3, H, W), (n, samples, H, W, 3) or (n, samples, 3, H, W)."
TOLERANCE = 1e-3  # how far float images may leave [0, 1] before they are in the wrong units


def save(recon: Reconstructions, path: Path) -> None:
    """Write ``recon`` to an HDF5 file, losslessly and atomically.

    Datasets: ``images`` as in :class:`~nsdbench.types.Reconstructions`, one chunk per image; ``targets``; if
    present ``embeddings/<space>``, ``captions`` (n_targets, n_samples), ``gallery/<space>``, ``gallery_ids`` and
    ``gallery_captions``. Attributes: ``schema`` and ``attributes`` (JSON).

    Raises
    ------
    ReconstructionError
        If embeddings or captions do not fit the targets or the gallery, or a text cannot be stored.
    """
    _check_extras(recon, path)
    n_bytes = recon.images.nbytes + sum(
        values.nbytes for group in (recon.embeddings, recon.gallery) for values in group.values()
    )
    try:
        with atomic_path(path) as temporary:
            if free_bytes(temporary.parent) > ROOMY * n_bytes + OVERHEAD:
                with h5py.File(temporary, "w") as file:
                    _fill(file, recon)
                return
            # HDF5 answers a full disk with tracebacks of its own, so it does not get to see one
            with h5py.File(temporary.name, "w", driver="core", backing_store=False) as file:
                _fill(file, recon)
                file.flush()
                content = file.id.get_file_image()
            temporary.write_bytes(content)
    except (ValueError, UnicodeEncodeError) as error:
        raise ReconstructionError(f"{path} cannot hold these reconstructions ({error})") from error


def _fill(file: h5py.File, recon: Reconstructions) -> None:
    text = h5py.string_dtype("utf-8")
    file.attrs["schema"] = SCHEMA
    file.attrs["attributes"] = json.dumps(dict(recon.attributes), allow_nan=False)
    # level 1 without shuffle: flat images shrink a lot, photographs cost little time
    chunks = (1, 1, *recon.images.shape[2:])
    file.create_dataset("images", data=recon.images, chunks=chunks, compression="gzip", compression_opts=1)
    file.create_dataset("targets", data=list(recon.targets), dtype=text)
    for group in ("embeddings", "gallery"):
        for name, values in getattr(recon, group).items():
            file.create_dataset(f"{group}/{name}", data=values)
    if recon.captions:
        file.create_dataset("captions", data=[list(row) for row in recon.captions], dtype=text)
    for name in ("gallery_ids", "gallery_captions"):
        if getattr(recon, name):
            file.create_dataset(name, data=list(getattr(recon, name)), dtype=text)


def _check_extras(recon: Reconstructions, path: Path) -> None:
    n, s = recon.n_targets, recon.n_samples
    for name, values in recon.embeddings.items():
        _check_embedding("embedding", name, values, n, path)
    if recon.captions and [len(row) for row in recon.captions] != [s] * n:
        raise ReconstructionError(f"{path}: there must be {s} captions for each of {n} targets")
    _check_gallery(recon, path)


def _check_embedding(what: str, name: str, values: Embeddings, n: int, path: Path) -> None:
    kinds, shape = (np.float32, np.float16), values.shape
    if values.dtype not in kinds or shape[:1] != (n,) or not np.isfinite(values).all():
        raise ReconstructionError(
            f"{path}: {what} {name!r} must be finite float32 or float16 of shape ({n}, ...), got {values.dtype} {shape}"
        )
    if not name or "/" in name or name == ".":
        raise ReconstructionError(f"{path}: {what} name {name!r} cannot be stored")


def _check_gallery(recon: Reconstructions, path: Path) -> None:
    ids = recon.gallery_ids
    if len(set(ids)) != len(ids) or not all(ids):
        raise ReconstructionError(f"{path}: gallery_ids has empty or repeated ids")
    if len(recon.gallery_captions) not in (0, len(ids)):
        raise ReconstructionError(
            f"{path}: {len(recon.gallery_captions)} gallery_captions for {len(ids)} gallery_ids"
        )
    for name, values in recon.gallery.items():
        _check_embedding("gallery", name, values, len(ids), path)
        if name in recon.embeddings and values.shape[1:] != recon.embeddings[name].shape[1:]:
            raise ReconstructionError(
                f"{path}: {name!r} has shape {recon.embeddings[name].shape[1:]} among the embeddings and "
                f"{values.shape[1:]} in the gallery",
                remedy="Both must lie in one space, in the same layout.",
            )


def load(path: Path) -> Reconstructions:
    """Read a file written by :func:`save`.

    Raises
    ------
    ReconstructionError
        If the file is missing, damaged, or not of schema ``reconstructions/1``.
    """
    with _opened(path) as file:
        return _load(file, path)


def load_samples(path: Path, targets: Sequence[str], n_samples: int) -> NDArray[np.uint8]:
    """Read the first samples of some targets from a file written by :func:`save`, and nothing else.

    Returns
    -------
    uint8 array of shape (n_targets, at most n_samples, H, W, 3)

    Raises
    ------
    ReconstructionError
        As :func:`load`, or if a target is not in the file.
    """
    with _opened(path) as file:
        images = _images(file, path)
        rows = {target: row for row, target in enumerate(_texts(file, "targets"))}
        if unknown := [target for target in targets if target not in rows]:
            raise ReconstructionError(f"{path} holds no reconstruction of {', '.join(unknown[:5])}")
        return np.stack([images[rows[target], :n_samples] for target in targets])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            schema = file.attrs.get("schema")
            if schema != SCHEMA:
                raise ReconstructionError(
                    f"{path} has schema {schema!r}, not {SCHEMA!r}",
                    remedy="Other arrays can be given as .npy, .pt or a folder of PNG.",
                )
            yield file
    except FileNotFoundError:
        raise ReconstructionError(f"{path} does not exist") from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ReconstructionError(
            f"{path} is damaged or not a file of reconstructions ({error})",
            remedy="Write it again; nothing was read from it.",
        ) from error


def _images(file: h5py.File, path: Path) -> h5py.Dataset:
    images = _own_dataset(file, "images")
    if images.dtype != np.uint8 or images.ndim != 5:
        raise ReconstructionError(
            f"{path}: images are {images.dtype} {images.shape}, not uint8 with five axes"
        )
    _check_extent(images.shape, path)
    return images


def _load(file: h5py.File, path: Path) -> Reconstructions:
    recon = Reconstructions(
        images=_images(file, path)[()],
        targets=_texts(file, "targets"),
        embeddings=_arrays(file, "embeddings"),
        captions=tuple(tuple(row) for row in _texts(file, "captions", needed=False)),
        attributes=dict(json.loads(file.attrs["attributes"])),
        gallery=_arrays(file, "gallery"),
        gallery_ids=_texts(file, "gallery_ids", needed=False),
        gallery_captions=_texts(file, "gallery_captions", needed=False),
    )
    _check_extras(recon, path)
    return recon


def _texts(file: h5py.File, name: str, *, needed: bool = True) -> tuple[Any, ...]:
    return tuple(_own_dataset(file, name).asstr()[()]) if needed or name in file.keys() else ()  # noqa: SIM118


def _arrays(file: h5py.File, name: str) -> dict[str, Embeddings]:
    group = _own(file, name) if name in file.keys() else {}  # noqa: SIM118 - `in file` would follow a link
    if not isinstance(group, h5py.Group | dict):
        raise ReconstructionError(f"{file.filename}: {name} is not a group")
    return {space: _own_dataset(group, space)[()] for space in group}


def _own_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes are in this very file; HDF5 can also point into other files."""
    found = _own(group, name)
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise ReconstructionError(f"{group.file.filename}: {name} is not a plain dataset of this file")
    # what was never written takes no room, and would be made up of fill values
    limit = min(MAX_BYTES, DEFLATED * found.id.get_storage_size() + SMALL)
    if found.nbytes > limit:
        raise ReconstructionError(
            f"{group.file.filename}: {name} declares {found.nbytes} bytes, and holds {found.id.get_storage_size()}"
        )
    return found


def _own(group: h5py.Group, name: str) -> Any:
    """Return a member of a group, without following a link to anywhere else."""
    if name in group.keys() and not isinstance(group.get(name, getlink=True), h5py.HardLink):  # noqa: SIM118
        raise ReconstructionError(
            f"{group.file.filename}: {name} is a link, not a plain dataset of this file"
        )
    return group[name]


def read_any(path: Path, targets: Sequence[str] | None = None) -> Reconstructions:
    """Read reconstructions made by nsdbench or elsewhere.

    Parameters
    ----------
    path : Path
        A run folder or its HDF5 file; a ``.npy`` array or ``.pt`` tensor, uint8 or float in [0, 1], of shape
        (n, H, W, 3), (n, 3, H, W), (n, s, H, W, 3) or (n, s, 3, H, W); or a folder of PNG or JPEG files named
        ``<target>``, ``<target>_s<k>`` or ``<target>/<k>``.
    targets : sequence of str, optional
        Target ids in the order of the rows of an array that has no list of its own beside it
        (``<stem>.targets.txt``, one per line, or ``<stem>.targets.json``). In a folder, they tell a target id
        that ends in ``_s<k>`` from a sample.

    Returns
    -------
    Reconstructions
        Float images are converted once, by ``round(clip(x, 0, 1) * 255)``.

    Raises
    ------
    ReconstructionError
        If anything about the files is missing, damaged, ambiguous or implausible.
    """
    if path.is_dir():
        if (path / MANIFEST).exists() or (path / FILENAME).exists():
            return _from_run(path)
        return _from_folder(path, targets or ())
    if not path.is_file():  # opening a pipe would wait for ever
        raise ReconstructionError(f"{path} {'is not a regular file' if path.exists() else 'does not exist'}")
    kind = path.suffix.lower()
    if kind in (".h5", ".hdf5"):
        return load(path)
    if kind in ARRAYS:
        return _from_array(path, ARRAYS[kind](path), targets)
    raise ReconstructionError(
        f"{path} is of no known kind",
        remedy="Give a run folder, .h5, .npy, .pt, or a folder of PNG or JPEG files.",
    )


def _from_run(folder: Path) -> Reconstructions:
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).exists() else {"status": "complete"}
    status = manifest.get("status") if isinstance(manifest, dict) else None
    if status != "complete":
        raise ReconstructionError(
            f"{folder} is a run of status {status}, not complete", remedy="Finish the run first."
        )
    return load(folder / FILENAME)


def _from_folder(folder: Path, targets: Sequence[str]) -> Reconstructions:
    files = imagefiles.by_target(folder, targets)
    ids = tuple(sorted(files))
    first = imagefiles.read(files[ids[0]][0], folder)
    shape = (len(ids), len(files[ids[0]]), *first.shape)
    _check_extent(shape, folder)
    images = np.empty(shape, np.uint8)
    for row, target in enumerate(ids):
        for sample, path in enumerate(files[target]):
            image = imagefiles.read(path, folder)
            if image.shape != first.shape:
                raise ReconstructionError(
                    f"{path} has {_size(image)} pixels, {files[ids[0]][0].name} has {_size(first)}",
                    remedy="All reconstructions of a set must have one size.",
                )
            images[row, sample] = image
    return _finish(images, ids, folder)


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        return load_npy(path)
    except (ValueError, OSError) as error:
        raise ReconstructionError(f"{path} is damaged or not a plain array ({error})") from error


def _read_pt(path: Path) -> NDArray[Any]:
    import torch

    from nsdbench.safeload import load_pt

    try:
        loaded = load_pt(path)
    except WeightsError as error:
        raise ReconstructionError(
            error.message, remedy="Save the bare tensor of images with torch.save."
        ) from error
    plain = (
        isinstance(loaded, torch.Tensor) and loaded.layout == torch.strided and loaded.device.type == "cpu"
    )
    if not plain:
        raise ReconstructionError(
            f"{path} holds a {type(loaded).__name__}, not one dense tensor",
            remedy="Save the bare tensor of images.",
        )
    bare = loaded.detach()
    try:
        found: NDArray[Any] = (bare.float() if bare.dtype == torch.bfloat16 else bare).numpy()
    except (TypeError, RuntimeError) as error:  # quantized and other types that NumPy does not have
        raise ReconstructionError(f"{path} has type {bare.dtype}", remedy="Save uint8 or float32.") from error
    return found


ARRAYS: Mapping[str, Callable[[Path], NDArray[Any]]] = {".npy": _read_npy, ".pt": _read_pt, ".pth": _read_pt}


def _from_array(path: Path, array: NDArray[Any], targets: Sequence[str] | None) -> Reconstructions:
    images = _channels_last(array, path)
    _check_extent(images.shape, path)
    ids = _listed_targets(path) or tuple(targets or ())
    if len(ids) != len(images):
        named = f"{len(ids)} targets are named" if ids else "no target is named"
        raise ReconstructionError(
            f"{path} has {len(images)} rows, but {named}",
            remedy=f"List their target ids, one per line, in {path.with_suffix('').name}.targets.txt beside it.",
        )
    converted = np.empty(images.shape, np.uint8)
    for row, target in enumerate(ids):
        converted[row] = _to_uint8(np.asarray(images[row]), f"{path}, row {row} ({target})")
    return _finish(converted, ids, path)


def _channels_last(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return a view of shape (n, s, H, W, 3), or say why the axes cannot be told apart."""
    if array.ndim not in (4, 5):
        raise ReconstructionError(f"{path} has shape {array.shape}", remedy=LAYOUTS)
    five = array if array.ndim == 5 else array[:, None]
    last, first = five.shape[4] == 3, five.shape[2] == 3
    if last and first:  # three pixels high, or three wide
        raise ReconstructionError(
            f"{path} has shape {array.shape}: two axes could be the colours", remedy=LAYOUTS
        )
    if not last and not first:
        raise ReconstructionError(f"{path} has shape {array.shape}: no axis of three colours", remedy=LAYOUTS)
    return five if last else np.moveaxis(five, 2, 4)


def _check_extent(shape: tuple[int, ...], path: Path) -> None:
    """Refuse empty sets, and declared sizes that would exhaust the memory before anything is read."""
    size = math.prod(shape)
    if not size:
        raise ReconstructionError(f"{path} is empty: shape {shape}")
    if max(shape[2:4]) > MAX_SIDE or size > MAX_BYTES:
        raise ReconstructionError(
            f"{path} declares images of shape {shape}; the limits are {MAX_SIDE} pixels a side and {MAX_BYTES >> 30} GiB",
            remedy="Score fewer targets or samples at a time.",
        )


def _listed_targets(path: Path) -> tuple[str, ...]:
    stem = path.with_suffix("")
    text, table = stem.with_name(f"{stem.name}.targets.txt"), stem.with_name(f"{stem.name}.targets.json")
    if text.is_file():
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    if not table.is_file():
        return ()
    found = read_json(table)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ReconstructionError(f"{table} is not a list of target ids")
    return tuple(found)


def _to_uint8(image: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise ReconstructionError(
            f"{where} has type {image.dtype}", remedy="Give uint8, or floats between 0 and 1."
        )
    if not np.isfinite(image).all():
        raise ReconstructionError(f"{where} holds NaN or infinite values")
    low, high = float(image.min()), float(image.max())
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ReconstructionError(
            f"{where} has values from {low:.4g} to {high:.4g}; float images must lie between 0 and 1",
            remedy="Rescale them ([-1, 1]: (x + 1) / 2), or save 0...255 as uint8.",
        )
    # float64: a float16 product with 255 would round before rint does
    return np.rint(np.clip(image.astype(np.float64), 0, 1) * 255).astype(np.uint8)


def _finish(images: NDArray[np.uint8], ids: tuple[str, ...], path: Path) -> Reconstructions:
    """Build the result, with checks that need all images at once; errors name the file."""
    if images.max() <= 1:
        raise ReconstructionError(
            f"{path}: every value is 0 or 1 of 255",
            remedy="Multiply images in [0, 1] by 255 before casting them to uint8.",
        )
    try:
        return Reconstructions(images, ids, attributes={"source": path.name})
    except ReconstructionError as error:
        raise ReconstructionError(f"{path}: {error.message}", remedy=error.remedy) from error


def _stimulus_set(target: str) -> str:
    """NSD-Imagery targets are ``A1`` ... ``C6``, often with the cue letter behind; the rest belongs to no set of NSD."""
    return target[0] if re.fullmatch(r"[ABC][1-6](_[A-Z])?", target) else "external"


def read_targets(folder: Path, first: int | None = None) -> Stimuli:
    """Return the target images of a folder, or the first ones; ids are the file stems, sizes may differ.

    The content hash covers ids and pixels, not the encoding of the files.

    Raises
    ------
    DataError
        If the folder holds no image, or one that is damaged, not square, or named twice.
    """
    try:
        files = dict(islice(imagefiles.by_stem(folder).items(), first))
        hashes = [digest(imagefiles.read(path, folder)) for path in files.values()]
    except ReconstructionError as error:
        raise DataError(error.message, remedy=error.remedy) from error
    ids = tuple(files)
    return Stimuli(
        ids=ids,
        stimulus_set=tuple(map(_stimulus_set, ids)),
        has_image=frozenset(ids),
        read_image=lambda stimulus: imagefiles.read(files[stimulus], folder),
        content_hash=digest("target-folder", list(ids), hashes),
    )
