"""Images, captions and cue letters of the splits, read on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench.data.cache import fingerprint, stamps
from nsdbench.data.facts import targets
from nsdbench.data.foreign import own_dataset, read_rows, table_columns
from nsdbench.data.layout import Layout, again, fetch_command, require
from nsdbench.data.prepared import IMAGES_NAME
from nsdbench.data.session import nsd_row, target_names
from nsdbench.errors import DataError, IntegrityError
from nsdbench.plainarrays import load_npy
from nsdbench.store import digest
from nsdbench.types import Stimuli

CAPTION_FILES = ("COCO_73k_annots_curated.npy",)


@dataclass
class ImageFile:
    """Reads single images of an HDF5 file by stimulus id; the handle opens on first use, once per process.

    ``imgBrick`` (uint8, height x width x 3) and MindEye2's ``images`` (float16 in 0 ... 1, 3 x height x width)
    are understood.
    """

    path: Path
    dataset: str
    _open: dict[int, Any] = field(default_factory=dict, repr=False)

    def __call__(self, stimulus: str) -> NDArray[np.uint8]:
        row = int(stimulus.removeprefix("img"))
        try:
            pixels = np.asarray(self._data()[row])
        except (OSError, ValueError, IndexError) as error:
            raise DataError(
                f"image {row} of {self.path} cannot be read ({error})", remedy=again(self.path)
            ) from error
        if pixels.dtype == np.uint8:
            return pixels
        return np.rint(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the dataset."""
        return tuple(self._data().shape)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "dataset": self.dataset, "_open": {}}

    def _data(self) -> Any:
        import h5py

        process = os.getpid()  # an HDF5 handle does not survive a fork
        if process not in self._open:
            try:
                self._open[process] = own_dataset(h5py.File(self.path, "r"), self.dataset)
            except (OSError, KeyError) as error:
                raise DataError(
                    f"{self.path} cannot be opened as HDF5 with dataset {self.dataset} ({error})",
                    remedy=again(self.path),
                ) from error
        return self._open[process]


def find_images(layout: Layout) -> ImageFile:
    """Return the reader of core images: ``imgBrick`` at native size, else MindEye2's copy at 224 pixels.

    If neither is there, the reader names the path of ``imgBrick``.
    """
    if not layout.images.is_file() and layout.prepared and (layout.prepared / IMAGES_NAME).is_file():
        return ImageFile(layout.prepared / IMAGES_NAME, "images")
    return ImageFile(layout.images, "imgBrick")


def core_stimuli(layout: Layout, ids: Sequence[str], n_images: int) -> Stimuli:
    """Return core NSD images by id (ascending), with captions where a table holds them."""
    reader = find_images(layout)
    require(reader.path)
    check_brick(reader, n_images)
    ids = tuple(sorted(ids))
    source = fingerprint(reader.path)
    return Stimuli(
        ids=ids,
        stimulus_set=("core",) * len(ids),
        has_image=frozenset(ids),
        read_image=reader,
        content_hash=digest(source, *ids),
        captions=read_captions(layout, (int(i.removeprefix("img")) for i in ids)),
        source=source,
        source_changed=stamps([reader.path])[0],
    )


def check_brick(reader: ImageFile, n_images: int) -> tuple[str, ...]:
    """Section 1.1, ``image_brick``: the file of core images holds the expected number of RGB images."""
    shape = reader.shape()
    if len(shape) != 4 or shape[0] != n_images or 3 not in (shape[1], shape[3]):
        raise IntegrityError(
            "image_brick",
            f"{reader.path} has shape {shape}, expected {n_images} RGB images",
            remedy=again(reader.path),
        )
    return ()


def imagery_stimuli(layout: Layout) -> Stimuli:
    """Return the 18 NSD-Imagery targets; set C has cue letters and no image."""
    names = target_names(layout)
    files = {t.id: target_image(layout, t.stimulus_set, names[t.id]) for t in targets() if t.has_image}
    rows = {i: row for i, name in names.items() if (row := nsd_row(name)) is not None}
    captions = read_captions(layout, rows.values())
    return Stimuli(
        ids=tuple(names),
        stimulus_set=tuple(t.stimulus_set for t in targets()),
        has_image=frozenset(files),
        read_image=TargetImages(files),
        content_hash=digest(*names, *(path.read_bytes() for path in files.values())),
        captions={i: captions[f"img{row:05d}"] for i, row in rows.items() if f"img{row:05d}" in captions},
        cues={t.id: t.cue for t in targets()},
    )


@dataclass(frozen=True)
class TargetImages:
    """Reads target images by id, always as RGB (set A is stored as grey values by some)."""

    files: dict[str, Path]

    def __call__(self, stimulus: str) -> NDArray[np.uint8]:
        from PIL import Image

        path = self.files[stimulus]
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"), np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path} cannot be read as an image ({error})", remedy=again(path)) from error


def target_image(layout: Layout, stimulus_set: str, name: str) -> Path:
    """Return the PNG of a target.

    Raises
    ------
    IntegrityError
        ``target_images`` if it is missing.
    """
    path = layout.target_folder(stimulus_set) / f"{name}.png"
    if not path.is_file():
        raise IntegrityError(
            "target_images",
            f"the ground-truth image is missing: {path}",
            remedy=f"Fetch it: `{fetch_command(path)}`.",
        )
    return path


def read_captions(layout: Layout, rows: Iterable[int]) -> dict[str, tuple[str, ...]]:
    """Return the captions of core images by id, or nothing where the data set holds none.

    Sources: column ``sim_captions`` (a JSON list) of the stimulus table, or MindEye1's
    ``COCO_73k_annots_curated.npy`` beside the prepared files or at the root.
    """
    wanted = set(rows)
    if layout.stim_info.is_file() and "sim_captions" in table_columns(layout.stim_info):
        return _caption_column(layout.stim_info, wanted)
    for folder in filter(None, (layout.prepared, layout.root)):
        for path in (folder / name for name in CAPTION_FILES):
            if path.is_file():
                return _caption_array(path, wanted)
    return {}


def _caption_column(path: Path, rows: set[int]) -> dict[str, tuple[str, ...]]:
    try:
        table = enumerate(read_rows(path, ["sim_captions"]))
        return {f"img{k:05d}": tuple(json.loads(row["sim_captions"])) for k, row in table if k in rows}
    except ValueError as error:
        raise DataError(
            f"{path}: sim_captions is not a JSON list ({error})", remedy="Simulate it again."
        ) from error


def _caption_array(path: Path, rows: set[int]) -> dict[str, tuple[str, ...]]:
    try:
        array = load_npy(path)
        return {f"img{k:05d}": tuple(str(c) for c in array[k] if c) for k in sorted(rows)}
    except (ValueError, OSError, IndexError) as error:
        raise DataError(
            f"{path} is not a plain array of captions ({error})", remedy="Fetch it again."
        ) from error
