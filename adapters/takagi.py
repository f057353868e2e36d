"""Takagi & Nishimoto 2023: a coarse image from early areas, its meaning from ventral ones, joined by Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from nsdbench.adapters.draws import Draws
from nsdbench.adapters.featurestore import FeatureStore, Kind
from nsdbench.adapters.linear import fit_weights, gram_matrix
from nsdbench.adapters.nets import clip, clip_published, versatile
from nsdbench.adapters.nets.autoencoder import Autoencoder, mini_autoencoder, published_autoencoder
from nsdbench.adapters.nets.checkpoints import mini, published_dtype
from nsdbench.adapters.nets.ddim import Denoiser, Sampling, denoise, guided
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import BICUBIC, LANCZOS, Images, resized
from nsdbench.adapters.nets.unet import MiniDenoiser
from nsdbench.adapters.ridge_cv import choose_penalties
from nsdbench.adapters.rows import Rows
from nsdbench.adapters.scaling import Scaling, is_standardized
from nsdbench.adapters.stimuli import batches, images_of, mean_over_captions, rngs_of
from nsdbench.adapters.targets import Targets
from nsdbench.errors import DataError
from nsdbench.types import JsonScalar, Progress, Reconstructions, Silent, Stimuli, Trials

Float = NDArray[np.float32]
REGIONS = {"z": "stream_early", "c": "stream_ventral"}
FEATURE_WEIGHTS = {
    "published": ("stable-diffusion-v1-4-vae", clip_published.WEIGHTS_ID),
    "mini": ("mini_autoencoder-v1", "mini_tokens-v1"),
}
ITEM_BYTES = {"published": 4 * (4 * 40**2 + 77 * 768), "mini": 4 * (4 * 10**2 + 16 * 128)}
"""Of the features of one image."""
FOLDS = 5


@dataclass(frozen=True)
class Settings:
    """What the paper leaves to choose, and where its code and its equations differ.

    Attributes
    ----------
    coarse_side, side : int
        Pixels per side of the images whose latents are decoded from betas, and of those that are generated.
    sampling : Sampling
    penalties : tuple of float
        Candidates for each target.
    intercept : {"published", "corrected"}
        The published ridge has no intercept, so that decoded features lack their mean over the training images;
        ``"corrected"`` adds it.
    use : {"zc", "z", "c"}
        Diffusion of the coarse image under the decoded text (the method); the coarse image as it is; or diffusion
        of pure noise under the decoded text.
    at_once : int
        Samples of one target that are computed together.
    """

    coarse_side: int
    side: int
    sampling: Sampling
    penalties: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    intercept: Literal["published", "corrected"] = "published"
    use: Literal["zc", "z", "c"] = "zc"
    at_once: int = 10


@dataclass(frozen=True)
class Networks:
    """The pretrained parts.

    Attributes
    ----------
    autoencoder : Autoencoder
    denoiser : Denoiser
        Reads text conditions.
    text_states : callable
        From n captions to hidden states (n, tokens, channels).
    empty_text : tensor of shape (1, tokens, channels)
        Hidden states of the empty caption, for guidance.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    text_states: Callable[[Sequence[str]], Tensor]
    empty_text: Tensor


@dataclass(frozen=True)
class Features:
    """What is decoded from betas.

    Attributes
    ----------
    z : float32 array of shape (n, channels, height, width)
        Latents of the coarse image.
    c : float32 array of shape (n, tokens, channels)
        Hidden states of the text.
    """

    z: Float
    c: Float


@dataclass(frozen=True)
class Decoder:
    """A fitted map from the voxels of one region to one feature.

    Attributes
    ----------
    voxels : bool array of shape (n_voxels,)
        The v columns of the betas that are read.
    x_mean, x_sd : float32 array of shape (v,)
        Over the training trials.
    coef : float32 array of shape (v, n_targets)
    y_mean : float32 array of shape (n_targets,)
        Mean of the feature over the training trials.
    penalty : float64 array of shape (n_targets,)
    shape : int array
        Shape of one feature.
    """

    voxels: NDArray[np.bool_]
    x_mean: Float
    x_sd: Float
    coef: Float
    y_mean: Float
    penalty: NDArray[np.float64]
    shape: NDArray[np.int64]

    def predict(self, trials: Trials, *, intercept: bool) -> Float:
        """Return features of shape (n, *shape)."""
        x = trials.betas[:, self.voxels]
        if not is_standardized(trials):
            x = Scaling(self.x_mean, self.x_sd)(x)
        decoded = np.stack([row @ self.coef for row in x])  # one by one: a row rounds alike in any company
        return (decoded + self.y_mean if intercept else decoded).reshape(len(x), *self.shape)


