"""Table of every metric: what it is called, where it lives, which way is better. Imports nothing heavy."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal

from nsdbench.errors import UsageError

if TYPE_CHECKING:
    from nsdbench.metrics.metric import Metric
    from nsdbench.types import Direction

Kind = Literal["pixel", "identification", "distance", "perceptual", "retrieval", "caption"]
Given = Literal["embeddings", "captions", "human captions", "machine captions"]
GROUP = "nsdbench.metrics"


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric of the table.

    Attributes
    ----------
    target : str
        ``"package.module:attribute"`` of the :class:`~nsdbench.metrics.metric.Metric`, imported on use.
    summary : str
        One line for ``nsdbench metrics``.
    direction : {"higher", "lower"}
        Which values are better.
    kind : {"pixel", "identification", "distance", "perceptual", "retrieval", "caption"}
        Family of the metric; only ``"identification"`` and ``"retrieval"`` depend on a pool of distractors.
    version : int
        Raised by one whenever a value can change.
    nets : tuple of str
        Feature networks whose weights the metric needs.
    chance : float or None
        Expected value without information; None where it depends on the pool (retrieval: one over the number of
        alternatives) or only mismatched pairs can tell. The ``floor`` of a row has it in any case.
    weights : tuple of str
        Ids of weights that the metric reads without a feature network.
    needs : tuple of str
        What must be there besides images: ``"embeddings"`` of brains and ground truths, decoded ``"captions"``,
        ``"human captions"`` or ``"machine captions"`` of the ground truths.
    """

    target: str
    summary: str
    direction: Direction
    kind: Kind
    version: int = 1
    nets: tuple[str, ...] = ()
    chance: float | None = None
    weights: tuple[str, ...] = ()
    needs: tuple[Given, ...] = ()

    def feasible(self, given: Iterable[str]) -> bool:
        """Whether the metric can be computed of reconstructions that bring what ``given`` names."""
        return set(self.needs) <= set(given)


def _two_way(target: str, summary: str, *nets: str) -> Entry:
    return Entry(f"nsdbench.metrics.{target}", summary, "higher", "identification", nets=nets, chance=0.5)


def _distance(target: str, summary: str, *nets: str) -> Entry:
    return Entry(f"nsdbench.metrics.{target}", summary, "lower", "distance", nets=nets)


def _retrieval(target: str, summary: str) -> Entry:
    return Entry(f"nsdbench.metrics.{target}", summary, "higher", "retrieval", needs=("embeddings",))


def _caption(name: str, summary: str, *weights: str) -> dict[str, Entry]:
    """Return both forms of a caption metric: against human captions, and against those of a captioner."""
    needs: Mapping[str, tuple[Given, ...]] = {
        "": ("captions", "human captions"),
        "_git": ("captions", "machine captions"),
    }
    return {
        f"caption_{name}{form}": Entry(
            f"nsdbench.metrics.captions:{name.upper()}{form.upper()}",
            f"captions: {summary}{', reference by a captioner' if form else ''}",
            "higher",
            "caption",
            weights=weights,
            needs=given,
        )
        for form, given in needs.items()
    }


