"""What a killed or stopped process leaves, and how the next one goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fetch_child
import pytest
from local_servers import S3Server

from nsdbench.errors import FetchError, NoRoom
from nsdbench.transfer import Client, Fetched, Proof, fetch, files, journal, require_room, room

RANGE = 64 * 2**10
LONG_S = 60.0


def until(condition: Callable[[], object]) -> None:
    """Wait for something that another process or thread does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def spans(path: Path) -> list[list[int]]:
    record = path.with_name(f".{path.name}.part.json")
    return json.loads(record.read_text())["spans"] if record.exists() else []


def half_done(path: Path, content: bytes, etag: str | None, done: list[tuple[int, int]]) -> None:
    """Leave what an earlier process would have left."""
    part = bytearray(len(content))
    for start, stop in done:
        part[start:stop] = content[start:stop]
    path.with_name(f".{path.name}.part").write_bytes(part)
    document = {"format": "part/1", "url": "http://x", "size": len(content), "etag": etag, "spans": done}
    path.with_name(f".{path.name}.part.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "done", [[(0, 1000)], [(5000, 9000), (100, 200)], [(0, RANGE), (2 * RANGE, 5 * RANGE)], [(0, 11 * RANGE)]]
)
def test_only_the_gaps_are_downloaded(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, done: list[tuple[int, int]]
) -> None:
    done = [(start, min(stop, len(content))) for start, stop in done]
    half_done(tmp_path / "a.bin", content, s3.etag("a.bin"), done)
    assert fetch(client, s3.address("a.bin"), tmp_path / "a.bin").verified == "etag"
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.served["a.bin"] - 1 == len(content) - sum(stop - start for start, stop in done)
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin"}


