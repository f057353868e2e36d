"""iCNN: VGG19 features of every layer decoded from betas, and an image optimised until its features are the decoded ones.

Shen, Horikawa, Majima & Kamitani 2019, PLOS Computational Biology 15:e1006633.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nsdbench.adapters.arrays import load_arrays, save_arrays
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.draws import Draws
from nsdbench.adapters.fastl2lir import fit_units
from nsdbench.adapters.featurestore import FeatureStore, image_kind, prepared_images
from nsdbench.adapters.icnn_networks import ENCODER, GENERATOR, Networks, mini_networks, published_networks
from nsdbench.adapters.inversion import (
    AdamW,
    Descent,
    FeatureScaling,
    display,
    invert,
    rescale,
    spread,
)
from nsdbench.adapters.nets import vgg
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import BICUBIC, Images
from nsdbench.adapters.scaling import Scaling, is_standardized
from nsdbench.adapters.targets import Targets
from nsdbench.adapters.unit_files import TrainingFeatures, UnitFiles
from nsdbench.errors import DataError
from nsdbench.types import JsonScalar, Progress, Reconstructions, Silent, Stimuli, Trials

GIB = 2**30
Features = Mapping[str, NDArray[np.float32]]
"""Layer to features before the ReLU, (n, channels, side, side) or (n, units)."""


@dataclass(frozen=True)
class Settings:
    """What can be chosen; a subclass of :class:`Icnn` with other ``settings`` is a variant.

    Attributes
    ----------
    layers : tuple of str
        Layers that are decoded.
    loop : Descent or AdamW
        How images are found.
    n_selected : int
        Voxels per unit; at least the number of voxels means all, with dense weights, which suits small data only.
    penalty : float
        Of the regression.
    scaling : str
        How decoded features get their contrast back, see :func:`nsdbench.adapters.inversion.rescale`.
    percent : pair of float
        Percentiles to which shown images are clipped.
    memory : int
        Bytes for the features of training images during the fit; it changes no result.
    at_once : int
        Samples of one target that are optimised together.
    """

    layers: tuple[str, ...]
    loop: Descent | AdamW
    n_selected: int = 500
    penalty: float = 100.0
    scaling: FeatureScaling = "feature_std_train_mean_center"
    percent: tuple[float, float] = (2.0, 98.0)
    memory: int = 8 * GIB
    at_once: int = 10


@dataclass(frozen=True)
class _Fitted:
    """What is stored beside the decoders.

    Attributes
    ----------
    x_mean, x_sd : float32 arrays of shape (n_voxels,)
        Over the training trials, ddof 1.
    layers : str array of shape (n_layers,)
    contrast : float64 array of shape (n_layers,)
        Mean :func:`~nsdbench.adapters.inversion.spread` of true features.
    """

    x_mean: NDArray[np.float32]
    x_sd: NDArray[np.float32]
    layers: NDArray[np.str_]
    contrast: NDArray[np.float64]


class Icnn(Adapter):
    """iCNN, in five stages.

    (1) Features of training images in each layer, before the ReLU. (2) One regression per unit, from the voxels that
    correlate best with it, on single trials. (3) The contrast of decoded features is restored, layer by layer. (4) The
    code of a generator is optimised until the features of its image match. (5) The contrast of the image is stretched.

    Memory of a fit beside :func:`~nsdbench.adapters.fastl2lir.fit_units`: ``Settings.memory``, and training images at the
    size of the network unless they are kept in files (``Context.features``); the network sees all images once per pass. Decoders are files, 6 bytes per unit and selected
    voxel (8 beyond 65,536 voxels): 44.9 GB for the published layers, in ``TMPDIR`` until they are saved.
    """

    name = "icnn"
    paper = "Shen et al. 2019, PLOS Comput Biol: Deep image reconstruction from human brain activity"
    presets = ("published", "mini")
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "published": (ENCODER, GENERATOR),
        "mini": ("mini_vgg-v1", "mini_generator-v1"),
    }
    settings: ClassVar[Mapping[str, Settings]] = {
        "published": Settings(vgg.PUBLISHED.layers, Descent()),
        "mini": Settings(vgg.MINI.layers, Descent(30, rate=0.3), n_selected=100, memory=GIB // 2),
    }

    fitted: _Fitted
    units: UnitFiles
    _folder: tempfile.TemporaryDirectory[str]

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
        if self.preset == "mini":
            return mini_networks(self.context.device)
        return published_networks(self.context.device, self.context.weights_dir)

    def features(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress | None = None) -> Features:
        """Return the true features of stimuli, which the decoders learn and :meth:`render` turns into images."""
        found = self._training_features(FeatureStore(None), stimuli, ids, progress or Silent())
        return self._by_layer(found.units(0, found.n_units))

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        store = FeatureStore.of(self.context)
        features = self._training_features(store, stimuli, train.targets, progress)
        scaling = Scaling.of(train.betas, ddof=1)
        known = self.networks.contrast or self._contrast(features)
        layers = list(features.sizes)
        self.fitted = _Fitted(
            scaling.mean, scaling.sd, np.array(layers), np.array([known[name] for name in layers])
        )
        k = min(self.chosen.n_selected, train.n_voxels)
        decoders = fit_units(
            scaling(train.betas),
            Targets(features.passes, np.searchsorted(np.array(train.targets), train.stimulus)),
            penalty=self.chosen.penalty,
            n_selected=k,
            workers=len(os.sched_getaffinity(0)),
            progress=progress,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="nsdbench-icnn-")  # lives as long as the adapter
        self.units = UnitFiles.write(Path(self._folder.name), decoders, features.n_units, k, train.n_voxels)

    def copies(
        self, stimuli: Stimuli, ids: Sequence[str], *, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        features = self.features(stimuli, ids, progress)
        return Reconstructions(self.render(features, ids, 1, seed, progress), tuple(ids))

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        wanted = self.restore_contrast(self.predict(trials))
        images = self.render(wanted, targets, n_samples, seed, progress)
        return Reconstructions(images, targets, attributes=self._attributes(trials))

    def predict(self, trials: Trials) -> Features:
        """Return the features decoded from betas."""
        x = trials.betas
        if not is_standardized(trials):
            x = Scaling(self.fitted.x_mean, self.fitted.x_sd)(x)
        return self._by_layer(self.units.predict(x))

    def restore_contrast(self, decoded: Features) -> Features:
        """Return decoded features, rescaled; an item never depends on others."""
        means = self._by_layer(np.array(self.units.scales[None, :, 1]))
        contrast = dict(zip(self.fitted.layers.tolist(), self.fitted.contrast.tolist(), strict=True))
        how = self.chosen.scaling
        return {
            name: rescale(torch.from_numpy(f), contrast[name], torch.from_numpy(means[name]), how).numpy()
            for name, f in decoded.items()
        }

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
        features : mapping of layer to features
        targets : sequence of str
            Ids of the rows; with ``seed`` and the number of the sample they fix every draw.
        n_samples, seed : int
        progress : Progress, optional
        """
        network, maker, device = self.networks.vgg, self.networks.generator, self.context.device

        def make(row: int, _: slice, noise: ItemNoise) -> Images:
            wanted = {name: torch.from_numpy(f[row : row + 1]).to(device) for name, f in features.items()}
            found = invert(maker, network, wanted, noise.normal(maker.config.dense[0]), self.chosen.loop)
            pixels = network.grey_levels(found).permute(0, 2, 3, 1).cpu().numpy()
            return np.stack([display(one, self.chosen.percent) for one in pixels])

        draws = Draws(targets, n_samples, seed, self.chosen.at_once, device)
        return draws.images(maker.config.crop, make, progress or Silent(), self.name)

    def prepare(self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None) -> None:
        store = FeatureStore.of(self.context)
        prepared_images(store, stimuli, ids, self._size, BICUBIC, progress or Silent())

    def prepared_bytes(self, n_images: int) -> int:
        return n_images * image_kind(self._size, BICUBIC).item_bytes

    @property
    def _size(self) -> int:
        """Pixels per side of the images that the network reads."""
        return (vgg.MINI if self.preset == "mini" else vgg.PUBLISHED).size

    def _training_features(
        self, store: FeatureStore, stimuli: Stimuli, ids: Sequence[str], progress: Progress
    ) -> TrainingFeatures:
        side = self.networks.vgg.config.size
        images = prepared_images(store, stimuli, ids, side, BICUBIC, progress)
        return TrainingFeatures(self.networks.vgg, self.chosen.layers, images, self.chosen.memory)

    def _contrast(self, features: TrainingFeatures) -> dict[str, float]:
        """Return the mean contrast of the true features of training images, by layer."""
        ddof = 0 if self.chosen.scaling == "shen" else 1
        sums = dict.fromkeys(features.sizes, 0.0)
        for _, found in features.batches(list(features.sizes)):
            for name, values in found.items():
                sums[name] += float(spread(values, ddof).sum(dtype=torch.float64))
        return {name: total / len(features.images) for name, total in sums.items()}

    def _by_layer(self, units: NDArray[np.float32]) -> Features:
        """Return maps by layer for units in a row, (n, n_units)."""
        config = self.networks.vgg.config
        shapes = {name: config.shapes[name] for name in config.layers if name in self.chosen.layers}
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        if units.shape[1] != ends[-1]:
            raise DataError(
                f"the decoders have {units.shape[1]} units, the layers {ends[-1]}",
                remedy="They were fitted with other settings; fit the model again.",
            )
        parts = np.split(units, ends[:-1], axis=1)
        return {name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}

    def _attributes(self, trials: Trials) -> dict[str, JsonScalar]:
        """What a reader of the images must know about their making."""
        loop = asdict(self.chosen.loop)
        return {
            "preset": self.preset,
            "layers": ",".join(self.chosen.layers),
            "n_selected": self.chosen.n_selected,
            "penalty": self.chosen.penalty,
            "feature_scaling": self.chosen.scaling,
            "query_standardised": is_standardized(trials),
            "loop": type(self.chosen.loop).__name__,
            **{f"loop_{name}": value for name, value in loop.items()},
            "display_percentiles": "{}..{}".format(*self.chosen.percent),
        }

    def save(self, folder: Path) -> None:
        save_arrays(folder / "icnn.npz", self.fitted)
        self.units.save(folder)

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        adapter = cls(preset, context)
        adapter.fitted = load_arrays(folder / "icnn.npz", _Fitted)
        adapter.n_voxels = len(adapter.fitted.x_mean)
        adapter.units = UnitFiles.open(folder, adapter.n_voxels)
        return adapter
