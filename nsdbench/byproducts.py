"""Scores of what decoders give besides images: embeddings that retrieve, and captions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsdbench import weights
from nsdbench.errors import WeightsError
from nsdbench.itemscores import ALONE, ItemScores, pools
from nsdbench.measurement import Pairing, mismatches
from nsdbench.metrics import registry
from nsdbench.metrics.correlation import own
from nsdbench.metrics.metric import ByCaption, ByEmbedding, Metric, TextMeasure
from nsdbench.metrics.retrieval import cosine_matrix, top1
from nsdbench.types import Embeddings, Progress, Reconstructions, Stimuli

_ZERO = "an embedding is zero: similarity defined as 0"


@dataclass(frozen=True)
class Scores:
    """Item scores, similarities by metric (alternatives in rows, targets in columns), and SHA-256 by weights id."""

    results: list[ItemScores] = field(default_factory=list)
    similarity: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)


def given(recon: Reconstructions, stimuli: Stimuli) -> tuple[registry.Given, ...]:
    """Return what metrics other than those of images can look at; see :class:`~nsdbench.metrics.registry.Entry`."""
    described = set(recon.targets) & stimuli.has_image & stimuli.captions.keys()
    present: Mapping[registry.Given, bool] = {
        "embeddings": bool(recon.embeddings and recon.gallery),
        "captions": bool(recon.captions),
        "human captions": bool(described),
        "machine captions": bool(recon.gallery_captions),
    }
    return tuple(name for name, there in present.items() if there)


def score(
    metrics: Mapping[str, Metric],
    pairing: Pairing,
    weights_dir: Path | None,
    device: str,
    progress: Progress,
) -> Scores:
    """Score embeddings and captions by those of ``metrics`` that look at them.

    Raises
    ------
    WeightsError
        If weights of a metric, or a package that it needs, are missing.
    """
    found = Scores()
    cosines = functools.cache(lambda: _cosines(pairing))
    for name, metric in metrics.items():
        if not isinstance(metric, ByEmbedding | ByCaption):
            continue
        try:
            if isinstance(metric, ByEmbedding):
                found.similarity[name] = _alternatives(cosines(), metric, pairing)
                found.results.extend(_retrieval(name, found.similarity[name], pairing))
            else:
                references = _references(metric, pairing)
                measure = _measure(name, metric, weights.folder(weights_dir), device, found.weights)
                found.results.append(_comparison(name, measure, references, pairing, progress))
        except _Unscorable as why:
            found.results.extend(_nulls(name, metric, pairing, str(why)))
    return found


class _Unscorable(Exception):
    """These reconstructions cannot be scored by a metric; the text says why."""


def _nulls(name: str, metric: ByEmbedding | ByCaption, pairing: Pairing, reason: str) -> Iterator[ItemScores]:
    """Yield the rows of a metric that has no value at all."""
    retrieval = isinstance(metric, ByEmbedding)
    each = 1 if retrieval else pairing.recon.n_samples
    nothing = np.full(len(pairing.targets) * each, np.nan)
    for pool in pools(pairing.pool) if retrieval else ("none",):
        yield ItemScores(name, pool, nothing, nothing, [reason] * len(nothing), each)


def _cosines(pairing: Pairing) -> NDArray[np.float64]:
    """Return the cosines of the embeddings of all ground truths (rows) and brains (columns)."""
    recon = pairing.recon
    if not recon.embeddings:
        raise _Unscorable("the decoder gives no embedding")
    spaces = sorted(recon.embeddings.keys() & recon.gallery.keys())
    if len(spaces) != 1:
        what = f"embeddings in several spaces: {', '.join(spaces)}" if spaces else "none of the ground truths"
        raise _Unscorable(f"retrieval needs embeddings in one space, there are {what}")
    missing = set(pairing.pool) - set(recon.gallery_ids)
    if missing:
        raise _Unscorable(f"{len(missing)} of {len(pairing.pool)} ground truths have no embedding")
    truth = _rows(recon.gallery[spaces[0]], recon.gallery_ids, pairing.pool)
    brain = _rows(recon.embeddings[spaces[0]], recon.targets, pairing.targets)
    return cosine_matrix(truth, brain)


def _rows(values: Embeddings, ids: Sequence[str], wanted: Sequence[str]) -> Embeddings:
    """Return the rows of ``wanted``, without a copy where they are all of them in order."""
    row = {name: i for i, name in enumerate(ids)}
    return values if tuple(ids) == tuple(wanted) else values[[row[name] for name in wanted]]


def _alternatives(cosines: NDArray[np.float64], metric: ByEmbedding, pairing: Pairing) -> NDArray[np.float64]:
    """Return ``cosines`` with that side in rows which the metric chooses from."""
    if metric.query == "brain":
        return cosines
    missing = len(pairing.pool) - len(pairing.targets)
    if missing:  # a choice among fewer would be easier
        raise _Unscorable(f"{missing} of {len(pairing.pool)} brain embeddings are missing")
    return cosines.T


def _retrieval(name: str, similarity: NDArray[np.float64], pairing: Pairing) -> Iterator[ItemScores]:
    target = np.searchsorted(pairing.pool, pairing.targets)
    zero = np.isnan(own(similarity, target))
    for pool, groups in pools(pairing.pool).items():
        values, floors = top1(similarity, target, groups)
        reasons = [ALONE if np.isnan(v) else _ZERO if z else None for v, z in zip(values, zero, strict=True)]
        yield ItemScores(name, pool, values, floors, reasons, 1)


def _references(metric: ByCaption, pairing: Pairing) -> dict[str, str]:
    """Return one reference caption per ground truth that has one, in the order of the pool."""
    recon, human = pairing.recon, pairing.stimuli.captions
    if not recon.captions:
        raise _Unscorable("the decoder gives no caption")
    if metric.reference == "human":
        found = {id: human[id][0] for id in pairing.pool if human.get(id)}
    else:
        machine = dict(zip(recon.gallery_ids, recon.gallery_captions, strict=False))
        found = {id: machine[id] for id in pairing.pool if id in machine}
    if not found:
        raise _Unscorable("there are no captions of the ground truths")
    return found


def _comparison(
    name: str, measure: TextMeasure, references: Mapping[str, str], pairing: Pairing, progress: Progress
) -> ItemScores:
    """Score every caption against the reference of its target, and against up to three wrong ones."""
    each, row = pairing.recon.n_samples, {target: i for i, target in enumerate(pairing.recon.targets)}
    decoded = chain.from_iterable(pairing.recon.captions[row[target]] for target in pairing.targets)
    place, known = {id: i for i, id in enumerate(references)}, measure.prepare(list(references.values()))
    shifts = mismatches(len(known))
    values, floors = np.full((2, pairing.n_columns), np.nan)
    reasons: list[str | None] = ["the ground truth has no caption"] * pairing.n_columns
    for column, caption in enumerate(progress.track(measure.prepare(list(decoded)), name)):
        i = place.get(pairing.targets[column // each])
        if i is not None:
            values[column], reasons[column] = measure.compare(known[i], caption), None
            wrong = [measure.compare(known[(i + shift) % len(known)], caption) for shift in shifts]
            floors[column] = np.mean(wrong) if wrong else np.nan
    return ItemScores(name, "none", values, floors, reasons, each)


def _measure(name: str, metric: ByCaption, folder: Path, device: str, used: dict[str, str]) -> TextMeasure:
    """Load the measure of a metric and add the weights it reads to ``used``."""
    located = {id: weights.locate(id, folder) for id in registry.entry(name).weights}
    try:
        measure = metric.load([file.path for file in located.values()], device)
    except ImportError as error:
        raise WeightsError(
            f"{name} needs the package {error.name}", remedy="Install it: pip install 'nsdbench[captions]'"
        ) from error
    used.update({id: file.sha256 for id, file in located.items()})
    return measure
