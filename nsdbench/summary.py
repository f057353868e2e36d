"""From item scores to leaderboard rows: averages, chance, intervals, and the key that says what may be compared."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nsdbench import groups, stats
from nsdbench.errors import LeaderboardError, UsageError
from nsdbench.metrics import profiles, registry
from nsdbench.schema import LEADERBOARD, Provenance
from nsdbench.store import digest
from nsdbench.types import Direction

MEAN = "mean"  # value of the column `subject` in rows that average over subjects
LEVEL = 0.95
ALPHA = 1 - LEVEL
# The imagery notebook of the NSD-Imagery authors subtracts the self comparison twice: 1/(N-1) too low.
OFFSET_PROFILE = "imagery-asrun"
# Networks without training have ids of this form; what they score means nothing, and the row says so.
RANDOM_WEIGHTS = "random-"
SAMPLE_RULE = "every sample scored, then averaged per target"
_GROUP = ("dataset", "model", "preset", "split", "metric", "metric_version", "metric_profile", "pool")
_PROTOCOL = (
    "dataset", "split", "stimulus_set", "n_targets", "pool", "metric", "metric_profile", "metric_version",
)  # fmt: skip


def base_name(metric: str) -> str:
    """Return the metric's name without the marks of the miniature networks and of corrected published values."""
    return metric.removeprefix("mini_").removesuffix("_corrected")


@functools.cache
def direction(metric: str) -> Direction:
    """Return which values of a metric are better; metrics that only publications have count as "higher"."""
    try:
        return registry.entry(base_name(metric)).direction
    except UsageError:
        return "higher"


@functools.cache
def kind(metric: str) -> registry.Kind | None:
    """Return the family of a metric; None for metrics that only publications have."""
    try:
        return registry.entry(base_name(metric)).kind
    except UsageError:
        return None


def weights_of(metric: str, metric_profile: str, weights_id: str | None) -> str | None:
    """Return those of a run's comma-separated weights ids that a metric looks through; None if it needs none.

    The profile matters: one run can be scored under several, which may use other weights of the same network.
    """
    entry = registry.METRICS.get(metric)
    if entry is None or weights_id is None:
        return weights_id
    rules = profiles.find(metric_profile)
    variants = rules.variants if rules else {}
    used = {registry.NET_WEIGHTS[net][variants.get(net, "")] for net in entry.nets}
    used |= {RANDOM_WEIGHTS + net for net in entry.nets} | set(entry.weights)
    return ",".join(one for one in weights_id.split(",") if one in used) or None


def is_untrained(weights_id: str | None) -> bool:
    """Return whether one of these comma-separated weights ids names a network without training."""
    return any(one.startswith(RANDOM_WEIGHTS) for one in (weights_id or "").split(","))


def pool_size(pool: str) -> int | None:
    """Return how many ground truths a pool holds: its trailing number (``AB12`` -> 12), None if it has none."""
    match = re.search(r"\d+$", pool)
    return int(match.group()) if match else None


def chance(metric_profile: str, pool: str) -> float | None:
    """Return the score of two-way identification without information; None for metrics that look at one pair.

    It is 0.5, and ``0.5 - 1/(N-1)`` in the profile ``imagery-asrun``, whose routine subtracts one win too many.
    """
    size = pool_size(pool)
    if pool == "none":
        return None
    if profiles.base_name(metric_profile) == OFFSET_PROFILE and size:
        return 0.5 - 1 / (size - 1)
    return 0.5


def protocol_key(row: Mapping[str, Any], provenance: Provenance, scored: Mapping[str, Sequence[str]]) -> str:
    """Hash everything that must be equal for two values to be comparable.

    Parameters
    ----------
    row : mapping
        Data set, split, stimulus set, number of targets, pool, metric with profile and version.
    provenance : Provenance
        Stimulus and data hashes, weights, beta version, normalization, averaging, label source, and for published
        rows the source, because nothing says that two publications followed one protocol.
    scored : mapping of str to sequence of str
        Per subject that the value is about, the targets that have a score, as far as that is known: two results that
        both lack a target are comparable only if it is the same one.
    """
    weights = weights_of(row["metric"], row["metric_profile"], provenance.weights_id)
    return digest(
        "protocol/1",
        SAMPLE_RULE,
        [row[name] for name in _PROTOCOL],
        {subject: sorted(targets) for subject, targets in scored.items()},
        [provenance.stimulus_hash, provenance.dataset_hash, weights, provenance.beta_version],
        [provenance.normalization, provenance.averaging, provenance.label_source],
        provenance.source if provenance.status == "published" else None,
    )


