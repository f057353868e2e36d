"""What a metric is: the features it looks at and the rule that turns them into a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from nsdbench.metrics.profiles import Profile
    from nsdbench.metrics.resize import Views


@dataclass(frozen=True)
class Features:
    """Which features of an image a metric reads.

    Attributes
    ----------
    source : str
        Name of a feature network, or of the function ``extract``.
    nodes : tuple of str
        Nodes of that source, in the order in which the metric wants them.
    extract : callable or None
        For features without weights: ``extract(views)`` gives float32 ``(n, ...)`` tensors per node. None means
        that ``source`` is a network of :mod:`nsdbench.metrics.nets`.
    """

    source: str
    nodes: tuple[str, ...]
    extract: Callable[[Views], Mapping[str, torch.Tensor]] | None = None


@dataclass(frozen=True)
class ByCorrelation:
    """A metric that is a function of R, the correlations between ground-truth and reconstruction features.

    ``rule`` says which: ``"correlation"`` takes R of the pair, ``"distance"`` one minus it, and
    ``"identification"`` the share of other ground truths with a smaller R (two-way identification).
    The features have one node, which is flattened.
    """

    features: Features
    rule: Literal["correlation", "identification", "distance"]


@dataclass(frozen=True)
class ByPair:
    """A metric that looks at one pair of images.

    Attributes
    ----------
    features : Features
        What it reads of each image.
    prepare : callable
        ``prepare(activations, profile)`` does once per image what does not depend on the partner;
        ``activations`` holds one float32 array per node.
    compare : callable
        ``compare(truth, reconstruction)`` of two prepared images.
    """

    features: Features
    prepare: Callable[[Sequence[NDArray[np.float32]], Profile], Any]
    compare: Callable[[Any, Any], float]


@dataclass(frozen=True)
class ByEmbedding:
    """A metric that retrieves by cosine similarity of brain-predicted and true embeddings.

    ``query`` says which side asks: ``"brain"`` looks for its image among images, ``"image"`` for its brain embedding
    among brain embeddings.
    """

    query: Literal["brain", "image"]


@dataclass(frozen=True)
class TextMeasure:
    """Compares texts: ``prepare(texts)`` does once per text what does not depend on the partner, ``compare(reference,
    caption)`` scores two prepared ones."""

    prepare: Callable[[Sequence[str]], Sequence[Any]]
    compare: Callable[[Any, Any], float]


@dataclass(frozen=True)
class ByCaption:
    """A metric that compares decoded captions with reference captions.

    Attributes
    ----------
    load : callable
        ``load(paths, device)`` gives the measure; ``paths`` are the weights files of the table entry, in its order.
    reference : {"human", "machine"}
        The first human caption of the ground truth, or what a captioner says of it.
    """

    load: Callable[[Sequence[Path], str], TextMeasure]
    reference: Literal["human", "machine"] = "human"


ImageMetric = ByCorrelation | ByPair
Metric = ImageMetric | ByEmbedding | ByCaption
