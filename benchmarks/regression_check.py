"""How often ``nsdbench check`` stops an unchanged decoder, and how often a worse one.

The scores are those of the committed simulated baseline. A regenerated result is made by drawing samples of every
target again, all metrics together; a worse one by putting reconstructions of ``random_image`` in the place of some.
Larger test sets repeat the twelve targets.

    python benchmarks/regression_check.py 1000
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nsdbench import leaderboard, summary
from nsdbench.check import Change, Rules
from nsdbench.check.cells import Cell, Name, cells
from nsdbench.check.regenerated import check
from nsdbench.stats import Floats

BASELINE = Path(__file__).resolve().parent.parent / "leaderboards" / "sim_items.parquet"
FLOOR = "random_image"
Scores = dict[Name, Floats]  # (n_targets, n_samples)


class Simulation:
    """Results of the baseline, drawn again at another size."""

    def __init__(self, n_subjects: int, n_targets: int, seed: int = 0) -> None:
        self.size = n_subjects, n_targets
        self.rng = np.random.default_rng(seed)
        self.results: dict[tuple[str, ...], Scores] = {}
        for name, cell in cells(leaderboard.read_items(BASELINE)).items():
            targets = sorted({key[1] for key in cell.values})
            samples = 1 + max(key[2] for key in cell.values)
            if len(targets) == 12 and samples > 1:
                values = [[cell.values[1, t, k] for k in range(samples)] for t in targets]
                self.results.setdefault(name.contrast, {})[name] = np.array(values, dtype=np.float64)

    def draw(self, contrast: tuple[str, ...], *, lost: float = 0.0, shift: float = 0.0) -> list[Change]:
        """Check a regenerated result, some of whose reconstructions are lost or which all lost what is tolerated."""
        scores = self.results[contrast]
        floor = {n[4:]: v for n, v in self.results[contrast[0], FLOOR, "standard", contrast[3]].items()}
        targets = np.arange(12) if self.size[1] == 12 else self.rng.integers(12, size=self.size[1])
        old, new = self._drawn(scores, targets), self._drawn(scores, targets, floor, lost)
        worse = {
            n: shift * Rules().loss(n) * (1 if summary.direction(n.metric) == "lower" else -1) for n in new
        }
        family = [(_cell(n, old[n]), _cell(n, new[n] + worse[n]), set(range(self.size[0]))) for n in scores]
        report = check(family, Rules())
        return [*(f.change for f in report.failures if f.change), *(change for _, change in report.moved)]

    def _drawn(
        self, scores: Scores, targets: Floats, floor: Scores | None = None, lost: float = 0.0
    ) -> Scores:
        """Return means over ten drawn samples, (n_subjects, n_targets); the same samples in all metrics."""
        shape = *self.size, 10
        sample, other = self.rng.integers(10, size=(2, *shape))
        gone = self.rng.random(shape) < lost
        row = targets[None, :, None]
        found = {}
        for name, values in scores.items():
            drawn = values[row, sample]
            if floor is not None and name[4:] in floor:
                drawn = np.where(gone, floor[name[4:]][row, other], drawn)
            found[name] = drawn.mean(axis=2)
        return found


def _cell(name: Name, means: Floats) -> Cell:
    return Cell(name, values={(s, f"t{t:04}", 0): float(v) for (s, t), v in np.ndenumerate(means)})


def _alarms(changes: list[Change]) -> tuple[bool, bool]:
    """Return whether the bound of a metric alone, and whether the check, would stop this result."""
    verdicts = {change.verdict for change in changes}
    return bool(verdicts & {"failed", "suspect"}), "failed" in verdicts


def _false_alarms(n_checks: int) -> Iterator[str]:
    for n_subjects, n_targets, divisor in ((1, 12, 1), (1, 100, 5), (4, 1000, 50)):
        for shift in (0.0, 1.0):
            simulation = Simulation(n_subjects, n_targets)
            n = max(n_checks // divisor, 5)
            found = np.array(
                [[_alarms(simulation.draw(c, shift=shift)) for c in simulation.results] for _ in range(n)]
            )
            per_result, per_check = found.mean(axis=(0, 1)), found.any(axis=1).mean(axis=0)
            what = "lost what is tolerated" if shift else "unchanged"
            yield (
                f"{n_targets} x {n_subjects} {what}: one result {per_result[0]:.3f} -> {per_result[1]:.3f}, "
                f"all {found.shape[1]} {per_check[0]:.3f} -> {per_check[1]:.3f} ({n} checks)"
            )


def _power(n_checks: int) -> Iterator[str]:
    for n_subjects, n_targets, divisor in ((1, 12, 4), (4, 12, 8), (1, 100, 16)):
        simulation = Simulation(n_subjects, n_targets)
        for contrast in simulation.results:
            if contrast[1] in ("takagi", "brain_diffuser", "mindeye2"):
                n = max(n_checks // divisor, 5)
                shares = [
                    np.mean([_alarms(simulation.draw(contrast, lost=lost))[1] for _ in range(n)])
                    for lost in (0.05, 0.1, 0.25, 0.5, 1.0)
                ]
                yield f"{n_targets} x {n_subjects} {contrast[1]} {contrast[3]}: {' '.join(f'{s:.2f}' for s in shares)}"


if __name__ == "__main__":
    checks = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print("false alarms, bound of each metric alone -> check")
    for line in _false_alarms(checks):
        print(line, flush=True)
    print("power with 5, 10, 25, 50 and 100 % of the reconstructions lost")
    for line in _power(checks):
        print(line, flush=True)
