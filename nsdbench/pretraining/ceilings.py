"""How much of a scene survives each miniature decoder when nothing is lost before it: true features in, images out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nsdbench.adapters.base import item_rng
from nsdbench.adapters.brain_diffuser import BrainDiffuser
from nsdbench.adapters.icnn import Icnn
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import BICUBIC, Images, resized
from nsdbench.adapters.takagi import Takagi, TakagiCoarse
from nsdbench.metrics.nets import load_net
from nsdbench.pretraining.corpus import LABELS, Corpus, native
from nsdbench.pretraining.evaluation import vectors
from nsdbench.sim.scenes import captions
from nsdbench.types import Progress, Stimuli

JUDGE, NODE = "mini_inception", "avgpool"
SIDE, TILE, MARGIN = 64, 80, 190


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


def held_out_stimuli(n: int, seed: int) -> Stimuli:
    """Return the first ``n`` held-out scenes at native size as stimuli ``scene0000`` ..., with their captions."""
    drawn = [native("held_out", i, seed) for i in range(n)]
    ids = tuple(f"scene{i:04d}" for i in range(n))
    images = {name: image for name, (_, image) in zip(ids, drawn, strict=True)}
    return Stimuli(
        ids=ids,
        stimulus_set=("core",) * n,
        captions={name: captions(scene) for name, (scene, _) in zip(ids, drawn, strict=True)},
        cues={},
        has_image=frozenset(ids),
        read_image=images.__getitem__,
        content_hash="held-out scenes",
    )


def oracle_images(stimuli: Stimuli, seed: int, progress: Progress) -> dict[str, Images]:
    """Return, by stage, what the miniature decoders make of the true features of ``stimuli``.

    Returns
    -------
    mapping of str to uint8 array of shape (n, 64, 64, 3)
        One sample of each stimulus.
    """
    ids, found = stimuli.ids, {}
    diffuser = BrainDiffuser("mini")
    features = diffuser.features(stimuli, ids, progress)
    found["VDVAE picture"] = _first_pictures(diffuser, features.latents, ids, seed)
    found["Brain Diffuser"] = diffuser.render(features, ids, 1, seed, progress)[:, 0]
    makers: Mapping[str, Callable[[], Takagi | Icnn]] = {
        "coarse image": lambda: TakagiCoarse("mini"),
        "Takagi": lambda: Takagi("mini"),
        "iCNN": lambda: Icnn("mini"),
    }
    for name, make in makers.items():
        decoder = make()
        truth = decoder.features(stimuli, ids, progress)
        found[name] = decoder.render(truth, ids, 1, seed, progress)[:, 0]  # type: ignore[arg-type]
    return found


def _first_pictures(
    diffuser: BrainDiffuser, latents: NDArray[np.floating], ids: tuple[str, ...], seed: int
) -> Images:
    import torch

    noise = ItemNoise([item_rng(seed, name, 0) for name in ids], torch.device("cpu"))
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


def contact_sheet(rows: Mapping[str, Images], columns: int) -> Image.Image:
    """Return labelled rows of images, the first ``columns`` of each."""
    sheet = Image.new("RGB", (MARGIN + TILE * columns, TILE * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for top, (label, images) in enumerate(rows.items()):
        pen.text((6, TILE * top + TILE // 2), label, "black", font, anchor="lm")
        for left, image in enumerate(images[:columns]):
            tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (MARGIN + TILE * left, TILE * top))
    return sheet
