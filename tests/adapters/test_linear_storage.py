"""Stored linear models: what is written comes back, and nothing else is accepted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nsdbench.adapters.arrays import load_arrays, save_arrays
from nsdbench.adapters.fastl2lir import UnitDecoders, fit_units
from nsdbench.adapters.linear import Gram, RidgeModel, fit_ridge, fit_weights, gram_matrix, predict
from nsdbench.errors import DataError


@pytest.fixture
def betas(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(30, 8)).astype(np.float32)


@pytest.fixture
def features(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(30, 5)).astype(np.float32)


def test_every_model_predicts_the_same_after_storage(
    tmp_path: Path, betas: np.ndarray, features: np.ndarray
) -> None:
    gram = gram_matrix(betas, intercept=False)
    (units,) = fit_units(betas, features, n_selected=3)
    weights = fit_weights(gram, features, np.arange(1.0, 6.0))
    for name, model in {"gram": gram, "units": units, "weights": weights}.items():
        save_arrays(tmp_path / f"{name}.npz", model)
    loaded = load_arrays(tmp_path / "gram.npz", Gram)
    assert loaded.intercept is False and loaded.space == "feature" and loaded.x.dtype == np.float32
    np.testing.assert_array_equal(predict(loaded, betas, features, 2.0), predict(gram, betas, features, 2.0))
    np.testing.assert_array_equal(
        load_arrays(tmp_path / "units.npz", UnitDecoders).predict(betas), units.predict(betas)
    )
    np.testing.assert_array_equal(
        load_arrays(tmp_path / "weights.npz", RidgeModel).predict(betas), weights.predict(betas)
    )


def test_damaged_foreign_and_missing_files_are_named(
    tmp_path: Path, betas: np.ndarray, features: np.ndarray
) -> None:
    model = fit_ridge(betas, features, np.array([1.0]))
    whole = tmp_path / "model.npz"
    save_arrays(whole, model)
    (tmp_path / "short.npz").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "noise.npz").write_bytes(b"not a zip file")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "pickle.npz", coef=np.array([{}], object))
    for name in ("short", "noise", "empty", "pickle", "absent"):
        with pytest.raises(DataError, match="not a stored RidgeModel"):
            load_arrays(tmp_path / f"{name}.npz", RidgeModel)
    with pytest.raises(DataError, match="not a stored Gram"):
        load_arrays(whole, Gram)


def test_not_a_number_and_contradicting_shapes_are_refused(
    tmp_path: Path, betas: np.ndarray, features: np.ndarray
) -> None:
    model = fit_ridge(betas, features, np.array([1.0]))
    fields = {"coef": model.coef, "x_mean": model.x_mean, "y_mean": model.y_mean, "penalty": 1.0}
    np.savez(tmp_path / "nan.npz", **{**fields, "y_mean": np.full(5, np.nan, np.float32)})
    with pytest.raises(DataError, match="NaN or infinity in y_mean"):
        load_arrays(tmp_path / "nan.npz", RidgeModel)
    np.savez(tmp_path / "shape.npz", **{**fields, "coef": model.coef[:4]})
    with pytest.raises(DataError, match="ridge weights"):
        load_arrays(tmp_path / "shape.npz", RidgeModel)


def test_only_arrays_are_written(tmp_path: Path, betas: np.ndarray, features: np.ndarray) -> None:
    model = fit_ridge(betas, features, np.array([1.0]))
    object.__setattr__(model, "penalty", {"a": 1})
    with pytest.raises(TypeError, match="penalty"):
        save_arrays(tmp_path / "model.npz", model)
    assert not list(tmp_path.iterdir())
