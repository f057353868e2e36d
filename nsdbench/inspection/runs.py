"""From run folders to their checks: find the data again, look through one network, keep the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsdbench import protocol
from nsdbench.adapters.base import Context
from nsdbench.errors import DataError, NsdbenchError, UsageError
from nsdbench.features import pace
from nsdbench.inspection import generator as generators
from nsdbench.inspection import questions
from nsdbench.inspection.evidence import Evidence, Reader, load_metric
from nsdbench.inspection.generator import Generator
from nsdbench.inspection.results import Check, Inspection, read_checks
from nsdbench.inspection.sources import open_run
from nsdbench.manifest import RunManifest
from nsdbench.metrics import registry
from nsdbench.metrics.nets.network import FeatureNet
from nsdbench.metrics.profiles import DEFAULT, profile
from nsdbench.scoring import ScoreSettings, require_weights
from nsdbench.store import cache_root, digest
from nsdbench.types import Progress, Silent

if TYPE_CHECKING:
    from nsdbench.data import Dataset

VERSION = 1  # +1 whenever a value can change
NETWORK, MINI_NETWORK = "clip", "mini_clip"
BATCH = 64


@dataclass(frozen=True)
class InspectSettings:
    """What to check and how.

    Attributes
    ----------
    checks : tuple of str
        Names of :data:`nsdbench.metrics.registry.CHECKS`; empty means all.
    network : str or None
        Identification metric whose features are compared; None means ``clip``, on simulated data ``mini_clip``.
    data_dir : Path or None
        Root of the data set; None means where each run says it was.
    weights : {"pretrained", "random"}
    weights_dir : Path or None
    device : str
    cache : Path or None
    """

    checks: tuple[str, ...] = ()
    network: str | None = None
    data_dir: Path | None = None
    weights: Literal["pretrained", "random"] = "pretrained"
    weights_dir: Path | None = None
    device: str = "cpu"
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name in self.checks:
            if name not in registry.CHECKS:
                raise UsageError(
                    f"there is no check {name!r}", remedy=f"Choose from: {', '.join(registry.CHECKS)}."
                )
        if self.network is not None:
            load_metric(self.network)
        _ = self.scoring  # refuses unknown weights

    @property
    def wanted(self) -> tuple[str, ...]:
        """The checks to make, in the order in which they are shown."""
        return tuple(name for name in registry.CHECKS if not self.checks or name in self.checks)

    @property
    def scoring(self) -> ScoreSettings:
        """The same choices, as scoring takes them."""
        metrics = (self.network or NETWORK,)
        return ScoreSettings(
            metrics, weights=self.weights, weights_dir=self.weights_dir, device=self.device, cache=self.cache
        )


class Inspector:
    """Inspects one run after the other; a network is loaded once.

    Parameters
    ----------
    settings : InspectSettings
    progress : Progress, optional
    nets : mapping of str to FeatureNet, optional
        Loaded networks by name; the others are loaded as ``settings`` say.
    """

    def __init__(
        self,
        settings: InspectSettings,
        *,
        progress: Progress | None = None,
        nets: Mapping[str, FeatureNet] | None = None,
    ) -> None:
        self._settings = settings
        self._progress = progress or Silent()
        self._nets = dict(nets or {})

    def inspect(self, folder: Path) -> Inspection:
        """Make the checks of one run and write them to its ``checks.json``.

        Checks that are there already and depend on nothing that has changed are kept.

        Raises
        ------
        DataError
            If the run is damaged or unfinished, or its data set is not to be found or another one.
        UsageError
            If the network does not fit the data.
        WeightsError
            If the weights of the network are missing.
        """
        source = open_run(folder, self._settings.data_dir, self._settings.cache)
        reader = self._reader(source.dataset)
        evidence = Evidence(reader, source.recon, source.stimuli, source.training)
        fresh = _empty(source.manifest, reader, evidence)
        before = _before(folder)
        kept = {c.name: c for c in before.checks} if before and before.identity == fresh.identity else {}
        answers = self._answers(evidence, source.manifest, kept)
        found = replace(fresh, checks=answers, notes=source.notes())
        found.write(folder)
        return replace(found, checks=tuple(one for one in answers if one.name in self._settings.wanted))

    def _answers(
        self, evidence: Evidence, manifest: RunManifest, kept: Mapping[str, Check]
    ) -> tuple[Check, ...]:
        cache = cache_root(self._settings.cache)
        context = Context(self._settings.device, self._settings.weights_dir)
        generator = Generator(manifest.key, context, cache / "copies")
        asked = _questions(evidence, generator)
        answers = []
        for name in registry.CHECKS:
            there = kept.get(name)
            if there and (there.unavailable is None or name not in self._settings.wanted):
                answers.append(there)
            elif name in self._settings.wanted:
                answers.append(_ask(name, asked[name], evidence))
        return tuple(answers)

    def _reader(self, dataset: Dataset) -> Reader:
        simulated = protocol.is_simulated(dataset)
        mini = simulated and self._settings.weights == "pretrained"
        metric = self._settings.network or (MINI_NETWORK if mini else NETWORK)
        registry.for_data(metric, simulated=simulated)
        net = self._net(metric)
        device = self._settings.device
        cache = cache_root(self._settings.cache) / "features"
        return Reader(metric, DEFAULT, net, cache, pace(device, BATCH), self._progress)

    def _net(self, metric: str) -> FeatureNet:
        from nsdbench.metrics.nets import load_net

        settings, name = self._settings, load_metric(metric).features.source
        if name not in self._nets:
            require_weights(replace(settings.scoring, metrics=(metric,)))
            self._nets[name] = load_net(
                name,
                variant=profile(DEFAULT).variants.get(name, ""),
                weights=settings.weights,
                weights_dir=settings.weights_dir,
                device=settings.device,
            )
        return self._nets[name]


def _questions(evidence: Evidence, generator: Generator) -> dict[str, Callable[[], Check]]:
    return {
        "within_cluster_2way": partial(questions.within_cluster, evidence),
        "cluster_2way_gap": partial(questions.cluster_gap, evidence),
        "nn_baseline": partial(questions.nn_baseline, evidence),
        "novelty_id": partial(questions.novelty, evidence),
        "output_rank": partial(generators.output_rank, evidence, generator),
        "recovery_ceiling": partial(generators.recovery_ceiling, evidence, generator),
        "set_oracle_floor": partial(questions.set_oracle, evidence),
    }


def _ask(name: str, question: Callable[[], Check], evidence: Evidence) -> Check:
    """Return the answer, or the reason why there is none; no check fails the others."""
    try:
        return question()
    except NsdbenchError as error:
        return Check(
            name,
            n_targets=len(evidence.targets),
            n_samples=evidence.recon.n_samples,
            unavailable=f"{error.message} ({error.remedy})" if error.remedy else error.message,
        )


def _training_facts(evidence: Evidence) -> tuple[str, int | None]:
    """Return hash and number of the training images, without reading their pixels; nothing where they are not there."""
    try:
        training = evidence.training
    except NsdbenchError:
        return "", None
    return digest(training.stimuli.content_hash, *training.ids), len(training.ids)


def _empty(manifest: RunManifest, reader: Reader, evidence: Evidence) -> Inspection:
    """Return an inspection without answers: what they will depend on."""
    key, (training_hash, n_train) = manifest.key, _training_facts(evidence)
    return Inspection(
        run_id=key.run_id, dataset=key.dataset, model=key.model, preset=key.preset, subject=key.subject,
        split=key.split, status="untrained" if reader.net.untrained else manifest.provenance.status,
        metric=reader.metric, metric_profile=reader.profile, network=reader.net.name,
        weights_id=reader.net.weights_id, weights_sha256=reader.net.weights_sha256,
        reconstructions_sha256=str(manifest.reconstructions_sha256),
        dataset_hash=manifest.provenance.dataset_hash, stimulus_hash=manifest.provenance.stimulus_hash,
        training_hash=training_hash, n_train=n_train, pool=evidence.pool_name, version=VERSION,
    )  # fmt: skip


def _before(folder: Path) -> Inspection | None:
    """Return the checks that are there already; a damaged file counts as absent and is written again."""
    try:
        return read_checks(folder)
    except DataError:
        return None
