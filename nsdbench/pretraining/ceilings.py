"""How much of a scene survives each miniature decoder when nothing is lost before it: true features in, images out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nsdbench.adapters.base import Adapter, item_rng
from nsdbench.adapters.brain_diffuser import BrainDiffuser
from nsdbench.adapters.icnn import Icnn
from nsdbench.adapters.mindeye.mindeye1 import MindEye1
from nsdbench.adapters.mindeye.mindeye2 import MindEye2
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import BICUBIC, Images, resized
from nsdbench.adapters.takagi import Takagi, TakagiCoarse
from nsdbench.metrics.nets import load_net
from nsdbench.pretraining.corpus import LABELS, Corpus
from nsdbench.pretraining.evaluation import vectors
from nsdbench.types import Progress, Stimuli

JUDGE, NODE = "mini_inception", "avgpool"
SIDE = 64


@dataclass(frozen=True)
class Judge:
    """A metric network with a linear reader, which no decoder was trained with.

    Attributes
    ----------
    readers : mapping of str to fitted classifier
        By question, see :data:`nsdbench.pretraining.corpus.LABELS`.
    """

    readers: Mapping[str, object]

    @classmethod
    def of(cls, scenes: Corpus) -> Judge:
        """Fit the readers on ``scenes``."""
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        x = vectors(load_net(JUDGE), NODE, scenes.images)
        readers = {
            question: make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 6)))
            for question in LABELS
        }
        return cls({question: reader.fit(x, scenes.labels[question]) for question, reader in readers.items()})

    def accuracy(self, images: Images, labels: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
        """Return the share of right answers by question; images are uint8 (n, 64, 64, 3)."""
        x = vectors(load_net(JUDGE), NODE, images)
        return {q: float(reader.score(x, labels[q])) for q, reader in self.readers.items()}  # type: ignore[attr-defined]


def oracle_images(stimuli: Stimuli, seed: int, progress: Progress) -> dict[str, Images]:
    """Return, by stage, what the miniature decoders make of the true features of ``stimuli``.

    Returns
    -------
    mapping of str to uint8 array of shape (n, 64, 64, 3)
        One sample of each stimulus.
    """
    first = {"VDVAE picture": _first_pictures(BrainDiffuser("mini"), stimuli, seed)}
    makers: Mapping[str, Callable[[str], Adapter]] = {
        "Brain Diffuser": BrainDiffuser,
        "coarse image": TakagiCoarse,
        "Takagi": Takagi,
        "iCNN": Icnn,
        "MindEye1": MindEye1,
        "MindEye2": MindEye2,
    }
    return first | {
        name: make("mini").copies(stimuli, stimuli.ids, seed=seed, progress=progress).images[:, 0]
        for name, make in makers.items()
    }


def _first_pictures(diffuser: BrainDiffuser, stimuli: Stimuli, seed: int) -> Images:
    latents = diffuser.features(stimuli, stimuli.ids).latents
    noise = ItemNoise([item_rng(seed, name, 0) for name in stimuli.ids], torch.device("cpu"))
    with torch.no_grad():
        small = diffuser.networks.vdvae.picture(torch.from_numpy(np.asarray(latents, np.float32)), noise)
    return resized(small, SIDE, BICUBIC)


def ceilings(judge: Judge, held_out: Corpus, stages: Mapping[str, Images]) -> dict[str, dict[str, float]]:
    """Return, by stage, the judge's accuracies and the mean pixel correlation with the scene.

    Parameters
    ----------
    judge : Judge
    held_out : Corpus
        Whose first scenes the images show.
    stages : mapping of str to uint8 array of shape (n, 64, 64, 3)
    """
    n = len(next(iter(stages.values())))
    truth, labels = held_out.images[:n], {q: values[:n] for q, values in held_out.labels.items()}
    found = {}
    for name, images in {"scene": truth, **stages}.items():
        pairs = zip(truth, images, strict=True)
        r = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]
        found[name] = judge.accuracy(images, labels) | {"pixcorr": float(np.mean(r))}
    return found
