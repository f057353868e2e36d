"""How fast this machine multiplies matrices, measured in a fraction of a second, or what is assumed instead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nsdbench.doctor.costs import Rates

SHARE = 0.4
A100_HALF, A100_SINGLE = 312e12, 19.5e12
"""Most operations per second that the maker states for an NVIDIA A100, with tensor cores and without."""
ASSUMED = f"on an A100 at {SHARE:.0%} of {A100_HALF / 1e12:.0f} TFLOP/s (an assumption)"
SECONDS = 0.15
TERA = 1e12


@dataclass(frozen=True)
class Device:
    """Where networks run.

    Attributes
    ----------
    name : str
    memory : int or None
        Bytes of a GPU; None without one.
    """

    name: str
    memory: int | None


def find_device() -> Device:
    """Return the first GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(properties.name, int(properties.total_memory))
    return Device("CPU", None)


def host_memory() -> int | None:
    """Return the memory of this machine in bytes; None where it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not everywhere
        return None


def find_rates(device: Device) -> Rates:
    """Return the rates of published models: of the GPU, if there is one, else those assumed of an A100.

    The CPU's share of the work, regressions in double precision, is always taken at the rate measured here.
    """
    host = _host_rate(np.float64)
    if device.memory is None:
        basis = f"{ASSUMED}; regressions on this CPU at {host / TERA:.2g} TFLOP/s (measured)"
        return Rates(A100_HALF * SHARE, A100_SINGLE * SHARE, host, basis)
    half, single = _gpu_rates()
    basis = (
        f"on this GPU at {half / TERA:.0f} TFLOP/s in half and {single / TERA:.0f} in single precision (measured on "
        f"products of matrices; convolutions and small batches are slower), CPU at {host / TERA:.2g} (measured)"
    )
    return Rates(half, single, host, basis)


def cpu_rates() -> Rates:
    """Return the rates of models that run on this CPU, such as the miniatures."""
    single, double = _host_rate(np.float32), _host_rate(np.float64)
    basis = (
        f"on this CPU at {single / TERA:.2g} TFLOP/s in single precision (measured on products of matrices)"
    )
    return Rates(single, single, double, basis)


def _host_rate(dtype: type[np.floating]) -> float:
    size = 512
    a = np.ones((size, size), dtype)
    return _rate(lambda: a @ a, lambda: None, 2.0 * size**3)


def _gpu_rates() -> tuple[float, float]:
    import torch

    size, found = 4096, []
    for dtype in (torch.float16, torch.float32):
        a = torch.ones(size, size, dtype=dtype, device="cuda")
        found.append(_rate(lambda a=a: a @ a, torch.cuda.synchronize, 2.0 * size**3))  # type: ignore[misc]
    return found[0], found[1]


def _rate(run: Callable[[], object], wait: Callable[[], object], flop: float) -> float:
    """Return operations per second of the fastest run within a fraction of a second, after one that does not count."""
    run()
    wait()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        run()
        wait()
        best = min(best, time.perf_counter() - start)
    return flop / best
