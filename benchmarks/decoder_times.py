"""Compares counted operations with measured times: do they predict the ratios between decoders and between settings?

The miniatures draw the samples of one target from features that mean nothing, with their usual settings and with longer
ones; the linear baseline is fitted at three sizes. One thread of a CPU.

Run ``python benchmarks/decoder_times.py``; it takes about two minutes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nsdbench.adapters import brain_diffuser, icnn, inversion, ridge, takagi
from nsdbench.adapters.base import Adapter
from nsdbench.adapters.linear import fit_ridge
from nsdbench.adapters.mindeye import mindeye1, mindeye2
from nsdbench.adapters.mindeye.decoder import Features
from nsdbench.adapters.nets import vdvae, vgg
from nsdbench.adapters.nets.euler import spaced_times
from nsdbench.doctor import costs, recipes

SAMPLES = 4


def _with_steps(settings: Any) -> Any:
    return replace(settings, sampling=replace(settings.sampling, steps=4 * settings.sampling.steps))


class LongerTakagi(takagi.Takagi):
    """Four times as many steps."""

    settings = {"mini": _with_steps(takagi.Takagi.settings["mini"])}  # noqa: RUF012


class LongerBrainDiffuser(brain_diffuser.BrainDiffuser):
    """Four times as many steps."""

    settings = {"mini": _with_steps(brain_diffuser.BrainDiffuser.settings["mini"])}  # noqa: RUF012


class LongerIcnn(icnn.Icnn):
    """Four times as many iterations."""

    settings = {"mini": replace(icnn.Icnn.settings["mini"], loop=inversion.Descent(120, rate=0.3))}  # noqa: RUF012


class LongerMindEye1(mindeye1.MindEye1):
    """Four times as many candidates."""

    settings = {"mini": replace(mindeye1.MINI, candidates=8)}  # noqa: RUF012


class LongerMindEye2(mindeye2.MindEye2):
    """Four times as many steps of the first stage."""

    settings = {"mini": replace(mindeye2.MINI, unclip=replace(mindeye2.MINI.unclip, times=spaced_times(20)))}  # noqa: RUF012


DECODERS: Mapping[str, tuple[type[Adapter], type[Adapter]]] = {
    "takagi": (takagi.Takagi, LongerTakagi),
    "brain_diffuser": (brain_diffuser.BrainDiffuser, LongerBrainDiffuser),
    "icnn": (icnn.Icnn, LongerIcnn),
    "mindeye1": (mindeye1.MindEye1, LongerMindEye1),
    "mindeye2": (mindeye2.MindEye2, LongerMindEye2),
}


def predicted(adapter: type[Adapter]) -> float:
    """Return the counted operations of the samples of one target."""
    known = recipes.costs_of(adapter, "mini", SAMPLES)
    assert known is not None
    return known.reconstruct(costs.Sizes(0, 0, 0), costs.Cell(1, 1, SAMPLES)).work.device


def measured(adapter: type[Adapter], times: int = 3) -> float:
    """Return seconds for the samples of one target: the fastest of a few runs."""
    draw, found = drawing(adapter("mini")), []
    for _ in range(times + 1):
        start = time.perf_counter()
        draw()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def drawing(model: Any) -> Callable[[], object]:
    """Return what draws the samples of one target from features that mean nothing."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal((1, *shape), dtype=np.float32)

    if model.name == "takagi":
        features: Any = takagi.Features(normal(4, 10, 10), normal(16, 128))
    elif model.name == "brain_diffuser":
        features = brain_diffuser.Features(normal(vdvae.MINI.n_latents), normal(65, 128), normal(16, 128))
    elif model.name == "icnn":
        features = {
            name: normal(*shape) for name, shape in vgg.MINI.shapes.items() if name in model.chosen.layers
        }
    else:
        model.brains = {name: network.eval() for name, network in model.untrained(100).items()}
        model.facts = {}
        tokens, side = (65, 16) if model.name == "mindeye1" else (64, 8)
        wanted = normal(tokens, 128)
        features = Features(wanted, wanted, normal(4, side, side), decoded=True)
    return lambda: model.render(features, ["x"], SAMPLES, 0)


def compare_times() -> None:
    """Print counted operations and measured seconds of all miniatures, and the ratios of both."""
    torch.set_num_threads(1)
    rows = []
    for name, (usual, longer) in DECODERS.items():
        flop, seconds = ([f(one) for one in (usual, longer)] for f in (predicted, measured))
        rows.append((name, flop[0], seconds[0]))
        print(
            f"{name:15} {flop[0] / 1e9:7.1f} GFLOP {seconds[0]:6.2f} s {flop[0] / seconds[0] / 1e9:6.1f} GFLOP/s; longer: "
            f"operations x {flop[1] / flop[0]:.2f}, time x {seconds[1] / seconds[0]:.2f}"
        )
    for (name, flop0, seconds0), (other, flop1, seconds1) in itertools.combinations(rows, 2):
        print(f"{other} / {name}: operations {flop1 / flop0:.2f}, time {seconds1 / seconds0:.2f}")
    for what, ratio, found in compare_fits():
        print(f"{what}: operations x {ratio:.2f}, time x {found:.2f}")


def compare_fits() -> Iterator[tuple[str, float, float]]:
    """Yield ratios of operations and of times of the ridge baseline between two sizes."""
    recipe = recipes.costs_of(ridge.Ridge, "standard")
    assert recipe is not None
    rng, found = np.random.default_rng(0), []
    outputs = 3 * ridge.SIZE**2
    for images, voxels in ((600, 900), (1200, 900), (1200, 1800)):
        x = rng.standard_normal((images, voxels), dtype=np.float32)
        y = rng.random((images, outputs), dtype=np.float32)
        start = time.perf_counter()
        fit_ridge(x, y, ridge.RELATIVE_PENALTIES * voxels, select_on=y[:, : 3 * ridge.COARSE**2])
        seconds = time.perf_counter() - start
        fit = recipe.fit(costs.Sizes(3 * images, images, voxels))
        assert fit is not None
        found.append((f"{images} images, {voxels} voxels", fit.work.host, seconds))
    for (_, flop0, seconds0), (what, flop1, seconds1) in itertools.pairwise(found):
        yield f"ridge, {what}", flop1 / flop0, seconds1 / seconds0


if __name__ == "__main__":
    compare_times()
