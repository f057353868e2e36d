"""Pretrainings on several subjects: made, and used where a fit on another subject begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsdbench import __version__, protocol
from nsdbench.adapters import registry
from nsdbench.adapters.base import START_FACTS, Adapter, Context, start_facts
from nsdbench.adapters.nets.shipped import located
from nsdbench.errors import UsageError
from nsdbench.manifest import git_commit, now
from nsdbench.schema import VARIANT
from nsdbench.store import atomic_directory, digest, read_json, write_json
from nsdbench.types import Progress, Silent, Trials

if TYPE_CHECKING:
    from nsdbench.data import Dataset, LoadOptions


@dataclass(frozen=True)
class Recipe:
    """How a fit differs from the full one of a subject: from a pretraining, or on some of the trials.

    Attributes
    ----------
    start : Path or None
        Folder of a pretraining.
    train_trials : int or None
        The first so many in the order of their acquisition.
    """

    start: Path | None = None
    train_trials: int | None = None

    def require(self, adapter: type[Adapter], preset: str | None) -> None:
        """Refuse a recipe that a model cannot follow; without a preset, that is only known in part.

        Raises
        ------
        UsageError
            If the model has no shared part, fits nothing, or the pretraining is none or that of another one.
        """
        if self.start and not adapter.shares():
            raise UsageError(
                f"fits of {adapter.name} cannot begin from a pretraining: it has no part that subjects share",
                remedy="Leave out --start, or that model.",
            )
        if preset and not adapter.learns(preset) and (self.start or self.train_trials):
            raise UsageError(
                f"{adapter.name}-{preset} is the published checkpoint of the subject, so nothing is fitted",
                remedy=f"Leave out --start and --train-trials, or choose --preset {_that_learn(adapter)}.",
            )
        self._start_facts(adapter, preset)

    def variant(self, adapter: type[Adapter], preset: str) -> str:
        """Return the preset under which results are filed, so that they never pass for those of the full fit."""
        parts = [preset]
        if self.train_trials:
            parts.append(f"{self.train_trials}trials")
        if self.start:
            facts = self._start_facts(adapter, preset)
            parts.append(f"pretrained-{'-'.join(map(str, facts['subjects']))}-{facts['sha256'][:6]}")
        return VARIANT.join(parts)

    def identity(self, adapter: type[Adapter], preset: str) -> tuple[str | int, ...]:
        """Return what determines the fit besides the data; nothing for the full one."""
        return tuple(filter(None, (self._start_facts(adapter, preset).get("sha256"), self.train_trials)))

    def facts(self, adapter: type[Adapter], preset: str) -> dict[str, Any]:
        """Return what the record of a run says about its fit."""
        start = self._start_facts(adapter, preset) or None
        kept = start and {name: start[name] for name in ("model", "preset", "subjects", "sha256")}
        return {"train_trials": self.train_trials, "start": kept}

    def _start_facts(self, adapter: type[Adapter], preset: str | None) -> dict[str, Any]:
        return start_facts(self.start, adapter.name, preset) if self.start else {}


@dataclass(frozen=True)
class PretrainRequest:
    """What ``nsdbench pretrain`` was asked for.

    Attributes
    ----------
    model : str
    subjects : tuple of int
    load : LoadOptions
    folder : Path
        Where to; must not exist yet.
    preset : str or None
        None means the default for the data set.
    context : Context
    train_trials : int or None
        Of each subject, the first in the order of their acquisition; None means all.
    """

    model: str
    subjects: tuple[int, ...]
    load: LoadOptions
    folder: Path
    preset: str | None = None
    context: Context = field(default_factory=Context)
    train_trials: int | None = None


def require_pretrainable(model: str, preset: str | None, folder: Path) -> None:
    """Refuse what cannot be pretrained into ``folder``; without a preset, that is only known in part.

    Raises
    ------
    UsageError
        If the model or preset is unknown or learns nothing that subjects share, or the folder exists.
    """
    adapter = registry.load(model)
    if not adapter.shares():
        raise UsageError(f"{adapter.name} has no part that subjects share, so it cannot be pretrained")
    if preset is not None:
        adapter(preset)  # raises the error that lists the presets
        if not adapter.learns(preset):
            raise UsageError(
                f"{adapter.name}-{preset} takes published checkpoints and learns nothing",
                remedy=f"Choose --preset {_that_learn(adapter)}.",
            )
    if folder.exists():
        raise UsageError(f"{folder} exists already", remedy="Give a new folder, or delete it.")


def pretrain(dataset: Dataset, request: PretrainRequest, *, progress: Progress | None = None) -> None:
    """Let a decoder learn what subjects have in common, and write it to a folder for fits on another subject.

    An interrupted pretraining goes on from its last epoch when the same one is asked for again.

    Raises
    ------
    UsageError
        As in :func:`require_pretrainable`.
    WeightsError
        If pretrained networks of the decoder are missing; nothing has been computed then.
    """
    folder, context, progress = request.folder, request.context, progress or Silent()
    adapter = registry.load(request.model)
    preset = request.preset or protocol.default_preset(adapter, dataset)
    require_pretrainable(request.model, preset, folder)
    located(adapter.requires.get(preset, ()), context.weights_dir)
    identity = digest("pretraining/1", adapter.name, adapter.version, preset, *_inputs(dataset, request))
    scratch = folder.with_name(
        f"{folder.name}.{identity}.training"
    )  # nothing goes on from the state of another one
    parts = [
        (
            first_trials(dataset.train(subject, request.load, progress), request.train_trials),
            dataset.stimuli("train", subject, request.load),
        )
        for subject in request.subjects
    ]
    with atomic_directory(folder) as temporary:
        adapter(preset, replace(context, scratch=scratch)).pretrain(parts, temporary, progress=progress)
        facts = {**read_json(temporary / START_FACTS), **_origin(dataset, request)}
        write_json(temporary / START_FACTS, facts)
    shutil.rmtree(scratch, ignore_errors=True)


def take_published(model: str, subject: int, folder: Path, context: Context) -> None:
    """Write the published pretraining on all subjects but ``subject`` to a folder for fits on that subject.

    Raises
    ------
    UsageError
        If the model has none, or the folder exists.
    WeightsError
        If the checkpoint is missing, or none was published without this subject.
    """
    require_pretrainable(model, None, folder)
    adapter = registry.load(model)
    preset = next(name for name in adapter.presets if adapter.learns(name))
    with atomic_directory(folder) as temporary:
        adapter(preset, context).adopt_shared(subject, temporary)


def first_trials(train: Trials, count: int | None) -> Trials:
    """Return the first ``count`` training trials in the order of their acquisition; None means all.

    Raises
    ------
    UsageError
        If there are fewer.
    """
    if count is None:
        return train
    if count > len(train):
        raise UsageError(
            f"subject {train.subject} has {len(train)} training trials, not {count}",
            remedy="Ask for fewer, or for all by leaving --train-trials out.",
        )
    return train.select(np.arange(count))


def _inputs(dataset: Dataset, request: PretrainRequest) -> Iterator[str | int | None]:
    """Yield what tells the inputs of a pretraining apart: betas and images of every subject, and how many trials."""
    for subject in request.subjects:
        yield dataset.key(subject, "train", request.load)
        yield dataset.stimuli("train", subject, request.load).content_hash
    yield request.train_trials


def _origin(dataset: Dataset, request: PretrainRequest) -> dict[str, object]:
    return {
        "dataset": dataset.id,
        "dataset_hash": dataset.content_hash,
        "load": asdict(request.load),
        "train_trials": request.train_trials,
        "nsdbench_version": __version__,
        "git_commit": git_commit(),
        "created_at": now(),
    }


def _that_learn(adapter: type[Adapter]) -> str:
    return " or ".join(preset for preset in adapter.presets if adapter.learns(preset)) or "another model"
