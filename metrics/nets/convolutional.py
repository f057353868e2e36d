"""The convolutional networks: AlexNet, Inception-v3, EfficientNet-B1, and SwAV's ResNet-50."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision import models

from nsdbench.metrics.nets.fused import fuse_convolutions
from nsdbench.metrics.nets.network import Architecture, taps
from nsdbench.metrics.nets.tuning import fold_norms

ALEXNET_NODES = {
    "1": "features.1",
    "4": "features.4",
    "7": "features.7",
    "9": "features.9",
    "11": "features.11",
}


def without(state: dict[str, Tensor], *heads: str) -> dict[str, Tensor]:
    """Return ``state`` without the entries whose name starts with one of ``heads``."""
    return {name: value for name, value in state.items() if not name.startswith(heads)}


def _alexnet() -> nn.Module:
    features: nn.Module = models.alexnet().features[:12]
    return features


def _alexnet_nodes(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs of the five ReLUs in one pass; none is followed by an in-place layer, so all stay intact."""
    return taps(module, x, ALEXNET_NODES)


def _alexnet_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("features."): value for name, value in without(state, "classifier.").items()}


def _inception() -> nn.Module:
    # the pretrained model rescales its ImageNet-normalized input to [-1, 1] itself; keep that
    module: nn.Module = models.inception_v3(transform_input=True, aux_logits=False, init_weights=False)
    module.fc = nn.Identity()
    return module


def _efficientnet() -> nn.Module:
    module: nn.Module = models.efficientnet_b1()
    module.classifier = nn.Identity()
    return module


def _resnet() -> nn.Module:
    module: nn.Module = models.resnet50()
    module.fc = nn.Identity()
    return module


def _pooled(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output of the average pool, flattened to (n, channels): what is left once the head is an identity."""
    return {"avgpool": module(x)}


def _swav_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SwAV was saved from a data-parallel wrapper and carries its projection head and prototypes."""
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    return without(bare, "projection_head.", "prototypes.")


ALEXNET = Architecture(
    "alexnet", {"": "alexnet-imagenet1k-v1"}, _alexnet, _alexnet_nodes, _alexnet_state, tune=fold_norms
)
INCEPTION = Architecture(
    "inception",
    {"": "inception-v3-imagenet1k-v1"},
    _inception,
    _pooled,
    lambda state: without(state, "fc.", "AuxLogits."),
    tune=fold_norms,
    fuse=fuse_convolutions,
)
EFFICIENTNET = Architecture(
    "effnet",
    {
        "": "efficientnet-b1-imagenet1k-v2",
        "v2": "efficientnet-b1-imagenet1k-v2",
        "v1": "efficientnet-b1-imagenet1k-v1",
    },
    _efficientnet,
    _pooled,
    lambda state: without(state, "classifier."),
    tune=fold_norms,
    fuse=fuse_convolutions,
)
SWAV = Architecture(
    "swav",
    {"": "swav-resnet50-800ep"},
    _resnet,
    _pooled,
    _swav_state,
    tune=fold_norms,
    fuse=fuse_convolutions,
)
