"""Cached ground-truth features are named by everything that determines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nsdbench.features import Source, TruthCache
from nsdbench.metrics.profiles import PROFILES
from nsdbench.types import Stimuli


class Net:
    """A network that is never called."""

    name, weights_id, weights_sha256, preprocessing_version, untrained = "swav", "swav", "0" * 64, 1, False

    def __init__(self, **changes: Any) -> None:
        vars(self).update(changes)

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        raise AssertionError


def path(tmp_path: Path, change: Mapping[str, Any]) -> Path:
    asked: dict[str, Any] = {
        "net": {}, "size": 224, "node": "avgpool", "pool": ("A1", "A2"), "images": "pixels", "profile": {}
    } | dict(change)  # fmt: skip
    stimuli = Stimuli(
        ("A1", "A2"),
        ("A", "A"),
        frozenset({"A1", "A2"}),
        lambda _: np.zeros((8, 8, 3), np.uint8),
        asked["images"],
    )
    source = Source("swav", ("avgpool",), lambda views: {}, Net(**asked["net"]), asked["size"])
    profile = replace(PROFILES["nsdbench-v1"], **asked["profile"])
    return TruthCache(tmp_path, tmp_path).path(source, asked["node"], asked["pool"], stimuli, profile)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 256},
        {"node": "layer4"},
        {"pool": ("A2", "A1")},
        {"images": "other pixels"},
        {"profile": {"resize": "bilinear"}},
        {"profile": {"stage1_truth": None}},
        {"net": {"name": "effnet"}},
        {"net": {"weights_id": "random-swav"}},
        {"net": {"weights_sha256": "1" * 64}},
        {"net": {"preprocessing_version": 2}},
    ],
    ids=str,
)
def test_whatever_changes_a_feature_changes_its_file(tmp_path: Path, change: Mapping[str, Any]) -> None:
    assert path(tmp_path, change) != path(tmp_path, {})


@pytest.mark.parametrize("change", [{"ties": "strict"}, {"pixel_size": 512}, {"stage1_recon": 512}], ids=str)
def test_what_concerns_no_ground_truth_shares_the_file(tmp_path: Path, change: Mapping[str, Any]) -> None:
    assert path(tmp_path, {"profile": change}) == path(tmp_path, {})
