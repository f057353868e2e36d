"""Time of the statistics at full size against loops that do the same draw by draw.

10,000 draws over 982 targets and 8 metrics, as for the shared images of NSD; intervals and comparisons for 4 subjects.
The loops run a hundredth of the draws and are multiplied up. Run ``python benchmarks/stats_speed.py``; it takes
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from ratio import Ratio

from nsdbench import stats

DRAWS, FEWER = 10_000, 100
METRICS, SUBJECTS, TARGETS = 8, 4, 982


def ratios(*, short: bool) -> Iterator[Ratio]:
    """Time all four; ``short`` takes 20 targets."""
    targets = 20 if short else TARGETS
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(METRICS, targets, targets))
    scores = rng.normal(size=(METRICS, SUBJECTS, targets))
    places = np.arange(targets)

    def labels() -> object:
        orders = (rng.permutation(targets) for _ in range(FEWER))
        return [[table[places, order].mean() for table in tables] for order in orders]

    def signs() -> object:
        flips = (rng.choice([-1.0, 1.0], size=targets) for _ in range(FEWER))
        return [[(row * one).mean(axis=1).mean() for row in scores] for one in flips]

    def resampled() -> object:
        drawn = (rng.integers(targets, size=targets) for _ in range(FEWER))
        return [[row[:, one].mean(axis=1).mean() for row in scores] for one in drawn]

    def both() -> object:
        drawn = (
            (rng.integers(SUBJECTS, size=SUBJECTS), rng.integers(targets, size=targets)) for _ in range(FEWER)
        )
        return [[row[np.ix_(people, one)].mean() for row in scores] for people, one in drawn]

    yield _ratio("label permutations", targets, labels, lambda: stats.label_permutations(tables))
    yield _ratio("sign flips", targets, signs, lambda: stats.sign_flips(scores))
    yield _ratio("BCa interval", targets, resampled, lambda: stats.bca(scores))
    yield _ratio("interval over new subjects", targets, both, lambda: stats.pigeonhole(scores))


def _ratio(name: str, targets: int, naive: Callable[[], object], ours: Callable[[], object]) -> Ratio:
    naive_seconds, seconds = _seconds(naive) * DRAWS / FEWER, _seconds(ours)
    return Ratio(
        name,
        "seconds of a loop that makes draw after draw over ours",
        naive_seconds / seconds,
        note=f"{DRAWS:,} draws, {targets} targets, {METRICS} metrics; {naive_seconds:.1f} s (extrapolated from "
        f"{FEWER} draws) over {seconds:.2f} s",
    )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print all four."""
    for ratio in ratios(short=False):
        print(ratio)


if __name__ == "__main__":
    main()
