"""How fast files arrive, against one plain connection, from servers on this machine that behave like distant ones.

1. One file in ranges over several connections, when each connection is limited: ``urllib`` reads it in one stream.
2. Many small files, when each answer takes a while: ``urllib`` fetches one after the other.
3. A server without limits: what the checks, the journal and the flushes to disk cost.

All files are hashed on both sides. Only ratios mean something: ``python benchmarks/transfer_speed.py``, about 15 seconds.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from local_servers import S3Server
from ratio import Ratio

from nsdbench.transfer import Client, Job, fetch_all

MIB, WORKERS = 2**20, 4


def plain(server: S3Server, keys: list[str], folder: Path) -> None:
    """Fetch one file after the other over one connection each, and hash it."""
    for key in keys:
        with urllib.request.urlopen(server.address(key)) as response, (folder / key).open("wb") as file:
            while block := response.read(MIB):
                file.write(block)
        with (folder / key).open("rb") as file:
            hashlib.file_digest(file, "sha256")


def ours(workers: int) -> Callable[[S3Server, list[str], Path], None]:
    """Return a function that fetches with so many connections."""

    def run(server: S3Server, keys: list[str], folder: Path) -> None:
        with Client() as client:
            failed = fetch_all(
                client, [Job(server.address(key), folder / key) for key in keys], workers=workers
            )
        assert not failed, failed

    return run


def seconds(run: Callable[[S3Server, list[str], Path], None], server: S3Server, keys: list[str]) -> float:
    """Return how long ``run`` takes to bring the files."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run(server, keys, Path(folder))
        return time.perf_counter() - start


def compare(title: str, contents: list[bytes], **limits: float) -> Ratio:
    """Return how many times as fast files arrive over four connections, with the throughput of both ways."""
    files = {f"{i}.bin": content for i, content in enumerate(contents)}
    with S3Server(files, **limits) as server:  # type: ignore[arg-type]
        once, several = (seconds(run, server, list(files)) for run in (plain, ours(WORKERS)))
    megabytes = sum(map(len, contents)) / 1e6
    return Ratio(
        f"transfer, {title}",
        f"seconds of urllib, one file after the other, over ours with {WORKERS} connections",
        once / several,
        note=f"{len(contents)} files, {megabytes:.0f} MB; {megabytes / once:.1f} and {megabytes / several:.1f} MB/s",
    )


def ratios(*, short: bool) -> Iterator[Ratio]:
    """Run all comparisons; ``short`` takes small files and few of them."""
    generator = random.Random(0)
    large = [generator.randbytes((4 if short else 128) * MIB)]
    small = [generator.randbytes(100_000) for _ in range(6 if short else 60)]
    yield compare("20 MB/s per connection", large, bytes_per_s=20e6, latency_s=0.05)
    yield compare("50 ms per answer", small, latency_s=0.05)
    yield compare("no limit", large)


def main() -> None:
    """Print all comparisons."""
    for ratio in ratios(short=False):
        print(ratio)


if __name__ == "__main__":
    main()
