"""Teaching captions, from true tokens and from tokens as a decoder of brain data may give them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.captioner import MINI, Captioner, Describer, describe
from nsdbench.adapters.nets.clip import mini_clip
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.denoising import encode
from nsdbench.pretraining.shipping import finished
from nsdbench.pretraining.tasks import Task

PATTERN = 0  # of the five captions; size, texture, colour, category and place of the main object
TO_AVERAGE = 2_000
TRUE = 0.25  # share of scenes whose tokens are left as they are
SHRUNK, MOST = 0.2, (1.0, 0.7, 1.0)
CORRELATIONS = (1.0, 0.9, 0.8, 0.6, 0.4, 0.0)
BATCH = 100


class Captioning(Task):
    """Say the most specific caption of a scene word by word, from its patch tokens.

    Most tokens are damaged first, see :func:`damaged`. The damage differs between scenes, so that the captioner has
    to tell it from the tokens and to fall back to what is likely anyway.
    """

    trunk: Captioner
    layout = torch.contiguous_format

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        self.tokens = encode(corpus, finished(mini_clip(), "mini_tokens-v1", corpus.weights)).tokens
        self.mean = torch.from_numpy(self.tokens[:TO_AVERAGE, 1:].astype(np.float32)).mean(0)
        self.numbers = clip.encode(corpus.captions[: len(self.tokens) // 2, PATTERN].tolist())[
            :, : MINI.longest
        ]
        start_local(self.trunk)

    def pick(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(len(self.tokens), size=n)

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the cross entropy of the words, the end included."""
        tokens = torch.from_numpy(self.tokens[rows, 1:].astype(np.float32))
        numbers = self.numbers[rows // 2]
        logits = self.trunk(damaged(tokens, self.mean, rng), numbers[:, :-1])
        return functional.cross_entropy(logits.float().transpose(1, 2), numbers[:, 1:], ignore_index=clip.PAD)


def start_local(captioner: Captioner) -> None:
    """Let every token that the decoder reads start as one token of the image, and the one left over as their mean."""
    with torch.no_grad():
        over_tokens = captioner.converter.linear1
        patches = over_tokens.in_features
        over_tokens.weight.copy_(torch.cat([torch.eye(patches), torch.full((1, patches), 1 / patches)]))


def damaged(tokens: Tensor, mean: Tensor, rng: torch.Generator) -> Tensor:
    """Return tokens with errors such as decoding from brain data makes; a quarter of the scenes stay as they are.

    Tokens are shrunk towards their mean by up to four fifths. Added are errors that look like differences between
    scenes, Gaussian errors that all tokens of a scene share, and Gaussian errors of each token; their standard
    deviations reach once, 0.7 times and once that of the tokens.

    Parameters
    ----------
    tokens : tensor of shape (n, patches, channels)
    mean : tensor of shape (patches, channels)
        Mean tokens of many scenes.
    rng : torch.Generator
    """
    n, channels = len(tokens), tokens.shape[2]
    deviation = tokens - mean

    def level(low: float, high: float) -> Tensor:
        drawn: Tensor = low + (high - low) * torch.rand(n, 1, 1, generator=rng)
        return drawn

    unlike = foreign(deviation, rng)
    sd_unlike, sd_common, sd_own = (level(0, most) * level(0, 1) for most in MOST)
    common, own = (torch.randn(n, k, channels, generator=rng) for k in (1, tokens.shape[1]))
    error = sd_unlike * unlike + deviation.std() * (sd_common * common + sd_own * own)
    wrong = mean + level(SHRUNK, 1) * deviation + error
    return torch.where(torch.rand(n, 1, 1, generator=rng) < TRUE, tokens, wrong)


def foreign(deviation: Tensor, rng: torch.Generator) -> Tensor:
    """Return errors (n, ...) with the covariance of ``deviation``: sums over the batch with Gaussian weights."""
    n = len(deviation)
    mixing = torch.randn(n, n, generator=rng) / n**0.5
    return torch.matmul(mixing, deviation.flatten(1)).view_as(deviation)


def correlated(tokens: Tensor, r: float, rng: torch.Generator) -> Tensor:
    """Return tokens (n, patches, channels) that correlate ``r`` with the true ones and vary as much."""
    mean = tokens.mean(0)
    return mean + r * (tokens - mean) + math.sqrt(1 - r**2) * foreign(tokens - mean, rng)


def ladder(describer: Describer, held_out: Corpus) -> dict[str, dict[str, float]]:
    """Return :func:`accuracies` by the correlation of tokens with the true ones."""
    model = finished(mini_clip(), "mini_tokens-v1", held_out.weights)
    images = torch.from_numpy(held_out.images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        tokens = torch.cat([clip.image_tokens(model, part)[:, 1:] for part in torch.split(images, BATCH)])
    rng = torch.Generator().manual_seed(0)
    return {str(r): accuracies(describer, correlated(tokens, r, rng), held_out) for r in CORRELATIONS}


def accuracies(describer: Describer, tokens: Tensor, held_out: Corpus) -> dict[str, float]:
    """Return the share of captions that name the right category, colour and background, and that are right as a whole.

    Parameters
    ----------
    describer : Describer
    tokens : tensor of shape (n, patches, channels)
        True or damaged tokens of the first scenes of ``held_out``.
    held_out : Corpus
    """
    said = [caption.split() for part in torch.split(tokens, BATCH) for caption in describe(describer, part)]
    first = slice(len(said))
    right: dict[str, list[bool]] = {}
    for question, options in LABELS.items():
        truth = [options[i] for i in held_out.labels[question][first]]
        right[question] = [_answer(words, question) == true for words, true in zip(said, truth, strict=True)]
    whole = held_out.captions[first, PATTERN].tolist()
    right["whole caption"] = [" ".join(words) == true for words, true in zip(said, whole, strict=True)]
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def _answer(words: list[str], question: str) -> str | None:
    """Return what a caption says; the category stands behind the colour, and oranges can be of any colour."""
    colour = next((i for i, word in enumerate(words) if word in LABELS["colour"]), len(words))
    place = {"colour": words[colour : colour + 1], "category": words[colour + 1 : colour + 2]}
    return next((word for word in place.get(question, words[colour + 2 :]) if word in LABELS[question]), None)
