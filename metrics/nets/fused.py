"""Convolutions and linear layers with what follows them in one kernel of oneDNN, for networks on a CPU.

An activation after a layer is a pass over memory of its own; on processors with fast bfloat16 products it takes a quarter
of the time. PyTorch has the fused kernels as operators of its compiler; where a build lacks them, networks run unfused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d
from torchvision.models.resnet import Bottleneck
from torchvision.ops import Conv2dNormActivation

After = Literal["none", "relu", "swish"]
_OPERATORS = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")


def available() -> bool:
    """Return whether this build of PyTorch has the kernels."""
    present = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return present and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


def always(dtype: torch.dtype) -> bool:
    """Return True: fused convolutions gain in every precision."""
    return True


def linear_gains(dtype: torch.dtype) -> bool:
    """Return whether fused linear layers are faster than PyTorch's in a precision, on this machine's CPU.

    PyTorch multiplies bfloat16 matrices with oneDNN in any case, and float32 with MKL if it was built with it. MKL is as
    fast as oneDNN on Intel's processors and at half its rate on AMD's, whose widest vector units it leaves unused.
    """
    if dtype == torch.bfloat16:
        return True
    has_mkl = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
    return has_mkl and hasattr(torch.cpu, "get_capabilities") and "Intel" not in _processor()


def _processor() -> str:
    """Return the processor's name, or "Intel" where it is not known: better no gain than a loss."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "Intel"))


class FusedConv(nn.Module):
    """A convolution, an addition if there is something to add, and an activation."""

    def __init__(self, conv: nn.Conv2d, after: After) -> None:
        super().__init__()
        self.conv = conv
        self._after = after

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Return ``after(conv(x) + add)``."""
        c, kernel = self.conv, torch.ops.mkldnn._convolution_pointwise
        how = (c.weight, c.bias, c.padding, c.stride, c.dilation, c.groups)
        found: Tensor = (
            kernel(x, *how, self._after, [], "")
            if add is None
            else kernel.binary(x, add, *how, "add", 1.0, self._after, [], "")
        )
        return found


class FusedBottleneck(nn.Module):
    """ResNet's block of three convolutions, the last of which adds the input."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.reduce, self.filter = FusedConv(block.conv1, "relu"), FusedConv(block.conv2, "relu")
        self.expand, self.skip = FusedConv(block.conv3, "relu"), block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block makes of ``x``."""
        same = x if self.skip is None else self.skip(x)
        expanded: Tensor = self.expand(self.filter(self.reduce(x)), same)
        return expanded


class FusedLinear(nn.Module):
    """A linear layer, its weights reordered once, and an activation."""

    def __init__(self, layer: nn.Linear, after: After) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self._bias = layer.bias.detach()
        self._after = after

    def forward(self, x: Tensor) -> Tensor:
        """Return ``after(layer(x))``."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, self._after, [], "")
        return found


def fuse_convolutions(module: nn.Module) -> nn.Module:
    """Replace the blocks of torchvision, whose normalizations have been folded, by fused ones, in place."""
    return _replace(module, _fused_convolution)


def fuse_linear(module: nn.Module) -> nn.Module:
    """Replace linear layers, with a SiLU if one follows in a sequence of two, by fused ones, in place."""
    return _replace(module, _fused_linear)


def _replace(module: nn.Module, fused: Callable[[Any], nn.Module | None]) -> nn.Module:
    for name, child in list(module.named_children()):
        new = fused(child)
        if new is None:
            _replace(child, fused)
        else:
            setattr(module, name, new)
    return module


def _fused_convolution(part: Any) -> nn.Module | None:
    if isinstance(part, BasicConv2d):
        return FusedConv(part.conv, "relu")
    if isinstance(part, Bottleneck):
        return FusedBottleneck(part)
    if isinstance(part, Conv2dNormActivation) and len(part) == 3 and isinstance(part[2], nn.SiLU):
        return FusedConv(part[0], "swish")
    return None


def _fused_linear(part: Any) -> nn.Module | None:
    if isinstance(part, nn.Linear):
        return FusedLinear(part, "none")
    if isinstance(part, nn.Sequential) and [type(x) for x in part] == [nn.Linear, nn.SiLU]:
        return FusedLinear(part[0], "swish")  # type: ignore[arg-type]
    return None