def summarize(
    items: pa.Table, provenance: Mapping[str, Provenance], *, seed: int, n_resamples: int
) -> list[dict[str, Any]]:
    """Return leaderboard rows of validated item scores; see :func:`nsdbench.leaderboard.summarize`."""
    cells = [cell for group in _groups(items) for cell in _cells(group)]
    rows = [_row(cell, provenance) for cell in cells]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, cell in enumerate(cells):
        by_shape.setdefault(cell.scores.shape, []).append(index)
    for indices in by_shape.values():
        stacked = np.stack([cells[i].scores for i in indices])
        found = stats.bca(stacked, level=LEVEL, n_resamples=n_resamples, seed=seed)
        for i, value, low, high in zip(indices, found.estimate, found.low, found.high, strict=True):
            rows[i]["value"] = float(value)
            if not np.isnan(low):
                rows[i] |= {"ci_low": float(low), "ci_high": float(high), "ci_level": LEVEL}
                rows[i] |= {
                    "ci_method": "bca_t",
                    "ci_unit": "target",
                    "n_resamples": n_resamples,
                    "stats_seed": seed,
                }
    return rows


@dataclass(frozen=True)
class _Target:
    """One target of one subject: its samples averaged."""

    stimulus_set: str
    value: float  # NaN if no sample has a value
    floor: float
    n_samples: int
    n_null: int


@dataclass(frozen=True)
class _Group:
    """All subjects of one model, split, metric, profile and pool."""

    key: dict[str, Any]
    run_ids: dict[int, str]
    targets: dict[int, dict[str, _Target]]  # subject -> stimulus -> score


@dataclass(frozen=True)
class _Cell:
    """What becomes one leaderboard row."""

    key: dict[str, Any]
    stimulus_set: str
    subject: str
    run_ids: dict[int, str]
    scores: stats.Floats  # (n_subjects, n_targets)
    scored: dict[str, list[str]]  # subject -> targets with a score
    floor: float
    n_samples: int
    n_null: int
    whole: bool  # whether it covers all targets of the split rather than one set of them
    n_present: list[int]  # per subject, how many targets have items


def target_means(items: pa.Table) -> dict[str, list[Any]]:
    """Average the samples of every target.

    Parameters
    ----------
    items : pa.Table
        Validated item scores: the samples of a target stand together.

    Returns
    -------
    dict of str to list
        Key columns, and ``value`` and ``floor`` (NaN if no sample has one), ``n_samples`` and ``n_null``.
    """
    keys = ["run_id", *_GROUP, "subject", "stimulus_set", "stimulus"]
    starts = groups.starts(items, keys)
    value, present = _means(items["value"], starts)
    floor, _ = _means(items["floor"], starts)
    samples = np.diff(np.append(starts, len(items)))
    first = groups.take(items.select(keys), starts)
    means = {name: first[name].to_pylist() for name in keys}
    numbers = {"value": value, "floor": floor, "n_samples": samples, "n_null": samples - present}
    return means | {name: array.tolist() for name, array in numbers.items()}


def _means(column: pa.ChunkedArray, starts: NDArray[np.int64]) -> tuple[stats.Floats, NDArray[np.int64]]:
    """Return the mean of the values of each group, NaN where there is none, and their number."""
    values = groups.floats(column)
    present = ~np.isnan(values)
    if not len(starts):
        return np.zeros(0), np.zeros(0, np.int64)
    counts = np.add.reduceat(present.astype(np.int64), starts)
    sums = np.add.reduceat(np.where(present, values, 0.0), starts)
    return np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0), counts


def _groups(items: pa.Table) -> Iterator[_Group]:
    means = target_means(items)
    keys = zip(*(means[name] for name in _GROUP), strict=True)
    others = ("subject", "run_id", "stimulus", "stimulus_set", "value", "floor", "n_samples", "n_null")
    values = zip(*(means[name] for name in others), strict=True)
    found: dict[tuple[Any, ...], _Group] = {}
    for key, (subject, run_id, stimulus, *target) in zip(keys, values, strict=True):
        group = found.setdefault(key, _Group(dict(zip(_GROUP, key, strict=True)), {}, {}))
        if group.run_ids.setdefault(subject, run_id) != run_id:
            raise LeaderboardError(
                f"items mix the runs {group.run_ids[subject]} and {run_id} of {group.key['model']} "
                f"subject {subject} {group.key['split']}",
                remedy="Summarize one run per model, subject and split.",
            )
        group.targets.setdefault(subject, {})[stimulus] = _Target(*target)
    yield from found.values()


def _cells(group: _Group) -> Iterator[_Cell]:
    subjects = sorted(group.targets)
    for name, members in _stimulus_sets(group).items():
        for chosen in ([[s] for s in subjects] + [subjects]) if len(subjects) > 1 else [subjects]:
            cell = _cell(group, name, members, chosen)
            if not np.isnan(cell.scores).all():
                yield cell


