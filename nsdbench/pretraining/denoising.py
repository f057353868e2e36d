"""Teaching the denoiser, on latents and tokens that are computed once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.autoencoder import mini_autoencoder
from nsdbench.adapters.nets.clip import mini_clip
from nsdbench.adapters.nets.unet import MiniDenoiser, noise_levels
from nsdbench.pretraining.alignment import align
from nsdbench.pretraining.corpus import Corpus
from nsdbench.pretraining.shipping import finished
from nsdbench.pretraining.tasks import Task
from nsdbench.store import atomic_path, digest, sha256_file

SCENES, BATCH = 40_000, 100
FLOWS, SHARES = ("image", "text", "both"), (0.4, 0.4, 0.2)
FREE = 0.1  # share of batches that learn to do without a condition, for classifier-free guidance
MOST_AVERAGE = 0.999
GAMMA = 5.0


@dataclass(frozen=True)
class Encoded:
    """What the denoiser learns from; rows 2 i and 2 i + 1 are scene i and its mirror image.

    Attributes
    ----------
    latents : float16 array of shape (2 n, 4, 16, 16)
    tokens : float16 array of shape (2 n, 65, 128)
    """

    latents: NDArray[np.float16]
    tokens: NDArray[np.float16]


class Denoising(Task):
    """Predict v at random times (Salimans & Ho 2022, arXiv 2202.00512), for images, texts or both as condition.

    The weight of a time is that of Hang et al. 2023 (arXiv 2303.09556). What is shipped is a running average of the
    weights.
    """

    trunk: MiniDenoiser
    layout = torch.contiguous_format
    steps_done: Tensor

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        self.clip = finished(mini_clip(), "mini_tokens-v1", corpus.weights)
        self.encoded = encode(corpus, self.clip)
        _measure_scales(self.trunk, self.clip, corpus, self.encoded)
        align(self.trunk)
        self.average = copy.deepcopy(trunk).requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.alphas = noise_levels()
        with torch.no_grad():
            grey = torch.full((1, 3, clip.SIZE, clip.SIZE), 0.5)
            self.nothing = clip.image_tokens(self.clip, grey), clip.text_tokens(self.clip, [""])

    def pick(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(len(self.encoded.latents), size=n)

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        latents = torch.from_numpy(self.encoded.latents[rows]).float()
        times = torch.randint(len(self.alphas), (len(rows),), generator=rng)
        noise = torch.randn(latents.shape, generator=rng)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        v = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        image, text, share = self._conditions(rows, rng)
        wrong: Tensor = (self.trunk(noisy, times, image, text, share).float() - v).square().mean((1, 2, 3))
        ratio = (alpha / (1 - alpha)).flatten()
        return (wrong * ratio.clamp(max=GAMMA) / (ratio + 1)).mean()

    def _conditions(
        self, rows: NDArray[np.int64], rng: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None, float]:
        flow = FLOWS[int(torch.multinomial(torch.tensor(SHARES), 1, generator=rng))]
        free = torch.rand(len(rows), generator=rng)[:, None, None] < FREE
        image = text = None
        if flow != "text":
            tokens = torch.from_numpy(self.encoded.tokens[rows]).float()
            image = self.trunk.image_condition(torch.where(free, self.nothing[0], tokens))
        if flow != "image":
            text = self.trunk.text_condition(
                torch.where(free, self.nothing[1], self._captions(rows // 2, rng))
            )
        mixed = 0.2 + 0.6 * float(torch.rand((), generator=rng))
        return image, text, {"image": 0.0, "text": 1.0, "both": mixed}[flow]

    def _captions(self, scenes: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        which = torch.randint(self.corpus.captions.shape[1], (len(scenes),), generator=rng).numpy()
        with torch.no_grad():
            return clip.text_tokens(self.clip, self.corpus.captions[scenes, which].tolist()).float()

    def stepped(self) -> None:
        """Move the average of the weights a little towards the present ones."""
        self.steps_done += 1
        done = int(self.steps_done)
        keep = min(MOST_AVERAGE, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.trunk.parameters()), 1 - keep)

    def finish(self) -> None:
        """Take the average for the result."""
        self.trunk.load_state_dict(self.average.state_dict())


def encode(corpus: Corpus, model: nn.Module) -> Encoded:
    """Return latents and tokens of the first scenes of ``corpus`` and of their mirror images, read from the cache.

    Parameters
    ----------
    corpus : Corpus
    model : CustomTextCLIP
        The trained contrastive model.
    """
    n = min(SCENES, len(corpus))
    autoencoder = finished(mini_autoencoder(), "mini_autoencoder-v1", corpus.weights)
    made_by = [
        sha256_file(corpus.weights / f"mini_{name}-v1.safetensors") for name in ("autoencoder", "tokens")
    ]
    path = corpus.folder / f"encoded-{digest(n, made_by, corpus.images[:n:97])}"
    shapes = {"latents": (2 * n, 4, 16, 16), "tokens": (2 * n, clip.IMAGE_TOKENS, clip.WIDTH)}
    files = {name: path.with_suffix(f".{name}.npy") for name in shapes}
    if not all(file.exists() for file in files.values()):
        _encode(corpus.images[:n], autoencoder, model, shapes, files)
    return Encoded(**{name: np.load(file, mmap_mode="r") for name, file in files.items()})


def _encode(
    images: NDArray[np.uint8],
    autoencoder: nn.Module,
    model: nn.Module,
    shapes: dict[str, tuple[int, ...]],
    files: dict[str, Path],
) -> None:
    with atomic_path(files["latents"]) as first, atomic_path(files["tokens"]) as second:
        latents, tokens = (
            np.lib.format.open_memmap(path, "w+", np.float16, shape)
            for path, shape in zip((first, second), shapes.values(), strict=True)
        )
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            both = torch.stack([batch, batch.flip(3)], dim=1).flatten(0, 1)
            rows = slice(2 * start, 2 * start + len(both))
            with torch.no_grad():
                latents[rows] = autoencoder.encode(both * 2 - 1)  # type: ignore[operator]
                tokens[rows] = clip.image_tokens(model, both)
        latents.flush()
        tokens.flush()


def _measure_scales(trunk: MiniDenoiser, model: nn.Module, corpus: Corpus, encoded: Encoded) -> None:
    captions = corpus.captions[:500, 0].tolist()
    with torch.no_grad():
        trunk.image_sd.fill_(float(encoded.tokens[:1000].astype(np.float32).std()))
        trunk.state_sd.copy_(clip.text_states(model, captions).std())
        trunk.token_sd.copy_(clip.text_tokens(model, captions).std())
