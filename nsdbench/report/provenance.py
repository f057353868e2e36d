"""Where the results come from: what all runs share once, what differs run by run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nsdbench.comparison.tables import NONE
from nsdbench.report.runs import Run, in_order

_ALWAYS = ("model", "preset", "split", "subject")  # columns that name a run


@dataclass(frozen=True)
class Provenance:
    """Facts about runs.

    Attributes
    ----------
    common : tuple of (str, str)
        Names and values of what is equal in all runs.
    header : tuple of str
        Names of what differs, beginning with what names a run.
    rows : tuple of tuple of str
        One per run.
    notes : tuple of (str, tuple of str)
        What runs themselves noted, and which runs.
    """

    common: tuple[tuple[str, str], ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, tuple[str, ...]], ...]


def provenance(runs: Iterable[Run]) -> Provenance:
    """Return the facts about runs, in order of split, model, preset and subject; empty without runs."""
    runs = in_order(runs)
    facts = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for one in facts for name in one))
    values = {name: [one.get(name, NONE) for one in facts] for name in names}
    common = [name for name in names if len(set(values[name])) == 1 and name not in _ALWAYS]
    differing = [name for name in names if name not in common]
    return Provenance(
        tuple((name, values[name][0]) for name in common if values[name][0] != NONE),
        tuple(differing),
        tuple(tuple(values[name][i] for name in differing) for i in range(len(runs))),
        _notes(runs),
    )


def _facts(run: Run) -> dict[str, str]:
    manifest, origin = run.manifest, run.manifest.provenance
    key, config, machine = manifest.key, manifest.config, manifest.environment
    facts = {
        "model": key.model,
        "preset": key.preset,
        "split": key.split,
        "subject": key.subject,
        "run id": key.run_id,
        "date": (origin.created_at or "").replace("T", " ").replace("+00:00", " UTC"),
        "status": origin.status,
        "samples": config.get("n_samples"),
        "seed": config.get("seed"),
        "targets": len(manifest.targets),
        "training trials": origin.decoder_train_trials,
        "voxels": origin.n_voxels,
        "data set": key.dataset,
        "data set hash": origin.dataset_hash,
        "hash of targets": origin.stimulus_hash,
        "betas": origin.beta_version,
        "normalization": origin.normalization,
        "averaging": origin.averaging,
        "label source": origin.label_source,
        "source": origin.source,
        "weights of metrics": _list((origin.weights_id or "").split(",")),
        "weights of decoder": _list(config.get("decoder_weights") or ()),
        "paper": config.get("paper"),
        "device": config.get("device"),
        "nsdbench": origin.nsdbench_version,
        "git commit": origin.git_commit,
        "Python": machine.get("python"),
        "libraries": _versions(machine.get("libraries")),
        "platform": machine.get("platform"),
    }  # fmt: skip
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _list(names: object) -> str:
    """Join what should be names; a record that was tampered with may hold anything."""
    return ", ".join(str(name) for name in names if name) if isinstance(names, list | tuple) else str(names)


def _versions(libraries: object) -> str:
    known = libraries.items() if isinstance(libraries, dict) else ()
    return ", ".join(sorted(f"{name} {version}" for name, version in known))


def _notes(runs: Sequence[Run]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found: dict[str, list[str]] = {}
    for run in runs:
        key = run.manifest.key
        for note in run.manifest.notes:
            found.setdefault(note, []).append(f"{key.model} subject {key.subject} {key.split}")
    return tuple((note, tuple(where)) for note, where in found.items())
