"""The training loop of both MindEyes: AdamW, one learning-rate cycle, mixed precision on a GPU, and resumption.

Every draw of a step depends on the seed and the number of the step alone, so a training that was interrupted ends with
the weights that an uninterrupted one has.
"""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from nsdbench.errors import TrainingError
from nsdbench.store import atomic_path, digest
from nsdbench.types import Progress

Network = TypeVar("Network", bound=nn.Module)
Curves = tuple[Mapping[str, float], ...]
"""Mean of every term of the loss, one mapping per epoch."""


SAVES = 30
"""How often the state of a long training is written, about: that of a published MindEye2 has 27 GB."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast is learnt.

    Attributes
    ----------
    epochs, batch : int
        Passes over the images, and images per step (of each subject).
    rate : float
        Largest learning rate; it is reached after ``warm`` epochs and falls to a 25,000th along a cosine.
    decay : float
        Weight decay.
    warm : int
        Epochs in which the rate rises; at most three tenths of all.
    """

    epochs: int
    batch: int
    rate: float = 3e-4
    decay: float = 1e-2
    warm: int = 2


class Lesson(Protocol):
    """What a network learns."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        ...

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        ...

    def batches(self, epoch: int, rng: torch.Generator) -> Iterable[object]:
        """Return what each step of an epoch learns from."""
        ...

    def losses(self, batch: object, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Return the terms of the loss by name; their sum is minimized."""
        ...


def train(
    lesson: Lesson,
    plan: Plan,
    *,
    seed: int,
    label: str,
    progress: Progress,
    checkpoint: Path | None = None,
) -> Curves:
    """Train ``lesson.network`` in place, and leave it in evaluation mode.

    On a GPU forward passes run in bfloat16; half precision overflows in these networks now and then, and users of the
    originals report that it ruins trainings from scratch.

    Parameters
    ----------
    lesson : Lesson
    plan : Plan
    seed : int
        With the numbers of epoch and step it fixes every draw.
    label : str
        For the progress bar.
    progress : Progress
        Told about every step.
    checkpoint : Path, optional
        Written after every epoch, or of a long training now and then; one that finds it continues there.

    Returns
    -------
    tuple of mapping
        The curves of the loss.

    Raises
    ------
    TrainingError
        If the loss is not finite, the images do not fill a batch, or the checkpoint is unreadable or belongs to another
        training.
    """
    if lesson.steps < 1:
        raise TrainingError(
            f"{label}: the training images do not fill one batch of {plan.batch}",
            remedy="Give more training trials.",
        )
    network = lesson.network.train()
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(parameter_groups(network, plan.decay), lr=plan.rate, fused=True)
    state = _State(network, optimizer, digest("training/1", plan.__dict__, lesson.steps, seed), checkpoint)
    curves = state.resume()
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        plan.rate,
        total_steps=plan.epochs * lesson.steps,
        pct_start=min(0.3, plan.warm / plan.epochs),
        final_div_factor=1000,
        last_epoch=len(curves) * lesson.steps - 1,  # counts steps
    )
    with _global_draws(device):
        for epoch, step in progress.track(_places(len(curves), plan.epochs, lesson.steps), label):
            if step == 0:
                batches = iter(lesson.batches(epoch, _generator(seed, epoch, 0)))
                sums: dict[str, float] = {}
            rng = _generator(seed, epoch, step + 1)
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))  # dropout takes no generator
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                terms = lesson.losses(next(batches), epoch, rng)
            _descend(network, optimizer, terms, label, epoch)
            cycle.step()
            sums = {name: sums.get(name, 0.0) + float(term.detach()) for name, term in terms.items()}
            if step + 1 == lesson.steps:
                curves = (*curves, {name: value / lesson.steps for name, value in sums.items()})
                if len(curves) % max(1, plan.epochs // SAVES) == 0 or len(curves) == plan.epochs:
                    state.save(curves)
    network.eval()
    return curves


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Return the trainable parameters in two groups: those that are decayed, and those with "bias" in their names.

    As published: weights of norms are decayed, and so is all of the layers of subjects (``ridge``), biases too.
    """
    groups: tuple[list[Tensor], list[Tensor]] = [], []
    for name, value in network.named_parameters():
        if value.requires_grad:
            groups["bias" in name and not name.startswith("ridge.")].append(value)
    return [{"params": groups[0], "weight_decay": decay}, {"params": groups[1], "weight_decay": 0.0}]


def _descend(
    network: nn.Module, optimizer: torch.optim.Optimizer, terms: Mapping[str, Tensor], label: str, epoch: int
) -> None:
    loss = torch.stack(list(terms.values())).sum()
    if not math.isfinite(float(loss.detach())):
        broken = ", ".join(name for name, term in terms.items() if not math.isfinite(float(term.detach())))
        raise TrainingError(
            f"{label}: the loss ({broken}) is no longer finite in epoch {epoch + 1}",
            remedy="Check the betas for outliers, or train with a smaller learning rate.",
        )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _places(first: int, epochs: int, steps: int) -> list[tuple[int, int]]:
    return [(epoch, step) for epoch in range(first, epochs) for step in range(steps)]


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    number = int(digest("draws/1", seed, epoch, step), 16) % 2**62
    return torch.Generator().manual_seed(number)


@contextlib.contextmanager
def _global_draws(device: torch.device) -> Iterator[None]:
    """Give the global generators back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@dataclass(frozen=True)
class _State:
    """What is written after an epoch."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    key: str
    path: Path | None

    def resume(self) -> Curves:
        """Read what is there, and return the curves of the epochs that are done."""
        if self.path is None or not self.path.exists():
            return ()
        over = "Delete it to start over."
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(f"{self.path} is not a stored training ({error})", remedy=over) from error
        if found["key"] != self.key:
            raise TrainingError(f"{self.path} belongs to another training", remedy=over)
        self.network.load_state_dict(found["network"])
        self.optimizer.load_state_dict(found["optimizer"])
        return tuple(found["curves"])

    def save(self, curves: Curves) -> None:
        if self.path is None:
            return
        with atomic_path(self.path) as temporary:
            states = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save({"key": self.key, "curves": [dict(one) for one in curves], **states}, temporary)


def built(build: Callable[[], Network], seed: int) -> Network:
    """Return the network of ``build`` with starting weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(digest("start/1", seed), 16) % 2**62)
        return build()
