"""One file: parallel ranges, what servers do wrong, and what is there afterwards."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest
from local_servers import HARMLESS, HubServer, LocalServer, S3Server

from nsdbench.errors import (
    CorruptedObject,
    FetchError,
    MissingObject,
    NsdbenchError,
    RefusedByServer,
    Unreachable,
    UsageError,
)
from nsdbench.transfer import Client, Job, Proof, fetch, fetch_all, files
from nsdbench.transfer.client import Interrupted

RANGE = 64 * 2**10


class Sums:
    """A meter that adds up."""

    def __init__(self) -> None:
        self.expected = self.arrived = 0

    def expect(self, n_bytes: int) -> None:
        self.expected += n_bytes

    def advance(self, n_bytes: int) -> None:
        self.arrived += n_bytes


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("connections", [1, 3, 50])
def test_ranges_side_by_side_give_the_same_file(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, connections: int
) -> None:
    fetched = fetch(client, s3.address("a.bin"), tmp_path / "deep" / "a.bin", connections=connections)
    assert (tmp_path / "deep" / "a.bin").read_bytes() == content
    assert (fetched.size, fetched.sha256, fetched.reused) == (len(content), sha256(content), False)
    assert names(tmp_path / "deep") == {"a.bin"}
    assert len(s3.requests("a.bin")) == 1 + 11  # the question, and one answer per range
    assert s3.served["a.bin"] == len(content) + 1


@pytest.mark.parametrize("size", [0, 1, RANGE - 1, RANGE, RANGE + 1, 3 * RANGE])
def test_every_size_arrives_whole(s3: S3Server, client: Client, tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    s3.put("x", content)
    assert fetch(client, s3.address("x"), tmp_path / "x").size == size
    assert (tmp_path / "x").read_bytes() == content


def test_names_with_spaces_and_letters_of_all_kinds_are_fine(
    s3: S3Server, client: Client, tmp_path: Path
) -> None:
    s3.put("ä b/ü#1.bin", b"content")
    assert fetch(client, s3.address("ä b/ü#1.bin"), tmp_path / "ü #1.bin").size == 7


# what servers do wrong


@pytest.mark.parametrize("kind", [k for k in HARMLESS if k != "stall"])
def test_after_a_fault_no_byte_that_arrived_is_asked_for_again(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, kind: str
) -> None:
    s3.fail("a.bin", kind)
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin", connections=2)
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.injected[kind] == 1
    lost = RANGE if kind == "reset" else 0  # what the kernel held when the connection was reset
    assert s3.served["a.bin"] <= len(content) + 1 + lost


def test_a_silent_server_is_left_and_asked_again(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.fail("a.bin", "stall")
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.served["a.bin"] == len(content) + 1


@pytest.mark.parametrize("kind", ["long", "wrong-range", "ignored-range", "truncated"])
def test_an_answer_to_another_question_is_not_taken(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, kind: str
) -> None:
    s3.fail("a.bin", kind, kind)
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin", proof=Proof(sha256=sha256(content)))
    assert (tmp_path / "a.bin").read_bytes() == content
    assert s3.injected[kind] == 2


def test_a_byte_that_is_wrong_once_is_noticed_and_the_file_fetched_once_more(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.fail("a.bin", "flip")
    fetched = fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (fetched.verified, fetched.sha256) == ("etag", sha256(content))
    assert s3.served["a.bin"] == 2 * len(content) + 1


def test_a_file_that_is_always_wrong_is_refused_and_nothing_stays(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.fail("a.bin", "flip", always=True)
    with pytest.raises(CorruptedObject, match=r"twice.*checksum") as error:
        fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert error.value.remedy
    assert names(tmp_path) == set()
    assert s3.served["a.bin"] == 2 * len(content) + 1


def test_a_file_that_changes_meanwhile_is_begun_anew(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.fail("a.bin", "slow", "slow", "slow", "replaced")
    fetched = fetch(client, s3.address("a.bin"), tmp_path / "a.bin", connections=1)
    assert s3.versions["a.bin"] == [sha256(content), fetched.sha256]
    assert sha256((tmp_path / "a.bin").read_bytes()) == fetched.sha256
    assert fetched.verified == "etag"


def test_a_file_that_changes_all_the_time_is_given_up(s3: S3Server, client: Client, tmp_path: Path) -> None:
    s3.fail("a.bin", *["slow", "replaced"] * 20)
    with pytest.raises(Unreachable, match="has changed"):
        fetch(client, s3.address("a.bin"), tmp_path / "a.bin", connections=1)
    assert not (tmp_path / "a.bin").exists()
    assert s3.injected["replaced"] == client.patience


@pytest.mark.parametrize(
    "how",
    [
        {"ranges": False},
        {"ranges": False, "length": False},
        {"ranges": False, "etag": None},
        {"ranges": False, "etag": 'W/"weak"'},
    ],
)
def test_servers_that_know_no_ranges_send_everything_at_once(
    client: Client, tmp_path: Path, content: bytes, how: dict[str, object]
) -> None:
    with S3Server() as s3:
        s3.put("a.bin", content, **how)
        s3.fail("a.bin", "flip" if not how.get("length", True) else "drop", on="content")
        proof = Proof(sha256=sha256(content))
        assert fetch(client, s3.address("a.bin"), tmp_path / "a.bin", proof=proof).verified == "sha256"
    assert (tmp_path / "a.bin").read_bytes() == content


def test_what_a_server_compresses_on_its_way_is_unpacked(client: Client, tmp_path: Path) -> None:
    content = b"nsd" * 100_000
    with LocalServer() as server:
        server.put("a.txt", content, gzip=True)
        fetched = fetch(client, server.address("a.txt"), tmp_path / "a.txt", proof=Proof(size=len(content)))
    assert (tmp_path / "a.txt").read_bytes() == content
    assert fetched.verified == "size"


def test_what_was_stored_compressed_stays_compressed(client: Client, tmp_path: Path) -> None:
    stored = gzip.compress(b"nsd" * 100_000)
    with S3Server() as s3:
        s3.put("mask.nii.gz", stored, headers={"Content-Encoding": "gzip"})
        fetched = fetch(client, s3.address("mask.nii.gz"), tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").read_bytes() == stored
    assert fetched.verified == "etag"


def test_a_stream_longer_than_the_file_is_cut(client: Client, tmp_path: Path, content: bytes) -> None:
    with S3Server() as s3:
        s3.put("a.bin", content, ranges=False, length=False)
        with pytest.raises(Unreachable, match="more than the 1000 bytes"):
            fetch(client, s3.address("a.bin"), tmp_path / "a.bin", proof=Proof(size=1000))
    assert not (tmp_path / "a.bin").exists()


def test_a_wrong_size_is_refused_before_any_content(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(CorruptedObject, match=f"has {len(content)} bytes, the file that is wanted has 5"):
        fetch(client, s3.address("a.bin"), tmp_path / "a.bin", proof=Proof(size=5))
    assert s3.served["a.bin"] == 1
    assert not tmp_path.exists() or names(tmp_path) == set()


# errors


def test_a_file_that_is_not_there_is_named(s3: S3Server, client: Client, tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match=r"there is no http.*gone\.bin"):
        fetch(client, s3.address("gone.bin"), tmp_path / "a.bin")
    assert names(tmp_path) == set()
    assert len(s3.requests("gone.bin")) == 1


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refusal_is_named_and_not_repeated(
    s3: S3Server, client: Client, tmp_path: Path, status: int
) -> None:
    s3.put("secret.bin", b"x", status=status)
    with pytest.raises(RefusedByServer, match=str(status)):
        fetch(client, s3.address("secret.bin"), tmp_path / "a.bin")
    assert len(s3.requests("secret.bin")) == 1


def test_nobody_there_is_unreachable(client: Client, tmp_path: Path) -> None:
    with S3Server() as gone:
        url = gone.address("a.bin")
    with pytest.raises(Unreachable, match="no connection"):
        fetch(client, url, tmp_path / "a.bin")


def test_a_proxy_that_is_not_there_is_blamed_instead_of_the_server(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        Unreachable, match=r"no connection to the proxy that the environment names \([^()]+\)"
    ):
        fetch(client, "http://bucket.invalid/a.bin", tmp_path / "a.bin")


@pytest.mark.parametrize("url", ["nsddata/a.bin", "file:///etc/passwd", "s3://bucket/key", "http://"])
def test_other_addresses_are_refused(client: Client, tmp_path: Path, url: str) -> None:
    with pytest.raises((UsageError, FetchError), match="is not a web address"):
        fetch(client, url, tmp_path / "a.bin")


def test_a_server_that_sends_nothing_new_is_given_up_after_patience(
    s3: S3Server, client: Client, tmp_path: Path
) -> None:
    s3.fail("a.bin", "500", always=True)
    with pytest.raises(Unreachable, match="HTTP 500"):
        fetch(client, s3.address("a.bin"), tmp_path / "a.bin", connections=1)
    assert s3.injected["500"] == client.patience


def test_a_server_that_sends_a_little_each_time_is_not_given_up(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.fail("a.bin", *["drop"] * 12)  # each halves what is missing of one range
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin", connections=1)
    assert s3.injected["drop"] == 12 > client.patience
    assert s3.served["a.bin"] == len(content) + 1


def test_the_pause_that_a_server_asks_for_is_made(client: Client, content: bytes) -> None:
    class Clock:
        waited: float | None = None

        def wait(self, seconds: float) -> None:
            self.waited = seconds

    clock = Clock()
    with S3Server({"a.bin": content}, retry_after=7) as s3:
        s3.fail("a.bin", "503")
        with (
            pytest.raises(Interrupted, match="503") as error,
            client.get(s3.address("a.bin"), {"Range": "bytes=0-99"}),
        ):
            pass
    client.rest(1, error.value, "url", clock)  # type: ignore[arg-type]
    assert clock.waited == 7.0


# what is there already


def test_a_right_file_is_kept(s3: S3Server, client: Client, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    before = (tmp_path / "a.bin").stat()
    fetched = fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (fetched.reused, fetched.verified, fetched.sha256) == (True, "etag", sha256(content))
    assert (tmp_path / "a.bin").stat() == before
    assert s3.served["a.bin"] == 1


@pytest.mark.parametrize("wrong", ["shorter", "other bytes", "empty"])
def test_a_wrong_file_is_replaced(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, wrong: str
) -> None:
    there = {"shorter": content[:-1], "other bytes": b"x" + content[1:], "empty": b""}[wrong]
    (tmp_path / "a.bin").write_bytes(there)
    assert not fetch(client, s3.address("a.bin"), tmp_path / "a.bin").reused
    assert (tmp_path / "a.bin").read_bytes() == content


def test_a_wrong_file_stays_while_its_replacement_cannot_be_had(
    s3: S3Server, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"older")
    s3.fail("a.bin", "flip", always=True)
    with pytest.raises(CorruptedObject):
        fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"older"


def test_nothing_has_the_name_of_the_file_before_it_is_checked(
    s3: S3Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    judge = files.judge

    def watching(path: Path, *rest: object) -> object:
        seen.append((path.name, names(tmp_path)))
        return judge(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "judge", watching)
    s3.fail("a.bin", "flip")
    fetch(client, s3.address("a.bin"), tmp_path / "a.bin")
    assert [name for name, _ in seen] == [".a.bin.part"] * 2
    assert all("a.bin" not in there for _, there in seen)


# progress


@pytest.mark.parametrize("faults", [[], ["drop", "500"], ["flip"], ["slow", "replaced"], ["long"]])
@pytest.mark.parametrize("ranges", [True, False])
def test_the_meter_ends_at_the_sizes(
    client: Client, tmp_path: Path, content: bytes, faults: list[str], ranges: bool
) -> None:
    meter = Sums()
    with S3Server() as s3:
        s3.put("a.bin", content, ranges=ranges)
        s3.put("b.bin", content[:1000], length=False, ranges=False)
        (tmp_path / "c.bin").write_bytes(content[:500])
        s3.put("c.bin", content[:500])
        if faults:
            s3.fail("a.bin", *faults)
        jobs = [Job(s3.address(name), tmp_path / name) for name in ("a.bin", "b.bin", "c.bin")]
        assert fetch_all(client, jobs, meter=meter) == []
    assert meter.expected == meter.arrived == len(content) + 1500


# many files, and hosts


def test_a_file_that_fails_does_not_hold_up_the_others(s3: S3Server, client: Client, tmp_path: Path) -> None:
    s3.put("wrong.bin", b"12345")
    s3.put("secret.bin", b"x", status=403)
    for n in range(10):
        s3.put(f"{n}.bin", bytes([n]) * 1000 * n)
    wanted = ["gone.bin", "wrong.bin", "secret.bin", *(f"{n}.bin" for n in range(10))]
    jobs = [
        Job(s3.address(name), tmp_path / name, Proof(sha256="0" * 64 if name == "wrong.bin" else None))
        for name in wanted
    ]
    done: list[str] = []
    failed = fetch_all(client, jobs, done=lambda job, fetched: done.append(fetched.path.name))
    assert [(job.path.name, error.kind) for job, error in failed] == [
        ("gone.bin", "MissingObject"),
        ("wrong.bin", "CorruptedObject"),
        ("secret.bin", "RefusedByServer"),
    ]
    assert names(tmp_path) == set(done) == {f"{n}.bin" for n in range(10)}


def test_an_error_after_a_file_has_arrived_is_that_files_error(
    s3: S3Server, client: Client, tmp_path: Path
) -> None:
    def done(job: Job, fetched: object) -> None:
        raise NsdbenchError("the record cannot be written")

    ((_, error),) = fetch_all(client, [Job(s3.address("a.bin"), tmp_path / "a.bin")], done=done)
    assert "the record" in error.message


def test_few_connections_serve_many_files(s3: S3Server, client: Client, tmp_path: Path) -> None:
    for n in range(60):
        s3.put(f"{n}.bin", b"x" * n)
    fetch_all(client, [Job(s3.address(f"{n}.bin"), tmp_path / f"{n}.bin") for n in range(60)], workers=3)
    assert len({asked.peer for asked in s3.log}) <= 6


def test_the_token_goes_to_the_hub_and_not_to_the_host_it_sends_us_to(tmp_path: Path, content: bytes) -> None:
    with (
        HubServer({"org/name": {"w.bin": content, "config.json": b"{}"}}) as hub,
        Client(headers={"Authorization": "Bearer secret"}) as client,
    ):
        hub.gated["org/name"] = {"secret"}
        proof = Proof(sha256=sha256(content))
        fetched = fetch(client, hub.address("org/name", "w.bin"), tmp_path / "w.bin", proof=proof)
        assert fetch(client, hub.address("org/name", "config.json"), tmp_path / "config.json").size == 2
        assert fetched.verified == "sha256"
        assert hub.saw_authorization
        assert hub.cdn.requests("org/name/w.bin") and not hub.cdn.saw_authorization


def test_a_gated_repository_is_a_refusal(client: Client, tmp_path: Path, content: bytes) -> None:
    with HubServer({"org/name": {"w.bin": content}}) as hub:
        hub.gated["org/name"] = {"secret"}
        with pytest.raises(RefusedByServer):
            fetch(client, hub.address("org/name", "w.bin"), tmp_path / "w.bin")
