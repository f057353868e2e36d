"""Is a score better than chance? Label permutations where similarities are stored, sign flips against the floor elsewhere.

The p-values of one model on one split are corrected together, separately for the pools: the eight headline metrics are
one family, identification within the sets another. Several subjects are permuted independently and averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nsdbench import similarity, stats, summary
from nsdbench.comparison.results import Results
from nsdbench.comparison.scores import Record, ScoreIndex, better, family, floors, in_set
from nsdbench.errors import DataError
from nsdbench.itemscores import pools
from nsdbench.metrics import profiles
from nsdbench.similarity import Similarities
from nsdbench.types import Progress

Correction = Literal["holm", "max"]
LABELS, SIGNS = "label permutation", "sign flips"
FEW = 12  # only so few targets can have all permutations listed, which is done for single subjects
SAME = 1e-6
_AGAIN = "Delete the similarity-*.npz file of the run and score it again."


@dataclass(frozen=True)
class Settings:
    """How to test.

    Attributes
    ----------
    correction : {"holm", "max"}
        Holm's procedure over the metrics of a family, or the distribution of their maximum under common permutations
        (doubled where a family holds metrics of both kinds of test, which cannot be permuted together).
    seed, n_draws : int
    """

    correction: Correction = "holm"
    seed: int = 0
    n_draws: int = stats.N_RESAMPLES


@dataclass(frozen=True)
class ChanceTest:
    """One score against chance.

    Attributes
    ----------
    p, p_corrected : float
        One-sided; corrected for the metrics of the family.
    method : str
    n_arrangements : int
    exact : bool
    prevalence : stats.Prevalence or None
        With two subjects or more and stored similarities.
    """

    p: float
    p_corrected: float
    method: str
    n_arrangements: int
    exact: bool
    prevalence: stats.Prevalence | None = None


def chance_tests(
    found: Results, index: ScoreIndex, rows: Sequence[Record], settings: Settings, progress: Progress
) -> list[ChanceTest | None]:
    """Test each row against chance; None where neither similarities nor item scores with a floor are at hand."""
    files = _Files(found, settings)
    results: list[ChanceTest | None] = [None] * len(rows)
    for members in progress.track(_families(rows), "chance"):
        for i, test in zip(members, _test([rows[i] for i in members], files, index, settings), strict=True):
            results[i] = test
    return results


def _families(rows: Iterable[Record]) -> list[list[int]]:
    """Return the places of rows that are corrected together."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(rows):
        key = (row["run_id"], row["source"], row["subject"], row["stimulus_set"], row["metric_profile"])
        found.setdefault((*key, family(row)), []).append(i)
    return list(found.values())


@dataclass(frozen=True)
class _Batch:
    """Rows of a family that are rearranged together."""

    places: list[int]
    arranged: stats.Arranged
    method: str
    prevalence: Sequence[stats.Prevalence | None]


def _test(
    rows: Sequence[Record], files: _Files, index: ScoreIndex, settings: Settings
) -> list[ChanceTest | None]:
    batches = list(_label_batch(rows, files, index, settings))
    rest = set(range(len(rows))) - {i for batch in batches for i in batch.places}
    batches += _sign_batches(rows, sorted(rest), index, settings)
    tests: list[ChanceTest | None] = [None] * len(rows)
    if not batches:
        return tests
    p = np.concatenate([batch.arranged.p() for batch in batches])
    corrected = stats.holm(p)
    if settings.correction == "max":
        family_wise = np.concatenate([batch.arranged.p_family() for batch in batches])
        corrected = np.minimum(len(batches) * family_wise, 1.0)
    outcomes = zip(
        (i for batch in batches for i in batch.places),
        (batch for batch in batches for _ in batch.places),
        (one for batch in batches for one in batch.prevalence),
        p,
        corrected,
        strict=True,
    )
    for i, batch, prevalence, raw, after in outcomes:
        n, exact = batch.arranged.draws.shape[1], batch.arranged.exact
        tests[i] = ChanceTest(float(raw), float(after), batch.method, n, exact, prevalence)
    return tests


def _label_batch(
    rows: Sequence[Record], files: _Files, index: ScoreIndex, settings: Settings
) -> Iterator[_Batch]:
    """Yield the rows whose similarities are stored for every subject."""
    runs = index.runs(rows[0])
    profile = rows[0]["metric_profile"]
    stored = [files.metrics(run, profile) for run in runs.values()]
    places = [i for i, row in enumerate(rows) if stored and all(row["metric"] in of for of in stored)]
    if not places:
        return
    chosen = [rows[i] for i in places]
    alone = len(runs) == 1
    parts = [files.arranged(chosen, run, subject, alone=alone) for subject, run in runs.items()]
    whole = stats.subject_mean(parts)
    _require_same(chosen, whole.observed)
    prevalence = [None] * len(chosen) if alone else stats.prevalence(parts)
    yield _Batch(places, whole, LABELS, prevalence)


def _require_same(rows: Sequence[Record], observed: stats.Floats) -> None:
    """Check that two-way scores are those of the similarities beside them, which may be of other reconstructions."""
    for row, value in zip(rows, observed.tolist(), strict=True):
        known = profiles.find(row["metric_profile"])
        if (
            summary.kind(row["metric"]) == "identification"
            and known
            and known.ties == "half"  # elsewhere, ties make a difference that says nothing
            and abs(row["value"] - value) > SAME
        ):
            raise DataError(
                f"run {row['run_id']}: {row['metric']}, pool {row['pool']}, is {row['value']:.4f}, but the similarities "
                f"beside it give {value:.4f}: they belong to other scores",
                remedy=_AGAIN,
            )


