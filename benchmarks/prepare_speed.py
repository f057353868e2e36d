"""Time, memory and correctness of ``nsdbench data prepare`` on generated NSD of the true grid size.

    python benchmarks/synthetic_nsd.py /tmp/nsd --sessions 40
    python benchmarks/prepare_speed.py /tmp/nsd --prune --full

Prepares the core betas of subject 1 and loads the standardized trials in a process of its own, then compares them with
a naive reference (``/betas[:, z, y, x]`` voxel by voxel, divided by 300, standardized by the textbook formula) on a
sample of voxels. A generated session file is sparse, so it has about the bytes that are needed; ``--full`` also takes
one file with every voxel of the grid in it, 1.02 GiB as released. Times are compared with plain reading of all bytes
of the file, and of as many bytes as the voxels have; with the file in memory (warm), and dropped from it (cold).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import synthetic_nsd
from nsd_files import core_path
from ratio import Ratio
from synthetic_nsd import GRID, SUBJECT, TRIALS

from nsdbench.data import Dataset, LoadOptions
from nsdbench.data.betas import read_betas
from nsdbench.data.design import core_trials, read_design
from nsdbench.data.rois import Voxels, load_voxels
from nsdbench.preparation.betas import SessionOutcome, prepare_betas

_SAMPLE = 40  # voxels of the reference


def prepare(root: Path, cache: Path, prune: bool) -> dict[str, float]:
    """Prepare and load subject 1 in this process; return seconds, and its peak memory in MB."""
    seconds: list[float] = []

    def report(outcome: SessionOutcome) -> None:
        seconds.append(outcome.seconds)

    dataset = Dataset.open(root, cache=cache)
    started = peak_megabytes()
    prepare_betas(dataset, SUBJECT, LoadOptions(), prune=prune, report=report)
    stored, begin = peak_megabytes(), time.perf_counter()
    dataset.train(SUBJECT)
    return {
        "sessions": len(seconds),
        "median_s": float(np.median(seconds)),
        "total_s": sum(seconds),
        "cache_s": time.perf_counter() - begin,
        "mb_imports": started,
        "mb_store": stored,
        "mb_cache": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """Return the peak resident memory of this program in MB (``ru_maxrss`` would begin with that of its parent)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def reference(root: Path, columns: np.ndarray, coordinates: np.ndarray, sessions: int) -> np.ndarray:
    """Return the training trials at some voxels, standardized the way a textbook says, in float64."""
    rows = []
    for session in range(1, sessions + 1):
        with h5py.File(core_path(root, SUBJECT, session), "r") as file:
            rows.append(
                np.stack([file["betas"][:, z, y, x] for x, y, z in coordinates[columns].tolist()], axis=1)
            )
    design = read_design(Dataset.open(root).layout.design)
    train = ~core_trials(design, SUBJECT, sessions, TRIALS).shared
    percent = np.concatenate(rows)[train] / 300
    return (percent - percent.mean(axis=0)) / percent.std(axis=0, ddof=1)


