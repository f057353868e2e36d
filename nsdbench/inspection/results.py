"""What the checks of a run found, and the file ``checks.json`` that keeps it beside the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nsdbench.errors import DataError
from nsdbench.metrics.registry import CHECKS
from nsdbench.store import read_json, sha256_file, write_json

Outcome = Literal["above", "open", "below"]
SCHEMA = "checks/1"
FILENAME, RECONSTRUCTIONS = "checks.json", "reconstructions.h5"
AGAIN = "Delete it and run `nsdbench inspect` again."


@dataclass(frozen=True)
class Check:
    """The answer to one question.

    Attributes
    ----------
    name : str
        A key of :data:`nsdbench.metrics.registry.CHECKS`.
    value : float or None
        None where the check is unavailable or undefined.
    low, high : float or None
        95 % limits over targets, samples of a target averaged first: BCa bootstrap, or jackknife for what is no mean
        over targets (``output_rank``). None where there are none.
    reference : float or None
        What ``value`` is to be compared with.
    reference_label : str
        What ``reference`` is.
    n_targets, n_samples : int
        Targets that entered, and reconstructions of each.
    outcome : {"above", "open", "below"} or None
        Where the value lies from ``reference``, as far as these targets can tell: "open" says neither. Decided on
        differences within targets where the reference varies between them.
    details : mapping
        Further numbers by name, JSON scalars or flat lists and mappings of these.
    verdict : str
        One sentence for a reader in a hurry.
    unavailable : str or None
        Why the check could not be made.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    reference_label: str = ""
    outcome: Outcome | None = None
    n_targets: int = 0
    n_samples: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""
    unavailable: str | None = None


@dataclass(frozen=True)
class Inspection:
    """The checks of one run, and everything they depend on.

    Attributes
    ----------
    run_id, dataset, model, preset : str
    subject : int
    split : str
        Which run it is.
    status : {"measured", "simulated", "untrained"}
        Label of all values; "untrained" where the feature network has random weights.
    metric : str
        Identification metric that names network and node.
    metric_profile : str
    network, weights_id, weights_sha256 : str
        The feature network behind every value.
    reconstructions_sha256 : str
        Hash of the file of reconstructions that was looked at.
    dataset_hash, stimulus_hash, training_hash : str
        Of the data set, of the targets and of the training images.
    n_train : int or None
        Training images; None where they are not known.
    pool : str
        Ground truths among which targets are identified.
    version : int
        Of the checks; grows when a value can change.
    checks : tuple of Check
    notes : tuple of str
    """

    run_id: str
    dataset: str
    model: str
    preset: str
    subject: int
    split: str
    status: str
    metric: str
    metric_profile: str
    network: str
    weights_id: str
    weights_sha256: str
    reconstructions_sha256: str
    dataset_hash: str
    stimulus_hash: str
    training_hash: str
    n_train: int | None
    pool: str
    version: int
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the values depend on."""
        document = asdict(self)
        return {name: document[name] for name in document if name not in ("checks", "notes")}

    def document(self) -> dict[str, Any]:
        """Return the JSON document, without its schema id."""
        return {
            **self.identity,
            "checks": [asdict(check) for check in self.checks],
            "notes": list(self.notes),
        }

    def write(self, folder: Path) -> None:
        """Write ``checks.json`` into a run folder, atomically.

        Raises
        ------
        DataError
            If nothing can be written there.
        """
        path = folder / FILENAME
        try:
            write_json(path, {"schema": SCHEMA, **self.document()})
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror})",
                remedy="Answers are kept beside the run: check permissions and space, or inspect a copy of the folder.",
            ) from error


def read_checks(folder: Path) -> Inspection | None:
    """Return the checks of the run in ``folder``, None where none were made or the reconstructions are others now.

    Raises
    ------
    DataError
        If the file is damaged, of another schema, or belongs to another run.
    """
    path = folder / FILENAME
    if not path.is_file():
        return None
    try:
        document = read_json(path)
    except DataError as error:
        raise DataError(error.message, remedy=error.remedy or AGAIN) from error
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise DataError(f"{path} is not a file of checks of schema {SCHEMA}", remedy=AGAIN)
    try:
        checks = tuple(_check(entry) for entry in document.pop("checks"))
        found = Inspection(**document | {"checks": checks, "notes": tuple(document["notes"])})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error})", remedy=AGAIN) from error
    manifest = read_json(folder / "run.json")
    if not isinstance(manifest, dict) or manifest.get("run_id") != found.run_id:
        raise DataError(
            f"{path} holds checks of run {found.run_id}, which is not the run beside it",
            remedy=AGAIN,
        )
    reconstructions = folder / RECONSTRUCTIONS
    if reconstructions.is_file() and sha256_file(reconstructions) != found.reconstructions_sha256:
        return None
    return found


def _check(entry: Mapping[str, Any]) -> Check:
    check = Check(**entry)
    if check.name not in CHECKS:
        raise ValueError(f"there is no check {check.name!r}")
    for name in ("value", "low", "high", "reference"):
        number = getattr(check, name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ValueError(f"{name} of {check.name} is {number!r}")
        if number is not None and not math.isfinite(number):
            raise ValueError(f"{name} of {check.name} is not finite")
    if check.outcome not in (None, *get_args(Outcome)):
        raise ValueError(f"outcome of {check.name} is {check.outcome!r}")
    if (check.unavailable is None) != bool(check.verdict) or not isinstance(check.details, dict):
        raise ValueError(f"{check.name} has neither verdict nor reason, or no details")
    return check
