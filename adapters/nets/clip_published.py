"""OpenAI's CLIP ViT-L/14 as Versatile Diffusion and Stable Diffusion read it: all tokens, not only the pooled ones.

The network is open_clip's; preprocessing and padding are those of the Hugging Face classes that the papers used, because
both differ from open_clip's and both change the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.checkpoints import filled, on_meta, registered_state
from nsdbench.adapters.nets.pixels import BICUBIC, BILINEAR, Images, resized, to_signed
from nsdbench.errors import WeightsError

WEIGHTS_ID = "clip-vit-l14-openai"
FIRST_SIZE, SIZE = 512, 224
CONTEXT, END = 77, 49407
_SETTINGS = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # numbers that OpenAI's archive holds as tensors
_IMAGE_PREFIX = "visual."


def build() -> nn.Module:
    """Return the untrained network: open_clip's ``CustomTextCLIP`` with both towers giving all their tokens."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    image = CLIPVisionCfg(
        layers=24, width=1024, head_width=64, patch_size=14, image_size=SIZE, output_tokens=True
    )
    text = CLIPTextCfg(width=768, heads=12, layers=12, pool_type="eos", eos_id=END, output_tokens=True)
    model: nn.Module = CustomTextCLIP(768, image, text, quick_gelu=True)
    return model


def load(weights_dir: Path | None, device: str = "cpu") -> nn.Module:
    """Return the trained network in float32.

    Raises
    ------
    WeightsError
        If the weights are missing, or in the layout of Hugging Face's classes, which has another order of parameters.
    """
    state = registered_state(WEIGHTS_ID, weights_dir)
    if "visual_projection.weight" in state:
        raise WeightsError(
            f"{WEIGHTS_ID} is there in the layout of Hugging Face transformers only",
            remedy=f"Decoders need the original file: run `nsdbench weights fetch {WEIGHTS_ID}`.",
        )
    model = on_meta(build)
    model.text.attn_mask = model.text.build_causal_mask()  # type: ignore[union-attr, operator]  # not in the file
    return filled(model, tower_names(state), WEIGHTS_ID, device=device)


def tower_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenAI's entries under the names of ``CustomTextCLIP``, which keeps the text tower apart."""
    own = (_IMAGE_PREFIX, "logit_scale")
    return {
        name if name.startswith(own) else f"text.{name}": value
        for name, value in state.items()
        if name not in _SETTINGS
    }


def image_tokens(model: nn.Module, images: Images) -> Tensor:
    """Return the tokens that Versatile Diffusion reads, float32 (n, 257, 768), of 8-bit images (n, S, S, 3).

    As in :func:`nsdbench.adapters.nets.clip.image_tokens`: all tokens through the final norm and the projection, in
    units of the norm of the class token.
    """
    return _tokens(model, to_signed(resized(images, FIRST_SIZE, BILINEAR)))


def empty_image(model: nn.Module) -> Tensor:
    """Return the tokens of the image that stands for none, (1, 257, 768): zeros in [-1, 1], a mid grey."""
    return _tokens(model, torch.zeros(1, 3, FIRST_SIZE, FIRST_SIZE))


def _tokens(model: nn.Module, signed: Tensor) -> Tensor:
    seen = torch.from_numpy(processed(signed)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return clip.image_tokens(model, seen.to(_device(model)))


def processed(signed: Tensor) -> Images:
    """Return float32 images (n, 3, 512, 512) in [-1, 1] as 8-bit images (n, 224, 224, 3), the input of CLIP.

    They travel as float to the image processor of the time, which cuts the decimals off: about one value in five comes
    out a grey level lower than it went in.
    """
    levels = ((signed + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1)
    return resized(np.ascontiguousarray(levels.numpy()), SIZE, BICUBIC)


def text_states(model: nn.Module, captions: Sequence[str]) -> Tensor:
    """Return the condition of Stable Diffusion, float32 (n, 77, 768): last hidden states after the final norm."""
    return _text(model, captions)[1]


def text_tokens(model: nn.Module, captions: Sequence[str]) -> Tensor:
    """Return the condition of Versatile Diffusion, float32 (n, 77, 768): all states projected, in units of the pooled norm."""
    pooled, states = _text(model, captions)
    tokens: Tensor = states @ model.text.text_projection / pooled.norm(dim=1)[:, None, None]  # type: ignore[union-attr, operator]
    return tokens


def _text(model: nn.Module, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The projected state of the end token (n, 768), and all states (n, 77, 768)."""
    with torch.no_grad():
        pooled, states = model.text(encode(captions).to(_device(model)))  # type: ignore[operator]
    return pooled, states


def encode(captions: Sequence[str]) -> Tensor:
    """Return captions as token numbers, int64 (n, 77): start, text, end, and then the end token again and again.

    open_clip pads with zeros. States behind the first end token see that padding, and they are regression targets and
    conditions like all others. Text that is too long loses its rest but not its end token.
    """
    from open_clip.tokenizer import SimpleTokenizer

    numbers: Tensor = SimpleTokenizer(context_length=CONTEXT)(list(captions))
    behind = (numbers == END).cumsum(dim=1) > 0
    return numbers.masked_fill(behind, END)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
