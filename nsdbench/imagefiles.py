"""Folders of PNG and JPEG files: which file is which target and sample, and reading one without surprises."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nsdbench.errors import ReconstructionError

MAX_SIDE = 8192
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
OTHER_IMAGES = {".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jp2"}
SAMPLE = re.compile(r"(?P<target>.+)_s(?P<sample>\d+)")
OPAQUE = 255


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the images directly in ``folder`` by file stem, in ascending order.

    Raises
    ------
    ReconstructionError
        If there are none, or two have the same stem.
    """
    found: dict[str, Path] = {}
    for path in _images(folder):
        if path.stem in found:
            raise ReconstructionError(
                f"{found[path.stem]} and {path.name} are the same image id", remedy="Keep one."
            )
        found[path.stem] = path
    if not found:
        raise ReconstructionError(f"{folder} holds no PNG or JPEG file")
    return found


def by_target(folder: Path, targets: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Return the samples of each target in ``folder``, in the order of their numbers.

    Parameters
    ----------
    folder : Path
        Holds files ``<target>``, ``<target>_s<k>`` or ``<target>/<k>`` (one of the three ways).
    targets : sequence of str
        Known ids; a stem that is one of them is a target even if it ends in ``_s<k>``.

    Raises
    ------
    ReconstructionError
        If the folder is empty or mixes ways, a sample appears twice, or targets differ in their samples.
    """
    numbered: dict[str, dict[int, Path]] = {}
    for target, sample, path in _numbered(folder, frozenset(targets)):
        clash = numbered.setdefault(target, {}).setdefault(sample, path)
        if clash != path:
            raise ReconstructionError(
                f"{clash} and {path} are the same sample of target {target}", remedy="Keep one."
            )
    if not numbered:
        raise ReconstructionError(f"{folder} holds no PNG or JPEG file")
    reference = min(numbered)
    for target, samples in numbered.items():
        differing = sorted(samples.keys() ^ numbered[reference].keys())
        if differing:
            raise ReconstructionError(
                f"{folder}: targets {reference} and {target} differ in their samples ({_samples(differing)})",
                remedy="Every target must have the same samples, by one way of naming.",
            )
    return {target: [samples[k] for k in sorted(samples)] for target, samples in numbered.items()}


WHOLE = -1  # the sample number of a file that is the only one of its target


def _samples(numbers: list[int]) -> str:
    return ", ".join("without a number" if k == WHOLE else str(k) for k in numbers[:5])


def _numbered(folder: Path, targets: frozenset[str]) -> Iterator[tuple[str, int, Path]]:
    for path in _images(folder):
        match = None if path.stem in targets else SAMPLE.fullmatch(path.stem)
        yield (match["target"], int(match["sample"]), path) if match else (path.stem, WHOLE, path)
    for inner in sorted(p for p in _visible(folder) if p.is_dir()):
        for path in _images(inner):
            if not re.fullmatch(r"\d+", path.stem):
                raise ReconstructionError(
                    f"{path} is not named by a sample number", remedy="Name it <target>/<k>.png."
                )
            yield inner.name, int(path.stem), path


def _images(folder: Path) -> list[Path]:
    files = sorted(path for path in _visible(folder) if not path.is_dir())
    for path in files:
        if not path.name.isprintable():
            raise ReconstructionError(
                f"{folder} holds a file called {path.name!r}, which has characters that cannot be shown",
                remedy="Rename it.",
            )
        if path.suffix.lower() in OTHER_IMAGES:
            raise ReconstructionError(f"{path} is neither PNG nor JPEG", remedy="Convert it to PNG.")
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _visible(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ReconstructionError(f"{folder} cannot be read ({error.strerror})") from error


def read(path: Path, folder: Path) -> NDArray[np.uint8]:
    """Return the square RGB image ``path`` of ``folder``, uint8 of shape (S, S, 3).

    Raises
    ------
    ReconstructionError
        If the file is damaged, too large, not square, not 8-bit, partly transparent, animated, or a link that
        leads out of the folder.
    """
    if not path.is_file():
        raise ReconstructionError(f"{path} is not a regular file")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ReconstructionError(
            f"{path} is a link that leads out of {folder}", remedy="Copy the file instead."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=sorted(set(SUFFIXES.values()))) as image:
                _check(image, path)
                return np.asarray(image.convert("RGB"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ReconstructionError(f"{path} is damaged or not a PNG or JPEG image ({error})") from error


def _check(image: Image.Image, path: Path) -> None:
    """Look at what the header declares, before any pixel is decoded where possible."""
    width, height = image.size
    if width != height:
        raise ReconstructionError(
            f"{path} has {width} x {height} pixels; nsdbench never stretches an image",
            remedy="Crop or pad it to a square.",
        )
    if width > MAX_SIDE:
        raise ReconstructionError(f"{path} has {width} pixels a side; the limit is {MAX_SIDE}")
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "1") or getattr(image, "n_frames", 1) > 1:
        raise ReconstructionError(
            f"{path} is not a still 8-bit grey or RGB image", remedy="Save it as 8-bit RGB PNG."
        )
    translucent = image.mode in ("RGBA", "LA") or "transparency" in image.info
    if translucent and np.asarray(image.convert("RGBA"))[..., 3].min() < OPAQUE:
        raise ReconstructionError(
            f"{path} has transparent pixels", remedy="Put it on a background of your choice."
        )
