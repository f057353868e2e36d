"""The transformer of MindEye's diffusion prior: from brain tokens and a noisy image embedding to the clean embedding.

MindEye (Scotti et al. 2023, arXiv 2305.18274; 2024, arXiv 2403.11207) trains the prior of DALL-E 2 (Ramesh et al. 2022,
arXiv 2204.06125) from scratch, in the form of the package dalle2-pytorch and with all tokens of an image encoder in
place of one vector. Parameters have the names of the published checkpoints, ``net.*`` there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nsdbench.errors import UsageError, WeightsError

BUCKETS, EXACT_BUCKETS, FARTHEST = 32, 16, 128
"""Distances below 16 have a bucket each; the other 16 divide those up to 128 logarithmically."""
SHARPNESS = 16.0
"""Attention logits are cosines times this."""
ROTARY_CHANNELS, BASE = 32, 10_000.0


@dataclass(frozen=True)
class PriorConfig:
    """Shape and schedule of a prior.

    Attributes
    ----------
    dim, tokens : int
        Channels and number of the tokens of an embedding.
    depth, heads, dim_head : int
        Layers, attention heads of the queries, channels of a head.
    steps : int
        T, the length of the noise schedule.
    scale : float
        Embeddings are multiplied by it before noise is added; samples are divided by it.
    ff_mult : int
        Hidden width of the feed-forward layers in units of ``dim``.
    attn_out_norm_eps : "auto" or float
        Added to the variance by the norm after attention; "auto" is 0.00001 for float32 and 0.001 for other types. The
        published models were trained and run in mixed precision, where this norm alone reads half precision: 0.001
        repeats that in float32.
    """

    dim: int
    tokens: int
    depth: int
    heads: int
    dim_head: int
    steps: int = 100
    scale: float = 1.0
    ff_mult: int = 4
    attn_out_norm_eps: Literal["auto"] | float = "auto"

    def __post_init__(self) -> None:
        if self.dim < 4 or self.dim % 2 or self.dim_head % 2:
            raise UsageError(
                f"a prior needs even widths, not {self.dim} channels and {self.dim_head} per head"
            )


MINDEYE1 = PriorConfig(dim=768, tokens=257, depth=6, heads=12, dim_head=64, scale=math.sqrt(768))
MINDEYE2 = PriorConfig(dim=1664, tokens=256, depth=6, heads=32, dim_head=52)


class PriorNetwork(nn.Module):
    """Predicts the clean embedding from brain tokens, the time, and the noisy embedding, in this order one sequence.

    Parameters
    ----------
    config : PriorConfig
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        shape = (config.tokens, config.dim)
        self.to_time_embeds = nn.Sequential(nn.Sequential(Waves(config.dim), TimeMLP(config.dim)))
        self.learned_query = nn.Parameter(torch.randn(shape) * config.dim**-0.5)
        self.null_brain_embeds = nn.Parameter(torch.randn(shape))
        self.null_image_embed = nn.Parameter(torch.randn(shape))
        self.causal_transformer = Transformer(config)

    def forward(
        self, noisy: Tensor, times: Tensor, brain: Tensor, keep: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return the predicted embedding, (n, tokens, dim).

        Parameters
        ----------
        noisy, brain : tensor of shape (n, tokens, dim)
        times : int tensor of shape (n,)
        keep : pair of bool tensors of shape (n,), optional
            Items whose brain tokens, and items whose noisy tokens, are not replaced by the learned null tokens.
        """
        if keep is not None:
            brain = torch.where(keep[0][:, None, None], brain, self.null_brain_embeds)
            noisy = torch.where(keep[1][:, None, None], noisy, self.null_image_embed)
        time: Tensor = self.to_time_embeds(times.to(noisy.dtype))
        sequence = torch.cat([brain, time[:, None], noisy + self.learned_query], dim=1)
        predicted: Tensor = self.causal_transformer(sequence, noisy.shape[1])
        return predicted


class Transformer(nn.Module):
    """Layers of attention and feed-forward. Nothing is masked, whatever the published name suggests.

    The constant of rotary positions belongs to every layer: one object, and in a state dict one entry per layer.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.rel_pos_bias = RelativeBias(2 * config.tokens + 1, config.heads)
        rotary = Rotary(min(ROTARY_CHANNELS, config.dim_head))
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(config, rotary), feed_forward(config)]) for _ in range(config.depth)
        )
        self.norm = Norm(config.dim)
        self.project_out = nn.Linear(config.dim, config.dim, bias=False)
        self.register_state_dict_post_hook(_unshare)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, last: int) -> Tensor:
        """Return what becomes of the last ``last`` tokens of a sequence, (n, last, dim)."""
        rotary = next(module for module in self.modules() if isinstance(module, Rotary))
        bias, turns = self.rel_pos_bias(), rotary.turns(x.shape[1])
        for i, layer in enumerate(self.layers, start=1):
            attention, ff = layer.children()
            read = last if i == len(self.layers) else x.shape[1]  # the end needs no other token
            x = attention(x, bias[-read:], turns) + x[:, -read:]
            x = ff(x) + x
        x = x / x.amax(dim=-1, keepdim=True).detach()
        projected: Tensor = self.project_out(self.norm(x))
        return projected


