"""What the miniature networks are trained to do: name what is in a scene, match captions, agree on two views."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.metrics.nets.mini import EMBEDDING, Block
from nsdbench.pretraining.augment import gentle, normalize, strong
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.words import Words


class Task(nn.Module):
    """A network (``trunk``, which is shipped) together with what only its training needs.

    Parameters
    ----------
    corpus : Corpus
        Training scenes.
    trunk : nn.Module
    """

    layout = torch.channels_last  # of parameters in training; the faster one for most networks

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__()
        self.corpus, self.trunk = corpus, trunk

    def pick(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose about ``n`` scenes for a step."""
        return rng.integers(len(self.corpus), size=n)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 images in [0, 1], (n, 3, S, S)."""
        return torch.from_numpy(self.corpus.images[rows]).permute(0, 3, 1, 2).float() / 255

    def stepped(self) -> None:
        """Do what follows every step; by default nothing."""

    def finish(self) -> None:
        """Do what is left after the last step; by default nothing."""

    @abstractmethod
    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the loss on these scenes, a scalar."""


class Classification(Task):
    """Name the category and colour of the main object, and the background, of a scene.

    The trunk gives vectors, or maps, which are max-pooled and go through one hidden layer, as in AlexNet.
    """

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        with torch.no_grad():
            side = corpus.images.shape[1]
            width = self._vector(torch.zeros(2, 3, side, side)).shape[1]
        self.hidden = nn.Sequential(nn.Linear(width, 192), nn.ReLU()) if self._maps else nn.Identity()
        inputs = 192 if self._maps else width
        self.heads = nn.ModuleDict({name: nn.Linear(inputs, len(of)) for name, of in LABELS.items()})

    def _vector(self, x: Tensor) -> Tensor:
        found: Tensor = self.trunk(x)
        self._maps = found.ndim == 4
        return functional.max_pool2d(found, 3, 2).flatten(1) if self._maps else found

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the sum of the three cross entropies, label smoothing 0.05."""
        vector = self.hidden(self._vector(normalize(gentle(self.images(rows), rng))))
        losses = [
            functional.cross_entropy(
                head(vector).float(), torch.from_numpy(self.corpus.labels[name][rows]), label_smoothing=0.05
            )
            for name, head in self.heads.items()
        ]
        return torch.stack(losses).sum()


class _TextTower(nn.Module):
    """Words and positions, two transformer blocks, the mean over words, a projection."""

    def __init__(self, words: Words, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(words), width)
        self.position = nn.Parameter(0.02 * torch.randn(1, words.length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.project = nn.LayerNorm(width), nn.Linear(width, EMBEDDING, bias=False)

    def forward(self, numbers: Tensor) -> Tensor:
        there = numbers > 0
        tokens = self.embed(numbers) + self.position
        for block in self.blocks:
            tokens = block(tokens, there[:, None, None, :])
        share = there.float() / there.float().sum(1, keepdim=True)
        projected: Tensor = self.project((self.norm(tokens) * share[..., None]).sum(1))
        return projected


class PlaceBatches(Task):
    """A task on batches of which every second one comes from two backgrounds.

    Scenes of one place and the captions of others differ in their objects only; batches chosen at random teach
    backgrounds first and objects late.
    """

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        background = corpus.labels["background"]
        self.places = [np.flatnonzero(background == b) for b in range(len(LABELS["background"]))]

    def pick(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if rng.random() < 0.5:
            return super().pick(n, rng)
        here = np.concatenate([self.places[b] for b in rng.choice(len(self.places), 2, replace=False)])
        return rng.choice(here, min(n, len(here)), replace=False)


class Contrast(PlaceBatches):
    """Find the caption of an image and the image of a caption within a batch (Radford et al. 2021)."""

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        self.words = Words(corpus.captions)
        self.text = _TextTower(self.words)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the symmetric cross entropy; equal captions in a batch count as right answers."""
        which = torch.randint(self.corpus.captions.shape[1], (len(rows),), generator=rng).numpy()
        captions = self.corpus.captions[rows, which]
        image = functional.normalize(self.trunk(normalize(gentle(self.images(rows), rng))).float(), dim=1)
        text = functional.normalize(self.text(self.words.encode(captions)).float(), dim=1)
        logits = self.log_scale.clamp(max=math.log(100)).exp() * image @ text.T
        same = torch.from_numpy(captions[:, None] == captions[None, :]).float()
        answer = same / same.sum(1, keepdim=True)
        return functional.cross_entropy(logits, answer) + functional.cross_entropy(logits.T, answer)


class SwappedPrediction(Task):
    """Predict the prototype of one view of an image from another view (SwAV, Caron et al. 2020, arXiv 2006.09882).

    Labels and captions are never read.
    """

    prototypes, temperature, side = 128, 0.1, 48

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        width, code = 192, 64
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, code)
        )
        self.prototype = nn.Parameter(functional.normalize(torch.randn(self.prototypes, code), dim=1))

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the cross entropy between the balanced assignment of each view and the scores of the other."""
        images = self.images(rows)
        views = torch.cat([strong(images, self.side, rng) for _ in range(2)])
        codes = functional.normalize(self.head(self.trunk(normalize(views))).float(), dim=1)
        first, second = (codes @ functional.normalize(self.prototype, dim=1).T).chunk(2)
        return sum(
            (-(balanced(a.detach()) * functional.log_softmax(b / self.temperature, dim=1)).sum(1).mean())
            for a, b in ((first, second), (second, first))
        )  # type: ignore[return-value]


def balanced(scores: Tensor, *, sharpness: float = 0.05, rounds: int = 3) -> Tensor:
    """Return soft assignments of images to prototypes in which every prototype gets the same share.

    Sinkhorn-Knopp iterations on ``exp(scores / sharpness)``; rows sum to one.

    Parameters
    ----------
    scores : tensor of shape (n, prototypes)
    """
    q = torch.exp((scores - scores.max()) / sharpness)
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q
