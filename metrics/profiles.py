"""Metric profiles: the few choices by which published evaluations of the same metrics differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nsdbench.errors import UsageError

Resize = Literal["bilinear-aa", "bilinear", "pil"]
Precision = Literal["fp32", "bf16"]
_SIZES = {"alexnet": 256, "inception": 342, "clip": 224, "effnet": 255, "swav": 224}
_DEFAULT_SIZE = 224
MINI_SIZE = 64
"""Input side in pixels of the miniature networks (``mini_*``), the same under every profile."""
_BF16 = "+bf16"


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that turns two images into numbers besides the metric itself.

    A profile never changes: rows and stored scores know it by its name alone, so other choices get another name.

    Attributes
    ----------
    name, summary : str
        Id and one line about whose numbers it reproduces.
    stage1_truth, stage1_recon : int or None
        Side in pixels to which ground truths and reconstructions are brought first; None leaves them as they are.
    pixel_size : int
        Side in pixels at which pixel metrics compare.
    resize : {"bilinear-aa", "bilinear", "pil"}
        Interpolation: bilinear with or without antialiasing on float images, or Pillow on 8-bit images (bicubic
        to ``pixel_size``, bilinear to network inputs, both antialiased).
    ssim : {"2d", "1d"}
        Two-dimensional SSIM, or the mean over image columns of one-dimensional SSIM, which is what old versions
        of scikit-image computed when handed ``multichannel=True`` and a grey image.
    net_sizes : mapping of str to int
        Input side in pixels per network.
    variants : mapping of str to str
        Which weights of a network, where not the canonical ones.
    ties : {"half", "strict"}
        Two-way identification: a tie counts one half, or nothing.
    self_comparison : bool
        Whether one success is subtracted from every two-way count, an error of the published imagery evaluation
        that lowers each score by exactly 1/(N-1).
    eight_bit : bool
        Whether the original scored 8-bit images. nsdbench always does; where the original scored float images,
        values can differ by about 1e-4 in SSIM.
    precision : {"fp32", "bf16"}
        Arithmetic of the networks. ``bf16`` is no profile of its own but an addition to each, and part of its name, so
        that nothing made with it is ever taken for, or compared with, a result in full precision.
    """

    name: str
    summary: str
    stage1_truth: int | None = 256
    stage1_recon: int | None = 256
    pixel_size: int = 425
    resize: Resize = "bilinear-aa"
    ssim: Literal["2d", "1d"] = "2d"
    net_sizes: Mapping[str, int] = field(default_factory=lambda: dict(_SIZES))
    variants: Mapping[str, str] = field(default_factory=dict)
    ties: Literal["half", "strict"] = "half"
    self_comparison: bool = False
    eight_bit: bool = True
    precision: Precision = "fp32"

    def net_size(self, net: str) -> int:
        """Return the input side of ``net`` in pixels: 64 for miniature networks, 224 for those it does not know."""
        return self.net_sizes.get(net, MINI_SIZE if net.startswith("mini_") else _DEFAULT_SIZE)


_CANONICAL = Profile("nsdbench-v1", "canonical: 8-bit, 256 px bottleneck, antialiased, ties count one half")
_MINDEYE = replace(
    _CANONICAL,
    name="mindeye",
    summary="MindEye1, MindEye2, MindBridge in their pinned environments",
    resize="bilinear",
    ties="strict",
    eight_bit=False,
)
_BRAIN_DIFFUSER = Profile(
    "brain-diffuser",
    "brain-diffuser with its pinned scikit-image 0.17 (one-dimensional SSIM)",
    stage1_truth=None,
    stage1_recon=None,
    resize="pil",
    ssim="1d",
    net_sizes=dict.fromkeys(_SIZES, 224),
    variants={"effnet": "v1"},
    ties="strict",
)
_IMAGERY = replace(
    _MINDEYE,
    name="imagery-fixed",
    summary="NSD-Imagery notebook with its off-by-one in two-way identification removed",
    stage1_truth=None,
    stage1_recon=512,
    pixel_size=512,
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        _CANONICAL,
        _MINDEYE,
        replace(
            _MINDEYE,
            name="mindeye-aa",
            summary="the MindEye notebooks run with torchvision 0.17 or later",
            resize="bilinear-aa",
        ),
        _BRAIN_DIFFUSER,
        replace(
            _BRAIN_DIFFUSER,
            name="brain-diffuser-sk20",
            summary="brain-diffuser run with scikit-image 0.20 or later (two-dimensional SSIM)",
            ssim="2d",
        ),
        replace(
            _IMAGERY,
            name="imagery-asrun",
            summary="NSD-Imagery notebook as published: two-way scores are 1/(N-1) too low",
            self_comparison=True,
        ),
        _IMAGERY,
    )
}
DEFAULT = _CANONICAL.name


def full_name(name: str, precision: Precision) -> str:
    """Return what rows and files call profile ``name`` with networks in ``precision``: ``mindeye``, ``mindeye+bf16``."""
    return name + _BF16 if precision == "bf16" else name


def base_name(full: str) -> str:
    """Return the profile of which ``full`` is a variant in lower precision, else ``full`` itself."""
    return full.removesuffix(_BF16)


def find(name: str) -> Profile | None:
    """Return the profile called ``name``, possibly with ``+bf16`` behind it, or None."""
    rules = PROFILES.get(base_name(name))
    return replace(rules, name=name, precision="bf16") if rules and name != rules.name else rules


def profile(name: str) -> Profile:
    """Return the profile called ``name``, possibly with ``+bf16`` behind it.

    Raises
    ------
    UsageError
        If there is none; the message names near ones.
    """
    rules = find(name)
    if rules is None:
        near = difflib.get_close_matches(name.lower(), PROFILES, n=2)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known profiles: {', '.join(PROFILES)}."
        raise UsageError(f"there is no metric profile {name!r}", remedy=hint)
    return rules
