"""LPIPS, a learned perceptual distance, from the same AlexNet pass as the identification metrics."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.errors import WeightsError
from nsdbench.metrics.metric import ByPair, Features
from nsdbench.metrics.profiles import Profile

NODES = ("features.1", "features.4", "features.7", "features.9", "features.11")
_EPSILON = 1e-10


def normalize(activations: Sequence[NDArray[np.float32]], profile: Profile) -> tuple[Tensor, ...]:
    """Return the activations ``(C, H, W)`` of every node, scaled to unit length across channels."""
    maps = (torch.from_numpy(np.array(layer)) for layer in activations)
    return tuple(layer / (layer.square().sum(dim=0).sqrt() + _EPSILON) for layer in maps)


def lpips(truth: Sequence[Tensor], recon: Sequence[Tensor]) -> float:
    """Return the LPIPS distance of two normalized images (Zhang et al. 2018; variant ``alex``, version 0.1).

    ``sum over layers of mean over positions of sum over channels w_c (a_c - b_c)^2`` with the channel weights of
    the ``lpips`` package. Its input scaling is the ImageNet normalization of AlexNet, so its features are ours.
    Canonical input is 256 x 256 pixels; a profile that feeds AlexNet another size changes the value.
    """
    layers = zip(channel_weights(), truth, recon, strict=True)
    distances = [(w @ (a - b).square().flatten(1)).mean(dtype=torch.float64) for w, a, b in layers]
    return float(sum(distances))


@functools.cache
def channel_weights() -> tuple[Tensor, ...]:
    """Return the linear weights of the installed ``lpips`` package, one float32 vector (C,) per node.

    Raises
    ------
    WeightsError
        If the package or its weights file is not there or holds something else.
    """
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise WeightsError("the lpips package is not installed", remedy="pip install lpips")
    path = Path(spec.origin).parent / "weights" / "v0.1" / "alex.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return tuple(state[f"lin{i}.model.1.weight"].flatten() for i in range(len(NODES)))
    except (OSError, KeyError, RuntimeError) as error:
        raise WeightsError(
            f"cannot read the LPIPS weights {path} ({error})", remedy="Reinstall lpips."
        ) from error


LPIPS = ByPair(Features("alexnet", NODES), normalize, lpips)
