"""What SDXL reads of a prompt (Podell et al. 2023, arXiv 2307.01952): states of two text encoders and a pooled one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import bigg, clip, clip_published
from nsdbench.adapters.nets.ddim import Denoiser

NEGATIVE = (
    "painting, extra fingers, mutated hands, poorly drawn hands, poorly drawn face, deformed, ugly, blurry, bad anatomy, "
    "bad proportions, extra limbs, cloned face, skinny, glitchy, double torso, extra arms, extra hands, mangled fingers, "
    "missing lips, ugly face, distorted face, extra legs, anime"
)
"""The negative prompt of MindEye2's refinement."""


@dataclass(frozen=True)
class Prompts:
    """The two text encoders.

    Attributes
    ----------
    small : TextTransformer
        The text tower of OpenAI's CLIP ViT-L/14; its prompts are padded with the end token.
    large : TextTransformer
        That of OpenCLIP's ViT-bigG-14; its prompts are padded with zeros.
    """

    small: nn.Module
    large: nn.Module

    @classmethod
    def load(
        cls, weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Self:
        """Return the published encoders.

        Raises
        ------
        WeightsError
            If weights are missing or do not fit.
        """
        small: nn.Module = clip_published.load(weights_dir, device).text  # type: ignore[assignment]
        return cls(small.to(dtype), bigg.load_text(weights_dir, device=device, dtype=dtype))

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return conditions by name: ``"text"``, float32 (n, 77, 2048), and ``"pooled"``, (n, 1280).

        States are those before the last layer, without the final norm; the pooled one is projected.
        """
        from open_clip.tokenizer import SimpleTokenizer

        narrow = _encoded(self.small, clip_published.encode(captions))[0]
        numbers: Tensor = SimpleTokenizer(context_length=clip_published.CONTEXT)(list(captions))
        wide, pooled = _encoded(self.large, numbers)
        return {"text": torch.cat([narrow, wide], dim=2).float(), "pooled": pooled.float()}


def _encoded(tower: nn.Module, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The states before the last layer, and the pooled and projected one after it."""
    device = next(tower.parameters()).device
    last = len(tower.transformer.resblocks) - 1  # type: ignore[arg-type, union-attr]
    found = tower.forward_intermediates(numbers.to(device), indices=[last - 1], output_fmt="NLC")  # type: ignore[operator]
    return found["text_intermediates"][0], found["text_features"]


@dataclass(frozen=True)
class MiniPrompts:
    """The same for the miniature: the text tower of its one CLIP, and a denoiser that has no use for a pooled state."""

    model: nn.Module
    denoiser: Denoiser

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return conditions by name: ``"text"``, (n, 16, 160)."""
        return {"text": self.denoiser.text_condition(clip.text_states(self.model, captions), states=True)}
