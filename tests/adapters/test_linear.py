"""Ridge: equality with an independent library and with the definitions."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge

from nsdbench.adapters.linear import (
    factorize,
    fit_ridge,
    fit_weights,
    gram_matrix,
    loo_errors,
    predict,
    predict_blocks,
    smoother,
)
from nsdbench.adapters.targets import Targets
from nsdbench.errors import DataError, UsageError

Space = Literal["sample", "feature"]


def problem(rng: np.random.Generator, n: int, p: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, p)).astype(np.float32)
    y = x @ rng.normal(size=(p, t)) + rng.normal(size=(n, t))
    return x, y.astype(np.float32)


def wide_problem(rng: np.random.Generator, n: int, p: int, t: int) -> tuple[np.ndarray, ...]:
    """Training betas with means, targets with means, query betas, all float64."""
    x = rng.normal(size=(n, p)) + rng.normal(size=p)
    return x, rng.normal(size=(n, t)) + 10 * rng.normal(size=t), rng.normal(size=(6, p))


@pytest.mark.parametrize(("n", "p"), [(30, 10), (20, 60)])
def test_one_penalty_equals_scikit_learn(rng: np.random.Generator, n: int, p: int) -> None:
    x, y = problem(rng, n, p, 4)
    ours = fit_ridge(x, y, np.array([3.0]))
    theirs = SklearnRidge(alpha=3.0).fit(x.astype(float), y.astype(float))
    np.testing.assert_allclose(ours.coef, theirs.coef_.T, atol=2e-5)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=5e-5)


@pytest.mark.parametrize("space", ["sample", "feature"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "p"), [(25, 60), (60, 25), (12, 12)])
def test_predictions_without_weights_equal_scikit_learn_to_float64(
    rng: np.random.Generator, n: int, p: int, intercept: bool, space: Space
) -> None:
    x, y, query = wide_problem(rng, n, p, 7)
    ours = predict(gram_matrix(x, intercept=intercept, space=space), query, y, 2.0)
    theirs = SklearnRidge(alpha=2.0, fit_intercept=intercept, solver="cholesky").fit(x, y).predict(query)
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("space", ["sample", "feature"])
@pytest.mark.parametrize("intercept", [True, False])
def test_explicit_weights_give_the_predictions_of_the_smoother(
    rng: np.random.Generator, intercept: bool, space: Space
) -> None:
    x, y, query = wide_problem(rng, 40, 30, 9)
    penalties = rng.choice([0.5, 20.0], 9)
    gram = gram_matrix(x, intercept=intercept, space=space)
    weights = fit_weights(gram, Targets(y, width=4), penalties)
    np.testing.assert_allclose(weights.predict(query), predict(gram, query, y, penalties), atol=2e-5)


def test_inputs_are_left_alone(rng: np.random.Generator) -> None:
    x, y, query = wide_problem(rng, 12, 9, 3)
    copies = [a.copy() for a in (x, y, query)]
    gram = gram_matrix(x)
    predict(gram, query, y, 1.0)
    fit_weights(gram, y, 1.0)
    loo_errors(factorize(gram), y, np.array([1.0]))
    for array, copy in zip((x, y, query), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_each_target_gets_its_own_penalty(rng: np.random.Generator) -> None:
    x, y, query = wide_problem(rng, 20, 30, 5)
    penalties = np.array([1.0, 100.0, 1.0, 7.0, 100.0])
    ours = predict(gram_matrix(x), query, Targets(y, width=2), penalties)
    for j, penalty in enumerate(penalties):
        theirs = SklearnRidge(alpha=penalty).fit(x, y[:, j]).predict(query)
        np.testing.assert_allclose(ours[:, j], theirs, atol=1e-10)


def test_float32_betas_lose_nothing_beyond_their_own_rounding(rng: np.random.Generator) -> None:
    x, y, query = wide_problem(rng, 300, 200, 3)
    x, query = x.astype(np.float32) + 100, query.astype(np.float32) + 100
    theirs = SklearnRidge(alpha=1.0).fit(x.astype(float), y).predict(query.astype(float))
    np.testing.assert_allclose(predict(gram_matrix(x), query, y, 1.0), theirs, atol=1e-9)


def test_rows_of_the_smoother_sum_to_one_with_an_intercept_and_to_zero_without_on_centred_betas(
    rng: np.random.Generator,
) -> None:
    x, _, query = wide_problem(rng, 15, 40, 1)
    x -= x.mean(axis=0)
    np.testing.assert_allclose(smoother(gram_matrix(x), query, 1.0).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(
        smoother(gram_matrix(x, intercept=False), query, 1.0).sum(axis=1), 0, atol=1e-12
    )


def test_one_voxel_follows_the_closed_form() -> None:
    x, y = np.array([[-1.0], [0.0], [1.0]]), np.array([[1.0], [2.0], [6.0]])
    # slope 5 / (2 + 3) = 1, intercept 3
    np.testing.assert_allclose(predict(gram_matrix(x), np.array([[2.0]]), y, 3.0), [[5.0]])


def test_repeated_rows_by_index_equal_repeated_targets(rng: np.random.Generator) -> None:
    images, rows = rng.normal(size=(8, 5)), rng.integers(0, 8, size=30)
    x, query = rng.normal(size=(30, 12)), rng.normal(size=(4, 12))
    gram = gram_matrix(x)
    by_index, repeated = Targets(images, rows), images[rows]
    np.testing.assert_allclose(predict(gram, query, by_index, 2.0), predict(gram, query, repeated, 2.0))
    np.testing.assert_allclose(fit_weights(gram, by_index, 2.0).coef, fit_weights(gram, repeated, 2.0).coef)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 30), cut=st.integers(1, 22))
def test_block_size_and_storage_of_the_targets_do_not_matter(seed: int, width: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, query = wide_problem(rng, 18, 9, 23)
    gram = gram_matrix(x)
    whole = predict(gram, query, y, 1.5)
    pieces = Targets([y[:, :cut], y[:, cut:]], width=width)
    np.testing.assert_allclose(predict(gram, query, pieces, 1.5), whole, rtol=1e-12, atol=1e-12)
    assert max(b.shape[1] for b in predict_blocks(gram, query, pieces, 1.5)) <= width


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shift=st.floats(-100, 100),
    scale=st.floats(-10, 10),
    wide=st.booleans(),
)
def test_shifting_and_scaling_targets_does_the_same_to_predictions(
    seed: int, shift: float, scale: float, wide: bool
) -> None:
    x, y, query = wide_problem(np.random.default_rng(seed), 14, 30 if wide else 6, 3)
    gram = gram_matrix(x)
    np.testing.assert_allclose(
        predict(gram, query, scale * y + shift, 2.0), scale * predict(gram, query, y, 2.0) + shift, atol=1e-9
    )


def test_without_an_intercept_a_shift_of_targets_is_ignored_on_centred_betas(
    rng: np.random.Generator,
) -> None:
    x, y, query = wide_problem(rng, 40, 12, 3)
    gram = gram_matrix(x - x.mean(axis=0), intercept=False)
    np.testing.assert_allclose(predict(gram, query, y + 50, 2.0), predict(gram, query, y, 2.0), atol=1e-10)


def test_a_memory_map_is_read_like_an_array(rng: np.random.Generator, tmp_path: Path) -> None:
    x, y, query = wide_problem(rng, 20, 8, 11)
    np.save(tmp_path / "y.npy", y.astype(np.float16))
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "y.npy", mmap_mode="r")
    ours = predict(
        gram_matrix(np.load(tmp_path / "x.npy", mmap_mode="r")), query, Targets(stored, width=3), 1.0
    )
    assert ours.dtype == np.float32
    np.testing.assert_allclose(
        ours, predict(gram_matrix(x), query, y.astype(np.float16).astype(float), 1.0), rtol=1e-6
    )


def test_constant_voxels_constant_targets_and_duplicate_rows_are_harmless(rng: np.random.Generator) -> None:
    x, y, query = wide_problem(rng, 20, 30, 4)
    x[:, 3], y[:, 1] = 7.0, -4.0
    x[10:], y[10:] = x[:10], y[:10]
    for space in ("sample", "feature"):
        ours = predict(gram_matrix(x, space=space), query, y, 1e-3)
        theirs = SklearnRidge(alpha=1e-3, solver="svd").fit(x, y).predict(query)
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
        np.testing.assert_allclose(ours[:, 1], -4.0, atol=1e-8)


@pytest.mark.parametrize("shape", [(400, 900), (900, 400)])
def test_peak_memory_stays_below_the_documented_bound(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    n, v = shape
    x, y = problem(rng, n, v, 900)
    m, w, d = 50, 128, min(n, v)
    tracemalloc.start()
    for _ in predict_blocks(gram_matrix(x), x[:m], Targets(y, width=w), 5.0):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * d * d + 8 * m * (3 * n + v) + 33 * n * w + 16_384 * max(n, v)


RESIDENT = """
import sys
import numpy as np
from pathlib import Path
from nsdbench.adapters.linear import gram_matrix, predict_blocks
from nsdbench.adapters.targets import Targets