METRICS: Mapping[str, Entry] = {
    "pixcorr": Entry(
        "nsdbench.metrics.pixel:PIXCORR", "Pearson correlation of RGB pixels", "higher", "pixel"
    ),
    "ssim": Entry("nsdbench.metrics.pixel:SSIM", "structural similarity of luma", "higher", "pixel"),
    "alexnet2": _two_way("identification:ALEXNET2", "two-way identification, AlexNet conv2", "alexnet"),
    "alexnet5": _two_way("identification:ALEXNET5", "two-way identification, AlexNet conv5", "alexnet"),
    "inception": _two_way(
        "identification:INCEPTION", "two-way identification, Inception-v3 pool", "inception"
    ),
    "clip": _two_way("identification:CLIP", "two-way identification, CLIP ViT-L/14 image embedding", "clip"),
    "effnet": _distance("distance:EFFNET", "correlation distance, EfficientNet-B1 pool", "effnet"),
    "swav": _distance("distance:SWAV", "correlation distance, SwAV ResNet-50 pool", "swav"),
    "rmse": Entry("nsdbench.metrics.pixel:RMSE", "root mean square error of RGB pixels", "lower", "pixel"),
    "psnr": Entry("nsdbench.metrics.pixel:PSNR", "peak signal-to-noise ratio in dB", "higher", "pixel"),
    "lpips": Entry(
        "nsdbench.metrics.lpips:LPIPS",
        "learned perceptual distance, AlexNet, version 0.1",
        "lower",
        "perceptual",
        nets=("alexnet",),
    ),
    "pixel_2way": _two_way("pixel:PIXEL_2WAY", "two-way identification by RGB pixels"),
    "gabor_2way": _two_way("gabor:GABOR_2WAY", "two-way identification by pooled Gabor energy"),
    "mini_alexnet2": _two_way(
        "identification:MINI_ALEXNET2", "alexnet2 of simulated scenes: small AlexNet, conv2", "mini_alexnet"
    ),
    "mini_alexnet5": _two_way(
        "identification:MINI_ALEXNET5", "alexnet5 of simulated scenes: small AlexNet, conv5", "mini_alexnet"
    ),
    "mini_inception": _two_way(
        "identification:MINI_INCEPTION",
        "inception of simulated scenes: small Inception, pool",
        "mini_inception",
    ),
    "mini_clip": _two_way(
        "identification:MINI_CLIP", "clip of simulated scenes: small image-text model", "mini_clip"
    ),
    "mini_effnet": _distance(
        "distance:MINI_EFFNET", "effnet of simulated scenes: small EfficientNet, pool", "mini_effnet"
    ),
    "mini_swav": _distance(
        "distance:MINI_SWAV", "swav of simulated scenes: small SwAV ResNet, pool", "mini_swav"
    ),
    "retrieval_image_top1": _retrieval(
        "retrieval:IMAGE_TOP1", "retrieval of the image by the brain embedding"
    ),
    "retrieval_brain_top1": _retrieval(
        "retrieval:BRAIN_TOP1", "retrieval of the brain embedding by the image"
    ),
    **_caption("rouge1", "ROUGE-1 F1"),
    **_caption("rougeL", "ROUGE-L F1"),
    **_caption("meteor", "METEOR with WordNet synonyms", "nltk-wordnet"),
    **_caption("sentence", "cosine of all-MiniLM-L6-v2", "all-minilm-l6-v2", "all-minilm-l6-v2-vocab"),
    **_caption("clip_b", "cosine of CLIP ViT-B/32 text embeddings", "clip-vit-b32-openai"),
    **_caption("clip_l", "cosine of CLIP ViT-L/14 text embeddings", "clip-vit-l14-openai"),
}
NET_WEIGHTS: Mapping[str, Mapping[str, str]] = {
    "alexnet": {"": "alexnet-imagenet1k-v1"},
    "inception": {"": "inception-v3-imagenet1k-v1"},
    "clip": {"": "clip-vit-l14-openai"},
    "effnet": {
        "": "efficientnet-b1-imagenet1k-v2",
        "v2": "efficientnet-b1-imagenet1k-v2",
        "v1": "efficientnet-b1-imagenet1k-v1",
    },
    "swav": {"": "swav-resnet50-800ep"},
    "mini_alexnet": {"": "mini_alexnet-v1"},
    "mini_inception": {"": "mini_inception-v1"},
    "mini_clip": {"": "mini_clip-v1"},
    "mini_effnet": {"": "mini_effnet-v1"},
    "mini_swav": {"": "mini_swav-v1"},
}
"""Weights id per feature network and variant; ``""`` is the canonical variant."""
HEADLINE = ("pixcorr", "ssim", "alexnet2", "alexnet5", "inception", "clip", "effnet", "swav")
WEIGHTS_FREE = ("pixcorr", "ssim", "pixel_2way", "gabor_2way")
MINI = ("mini_alexnet2", "mini_alexnet5", "mini_inception", "mini_clip", "mini_effnet", "mini_swav")
"""Metrics whose networks know simulated scenes and nothing else."""
SIM_DEFAULT = ("pixcorr", "ssim", *MINI)
WHERE_POSSIBLE = ("retrieval_image_top1", "retrieval_brain_top1", "caption_rouge1", "caption_rougeL")
"""Metrics that are computed by default for every model that gives what they need."""


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """One check for spurious reconstruction: what it asks, for ``nsdbench metrics``, and what it needs besides images."""

    summary: str
    needs: str = "features"


