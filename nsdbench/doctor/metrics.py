"""What scoring takes per image: operations of the networks of the metrics, counted as those of the decoders were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nsdbench.metrics import registry

PER_IMAGE: Mapping[str, int] = {
    "alexnet": 1_737_004_416,
    "inception": 14_563_035_904,
    "effnet": 1_484_047_360,
    "clip": 162_025_537_536,
    "swav": 8_174_272_512,
    "mini_alexnet": 59_441_152,
    "mini_inception": 43_569_152,
    "mini_effnet": 21_824_768,
    "mini_clip": 75_186_176,
    "mini_swav": 56_950_784,
}
"""Operations per image at the size of the canonical profile, as PyTorch counts them on the meta device."""
WITHOUT_NETWORKS = 5_000_000_000
"""As many products of matrices take as long as what else is done with an image: reading, resizing, pixel metrics. Not counted
but measured, on one core, where that was 0.04 s; with networks of published size it hardly matters."""


def flop_per_image(metrics: Iterable[str]) -> int | None:
    """Return the operations per image of scoring by some metrics; each network counts once.

    None if one of the networks was not counted, as those of plug-ins.
    """
    nets = {net for metric in metrics for net in registry.entry(metric).nets}
    if not nets <= PER_IMAGE.keys():
        return None
    return WITHOUT_NETWORKS + sum(PER_IMAGE[net] for net in nets)
