"""Feature networks: load one by name and get the activations that the metrics compare.

>>> net = load_net("alexnet", weights="random")
>>> net(torch.zeros(2, 3, 256, 256))["features.4"].shape
torch.Size([2, 192, 31, 31])
"""

from __future__ import annotations

from nsdbench.metrics.nets.loading import NETS, load_net
from nsdbench.metrics.nets.network import FeatureNet

__all__ = ["NETS", "FeatureNet", "load_net"]
