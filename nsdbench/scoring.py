"""Reconstructions in, item scores out: one row per image, metric and pool, and the correlations behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nsdbench import byproducts, weights
from nsdbench.errors import ReconstructionError, UsageError, WeightsError
from nsdbench.itemscores import ALONE, ItemScores, pools, table, undefined
from nsdbench.measurement import Evidence, Method, Pairing, measure
from nsdbench.metrics import registry
from nsdbench.metrics.correlation import mismatched_mean, own
from nsdbench.metrics.distance import correlation_distance, mismatched_distance
from nsdbench.metrics.identification import two_way_within
from nsdbench.metrics.metric import ByPair, ImageMetric
from nsdbench.metrics.profiles import DEFAULT, Precision, Profile, full_name, profile
from nsdbench.schema import RunKey
from nsdbench.store import cache_root
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli

if TYPE_CHECKING:
    from nsdbench.metrics.nets.network import FeatureNet

_UNDEFINED = {
    "correlation": "constant image: correlation defined as 0",
    "identification": "constant features: similarity undefined",
    "distance": "constant features: distance defined as 1",
}


@dataclass(frozen=True)
class ScoreSettings:
    """What to score and how.

    Attributes
    ----------
    metrics : tuple of str
        Metric ids of :mod:`nsdbench.metrics.registry`.
    profile : str
        Metric profile of :mod:`nsdbench.metrics.profiles`.
    weights : {"pretrained", "random"}
        Random weights give scores that mean nothing; they are labelled untrained.
    weights_dir : Path or None
        Where to look for weights; None means the weights cache.
    device : str
        Torch device of the networks.
    batch_size : int
        Images per forward pass; never more than 8 on a CPU.
    cache : Path or None
        Root of the feature cache; None means :func:`nsdbench.store.cache_root`.
    where_possible : tuple of str
        Further metrics, scored only if the reconstructions bring what these need (embeddings, captions). Where one of
        ``metrics`` lacks that, its items are null and say why.
    precision : {"fp32", "bf16"}
        Arithmetic of the networks that look at images. Everything else is computed as always.
    """

    metrics: tuple[str, ...] = registry.HEADLINE
    profile: str = DEFAULT
    weights: Literal["pretrained", "random"] = "pretrained"
    weights_dir: Path | None = None
    device: str = "cpu"
    batch_size: int = 64
    cache: Path | None = None
    where_possible: tuple[str, ...] = ()
    precision: Precision = "fp32"

    @property
    def metric_profile(self) -> str:
        """Profile and precision: what rows, similarity files and caches know the settings by."""
        return full_name(self.profile, self.precision)

    @property
    def wanted(self) -> tuple[str, ...]:
        """All metrics, whether they must be there or not."""
        return tuple(dict.fromkeys((*self.metrics, *self.where_possible)))

    def __post_init__(self) -> None:
        if profile(self.profile).precision != "fp32":  # or raises the error that lists the profiles
            raise UsageError(
                f"{self.profile} says how precise networks are, besides the metric profile",
                remedy="Give the profile without +bf16, and --precision bf16.",
            )
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"precision cannot be {self.precision!r}", remedy="Choose from: fp32, bf16.")
        if self.weights not in ("pretrained", "random"):
            raise UsageError(f"weights cannot be {self.weights!r}", remedy="Choose from: pretrained, random.")


@dataclass(frozen=True)
class Scored:
    """The scores of one set of reconstructions.

    Attributes
    ----------
    items : pyarrow.Table
        Schema :data:`nsdbench.schema.ITEMS`, sorted by stimulus, sample, metric and pool.
    similarity : mapping of str to float64 array of shape (n_pool, n_targets, n_samples)
        Per metric that is a function of similarities: alternatives in rows; 0 where undefined. Retrieval has one
        "sample", since an embedding belongs to a target.
    pool_ids, targets : tuple of str
        Stimulus ids of the first and second axis of ``similarity``.
    notes : tuple of str
        What a reader must know: skipped targets, missing reconstructions, undefined values.
    weights : mapping of str to str
        SHA-256 by id of all weights used.
    untrained : bool
        Whether any network had random weights.
    """

    items: pa.Table
    similarity: Mapping[str, NDArray[np.float64]]
    pool_ids: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    weights: Mapping[str, str]
    untrained: bool

    @property
    def weights_ids(self) -> tuple[str, ...]:
        """Ids of the weights, ascending."""
        return tuple(sorted(self.weights))


def score(
    recon: Reconstructions,
    stimuli: Stimuli,
    key: RunKey,
    *,
    settings: ScoreSettings,
    nets: Mapping[str, FeatureNet] | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score reconstructions against the images that were seen or imagined.

    Parameters
    ----------
    recon : Reconstructions
        Joined to ``stimuli`` by target id; what has no partner is skipped and named in the notes.
    stimuli : Stimuli
        The targets of the split and nothing else: all of them that have an image form the identification pool.
    key : RunKey
        Copied into every row.
    settings : ScoreSettings
    nets : mapping of str to FeatureNet, optional
        Loaded networks by name; the others are loaded as ``settings`` say.
    progress : Progress, optional

    Raises
    ------
    ReconstructionError
        If no reconstruction belongs to a stimulus with an image.
    UsageError
        If a metric or profile is unknown.
    WeightsError
        If the weights of a network are missing.
    DataError
        If a ground truth is not a square RGB image, or cached features are damaged.
    """
    if not settings.wanted:
        raise UsageError("no metric to score", remedy="Name at least one metric.")
    given = byproducts.given(recon, stimuli)
    possible = (name for name in settings.where_possible if registry.entry(name).feasible(given))
    chosen = {name: registry.load(name) for name in dict.fromkeys((*settings.metrics, *possible))}
    rules = profile(settings.metric_profile)
    pairing, notes = _join(recon, stimuli)
    if not nets:
        require_weights(settings)
    images = {name: m for name, m in chosen.items() if isinstance(m, ImageMetric)}
    method = _method(settings, rules, nets or {})
    evidence = measure(pairing, images, method, progress or Silent())
    results = [x for name, metric in images.items() for x in _results(name, metric, evidence, pairing, rules)]
    others = byproducts.score(chosen, pairing, settings.weights_dir, settings.device, progress or Silent())
    results += others.results
    shape = (len(pairing.pool), len(pairing.targets), -1)
    matrices = {**evidence.correlations, **others.similarity}
    return Scored(
        items=table(results, key, pairing, rules),
        # in place: nothing looks at them after this, and each may have as many values as pool times reconstructions
        similarity={m: np.nan_to_num(r, copy=False, nan=0.0).reshape(shape) for m, r in matrices.items()},
        pool_ids=pairing.pool,
        targets=pairing.targets,
        notes=(*notes, *_rounding(rules), *_slow_arithmetic(evidence, settings), *undefined(results)),
        weights={**{net.weights_id: net.weights_sha256 for net in evidence.nets}, **others.weights},
        untrained=any(net.untrained for net in evidence.nets),
    )


