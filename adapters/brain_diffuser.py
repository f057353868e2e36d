"""Brain Diffuser (Ozcelik & VanRullen 2023): a VDVAE's picture, redrawn by Versatile Diffusion under image and text tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.adapters.arrays import load_arrays, save_arrays
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.brain_diffuser_networks import Networks, mini_networks, published_networks
from nsdbench.adapters.draws import Draws
from nsdbench.adapters.featurestore import FeatureStore, Kind
from nsdbench.adapters.linear import Gram, gram_matrix, predict, smoother
from nsdbench.adapters.nets import clip_published, vdvae
from nsdbench.adapters.nets.ddim import Sampling, denoise, guided
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import BICUBIC, Images, resized
from nsdbench.adapters.scaling import Scaling, is_standardized
from nsdbench.adapters.stimuli import batches, images_of, mean_over_captions, rngs_of
from nsdbench.adapters.targets import Targets
from nsdbench.errors import UsageError
from nsdbench.types import JsonScalar, Progress, Reconstructions, Silent, Stimuli, Trials

Float = NDArray[np.floating]
FEWEST_ITEMS = 8
SMALLEST_SD = 1e-12
FEATURE_WEIGHTS = {
    "published": (vdvae.PUBLISHED.weights_id, clip_published.WEIGHTS_ID),
    "mini": (vdvae.MINI.weights_id, "mini_tokens-v1"),
}
ITEM_BYTES = {"published": 2 * (91_168 + (257 + 77) * 768), "mini": 2 * (3848 + (65 + 16) * 128)}
"""Of the features of one image."""


@dataclass(frozen=True)
class Settings:
    """What the paper leaves to choose.

    Attributes
    ----------
    side : int
        Pixels per side of the generated images.
    sampling : Sampling
    penalties : tuple of float
        Of the ridges to VDVAE latents, image tokens and text tokens.
    penalty_unit : {"1", "voxels"}
        Penalties are absolute numbers, or multiples of the number of voxels.
    text_share : float
        Share of the text in every attention site: 0.4 in the paper, 0 for images alone, 1 for texts alone.
    normalise : {"query", "train", "none"}
        How decoded features get the mean and deviation of true training features back: after standardizing each over
        the rows of the same call (published; an output then depends on the other targets), after standardizing them
        by the moments of predictions for training images that were left out of the fit one at a time, or not at all.
    at_once : int
        Samples of one target that are computed together.
    """

    side: int
    sampling: Sampling
    penalties: tuple[float, float, float]
    penalty_unit: Literal["1", "voxels"] = "1"
    text_share: float = 0.4
    normalise: Literal["query", "train", "none"] = "query"
    at_once: int = 10


@dataclass(frozen=True)
class Features:
    """What is decoded from betas.

    Attributes
    ----------
    latents : float array of shape (n, n_latents)
        VDVAE latents of the first decoder blocks, each flattened, side by side.
    image, text : float array of shape (n, tokens, channels)
    """

    latents: Float
    image: Float
    text: Float

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def flat(self) -> tuple[Float, ...]:
        """The three as matrices of shape (n, ...)."""
        return tuple(part.reshape(len(self), -1) for part in (self.latents, self.image, self.text))


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind; features are predicted from it without weights.

    Attributes
    ----------
    x_mean, x_sd : float32 array of shape (n_voxels,)
        Over the training images (rows averaged over repeats, ddof 1).
    latents, image, text : float16 arrays
        True features of the training images, as :class:`Features`.
    y_mean, y_sd : float64 array of shape (n_targets,)
        Moments of the true features, side by side (ddof 0).
    p_mean, p_sd : float64 array of shape (n_targets,)
        Moments of their predictions without the image in question; empty unless ``normalise="train"``.
    penalty : float64 array of shape (n_targets,)
    """

    x_mean: Float
    x_sd: Float
    latents: NDArray[np.float16]
    image: NDArray[np.float16]
    text: NDArray[np.float16]
    y_mean: NDArray[np.float64]
    y_sd: NDArray[np.float64]
    p_mean: NDArray[np.float64]
    p_sd: NDArray[np.float64]
    penalty: NDArray[np.float64]