class RelativeBias(nn.Module):
    """What the distance between query and key adds to the attention logits, by head; all layers share it."""

    buckets: Tensor

    def __init__(self, length: int, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)
        self.register_buffer("buckets", torch.from_numpy(bias_buckets(length)), persistent=False)

    def forward(self) -> Tensor:
        """Return the bias, (queries, heads, keys)."""
        bias: Tensor = self.relative_attention_bias(self.buckets)
        return bias.mT.contiguous()


class Attention(nn.Module):
    """Attention by cosine, with one head of keys and values for all heads of queries and a learned first key and value."""

    def __init__(self, config: PriorConfig, rotary: Rotary) -> None:
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads = config.heads
        self.norm = Norm(config.dim)
        self.null_kv = nn.Parameter(torch.randn(2, config.dim_head))
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, 2 * config.dim_head, bias=False)
        self.rotary_emb = rotary
        self.to_out = nn.Sequential(
            nn.Linear(inner, config.dim, bias=False), Norm(config.dim, config.attn_out_norm_eps)
        )

    def forward(self, x: Tensor, bias: Tensor, turns: Tensor) -> Tensor:
        """Return the change of the last tokens, (n, queries, dim).

        Parameters
        ----------
        x : tensor of shape (n, tokens, dim)
        bias : tensor of shape (queries, heads, tokens + 1)
            Added to the logits; its length says how many tokens, from the end, ask.
        turns : complex tensor of shape (tokens, pairs)
            From :meth:`Rotary.turns`.
        """
        asking = len(bias)
        x = self.norm(x)
        q = self.to_q(x[:, -asking:]).unflatten(-1, (self.heads, -1))
        k, v = self.to_kv(x).chunk(2, dim=-1)
        q, k = rotated(q, turns[-asking:, None]), rotated(k, turns)
        k, v = (
            torch.cat([null.expand(len(x), 1, -1), t], dim=1)
            for null, t in zip(self.null_kv, (k, v), strict=True)
        )
        q, k = F.normalize(q, dim=-1) * SHARPNESS, F.normalize(k, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            # The queries of all heads, in the order in which to_q makes them, face the shared keys as one list.
            logits = torch.baddbmm(bias.flatten(0, 1).float(), q.flatten(1, 2).float(), k.mT.float())
        mixed = logits.softmax(dim=-1).to(v.dtype) @ v
        out: Tensor = self.to_out(mixed.view(len(x), asking, -1))
        return out


def feed_forward(config: PriorConfig) -> nn.Sequential:
    """Return norm, expansion, gate, two places that are empty in the published models, and contraction."""
    hidden = config.ff_mult * config.dim
    return nn.Sequential(
        Norm(config.dim),
        nn.Linear(config.dim, 2 * hidden, bias=False),
        Gate(),
        nn.Identity(),
        nn.Identity(),
        nn.Linear(hidden, config.dim, bias=False),
    )


class Gate(nn.Module):
    """``a * silu(b)`` of the two halves of the channels (SwiGLU, Shazeer 2020, arXiv 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return half as many channels."""
        a, b = x.chunk(2, dim=-1)
        return a * F.silu(b)


class Norm(nn.Module):
    """Layer norm with a gain and no shift."""

    def __init__(self, dim: int, eps: Literal["auto"] | float = "auto") -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised channels, in the wider type of input and gain."""
        auto = 1e-5 if x.dtype == torch.float32 else 1e-3
        eps = auto if self.eps == "auto" else self.eps
        wide = torch.promote_types(x.dtype, self.g.dtype)
        return F.layer_norm(x.to(wide), self.g.shape, self.g.to(wide), None, eps)


class Waves(nn.Module):
    """Sines and cosines of a time at frequencies from 1 down to 1 / 10000."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pairs = dim // 2

    def forward(self, times: Tensor) -> Tensor:
        """Return (n, dim) for times (n,)."""
        exponents = torch.arange(self.pairs, device=times.device) / (self.pairs - 1)
        angles = times[:, None] * BASE**-exponents
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(times.dtype)


class TimeMLP(nn.Module):
    """Two hidden layers of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU()),
            nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.SiLU()),
            nn.Linear(2 * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, dim)."""
        out: Tensor = self.net(x)
        return out


class Fixed(nn.Module):
    """Constants that checkpoints carry along: loading compares them with the computed ones, which are kept."""

    def constants(self) -> dict[str, Tensor]:
        """Return the float32 constants by name."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, right in self.constants().items():
            given = state_dict.get(prefix + name)
            if given is None or given.is_meta or given.shape != right.shape:
                continue  # missing names and wrong shapes are reported together, by the caller
            off = (given.double().cpu() - right.double()).abs()
            eps = torch.finfo(given.dtype).eps if given.is_floating_point() else 0
            if not bool((off <= 16 * eps * right.double().abs() + 1e-6).all()):
                raise WeightsError(
                    f"{prefix}{name} differs by up to {float(off.max()):.3g} from the constant of this model",
                    remedy="The file is damaged or holds a model with another schedule, which is not supported.",
                )
            state_dict[prefix + name] = right.to(given.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Rotary(Fixed):
    """Frequencies of rotary positions (Su et al. 2021, arXiv 2104.09864): a frozen parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.freqs = nn.Parameter(torch.empty(channels // 2), requires_grad=False)
        with torch.no_grad():
            self.freqs.copy_(self.constants()["freqs"])

    def constants(self) -> dict[str, Tensor]:
        """Return the frequencies of the pairs of channels."""
        freqs = BASE ** -(np.arange(0, self.channels, 2) / self.channels)
        return {"freqs": torch.from_numpy(freqs.astype(np.float32))}

    def turns(self, length: int) -> Tensor:
        """Return cosine and sine of every position and pair of channels, complex (length, channels / 2)."""
        angles = torch.arange(length, device=self.freqs.device)[:, None] * self.freqs.float()
        return torch.polar(torch.ones_like(angles), angles)


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Turn neighbouring pairs of the first channels by angles.

    Parameters
    ----------
    x : tensor of shape (..., channels)
    turns : complex tensor of shape (..., pairs)
        Channels from ``2 * pairs`` on are left alone.
    """
    pairs = turns.shape[-1]
    first = torch.view_as_complex(x[..., : 2 * pairs].float().view(*x.shape[:-1], pairs, 2))
    turned = torch.view_as_real(first * turns).flatten(-2).to(x.dtype)
    return torch.cat([turned, x[..., 2 * pairs :]], dim=-1)


def bias_buckets(length: int) -> NDArray[np.int64]:
    """Return which bias every query has for every key, (length, length + 1), in the way of T5 (Raffel et al. 2020).

    The first key is the learned one. The bias depends on how far a key lies before the query; all keys after it share
    bucket 0 (arXiv 1910.10683).
    """
    behind = np.maximum(np.arange(length)[:, None] - np.arange(length + 1), 0)
    octaves = np.log(np.maximum(behind, 1) / EXACT_BUCKETS) / math.log(FARTHEST / EXACT_BUCKETS)
    far = EXACT_BUCKETS + (octaves * (BUCKETS - EXACT_BUCKETS)).astype(np.int64)
    buckets: NDArray[np.int64] = np.where(behind < EXACT_BUCKETS, behind, np.minimum(far, BUCKETS - 1))
    return buckets


def _unshare(module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
    """Give each layer's entry memory of its own; safetensors refuses to store shared memory."""
    for name in [name for name in state if name.startswith(prefix) and name.endswith("rotary_emb.freqs")]:
        state[name] = state[name].clone()