class Takagi(Adapter):
    """Takagi & Nishimoto's first method (CVPR 2023).

    Latents ``z`` of a small image are decoded from early visual cortex and the text condition ``c`` of its captions from
    ventral cortex, by ridge regression on single trials. The image that ``z`` decodes to is blurred: it is enlarged,
    encoded again, taken most of the way to noise, and denoised under ``c``.

    Training draws (posterior samples of the autoencoder) are seeded by image, those of a reconstruction by target
    and sample; the original seeds once per run. Peak memory of a fit is that of
    :mod:`nsdbench.adapters.linear` plus weights and features of all training images.
    """

    name = "takagi"
    version = 2
    paper = "Takagi & Nishimoto 2023, CVPR: High-resolution image reconstruction with latent diffusion models"
    reads_captions = True
    reads_rois = ("streams",)
    presets = ("published", "mini")
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "published": ("stable-diffusion-v1-4-unet", "stable-diffusion-v1-4-vae", clip_published.WEIGHTS_ID),
        "mini": ("mini_denoiser-v1", "mini_autoencoder-v1", "mini_tokens-v1"),
    }
    settings: ClassVar[Mapping[str, Settings]] = {
        "published": Settings(320, 512, Sampling(50, 0.8, 5.0), at_once=5),
        "mini": Settings(40, 64, Sampling(12, 0.8, 5.0, "v_prediction")),
    }

    decoders: Mapping[str, Decoder]

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
        return {"published": _published, "mini": _mini}[self.preset](self.context)

    def features(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress | None = None) -> Features:
        """Return the true features of stimuli, which the decoders learn and :meth:`render` turns into images."""
        parts = [self._features(stimuli, some) for some in batches(ids, progress)]
        return Features(*(np.concatenate([part[name] for part in parts]) for name in REGIONS))

    def _features(self, stimuli: Stimuli, ids: Sequence[str]) -> dict[str, Float]:
        autoencoder = self.networks.autoencoder
        images = resized(images_of(stimuli, ids), self.chosen.coarse_side, LANCZOS)
        shape = autoencoder.latent_shape(self.chosen.coarse_side)
        z = autoencoder.encode_pixels(images, ItemNoise(rngs_of(ids), self.context.device).normal(*shape))
        c = mean_over_captions(stimuli, ids, self.networks.text_states)
        return {"z": z.cpu().numpy(), "c": c.cpu().numpy()}

    def _training_features(
        self, stimuli: Stimuli, ids: Sequence[str], progress: Progress
    ) -> Mapping[str, Float | Rows]:
        """Return :class:`Features` of training images by name, computed or read from where they are kept."""
        store = FeatureStore.of(self.context)
        return store.read(self.kind, stimuli, ids, partial(self._features, stimuli), progress)

    @property
    def kind(self) -> Kind:
        """What the features of training images depend on; a subclass with other networks must name another."""
        side, weights = self.chosen.coarse_side, FEATURE_WEIGHTS.get(self.preset, ())
        size = ITEM_BYTES.get(self.preset, 0)
        return Kind("takagi", 1, weights, {"coarse_side": side}, captions=True, item_bytes=size)

    def prepare(self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None) -> None:
        self._training_features(stimuli, ids, progress or Silent())

    def prepared_bytes(self, n_images: int) -> int:
        return n_images * self.kind.item_bytes

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        voxels = {name: _voxels(train, region) for name, region in REGIONS.items()}
        features = self._training_features(stimuli, train.targets, progress)
        rows = np.searchsorted(np.array(train.targets), train.stimulus)
        self.decoders = {
            name: _fit(train.betas, columns, features[name], rows, self.chosen, progress)
            for name, columns in voxels.items()
        }

    def copies(
        self, stimuli: Stimuli, ids: Sequence[str], *, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        features = self.features(stimuli, ids, progress)
        return Reconstructions(self.render(features, ids, 1, seed, progress), tuple(ids))

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        images = self.render(self.predict(trials), targets, n_samples, seed, progress)
        return Reconstructions(images, targets, attributes=self.attributes(trials))

    def predict(self, trials: Trials) -> Features:
        """Return the features decoded from betas."""
        add_mean = self.chosen.intercept == "corrected"
        return Features(**{n: d.predict(trials, intercept=add_mean) for n, d in self.decoders.items()})

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
            z, c = (torch.from_numpy(values[row : row + 1]).to(device) for values in (features.z, features.c))
            return self._images(z, c, noise)

        draws = Draws(targets, n_samples, seed, self.chosen.at_once, device)
        return draws.images(self.chosen.side, make, progress or Silent(), self.name)

    @torch.no_grad()
    def _images(self, z: Tensor, c: Tensor, noise: ItemNoise) -> Images:
        """Samples of one target, uint8 (n, side, side, 3), from its latents and its text states."""
        autoencoder, side, sampling = self.networks.autoencoder, self.chosen.side, self.chosen.sampling
        coarse = resized(autoencoder.decode_pixels(z), side, BICUBIC)
        if self.chosen.use == "z":
            return np.repeat(coarse, len(noise.rngs), axis=0)
        shape = autoencoder.latent_shape(side)
        start = autoencoder.encode_pixels(coarse, noise.normal(*shape))
        if self.chosen.use == "c":
            start = torch.zeros_like(start)
            sampling = replace(sampling, strength=1.0, noise_level="first_step")
        read = partial(self.networks.denoiser.text_condition, states=True)
        given = {"text": read(c).expand(len(start), -1, -1)}
        predict = guided(
            self.networks.denoiser, given, {"text": read(self.networks.empty_text)}, sampling.guidance, 1.0
        )
        return autoencoder.decode_pixels(denoise(predict, start, noise.normal(*shape), sampling))

    def attributes(self, trials: Trials) -> dict[str, JsonScalar]:
        """Return what a reader of the images of ``trials`` must know about their making."""
        return {
            "preset": self.preset,
            "use": self.chosen.use,
            "intercept": self.chosen.intercept,
            "query_standardised": is_standardized(trials),
            "voxels_within": str(trials.provenance.get("roi", "unknown")),
            "region_z": REGIONS["z"],
            "region_c": REGIONS["c"],
            **self.chosen.sampling.attributes,
        }

    def save(self, folder: Path) -> None:
        for name, decoder in self.decoders.items():
            save_arrays(folder / f"{name}.npz", decoder)

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        adapter = cls(preset, context)
        adapter.decoders = {name: load_arrays(folder / f"{name}.npz", Decoder) for name in REGIONS}
        adapter.n_voxels = len(adapter.decoders["z"].voxels)
        return adapter


def _voxels(train: Trials, region: str) -> NDArray[np.bool_]:
    """Return the mask of a region, or say that the data set lacks it."""
    mask = train.rois.get(region)
    if mask is None or not mask.any():
        known = ", ".join(name for name, other in train.rois.items() if other.any())
        raise DataError(
            f"takagi decodes from {region}, but these betas have no such voxels (regions: {known or 'none'})",
            remedy="The atlas volume streams.nii.gz of the subject is needed.",
        )
    return mask


def _fit(
    betas: Float,
    voxels: NDArray[np.bool_],
    feature: Float | Rows,
    rows: NDArray[np.int64],
    settings: Settings,
    progress: Progress,
) -> Decoder:
    """Fit one feature (n_images, ...) on single trials, whose images are ``rows``."""
    x = betas[:, voxels]
    scaling = Scaling.of(x, ddof=0)
    x = scaling(x)
    flat = feature.reshape(len(feature), -1)
    targets = Targets(flat, rows)
    penalty = choose_penalties(x, targets, np.array(settings.penalties), n_folds=FOLDS, progress=progress)
    coef = fit_weights(gram_matrix(x, intercept=False), targets, penalty).coef
    counts = np.bincount(rows, minlength=len(flat))
    mean = np.concatenate([counts @ block / len(rows) for block in targets.blocks()]).astype(np.float32)
    return Decoder(voxels, scaling.mean, scaling.sd, coef, mean, penalty, np.array(feature.shape[1:]))


def _published(context: Context) -> Networks:
    where, device = context.weights_dir, context.device
    dtype = published_dtype(device)
    text_states = partial(clip_published.text_states, clip_published.load(where, device))
    return Networks(
        published_autoencoder(f"{versatile.STABLE}-vae", where, device=device, dtype=dtype),
        versatile.stable_diffusion(where, device=device, dtype=dtype),
        text_states,
        text_states([""]),
    )


def _mini(context: Context) -> Networks:
    text_states = partial(clip.text_states, mini(clip.mini_clip(), "mini_tokens-v1", context.device))
    return Networks(
        mini(mini_autoencoder(), "mini_autoencoder-v1", context.device),
        mini(MiniDenoiser(), "mini_denoiser-v1", context.device),
        text_states,
        text_states([""]),
    )


class TakagiCoarse(Takagi):
    """The coarse image alone, without diffusion (``z``)."""

    name = "takagi_z"
    stochastic = False
    settings: ClassVar[Mapping[str, Settings]] = {
        preset: replace(one, use="z") for preset, one in Takagi.settings.items()
    }


class TakagiText(Takagi):
    """Diffusion of pure noise under the decoded text (``c``)."""

    name = "takagi_c"
    settings: ClassVar[Mapping[str, Settings]] = {
        preset: replace(one, use="c") for preset, one in Takagi.settings.items()
    }


class TakagiCorrected(Takagi):
    """The method with the intercept that its ridge lacks."""

    name = "takagi_corrected"
    settings: ClassVar[Mapping[str, Settings]] = {
        preset: replace(one, intercept="corrected") for preset, one in Takagi.settings.items()
    }
