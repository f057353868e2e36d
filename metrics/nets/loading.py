"""From a name to a ready network: pretrained weights by id and hash, or the fixed random ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from nsdbench import weights as registry
from nsdbench.errors import UsageError, WeightsError
from nsdbench.metrics.nets.clip import CLIP
from nsdbench.metrics.nets.convolutional import ALEXNET, EFFICIENTNET, INCEPTION, SWAV
from nsdbench.metrics.nets.initialisation import random_state, recipe_sha256
from nsdbench.metrics.nets.mini import MINI_NETS, SHIPPED, shipped
from nsdbench.metrics.nets.network import Architecture, FeatureNet, TorchFeatureNet
from nsdbench.metrics.profiles import Precision
from nsdbench.safeload import load_state

NETS: Mapping[str, Architecture] = {
    net.name: net for net in (ALEXNET, INCEPTION, EFFICIENTNET, CLIP, SWAV, *MINI_NETS)
}


def load_net(
    name: str,
    *,
    variant: str = "",
    weights: Literal["pretrained", "random"] = "pretrained",
    weights_dir: Path | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> FeatureNet:
    """Return the feature network ``name``, ready to be called on images.

    Parameters
    ----------
    name : str
        One of :data:`NETS`: ``alexnet`` (nodes ``features.1, .4, .7, .9, .11``), ``inception`` (v3),
        ``effnet`` (EfficientNet-B1), ``swav`` (ResNet-50; node ``avgpool``) or ``clip`` (node ``image_embeds``);
        or ``mini_`` and one of these, a small relative that knows simulated scenes and comes with nsdbench.
    variant : str
        Which weights, for networks with several (``effnet``: ``v2``, the default, or ``v1``).
    weights : {"pretrained", "random"}
        ``"random"`` gives a fixed untrained network, for tests and speed measurements; it is never a fallback.
    weights_dir : Path, optional
        Folder of weights files; see :func:`nsdbench.weights.folder` for the default. Not used for ``mini_*``.
    device : str
        Torch device of parameters and activations.
    precision : {"fp32", "bf16"}
        Arithmetic of the network; images and activations that go in and out are float32.

    Raises
    ------
    UsageError
        If there is no such network or variant.
    WeightsError
        If the weights are missing, altered, or do not fit the network.
    """
    if name not in NETS:
        raise UsageError(f"there is no feature network {name!r}", remedy=f"Choose one of {', '.join(NETS)}.")
    net = NETS[name]
    if variant not in net.weights:
        known = ", ".join(filter(None, net.weights)) or "none"
        raise UsageError(f"{name} has no variant {variant!r}", remedy=f"Known variants: {known}.")
    if weights == "random":
        return _random(net, device, precision)
    return _pretrained(net, net.weights[variant], registry.folder(weights_dir), device, precision)


def _random(net: Architecture, device: str, precision: Precision) -> FeatureNet:
    with torch.device("meta"):
        shapes = {entry: value.shape for entry, value in net.build().state_dict().items()}
    return TorchFeatureNet(
        net,
        random_state(net.name, shapes),
        weights_id=f"random-{net.name}",
        weights_sha256=recipe_sha256(net.name, shapes),
        device=device,
        precision=precision,
    )


def _pretrained(
    net: Architecture, weights_id: str, folder: Path, device: str, precision: Precision
) -> FeatureNet:
    path, sha256 = shipped(weights_id) if weights_id in SHIPPED else _located(weights_id, folder)
    state = net.adapt(load_state(path, keep=net.keep))
    full = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        return TorchFeatureNet(
            net, full, weights_id=weights_id, weights_sha256=sha256, device=device, precision=precision
        )
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not fit {net.name}: {error}",
            remedy=f"The file holds another model; delete it and run `nsdbench weights fetch {weights_id}`.",
        ) from error


def filled(module: nn.Module, state: Mapping[str, Tensor], path: Path, device: str) -> nn.Module:
    """Put the weights of a file into a module that is on the meta device, and return it frozen in float32.

    Raises
    ------
    WeightsError
        If names or shapes do not agree.
    """
    full = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        module.load_state_dict(full, assign=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not fit {type(module).__name__}: {error}",
            remedy="The file holds another model or layout; delete it and get it again.",
        ) from error
    return module.eval().requires_grad_(False).to(device)


def _located(weights_id: str, folder: Path) -> tuple[Path, str]:
    found = registry.locate(weights_id, folder)
    return found.path, found.sha256
