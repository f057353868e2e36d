"""Many processes that write one leaderboard at once, and readers that look at it all the while.

``python crowd.py SOURCE BOARD WRITERS ROUNDS``: every writer appends all leaderboard files of SOURCE to BOARD, ROUNDS times
and each in an order of its own. It prints one JSON object: how often the board was read, how many files that saw at first
and at last, and every fault.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from nsdbench import leaderboard
from nsdbench.errors import NsdbenchError

READERS = 2


def main() -> None:
    source, board = Path(sys.argv[1]), Path(sys.argv[2])
    n_writers, rounds = int(sys.argv[3]), int(sys.argv[4])
    ready, go = os.pipe()
    stop, stopped = os.pipe()
    writers = [_fork(_write, ready, source, board, number, rounds) for number in range(n_writers)]
    logs = [board.with_name(f"reader{number}.json") for number in range(READERS)]
    readers = [_fork(_read, stop, source, board, log) for log in logs]
    os.write(go, bytes(n_writers))
    failed = [status for status in map(_wait, writers) if status]
    os.write(stopped, bytes(READERS))
    failed += [status for status in map(_wait, readers) if status]
    seen = [json.loads(log.read_text()) for log in logs]
    print(json.dumps({"failed": failed, **{name: [one[name] for one in seen] for name in seen[0]}}))


def _fork(work, *arguments) -> int:  # type: ignore[no-untyped-def]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*arguments)
            code = 0
        finally:
            os._exit(code)
    return pid


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _write(ready: int, source: Path, board: Path, number: int, rounds: int) -> None:
    generator = random.Random(number)
    files = leaderboard.parquet_files(source)
    os.read(ready, 1)  # all begin together
    for _ in range(rounds):
        generator.shuffle(files)
        for file in files:
            leaderboard.append(board, leaderboard.read(file))


def _read(stop: int, source: Path, board: Path, log: Path) -> None:
    whole = {file.name: leaderboard.read(file) for file in leaderboard.parquet_files(source)}
    faults, counts = [], []
    os.set_blocking(stop, False)
    while True:
        last = _said(stop)  # and once more, when all writers have ended
        try:
            files = leaderboard.parquet_files(board)
            faults += [str(file) for file in files if not leaderboard.read(file).equals(whole[file.name])]
            if len(files) < (counts[-1] if counts else 0):
                faults.append(f"{counts[-1]} files became {len(files)}")
            if files:
                counts.append(len(files))
        except (NsdbenchError, OSError) as error:
            faults.append(str(error))
        if last:
            break
    log.write_text(json.dumps({"reads": len(counts), "files": counts[-1], "faults": faults}))


def _said(stop: int) -> bool:
    try:
        return bool(os.read(stop, 1))
    except BlockingIOError:
        return False


if __name__ == "__main__":
    main()
