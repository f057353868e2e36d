"""What a check finds: failures, changes that do not fail, and how strict it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nsdbench.check.cells import Name
from nsdbench.comparison.tables import number

TWO_WAY_LOSS, OTHER_LOSS = 0.02, 0.01
ALPHA = 0.05
BOUNDS = 1 - 2 * ALPHA  # level of the interval whose limits are one-sided 95 % bounds
WORST = 5


@dataclass(frozen=True)
class Rules:
    """How strict a check is.

    Attributes
    ----------
    losses : mapping of str to float
        Tolerated loss by metric; otherwise 0.02 for identification and retrieval, and 0.01 for the rest.
    exact : bool
        Require equal items even where it is not known that the reconstructions are identical.
    allow_missing : bool
        Compare what is there and do not fail for the rest.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    exact: bool = False
    allow_missing: bool = False

    def loss(self, name: Name) -> float:
        """Return the tolerated loss of a metric."""
        return self.losses.get(name.metric, OTHER_LOSS if name.pool == "none" else TWO_WAY_LOSS)


@dataclass(frozen=True)
class Item:
    """One score before and after; ``sample`` is None for the average over samples."""

    subject: int
    stimulus: str
    sample: int | None
    old: float | None
    new: float | None


@dataclass(frozen=True)
class Change:
    """The paired difference, new minus old, of regenerated reconstructions; positive is better.

    Attributes
    ----------
    value : float
        Mean over samples, targets, then subjects.
    low, high : float or None
        Limits of its 90 % interval, each one a one-sided 95 % bound; None for a single target.
    p : float
        Of a loss greater than tolerated, one-sided, corrected for all metrics and pools of the model and split.
    n_metrics : int
        How many metrics and pools that were.
    n_targets, n_subjects : int
        Targets (of the subject with the fewest) and subjects compared.
    tolerated : float
        The loss that passes.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    n_metrics: int
    n_targets: int
    n_subjects: int
    tolerated: float

    @property
    def verdict(self) -> Literal["failed", "suspect", "worse", "better", "uncertain"]:
        """How to read it.

        A loss beyond the tolerated one fails if it is certain in spite of the number of metrics, and is suspect if
        only its own interval says so. A smaller one is worse where the interval excludes zero.
        """
        if self.low is None or self.high is None:
            return "uncertain"
        if self.high < -self.tolerated:
            return "failed" if self.p <= ALPHA else "suspect"
        if self.high < 0:
            return "worse"
        return "better" if self.low > 0 else "uncertain"

    @property
    def sizes(self) -> str:
        """On how many targets it rests, and on how many subjects if there are several."""
        targets = f"{self.n_targets} target{'s' * (self.n_targets != 1)}"
        return targets if self.n_subjects == 1 else f"{targets}, {self.n_subjects} subjects"

    @property
    def evidence(self) -> str:
        """The p-value in words."""
        p = "p < .001" if self.p < 0.001 else f"p = {number(self.p)}"
        return f"{p} among {self.n_metrics} metrics and pools"


@dataclass(frozen=True)
class Failure:
    """One reason why the check fails.

    Attributes
    ----------
    kind : {"missing", "version", "changed", "worse"}
        Something is absent; the metric's definition changed; identical reconstructions score otherwise; regenerated
        reconstructions score worse.
    name : Name
        Data set, model, preset, split, metric, profile and pool.
    message : str
        What happened, in numbers.
    worst : tuple of Item
        The items that changed most.
    change : Change or None
        The difference of regenerated reconstructions.
    """

    kind: Literal["missing", "version", "changed", "worse"]
    name: Name
    message: str
    worst: tuple[Item, ...] = ()
    change: Change | None = None


@dataclass(frozen=True)
class Report:
    """Outcome of a check.

    Attributes
    ----------
    failures : tuple of Failure
        Why it fails; nothing if it does not.
    moved : tuple of (Name, Change)
        Cells of regenerated reconstructions that changed without failing.
    notes : tuple of str
        What else to know.
    compared, cells : int
        How many item scores were compared, in how many cells.
    """

    failures: tuple[Failure, ...] = ()
    moved: tuple[tuple[Name, Change], ...] = ()
    notes: tuple[str, ...] = ()
    compared: int = 0
    cells: int = 0

    def __add__(self, other: Report) -> Report:
        return Report(
            self.failures + other.failures,
            self.moved + other.moved,
            self.notes + other.notes,
            self.compared + other.compared,
            self.cells + other.cells,
        )

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def document(self) -> dict[str, Any]:
        """Return the JSON document of the command line."""
        return {
            "ok": self.ok,
            "failures": [
                {
                    "kind": failure.kind,
                    "cell": str(failure.name),
                    "message": failure.message,
                    "worst": [asdict(item) for item in failure.worst],
                    **failure.name._asdict(),
                    "change": failure.change and asdict(failure.change),
                }
                for failure in self.failures
            ],
            "compared": self.compared,
            "moved": [
                {"verdict": change.verdict, "cell": str(name), **name._asdict(), "change": asdict(change)}
                for name, change in self.moved
            ],
            "notes": list(self.notes),
        }
