"""The same functions with less arithmetic: what a network becomes once its weights are loaded for good."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def fold_norms(module: nn.Module) -> nn.Module:
    """Fold every batch normalization that directly follows a convolution into its weights, in place.

    ``g (W x - m) / s + b = (g / s) W x + (b - g m / s)`` with the fixed statistics m and s of a network in evaluation
    mode; computed in float64 and rounded once. Children of a module must run in the order in which they are listed.
    """
    for parent in list(module.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, _folded(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    return module


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise TypeError("a normalization without statistics cannot be folded")
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    bias = norm.bias.double() - scale * mean.double()
    if conv.bias is not None:
        bias += scale * conv.bias.double()
    with torch.device("meta"):
        folded = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,  # type: ignore[arg-type]
            conv.dilation, conv.groups,  # type: ignore[arg-type]
        )  # fmt: skip
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    folded.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
    return folded.eval().requires_grad_(False)
