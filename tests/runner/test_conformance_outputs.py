"""The conformance suite looks at embeddings and captions as closely as at images."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsdbench import conformance
from nsdbench.errors import ReconstructionError
from nsdbench.types import Reconstructions, Stimuli

IDS = ("img1", "img2")
PLAIN = Reconstructions(np.zeros((2, 2, 4, 4, 3), np.uint8), IDS)
FULL = replace(PLAIN, embeddings={"space": np.eye(2, dtype=np.float32)}, captions=(("a", "b"), ("c", "d")))


def bench(recon: Reconstructions, gallery: dict[str, Any] | None = None) -> Any:
    image = np.zeros((4, 4, 3), np.uint8)
    stimuli = Stimuli(IDS, ("core",) * 2, frozenset(IDS), lambda _: image, "hash")
    fitted = SimpleNamespace(embed=lambda stimuli, ids: gallery or {})
    return SimpleNamespace(run=lambda **_: recon, stimuli=stimuli, fitted=fitted)


def test_what_is_there_is_named() -> None:
    check = conformance.check_other_outputs
    assert check(bench(PLAIN)) == "the model gives images only"
    assert check(bench(FULL)) == "captions"  # nothing to retrieve from
    assert check(bench(FULL, {"space": np.eye(2, dtype=np.float16)})) == "retrieval in space, captions"


def test_true_embeddings_of_another_space_or_shape_fail() -> None:
    with pytest.raises(AssertionError, match="one space"):
        conformance.check_other_outputs(bench(FULL, {"other": np.eye(2, dtype=np.float32)}))
    with pytest.raises(ReconstructionError, match="'space' has shape"):
        conformance.check_other_outputs(bench(FULL, {"space": np.zeros((2, 3), np.float32)}))
    with pytest.raises(ReconstructionError, match="2 captions for each of 2 targets"):
        conformance.check_other_outputs(bench(replace(FULL, captions=(("a",), ("b",)))))


@pytest.mark.parametrize(
    "change", [{"embeddings": {"space": -np.eye(2, dtype=np.float32)}}, {"embeddings": {}}, {"captions": ()}]
)
def test_two_runs_must_agree_in_everything(change: dict[str, Any]) -> None:
    runs = iter([FULL, replace(FULL, **change)])
    with pytest.raises(AssertionError, match="same seed differ in embeddings or captions"):
        conformance.check_same_seed_same_images(SimpleNamespace(run=lambda **_: next(runs)))  # type: ignore[arg-type]