class BrainDiffuser(Adapter):
    """Brain Diffuser.

    Ridge regression from repeat-averaged betas to the latents of a very deep autoencoder and to CLIP's tokens of the
    image and of its captions. The latents give a first picture (the autoencoder's prior draws what they do not say);
    Versatile Diffusion takes it most of the way to noise and back under both kinds of tokens.

    Training draws (posterior samples of the VDVAE) are seeded by image, those of a reconstruction by
    target and sample; the original seeds once per run. A fit holds the features of training images in half
    precision, 6.2 GB in memory and on disk for one subject of NSD, and needs another 1.7 GB.
    """

    name = "brain_diffuser"
    version = 2
    paper = "Ozcelik & VanRullen 2023, Scientific Reports 13:15666 (arXiv 2303.05334)"
    reads_captions = True
    presets = ("published", "mini")
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "published": (
            vdvae.PUBLISHED.weights_id,
            "versatile-diffusion-image-unet",
            "versatile-diffusion-text-unet",
            "versatile-diffusion-vae",
            clip_published.WEIGHTS_ID,
        ),
        "mini": (vdvae.MINI.weights_id, "mini_denoiser-v1", "mini_autoencoder-v1", "mini_tokens-v1"),
    }
    transductive = True
    settings: ClassVar[Mapping[str, Settings]] = {
        "published": Settings(512, Sampling(50, 0.75, 7.5), (5e4, 6e4, 1e5), at_once=5),
        # penalties in the published proportion to the number of voxels (15,724 in subject 1); with more guidance the
        # colours of the small denoiser glare
        "mini": Settings(64, Sampling(12, 0.75, 2.5, "v_prediction"), (3.2, 3.8, 6.4), "voxels"),
    }

    gram: Gram
    fitted: Fitted

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.transductive = any(one.normalise == "query" for one in cls.settings.values())

    @property
    def chosen(self) -> Settings:
        """The settings of the preset."""
        return self.settings[self.preset]

    @cached_property
    def networks(self) -> Networks:
        """The pretrained networks, loaded when first needed.

        Raises
        ------
        WeightsError
            If weights are missing or do not fit.
        """
        return {"published": published_networks, "mini": mini_networks}[self.preset](self.context)

    def features(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress | None = None) -> Features:
        """Return the true features of stimuli, which the ridges learn and :meth:`render` turns into images.

        They are rounded to half precision, in which a fit keeps them.
        """
        parts = [self._features(stimuli, some) for some in batches(ids, progress)]
        return Features(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _features(self, stimuli: Stimuli, ids: Sequence[str]) -> dict[str, NDArray[np.float16]]:
        networks, images = self.networks, images_of(stimuli, ids)
        found = {
            "latents": networks.vdvae.flat_latents(images, ItemNoise(rngs_of(ids), self.context.device)),
            "image": networks.image_tokens(images),
            "text": mean_over_captions(stimuli, ids, networks.text_tokens),
        }
        return {name: values.half().cpu().numpy() for name, values in found.items()}

    def _training_features(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress) -> Features:
        """Return :class:`Features` of training images, computed or read from where they are kept."""
        store = FeatureStore.of(self.context)
        return Features(**store.read(self.kind, stimuli, ids, partial(self._features, stimuli), progress))

    @property
    def kind(self) -> Kind:
        """What the features of training images depend on; a subclass with other networks must name another."""
        weights, size = FEATURE_WEIGHTS.get(self.preset, ()), ITEM_BYTES.get(self.preset, 0)
        return Kind("brain_diffuser", 1, weights, captions=True, item_bytes=size)

    def prepare(self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None) -> None:
        self._training_features(stimuli, ids, progress or Silent())

    def prepared_bytes(self, n_images: int) -> int:
        return n_images * self.kind.item_bytes

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        averaged = train.average_repeats()
        features = self._training_features(stimuli, tuple(averaged.stimulus.tolist()), progress)
        scaling = Scaling.of(averaged.betas, ddof=1)
        self.gram = gram_matrix(scaling(averaged.betas))
        unit = train.n_voxels if self.chosen.penalty_unit == "voxels" else 1
        penalties = [penalty * unit for penalty in self.chosen.penalties]
        predicted = (np.empty(0), np.empty(0))
        if self.chosen.normalise == "train":
            predicted = _left_out_moments(self.gram, features, penalties, progress)
        self.fitted = Fitted(
            scaling.mean,
            scaling.sd,
            np.asarray(features.latents),
            np.asarray(features.image),
            np.asarray(features.text),
            *_moments(features),
            *predicted,
            np.repeat(penalties, [part.shape[1] for part in features.flat]),
        )

    @property
    def fitted_features(self) -> Features:
        """The features of the training images that the fit has kept, in the order of their ids."""
        return Features(self.fitted.latents, self.fitted.image, self.fitted.text)

    def copies(
        self, stimuli: Stimuli, ids: Sequence[str], *, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        features = self.features(stimuli, ids, progress)
        return Reconstructions(self.render(features, ids, 1, seed, progress), tuple(ids))

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        images = self.render(self.predict(trials, progress), targets, n_samples, seed, progress)
        return Reconstructions(images, targets, attributes=self.attributes(trials))

    def predict(self, trials: Trials, progress: Progress | None = None) -> Features:
        """Return the features decoded from betas, one row per target.

        Raises
        ------
        UsageError
            If predictions are standardized over the rows and there are fewer than eight.
        """
        if self.chosen.normalise == "query" and len(trials) < FEWEST_ITEMS:
            raise UsageError(
                f"{self.name} standardizes its predictions over the targets of a call, and {len(trials)} are too few",
                remedy=f"Give at least {FEWEST_ITEMS} targets, or use the variant whose statistics come from training "
                "images: nsdbench.adapters.brain_diffuser:BrainDiffuserTrain.",
            )
        fitted, known = self.fitted, self.fitted_features
        x = trials.betas if is_standardized(trials) else Scaling(fitted.x_mean, fitted.x_sd)(trials.betas)
        decoded = predict(self.gram, x, Targets(known.flat), fitted.penalty, progress)
        restored = _restored(decoded, fitted, self.chosen.normalise)
        parts = np.split(restored, np.cumsum([part.shape[1] for part in known.flat])[:-1], axis=1)
        shapes = (known.latents.shape, known.image.shape, known.text.shape)
        return Features(
            *(part.reshape(len(x), *shape[1:]) for part, shape in zip(parts, shapes, strict=True))
        )

    def render(
        self,
        features: Features,
        targets: Sequence[str],
        n_samples: int,
        seed: int,
        progress: Progress | None = None,
    ) -> Images:
        """Return images of features, decoded or true, uint8 of shape (n, n_samples, side, side, 3).

        Parameters
        ----------
        features : Features
        targets : sequence of str
            Ids of the rows; with ``seed`` and the number of the sample they fix every draw.
        n_samples, seed : int
        progress : Progress, optional
        """
        device = self.context.device

        def make(row: int, _: slice, noise: ItemNoise) -> Images:
            latents, image, text = (
                torch.from_numpy(np.asarray(part[row : row + 1], np.float32)).to(device)
                for part in (features.latents, features.image, features.text)
            )
            return self._images(latents, image, text, noise)

        draws = Draws(targets, n_samples, seed, self.chosen.at_once, device)
        return draws.images(self.chosen.side, make, progress or Silent(), self.name)

    @torch.no_grad()
    def _images(self, latents: Tensor, image: Tensor, text: Tensor, noise: ItemNoise) -> Images:
        """Samples of one target, uint8 (n, side, side, 3)."""
        networks, side, n = self.networks, self.chosen.side, len(noise.rngs)
        first = networks.vdvae.picture(latents.expand(n, -1), noise)
        shape = networks.autoencoder.latent_shape(side)
        start = networks.autoencoder.encode_pixels(resized(first, side, BICUBIC), noise.normal(*shape))
        read_image, read_text = networks.denoiser.image_condition, networks.denoiser.text_condition
        given = {"image": read_image(image).expand(n, -1, -1), "text": read_text(text).expand(n, -1, -1)}
        nothing = {"image": read_image(networks.empty_image), "text": read_text(networks.empty_text)}
        sampling = self.chosen.sampling
        guide = guided(networks.denoiser, given, nothing, sampling.guidance, self.chosen.text_share)
        return networks.autoencoder.decode_pixels(denoise(guide, start, noise.normal(*shape), sampling))

    def attributes(self, trials: Trials) -> dict[str, JsonScalar]:
        """Return what a reader of the images of ``trials`` must know about their making."""
        chosen = self.chosen
        return {
            "preset": self.preset,
            "normalise": chosen.normalise,
            "query_items": len(trials) if chosen.normalise == "query" else None,
            "query_standardised": is_standardized(trials),
            "text_share": chosen.text_share,
            "penalties": ", ".join(f"{one:g}" for one in chosen.penalties),
            "penalty_unit": chosen.penalty_unit,
            **chosen.sampling.attributes,
        }

    def save(self, folder: Path) -> None:
        save_arrays(folder / "gram.npz", self.gram)
        save_arrays(folder / "features.npz", self.fitted)

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        adapter = cls(preset, context)
        adapter.gram = load_arrays(folder / "gram.npz", Gram)
        adapter.fitted = load_arrays(folder / "features.npz", Fitted)
        adapter.n_voxels = len(adapter.fitted.x_mean)
        return adapter


def _moments(features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation (ddof 0) of every target, side by side."""
    pairs = [(_mean(block), _sd(block)) for block in Targets(features.flat).blocks()]
    return np.concatenate([mean for mean, _ in pairs]), np.concatenate([sd for _, sd in pairs])


def _left_out_moments(
    gram: Gram, features: Features, penalties: Sequence[float], progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moments of the predictions for each training image by the ridge fitted to all others.

    With the smoother S of all rows these are ``(S Y - h Y) / (1 - h)``, h its diagonal (Allen's PRESS residuals).
    """
    pairs = []
    kinds = list(zip(features.flat, penalties, strict=True))
    for part, penalty in progress.track(kinds, "leaving training images out"):
        weights = smoother(gram, gram.x, penalty)
        own = np.diag(weights).copy()[:, None]
        np.fill_diagonal(weights, 0)
        for block in Targets(part).blocks():
            left_out = weights @ np.asarray(block, np.float64) / (1 - own)
            pairs.append((_mean(left_out), _sd(left_out)))
    return np.concatenate([mean for mean, _ in pairs]), np.concatenate([sd for _, sd in pairs])


def _mean(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(rows.mean(axis=0, dtype=np.float64))


def _sd(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(rows.std(axis=0, dtype=np.float64))


def _restored(decoded: Float, fitted: Fitted, normalise: str) -> Float:
    """Give predictions (m, n_targets) mean and deviation of the true features; one without deviation becomes the mean."""
    if normalise == "none":
        return decoded
    mean, sd = (_mean(decoded), _sd(decoded)) if normalise == "query" else (fitted.p_mean, fitted.p_sd)
    gain = np.where(sd < SMALLEST_SD, 0, fitted.y_sd / np.maximum(sd, SMALLEST_SD))
    return np.asarray((decoded - mean) * gain + fitted.y_mean, np.float32)


class BrainDiffuserTrain(BrainDiffuser):
    """Statistics of predictions from training images: targets do not affect each other, and one is enough."""

    name = "brain_diffuser_train"
    settings: ClassVar[Mapping[str, Settings]] = {
        preset: replace(one, normalise="train") for preset, one in BrainDiffuser.settings.items()
    }


class BrainDiffuserImage(BrainDiffuser):
    """Guided by image tokens alone."""

    name = "brain_diffuser_image"
    settings: ClassVar[Mapping[str, Settings]] = {
        preset: replace(one, text_share=0.0) for preset, one in BrainDiffuser.settings.items()
    }


class BrainDiffuserText(BrainDiffuser):
    """Guided by text tokens alone."""

    name = "brain_diffuser_text"
    settings: ClassVar[Mapping[str, Settings]] = {
        preset: replace(one, text_share=1.0) for preset, one in BrainDiffuser.settings.items()
    }