def _method(settings: ScoreSettings, rules: Profile, nets: Mapping[str, FeatureNet]) -> Method:
    def load(name: str) -> FeatureNet:
        from nsdbench.metrics.nets import load_net

        if name in nets:
            return nets[name]
        return load_net(
            name,
            variant=rules.variants.get(name, ""),
            weights=settings.weights,
            weights_dir=settings.weights_dir,
            device=settings.device,
            precision=settings.precision,
        )

    from nsdbench.features import pace  # imports torch

    cache = cache_root(settings.cache) / "features"
    return Method(rules, load, cache, pace(settings.device, settings.batch_size))


def require_weights(settings: ScoreSettings) -> None:
    """Check that every network of ``settings`` has its weights, without loading any.

    Raises
    ------
    WeightsError
        If files are missing; the message names all of them.
    """
    entries = [registry.entry(metric) for metric in settings.wanted]
    names = dict.fromkeys(net for entry in entries for net in entry.nets)
    variants = profile(settings.profile).variants
    ids = [registry.NET_WEIGHTS.get(name, {}).get(variants.get(name, "")) for name in names]
    if settings.weights == "random":
        ids = []  # of images; nobody compares texts with untrained networks
    # the miniature networks come with the package, and plug-ins look after their own
    needed = [id for id in ids if id is not None and id in weights.REGISTRY]
    needed += dict.fromkeys(id for entry in entries for id in entry.weights if id not in needed)
    try:
        weights.require(needed, weights.folder(settings.weights_dir))
    except WeightsError as error:
        alternative = f"Without networks: --metrics {','.join(registry.WEIGHTS_FREE)}"
        raise WeightsError(error.message, remedy=f"{error.remedy}\n     {alternative}") from None


