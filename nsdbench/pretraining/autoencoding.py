"""Teaching the autoencoder to give back what it was shown."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.pretraining.tasks import Task

CROP, WHOLE_SHARE = 32, 0.25
KL = 3e-5
SCALES = (1, 2, 4)


class Autoencoding(Task):
    """Reconstruct crops (three steps of four) and whole scenes through the sampled posterior.

    Absolute errors alone lose colours, squared ones edges; both are taken at three scales, and edges count
    once more through the differences of neighbouring pixels.
    """

    trunk: Autoencoder
    layout = torch.contiguous_format  # a quarter faster than channels-last in bfloat16

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        images = self._views(self.images(rows) * 2 - 1, rng)
        posterior = self.trunk.vae.encode(images).latent_dist  # type: ignore[operator]
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng)
        again = self.trunk.vae.decode(z).sample.float()  # type: ignore[operator]
        penalty: Tensor = posterior.kl().mean() / z[0].numel()
        return distance(again, images) + KL * penalty

    def _views(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Flip all at random; keep a quarter of the batch whole, or cut a crop out of each."""
        flip, whole = torch.rand(2, generator=rng).tolist()
        if flip < 0.5:
            images = images.flip(3)
        if whole < WHOLE_SHARE:
            return images[: len(images) // 4]
        corners = torch.randint(images.shape[3] - CROP + 1, (len(images), 2), generator=rng)
        pairs = zip(images, corners.tolist(), strict=True)
        return torch.stack([image[:, y : y + CROP, x : x + CROP] for image, (y, x) in pairs])

    def finish(self) -> None:
        """Measure mean and sd of the latents on 2,000 scenes."""
        self.eval()
        with torch.no_grad():
            parts = [self.trunk.vae.encode(self.images(rows) * 2 - 1).latent_dist.mean  # type: ignore[operator]
                     for rows in np.arange(min(2000, len(self.corpus))).reshape(-1, 50 if len(self.corpus) >= 50 else 1)]  # fmt: skip
        z = torch.cat(parts)
        self.trunk.latent_mean.copy_(z.mean((0, 2, 3)))
        self.trunk.latent_sd.copy_(z.std((0, 2, 3)))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over three scales of L1 + 2 L2, plus 0.3 times the L1 of pixel differences.

    Parameters
    ----------
    a, b : tensor of shape (n, 3, S, S)
        Images in [-1, 1].
    """
    total = torch.zeros(())
    for scale in SCALES:
        x, y = (functional.avg_pool2d(image, scale) if scale > 1 else image for image in (a, b))
        total = total + (x - y).abs().mean() + 2 * (x - y).square().mean()
    for axis in (2, 3):
        total = total + 0.3 * (a.diff(dim=axis) - b.diff(dim=axis)).abs().mean()
    return total
