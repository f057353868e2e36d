"""Random parameters that are the same on every machine and with every library version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

RECIPE = "uniform-he/1"


def random_state(name: str, shapes: Mapping[str, torch.Size], seed: int = 0) -> dict[str, Tensor]:
    """Return values for every parameter and buffer of a network.

    Matrices and kernels are uniform in ``±sqrt(6 / fan_in)`` (He et al. 2015, arXiv 1502.01852, eq. 10 as a
    uniform law), biases and running means 0, norm scales and running variances 1. Each tensor has a stream of
    its own, keyed by network, entry and seed, made from the raw words of PCG64: unlike NumPy's distributions,
    those are guaranteed never to change. No global generator is read or moved.

    Parameters
    ----------
    name : str
        Name of the network.
    shapes : mapping of str to torch.Size
        Shape per entry of the state dict.
    seed : int
        Seed.
    """
    return {entry: _values(f"{name}/{entry}", entry, tuple(shape), seed) for entry, shape in shapes.items()}


def recipe_sha256(name: str, shapes: Mapping[str, torch.Size], seed: int = 0) -> str:
    """Return a hash of everything that determines :func:`random_state`, and so of its values."""
    table = sorted((entry, tuple(shape)) for entry, shape in shapes.items())
    return hashlib.sha256(f"{RECIPE} {name} {seed} {table}".encode()).hexdigest()


def _values(key: str, entry: str, shape: tuple[int, ...], seed: int) -> Tensor:
    leaf = entry.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if leaf in ("bias", "in_proj_bias", "running_mean"):
        return torch.zeros(shape)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return torch.ones(shape)
    return _uniform(key, shape, seed)


def _uniform(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    count = int(np.prod(shape))
    stream = np.frombuffer(hashlib.sha256(key.encode()).digest(), "<u4").tolist()
    words = np.random.PCG64(np.random.SeedSequence([seed, *stream])).random_raw((count + 1) // 2)
    unit = (words.astype("<u8", copy=False).view("<u4")[:count] >> 8).astype(np.float32) / np.float32(2**24)
    fan_in = count / shape[0] if len(shape) > 1 else count
    bound = np.float32(np.sqrt(6 / fan_in))
    return torch.from_numpy((2 * unit - 1) * bound).reshape(shape)