def _arranged(
    rows: Sequence[Record], found: Similarities, subject: int, *, alone: bool, settings: Settings
) -> stats.Arranged:
    """Permute the labels of one subject."""
    chosen = [place for place, target in enumerate(found.targets) if in_set(target, rows[0])]
    if not chosen:
        raise DataError(
            f"run {rows[0]['run_id']}: the similarities beside its scores have none of the targets of set "
            f"{rows[0]['stimulus_set']}",
            remedy=_AGAIN,
        )
    tables = np.stack([_table(row, found) for row in rows])[:, chosen][:, :, chosen]
    of_target = found.truth_row[chosen]
    inside = [np.flatnonzero(np.isin(of_target, members)).tolist() for members in _groups(rows[0], found)]
    return stats.label_permutations(
        tables,
        [members for members in inside if members] or None,
        n_draws=settings.n_draws,
        seed=settings.seed,
        subject=subject,
        listed=alone,
    )


def _groups(row: Record, found: Similarities) -> Sequence[NDArray[np.int64]]:
    """Return the rows of the pool that are alternatives of each other; none for what looks at single pairs."""
    if row["pool"] == "none":
        return ()
    known = pools(found.pool_ids)
    if row["pool"] not in known:
        raise DataError(
            f"run {row['run_id']}: {row['metric']} was scored in the pool {row['pool']}, but the similarities beside it are "
            f"those of {', '.join(known)}",
            remedy=_AGAIN,
        )
    return known[row["pool"]]


def _table(row: Record, found: Similarities) -> stats.Floats:
    """Return what the reconstructions of each target (rows) would score with each target (columns) as theirs."""
    r, truth_row = found.matrices[row["metric"]], found.truth_row
    scores = r  # a correlation, or a distance that is one minus it
    if groups := _groups(row, found):
        scores = np.full(r.shape, np.nan)
        choose = _first if summary.kind(row["metric"]) == "retrieval" else stats.two_way_quantiles
        for members in groups:
            columns = np.flatnonzero(np.isin(truth_row, members))
            block = r[members][:, columns]
            scores[np.ix_(members, columns)] = choose(block.reshape(len(members), -1)).reshape(block.shape)
    return np.asarray(scores.mean(axis=2)[truth_row].T, dtype=np.float64)


def _first(similarity: stats.Floats) -> stats.Floats:
    """Return 1 for the most similar alternative of each column, shared where several are."""
    first = similarity == similarity.max(axis=0)
    return np.asarray(first / first.sum(axis=0), dtype=np.float64)


def _sign_batches(
    rows: Sequence[Record], places: Iterable[int], index: ScoreIndex, settings: Settings
) -> list[_Batch]:
    """Return the rows that have item scores and a floor, those with the same targets together."""
    found: dict[tuple[Any, ...], list[tuple[int, stats.Floats]]] = {}
    for i in places:
        scores = index.of(rows[i])
        if scores is None or summary.kind(rows[i]["metric"]) == "retrieval":
            continue
        differences = better(rows[i]) * (scores.values - floors(rows[i], scores))
        if not np.isnan(differences).all():
            found.setdefault((scores.subjects, scores.targets), []).append((i, differences))
    return [
        _Batch(
            [i for i, _ in members],
            stats.sign_flips(np.stack([d for _, d in members]), n_draws=settings.n_draws, seed=settings.seed),
            SIGNS,
            [None] * len(members),
        )
        for members in found.values()
    ]


class _Files:
    """Permutes what similarity files hold, each only once; keeps one file at a time, since they can be large."""

    def __init__(self, found: Results, settings: Settings) -> None:
        self._folders = found.folders
        self._settings = settings
        self._last: tuple[tuple[str, str], Similarities | None] = (("", ""), None)
        self._metrics: dict[tuple[str, str], frozenset[str]] = {}
        self._arranged: dict[tuple[Any, ...], stats.Arranged] = {}

    def metrics(self, run_id: str, profile: str) -> frozenset[str]:
        """Return the metrics whose similarities are stored for a run."""
        if (run_id, profile) not in self._metrics:
            found = self._of(run_id, profile)
            self._metrics[run_id, profile] = frozenset(found.matrices if found else ())
        return self._metrics[run_id, profile]

    def arranged(self, rows: Sequence[Record], run_id: str, subject: int, *, alone: bool) -> stats.Arranged:
        """Return the permuted scores of one run, in the metrics, pools and target set of ``rows``."""
        listed = alone and (rows[0]["n_targets"] or 0) <= FEW  # more are drawn, alone or together
        key = (
            run_id,
            subject,
            listed,
            *((r["metric"], r["pool"], r["stimulus_set"], r["metric_profile"]) for r in rows),
        )
        if key not in self._arranged:
            found = self._of(run_id, rows[0]["metric_profile"])
            assert found is not None  # its metrics were asked for
            self._arranged[key] = _arranged(rows, found, subject, alone=listed, settings=self._settings)
        return self._arranged[key]

    def _of(self, run_id: str, profile: str) -> Similarities | None:
        if self._last[0] != (run_id, profile):
            folder = self._folders.get(run_id)
            path = folder and folder / similarity.file_name(profile)
            self._last = ((run_id, profile), similarity.read(path) if path and path.is_file() else None)
        return self._last[1]
