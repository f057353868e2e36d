"""Counted costs: the table is what counting gives, and what is computed from it is what others counted."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import decoder_costs
import numpy as np
import pytest
import torch
from decoder_stages import Plan, like, plans
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nsdbench.adapters import registry, ridge
from nsdbench.adapters.linear import fit_ridge
from nsdbench.adapters.mindeye.mindeye2 import MindEye2
from nsdbench.adapters.nets.unet import MiniDenoiser
from nsdbench.doctor import Question, examine, rates
from nsdbench.doctor.costs import Cell, Rates, Sizes, Work, counted
from nsdbench.doctor.recipes import costs_of

NSD = Sizes(27_000, 9_000, 15_724)


def table() -> dict[tuple[str, str, str], object]:
    return {(m, size, name): s for (m, size), own in counted().items() for name, s in own.items()}


def test_the_table_has_every_stage_and_no_other() -> None:
    assert {(p.model, p.size, p.name) for p in plans()} == table().keys()


@pytest.mark.parametrize(
    ("model", "size", "name"),
    [
        ("takagi", "published", "denoising"),
        ("takagi", "published", "image decoded"),
        ("icnn", "published", "one iteration"),
        ("mindeye1", "published", "high level learns"),
        ("mindeye2", "mini", "prior"),
        ("brain_diffuser", "mini", "first picture"),
    ],
)
def test_counting_again_gives_the_table(model: str, size: str, name: str) -> None:
    (plan,) = (p for p in plans() if (p.model, p.size, p.name) == (model, size, name))
    assert decoder_costs.count(plan) == table()[model, size, name]


@pytest.mark.slow
def test_counting_everything_again_gives_the_table() -> None:
    assert set(decoder_costs.count_all()) == set(table().values())


class Chain(nn.Module):
    """Two linear layers, 10 to 1000 to 10."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 1000, bias=False), nn.Linear(1000, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_operations_and_memory_of_two_layers_are_those_written_by_hand() -> None:
    plan = Plan("m", "mini", "s", "n", "single", Chain, lambda network, n: network(torch.empty(n, 10)))
    stage = decoder_costs.count(plan)
    assert (stage.parameters, stage.flop, stage.fixed) == (20_000, 2 * 20_000, 0)
    assert stage.item == 4 * (10 + 1000 + 10)  # input, hidden layer and output live at once


def test_half_precision_halves_the_memory_and_nothing_else() -> None:
    single, half = (
        decoder_costs.count(
            Plan(
                "m", "mini", "s", "n", precision, Chain,
                lambda network, n: network(like(network, n, 10)),
            )
        )
        for precision in ("single", "half")
    )  # fmt: skip
    assert single.flop == half.flop and single.item == 2 * half.item


def test_a_step_of_learning_takes_three_times_the_operations_but_for_the_first_gradient() -> None:
    plan = Plan(
        "m", "mini", "s", "n", "mixed", Chain, lambda network, n: network(torch.empty(n, 10)), learns=4
    )
    # forward; gradients of both weights; gradient of the hidden layer (nobody wants that of the input)
    assert decoder_costs.count(plan).flop == 2 * (20_000 + 20_000 + 10_000)


def test_operations_of_a_denoiser_are_those_of_pytorchs_own_counter_on_real_tensors() -> None:
    network = MiniDenoiser().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 4, 16, 16), torch.tensor(3), text=torch.zeros(1, 16, 160), text_share=1.0)
    assert counter.get_total_flops() == table()["takagi", "mini", "denoising"].flop  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("listing", "model", "stage"),
    [
        ("mindeye2_unclip6_diffusers_unet.json", "mindeye2", "denoising"),
        ("versatile_diffusion_vae_diffusers.json", "mindeye1", "image decoded"),
        ("mindeye2_final_subj01_pretrained_40sess_24bs.json", "mindeye2", "tokens decoded"),
        ("mindeye1_prior_257_final_subj01_bimixco_softclip_byol.json", "mindeye1", "prior"),
    ],
)
def test_parameters_are_those_of_published_listings(
    shared: Path, listing: str, model: str, stage: str
) -> None:
    entries = json.loads((shared / "data" / "state_dicts" / listing).read_text())
    total = sum(_numbers(shape) for shape in _shapes(entries))
    # listings also hold buffers of a few hundred numbers per series
    assert table()[model, "published", stage].parameters == pytest.approx(total, rel=1e-4)  # type: ignore[attr-defined]


