"""The image tower of OpenAI's CLIP ViT-L/14, from OpenAI's own file or a repackaged one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nsdbench.metrics.nets.fused import fuse_linear, linear_gains
from nsdbench.metrics.nets.network import CLIP_MEAN, CLIP_STD, Architecture

_QUICK = 1.702  # slope of QuickGELU
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


class ClassTokenTower(nn.Module):
    """The embedding that :func:`vision_transformer` computes, with less work.

    The last block computes the class token only, the one that is read. QuickGELU, ``x sigmoid(1.702 x)``, is
    ``silu(1.702 x) / 1.702`` with both factors in the weights around it: one pass over the widest activations, in place,
    instead of three.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.patches, self.norm_in, self.norm_out = tower.conv1, tower.ln_pre, tower.ln_post
        self.first, self.position, self.proj = tower.class_embedding, tower.positional_embedding, tower.proj
        blocks = list(tower.transformer.resblocks)
        self.blocks = nn.Sequential(*(_Block(b, only_first=b is blocks[-1]) for b in blocks))

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings (n, output) of normalized images (n, 3, size, size)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        first = self.first.expand(len(patches), 1, -1)
        tokens = self.norm_in(torch.cat([first, patches], dim=1) + self.position)
        embedding: Tensor = self.norm_out(self.blocks(tokens)[:, 0]) @ self.proj
        return embedding


class _Block(nn.Module):
    """One block of the tower; takes over its weights."""

    def __init__(self, block: Any, *, only_first: bool) -> None:
        super().__init__()
        attention, widen, narrow = block.attn, block.mlp.c_fc, block.mlp.c_proj
        self._heads, self._width, self._only_first = attention.num_heads, attention.embed_dim, only_first
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        rows = (slice(self._width), slice(self._width, None)) if only_first else (slice(None),)
        self.project = nn.ModuleList(_linear(weight[part], bias[part]) for part in rows)
        self.mixed, self.norm_1, self.norm_2 = attention.out_proj, block.ln_1, block.ln_2
        self.widen = nn.Sequential(_linear(widen.weight * _QUICK, widen.bias * _QUICK), nn.SiLU(inplace=True))
        self.narrow = _linear(narrow.weight / _QUICK, narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return all tokens (n, tokens, width), or the first alone."""
        h = self.norm_1(x)
        if self._only_first:
            x, wanted = x[:, :1], h[:, :1].contiguous()
            queries, others = self.project[0](wanted), self.project[1](h)
            parts = [queries, *others.chunk(2, dim=2)]
        else:
            parts = list(self.project[0](h).chunk(3, dim=2))
        q, k, v = (part.view(*part.shape[:2], self._heads, -1).transpose(1, 2) for part in parts)
        x = x + self.mixed(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.narrow(self.widen(self.norm_2(x)))
        return y


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer.eval().requires_grad_(False)


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
    tune=ClassTokenTower,
    fuse=fuse_linear,
    fuse_gains=linear_gains,
)