def test_the_part_of_another_version_is_not_used(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    half_done(tmp_path / "a.bin", bytes(len(content)), "0" * 32, [(0, 5 * RANGE)])
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.served["a.bin"] - 1 == len(content)


def test_with_a_hash_parts_are_used_whatever_the_validator_says(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    half_done(tmp_path / "a.bin", content, None, [(0, 5 * RANGE)])
    proof = Proof(sha256=hashlib.sha256(content).hexdigest())
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin", proof=proof)
    assert s3.served["a.bin"] - 1 == len(content) - 5 * RANGE


def test_a_part_that_turns_out_wrong_is_fetched_again_whole(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    half_done(tmp_path / "a.bin", bytes(len(content)), s3.etag("a.bin"), [(0, 5 * RANGE)])
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.served["a.bin"] - 1 == 2 * len(content) - 5 * RANGE


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"spans": 3}', '{"format":"part/1","size":SIZE,"etag":"ETAG","spans":[[-5,9]]}']
    + [
        '{"format":"part/1","size":SIZE,"etag":"ETAG","spans":' + rest
        for rest in ('[["a",1]]}', "[[0,1e9]]}", "[[0,Infinity]]}")
    ],
)
def test_a_damaged_record_only_costs_time(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, text: str
) -> None:
    half_done(tmp_path / "a.bin", bytes(len(content)), s3.etag("a.bin"), [(0, 1000)])
    text = text.replace("SIZE", str(len(content))).replace("ETAG", str(s3.etag("a.bin")))
    (tmp_path / ".a.bin.part.json").write_text(text)
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.served["a.bin"] - 1 == len(content)


def test_the_record_goes_before_the_bytes_that_it_counts(
    client: Client, tmp_path: Path, content: bytes
) -> None:
    """A process killed after it began anew must not leave the old record beside new bytes."""
    with S3Server({"a.bin": content}) as s3:
        half_done(tmp_path / "a.bin", content, "another version", [(0, 5 * RANGE)])
        s3.fail("a.bin", "500", always=True)
        with pytest.raises(FetchError):
            fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert spans(tmp_path / "a.bin") == []


def test_remains_beside_a_right_file_are_cleared_away(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    half_done(tmp_path / "a.bin", content, s3.etag("a.bin"), [(0, 5)])
    (tmp_path / "a.bin").write_bytes(content)
    assert fetch(client, s3.address("a.bin"), tmp_path / "a.bin").reused
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin"}


# processes


@pytest.fixture
def slow(content: bytes) -> Iterator[S3Server]:
    """Each range takes about an eighth of a second."""
    with S3Server({"a.bin": content}, bytes_per_s=8 * RANGE) as server:
        yield server


@pytest.fixture
def started() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    processes = []

    def start(order: str) -> subprocess.Popen[str]:
        processes.append(fetch_child.start(order))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("one", [True, False])
def test_a_killed_process_costs_only_what_was_on_its_way(
    slow: S3Server, client: Client, tmp_path: Path, content: bytes, started: Callable[[str], subprocess.Popen[str]],
    one: bool,
) -> None:  # fmt: skip
    path = tmp_path / "a.bin"
    child = started(fetch_child.order([(slow.address("a.bin"), path, None)], workers=2, one=one))
    until(lambda: sum(stop - start for start, stop in spans(path)) >= 3 * RANGE)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = sum(stop - start for start, stop in spans(path))
    before, slow.bytes_per_s = slow.served["a.bin"], None
    assert 3 * RANGE <= kept < len(content)
    assert not path.exists()
    until(lambda: all(asked.done for asked in slow.log))
    before = slow.served["a.bin"]
    assert fetch(client, slow.address("a.bin"), path).verified == "etag"
    assert path.read_bytes() == content
    assert slow.served["a.bin"] - before == len(content) - kept + 1


@pytest.mark.parametrize("one", [True, False])
def test_ctrl_c_does_not_wait_for_a_silent_server_and_keeps_the_parts(
    content: bytes, tmp_path: Path, started: Callable[[str], subprocess.Popen[str]], one: bool
) -> None:
    path = tmp_path / "a.bin"
    with S3Server({"a.bin": content}, stall_s=LONG_S) as s3:
        s3.fail("a.bin", "slow", "slow", "slow", *["stall"] * 20)
        order = fetch_child.order([(s3.address("a.bin"), path, None)], workers=2, timeout_s=LONG_S, one=one)
        child = started(order)
        until(lambda: s3.injected["stall"] == 2)
        until(lambda: sum(stop - start for start, stop in spans(path)) >= 3 * RANGE)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=LONG_S / 4) not in (0, 1)
    assert not path.exists()
    # Three whole ranges; what a stalled answer had sent before it fell silent may be kept too.
    assert 3 * RANGE <= sum(stop - start for start, stop in spans(path)) < len(content)


def test_ctrl_c_keeps_what_has_arrived_of_a_range(
    content: bytes, tmp_path: Path, started: Callable[[str], subprocess.Popen[str]]
) -> None:
    path = tmp_path / "a.bin"
    with S3Server({"a.bin": content}, bytes_per_s=2 * RANGE) as s3:
        order = fetch_child.order([(s3.address("a.bin"), path, None)], workers=1, range=10**9)
        child = started(order)
        until(lambda: s3.served["a.bin"] > 2 * RANGE)
        assert spans(path) == []
        child.send_signal(signal.SIGINT)
        child.wait()
    assert spans(path)[0][1] >= RANGE


def test_two_processes_that_want_the_same_file_download_it_once(
    slow: S3Server, tmp_path: Path, content: bytes, started: Callable[[str], subprocess.Popen[str]]
) -> None:
    path = tmp_path / "a.bin"
    order = fetch_child.order([(slow.address("a.bin"), path, None)])
    both = [started(order), started(order)]
    assert [child.wait() for child in both] == [0, 0]
    assert path.read_bytes() == content
    assert slow.served["a.bin"] == len(content) + 2  # a question each
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin"}


def test_two_threads_that_want_the_same_file_download_it_once(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    found: list[Fetched] = []

    def want() -> None:
        found.append(fetch(client, s3.address("a.bin"), tmp_path / "a.bin"))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched.reused for fetched in found) == [False, True, True, True]
    assert s3.served["a.bin"] == len(content) + 4


def test_a_thread_left_behind_writes_nothing_any_more(tmp_path: Path) -> None:
    """After Ctrl-C a thread may still hear from its server, when another transfer has the file."""
    remote = files.Remote("http://x", 100, "etag", ranges=True)
    part = journal.Part(tmp_path / "a.bin", remote, provable=False)
    part.write(b"12345", 0)
    part.close()
    for late in (lambda: part.write(b"xxxxx", 0), lambda: part.keep((0, 5))):
        with pytest.raises(FetchError, match="was stopped"):
            late()
    assert (tmp_path / ".a.bin.part").read_bytes() == b"12345"
    assert not (tmp_path / ".a.bin.part.json").exists()


# disks


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small file systems, where that is allowed."""
    made: list[Path] = []

    def mount(*options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("file systems cannot be mounted here")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_part_continues_when_there_is_room(
    s3: S3Server,
    client: Client,
    content: bytes,
    mounted: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = mounted("size=1m")
    (disk / "others").write_bytes(bytes(600_000))
    monkeypatch.setattr(files, "require_room", lambda folder, n_bytes: None)  # it fills up meanwhile
    with pytest.raises(NoRoom, match="is full") as error:
        fetch(client, s3.address("a.bin"), disk / "a.bin", connections=1)
    assert "continues" in error.value.remedy
    kept = sum(stop - start for start, stop in spans(disk / "a.bin"))
    assert kept >= 3 * RANGE
    assert not (disk / "a.bin").exists()
    (disk / "others").unlink()
    before = s3.served["a.bin"]
    fetch(client, s3.address("a.bin"), disk / "a.bin")
    assert (disk / "a.bin").read_bytes() == content
    assert s3.served["a.bin"] - before == len(content) - kept + 1


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_downloaded(
    s3: S3Server,
    client: Client,
    content: bytes,
    mounted: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = mounted("size=300k")
    monkeypatch.setattr(room, "SPARE", 0)
    with pytest.raises(NoRoom, match=r"has .* free, .* to spare are needed"):
        fetch(client, s3.address("a.bin"), disk / "a.bin")
    assert s3.served["a.bin"] == 1


def test_a_read_only_disk_is_named(s3: S3Server, client: Client, mounted: Callable[..., Path]) -> None:
    disk = mounted("size=1m", "ro")
    with pytest.raises(NoRoom, match="cannot be written"):
        fetch(client, s3.address("a.bin"), disk / "a.bin")
    with pytest.raises(NoRoom, match="cannot be written"):
        require_room(disk / "new" / "folder", 10)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "is full"), (errno.EDQUOT, "is full"), (errno.EIO, "cannot be")]
)
def test_a_failing_write_is_named_and_the_part_stays(
    s3: S3Server,
    client: Client,
    tmp_path: Path,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    words: str,
) -> None:
    pwrite, room_for = os.pwrite, 5 * RANGE

    def small(file: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > room_for:
            raise OSError(number, os.strerror(number))
        return pwrite(file, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", small)
        with pytest.raises(NoRoom, match=words):
            fetch(client, s3.address("a.bin"), tmp_path / "a.bin", connections=1)
    before = s3.served["a.bin"]
    assert spans(tmp_path / "a.bin") == [[0, 5 * RANGE]]
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert s3.served["a.bin"] - before == len(content) - 5 * RANGE + 1


def test_room_is_asked_of_the_folder_that_will_hold_the_new_one(tmp_path: Path) -> None:
    require_room(tmp_path / "new" / "folder", 1000)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(NoRoom, match="to spare are needed"):
        require_room(tmp_path / "new" / "folder", free + 2**40)


def test_a_folder_in_the_place_of_the_file_is_named(s3: S3Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(NoRoom, match=r"a\.bin.* cannot be"):
        fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
