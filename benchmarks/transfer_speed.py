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
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from local_servers import S3Server

from nsdbench.transfer import Client, Job, fetch_all

MIB = 2**20


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


def compare(title: str, contents: list[bytes], workers: int, **limits: float) -> None:
    """Print throughput of both ways and their ratio."""
    files = {f"{i}.bin": content for i, content in enumerate(contents)}
    with S3Server(files, **limits) as server:  # type: ignore[arg-type]
        once, several = (seconds(run, server, list(files)) for run in (plain, ours(workers)))
    megabytes = sum(map(len, contents)) / 1e6
    print(
        f"{title}: urllib {megabytes / once:.1f} MB/s, {workers} connections {megabytes / several:.1f} MB/s, "
        f"{once / several:.2f} times as fast"
    )


def main() -> None:
    """Run all comparisons."""
    generator = random.Random(0)
    large, small = generator.randbytes(128 * MIB), [generator.randbytes(100_000) for _ in range(60)]
    compare("one file of 134 MB, 20 MB/s per connection", [large], 4, bytes_per_s=20e6, latency_s=0.05)
    compare("60 files of 100 kB, 50 ms per answer", small, 4, latency_s=0.05)
    compare("one file of 134 MB, no limit", [large], 4)


if __name__ == "__main__":
    main()
