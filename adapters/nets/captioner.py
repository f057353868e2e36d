"""Captions of image tokens: MindEye2's token converter and the text half of GIT.

GIT (Wang et al. 2022, arXiv 2205.14100) is a text decoder that reads the tokens of an image encoder as if they stood before
the text. MindEye2 (Scotti et al. 2024, arXiv 2403.11207) leaves the encoder out: a converter turns decoded tokens into what
the encoder would have given. Parameters have the names of transformers' ``GitForCausalLM``, whose package is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsdbench import weights
from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.checkpoints import filled, mini, on_meta
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_checkpoint

CONVERTER, GIT, VOCABULARY = "mindeye2-caption-converter", "git-large-coco", "git-large-coco-vocab"
MINI_ID = "mini_captioner-v1"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")  # order of the original
_LEFT_OUT = ("git.image_encoder.", "git.embeddings.position_ids")  # old files hold the latter, a mere counter

Memory = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (n, heads, tokens, width / heads)."""


@dataclass(frozen=True)
class CaptionerConfig:
    """Sizes of a captioner.

    Attributes
    ----------
    tokens_in, dim_in : int
        Tokens per image that are described, and their channels.
    tokens_out, dim_out : int
        Tokens that the decoder reads.
    vocabulary : int
        Words, or pieces of words.
    width, layers, heads, hidden : int
        Of the decoder; ``hidden`` is the inner width of its dense blocks.
    positions : int
        Longest text that the network has positions for.
    longest : int
        Longest caption that is generated, with its start and its end.
    start, end : int
        Numbers of these marks.
    pad : int
        Number of what follows the end.
    norm_eps, image_norm_eps : float
        Of the decoder's norms, and of the norm behind the projection of image tokens.
    """

    tokens_in: int
    dim_in: int
    tokens_out: int
    dim_out: int
    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    positions: int
    longest: int
    start: int
    end: int
    pad: int = 0
    norm_eps: float = 1e-12
    image_norm_eps: float = 1e-5


GIT_LARGE_COCO = CaptionerConfig(
    tokens_in=256,
    dim_in=1664,
    tokens_out=257,
    dim_out=1024,
    vocabulary=30522,
    width=768,
    layers=6,
    heads=12,
    hidden=3072,
    positions=1024,
    longest=20,
    start=101,
    end=102,
)
"""MindEye2's converter before ``microsoft/git-large-coco``, of which only the left-out image encoder is large."""

MINI = CaptionerConfig(
    tokens_in=clip.IMAGE_TOKENS - 1,
    dim_in=clip.WIDTH,
    tokens_out=clip.IMAGE_TOKENS,
    dim_out=clip.WIDTH,
    vocabulary=clip.END + 1,
    width=128,
    layers=3,
    heads=4,
    hidden=512,
    positions=clip.CONTEXT,
    longest=clip.CONTEXT - 1,  # a caption that finds no end still fits the text tower, which adds one
    start=clip.START,
    end=clip.END,
    pad=clip.PAD,
)
"""The same for the patch tokens of :mod:`nsdbench.adapters.nets.clip` and the words of simulated captions."""


