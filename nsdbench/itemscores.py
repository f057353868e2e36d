"""Item scores of one metric in one pool, and how they become rows of the item table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nsdbench.measurement import Pairing
from nsdbench.metrics import registry
from nsdbench.metrics.profiles import Profile
from nsdbench.schema import ITEMS, ITEMS_UNIQUE, RunKey

IMAGERY_TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
ALONE = "the pool has no distractor"


@dataclass(frozen=True)
class ItemScores:
    """One metric in one pool: a value, a floor and perhaps a reason per column (NaN becomes null).

    A column is one sample of one target, the samples of a target adjacent. What belongs to a target rather than to a
    sample of it has ``n_samples`` 1.
    """

    metric: str
    pool: str
    values: NDArray[np.float64]
    floors: NDArray[np.float64]
    reasons: list[str | None]
    n_samples: int


def pools(pool_ids: tuple[str, ...]) -> dict[str, tuple[NDArray[np.int64], ...]]:
    """Return the pools in which identification is reported, as groups of rows that are distractors of each other.

    The twelve NSD-Imagery targets give ``"AB12"`` (all of them) and ``"within6"`` (A among A, B among B); any
    other set of n ground truths gives ``"all<n>"``.
    """
    rows = np.arange(len(pool_ids))
    if pool_ids == IMAGERY_TARGETS:
        return {"AB12": (rows,), "within6": (rows[:6], rows[6:])}
    return {f"all{len(pool_ids)}": (rows,)}


def table(results: Sequence[ItemScores], key: RunKey, pairing: Pairing, rules: Profile) -> pa.Table:
    """Return the item scores of all results in the order of their unique key."""
    sets = dict(zip(pairing.stimuli.ids, pairing.stimuli.stimulus_set, strict=True))
    run, versions = asdict(key), {x.metric: registry.entry(x.metric).version for x in results}
    rows = [
        {
            **run,
            "stimulus_set": sets[pairing.targets[target]],
            "stimulus": pairing.targets[target],
            "sample": sample,
            "metric": result.metric,
            "metric_version": versions[result.metric],
            "metric_profile": rules.name,
            "pool": result.pool,
            "value": _or_null(result.values[column]),
            "floor": _or_null(result.floors[column]),
            "reason": result.reasons[column],
        }
        for result in results
        for column in range(len(result.values))
        for target, sample in [divmod(column, result.n_samples)]
    ]
    return pa.Table.from_pylist(sorted(rows, key=itemgetter(*ITEMS_UNIQUE)), schema=ITEMS)


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def undefined(results: Sequence[ItemScores]) -> list[str]:
    """Count, per metric and pool, the values that had to be defined or left empty."""
    return [
        f"{x.metric}, pool {x.pool}, {count} of {len(x.values)} items: {reason}"
        for x in results
        for reason, count in Counter(filter(None, x.reasons)).items()
    ]