CHECKS: Mapping[str, CheckEntry] = {
    "within_cluster_2way": CheckEntry("are targets told apart from others of the same cluster or set?"),
    "cluster_2way_gap": CheckEntry("do distractors of other clusters explain two-way identification?"),
    "nn_baseline": CheckEntry(
        "do reconstructions beat the training images nearest to them?", "features, training images"
    ),
    "novelty_id": CheckEntry(
        "is the target nearer to its reconstruction than training images are?", "features, training images"
    ),
    "output_rank": CheckEntry("do reconstructions vary in as many dimensions as their targets?"),
    "recovery_ceiling": CheckEntry(
        "what would the generator score if features were decoded without error?", "features, generator"
    ),
    "set_oracle_floor": CheckEntry("does a decoder that knows only the set or cluster score as much?"),
}
"""Checks of a run for spurious reconstruction (``nsdbench inspect``), in the order in which they are shown."""


def table() -> dict[str, Entry]:
    """Return all known metrics, built-in first, then those of installed plug-ins (which are imported)."""
    return {**METRICS, **{name: entry(name) for name in sorted(_plugins())}}


def expand(names: str) -> tuple[str, ...]:
    """Turn ``"pixcorr,pixel-2way"`` or ``"all"`` into metric ids; hyphens and underscores are the same.

    Raises
    ------
    UsageError
        If nothing is named or a name is unknown.
    """
    if names == "all":
        return tuple(table())
    wanted = [name.strip().replace("-", "_") for name in names.split(",") if name.strip()]
    if not wanted:
        raise UsageError("no metric was named", remedy=f"Choose from: {', '.join(METRICS)}, or all.")
    for name in wanted:
        entry(name)
    return tuple(dict.fromkeys(wanted))


def for_data(names: str, *, simulated: bool) -> tuple[str, ...]:
    """Return :func:`expand` of ``names`` for real or simulated data; on real data ``"all"`` leaves out :data:`MINI`.

    Raises
    ------
    UsageError
        If ``names`` asks for one of :data:`MINI` on real data, or :func:`expand` refuses it.
    """
    chosen = expand(names)
    if simulated:
        return chosen
    if names == "all":
        return tuple(name for name in chosen if name not in MINI)
    unfit = [name for name in chosen if name in MINI]
    if unfit:
        raise UsageError(
            f"{', '.join(unfit)} cannot score real images: the networks know only simulated scenes",
            remedy=f"Ask for {', '.join(name.removeprefix('mini_') for name in unfit)}, or use --dataset sim.",
        )
    return chosen


def entry(name: str) -> Entry:
    """Return the table entry of a metric.

    A plug-in registers an :class:`Entry` under the entry point group ``nsdbench.metrics``; if importing it
    fails, its own ImportError is what the caller sees.

    Raises
    ------
    UsageError
        If no metric has this name (the message names near ones), or a plug-in is not an :class:`Entry`.
    """
    if name in METRICS:
        return METRICS[name]
    plugins = _plugins()
    if name not in plugins:
        known = (*METRICS, *plugins)
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"there is no metric {name!r}", remedy=f"{hint}Metrics: {', '.join(known)}.")
    found = plugins[name].load()
    if not isinstance(found, Entry):
        raise UsageError(
            f"entry point {plugins[name].value} of metric {name!r} is a {type(found).__name__}",
            remedy="It must be a nsdbench.metrics.registry.Entry.",
        )
    return found


def _plugins() -> dict[str, EntryPoint]:
    plugins = {point.name: point for point in entry_points(group=GROUP)}
    clash = METRICS.keys() & plugins.keys()
    if clash:
        raise UsageError(
            f"plug-in {plugins[min(clash)].value} calls itself {min(clash)!r}, which is a built-in metric",
            remedy="Uninstall the plug-in or ask its authors to rename it.",
        )
    return plugins


def load(name: str) -> Metric:
    """Import and return the metric called ``name``; see :func:`entry` for what it raises."""
    module, _, attribute = entry(name).target.partition(":")
    metric: Any = getattr(importlib.import_module(module), attribute)
    return metric  # type: ignore[no-any-return]