def _join(recon: Reconstructions, stimuli: Stimuli) -> tuple[Pairing, list[str]]:
    """Pair reconstructions and ground truths by id and say what is left over on either side."""
    pool = tuple(stimulus for stimulus in stimuli.ids if stimulus in stimuli.has_image)
    targets = tuple(sorted(set(recon.targets) & set(pool)))
    if not targets:
        raise ReconstructionError(
            f"none of the {recon.n_targets} reconstructed targets ({_some(recon.targets)}) is among the {len(pool)} "
            f"ground truths with an image ({_some(pool)})",
            remedy="Name the reconstructions by the ids of the ground truths.",
        )
    asked, have, known = set(recon.targets), set(pool), set(stimuli.ids)
    missing = have - asked
    left_over = {
        "not scored, they have no fixed image": asked & (known - have),
        "not scored, they are not among the ground truths": asked - known,
        f"partial result, {len(missing)} of {len(pool)} ground truths have no reconstruction": missing,
    }
    notes = [f"{what}: {_some(sorted(ids))}" for what, ids in left_over.items() if ids]
    side, native = stimuli.image(targets[0]).shape[0], recon.images.shape[2]
    if side != native:
        notes.append(f"ground truths are {side} pixels wide, reconstructions {native}; all are resized")
    return Pairing(recon, stimuli, pool, targets), notes


def _rounding(rules: Profile) -> list[str]:
    if rules.eight_bit:
        return []
    return [f"{rules.name}: the original scored unrounded images, here 8-bit ones (about 1e-4 in SSIM)"]


def _slow_arithmetic(evidence: Evidence, settings: ScoreSettings) -> list[str]:
    """Say so where bfloat16 is imitated: as correct, but slower than full precision."""
    if settings.precision == "fp32" or not evidence.nets:
        return []
    from nsdbench.metrics.nets.network import computes_bf16

    if computes_bf16(settings.device):
        return []
    return [
        f"--precision bf16 gained nothing: {settings.device} has no arithmetic for bfloat16 and imitates it slowly"
    ]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:6]) + (", ..." if len(ids) > 6 else "")


def _results(
    name: str, metric: ImageMetric, evidence: Evidence, pairing: Pairing, rules: Profile
) -> Iterator[ItemScores]:
    each = pairing.recon.n_samples
    if isinstance(metric, ByPair):
        values, floors = evidence.pairs[name]
        yield ItemScores(name, "none", values, floors, [None] * len(values), each)
        return
    r, truth_row = evidence.correlations[name], pairing.truth_row
    reasons = [_UNDEFINED[metric.rule] if flat else None for flat in np.isnan(own(r, truth_row))]
    if metric.rule == "identification":
        for pool, groups in pools(pairing.pool).items():
            values, floors = _identify(r, truth_row, groups, rules)
            alone = [ALONE if np.isnan(v) else reason for v, reason in zip(values, reasons, strict=True)]
            yield ItemScores(name, pool, values, floors, alone, each)
    elif metric.rule == "distance":
        values, floors = correlation_distance(r, truth_row), mismatched_distance(r, truth_row)
        yield ItemScores(name, "none", values, floors, reasons, each)
    else:
        defined = np.nan_to_num(r, nan=0.0)
        values, floors = own(defined, truth_row), mismatched_mean(defined, truth_row)
        yield ItemScores(name, "none", values, floors, reasons, each)


def _identify(
    r: NDArray[np.float64], truth_row: NDArray[np.int64], groups: Sequence[NDArray[np.int64]], rules: Profile
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two-way scores and their chance level, each reconstruction within the group of its target."""
    values = two_way_within(r, truth_row, groups, ties=rules.ties, self_comparison=rules.self_comparison)
    floors = np.full(len(truth_row), np.nan)
    for rows in groups:
        if len(rows) > 1:
            floors[np.isin(truth_row, rows)] = 0.5 - rules.self_comparison / (len(rows) - 1)
    return values, floors