class TokenConverter(nn.Module):
    """A linear map over the tokens, then one over the channels: (n, tokens_in, dim_in) to (n, tokens_out, dim_out)."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.tokens_in, config.tokens_out)
        self.linear2 = nn.Linear(config.dim_in, config.dim_out)

    def forward(self, tokens: Tensor) -> Tensor:
        converted: Tensor = self.linear2(self.linear1(tokens.transpose(1, 2)).transpose(1, 2))
        return converted


def _dense_and_norm(inputs: int, config: CaptionerConfig) -> nn.ModuleDict:
    norm = nn.LayerNorm(config.width, config.norm_eps)
    return nn.ModuleDict({"dense": nn.Linear(inputs, config.width), "LayerNorm": norm})


def _added(block: nn.ModuleDict, change: Tensor, x: Tensor) -> Tensor:
    """The norm comes after the sum, as in BERT."""
    total: Tensor = block["LayerNorm"](block["dense"](change) + x)
    return total


class _Layer(nn.Module):
    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({part: nn.Linear(width, width) for part in ("query", "key", "value")}),
                "output": _dense_and_norm(width, config),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, config.hidden)})
        self.output = _dense_and_norm(config.hidden, config)

    def _part(self, name: str, x: Tensor) -> Tensor:
        part: Tensor = self.attention["self"][name](x)  # type: ignore[index]
        return part.view(*part.shape[:2], self.heads, -1).transpose(1, 2)

    def remember(self, x: Tensor) -> Memory:
        """Return what others see of ``x``, the input of this layer."""
        return self._part("key", x), self._part("value", x)

    def forward(self, x: Tensor, memory: Memory, mask: Tensor | None = None) -> Tensor:
        query = self._part("query", x)
        seen = functional.scaled_dot_product_attention(query, *memory, attn_mask=mask)
        x = _added(self.attention["output"], seen.transpose(1, 2).flatten(2), x)  # type: ignore[arg-type]
        return _added(self.output, functional.gelu(self.intermediate["dense"](x)), x)


class TextDecoder(nn.Module):
    """GIT without its image encoder: image tokens see each other, text sees them and what stands before it.

    Parameters
    ----------
    config : CaptionerConfig
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        width = config.width
        embeddings = {
            "word_embeddings": nn.Embedding(config.vocabulary, width),
            "position_embeddings": nn.Embedding(config.positions, width),
            "LayerNorm": nn.LayerNorm(width, config.norm_eps),
        }
        projection = nn.Sequential(
            nn.Linear(config.dim_out, width), nn.LayerNorm(width, config.image_norm_eps)
        )
        layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.git = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict(embeddings),
                "encoder": nn.ModuleDict({"layer": layers}),
                "visual_projection": nn.ModuleDict({"visual_projection": projection}),
            }
        )
        self.output = nn.Linear(width, config.vocabulary)

    @property
    def layers(self) -> list[_Layer]:
        """From the input to the output."""
        return list(self.git["encoder"]["layer"])  # type: ignore[index]

    def read(self, tokens: Tensor) -> list[Memory]:
        """Return what text sees of image tokens (n, tokens_out, dim_out), layer by layer; it depends on no text."""
        x = self.git["visual_projection"]["visual_projection"](tokens)  # type: ignore[index]
        memory = [self.layers[0].remember(x)]
        for layer, after in pairwise(self.layers):
            x = layer(x, memory[-1])
            memory.append(after.remember(x))
        return memory

    def write(self, numbers: Tensor, memory: Sequence[Memory], first: int = 0) -> tuple[Tensor, list[Memory]]:
        """Return what may follow each word, and the memory with these words added.

        Parameters
        ----------
        numbers : int64 tensor of shape (n, words)
        memory : sequence of Memory
            Of the image tokens, and of ``first`` words that stand before these.
        first : int

        Returns
        -------
        logits : tensor of shape (n, words, vocabulary)
        memory : list of Memory
        """
        embeddings: Mapping[str, nn.Module] = self.git["embeddings"]  # type: ignore[assignment]
        places = torch.arange(first, first + numbers.shape[1], device=numbers.device)
        x = embeddings["word_embeddings"](numbers) + embeddings["position_embeddings"](places)
        x = embeddings["LayerNorm"](x)
        words, before = numbers.shape[1], memory[0][0].shape[2]
        mask = torch.ones(words, before + words, dtype=torch.bool, device=x.device).tril(before)
        longer = []
        for layer, (keys, values) in zip(self.layers, memory, strict=True):
            key, value = layer.remember(x)
            longer.append((torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)))
            x = layer(x, longer[-1], mask)
        return self.output(x), longer