def peak():
    (line,) = (l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

n, v, m, w = *map(int, sys.argv[1:]), 50, 128
rng = np.random.default_rng(0)
x, y = rng.random((n, v), np.float32), rng.random((n, 400), np.float32)
for _ in predict_blocks(gram_matrix(x[:40, :40]), x[:5, :40], y[:40], 1.0):
    pass  # the libraries set up their threads and buffers
before = peak()
for _ in predict_blocks(gram_matrix(x), x[:m], Targets(y, width=w), np.repeat([5.0, 7.0], 200)):
    pass
print(peak() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="this system does not tell the peak memory"
)
@pytest.mark.parametrize("shape", [(2200, 2600), (2600, 2200)])
def test_resident_memory_stays_below_the_documented_bound(shape: tuple[int, int]) -> None:
    (n, v), m, w = shape, 50, 128
    command = [sys.executable, "-c", RESIDENT, str(n), str(v)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    smoothers = 2 * 8 * m * n
    bound = 16 * min(n, v) ** 2 + 8 * m * (3 * n + v) + 33 * n * w + 16_384 * max(n, v) + smoothers
    assert 8 * min(n, v) ** 2 < int(done.stdout) < bound + 16 * 2**20  # of buffers inside the libraries


@pytest.mark.parametrize(("n", "p"), [(15, 6), (15, 40)])
def test_leave_one_out_errors_equal_refitting_without_each_row(
    rng: np.random.Generator, n: int, p: int
) -> None:
    x, y = problem(rng, n, p, 3)
    penalties = np.array([0.1, 10.0])
    explicit = []
    for penalty in penalties:
        residuals = []
        for i in range(len(x)):
            keep = np.arange(len(x)) != i
            model = SklearnRidge(alpha=penalty).fit(x[keep].astype(float), y[keep].astype(float))
            residuals.append(y[i] - model.predict(x[i : i + 1].astype(float))[0])
        explicit.append(np.mean(np.square(residuals)))
    for space in ("sample", "feature"):
        errors = loo_errors(factorize(gram_matrix(x, space=space)), y, penalties)
        np.testing.assert_allclose(errors, explicit, rtol=1e-5)


def test_penalty_with_smallest_error_is_chosen(rng: np.random.Generator) -> None:
    x, y = problem(rng, 40, 20, 5)
    penalties = np.logspace(-3, 4, 15)
    best = penalties[np.argmin(loo_errors(factorize(gram_matrix(x)), y, penalties))]
    assert fit_ridge(x, y, penalties).penalty == best


def test_pure_noise_is_shrunk_to_the_mean(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(60, 30)).astype(np.float32), rng.normal(size=(60, 8)).astype(np.float32)
    model = fit_ridge(x, y, np.logspace(-3, 8, 30))
    np.testing.assert_allclose(model.predict(x), np.tile(y.mean(0), (60, 1)), atol=0.1)


def test_targets_do_not_influence_each_other(rng: np.random.Generator) -> None:
    x, y = problem(rng, 25, 40, 6)
    together, alone = fit_ridge(x, y, np.array([5.0])), fit_ridge(x, y[:, 2:3], np.array([5.0]))
    np.testing.assert_allclose(together.coef[:, 2:3], alone.coef, atol=1e-6)


def test_penalties_must_be_positive_and_samples_enough(rng: np.random.Generator) -> None:
    x, y = problem(rng, 5, 3, 1)
    with pytest.raises(DataError, match="positive"):
        fit_ridge(x, y, np.array([0.0]))
    with pytest.raises(DataError, match="three samples"):
        fit_ridge(x[:2], y[:2], np.array([1.0]))
    with pytest.raises(DataError, match="positive"):
        predict(gram_matrix(x), x, y, float("nan"))


def test_bad_betas_are_named_by_row_and_voxel(rng: np.random.Generator) -> None:
    x, y = problem(rng, 8, 5, 2)
    broken = x.copy()
    broken[3, 4] = np.nan
    with pytest.raises(DataError, match="row 3, voxel 4"):
        gram_matrix(broken)
    with pytest.raises(DataError, match="row 3, voxel 4"):
        predict(gram_matrix(x), broken, y, 1.0)
    with pytest.raises(DataError, match="5 voxels, these betas have 4"):
        predict(gram_matrix(x), x[:, :4], y, 1.0)
    with pytest.raises(DataError, match="5 voxels, these betas have 4"):
        fit_ridge(x, y, np.array([1.0])).predict(x[:, :4])
    with pytest.raises(DataError, match="floating point"):
        gram_matrix(np.ones((4, 4), np.int64))
    with pytest.raises(DataError, match="two rows"):
        gram_matrix(x[:1])


def test_bad_targets_are_named(rng: np.random.Generator) -> None:
    x, y = problem(rng, 8, 5, 6)
    gram = gram_matrix(x)
    broken = y.copy()
    broken[2, 5] = np.inf
    with pytest.raises(DataError, match="target 5 is inf in row 2"):
        predict(gram, x, Targets(broken, width=2), 1.0)
    with pytest.raises(DataError, match="7 training rows, the betas have 8"):
        predict(gram, x, y[:7], 1.0)
    with pytest.raises(DataError, match=r"0\.\.7"):
        Targets(y, np.array([0, 8]))
    with pytest.raises(DataError, match="rows must be integers"):
        Targets(y, np.ones(8))
    with pytest.raises(DataError, match="7 rows, the first has 8"):
        Targets([y, y[:7]])
    with pytest.raises(DataError, match="real"):
        Targets(y.astype(str))
    with pytest.raises(DataError, match="neither an array nor a sequence"):
        Targets(block for block in [y])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="width"):
        Targets(y, width=0)
    with pytest.raises(UsageError, match="one or"):
        predict(gram, x, y, np.ones(4))
