"""Statistics of benchmark scores. NumPy and one SciPy quantile; nothing here knows files, models or metrics.

The unit of inference is the target. Samples of a target are averaged before anything here is called, and the pool of
ground truths that a reconstruction is compared with stays the same in every resample.
"""

from __future__ import annotations

from nsdbench.stats.arrangements import EXACT_UP_TO, SIGNS_UP_TO, p_values
from nsdbench.stats.intervals import (
    MIN_SUBJECTS,
    N_RESAMPLES,
    Floats,
    Intervals,
    bca,
    bca_ratio,
    bootstrap_means,
    pigeonhole,
    subject_means,
    target_shares,
)
from nsdbench.stats.permutation import (
    Arranged,
    Prevalence,
    label_permutations,
    paired_differences,
    prevalence,
    sign_flips,
    subject_mean,
    superiority,
    two_way_quantiles,
)
from nsdbench.stats.ranks import (
    RankAgreement,
    average_ranks,
    column_ranks,
    holm,
    spearman,
    spearman_interval,
    tie_letters,
)

__all__ = [
    "EXACT_UP_TO", "MIN_SUBJECTS", "N_RESAMPLES", "SIGNS_UP_TO", "Arranged", "Floats", "Intervals", "Prevalence",
    "RankAgreement", "average_ranks", "bca", "bca_ratio", "bootstrap_means", "column_ranks", "holm", "label_permutations", "p_values",
    "paired_differences", "pigeonhole", "prevalence", "sign_flips", "spearman", "spearman_interval", "subject_mean",
    "subject_means", "superiority", "target_shares", "tie_letters", "two_way_quantiles",
]  # fmt: skip