class Captioner(nn.Module):
    """From decoded image tokens to captions as word numbers.

    Parameters
    ----------
    config : CaptionerConfig
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.converter, self.decoder = TokenConverter(config), TextDecoder(config)

    def forward(self, tokens: Tensor, numbers: Tensor) -> Tensor:
        """Return logits (n, words, vocabulary) of the word after each of ``numbers`` (n, words)."""
        return self.decoder.write(numbers, self.decoder.read(self.converter(tokens)))[0]

    @torch.no_grad()
    def generate(self, tokens: Tensor, max_length: int | None = None) -> Tensor:
        """Return the captions that take the likeliest word at every place.

        Parameters
        ----------
        tokens : tensor of shape (n, tokens_in, dim_in)
        max_length : int, optional
            Words at most, with start and end; ``config.longest`` if not given.

        Returns
        -------
        int64 tensor of shape (n, words)
            Start, words, end, padding; no longer than the longest caption of the batch.
        """
        memory = self.decoder.read(self.converter(tokens))
        words = [torch.full((len(tokens),), self.config.start, device=tokens.device)]
        done = torch.zeros_like(words[0], dtype=torch.bool)
        for place in range((max_length or self.config.longest) - 1):
            logits, memory = self.decoder.write(words[-1][:, None], memory, place)
            words.append(logits[:, -1].argmax(dim=1).masked_fill(done, self.config.pad))
            done = done | (words[-1] == self.config.end)
            if done.all():
                break
        return torch.stack(words, dim=1)


@dataclass(frozen=True)
class Describer:
    """A captioner and the words that its numbers stand for."""

    captioner: Captioner
    vocabulary: Sequence[str]


def describe(describer: Describer, tokens: Tensor) -> list[str]:
    """Return one caption for the decoded tokens of each image, (n, tokens_in, dim_in)."""
    return [spelled(row, describer.vocabulary) for row in describer.captioner.generate(tokens).tolist()]


def spelled(numbers: Iterable[int], vocabulary: Sequence[str]) -> str:
    """Return the text of a caption, without marks, as BERT's tokenizer spells it.

    Pieces that begin with ``##`` continue a word; the spaces that splitting put around punctuation are taken out.
    """
    pieces = (vocabulary[number] for number in numbers)
    text = " ".join(piece for piece in pieces if piece not in SPECIAL).replace(" ##", "")
    for spaced in _SPACED:
        text = text.replace(spaced, spaced.strip())
    return text


def published_describer(weights_dir: Path | None, device: str = "cpu") -> Describer:
    """Return the published captioner, in float32.

    Raises
    ------
    WeightsError
        If weights are missing or do not fit.
    """
    converter, decoder = _file(CONVERTER, weights_dir), _file(GIT, weights_dir, drop=_LEFT_OUT)
    state = {f"converter.{name}": value for name, value in converter.items()}
    state |= {f"decoder.{name}": value for name, value in decoder.items()}
    captioner = filled(on_meta(lambda: Captioner(GIT_LARGE_COCO)), state, f"{CONVERTER} {GIT}", device=device)
    return Describer(captioner, _vocabulary(weights_dir))


def _file(weights_id: str, weights_dir: Path | None, drop: tuple[str, ...] = ()) -> dict[str, Tensor]:
    return load_checkpoint(weights.locate(weights_id, weights.folder(weights_dir)).path, drop=drop)


def _vocabulary(weights_dir: Path | None) -> list[str]:
    path = weights.locate(VOCABULARY, weights.folder(weights_dir)).path
    pieces = path.read_text(encoding="utf-8").splitlines()
    if len(pieces) != GIT_LARGE_COCO.vocabulary:
        raise WeightsError(
            f"{path} has {len(pieces)} lines, not {GIT_LARGE_COCO.vocabulary}",
            remedy=f"Delete it and run `nsdbench weights fetch {VOCABULARY}`.",
        )
    return pieces


def mini_describer(device: str = "cpu") -> Describer:
    """Return the captioner of simulated scenes with the weights that come with nsdbench."""
    return Describer(mini(Captioner(MINI), MINI_ID, device), ("[PAD]", *clip.WORDS, "[CLS]", "[SEP]"))


def mini_captioner() -> Captioner:
    """Return the untrained captioner of simulated scenes."""
    return Captioner(MINI)
