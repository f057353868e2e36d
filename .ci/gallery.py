"""Draw targets and their reconstructions while seen and while imagined, model by model (run by ``make baseline``)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nsdbench import reconstructions
from nsdbench.data import Dataset

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "sim-gallery.png"
MODELS = (
    "mindeye2-mini",
    "mindeye1-mini",
    "brain_diffuser-mini",
    "takagi-mini",
    "icnn-mini",
    "ridge-standard",
    "random_image-standard",
)
SPLITS = ("vision", "imagery")
TILE, LABEL, GAP = 80, 150, 6


def main(runs: Path, cache: Path) -> None:
    """Write one row of targets, and two rows per model of their first samples for subject 1."""
    (root,) = (path for path in (cache / "sim").iterdir() if path.name.startswith("default-"))
    stimuli = Dataset.open(root).stimuli("vision", 1)
    targets = [name for name in stimuli.ids if name in stimuli.has_image]
    rows: list[tuple[str, list[NDArray[np.uint8]]]] = [("target", [stimuli.image(name) for name in targets])]
    for model in MODELS:
        for split in SPLITS:
            (file,) = (runs / "sim" / model / "subj01" / split).glob("*/reconstructions.h5")
            found = reconstructions.load(file)
            images = [found.images[found.targets.index(name), 0] for name in targets]
            rows.append((f"{model.rpartition('-')[0]}, {split}", images))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, targets).save(PICTURE, optimize=True)
    print(PICTURE)


def draw(rows: list[tuple[str, list[NDArray[np.uint8]]]], heads: list[str]) -> Image.Image:
    """Return labelled rows of images; a gap separates the models."""
    height = 20 + sum(TILE + (GAP if i % 2 == 0 else 0) for i in range(len(rows)))
    sheet = Image.new("RGB", (LABEL + TILE * len(heads), height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column, head in enumerate(heads):
        pen.text((LABEL + TILE * column + TILE // 2, 4), head, "black", font, anchor="ma")
    top = 20
    for i, (label, images) in enumerate(rows):
        pen.text((4, top + TILE // 2), label, "black", font, anchor="lm")
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (LABEL + TILE * column, top))
        top += TILE + (GAP if i % 2 == 0 else 0)
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