def _shapes(document: object) -> list[list[int]]:
    found = (
        document.get("tensors", document.get("entries", document)) if isinstance(document, dict) else document
    )
    values = found.values() if isinstance(found, dict) else found
    return [v["shape"] if isinstance(v, dict) else v for v in values]  # type: ignore[union-attr]


def _numbers(shape: list[int]) -> int:
    return int(np.prod(shape)) if shape else 1


@pytest.mark.parametrize(("model", "tera"), [("mindeye1", 578), ("mindeye2", 393)])
def test_a_sample_takes_what_the_papers_form_was_counted_to_take(model: str, tera: float) -> None:
    known = costs_of(registry.load(model), "published")
    assert known is not None
    one, two = (known.reconstruct(NSD, Cell(1, 1, n)).work.device for n in (1, 2))
    # our prior leaves out what the end of its last layer does not need, and candidates are looked at by CLIP
    assert (two - one) / 1e12 == pytest.approx(tera, rel=0.02)


def test_only_what_depends_on_steps_grows_with_them() -> None:
    class Twice(MindEye2):
        settings = {"published": _doubled(MindEye2.settings["published"])}  # noqa: RUF012

    usual, twice = (costs_of(a, "published") for a in (MindEye2, Twice))
    assert usual is not None and twice is not None
    difference = [k.reconstruct(NSD, Cell(1, 1, 1)).work for k in (usual, twice)]
    per_call = table()["mindeye2", "published", "denoising"].flop  # type: ignore[attr-defined]
    assert difference[1].half - difference[0].half == pytest.approx(38 * 2 * per_call)
    assert difference[1].single == difference[0].single


def _doubled(settings: object) -> object:
    from dataclasses import replace

    from nsdbench.adapters.nets.euler import spaced_times

    return replace(settings, unclip=replace(settings.unclip, times=spaced_times(76)))  # type: ignore[type-var, attr-defined]


def test_learning_holds_gradients_and_moments_beside_the_weights() -> None:
    known = costs_of(registry.load("mindeye2"), "retrained")
    assert known is not None
    fit = known.fit(NSD)
    assert fit is not None
    parameters = table()["mindeye2", "published", "brain learns"].parameters  # type: ignore[attr-defined]
    assert fit.device.weights["brain"] == 16 * parameters
    assert "unclip" not in fit.device.weights  # a fit draws nothing


def test_a_published_checkpoint_has_no_fit() -> None:
    known = costs_of(registry.load("mindeye1"), "published")
    assert known is not None and known.fit(NSD) is None


def test_plug_ins_are_not_counted() -> None:
    class Own(ridge.Ridge.__mro__[1]):  # type: ignore[misc]
        name = "own"

    assert costs_of(Own, "standard") is None


def test_the_linear_baseline_stays_within_its_memory(rng: np.random.Generator) -> None:
    images, voxels = 500, 700
    x, y = (
        rng.standard_normal((images, voxels)).astype(np.float32),
        rng.random((images, 12_288), dtype=np.float32),
    )
    tracemalloc.start()
    fit_ridge(x, y, ridge.RELATIVE_PENALTIES * voxels, select_on=y[:, :768])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    known = costs_of(ridge.Ridge, "standard")
    assert known is not None
    fit = known.fit(Sizes(3 * images, images, voxels))
    assert fit is not None and fit.host_memory / 4 < peak < fit.host_memory


def test_time_is_operations_by_rate_each_in_its_precision() -> None:
    assert Rates(10.0, 2.0, 1.0, "").seconds(Work(20.0, 6.0, 4.0)) == 2.0 + 3.0 + 4.0


def test_a_gpu_smaller_than_the_estimate_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "find_device", lambda: rates.Device("a small GPU", 12 * 10**9))
    monkeypatch.setattr(rates, "find_rates", lambda device: Rates(1e14, 1e13, 1e11, "made up"))
    found = examine(Question("mindeye2,takagi"))
    warned = [f.what for f in found.findings if "GPU memory" in f.finding]
    assert warned == ["mindeye2-published"]
    assert found.ok


def test_a_machine_smaller_than_a_fit_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "host_memory", lambda: 10 * 10**9)
    found = examine(Question("icnn,mean_image", "vision"))
    warned = [f.what for f in found.findings if "main memory" in f.finding]
    assert warned == ["icnn-published"]


def test_without_a_gpu_times_of_published_models_say_what_they_assume() -> None:
    estimates = {e.model: e for e in examine(Question("takagi,ridge")).estimates}
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, whose rate is measured")
    assert "A100" in estimates["takagi"].rates.basis and "assumption" in estimates["takagi"].rates.basis
    assert "measured" in estimates["ridge"].rates.basis
