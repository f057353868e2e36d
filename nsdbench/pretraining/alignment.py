"""A start for the denoiser in which every place already looks at the token of its place.

Cross-attention learns what tokens mean quickly and where they belong slowly. The position codes of the latents are
therefore led through the network unchanged, on channels of their own, and the queries and keys of the image sites
start as these codes. In a comparison with the usual start (same network, same codes, 250 steps of 64 scenes, image
tokens replaced by principal components of 8 x 8 patches) the held-out error of v was 0.22 instead of 0.39.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.unet import CODE, LATENT_CHANNELS, MiniDenoiser, Site

HALVING = ((1, 1), (1, 2), (2, 1), (2, 2))
"""Taps of a 3 x 3 kernel with stride 2 that lie in the four pixels of the new one."""


def align(denoiser: MiniDenoiser) -> None:
    """Change the initial weights of ``denoiser`` as described above."""
    unet = denoiser.unet
    with torch.no_grad():
        _pass(unet.conv_in, source=LATENT_CHANNELS)  # type: ignore[arg-type]
        for block in (*unet.down_blocks, *unet.up_blocks[:-1]):  # type: ignore[misc, index]
            for resnet in block.resnets:
                if resnet.conv_shortcut is not None:
                    _pass(resnet.conv_shortcut)
            for sampler in getattr(block, "downsamplers", None) or ():
                _pass(sampler.conv, taps=HALVING)
            for sampler in getattr(block, "upsamplers", None) or ():
                _pass(sampler.conv)
        for module in unet.modules():
            if isinstance(module, Site):
                _look_at_own_place(module.image)


def _look_at_own_place(transformer: nn.Module) -> None:
    _pass(transformer.proj_in)  # type: ignore[arg-type]
    attention = transformer.transformer_blocks[0].attn2  # type: ignore[index, union-attr]
    for name, source in (("to_q", 0), ("to_k", clip.WIDTH)):
        for head in getattr(attention, name).weight.chunk(attention.heads):
            used = min(len(head), CODE)
            head.zero_()
            head[range(used), range(source, source + used)] = 1


def _pass(layer: nn.Module, *, source: int = 0, taps: tuple[tuple[int, int], ...] | None = None) -> None:
    """Make ``layer`` hand the code on: its first CODE outputs are its inputs from ``source`` on."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    weight[:CODE] = 0
    outputs, inputs = torch.arange(CODE), torch.arange(source, source + CODE)
    if weight.ndim == 2:
        weight[outputs, inputs] = 1
    else:
        centre = weight.shape[2] // 2
        for y, x in taps or ((centre, centre),):
            weight[outputs, inputs, y, x] = 1 / len(taps or (0,))
    if layer.bias is not None:
        layer.bias[:CODE] = 0  # type: ignore[operator]
