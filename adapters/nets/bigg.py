"""OpenCLIP's ViT-bigG-14 as MindEye2 reads images: the tokens of all patches.

Two habits of the original are kept because every weight was trained with them: images in [0, 1] are taken for images
in [-1, 1], so that CLIP sees them half as contrasted and too bright; and they are shrunk by a Gaussian blur and
bicubic interpolation between aligned corners, as the library kornia does it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.checkpoints import filled, on_meta, registered_state
from nsdbench.errors import WeightsError

WEIGHTS_ID = "openclip-vit-bigg14"
SIZE, WIDTH = 224, 1664
EMBEDDING = 1280
_IMAGE_PREFIX = "visual."
_TEXT_PREFIXES = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")


def build() -> nn.Module:
    """Return the untrained network with both towers, open_clip's ``CustomTextCLIP``."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    image = CLIPVisionCfg(
        layers=48,
        width=WIDTH,
        head_width=104,
        mlp_ratio=4.9231,
        patch_size=14,
        image_size=SIZE,
        output_tokens=True,
    )
    text = CLIPTextCfg(width=EMBEDDING, heads=20, layers=32)
    model: nn.Module = CustomTextCLIP(EMBEDDING, image, text)
    return model


def image_tower() -> nn.Module:
    """Return the untrained image tower; 1,844,907,264 parameters."""
    tower: nn.Module = build().visual  # type: ignore[assignment]
    return tower


def text_tower() -> nn.Module:
    """Return the untrained text tower; 694,659,840 parameters."""
    tower: nn.Module = build().text  # type: ignore[assignment]
    return tower


def load_images(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Return the trained image tower.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit, or the installed open_clip gives tokens before the final norm.
    """
    require_normed_tokens()
    state = registered_state(WEIGHTS_ID, weights_dir, keep=(_IMAGE_PREFIX,))
    own = {name.removeprefix(_IMAGE_PREFIX): value for name, value in state.items()}
    return filled(on_meta(image_tower), own, WEIGHTS_ID, device=device, dtype=dtype)


def load_text(
    weights_dir: Path | None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Return the trained text tower.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit.
    """
    tower = on_meta(text_tower)
    tower.attn_mask = tower.build_causal_mask()  # type: ignore[operator]  # not in the file
    return filled(
        tower,
        registered_state(WEIGHTS_ID, weights_dir, keep=_TEXT_PREFIXES),
        WEIGHTS_ID,
        device=device,
        dtype=dtype,
    )


def image_tokens(tower: nn.Module, images: Tensor) -> Tensor:
    """Return the tokens of images, float32 (n, 256, 1664): all patches by rows after the final norm, not projected.

    Parameters
    ----------
    tower : VisionTransformer
        See :func:`load_images`.
    images : tensor of shape (n, 3, S, S)
        RGB in [0, 1].
    """
    parameter = next(tower.parameters())
    seen = clip.normalize((shrunk(images.to(parameter.device, torch.float32), SIZE) + 1) / 2)
    with torch.no_grad():
        tokens: Tensor = tower(seen.to(parameter.dtype))[1]
    return tokens.float()


def shrunk(images: Tensor, side: int) -> Tensor:
    """Return images (n, channels, S, S) as (n, channels, side, side); those that have that side are left alone.

    Larger ones are first blurred by a Gaussian of standard deviation ``(S / side - 1) / 2`` pixels, cut off at about
    twice that and mirrored at the edges. The corners of the old and the new grid then coincide.
    """
    factor = images.shape[-1] / side
    if factor == 1:
        return images
    if factor > 1:
        images = _blurred(images, max((factor - 1) / 2, 0.001))
    return functional.interpolate(images, size=(side, side), mode="bicubic", align_corners=True)


def _blurred(images: Tensor, sd: float) -> Tensor:
    radius = int(max(4 * sd, 3)) // 2
    places = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-(places**2) / (2 * sd**2)).to(images.dtype)
    channels = images.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="reflect")
    across = functional.conv2d(padded, kernel, groups=channels)
    return functional.conv2d(across, kernel.transpose(2, 3), groups=channels)


def require_normed_tokens(build_tower: Callable[[], nn.Module] | None = None) -> None:
    """Refuse a version of open_clip that returns tokens before the final norm, as those before 2.23 do.

    The meaning of the tokens is a matter of the code, so a tower of one layer shows it: after a norm with gain 0 all
    tokens are its bias.

    Parameters
    ----------
    build_tower : callable, optional
        Makes the tower to look at, one for images of 4 x 4 pixels.

    Raises
    ------
    WeightsError
        If tokens come before the norm.
    """
    tower = (build_tower or _small_tower)()
    norm: nn.LayerNorm = tower.ln_post  # type: ignore[assignment]
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    with torch.no_grad():
        tokens = tower(torch.zeros(1, 3, 4, 4))[1]
    if not torch.equal(tokens, torch.ones_like(tokens)):
        raise WeightsError(
            "the installed open_clip gives image tokens before the final norm, which MindEye2 does not read",
            remedy="Install open_clip_torch 2.30 or later.",
        )


def _small_tower() -> nn.Module:
    from open_clip.transformer import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        tower: nn.Module = VisionTransformer(
            image_size=4,
            patch_size=2,
            width=8,
            layers=1,
            heads=1,
            mlp_ratio=1,
            output_dim=8,
            output_tokens=True,
        )
    return tower
