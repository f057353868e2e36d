"""Do the models that are good on seen images also do well on imagined ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from nsdbench import stats, summary
from nsdbench.comparison.blocks import GapLine
from nsdbench.comparison.scores import Record, ScoreIndex, better, name
from nsdbench.metrics.registry import HEADLINE

FEWEST = 3
MEAN_RANK = "mean rank"


@dataclass(frozen=True)
class Agreement:
    """How the order of models on vision agrees with that on imagery.

    Attributes
    ----------
    metric : str
        Metric, or ``"mean rank"`` over the headline metrics.
    models : tuple of str
    rho, p : float
        Spearman rank correlation and its two-sided permutation p.
    exact : bool
        Whether all orders were counted (up to 8 models).
    low, high : float or None
        95 % percentile interval of rho over targets, resampled jointly for all models and both splits.
    p_corrected : float
        Holm over the metrics; the mean rank is tested once, on its own.
    """

    metric: str
    models: tuple[str, ...]
    rho: float
    p: float
    exact: bool
    low: float | None
    high: float | None
    p_corrected: float

    @property
    def agrees(self) -> bool:
        """Whether the orders are related in the same direction at the 5 % level."""
        return self.rho > 0 and self.p_corrected <= summary.ALPHA

    @property
    def opposes(self) -> bool:
        """Whether the models that are good on one split are bad on the other, at the 5 % level."""
        return self.rho < 0 and self.p_corrected <= summary.ALPHA


def agreements(index: ScoreIndex, block: Sequence[GapLine], *, seed: int = 0) -> list[Agreement]:
    """Return the agreement of the models of a block: by mean rank over the headline metrics, then metric by metric.

    Corrected published scores are left out, since a constant offset changes no order. Empty for fewer than three
    models.
    """
    metrics = dict.fromkeys(chain.from_iterable(line.gaps for line in block))
    columns = [
        column
        for metric in metrics
        if not metric.endswith("_corrected") and (column := _column(metric, block, index, seed))
    ]
    found = [one for column in columns if (one := _agreement(column))]
    corrected = stats.holm([one.p for one in found])
    found = [replace(one, p_corrected=float(p)) for one, p in zip(found, corrected, strict=True)]
    headline = [column for column in columns if summary.base_name(column.name) in HEADLINE]
    overall = _agreement(_mean_rank(headline)) if len(headline) > 1 and _complete(headline) else None
    return [*([overall] if overall else []), *found]


@dataclass(frozen=True)
class _Column:
    """One metric of several models on both splits, greater being better; with resamples where there are scores."""

    name: str
    models: tuple[str, ...]
    sides: tuple[stats.Floats, stats.Floats]  # each (n_models,)
    draws: tuple[stats.Floats, stats.Floats] | None  # each (n_models, n_resamples)


def _column(metric: str, block: Sequence[GapLine], index: ScoreIndex, seed: int) -> _Column | None:
    gaps = [line.gaps[metric] for line in block if metric in line.gaps]
    if len(gaps) < FEWEST or any(gap.vision["status"] == "untrained" for gap in gaps):
        return None
    rows = [[gap.vision for gap in gaps], [gap.imagery for gap in gaps]]
    sign = better(gaps[0].vision)
    seen, imagined = (np.array([sign * row["value"] for row in side]) for side in rows)
    drawn = [_draws(side, index, sign, seed) for side in rows]
    draws = (drawn[0], drawn[1]) if drawn[0] is not None and drawn[1] is not None else None
    return _Column(metric, tuple(name(gap.vision) for gap in gaps), (seen, imagined), draws)


def _draws(rows: Sequence[Record], index: ScoreIndex, sign: int, seed: int) -> stats.Floats | None:
    """Return resampled means of all models, the same targets for each; None unless all have the same ones."""
    scores = [index.of(row) for row in rows]
    if any(s is None for s in scores) or len({(s.subjects, s.targets) for s in scores if s}) > 1:
        return None
    return sign * stats.bootstrap_means(np.stack([s.values for s in scores if s]), seed=seed)


def _complete(columns: Sequence[_Column]) -> bool:
    """Whether all metrics are of the same models, so that ranks can be averaged."""
    return len({column.models for column in columns}) == 1


def _mean_rank(columns: Sequence[_Column]) -> _Column:
    """Average the ranks of each model over metrics; the greatest is best."""
    seen, imagined = (
        np.mean([stats.average_ranks(column.sides[k]) for column in columns], axis=0) for k in (0, 1)
    )
    draws = None
    if all(column.draws for column in columns):
        drawn = [
            np.mean([stats.column_ranks(column.draws[k]) for column in columns if column.draws], axis=0)
            for k in (0, 1)
        ]
        draws = (drawn[0], drawn[1])
    return _Column(MEAN_RANK, columns[0].models, (seen, imagined), draws)


def _agreement(column: _Column) -> Agreement | None:
    found = stats.spearman(*column.sides)
    if found is None:
        return None
    low, high = (column.draws and stats.spearman_interval(*column.draws)) or (None, None)
    return Agreement(column.name, column.models, found.rho, found.p, found.exact, low, high, found.p)
