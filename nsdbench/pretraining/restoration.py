"""Teaching the diffusion priors of the miniature MindEyes what tokens of scenes look like.

The published priors learn this from the 9,000 training images and tens of thousands of trials of each subject. The
miniature world has a few hundred images per subject, and a fit must not take longer than a minute or two, so its priors
start from many scenes without any brain: given damaged tokens they say what the tokens were. A fit goes on from there.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nsdbench.adapters.nets.clip import mini_clip
from nsdbench.adapters.nets.prior import Prior
from nsdbench.pretraining.corpus import Corpus
from nsdbench.pretraining.denoising import encode
from nsdbench.pretraining.shipping import finished
from nsdbench.pretraining.tasks import Task

MEASURED = 2000


class Restoration(Task):
    """Predict the tokens of a scene from noisy ones, given a damaged version as what the brain says.

    Damage is what decoding does to tokens: they shrink towards their mean, take on something of other scenes, and get
    an error of their own. How much of each is drawn for every scene.

    Parameters
    ----------
    corpus : Corpus
    trunk : Prior
    """

    first = 0
    """Tokens that are left out at the beginning."""
    trunk: Prior
    layout = torch.contiguous_format
    mean: Tensor

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        encoded = encode(corpus, finished(mini_clip(), "mini_tokens-v1", corpus.weights))
        self.tokens = encoded.tokens[:, self.first :]
        known = self.tokens[:MEASURED].astype(np.float32)
        self.register_buffer("mean", torch.from_numpy(known.mean(axis=0)))
        self.spread = float((known - known.mean(axis=0)).std())

    def pick(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(len(self.tokens), size=n)

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the prior's own loss."""
        tokens = torch.from_numpy(self.tokens[rows]).float()
        return self.trunk.loss(tokens, self.damaged(tokens, rng), rng)[0]

    def damaged(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        """Return a version of ``tokens`` (n, t, d) as decoding might give it."""
        draw = partial(torch.rand, len(tokens), 1, 1, generator=rng)
        own, others = tokens - self.mean, tokens.roll(1, 0) - self.mean
        error = torch.randn(tokens.shape, generator=rng) * self.spread
        common = torch.randn(len(tokens), 1, tokens.shape[2], generator=rng) * self.spread
        kept = 0.2 + 0.8 * draw()
        return (
            self.mean
            + kept * own
            + (1 - kept) * draw() * others
            + 0.5 * draw() * error
            + 0.3 * draw() * common
        )


class PatchRestoration(Restoration):
    """The same for a target without the class token."""

    first = 1
