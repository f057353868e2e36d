"""From weights files to networks: everything in a file is used, everything in a network is filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters.nets.shipped import shipped_state
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_state

Network = TypeVar("Network", bound=nn.Module)


def registered_state(
    weights_id: str, weights_dir: Path | None, *, keep: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Return the tensors of registered weights after checking the hash of their file.

    Parameters
    ----------
    weights_id : str
    weights_dir : Path or None
    keep : tuple of str
        If given, only entries whose name starts with one of these.

    Raises
    ------
    WeightsError
        If the file is missing (the message says how to get it), altered or unreadable.
    """
    return load_state(weights.locate(weights_id, weights.folder(weights_dir)).path, keep=keep)


def published_dtype(device: str) -> torch.dtype:
    """Return the precision of large denoisers and autoencoders: half on a GPU, as published; CPUs are slow with it."""
    return torch.float16 if device.startswith("cuda") else torch.float32


def on_meta(build: Callable[[], Network]) -> Network:
    """Return the module that ``build`` makes, without memory for its parameters."""
    with torch.device("meta"):
        return build()


def filled(
    network: Network,
    state: Mapping[str, Tensor],
    source: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Put weights into a network (which may be on the meta device), and return it frozen on ``device``.

    Parameters
    ----------
    network : Module
    state : mapping of str to Tensor
        One tensor for every parameter and buffer, and nothing else.
    source : str
        Weights ids, for the message.
    device : str
    dtype : torch.dtype
        Of all real tensors.

    Raises
    ------
    WeightsError
        If names or shapes do not agree.
    """
    converted = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()
    }
    try:
        network.load_state_dict(converted, assign=True)
    except RuntimeError as error:
        raise WeightsError(
            f"weights {source} do not fit {type(network).__name__}: {error}",
            remedy=f"The file holds another model or layout; delete it and run `nsdbench weights fetch {source}`.",
        ) from error
    return network.eval().requires_grad_(False).to(device)


def mini(network: Network, weights_id: str, device: str) -> Network:
    """Return a miniature network with the weights that come with nsdbench."""
    return filled(network, shipped_state(weights_id), weights_id, device=device)
