"""ConvNeXt-XL as VICRegL trained it: the teacher of MindEye's low-level branches, used in training only.

VICRegL (Bardes et al. 2022, arXiv 2210.01571) learns features of places as well as of images without labels; the network
is ConvNeXt (Liu et al. 2022, arXiv 2201.03545) without layer scale. MindEye compares its projected maps with those of
the branch. Parameters have the names of the published checkpoint (facebookresearch/VICRegL).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters.nets.checkpoints import filled, on_meta
from nsdbench.safeload import load_checkpoint

WEIGHTS_ID = "vicregl-convnext-xl-alpha0.75"
MEAN, SD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)
"""Of the pixels. ImageNet's first standard deviation is 0.229; MindEye was trained with 0.228."""
NORM_EPS = 1e-6


@dataclass(frozen=True)
class TeacherConfig:
    """Shape of the network.

    Attributes
    ----------
    depths, dims : tuple of int
        Blocks and channels of the four stages, which halve the map from a quarter of the image on.
    hidden, out : int
        Widths of the projection.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    hidden: int
    out: int


XLARGE = TeacherConfig(depths=(3, 3, 27, 3), dims=(256, 512, 1024, 2048), hidden=512, out=512)


class Teacher(nn.Module):
    """The backbone and the projection of its places.

    Parameters
    ----------
    config : TeacherConfig
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.backbone = ConvNeXt(config)
        self.maps_projector = nn.Sequential(
            nn.Linear(config.dims[-1], config.hidden),
            nn.LayerNorm(config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.out, bias=False),
        )
        for name, values in (("mean", MEAN), ("sd", SD)):
            column = torch.tensor(values, device="cpu").view(
                3, 1, 1
            )  # constants, also in a network without memory
            self.register_buffer(name, column, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return projected places, row by row, (n, side * side, out), of images (n, 3, S, S) in [0, 1]."""
        places: Tensor = self.maps_projector(self.backbone((images - self.mean) / self.sd))
        return places


class ConvNeXt(nn.Module):
    """Four stages of blocks, each behind a convolution that makes the map smaller, and a norm."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        dims = config.dims
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), MapNorm(dims[0]))]
        )
        for before, after in itertools.pairwise(dims):
            self.downsample_layers.append(
                nn.Sequential(MapNorm(before), nn.Conv2d(before, after, 2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim) for _ in range(depth)))
            for depth, dim in zip(config.depths, dims, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised places of images (n, 3, S, S), (n, (S / 32)^2, channels)."""
        for smaller, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(smaller(x))
        places: Tensor = self.norm(x.flatten(2).mT)
        return places


class Block(nn.Module):
    """A residual block: convolution of each channel, norm, and two linear layers at every place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the shape of ``x``, (n, channels, height, width)."""
        rows = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        change: Tensor = self.pwconv2(self.act(self.pwconv1(rows)))
        return x + change.permute(0, 3, 1, 2)


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, (n, channels, height, width)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map."""
        normed: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def load(weights_dir: Path | None, device: str = "cpu") -> Teacher:
    """Return the published teacher, 350 million parameters.

    Parameters
    ----------
    weights_dir : Path or None
        Folder of registered weights.
    device : str

    Raises
    ------
    WeightsError
        If the file is missing (the message says how to get it), altered, or holds another model.
    """
    path = weights.locate(WEIGHTS_ID, weights.folder(weights_dir)).path
    state = load_checkpoint(path, keep=("backbone.", "maps_projector."))  # not the parts for learning
    return filled(on_meta(lambda: Teacher(XLARGE)), state, WEIGHTS_ID, device=device)


@torch.no_grad()
def tokens(teacher: Teacher, images: Tensor) -> Tensor:
    """Return the teacher's tokens of images, 16 x 16 of them for 512 pixels, 7 x 7 for 224.

    Parameters
    ----------
    teacher : Teacher
    images : tensor of shape (n, 3, S, S)
        In [0, 1]; S is a multiple of 32.

    Returns
    -------
    float32 tensor of shape (n, (S / 32)^2, 512)
    """
    projected: Tensor = teacher(images)
    return projected.float()
