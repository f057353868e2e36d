"""The training loop: interruptions leave no trace, rates follow one cycle, what is decayed, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsdbench.adapters.mindeye.encoder import EncoderConfig, MindEye1, MindEye1Config
from nsdbench.adapters.mindeye.training import Curves, Plan, built, parameter_groups, train
from nsdbench.adapters.mindeye.trunk import MindEye2, MindEye2Config, TrunkConfig
from nsdbench.adapters.nets.prior import PriorConfig
from nsdbench.errors import TrainingError
from nsdbench.types import Progress, Silent

T = TypeVar("T")
PLAN, STEPS = Plan(epochs=5, batch=3, rate=0.02), 4


class Perceptron(nn.Module):
    """With dropout, whose draws come from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 16), nn.LayerNorm(16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.last(nn.functional.dropout(self.norm(self.first(x)), 0.5, self.training))
        return hidden


@dataclass(frozen=True)
class Errand:
    """Draws its batches, adds noise, and breaks at one place if asked to."""

    network: nn.Module
    steps: int = STEPS
    broken_epoch: int | None = None

    def batches(self, epoch: int, rng: torch.Generator) -> Iterable[Tensor]:
        return torch.randperm(self.steps * PLAN.batch, generator=rng).split(PLAN.batch)

    def losses(self, batch: object, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
        rows = torch.sin(torch.arange(self.steps * PLAN.batch * 5.0).view(-1, 5))[cast(Tensor, batch)]
        out = self.network(rows + 0.1 * torch.randn(rows.shape, generator=rng))
        broken = math.nan if epoch == self.broken_epoch else 1.0
        return {"near": (out[:, 0] - rows.sum(1)).square().mean(), "far": out[:, 1].abs().mean() * broken}


class Cut:
    """Interrupts after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for number, item in enumerate(items):
            if number == self.after:
                raise KeyboardInterrupt
            yield item


def trained(
    *,
    seed: int = 1,
    plan: Plan = PLAN,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    **lesson: Any,
) -> tuple[nn.Module, Curves]:
    network = built(Perceptron, 3)
    errand = Errand(network, **lesson)
    curves = train(
        errand, plan, seed=seed, label="errand", progress=progress or Silent(), checkpoint=checkpoint
    )
    return network, curves


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("steps", [1, STEPS, 2 * STEPS + 2, PLAN.epochs * STEPS - 1])
def test_an_interrupted_training_ends_with_the_very_weights_of_an_undisturbed_one(
    tmp_path: Path, steps: int
) -> None:
    undisturbed, curves = trained()
    path = tmp_path / "new" / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=path, progress=Cut(steps))
    assert path.is_file() == (steps >= STEPS)
    torch.rand(7)  # another process would have other global draws
    resumed, again = trained(checkpoint=path)
    assert same(resumed, undisturbed)
    assert again == curves


def test_the_state_of_a_long_training_is_not_written_after_every_epoch(tmp_path: Path) -> None:
    path, plan = tmp_path / "state.pt", replace(PLAN, epochs=61)
    for epochs, there in ((1, False), (2, True)):
        with pytest.raises(KeyboardInterrupt):
            trained(plan=plan, checkpoint=path, progress=Cut(epochs * STEPS))
        assert path.is_file() == there
    resumed, _ = trained(plan=plan, checkpoint=path)
    assert same(resumed, trained(plan=plan)[0])
    again, _ = trained(
        plan=plan, checkpoint=path, progress=Cut(0)
    )  # the last epoch is written whatever its number
    assert same(again, resumed)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, curves = trained(checkpoint=tmp_path / "state.pt")
    second, again = trained(checkpoint=tmp_path / "state.pt", progress=Cut(0))
    assert same(first, second)
    assert again == curves


def test_the_seed_alone_fixes_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(4)
    one, _ = trained()
    torch.manual_seed(5)
    other, _ = trained()
    assert same(one, other)
    assert not same(one, trained(seed=2)[0])


def test_global_draws_go_on_as_if_nothing_had_been_trained() -> None:
    torch.manual_seed(8)
    expected = torch.rand(3)
    torch.manual_seed(8)
    trained()
    assert torch.equal(torch.rand(3), expected)


def test_the_network_is_left_ready_for_use() -> None:
    assert not trained()[0].training


def test_rates_rise_for_two_epochs_to_their_peak_and_fall_to_a_25_thousandth_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates, step = [], torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    plan = replace(PLAN, epochs=10)
    trained(plan=plan)
    total, peak = plan.epochs * STEPS, 2 * STEPS - 1
    low, high, end = plan.rate / 25, plan.rate, plan.rate / 25_000
    times = np.arange(total)
    rise = low + (high - low) * (1 - np.cos(np.pi * times / peak)) / 2
    fall = end + (high - end) * (1 + np.cos(np.pi * (times - peak) / (total - 1 - peak))) / 2
    expected = np.where(times <= peak, rise, fall)
    np.testing.assert_allclose(np.array(rates), np.stack([expected] * 2, axis=1), rtol=1e-9)
    assert expected.argmax() == peak
    assert (expected[peak], expected[-1]) == pytest.approx((0.02, 8e-7))


def test_a_loss_that_is_no_number_is_named_with_its_epoch() -> None:
    with pytest.raises(TrainingError, match=r"errand: the loss \(far\) .* in epoch 3"):
        trained(broken_epoch=2)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 9},
        {"plan": replace(PLAN, epochs=6)},
        {"plan": replace(PLAN, rate=0.01)},
        {"plan": replace(PLAN, decay=0.0)},
        {"steps": STEPS + 1},
    ],
)
def test_the_state_of_another_training_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    trained(checkpoint=tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt belongs to another training Delete it"):
        trained(checkpoint=tmp_path / "state.pt", **change)


@pytest.mark.parametrize("content", [b"", b"no such thing", None])
def test_a_damaged_state_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.pt"
    trained(checkpoint=path)
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(TrainingError, match="is not a stored training"):
        trained(checkpoint=path)


def test_images_that_do_not_fill_a_batch_are_refused() -> None:
    with pytest.raises(TrainingError, match="do not fill one batch of 3"):
        trained(steps=0)


def test_curves_hold_the_mean_of_each_term_by_epoch() -> None:
    class Counted(Errand):
        def losses(self, batch: object, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
            zero = self.network(torch.zeros(1, 5)).sum() * 0
            return {"first": zero + epoch, "rows": zero + float(cast(Tensor, batch).sum())}

    network = built(Perceptron, 3)
    curves = train(Counted(network), PLAN, seed=0, label="", progress=Silent())
    rows = STEPS * PLAN.batch
    expected = [{"first": float(epoch), "rows": rows * (rows - 1) / 2 / STEPS} for epoch in range(5)]
    assert list(curves) == expected


def test_starting_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(8)
    expected = torch.rand(3)
    torch.manual_seed(8)
    one = built(Perceptron, 3)
    assert torch.equal(torch.rand(3), expected)
    assert same(one, built(Perceptron, 3))
    assert not same(one, built(Perceptron, 4))


def _names(network: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the parameters that are decayed, and of those that are not."""
    of = {id(value): name for name, value in network.named_parameters()}
    groups = parameter_groups(network, 0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    decayed, spared = ({of[id(p)] for p in cast(list[Tensor], group["params"])} for group in groups)
    return decayed, spared


def test_biases_are_spared_from_decay_and_norms_are_not() -> None:
    prior = PriorConfig(dim=8, tokens=2, depth=1, heads=2, dim_head=4, steps=10)
    decayed, spared = _names(MindEye1(7, MindEye1Config(EncoderConfig(6, 1, 2, 8, 5), prior)))
    assert {"voxel2clip.lin0.1.weight", "net.causal_transformer.layers.0.0.norm.g"} <= decayed
    assert {"net.learned_query", "net.null_brain_embeds"} <= decayed
    assert {"voxel2clip.lin0.0.bias", "voxel2clip.lin0.1.bias"} <= spared
    assert all("bias" in name for name in spared)
    assert not any("bias" in name or "rotary" in name for name in decayed)


def test_the_layers_of_subjects_are_decayed_with_their_biases() -> None:
    prior = PriorConfig(dim=8, tokens=2, depth=1, heads=2, dim_head=4, steps=10)
    decayed, spared = _names(MindEye2((5, 7), MindEye2Config(TrunkConfig(6, 1, 1, 2, 8, 8), prior)))
    assert {f"ridge.linears.{k}.{part}" for k in (0, 1) for part in ("weight", "bias")} <= decayed
    assert {"backbone.backbone_linear.bias", "backbone.mixer_blocks2.0.0.bias"} <= spared
