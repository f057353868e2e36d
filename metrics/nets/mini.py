"""Miniature relatives of the published feature networks, for simulated scenes; docs/mini-networks.md is their card."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench import weights
from nsdbench.errors import WeightsError
from nsdbench.metrics.nets.network import Architecture, taps
from nsdbench.metrics.profiles import MINI_SIZE
from nsdbench.store import sha256_file

SHIPPED: Mapping[str, str] = weights.shipped_hashes("metrics")
"""SHA-256 of the weights that come with nsdbench, by weights id."""
FOLDER = weights.shipped_folder("metrics")

EMBEDDING = 64
TAPS = {"4": "features.4", "11": "features.11"}


def mini_alexnet() -> nn.Module:
    """Return five convolutions without normalization, numbered as torchvision numbers those of AlexNet."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(32, 64, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(64, 96, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(96, 96, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(96, 96, 3, 1, 1), nn.ReLU(),
    )  # fmt: skip


def _taps(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs of the second and fifth ReLU, (n, 64, 16, 16) and (n, 96, 8, 8)."""
    return taps(module, x, TAPS)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (up to the stride), and its batch normalization."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def _relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_conv(inputs, outputs, kernel, stride), nn.ReLU())


class _Branches(nn.Module):
    """Inception block: 1x1, 3x3, double 3x3 and pooled branches side by side, ``4 * width`` channels out."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = _relu(inputs, width, 1)
        self.three = nn.Sequential(_relu(inputs, width, 1), _relu(width, width, 3))
        self.five = nn.Sequential(
            _relu(inputs, width // 2, 1), _relu(width // 2, width, 3), _relu(width, width, 3)
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), _relu(inputs, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


def mini_inception() -> nn.Module:
    """Return a stem and four blocks of parallel branches; 192 pooled features."""
    return nn.Sequential(
        _relu(3, 32, 3, 2), nn.MaxPool2d(3, 2, 1), _relu(32, 64, 3),
        _Branches(64, 32), nn.MaxPool2d(3, 2, 1), _Branches(128, 40), _Branches(160, 40),
        nn.MaxPool2d(3, 2, 1), _Branches(160, 48),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class _Inverted(nn.Module):
    """EfficientNet block: widen, filter each channel, weigh the channels by their means, narrow, add the input."""

    def __init__(self, inputs: int, outputs: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = inputs * widening
        self.widen = nn.Sequential(*_conv(inputs, wide, 1), nn.SiLU())
        self.filter = nn.Sequential(*_conv(wide, wide, 3, stride, groups=wide), nn.SiLU())
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, inputs // 4, 1), nn.SiLU(),
            nn.Conv2d(inputs // 4, wide, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.narrow = nn.Sequential(*_conv(wide, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = self.filter(self.widen(x))
        y: Tensor = self.narrow(wide * self.weigh(wide))
        return x + y if self.adds else y


def mini_effnet() -> nn.Module:
    """Return a stem, six inverted bottlenecks with squeeze and excitation, and a head; 192 pooled features."""
    blocks = [
        _Inverted(inputs, outputs, stride, widening)
        for inputs, outputs, stride, widening in (
            (16, 16, 1, 1), (16, 32, 2, 4), (32, 32, 1, 4), (32, 64, 2, 4), (64, 64, 1, 4), (64, 96, 2, 4),
        )
    ]  # fmt: skip
    return nn.Sequential(
        *_conv(3, 16, 3, 2), nn.SiLU(), *blocks, *_conv(96, 192, 1), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class _Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_relu(inputs, outputs, 3, stride), *_conv(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.skip(x)
        return functional.relu(y)


def mini_swav() -> nn.Module:
    """Return a small ResNet with one to two basic blocks per stage; 192 pooled features."""
    widths = ((32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 192, 1))
    return nn.Sequential(
        _relu(3, 32, 5, 2), nn.MaxPool2d(3, 2, 1), *(_Residual(*w) for w in widths),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Block(nn.Module):
    """Transformer block, normalized before each part.

    Parameters
    ----------
    width, heads : int
        Channels of a token and number of attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens of shape (n, tokens, width); ``mask`` (n, 1, 1, tokens) is True where one may be read."""
        q, k, v = self.qkv(self.norm_1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) * (q.shape[3] ** -0.5)
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e4)
        mixed = (
            torch.softmax(scores, 3) @ v
        )  # written out: the fused kernel is several times slower backwards on CPUs
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norm_2(x))
        return y


class _ImageTower(nn.Module):
    """Three strided convolutions make 8 x 8 tokens, a transformer mixes them, their mean is projected."""

    def __init__(self, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        sizes = pairwise((3, 32, 64, width))
        self.stem = nn.Sequential(*(nn.Sequential(*_conv(a, b, 3, 2), nn.GELU()) for a, b in sizes))
        self.position = nn.Parameter(torch.zeros(1, (MINI_SIZE // 8) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, EMBEDDING, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        projected: Tensor = self.project(self.norm(self.blocks(tokens)).mean(1))
        return projected


def mini_clip() -> nn.Module:
    """Return the image tower of a contrastive image-text model; 64 numbers per image."""
    return _ImageTower()


def _pooled(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return {"avgpool": module(x)}


def _embedding(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return {"image_embeds": module(x)}


MINI_ALEXNET = Architecture(
    "mini_alexnet", {"": "mini_alexnet-v1"}, mini_alexnet, _taps, dict, size=MINI_SIZE
)
MINI_INCEPTION = Architecture(
    "mini_inception", {"": "mini_inception-v1"}, mini_inception, _pooled, dict, size=MINI_SIZE
)
MINI_EFFNET = Architecture("mini_effnet", {"": "mini_effnet-v1"}, mini_effnet, _pooled, dict, size=MINI_SIZE)
MINI_CLIP = Architecture("mini_clip", {"": "mini_clip-v1"}, mini_clip, _embedding, dict, size=MINI_SIZE)
MINI_SWAV = Architecture("mini_swav", {"": "mini_swav-v1"}, mini_swav, _pooled, dict, size=MINI_SIZE)
MINI_NETS = (MINI_ALEXNET, MINI_INCEPTION, MINI_EFFNET, MINI_CLIP, MINI_SWAV)


def shipped(weights_id: str, folder: Path = FOLDER) -> tuple[Path, str]:
    """Return the file of shipped weights and its SHA-256, which is compared with the recorded one.

    Raises
    ------
    WeightsError
        If the file is missing or altered.
    """
    path = folder / f"{weights_id}.safetensors"
    sha256 = sha256_file(path) if path.is_file() else None
    if sha256 != SHIPPED[weights_id]:
        state = "is missing" if sha256 is None else f"has sha256 {sha256}, not {SHIPPED[weights_id]}"
        raise WeightsError(f"{path}, a part of nsdbench, {state}", remedy="Install nsdbench again.")
    return path, sha256
