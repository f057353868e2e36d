"""Many files from a server that keeps failing, by a process that keeps being killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local_servers import HARMLESS, RANDOM, S3Server

RANGE = 64 * 2**10
WORKERS = 4
PATIENCE_S = 60.0  # for a process that should have done something by then; nothing is timed
CHILD = f"""
import json, sys
from pathlib import Path
from nsdbench.transfer import Client, Job, Proof, fetch_all, files
files.RANGE = {RANGE}
jobs = [
    Job(url, Path(path), Proof(size, sha256, tuple(prefixes), md5))
    for url, path, (size, sha256, prefixes, md5) in json.load(sys.stdin)
]
with Client(pause_s=0.002, timeout_s=0.4, patience=40) as client:
    failed = fetch_all(client, jobs, workers={WORKERS})
for job, error in failed:
    print(job.path.name, error.kind, error, file=sys.stderr)
sys.exit(len(failed) > 0)
"""
Spans = list[tuple[int, int]]
Known = tuple[int | None, str | None, tuple[str, ...], str | None]  # the fields of a proof
NOTHING: Known = (None, None, (), None)


@dataclass
class Campaign:
    """A server, what it serves, and where that should arrive."""

    server: S3Server
    contents: dict[str, bytes]
    folder: Path
    proofs: dict[str, Known] = field(default_factory=dict)
    kills: int = 0
    seen: dict[str, bool] = field(default_factory=dict)  # was the file right when its name appeared?
    forbidden: list[tuple[int, dict[str, Spans]]] = field(default_factory=list)  # journals, from a request on

    def start(self) -> subprocess.Popen[bytes]:
        jobs = [
            (self.server.address(key), str(self.folder / key), self.proofs.get(key, NOTHING))
            for key in self.contents
        ]
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE)
        assert child.stdin is not None
        child.stdin.write(json.dumps(jobs).encode())
        child.stdin.close()
        return child

    def kill_after(self, n_bytes: int) -> bool:
        """Run the process until so many more bytes were served, then kill it; False if it ended before."""
        child, goal = self.start(), self.server.served.total() + n_bytes
        give_up = time.monotonic() + PATIENCE_S
        while child.poll() is None and self.server.served.total() < goal:
            assert time.monotonic() < give_up, "the process brought nothing"
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        self.kills += 1
        return child.returncode != 0

    def finish(self) -> None:
        """Run the process again and again, as its errors say, until it has everything."""
        for _ in range(6):
            child = self.start()
            if child.wait() == 0:
                return
        pytest.fail("the files could not be had")

    def journals(self) -> dict[str, Spans]:
        """Return what the journals say has arrived; a file with its name has arrived as a whole."""
        found: dict[str, Spans] = {}
        for key, content in self.contents.items():
            journal = self.folder / f".{key}.part.json"
            if (self.folder / key).exists():
                found[key] = [(0, len(content))]
            elif journal.exists():
                found[key] = [(a, b) for a, b in json.loads(journal.read_text())["spans"]]
        return found

    def require_whole_names(self) -> None:
        """Check that every file that has its name is the right one."""
        for key, content in self.contents.items():
            path = self.folder / key
            assert not path.exists() or path.read_bytes() == content, key

    def require_right_parts(self) -> None:
        """Check that what a journal counts is on the disk."""
        for key, spans in self.journals().items():
            path = self.folder / key
            part = (path if path.exists() else self.folder / f".{key}.part").read_bytes()
            assert all(part[a:b] == self.contents[key][a:b] for a, b in spans), key

    def watch(self, ended: threading.Event) -> None:
        """Read whatever appears under the name of a file, as soon as it appears; whole names never change."""
        while not ended.wait(0.01):
            for key in self.contents.keys() - self.seen.keys():
                with contextlib.suppress(FileNotFoundError):
                    self.seen[key] = (self.folder / key).read_bytes() == self.contents[key]

    def require_nothing_twice(self) -> None:
        """Check that no request after a kill asked for a byte that a journal had at the time of the kill."""
        log = list(self.server.log)
        for first, journals in self.forbidden:
            for asked in log[first:]:
                if asked.range and asked.range != "bytes=0-0":
                    start, stop = map(int, asked.range.removeprefix("bytes=").split("-"))
                    overlaps = [s for s in journals.get(asked.key, []) if s[0] <= stop and start < s[1]]
                    assert not overlaps, (asked.key, asked.range, overlaps)


def _contents(n_files: int, seed: int) -> dict[str, bytes]:
    generator = random.Random(seed)
    sizes = [0, 1, RANGE - 1, RANGE, RANGE + 1, *(generator.randrange(2**20) for _ in range(n_files - 5))]
    return {f"{i:02d}.bin": generator.randbytes(size) for i, size in enumerate(sizes)}


@pytest.fixture
def campaign(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """A campaign over so many files."""
    contents = _contents(request.param, seed=request.param)
    with S3Server(stall_s=3.0) as server:
        for i, (key, content) in enumerate(contents.items()):
            server.put(key, content, part_size=5 * 2**16 if i % 2 and content else None)
        campaign, ended = Campaign(server, contents, tmp_path / "files"), threading.Event()
        watcher = threading.Thread(target=campaign.watch, args=(ended,), daemon=True)
        watcher.start()
        yield campaign
        ended.set()
        watcher.join()
    assert campaign.seen and all(campaign.seen.values())


def _proof(i: int, content: bytes) -> Known:
    sha256, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    ways: list[Known] = [
        (len(content), sha256, (), None),
        (None, None, ("00000000", sha256[:8]), None),
        (None, None, (), md5),
    ]
    return ways[i % 3]


def _interrupted_faults(campaign: Campaign, n_faults: int, n_kills: int) -> None:
    """Faults that lose no byte, and kills: nothing that was recorded is asked for again."""
    campaign.server.fail_at_random(0.4, kinds=HARMLESS, seed=1)
    step = sum(map(len, campaign.contents.values())) // (n_kills + 2)
    while campaign.kills < n_kills and campaign.kill_after(step):
        campaign.require_whole_names()
        campaign.require_right_parts()
        campaign.forbidden.append((len(campaign.server.log), campaign.journals()))
    campaign.finish()
    assert campaign.kills >= n_kills - 1
    assert campaign.server.injected.total() >= n_faults
    assert set(campaign.server.injected) == set(HARMLESS)
    campaign.require_nothing_twice()
    resets = campaign.server.injected["reset"]  # throws away what the client has not read yet
    lost = RANGE * (WORKERS * campaign.kills + resets) + len(campaign.server.log)
    assert campaign.server.served.total() <= sum(map(len, campaign.contents.values())) + lost


def _damaging_faults(campaign: Campaign, n_faults: int, n_kills: int) -> None:
    """Every kind of fault, and kills: in the end everything is whole, and nothing else ever had a name."""
    campaign.proofs = {k: _proof(i, content) for i, (k, content) in enumerate(campaign.contents.items())}
    campaign.server.fail_at_random(0.4, kinds=RANDOM, seed=2, most=2 * n_faults)
    step = sum(map(len, campaign.contents.values())) // (n_kills + 2)
    while campaign.kills < n_kills and campaign.kill_after(step):
        campaign.require_whole_names()
    campaign.finish()
    assert campaign.server.injected.total() >= n_faults
    assert set(campaign.server.injected) == set(RANDOM)


def _require_everything_and_nothing_else(campaign: Campaign) -> None:
    assert {p.name: p.read_bytes() for p in campaign.folder.iterdir()} == campaign.contents


@pytest.mark.parametrize("campaign", [24], indirect=True)
def test_a_hundred_interruptions_and_kills_lose_nothing_and_repeat_nothing(campaign: Campaign) -> None:
    _interrupted_faults(campaign, n_faults=100, n_kills=3)
    _require_everything_and_nothing_else(campaign)


@pytest.mark.parametrize("campaign", [20], indirect=True)
def test_a_hundred_faults_of_every_kind_and_kills_let_nothing_wrong_through(campaign: Campaign) -> None:
    _damaging_faults(campaign, n_faults=100, n_kills=2)
    _require_everything_and_nothing_else(campaign)


@pytest.mark.slow
@pytest.mark.parametrize("campaign", [220], indirect=True)
def test_a_thousand_interruptions_and_kills_lose_nothing_and_repeat_nothing(campaign: Campaign) -> None:
    _interrupted_faults(campaign, n_faults=1000, n_kills=12)
    _require_everything_and_nothing_else(campaign)


@pytest.mark.slow
@pytest.mark.parametrize("campaign", [180], indirect=True)
def test_a_thousand_faults_of_every_kind_and_kills_let_nothing_wrong_through(campaign: Campaign) -> None:
    _damaging_faults(campaign, n_faults=1000, n_kills=8)
    _require_everything_and_nothing_else(campaign)
