"""8-bit images to tensors and back, and resized by Pillow as the published pipelines do it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nsdbench.errors import ReconstructionError

Images = NDArray[np.uint8]
BILINEAR, BICUBIC, LANCZOS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def resized(images: Images, side: int, filter_: Image.Resampling) -> Images:
    """Return 8-bit images (n, H, W, 3) as (n, side, side, 3); those that have that size already are left alone."""
    if images.shape[1:3] == (side, side):
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), filter_)) for image in images])


def to_signed(images: Images) -> Tensor:
    """Return 8-bit images (n, H, W, 3) as float32 (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def from_signed(images: Tensor) -> Images:
    """Return images (n, 3, H, W), about [-1, 1], as uint8 (n, H, W, 3): clipped and cut off, not rounded.

    Raises
    ------
    ReconstructionError
        If a value is not finite.
    """
    require_finite(images, "decoded images")
    levels = (images.float() + 1).div(2).clamp(0, 1).mul(255).byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def require_finite(values: Tensor, what: str) -> None:
    """Raise ReconstructionError if ``values`` hold NaN or infinity."""
    bad = ~torch.isfinite(values)
    if bad.any():
        raise ReconstructionError(
            f"{what}: {int(bad.sum())} of {values.numel()} values are not finite",
            remedy="Half precision can overflow: compute on the CPU, where everything is float32, "
            "and check the betas and the weights.",
        )
