"""What a feature network is, and the one class that runs any of them in full float32 precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nsdbench.errors import UsageError
from nsdbench.metrics.nets import fused
from nsdbench.metrics.profiles import Precision

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class FeatureNet(Protocol):
    """Turns images into named activations.

    Attributes
    ----------
    name : str
        Name of the network, as given to :func:`nsdbench.metrics.nets.load_net`.
    weights_id : str
        Id of the weights in :data:`nsdbench.weights.REGISTRY`, or ``random-<name>``.
    weights_sha256 : str
        SHA-256 of the weights file; for random weights, of the recipe that fixes every value.
    preprocessing_version : int
        Grows whenever the same images and weights could give other activations.
    untrained : bool
        True for random weights; scores made with them must be labelled.
    """

    name: str
    weights_id: str
    weights_sha256: str
    preprocessing_version: int
    untrained: bool

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations of ``images`` by node name.

        Parameters
        ----------
        images : float32 tensor of shape (n, 3, S, S)
            RGB in [0, 1], already at the size that the metric profile asks for.
        """
        ...


@dataclass(frozen=True)
class Architecture:
    """A network cut off at its last node, and how checkpoints map onto it.

    Attributes
    ----------
    name : str
        Name of the network.
    weights : mapping of str to str
        Weights id per variant; ``""`` is the canonical variant.
    build : callable
        Makes the module; called under the meta device, so that nothing is allocated or drawn.
    nodes : callable
        ``nodes(module, normalized images) -> {node: activations}``.
    adapt : callable
        Renames the entries of a checkpoint to those of the module and drops the heads it names. What is left
        must match the module exactly.
    keep : tuple of str
        If given, only checkpoint entries whose name starts with one of these are read (saves memory).
    mean, std : tuple of float
        Channel statistics of the normalization.
    size : int or None
        The only image size that the network accepts, if there is one.
    tune : callable or None
        ``tune(loaded module)`` returns a module that computes the same with less work, up to float32 rounding; it may
        reuse or alter the one it gets. None runs the module as built, bit for bit.
    fuse : callable or None
        ``fuse(tuned module)`` replaces layers by the kernels of :mod:`nsdbench.metrics.nets.fused`; applied on CPUs that
        have them, once the module has its final precision.
    fuse_gains : callable
        ``fuse_gains(dtype)`` says whether ``fuse`` gains something on this machine's CPU in a precision.
    """

    name: str
    weights: Mapping[str, str]
    build: Callable[[], nn.Module]
    nodes: Callable[[nn.Module, Tensor], dict[str, Tensor]]
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    keep: tuple[str, ...] = ()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    size: int | None = None
    tune: Callable[[nn.Module], nn.Module] | None = None
    fuse: Callable[[nn.Module], nn.Module] | None = None
    fuse_gains: Callable[[torch.dtype], bool] = fused.always


class TorchFeatureNet:
    """A :class:`FeatureNet` around an :class:`Architecture` with loaded parameters.

    In ``precision`` "bf16", parameters and activations are bfloat16, those that are returned, too; images are
    normalized before they are rounded, and sums run in float32.
    """

    def __init__(
        self,
        architecture: Architecture,
        state: dict[str, Tensor],
        *,
        weights_id: str,
        weights_sha256: str,
        device: str,
        precision: Precision = "fp32",
    ) -> None:
        self.name = architecture.name
        self.weights_id = weights_id
        self.weights_sha256 = weights_sha256
        self.untrained = weights_id.startswith("random-")
        self._architecture = architecture
        self.preprocessing_version = 1 if architecture.tune is None else 2
        self._device = torch.device(device)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with torch.device("meta"):
            module = architecture.build()
        module.load_state_dict(state, strict=True, assign=True)
        self._module = self._ready(module.eval().requires_grad_(False))
        self._mean = torch.tensor(architecture.mean, device=self._device).view(3, 1, 1)
        self._std = torch.tensor(architecture.std, device=self._device).view(3, 1, 1)

    def _ready(self, module: nn.Module) -> nn.Module:
        """Return the tuned module on its device, in its precision and with its weights in the order that suits both."""
        if self._architecture.tune is None:
            return module.to(self._device, self._dtype)
        module = self._architecture.tune(module).to(self._device, self._dtype)
        if self._device.type == "cpu" or self._dtype == torch.bfloat16:
            module = module.to(memory_format=torch.channels_last)
        fuse, gains = self._architecture.fuse, self._architecture.fuse_gains(self._dtype)
        if fuse and gains and self._device.type == "cpu" and fused.available():
            module = fuse(module)
        return module

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self._check(images)
        with _full_precision(self._device):
            normalized = (images.to(self._device, non_blocking=True) - self._mean) / self._std
            return self._architecture.nodes(self._module, normalized.to(self._dtype))

    def _check(self, images: Tensor) -> None:
        square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
        if images.dtype != torch.float32 or not square:
            raise UsageError(
                f"{self.name} takes float32 images (n, 3, S, S), got {images.dtype} {tuple(images.shape)}"
            )
        size = self._architecture.size
        if size is not None and images.shape[2] != size:
            raise UsageError(f"{self.name} takes images of {size} x {size} pixels, got {images.shape[2]}")


def computes_bf16(device: str) -> bool:
    """Return whether the processor behind a torch device multiplies bfloat16 matrices itself."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):  # old releases only know whether it works at all
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def taps(module: nn.Module, x: Tensor, nodes: Mapping[str, str]) -> dict[str, Tensor]:
    """Run a sequential network once and return the outputs of some layers under other names.

    ``nodes`` maps names of layers to names of nodes. Layers after a tapped one must not work in place on its output.
    """
    found = {}
    for name, layer in module.named_children():
        x = layer(x)
        if name in nodes:
            found[nodes[name]] = x
    return found


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Switch off gradients, autocast and reduced-precision matrix products and convolutions."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
