"""A process that downloads, to be killed: ``python fetch_child.py ORDER`` with an order in JSON; see :func:`order`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def order(jobs: Sequence[tuple[str, Path, str | None]], **how: Any) -> str:
    """Return the order for jobs of (address, path, SHA-256 or None).

    ``how``: range (bytes asked for at once), workers, timeout_s, one (call ``fetch`` instead of ``fetch_all``).
    """
    return json.dumps({"jobs": [[url, str(path), sha256] for url, path, sha256 in jobs], **how})


def start(order: str) -> subprocess.Popen[str]:
    """Start the process; it prints the failures as JSON and exits with 1 if there are some."""
    return subprocess.Popen([sys.executable, __file__, order], stdout=subprocess.PIPE, text=True)


def main() -> int:
    from nsdbench.transfer import Client, Job, Proof, fetch, fetch_all, files

    given = json.loads(sys.argv[1])
    files.RANGE = given.get("range", 64 * 2**10)
    workers, timeout_s = given.get("workers", 4), given.get("timeout_s", 5.0)
    jobs = [Job(url, Path(path), Proof(sha256=sha256)) for url, path, sha256 in given["jobs"]]
    with Client(timeout_s=timeout_s, pause_s=0.01) as client:
        if given.get("one"):
            fetch(client, jobs[0].url, jobs[0].path, proof=jobs[0].proof, connections=workers)
            return 0
        failed = fetch_all(client, jobs, workers=workers)
    print(json.dumps([[job.path.name, error.kind, str(error)] for job, error in failed]))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
