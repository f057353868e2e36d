"""What the tests of both MindEyes as decoders share: small simulated data, and checkpoints like the published ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nsdbench import weights
from nsdbench.data import Dataset
from nsdbench.types import Stimuli, Trials


@dataclass(frozen=True)
class Scenes:
    """A simulated data set, the trials of 16 of its training images, and those of a few targets."""

    dataset: Dataset
    train: Trials
    stimuli: Stimuli
    test: Trials
    shared: Trials


@pytest.fixture(scope="session")
def scenes(tiny_root: Path, sim_cache: Path) -> Scenes:
    dataset = Dataset.open(tiny_root, cache=sim_cache)
    train, shared = dataset.train(1), dataset.trials(1, "shared1000")
    return Scenes(
        dataset,
        train.of_stimuli(train.targets[:16]),
        dataset.stimuli("train", 1),
        dataset.trials(1, "vision").of_stimuli(["A2", "B1", "B4"]),
        shared.of_stimuli(shared.targets[:1]),
    )


class Schedule:
    """Stands for the code that a published checkpoint pickles with its weights."""


Publish = Callable[[str, nn.Module], Path]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Return a function that writes a network as a published training checkpoint, and returns the weights folder."""

    def written(id: str, network: nn.Module) -> Path:
        state = {f"module.{name}": value for name, value in network.state_dict().items()}
        content = {"epoch": 3, "model_state_dict": state, "lr_scheduler": {"f": Schedule(), "call": getattr}}
        torch.save(content, tmp_path / weights.entry(id).filename)
        return tmp_path

    return written


Correlation = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]


@pytest.fixture(scope="session")
def pixel_correlation() -> Correlation:
    """Return a function that correlates the pixels of an image with those of another, reduced to its size."""
    from PIL import Image

    def correlated(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        side = len(image)
        small = np.asarray(Image.fromarray(other).resize((side, side), Image.Resampling.LANCZOS))
        return float(np.corrcoef(image.ravel(), small.ravel())[0, 1])

    return correlated
