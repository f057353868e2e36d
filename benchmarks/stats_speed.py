"""Time of the statistics at full size against loops that do the same draw by draw.

10,000 draws over 982 targets and 8 metrics, as for the shared images of NSD; intervals and comparisons for 4 subjects.
The loops run a hundredth of the draws and are multiplied up. Run ``python benchmarks/stats_speed.py``; it takes
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from nsdbench import stats

DRAWS, FEWER = 10_000, 100
METRICS, SUBJECTS, TARGETS = 8, 4, 982


def report(name: str, naive: Callable[[], object], ours: Callable[[], object]) -> None:
    """Print both times and their ratio."""
    start = time.perf_counter()
    naive()
    naive_seconds = (time.perf_counter() - start) * DRAWS / FEWER
    start = time.perf_counter()
    ours()
    seconds = time.perf_counter() - start
    print(
        f"{name}: loop {naive_seconds:.1f} s, nsdbench {seconds:.2f} s: {naive_seconds / seconds:.0f} times faster"
    )


def main() -> None:
    """Time all four."""
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(METRICS, TARGETS, TARGETS))
    scores = rng.normal(size=(METRICS, SUBJECTS, TARGETS))
    places = np.arange(TARGETS)

    def labels() -> object:
        orders = (rng.permutation(TARGETS) for _ in range(FEWER))
        return [[table[places, order].mean() for table in tables] for order in orders]

    def signs() -> object:
        flips = (rng.choice([-1.0, 1.0], size=TARGETS) for _ in range(FEWER))
        return [[(row * one).mean(axis=1).mean() for row in scores] for one in flips]

    def resampled() -> object:
        drawn = (rng.integers(TARGETS, size=TARGETS) for _ in range(FEWER))
        return [[row[:, one].mean(axis=1).mean() for row in scores] for one in drawn]

    def both() -> object:
        drawn = (
            (rng.integers(SUBJECTS, size=SUBJECTS), rng.integers(TARGETS, size=TARGETS)) for _ in range(FEWER)
        )
        return [[row[np.ix_(people, one)].mean() for row in scores] for people, one in drawn]

    report("label permutations", labels, lambda: stats.label_permutations(tables))
    report("sign flips", signs, lambda: stats.sign_flips(scores))
    report("BCa interval", resampled, lambda: stats.bca(scores))
    report("interval over new subjects", both, lambda: stats.pigeonhole(scores))


if __name__ == "__main__":
    main()
