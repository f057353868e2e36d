"""A worker that computes nothing: it notes when it began and ended and which GPU it was given."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main() -> None:
    folder, task = Path(sys.argv[1]), sys.argv[2]
    notes = folder / "notes"
    notes.mkdir(exist_ok=True)
    began, gpu = time.monotonic(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    (notes / f"{task}.began").write_text(f"{os.getpid()}")
    print("at work", file=sys.stderr, flush=True)
    stop = folder / "hold"
    while stop.exists() or time.monotonic() - began < 0.2:
        time.sleep(0.01)
    if (folder / f"fail-{task}").exists():
        sys.exit(1)
    (notes / task).write_text(f"{began} {time.monotonic()} {gpu} {os.environ.get('OMP_NUM_THREADS')}")


if __name__ == "__main__":
    main()
