"""``nsdbench doctor``: what this machine has, what each model still lacks, and what it would take.

Nothing here connects to anything, loads a network or reads a large file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nsdbench import protocol
from nsdbench.adapters import registry
from nsdbench.data.facts import Expectations, SubjectFacts, table
from nsdbench.data.needs import Source
from nsdbench.doctor import machine, rates
from nsdbench.doctor.costs import Cell as Amount
from nsdbench.doctor.costs import Costs, Fit, Rates, Reconstruction, Sizes
from nsdbench.doctor.machine import Finding, Place, Root
from nsdbench.doctor.readiness import Inspector, Summary, Wanted, first_row, first_sizes, preset_of, summaries
from nsdbench.doctor.recipes import costs_of
from nsdbench.errors import UsageError
from nsdbench.types import Split

__all__ = ["Estimate", "Finding", "Question", "Report", "Timed", "examine"]

REPEATS: Mapping[str, int] = {"vision": 8, "imagery": 16, "shared1000": 3}
TARGETS = 12
"""NSD-Imagery targets that have an image."""


@dataclass(frozen=True)
class Question:
    """What ``nsdbench doctor`` is asked about; None means the default of ``nsdbench run``.

    Attributes
    ----------
    models, splits : str
        As on the command line: comma-separated, ``all``, ``both``.
    subjects, preset : str or None
    samples : int
        Reconstructions per target.
    data_dir, weights_dir, cache : Path or None
    """

    models: str = "all"
    splits: str = "both"
    subjects: str | None = None
    preset: str | None = None
    samples: int = 10
    data_dir: Path | None = None
    weights_dir: Path | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Timed:
    """The costs of one split, and how long they take at the assumed or measured rates."""

    split: Split
    targets: int
    samples: int
    cost: Reconstruction
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What one model takes for one subject, estimated from counted operations; nothing was timed.

    Attributes
    ----------
    model, preset : str
    subject : int
        The one of those asked about with the most voxels.
    rates : Rates
    fit : Fit or None
        None if nothing is learnt.
    splits : tuple of Timed
    """

    model: str
    preset: str
    subject: int
    rates: Rates
    fit: Fit | None
    splits: tuple[Timed, ...]

    @property
    def fit_seconds(self) -> float:
        """How long a fit takes; 0 if nothing is learnt."""
        return self.rates.seconds(self.fit.work) if self.fit else 0.0

    @property
    def device_memory(self) -> int:
        """Bytes of the device, at most at any time."""
        parts = (self.fit, *(timed.cost for timed in self.splits))
        return max(part.device.total for part in parts if part)

    @property
    def host_memory(self) -> int:
        """Bytes of main memory for the fit or what precedes the drawing, at most."""
        parts = (self.fit, *(timed.cost for timed in self.splits))
        return max(part.host_memory for part in parts if part)


