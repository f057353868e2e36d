"""Every ratio that nsdbench claims, measured on this machine by one command.

    python benchmarks/all.py                                   # all, about 20 minutes on two cores
    python benchmarks/all.py --only nsd_size --only score_speed
    python benchmarks/all.py --write docs/performance.md       # puts the table between the markers of that page
    python benchmarks/all.py --short                           # tiny sizes: shows that they run, figures mean nothing

Each benchmark runs in a process of its own, so that memory and threads do not mix; one that fails is named, the others
go on, and the exit code is 1. A missed target is marked and fails nothing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from ratio import Ratio

NAMES = (
    "nsd_size",
    "linear_speed",
    "score_speed",
    "stats_speed",
    "mindeye_speed",
    "prepare_speed",
    "transfer_speed",
)
BEGIN, END = "<!-- ratios:begin -->\n", "<!-- ratios:end -->\n"


def measure(name: str, *, short: bool) -> list[Ratio] | None:
    """Run one benchmark in a process of its own; None if it fails. What it prints goes to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "ratios.json"
        command = [sys.executable, __file__, "--alone", name, "--result", str(result)]
        if subprocess.call([*command, *(["--short"] if short else [])], stdout=sys.stderr):
            return None
        return [Ratio(**entry) for entry in json.loads(result.read_text(encoding="utf-8"))]


def alone(name: str, result: Path, *, short: bool) -> None:
    """Run one benchmark here and write its ratios to a file."""
    found = []
    for ratio in importlib.import_module(name).ratios(short=short):
        print(f"{name}: {ratio}", flush=True)
        found.append(asdict(ratio))
    result.write_text(json.dumps(found), encoding="utf-8")


def machine() -> str:
    """Return what the figures were measured on, and when."""
    import torch
    from threadpoolctl import threadpool_info

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy"))
    blas = sorted(
        {f"{one['internal_api']} {one['version']}" for one in threadpool_info() if one["user_api"] == "blas"}
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}: {_processor()}, {_cores()} cores, "
        f"{torch.get_num_threads()} threads, {memory:.0f} GB, {gpu}; Python {platform.python_version()}, {libraries}, "
        f"{', '.join(blas)}"
    )


def _processor() -> str:
    """Name the processor; where the hypervisor hides its name, family and model say more."""
    fields: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name") or platform.processor() or platform.machine()
    wide = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in fields.get("flags", "").split()]
    return f"{name} ({', '.join(wide)})" if wide else name


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(found: dict[str, list[Ratio]], where: str) -> str:
    """Return the ratios as Markdown, with machine, date and commands."""
    lines = [where, "", "| ratio | measured | target | what it is | sizes, and what was extrapolated |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, ratios in found.items():
        lines.append(f"| **`python benchmarks/all.py --only {name}`** | | | | |")
        for one in ratios:
            target = one.target and f"{one.target}{'' if one.met else ' (missed)'}"
            cells = (one.name, one.figure, target, one.definition, one.note)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write(page: Path, content: str) -> None:
    """Replace what is between the markers of a page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page} lacks the lines {BEGIN.strip()} and {END.strip()}")
    page.write_text(f"{before}{BEGIN}{content}{END}{after}", encoding="utf-8")


def collect(names: Sequence[str], *, short: bool) -> tuple[dict[str, list[Ratio]], list[str]]:
    """Run benchmarks; return ratios by benchmark, and the names of those that failed."""
    found: dict[str, list[Ratio]] = {}
    failed = []
    for name in names:
        print(f"running {name}", file=sys.stderr, flush=True)
        ratios = measure(name, short=short)
        if ratios:
            found[name] = ratios
        else:
            failed.append(name)
    return found, failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="tiny sizes: only shows that they run")
    parser.add_argument("--only", action="append", choices=NAMES, help="one benchmark; may be repeated")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the table between the markers of a page"
    )
    parser.add_argument("--alone", choices=NAMES, help=argparse.SUPPRESS)  # the process of one benchmark
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(given.alone, given.result, short=given.short)
        return
    if given.short and given.write:
        parser.error("short figures mean nothing; they are not for a page")
    found, failed = collect(given.only or NAMES, short=given.short)
    content = table(found, machine())
    print(content)
    if given.write and not failed:
        write(given.write, content)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
