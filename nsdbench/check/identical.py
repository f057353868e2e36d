"""Identical reconstructions must score the same, item by item, but for rounding."""

from __future__ import annotations

from collections.abc import Iterable

from nsdbench import summary
from nsdbench.check.cells import Cell, Name
from nsdbench.check.findings import WORST, Failure, Item, Report

ROUNDING = 1e-6
SSIM_ROUNDING = 1e-5  # float32 variances of flat regions cancel
FLIPS_PER_CELL, FLIPS_PER_ITEM = 1e-3, 1e-2  # shares of the comparisons; one is always allowed


def check(old: Cell, new: Cell, subjects: set[int]) -> Report:
    """Compare the items of ``subjects``, whose reconstructions are identical or have to score as if they were.

    A two-way score counts comparisons. Where features differ in their last bits, as they do between processors, a
    comparison of two nearly equal similarities can come out otherwise, which moves the item by a whole 1 / (N - 1).
    A few such flips are noted and pass: one in a thousand comparisons of the cell, one in a hundred of an item, and
    always one.
    """
    rounding = SSIM_ROUNDING if old.name.metric == "ssim" else ROUNDING
    keys = [key for key in old.values.keys() & new.values.keys() if key[0] in subjects]
    pairs = {key: (old.values[key], new.values[key]) for key in keys}
    moved = {key: distance for key, pair in pairs.items() if (distance := _distance(*pair)) > rounding}
    if not moved:
        return Report()
    per_item = _comparisons(old.name)
    flips = _flips(moved.values(), per_item)
    if flips <= max(1, FLIPS_PER_CELL * per_item * len(keys)):
        what = f"{flips:g} of {per_item * len(keys)} comparisons of identical reconstructions flipped (near ties)"
        return Report(notes=(f"{old.name}: {what}",))
    order = sorted(moved, key=lambda key: (-moved[key], key))
    worst = tuple(Item(*key, *pairs[key]) for key in order[:WORST])
    message = (
        f"{len(moved)} of {len(keys)} scores of identical reconstructions changed (more than {rounding:g})"
    )
    return Report(failures=(Failure("changed", old.name, message, worst),))


def _distance(old: float | None, new: float | None) -> float:
    if old is None or new is None:
        return 0.0 if old is new else float("inf")
    return abs(new - old)


def _comparisons(name: Name) -> int:
    """Return how many comparisons a two-way score counts; 0 for other metrics."""
    size = summary.pool_size(name.pool) if summary.kind(name.metric) == "identification" else None
    return size - 1 if size else 0


def _flips(distances: Iterable[float], per_item: int) -> float:
    """Return how many comparisons must have come out otherwise, ties being half; inf if that explains nothing."""
    flips = 0.0
    for distance in distances:
        count = round(2 * distance * per_item) / 2 if per_item and distance <= 1 else float("inf")
        if (
            count > max(1, FLIPS_PER_ITEM * per_item)
            or abs(distance * per_item - count) > ROUNDING * per_item
        ):
            return float("inf")
        flips += count
    return flips