@dataclass(frozen=True)
class Report:
    """Everything that was found out.

    Attributes
    ----------
    findings : tuple of Finding
    summaries : tuple of Summary
        By model, preset and splits that lack the same.
    estimates : tuple of Estimate
        Of the models whose costs are known.
    steps : tuple of str
        The shortest way to a first row of real data; empty if data are there.
    step_bytes : mapping of str to int
        About what the first of these steps fetches, by ``--source``.
    places : tuple of Place
        Folders that files go to.
    """

    findings: tuple[Finding, ...]
    summaries: tuple[Summary, ...]
    estimates: tuple[Estimate, ...]
    steps: tuple[str, ...]
    step_bytes: Mapping[Source, int]
    places: tuple[Place, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what is merely missing is not."""
        return all(finding.state != "problem" for finding in self.findings)

    def estimate(self, model: str, preset: str) -> Estimate | None:
        """Return the estimate for a model, if there is one."""
        found = (e for e in self.estimates if (e.model, e.preset) == (model, preset))
        return next(found, None)


def examine(question: Question) -> Report:
    """Look around and return what was found.

    Raises
    ------
    UsageError
        If a model, split, preset or subject does not exist.
    """
    root, about_data = machine.find_root(question.data_dir)
    wanted = _wanted(question, root)
    device = rates.find_device()
    places = machine.places(root.path, question.weights_dir, question.cache)
    inspector = Inspector(root, wanted)
    found = summaries(inspector.cells(), root, wanted)
    estimates = tuple(_estimates(root.expectations, wanted, question.samples, device))
    findings = (
        *machine.versions(),
        _about_device(device),
        about_data,
        *(Finding("problem", "NSD", e.message, e.remedy) for e in inspector.faults.values()),
        *machine.weights_here(question.weights_dir),
        *machine.access(),
        machine.cache_finding(places[0]),
        *_disk(found, places),
        *_too_little_memory(estimates, device),
    )
    nothing_yet = about_data.state == "missing" and root.expectations.real
    steps = first_row(root, wanted) if nothing_yet else ()
    sizes = first_sizes(root, wanted) if nothing_yet else {}
    return Report(findings, found, estimates, steps, sizes, places)


def _wanted(question: Question, root: Root) -> Wanted:
    known = root.expectations.subjects
    if question.subjects is None:
        subjects = tuple(s for s in protocol.SUBJECTS if s in known) or tuple(known)
    else:
        subjects = protocol.subject_numbers(question.subjects)
    strange = [s for s in subjects if s not in known]
    if strange:
        raise UsageError(
            f"data set {root.expectations.dataset} has no subject {strange[0]}",
            remedy=f"Subjects: {', '.join(map(str, known))}.",
        )
    models = registry.expand(question.models)
    return Wanted(
        models,
        protocol.expand_splits(question.splits),
        subjects,
        _known_preset(question.preset, models),
        question.weights_dir,
    )


def _known_preset(preset: str | None, models: tuple[str, ...]) -> str | None:
    """Return the preset if at least one model has it; the others then keep their own."""
    presets = {p for name in models for p in registry.load(name).presets}
    if preset is not None and preset not in presets:
        raise UsageError(
            f"none of these models has a preset {preset!r}",
            remedy=f"Choose from: {', '.join(sorted(presets))}.",
        )
    return preset


def _about_device(device: rates.Device) -> Finding:
    if device.memory is None:
        return Finding("ok", "device", "CPU only; the simulated benchmark needs no GPU, published presets do")
    return Finding("ok", "device", f"{device.name}, {device.memory / machine.GIB:.0f} GiB")


def _estimates(
    expectations: Expectations, wanted: Wanted, samples: int, device: rates.Device
) -> Iterator[Estimate]:
    subject = max(wanted.subjects, key=lambda s: expectations.of(s).n_voxels)
    sizes = sizes_of(expectations, subject)
    root = Root(None, expectations)
    on_cpu, on_gpu = rates.cpu_rates(), rates.find_rates(device)
    for name in wanted.models:
        adapter = registry.load(name)
        preset = preset_of(adapter, root, wanted.preset)
        drawn = samples if adapter.stochastic else 1
        known = costs_of(adapter, preset, drawn, max(REPEATS[split] for split in wanted.splits))
        if known is None:
            continue
        used = on_cpu if device.memory is None and preset in ("mini", "standard") else on_gpu
        fit = known.fit(sizes)
        splits = tuple(
            _timed(known, sizes, split, drawn, used, expectations, subject) for split in wanted.splits
        )
        yield Estimate(name, preset, subject, used, fit, splits)


def _timed(
    known: Costs,
    sizes: Sizes,
    split: Split,
    samples: int,
    used: Rates,
    expectations: Expectations,
    subject: int,
) -> Timed:
    targets = TARGETS
    if split == "shared1000":
        targets = expectations.of(subject).shared_images or expectations.n_shared
    cost = known.reconstruct(sizes, Amount(targets, REPEATS[split], samples))
    return Timed(split, targets, samples, cost, used.seconds(cost.work))


def sizes_of(expectations: Expectations, subject: int) -> Sizes:
    """Return about what a decoder of this subject is fitted on: all trials but those of shared images."""
    facts = expectations.of(subject)
    if expectations.real:
        row = next(r for r in table("subjects") if r["subject"] == f"subj{subject:02d}")
        trials = int(row["core_trials"]) - int(row["shared1000_trials_all_sessions"])
        images = int(row["distinct_images_seen"]) - int(row["shared1000_images_seen"])
        return Sizes(trials, images, facts.n_voxels)
    return _generated(facts, expectations)


def _generated(facts: SubjectFacts, expectations: Expectations) -> Sizes:
    """Every image of a generated data set is shown three times."""
    trials = facts.sessions * expectations.trials_per_session - 3 * expectations.n_shared
    return Sizes(trials, math.ceil(trials / 3), facts.n_voxels)


def _disk(found: tuple[Summary, ...], places: tuple[Place, ...]) -> Iterator[Finding]:
    """Compare what is missing with the disks that it goes to; what goes to the same disk counts together."""
    lacking = {place: _bytes_missing(found, place.what) for place in places}
    for place, size in lacking.items():
        if not size:
            continue
        together = sum(n for other, n in lacking.items() if other.device == place.device)
        line = f"{place.free / 1e9:.0f} GB free in {place.path}; all that is missing takes about {size / 1e9:.0f} GB"
        line += f" ({together / 1e9:.0f} GB with what goes to the same disk)" if together > size else ""
        what = f"disk for {place.what}"
        if not place.writable:
            yield Finding(
                "warning", what, f"{place.path} is not writable", f"name another {place.what} directory"
            )
        elif place.free < together:
            yield Finding("warning", what, line, "choose fewer models or subjects, or another disk")
        else:
            yield Finding("ok", what, line)


def _bytes_missing(found: tuple[Summary, ...], source: str) -> int:
    files = {f.name: f for s in found for gap in s.gaps if gap.source == source for f in gap.files}
    return sum(file.size or 0 for file in files.values())


def _too_little_memory(estimates: tuple[Estimate, ...], device: rates.Device) -> Iterator[Finding]:
    """Compare estimates with the memory of the GPU and of this machine."""
    host = rates.host_memory()
    for estimate in estimates:
        name = f"{estimate.model}-{estimate.preset}"
        if device.memory is not None and estimate.device_memory > device.memory:
            yield Finding(
                "warning", name,
                f"needs about {estimate.device_memory / 1e9:.0f} GB of GPU memory (estimated), this GPU has "
                f"{device.memory / 1e9:.0f} GB",
                "another preset or a larger GPU",
            )  # fmt: skip
        if host is not None and estimate.host_memory > host:
            yield Finding(
                "warning", name,
                f"needs about {estimate.host_memory / 1e9:.0f} GB of main memory (estimated), this machine has "
                f"{host / 1e9:.0f} GB",
                "a machine with more memory",
            )  # fmt: skip
