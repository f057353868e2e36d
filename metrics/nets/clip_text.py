"""The text towers of OpenAI's CLIP models, from OpenAI's own file or a repackaged one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nsdbench.metrics.nets.clip import hugging_face_blocks
from nsdbench.metrics.nets.loading import filled
from nsdbench.safeload import load_state

CONTEXT, VOCABULARY, LAYERS = 77, 49408, 12
_OPENAI = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_HF_TOWER = "text_model."
_HF_STEM = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def load(path: Path, *, width: int, heads: int, device: str) -> Callable[[Sequence[str]], Tensor]:
    """Return the function from texts to float32 embeddings (n, width): the projected state of the end token.

    It is what ``encode_text`` of OpenAI's package returns. Of a text with more than 75 word pieces the rest is cut off.

    Parameters
    ----------
    path : Path
        Checkpoint in the layout of OpenAI, open_clip or Hugging Face; the image tower in it is not read.
    width, heads : int
        Size of the tower: 768 and 12 for ViT-L/14, 512 and 8 for ViT-B/32.

    Raises
    ------
    WeightsError
        If the file is damaged or holds another model.
    """
    from open_clip.tokenizer import SimpleTokenizer

    state = text_state(load_state(path, keep=(*_OPENAI, _HF_TOWER)))
    model = filled(tower(width, heads), state, path, device)
    encode = SimpleTokenizer(context_length=CONTEXT)

    def embed(texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            embeddings: Tensor = model(encode(list(texts)).to(device))
        return embeddings

    return embed


def tower(width: int, heads: int, *, layers: int = LAYERS, vocabulary: int = VOCABULARY) -> nn.Module:
    """Return the empty text tower: open_clip's, with QuickGELU and the state of the end token as output."""
    from open_clip.transformer import QuickGELU, TextTransformer

    with torch.device("meta"):
        model: nn.Module = TextTransformer(
            CONTEXT,
            vocabulary,
            width,
            heads,
            layers,
            output_dim=width,
            act_layer=QuickGELU,
            pool_type="argmax",
        )
    model.attn_mask = model.build_causal_mask()  # type: ignore[operator]  # no part of a checkpoint
    return model


def text_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the text tower's entries of a CLIP checkpoint under the names of open_clip's ``TextTransformer``."""
    if "text_projection.weight" not in state:
        return {name: value for name, value in state.items() if not name.endswith("attn_mask")}
    found = {"text_projection": state["text_projection.weight"].T}
    found |= {own: state[_HF_TOWER + theirs] for theirs, own in _HF_STEM.items()}
    return found | hugging_face_blocks(state, _HF_TOWER)
