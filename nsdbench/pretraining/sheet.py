"""Pictures of rows of small images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE, MARGIN = 80, 190


def contact_sheet(rows: Mapping[str, Iterable[NDArray[np.uint8]]], columns: int) -> Image.Image:
    """Return labelled rows of images, the first ``columns`` of each."""
    sheet = Image.new("RGB", (MARGIN + TILE * columns, TILE * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for top, (label, images) in enumerate(rows.items()):
        pen.text((6, TILE * top + TILE // 2), label, "black", font, anchor="lm")
        for left, image in zip(range(columns), images, strict=False):
            tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (MARGIN + TILE * left, TILE * top))
    return sheet
