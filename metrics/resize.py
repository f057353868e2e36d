"""Image resizing, exactly as a profile prescribes it: every image is brought to every size once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from nsdbench.metrics.profiles import Profile


def resize_bilinear(images: Tensor, size: int, *, antialias: bool) -> Tensor:
    """Return ``images`` resized to ``size x size``, bilinear with half-pixel centres.

    Output sample i of m reads position ``x = (i + 1/2) n/m - 1/2`` of n input samples. Without antialiasing it
    interpolates between the two neighbours of ``max(0, x)``; with it, a triangle of half-width ``max(n/m, 1)``
    around x is averaged, its weights normalised to one.

    Parameters
    ----------
    images : float tensor of shape (n, channels, H, W)
    size : int
        Side of the result in pixels.
    antialias : bool
        Always given explicitly: library defaults have changed between versions.
    """
    if images.shape[-2:] == (size, size):
        return images
    return interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)


def resize_pil(image: NDArray[np.uint8], size: int, *, bicubic: bool) -> NDArray[np.uint8]:
    """Return an 8-bit RGB image ``(H, W, 3)`` resized by Pillow, antialiased and rounded to 8 bits."""
    filter_ = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size, size), filter_))


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Return an 8-bit RGB image ``(H, W, 3)`` as float32 ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))


class Views:
    """A batch of square 8-bit images at the sizes that a profile asks for.

    Parameters
    ----------
    images : sequence of uint8 arrays of shape (H, H, 3)
        RGB; sizes may differ from image to image.
    profile : Profile
    truth : bool
        Whether these are ground truths, which some profiles treat differently in stage 1.
    """

    def __init__(self, images: Sequence[NDArray[np.uint8]], profile: Profile, *, truth: bool) -> None:
        self._profile = profile
        self._images = images
        self._sizes: dict[int, Tensor] = {}
        self._stage1: list[Tensor] = []  # one batch if all images have one size now, else one image each
        if profile.resize != "pil":
            side = profile.stage1_truth if truth else profile.stage1_recon
            tensors = (to_tensor(image) for image in images)
            stage1 = [t if side is None else self._resize(t, side) for t in tensors]
            alike = len({t.shape for t in stage1}) == 1
            self._stage1 = [torch.cat(stage1)] if alike else stage1

    def pixels(self) -> Tensor:
        """Return the batch as pixel metrics compare it, float32 of shape (n, 3, P, P) in [0, 1]."""
        size = self._profile.pixel_size
        return self._pillow(size, bicubic=True) if self._profile.resize == "pil" else self.at(size)

    def at(self, size: int) -> Tensor:
        """Return the batch as a network input, float32 of shape (n, 3, size, size) in [0, 1]."""
        if size not in self._sizes:
            if self._profile.resize == "pil":
                self._sizes[size] = self._pillow(size, bicubic=False)
            else:
                parts = [self._resize(part, size) for part in self._stage1]
                self._sizes[size] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._sizes[size]

    def pin(self, size: int) -> None:
        """Keep the batch at one size in memory from which a GPU copies while it computes."""
        self._sizes[size] = self.at(size).pin_memory()

    def _resize(self, image: Tensor, size: int) -> Tensor:
        return resize_bilinear(image, size, antialias=self._profile.resize == "bilinear-aa")

    def _pillow(self, size: int, *, bicubic: bool) -> Tensor:
        return torch.cat([to_tensor(resize_pil(image, size, bicubic=bicubic)) for image in self._images])
