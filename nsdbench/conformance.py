"""``nsdbench check-adapter``: properties every adapter must have, checked on small simulated data."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from nsdbench import reconstructions
from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter
from nsdbench.data import Dataset
from nsdbench.errors import DataError, NsdbenchError, ProtocolError, WeightsError
from nsdbench.protocol import default_preset
from nsdbench.sim import SimConfig, ensure
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli, Trials

LOG = logging.getLogger(__name__)
SAMPLES = 2
SUBJECT = 1


@dataclass(frozen=True)
class Result:
    """Outcome of one check: passed, failed, or skipped because weights or a capability are missing."""

    check: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str


class Bench:
    """The data and the once-fitted adapter that all checks share."""

    def __init__(self, adapter: type[Adapter], preset: str, dataset: Dataset, progress: Progress) -> None:
        self.adapter = adapter
        self.preset = preset
        self.progress = progress
        self.train: Trials = dataset.train(SUBJECT)
        self.train_stimuli: Stimuli = dataset.stimuli("train", SUBJECT)
        self.stimuli: Stimuli = dataset.stimuli("vision")
        shown = sorted(self.stimuli.has_image)
        self.test: Trials = dataset.trials(SUBJECT, "vision").of_stimuli(shown)
        self.imagery: Trials = dataset.trials(SUBJECT, "imagery").of_stimuli(shown)
        for trials in (self.test, self.imagery):
            # an adapter that changes its input must not spoil later checks
            trials.betas.setflags(write=False)
        self.fitted = self.fit()

    def fit(self) -> Adapter:
        """Return a freshly fitted adapter."""
        model = self.adapter(self.preset)
        model.fit(self.train, self.train_stimuli, progress=self.progress)
        return model

    def run(
        self, trials: Trials | None = None, *, model: Adapter | None = None, seed: int = 0
    ) -> Reconstructions:
        """Reconstruct ``trials`` (default: the vision targets)."""
        return (model or self.fitted).reconstruct(
            self.test if trials is None else trials, n_samples=SAMPLES, seed=seed, progress=self.progress
        )


Check = Callable[[Bench], str]


def check_shapes(bench: Bench) -> str:
    """Images are uint8 RGB squares, one row per target, the samples asked for."""
    result = bench.run()
    if result.targets != tuple(bench.test.stimulus.tolist()):
        raise AssertionError("targets are not in the order of the trials")
    return f"{result.n_targets} targets x {result.n_samples} samples, {result.images.shape[2]} px"


def check_same_seed_same_images(bench: Bench) -> str:
    """The seed determines every draw."""
    _require_equal(bench.run(seed=3), bench.run(seed=3), "two calls with the same seed differ")
    return "equal"


def check_seed_matters(bench: Bench) -> str:
    """A stochastic model gives other images for another seed."""
    if not bench.adapter.stochastic:
        raise _Skip("the model is deterministic")
    if np.array_equal(bench.run(seed=3).images, bench.run(seed=4).images):
        raise AssertionError("two seeds give the same images; set stochastic = False or use the seed")
    return "different"


def check_fit_is_deterministic(bench: Bench) -> str:
    """Fitting twice on the same trials gives the same decoder."""
    _require_equal(bench.run(), bench.run(model=bench.fit()), "two fits give different reconstructions")
    return "equal"


def check_save_and_load(bench: Bench) -> str:
    """A stored adapter reconstructs exactly what the fitted one did."""
    with tempfile.TemporaryDirectory() as folder:
        bench.fitted.save(Path(folder))
        loaded = bench.adapter.load(Path(folder), bench.preset)
        _require_equal(bench.run(), bench.run(model=loaded), "reconstructions differ after save and load")
    return "equal"


def check_targets_are_independent(bench: Bench) -> str:
    """A reconstruction does not depend on which other targets are in the call, or on their order."""
    if bench.adapter.transductive:
        raise _Skip("declared transductive")
    whole = bench.run()
    rows = np.array([4, 0, 7])
    part = bench.run(bench.test.select(rows))
    if not np.array_equal(whole.images[rows], part.images):
        raise AssertionError(
            "a subset of the targets gives other images; fix it or declare transductive = True"
        )
    return "equal for a reordered subset"


def check_input_is_left_alone(bench: Bench) -> str:
    """Reconstruct does not change the betas it is given."""
    trials = replace(bench.test, betas=bench.test.betas.copy())
    bench.run(trials)
    if not np.array_equal(trials.betas, bench.test.betas):
        raise AssertionError("reconstruct changed the betas it was given")
    return "unchanged"


def check_other_outputs(bench: Bench) -> str:
    """Embeddings and captions fit the targets, and true images are embedded in the space of the decoded ones."""
    recon = bench.run()
    if not recon.embeddings and not recon.captions:
        return "the model gives images only"
    ids = tuple(sorted(bench.stimuli.has_image))
    gallery = bench.fitted.embed(bench.stimuli, ids) if recon.embeddings else {}
    with tempfile.TemporaryDirectory() as folder:  # refuses what does not fit
        reconstructions.save(replace(recon, gallery=gallery, gallery_ids=ids), Path(folder) / "recon.h5")
    spaces = sorted(recon.embeddings.keys() & gallery.keys())
    if gallery and len(spaces) != 1:
        raise AssertionError(
            f"retrieval needs one space in both, embeddings and true embeddings share {spaces}"
        )
    given = [*(f"retrieval in {space}" for space in spaces), *(["captions"] if recon.captions else [])]
    return ", ".join(given) or "embeddings without retrieval"


def check_refuses_test_trials(bench: Bench) -> str:
    """Vision and imagery trials are refused as training data."""
    for trials in (bench.test, bench.imagery):
        try:
            bench.adapter(bench.preset).fit(trials, bench.train_stimuli)
        except ProtocolError:
            continue
        raise AssertionError(f"fit accepted {trials.split} trials")
    return "refused"


def check_refuses_other_voxels(bench: Bench) -> str:
    """Betas with another number of voxels, or with NaN, are refused by name."""
    fewer = replace(bench.test, betas=bench.test.betas[:, 1:], rois={})
    poisoned = replace(bench.test, betas=bench.test.betas * np.float32("nan"))
    for trials in (fewer, poisoned):
        try:
            bench.run(trials)
        except DataError:
            continue
        raise AssertionError("reconstruct accepted betas of another shape or with NaN")
    return "refused"


CHECKS: tuple[Check, ...] = (
    check_shapes,
    check_same_seed_same_images,
    check_seed_matters,
    check_fit_is_deterministic,
    check_save_and_load,
    check_targets_are_independent,
    check_input_is_left_alone,
    check_other_outputs,
    check_refuses_test_trials,
    check_refuses_other_voxels,
)


def check(
    name: str, preset: str | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> list[Result]:
    """Run every check on the ``tiny`` simulated data set, by default with the preset for simulated data.

    Returns
    -------
    list of Result
        One per check; if the adapter cannot be fitted at all, the one result says so.

    Raises
    ------
    UsageError
        If the model or the preset is unknown.
    """
    progress = progress or Silent()
    adapter = registry.load(registry.one(name))
    adapter(preset)  # refuses an unknown preset
    dataset = Dataset.open(ensure(SimConfig(preset="tiny"), cache, progress), cache=cache)
    try:
        bench = Bench(adapter, preset or default_preset(adapter, dataset), dataset, progress)
    except WeightsError as error:
        return [Result("fit", "skipped", error.message)]
    except Exception as error:
        LOG.debug("fit failed:", exc_info=error)
        return [Result("fit", "failed", f"{type(error).__name__}: {error}")]
    return [_run(one, bench) for one in progress.track(CHECKS, "checks")]


def _run(one: Check, bench: Bench) -> Result:
    name = one.__name__.removeprefix("check_").replace("_", " ")
    try:
        return Result(name, "passed", one(bench))
    except _Skip as reason:
        return Result(name, "skipped", str(reason))
    except (AssertionError, NsdbenchError) as error:
        return Result(name, "failed", str(error))
    except Exception as error:
        LOG.debug("%s failed:", name, exc_info=error)
        return Result(name, "failed", f"{type(error).__name__}: {error}")


def _require_equal(a: Reconstructions, b: Reconstructions, message: str) -> None:
    if a.targets != b.targets or not np.array_equal(a.images, b.images):
        raise AssertionError(message)
    same = a.embeddings.keys() == b.embeddings.keys() and all(
        np.array_equal(values, b.embeddings[space]) for space, values in a.embeddings.items()
    )
    if not same or a.captions != b.captions:
        raise AssertionError(f"{message} in embeddings or captions")


class _Skip(Exception):
    """A check does not apply to this adapter."""
