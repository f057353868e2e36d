"""The image tower of OpenAI's CLIP ViT-L/14, from OpenAI's own file or a repackaged one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nsdbench.metrics.nets.network import CLIP_MEAN, CLIP_STD, Architecture

HF_TOWER, HF_PROJECTION = "vision_model.", "visual_projection.weight"
HF_BLOCK_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
HF_STEM = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",  # the misspelling is theirs
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}


def vision_transformer(
    *,
    size: int = 224,
    patch: int = 14,
    width: int = 1024,
    layers: int = 24,
    heads: int = 16,
    output: int = 768,
) -> nn.Module:
    """Return the image tower with QuickGELU, as OpenAI trained it; the defaults are ViT-L/14."""
    from open_clip.transformer import QuickGELU, VisionTransformer  # imports timm: 2 s

    module: nn.Module = VisionTransformer(
        size, patch, width, layers, heads, mlp_ratio=4.0, output_dim=output, act_layer=QuickGELU
    )
    return module


def visual_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the image tower's entries of a CLIP checkpoint under the names of :func:`vision_transformer`.

    Knows OpenAI's and open_clip's names (``visual.*``) and those of Hugging Face (``vision_model.*``).
    """
    if HF_PROJECTION in state:
        return _from_hugging_face(state)
    return {
        name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")
    }


def _from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {"proj": state[HF_PROJECTION].T, **hugging_face_blocks(state, HF_TOWER)}
    for name, value in state.items():
        part = name.removeprefix(HF_TOWER)
        if part == name or part == "embeddings.position_ids" or part.startswith("encoder."):
            continue
        found[HF_STEM.get(part, part)] = value
    return found


def hugging_face_blocks(state: dict[str, Tensor], tower: str) -> dict[str, Tensor]:
    """Return the blocks of one of the two towers of a Hugging Face checkpoint under open_clip's names."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(f"{tower}encoder.layers."):
            found |= _hugging_face_block(state, tower, name.removeprefix(tower), value)
    return found


def _hugging_face_block(state: dict[str, Tensor], tower: str, part: str, value: Tensor) -> dict[str, Tensor]:
    """Rename one entry of a block; query, key and value are stacked into one when the query comes by."""
    index, _, inner = part.removeprefix("encoder.layers.").partition(".")
    block = f"transformer.resblocks.{index}."
    module, _, kind = inner.rpartition(".")
    if module in ("self_attn.k_proj", "self_attn.v_proj"):
        return {}
    if module == "self_attn.q_proj":
        names = [f"{tower}encoder.layers.{index}.self_attn.{x}_proj.{kind}" for x in "qkv"]
        return {f"{block}attn.in_proj_{kind}": torch.cat([state[name] for name in names])}
    return {f"{block}{HF_BLOCK_PARTS.get(module, module)}.{kind}": value}


def _embedding(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The projected class token, (n, 768): what ``encode_image`` returns in OpenAI's package."""
    return {"image_embeds": module(x)}


CLIP = Architecture(
    "clip",
    {"": "clip-vit-l14-openai"},
    vision_transformer,
    _embedding,
    visual_state,
    keep=("visual.", HF_TOWER, HF_PROJECTION),
    mean=CLIP_MEAN,
    std=CLIP_STD,
    size=224,
)
