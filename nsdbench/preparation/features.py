"""What decoders learn to say about training images, computed before any fit and kept for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.featurefiles import SHARD
from nsdbench.adapters.nets.shipped import located
from nsdbench.data import Dataset, LoadOptions
from nsdbench.errors import UsageError
from nsdbench.protocol import default_preset
from nsdbench.types import Progress, Silent


@dataclass(frozen=True)
class Share:
    """Every ``of``-th file of features, from the ``number``-th on (counted from 1): the part of one job among several."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Turn ``"2/8"`` into the second of eight shares.

        Raises
        ------
        UsageError
            If it is not of that form.
        """
        number, slash, of = text.partition("/")
        if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return cls(int(number), int(of))
        raise UsageError(f"--shard takes a form such as 1/8 or 8/8, not {text!r}")

    def take(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Return the images of this share."""
        starts = range(0, len(ids), SHARD)[self.number - 1 :: self.of]
        return tuple(stimulus for start in starts for stimulus in ids[start : start + SHARD])


@dataclass(frozen=True)
class FeaturesRequest:
    """What ``nsdbench data prepare --model`` was asked for.

    Attributes
    ----------
    models : tuple of str
    subjects : tuple of int
    options : LoadOptions
        They say which images are shown in training trials.
    context : Context
        With a folder for ``features``.
    preset : str or None
        None means the default of each model for the data set.
    share : Share
    """

    models: tuple[str, ...]
    subjects: tuple[int, ...]
    options: LoadOptions
    context: Context
    preset: str | None = None
    share: Share = field(default_factory=Share)


@dataclass(frozen=True)
class FeaturesPlan:
    """Features of one subject's training images for one model.

    Attributes
    ----------
    model, preset : str
    subject : int
    ids : tuple of str
        The images, those of the share alone.
    n_bytes : int
        What their features take on disk; 0 if that is not known.
    """

    model: str
    preset: str
    subject: int
    ids: tuple[str, ...]
    n_bytes: int


def prepare_features(
    dataset: Dataset,
    request: FeaturesRequest,
    *,
    progress: Progress | None = None,
    report: Callable[[FeaturesPlan], None] = lambda plan: None,
) -> tuple[FeaturesPlan, ...]:
    """Compute what the fits of models need of training images; what is there already is left alone.

    ``report`` is told about each plan before its features are computed.

    Raises
    ------
    UsageError
        If none of the models has anything to prepare.
    WeightsError, DataError
        If weights of a model or the images are missing; nothing has been computed then.
    NoRoom
        If the disk is too small. What was complete before is kept.
    """
    require_preparable(dataset, request)
    return tuple(_prepared(dataset, request, progress or Silent(), report))


def require_preparable(dataset: Dataset, request: FeaturesRequest) -> None:
    """Refuse a request that :func:`prepare_features` would refuse, before anything is read or computed."""
    for adapter, preset in _chosen(dataset, request):
        for subject in request.subjects:
            located(adapter.required(preset, subject), request.context.weights_dir)
    for subject in request.subjects:
        dataset.stimuli("train", subject, request.options)


def _chosen(dataset: Dataset, request: FeaturesRequest) -> list[tuple[type[Adapter], str]]:
    """Return the models that have something to prepare, with their presets."""
    chosen, without = [], []
    for name in request.models:
        adapter = registry.load(name)
        preset = request.preset or default_preset(adapter, dataset)
        adapter(preset)  # raises the error that lists the presets
        if adapter.prepares() and adapter.learns(preset):
            chosen.append((adapter, preset))
        else:
            without.append(f"{adapter.name}-{preset}")
    if not chosen:
        raise UsageError(
            f"there is nothing to prepare for {', '.join(without)}",
            remedy="Features are computed for models whose fits learn from them: brain_diffuser, takagi, icnn, "
            "mindeye1 and mindeye2 with --preset retrained.",
        )
    return chosen


def _prepared(
    dataset: Dataset,
    request: FeaturesRequest,
    progress: Progress,
    report: Callable[[FeaturesPlan], None],
) -> Iterator[FeaturesPlan]:
    for kind, preset in _chosen(dataset, request):
        adapter = kind(preset, request.context)  # loads its networks once for all subjects
        for subject in request.subjects:
            stimuli = dataset.stimuli("train", subject, request.options)
            ids = request.share.take(stimuli.ids)
            plan = FeaturesPlan(adapter.name, preset, subject, ids, adapter.prepared_bytes(len(ids)))
            report(plan)
            if ids:
                adapter.prepare(stimuli, ids, progress=progress)
            yield plan
