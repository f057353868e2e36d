"""Time and memory of the linear machinery against the ways published code goes about it, all measured in this run.

1. Ridge: scikit-learn fits one model per token of an embedding; here one Gram matrix serves all tokens (float64).
2. RidgeCV: himalaya if it is installed, else scikit-learn refitting every fold and penalty.
3. FastL2LiR: correlate, argsort and solve by LU, unit after unit, as the original package does (float32).
4. Peak memory of streamed predictions against the documented bound and against explicit weights.

Data are random; times depend on shapes alone. Run ``python benchmarks/linear_speed.py``; it takes under two minutes.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ratio import Ratio
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from nsdbench.adapters.fastl2lir import fit_units
from nsdbench.adapters.linear import gram_matrix, predict, predict_blocks
from nsdbench.adapters.ridge_cv import choose_penalties
from nsdbench.adapters.targets import Targets

Array = NDArray[np.floating]


def compared(name: str, note: str, naive: Callable[[], Array], ours: Callable[[], Array]) -> Ratio:
    """Return the ratio of both times, with the largest difference relative to the SD of the result."""
    results, seconds = [], []
    for run in (naive, ours):
        start = time.perf_counter()
        results.append(run())
        seconds.append(time.perf_counter() - start)
    difference = np.abs(results[0] - results[1]).max() / results[0].std()
    return Ratio(
        name,
        "seconds of the usual way over ours, same data, same results",
        seconds[0] / seconds[1],
        note=f"{note}; {seconds[0]:.2f} s over {seconds[1]:.2f} s; largest difference {difference:.0e} SD",
    )


def shared_ridge(rng: np.random.Generator, scale: int) -> Ratio:
    """Compare one fit per token with one Gram matrix."""
    n, v, m, tokens, width = 1000 // scale, 1775 // scale, 100, 48 // scale, 96
    x, query, y = rng.normal(size=(n, v)), rng.normal(size=(m, v)), rng.normal(size=(n, tokens * width))

    def per_token() -> Array:
        parts = np.split(y, tokens, axis=1)
        return np.hstack([Ridge(alpha=6e4).fit(x, part).predict(query) for part in parts])

    return compared(
        "ridge, scikit-learn per token",
        f"n {n}, {v} voxels, {tokens} tokens of {width}, float64",
        per_token,
        lambda: predict(gram_matrix(x), query, y, 6e4),
    )


def cross_validation(rng: np.random.Generator, scale: int) -> Ratio:
    """Compare refitting with one decomposition per fold."""
    n, v, t, penalties = 3000 // scale, 700 // scale, 800 // scale, np.logspace(-6, 0, 7)
    x, query = rng.normal(size=(n, v)), rng.normal(size=(100, v))
    y = x @ rng.normal(size=(v, t)) + 20 * rng.normal(size=(n, t))

    def refit() -> Array:
        errors = np.zeros((len(penalties), t))
        for train, held in KFold(5).split(x):
            for i, a in enumerate(penalties):
                model = Ridge(alpha=a, fit_intercept=False).fit(x[train], y[train])
                errors[i] += np.mean((model.predict(x[held]) - y[held]) ** 2, axis=0)
        best = penalties[errors.argmin(axis=0)]
        return np.asarray(Ridge(alpha=best, fit_intercept=False).fit(x, y).predict(query))

    def himalaya() -> Array:
        from himalaya.ridge import RidgeCV

        return np.asarray(RidgeCV(alphas=penalties, cv=5).fit(x, y).predict(query))

    def ours() -> Array:
        gram = gram_matrix(x, intercept=False)
        return predict(gram, query, y, choose_penalties(x, y, penalties))

    installed = importlib.util.find_spec("himalaya") is not None
    name = "himalaya" if installed else "scikit-learn per fold and penalty"
    note = f"n {n}, {v} voxels, {t} targets, {len(penalties)} penalties, 5 folds, float64"
    return compared(f"RidgeCV, {name}", note, himalaya if installed else refit, ours)


def voxel_selection(rng: np.random.Generator, scale: int) -> Ratio:
    """Compare FastL2LiR as published with a shared Gram matrix."""
    n, v, units, k = 800 // scale, 2000 // scale, 400 // scale, 500 // scale
    x = rng.normal(size=(n, v)).astype(np.float32)
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    y = rng.normal(size=(n, units)).astype(np.float32)
    query = rng.normal(size=(100, v)).astype(np.float32)
    mean, sd = y.mean(axis=0), y.std(axis=0, ddof=1)

    def unit_after_unit() -> Array:
        z = (y - mean) / sd
        relation = np.abs((x - x.mean(axis=0)).T @ (z - z.mean(axis=0)) / x.std(axis=0)[:, None])
        extended = np.column_stack([x, np.ones(n, np.float32)])
        gram = extended.T @ extended + 100 * np.eye(v + 1, dtype=np.float32)
        products = z.T @ extended
        weights = np.zeros((v + 1, units), np.float32)
        with threadpool_limits(1, user_api="blas"):
            for u in range(units):
                keep = np.append(np.argsort(relation[:, u])[::-1][:k], v)
                weights[keep, u] = np.linalg.solve(gram[np.ix_(keep, keep)], products[u, keep])
        return np.asarray((query @ weights[:-1] + weights[-1]) * sd + mean)

    def ours() -> Array:
        return np.hstack([decoders.predict(query) for decoders in fit_units(x, y, n_selected=k)])

    note = f"n {n}, {v} voxels, {units} units, {k} selected, float32"
    return compared("FastL2LiR, unit after unit", note, unit_after_unit, ours)


def memory(rng: np.random.Generator, scale: int) -> Ratio:
    """Measure what streamed predictions take."""
    n, v, m, t, w = 1200 // scale, 3000 // scale, 200 // scale, 20_000 // scale, 512
    x = rng.normal(size=(n, v)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, t))
        for start in range(0, t, w):
            store[:, start : start + w] = rng.normal(size=(n, min(w, t - start)))
        store.flush()
        targets = Targets(np.load(path, mmap_mode="r"), width=w)
        tracemalloc.start()
        for _ in predict_blocks(gram_matrix(x), x[:m], targets, 6e4):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    d = min(n, v)
    bound = 16 * d * d + 8 * m * (3 * n + v) + 33 * n * w + 16_384 * max(n, v)
    return Ratio(
        "memory of streamed predictions",
        "peak of what predicting without weights allocates, over its documented bound",
        100 * peak / bound,
        "%",
        "<= 100",
        f"n {n}, {v} voxels, {t} targets on disk; {peak / 1e6:.0f} of {bound / 1e6:.0f} MB; explicit weights "
        f"{4 * v * t / 1e6:.0f} MB, targets {4 * n * t / 1e6:.0f} MB",
    )


def ratios(*, short: bool) -> Iterator[Ratio]:
    """Run the four comparisons; ``short`` divides sizes by ten."""
    rng = np.random.default_rng(0)
    for compare in (shared_ridge, cross_validation, voxel_selection, memory):
        yield compare(rng, 10 if short else 1)


def main() -> None:
    """Print the four."""
    for ratio in ratios(short=False):
        print(ratio)


if __name__ == "__main__":
    main()
