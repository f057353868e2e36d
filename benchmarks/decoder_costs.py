"""Counts what each stage of the decoders costs: parameters, operations, and memory of what is computed.

Networks of published and of miniature size are built without memory (PyTorch's meta device) and run on tensors that have
shapes only. Operations are those of PyTorch's flop counter: matrix products, convolutions and attention, a multiplication
and an addition as two. Memory is the most that tensors made by a stage take at one time, followed tensor by tensor;
attention is taken to be fused, which makes no matrix of all pairs. Nothing is timed, and no weights are needed.

Run ``python benchmarks/decoder_costs.py`` to count everything again (half a minute) and compare with the table that
`nsdbench doctor` reads; ``--write`` replaces the table.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from decoder_stages import Build, Plan, plans
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.doctor import costs
from nsdbench.doctor.costs import COUNTED, Stage, counted


class Counter(TorchDispatchMode):
    """Counts operations, and follows how many bytes the tensors take that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flop += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), given)
        return out

    def _add(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in given or key in self.known:
            return
        self.known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    def attention(self, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        """Attention as far as shapes and operations go, without a matrix of all pairs."""
        pairs = query.shape[:-1].numel() * key.shape[-2]
        self.flop += 2 * pairs * (query.shape[-1] + value.shape[-1])
        return query.new_empty(*query.shape[:-1], value.shape[-1])


def count(plan: Plan) -> Stage:
    """Count one stage, on shapes alone."""
    network = (
        _built(plan.build, plan.precision == "half").train(plan.learns > 0).requires_grad_(plan.learns > 0)
    )
    n = plan.learns or 1
    one, two = _run(network, plan, n), _run(network, plan, 2 * n)
    item = (two.peak - one.peak) // n
    return Stage(
        plan.model,
        plan.size,
        plan.name,
        plan.network,
        plan.precision,
        parameters=sum(p.numel() for p in network.parameters()),
        flop=(two.flop - one.flop) // n,
        fixed=max(one.peak - item * n, 0),
        item=item,
    )


@functools.cache
def _built(build: Build, half: bool) -> nn.Module:
    network = on_meta(build).to("meta")
    return network.half() if half else network


def _run(network: nn.Module, plan: Plan, n: int) -> Counter:
    """Run a stage for n items."""
    if plan.learns:
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
    counter = Counter()
    fused = mock.patch("torch.nn.functional.scaled_dot_product_attention", counter.attention)
    plain = mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    with torch.device("meta"), torch.set_grad_enabled(plan.learns > 0), fused, plain, counter:
        found = plan.call(network, n)
        if plan.learns:
            torch.stack([part.float().sum() for part in tree_leaves(found)]).sum().backward()
    return counter


def count_all(wanted: Callable[[Plan], bool] = lambda plan: True) -> list[Stage]:
    """Count every stage, or those that are wanted."""
    return [count(plan) for plan in plans() if wanted(plan)]


def write(stages: list[Stage], path: Path) -> None:
    """Write the table."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [field.name for field in fields(Stage)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(stage) for stage in stages)


def main() -> None:
    """Count, show, and compare with the table or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the table")
    chosen = parser.parse_args()
    stages = count_all()
    for stage in stages:
        print(
            f"{stage.model:15}{stage.size:10}{stage.name:24}{stage.parameters / 1e6:9.1f} M parameters"
            f"{stage.flop / 1e9:12.2f} GFLOP{stage.item / 2**20:9.1f} MiB an item and {stage.fixed / 2**20:.1f}"
        )
    if chosen.write:
        write(stages, Path(costs.__file__).with_name(COUNTED))
    else:
        same = {stage for by_name in counted().values() for stage in by_name.values()} == set(stages)
        print("as in the table" if same else "differs from the table")
        sys.exit(not same)


if __name__ == "__main__":
    main()
