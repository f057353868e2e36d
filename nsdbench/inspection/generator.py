"""The checks that ask about a decoder's outputs: how varied they are, and what true features would have given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsdbench import reconstructions, stats
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.nets.shipped import located
from nsdbench.errors import DataError, NsdbenchError
from nsdbench.inspection.evidence import SETS, Evidence, Unavailable
from nsdbench.inspection.questions import CHANCE, answer, counted, interval, outcome, side, two_way_scores
from nsdbench.inspection.results import Check
from nsdbench.metrics import spurious
from nsdbench.metrics.correlation import correlation_matrix
from nsdbench.metrics.identification import two_way, two_way_within
from nsdbench.schema import VARIANT, RunKey
from nsdbench.store import digest
from nsdbench.types import Embeddings, Reconstructions

Floats = NDArray[np.float64]
LARGEST_EMBEDDINGS = 2 * 2**30
"""Bytes of training embeddings above which their span is not computed."""


@dataclass(frozen=True)
class Generator:
    """How to get at the networks of the decoder that made a run.

    Attributes
    ----------
    key : RunKey
        Names model and preset.
    context : Context
    cache : Path
        Folder for copies; file names are hashes of what determines them.
    """

    key: RunKey
    context: Context
    cache: Path

    def adapter(self) -> tuple[Adapter, dict[str, str]]:
        """Return the decoder, without a fit, and the SHA-256 of its networks by weights id.

        Only names of the table of models are looked up: a run folder must not choose what is imported.

        Raises
        ------
        Unavailable
            If the run was made elsewhere, or the model is not installed.
        WeightsError
            If networks are missing.
        """
        preset = self.key.preset.partition(VARIANT)[0]
        if self.key.model not in registry.table():
            made = "was made elsewhere" if preset == "external" else "is not installed here"
            raise Unavailable(f"the decoder {self.key.model} {made}, so its networks are not known")
        found = registry.load(self.key.model)
        if preset not in found.presets:
            raise Unavailable(f"{self.key.model} has no preset {preset}, so its networks are not known")
        weights = located(found.requires.get(preset, ()), self.context.weights_dir)
        return found(preset, self.context), weights

    def copies(self, evidence: Evidence) -> Reconstructions:
        """Return what the decoder makes of the true features of the run's targets, one copy of each.

        Where it reads captions, targets without one are left out. Copies are kept: all subjects and both splits with
        the same targets share them.
        """
        decoder, weights = self.adapter()
        if not decoder.verifiable():
            raise Unavailable(f"{decoder.name} makes no images of features")
        stimuli, targets = evidence.stimuli, evidence.targets
        captions = [list(stimuli.captions.get(target, ())) for target in targets]
        key = digest(
            "copies/1", decoder.name, decoder.version, decoder.preset, weights, stimuli.content_hash,
            list(targets), captions,
        )  # fmt: skip
        path = self.cache / f"{key}.h5"
        if path.is_file():
            return reconstructions.load(path)
        progress = evidence.reader.progress
        try:
            made = decoder.copies(stimuli, targets, progress=progress)
        except DataError:
            captioned = tuple(target for target in targets if target in stimuli.captions)
            if len(captioned) in (0, len(targets)):
                raise
            made = decoder.copies(stimuli, captioned, progress=progress)
        reconstructions.save(made, path)
        return made


def recovery_ceiling(evidence: Evidence, generator: Generator) -> Check:
    """Compare the run with what its generator makes of true features."""
    every = two_way_scores(evidence)
    copies = generator.copies(evidence)
    kept = np.isin(evidence.targets, copies.targets)
    targets = tuple(np.array(evidence.targets)[kept].tolist())
    features = evidence.reader.made(copies, targets, "features of copies")
    rows = evidence.target_row[kept]
    r = correlation_matrix(evidence.truth, features)
    scores, ceilings = every[kept], two_way(r, rows)
    _, low, high = interval(ceilings)
    shares = _shares(scores, ceilings) if side(ceilings, CHANCE) > 0 else (None, None, None)
    details: dict[str, Any] = {
        "ceiling_low": low, "ceiling_high": high, "share": shares[0], "share_low": shares[1],
        "share_high": shares[2], "loss": float((ceilings - scores).mean()), "n_left_out": int((~kept).sum()),
    }  # fmt: skip
    if evidence.group_kind == SETS:
        within = two_way_within(r, rows, evidence.groups)
        details["ceiling_within"] = interval(within)[0]
    where = side(scores - ceilings, 0.0)
    verdict = _recovered(scores, shares, where)
    if not kept.all():
        verdict += f" {(~kept).sum()} targets without a caption are left out."
    ceiling = (float(ceilings.mean()), "copies of true features")
    return answer(evidence, "recovery_ceiling", scores, ceiling, where, verdict, details)


def _shares(scores: Floats, ceilings: Floats) -> tuple[float | None, float | None, float | None]:
    """Return the share of the way from chance to the ceiling that the run has come, with limits."""
    found = stats.bca_ratio(scores[None, None, :] - CHANCE, ceilings[None, None, :] - CHANCE)
    share, low, high = (float(x[0]) for x in (found.estimate, found.low, found.high))
    return (share, low, high) if math.isfinite(low) and math.isfinite(high) else (share, None, None)


def _recovered(scores: Floats, shares: tuple[float | None, float | None, float | None], where: int) -> str:
    n, (share, low, high) = counted(scores), shares
    if share is None:
        return f"Even copies of true features are not identified better than chance, so there is no ceiling ({n})."
    limits = "" if low is None or high is None else f" [{low:.0%}, {high:.0%}]"
    way = f"The run comes {share:.0%}{limits} of the way from chance to what true features give"
    if where < 0:
        return f"{way}; the rest is lost between brain and features ({n})."
    return f"{way}; no loss by decoding is shown ({n})."


def output_rank(evidence: Evidence, generator: Generator) -> Check:
    """Compare the number of dimensions in which reconstructions and their targets vary."""
    n = len(evidence.targets)
    if n < 3:
        raise Unavailable(f"{n} targets are too few to say in how many dimensions they vary")
    samples = evidence.made.reshape(n, evidence.recon.n_samples, -1)
    truth = spurious.centred_gram(np.asarray(evidence.truth[evidence.target_row]))
    means = spurious.centred_gram(samples.mean(axis=1, dtype=np.float64).astype(np.float32))
    theirs = spurious.participation_ratio(truth)
    if theirs == 0:
        raise Unavailable("the features of all targets are equal")
    ours = spurious.participation_ratio(means)
    each, of_truth = map(spurious.participation_without_each, (means, truth))
    each = np.divide(each, of_truth, out=np.zeros(n), where=of_truth > 0)
    low, high = spurious.jackknife_interval(ours / theirs, each)
    first = spurious.participation_ratio(spurious.centred_gram(samples[:, 0]))
    details = {
        "dimensions": ours, "dimensions_of_targets": theirs, "at_most": n - 1, "first_sample": first / theirs,
        "between_targets": _between(samples), "span": _span(evidence, generator),
    }  # fmt: skip
    where = -1 if ours == 0 else int(low > 1) - int(high < 1)
    return Check(
        "output_rank", ours / theirs, _defined(low), _defined(high), 1.0,
        "that of the targets", outcome(where), n, evidence.recon.n_samples, details, _varied(details, low, where, n),
    )  # fmt: skip


def _between(samples: NDArray[np.float32]) -> float | None:
    """Return the share of the variance that is between targets, not between samples of one."""
    if samples.shape[1] < 2:
        return None
    return _defined(spurious.between_share(samples))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _varied(details: Mapping[str, Any], low: float, where: int, n: int) -> str:
    ours, share = details["dimensions"], details["between_targets"]
    if ours == 0:
        return f"All reconstructions are alike: nothing in them depends on the target (n = {n} targets)."
    theirs = f"{details['dimensions_of_targets']:.1f}"
    if math.isnan(low):
        return f"Reconstructions vary in {ours:.1f} dimensions, their targets in {theirs}; a single target decides (n = {n})."
    how = {
        -1: "fewer dimensions than",
        0: "neither surely more nor fewer dimensions than",
        1: "more dimensions than",
    }[where]
    samples = (
        "" if share is None else f"; {max(share, 0.0):.0%} of what varies is common to samples of a target"
    )
    return f"Reconstructions vary in {how} their targets: {ours:.1f} against {theirs}{samples} (n = {n} targets)."


def _span(evidence: Evidence, generator: Generator) -> dict[str, Any]:
    """Return how much of the decoded features lies in the span of those of training images, or why that is unknown."""
    recon = evidence.recon
    spaces = sorted(recon.embeddings)
    if not spaces:
        return {"unavailable": "the run has no predicted embeddings"}
    decoded = recon.embeddings[spaces[0]]
    try:
        training = _training_embeddings(evidence, generator, spaces[0], decoded)
    except NsdbenchError as error:
        return {"unavailable": error.message}
    rows = [recon.targets.index(target) for target in evidence.targets]
    found = {
        "space": spaces[0],
        "decoded": _defined(spurious.span_share(training, decoded[rows])),
        "dimensions": int(np.prod(decoded.shape[1:])),
        "n_train": len(training),
    }
    truth = {name: i for i, name in enumerate(recon.gallery_ids)}
    if spaces[0] in recon.gallery and truth.keys() >= set(evidence.targets):
        true = recon.gallery[spaces[0]][[truth[target] for target in evidence.targets]]
        found["targets"] = _defined(spurious.span_share(training, true))
    return found


def _training_embeddings(
    evidence: Evidence, generator: Generator, space: str, decoded: Embeddings
) -> Embeddings:
    training = evidence.training
    size = len(training.ids) * math.prod(decoded.shape[1:]) * 2
    if size > LARGEST_EMBEDDINGS:
        raise Unavailable(
            f"embeddings of {len(training.ids)} training images in {space} take {size / 2**30:.0f} GiB"
        )
    if len(training.ids) > math.prod(decoded.shape[1:]):
        raise Unavailable(
            f"there are more training images than dimensions of {space}, so they span all of it"
        )
    decoder, _ = generator.adapter()
    found = decoder.embed(training.stimuli, training.ids, progress=evidence.reader.progress)
    if space not in found or found[space].shape[1:] != decoded.shape[1:]:
        raise Unavailable(f"{generator.key.model} gives no embeddings of images in {space}")
    return found[space]
