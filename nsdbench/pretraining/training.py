"""The training loop: steps are counted, every draw depends on seed and step alone, and any stop can be resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nsdbench.errors import DataError
from nsdbench.pretraining.corpus import Corpus
from nsdbench.pretraining.tasks import Task
from nsdbench.sim import SIM_VERSION
from nsdbench.sim.seeds import Purpose, stream
from nsdbench.store import atomic_path, digest
from nsdbench.types import Progress

STEPS_KEY = 2  # 0 and 1 are the scenes of the corpus
SAVE_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes
    ----------
    name : str
        Name of the network.
    weights_id : str
        Id of the weights that this recipe makes, which is also the name of their file.
    build : callable
        Makes the trunk.
    task : callable
        ``task(corpus, trunk)``.
    steps, batch : int
        Length of the training and scenes per step.
    rate : float
        Peak learning rate of AdamW; 5 % linear warm-up, then a cosine to zero.
    half : bool
        bfloat16 autocast.
    decay : float
        Weight decay.
    """

    name: str
    weights_id: str
    build: Callable[[], nn.Module]
    task: Callable[[Corpus, nn.Module], Task]
    steps: int
    batch: int
    rate: float
    half: bool = True
    decay: float = 0.02

    def key(self, corpus: Corpus, seed: int) -> str:
        """Return a hash of what a checkpoint must agree with to be continued."""
        facts = {k: v for k, v in asdict(self).items() if k not in ("build", "task")}
        return digest(SIM_VERSION, facts, len(corpus), seed)


def build(recipe: Recipe, corpus: Corpus, seed: int) -> Task:
    """Return the untrained task; its parameters depend on the recipe and the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_draw(recipe, seed, 0))
        return recipe.task(corpus, recipe.build())


def train(
    recipe: Recipe,
    corpus: Corpus,
    seed: int,
    checkpoint: Path,
    progress: Progress,
    *,
    seconds: float = math.inf,
) -> Task | None:
    """Train, or continue from ``checkpoint``, and return the finished task.

    Parameters
    ----------
    recipe : Recipe
    corpus : Corpus
        Training scenes.
    seed : int
    checkpoint : Path
        Written every 100 steps and at the end.
    progress : Progress
        Told about every step.
    seconds : float
        Stop after this time; the checkpoint then continues in the next call, with the same result.

    Returns
    -------
    Task or None
        None if time ran out.
    """
    task = build(recipe, corpus, seed)
    task.train().to(memory_format=task.layout)
    optimizer = torch.optim.AdamW(
        task.parameters(), recipe.rate, (0.9, 0.98), weight_decay=recipe.decay, fused=True
    )
    key = recipe.key(corpus, seed)
    first = _resume(checkpoint, key, task, optimizer)
    deadline = time.monotonic() + seconds
    for step in progress.track(range(first, recipe.steps), recipe.name):
        optimizer.param_groups[0]["lr"] = recipe.rate * _schedule(step, recipe.steps)
        _step(task, optimizer, recipe, seed, step)
        done = step + 1
        if done % SAVE_EVERY == 0 or done == recipe.steps or time.monotonic() > deadline:
            _save(checkpoint, key, done, task, optimizer)
        if time.monotonic() > deadline and done < recipe.steps:
            return None
    task.eval().finish()
    return task


def _draw(recipe: Recipe, seed: int, step: int) -> int:
    name = int(digest(recipe.name), 16) % 2**32
    return int(stream(seed, Purpose.PRETRAINING, STEPS_KEY, name, step).integers(2**62))


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _step(task: Task, optimizer: torch.optim.Optimizer, recipe: Recipe, seed: int, step: int) -> None:
    number = _draw(recipe, seed, step + 1)
    rows = task.pick(recipe.batch, np.random.default_rng(number))
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half), sdpa_kernel(SDPBackend.MATH):
        loss = task.loss(rows, torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(task.parameters(), 1.0)
    optimizer.step()
    task.stepped()


def _resume(path: Path, key: str, task: Task, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    found = torch.load(path, weights_only=True)
    if found["key"] != key:
        raise DataError(
            f"{path} belongs to another training", remedy="Delete it to start over, or use its settings."
        )
    task.load_state_dict(found["module"])
    optimizer.load_state_dict(found["optimizer"])
    return int(found["step"])


def _save(path: Path, key: str, step: int, task: Task, optimizer: torch.optim.Optimizer) -> None:
    with atomic_path(path) as temporary:
        state = {"module": task.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({"key": key, "step": step, **state}, temporary)