def seconds_of(work: Callable[[], object], path: Path, *, cold: bool, repeats: int = 5) -> float:
    """Return the median seconds of some work on a file, with its pages dropped before each time or left in memory."""
    taken = []
    for _ in range(repeats):
        if cold:
            drop(path)
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def drop(path: Path) -> None:
    """Make the operating system forget the pages of a file."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(path: Path) -> None:
    """Read every byte of a file once."""
    buffer = bytearray(4 * 2**20)
    with path.open("rb", buffering=0) as handle:
        while handle.readinto(buffer):
            pass


def write_sparse(root: Path) -> Path:
    """Write a data set of one session whose file has the voxels of the mask only; return that file."""
    synthetic_nsd.write(root, synthetic_nsd.Plan(sessions=1))
    return core_path(root, SUBJECT, 1)


def write_full(root: Path) -> Path:
    """Write a data set of one session whose file has every voxel of the grid, 1043.7 MiB; return that file."""
    world = synthetic_nsd.write(root, synthetic_nsd.Plan(sessions=1))
    x, y, z = GRID
    courses = dict(
        zip(map(tuple, np.argwhere(world.mask).tolist()), np.ascontiguousarray(world.core(1).T), strict=True)
    )
    other = np.random.default_rng(0).integers(-900, 900, TRIALS, dtype=np.int16)
    path = core_path(root, SUBJECT, 1)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("betas", (TRIALS, z, y, x), np.int16, chunks=(TRIALS, 1, 1, 1))
        for k, j, i in itertools.product(range(z), range(y), range(x)):
            data.id.write_direct_chunk((0, k, j, i), courses.get((i, j, k), other))
    return path


def prepare_apart(root: Path, cache: Path, *, prune: bool) -> dict[str, float]:
    """Run :func:`prepare` in a process of its own."""
    command = [sys.executable, __file__, str(root), "--cache", str(cache), "--alone"]
    done = subprocess.run([*command, *(["--prune"] if prune else [])], check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def ratios(*, short: bool) -> Iterator[Ratio]:
    """Prepare one session file as large as the released ones; ``short`` takes a sparse one."""
    with tempfile.TemporaryDirectory() as folder:
        yield from session_ratios(Path(folder), sparse=short)


def session_ratios(root: Path, *, sparse: bool) -> Iterator[Ratio]:
    """Write a data set of one session in an empty folder and prepare it, with none of it in memory."""
    path = write_sparse(root) if sparse else write_full(root)
    plain = seconds_of(lambda: read_plainly(path), path, cold=True, repeats=3)
    drop(path)
    found = prepare_apart(root, root / "cache", prune=False)
    note = f"one session of 750 trials, {path.stat().st_size / 2**20:.1f} MiB"
    yield Ratio(
        "preparing a session",
        "seconds of reading the voxels of a session file from disk, checking and storing them, over plain reading of "
        "all its bytes",
        found["total_s"] / plain,
        note=f"{note}; {found['total_s']:.2f} s over {plain:.2f} s",
    )
    yield Ratio(
        "preparing a session, peak memory",
        "most resident memory of the process (VmHWM)",
        found["mb_store"] / 1e3,
        "GB",
        note=f"{note}; {found['mb_imports']:.0f} MB of it after imports",
    )


def tell_reading(name: str, path: Path, voxels: Voxels) -> None:
    """Print how long the masked reading of a file takes, and plain reading of all its bytes and of the voxels' bytes."""
    part = path.with_name("voxel_bytes")
    part.write_bytes(bytes(2 * TRIALS * len(voxels)))
    for cold in (False, True):
        masked = seconds_of(lambda: read_betas(path, voxels), path, cold=cold)
        whole = seconds_of(lambda: read_plainly(path), path, cold=cold)
        least = seconds_of(lambda: read_plainly(part), part, cold=cold)
        print(
            f"{name}, {'cold' if cold else 'warm'}: {len(voxels)} voxels in {masked:.3f} s; all {path.stat().st_size / 2**20:.1f} MiB "
            f"plainly {whole:.3f} s (ratio {masked / whole:.2f}); the voxels' {2 * TRIALS * len(voxels) / 2**20:.1f} MiB "
            f"plainly {least:.3f} s (ratio {masked / least:.1f})"
        )
    part.unlink()


def compare(root: Path, cache: Path, columns: np.ndarray, expected: np.ndarray) -> None:
    """Print how far the standardized trials are from the reference."""
    trials = Dataset.open(root, cache=cache).train(SUBJECT)
    error = np.abs(trials.betas[:, columns] - expected).max()
    print(
        f"largest difference from the reference at {len(columns)} voxels of {len(trials)} trials: {error:.1e}"
    )
    if error > 2e-5:
        sys.exit("the prepared trials are wrong")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a data set written by synthetic_nsd.py")
    parser.add_argument("--cache", type=Path, help="default: ROOT/cache")
    parser.add_argument("--prune", action="store_true", help="delete raw session files on the way")
    parser.add_argument("--full", action="store_true", help="also a session file of full size (1.1 GB more)")
    parser.add_argument(
        "--alone", action="store_true", help=argparse.SUPPRESS
    )  # the process that is measured
    given = parser.parse_args()
    cache = given.cache or given.root / "cache"
    if given.alone:
        print(json.dumps(prepare(given.root, cache, given.prune)))
        return
    voxels = load_voxels(Dataset.open(given.root).layout, SUBJECT, GRID, roi="nsdgeneral", order="xyz_c")
    sessions = Dataset.open(given.root).expectations.of(SUBJECT).sessions
    columns = np.sort(np.random.default_rng(0).choice(len(voxels), min(_SAMPLE, len(voxels)), replace=False))
    expected = reference(given.root, columns, voxels.coordinates, sessions)
    first = core_path(given.root, SUBJECT, 1)
    plain = seconds_of(lambda: read_plainly(first), first, cold=False)
    tell_reading("sparse file", first, voxels)
    if given.full:
        with tempfile.TemporaryDirectory(dir=given.root) as folder:
            for ratio in session_ratios(Path(folder), sparse=False):
                print(ratio)
            tell_reading("full file", core_path(Path(folder), SUBJECT, 1), voxels)
    found = prepare_apart(given.root, cache, prune=given.prune)
    print(
        f"{found['sessions']:.0f} sessions: {found['median_s']:.2f} s each ({found['median_s'] / plain:.1f} times plain "
        f"reading of the sparse file), {found['total_s']:.0f} s together; standardized trials {found['cache_s']:.0f} s"
    )
    print(
        f"peak memory: {found['mb_imports']:.0f} MB after imports, {found['mb_store']:.0f} MB for the store, "
        f"{found['mb_cache']:.0f} MB in all"
    )
    compare(given.root, cache, columns, expected)


if __name__ == "__main__":
    main()
