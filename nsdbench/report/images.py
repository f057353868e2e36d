"""Small pictures inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96
"""Longest side of a picture in pixels."""
_QUALITY = 88


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an RGB image (H, W, 3) as a JPEG in a ``data:`` address, made smaller if a side exceeds :data:`SIDE`."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
