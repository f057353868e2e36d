"""The networks of iCNN with their weights: published files, or the miniatures that come with nsdbench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nsdbench import weights
from nsdbench.adapters.nets import generator, vgg
from nsdbench.adapters.nets.checkpoints import filled, mini, on_meta
from nsdbench.adapters.nets.generator import Generator
from nsdbench.adapters.nets.vgg import Vgg
from nsdbench.archives import unpacked
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_state

ENCODER, GENERATOR = "vgg19-caffe", "fc7-generator"  # zip archives
ENCODER_FILE, GENERATOR_FILE = "VGG_ILSVRC_19_layers.pt", "generator_relu7.pt"
CONTRAST_FILE = "estimated_cnn_feat_std_VGG_ILSVRC_19_layers_ImgSize_224x224_chwise_dof1.mat"
BOUNDS = Path(__file__).parent / "nets" / "fc7_bounds.txt"


@dataclass(frozen=True)
class Networks:
    """What iCNN needs.

    Attributes
    ----------
    vgg, generator : Vgg, Generator
        Frozen, on one device.
    contrast : mapping of layer to float, or None
        Mean contrast of true features over many images; None if it has to be taken from the training images.
    """

    vgg: Vgg
    generator: Generator
    contrast: Mapping[str, float] | None = None


def mini_networks(device: str = "cpu") -> Networks:
    """Return the miniatures."""
    return Networks(
        mini(vgg.mini_vgg(), "mini_vgg-v1", device),
        mini(generator.mini_generator(), "mini_generator-v1", device),
    )


def published_networks(device: str = "cpu", weights_dir: Path | None = None) -> Networks:
    """Return the networks that the authors publish.

    Raises
    ------
    WeightsError
        If a file is missing, altered, or holds something else.
    """
    folder = weights.folder(weights_dir)
    weights.require((ENCODER, GENERATOR), folder)
    encoder, images = (weights.locate(id, folder).path for id in (ENCODER, GENERATOR))
    with unpacked(encoder, ENCODER_FILE) as path:
        large = filled(on_meta(lambda: Vgg(vgg.PUBLISHED)), load_state(path), ENCODER, device=device)
    with unpacked(images, GENERATOR_FILE) as path:
        state = generator.without_copies(load_state(path)) | {"upper": published_bounds()}
    maker = filled(on_meta(lambda: Generator(generator.PUBLISHED)), state, GENERATOR, device=device)
    return Networks(large, maker, published_contrast(encoder))


def published_bounds() -> Tensor:
    """Return the upper bounds of the published generator's code, mean + 3 SD over images, shape (4096,)."""
    return torch.from_numpy(np.loadtxt(BOUNDS, np.float32))


def published_contrast(archive: Path) -> dict[str, float]:
    """Return the authors' mean contrast of true features over 10,000 images; entries per channel are averaged."""
    from scipy.io import loadmat

    with unpacked(archive, CONTRAST_FILE) as path:
        try:
            found = loadmat(path)
        except (ValueError, TypeError, NotImplementedError, OSError) as error:
            raise WeightsError(f"{CONTRAST_FILE} in {archive} is damaged ({error})") from error
    missing = [name for name in vgg.PUBLISHED.layers if name not in found]
    if missing:
        raise WeightsError(f"{CONTRAST_FILE} in {archive} has no entry for {', '.join(missing)}")
    return {name: float(np.mean(found[name])) for name in vgg.PUBLISHED.layers}
