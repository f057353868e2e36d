"""Teaching the contrastive model of the decoders, whose tokens condition the diffusion."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.nets import clip
from nsdbench.pretraining.augment import gentle
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.tasks import PlaceBatches


class TokenContrast(PlaceBatches):
    """Match images and captions, and name what is in the picture.

    Contrast alone learns backgrounds early and categories late; heads that name category, background and colour
    from the image embedding make up for the short training. They are not shipped.
    """

    def __init__(self, corpus: Corpus, trunk: nn.Module) -> None:
        super().__init__(corpus, trunk)
        self.heads = nn.ModuleDict({name: nn.Linear(clip.WIDTH, len(of)) for name, of in LABELS.items()})

    def loss(self, rows: NDArray[np.int64], rng: torch.Generator) -> Tensor:
        """Return the symmetric contrastive loss (equal captions are right answers) plus half the naming losses."""
        which = torch.randint(self.corpus.captions.shape[1], (len(rows),), generator=rng).numpy()
        captions = self.corpus.captions[rows, which]
        image = self.trunk.visual(clip.normalize(gentle(self.images(rows), rng)))[0].float()  # type: ignore[operator]
        text = self.trunk.text(clip.encode(captions.tolist()))[0].float()  # type: ignore[operator]
        logits = self.trunk.logit_scale.clamp(max=4.6).exp() * (  # type: ignore[operator]
            functional.normalize(image, dim=1) @ functional.normalize(text, dim=1).T
        )
        same = torch.from_numpy(captions[:, None] == captions[None, :]).float()
        answer = same / same.sum(1, keepdim=True)
        loss = functional.cross_entropy(logits, answer) + functional.cross_entropy(logits.T, answer)
        for name, head in self.heads.items():
            loss = loss + 0.5 * functional.cross_entropy(
                head(image), torch.from_numpy(self.corpus.labels[name][rows]), label_smoothing=0.05
            )
        return loss