def _stimulus_sets(group: _Group) -> dict[str, list[str]]:
    """Return the targets by name of the set they are reported under: all together and, on NSD-Imagery, A and B."""
    of = {s: t.stimulus_set for targets in group.targets.values() for s, t in targets.items()}
    names = sorted(set(of.values()))
    whole = f"shared{len(of)}" if names == ["core"] else "".join(names)
    sets = {whole: sorted(of)}
    if len(names) > 1:
        sets |= {name: sorted(s for s in of if of[s] == name) for name in names}
    return sets


def _cell(group: _Group, name: str, members: Sequence[str], subjects: Sequence[int]) -> _Cell:
    found = [[group.targets[s].get(t) for t in members] for s in subjects]
    scores = np.array([[t.value if t else np.nan for t in row] for row in found])
    floors = np.array([[t.floor if t else np.nan for t in row] for row in found])
    present = [t for row in found for t in row if t]
    has = ~np.isnan(scores)
    return _Cell(
        key=group.key,
        stimulus_set=name,
        subject=str(subjects[0]) if len(subjects) == 1 else MEAN,
        run_ids={s: group.run_ids[s] for s in subjects},
        scores=scores[has.any(axis=1)][:, has.any(axis=0)],
        scored={
            str(s): [t for t, here in zip(members, row, strict=True) if here]
            for s, row in zip(subjects, has, strict=True)
        },
        floor=float(stats.subject_means(floors)) if not np.isnan(floors).all() else float("nan"),
        n_samples=max((t.n_samples for t in present), default=0),
        n_null=sum(t.n_null for t in present),
        whole=name not in ("A", "B", "C"),
        n_present=[sum(t is not None for t in row) for row in found],
    )


def _row(cell: _Cell, provenance: Mapping[str, Provenance]) -> dict[str, Any]:
    metric, metric_profile = cell.key["metric"], cell.key["metric_profile"]
    origins = [provenance[run_id] for run_id in cell.run_ids.values()]
    # other metrics of the runs may look through other networks; they are no business of this row
    origin = combine(
        [replace(o, weights_id=weights_of(metric, metric_profile, o.weights_id)) for o in origins]
    )
    level = None if kind(metric) == "retrieval" else chance(metric_profile, cell.key["pool"])
    if level is None and not np.isnan(cell.floor):
        level = cell.floor
    row = {
        **cell.key,
        "subject": cell.subject,
        "stimulus_set": cell.stimulus_set,
        "direction": direction(cell.key["metric"]),
        "chance": level,
        "n_subjects": cell.scores.shape[0],
        "n_targets": int(
            (~np.isnan(cell.scores)).sum(axis=1).min()
        ),  # a mean is as complete as its poorest member
        "n_samples": cell.n_samples,
        "n_items_null": cell.n_null + cell.n_samples * _absent(cell, origins),
        "run_id": next(iter(cell.run_ids.values()))
        if len(cell.run_ids) == 1
        else digest(*sorted(cell.run_ids.values())),
    }
    row["protocol_key"] = protocol_key(row, origin, cell.scored)
    facts = dataclasses.asdict(origin)
    if is_untrained(origin.weights_id):
        facts["status"] = "untrained"
    return row | {name: facts[name] for name in facts if name in LEADERBOARD.names}


def _absent(cell: _Cell, origins: Sequence[Provenance]) -> int:
    """Return how many targets have no item at all, summed over subjects, where it is known how many there are."""
    if not cell.whole:
        return 0
    pairs = zip(origins, cell.n_present, strict=True)
    return sum(max(origin.n_stimuli - n, 0) for origin, n in pairs if origin.n_stimuli is not None)


def combine(origins: Sequence[Provenance]) -> Provenance:
    """Return what several runs have in common: equal facts are kept, differing ones dropped.

    Statuses are joined to the weakest claim, hashes to a hash of all of them, weights to all of their ids, dates to
    the latest.
    """
    if all(origin == origins[0] for origin in origins):
        return origins[0]
    common: dict[str, Any] = {}
    for field in dataclasses.fields(Provenance):
        values = {getattr(origin, field.name) for origin in origins}
        common[field.name] = values.pop() if len(values) == 1 else None
    weakest = max((o.status for o in origins), key=("measured", "published", "simulated", "untrained").index)
    common["status"] = weakest
    for name in ("stimulus_hash", "dataset_hash"):
        common[name] = common[name] or digest(*sorted({getattr(o, name) for o in origins}))
    ids = {one for o in origins for one in (o.weights_id or "").split(",")} - {""}
    common["weights_id"] = ",".join(sorted(ids)) or None
    common["created_at"] = max((o.created_at for o in origins if o.created_at), default=None)
    return Provenance(**common)
