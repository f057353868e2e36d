"""Files of which nothing is known beforehand, and servers that say little or contradict themselves."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_servers import S3Server

from nsdbench.errors import FetchError, NoRoom
from nsdbench.transfer import Client, Proof, fetch
from nsdbench.transfer.proof import Checksum


def test_ranges_of_an_unnamed_version_are_never_joined(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.put("plain.bin", content, etag=None)
    fetched = fetch(client, s3.address("plain.bin"), tmp_path / "a.bin")
    assert fetched.verified == "size"
    assert [asked.range for asked in s3.requests("plain.bin")] == ["bytes=0-0", None]


def test_a_file_replaced_on_its_way_is_one_of_its_versions(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.put("plain.bin", content, etag=None)
    s3.fail("plain.bin", "drop", "replaced")
    fetched = fetch(client, s3.address("plain.bin"), tmp_path / "a.bin")
    assert fetched.sha256 in s3.versions["plain.bin"]


def test_with_a_hash_ranges_are_joined_without_a_validator(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.put("plain.bin", content, etag=None)
    proof = Proof(sha256=hashlib.sha256(content).hexdigest())
    assert fetch(client, s3.address("plain.bin"), tmp_path / "a.bin", proof=proof).verified == "sha256"
    assert len(s3.requests("plain.bin")) > 10


@pytest.mark.parametrize("fault", [[], ["drop"]])
def test_without_a_length_half_a_file_cannot_pass_for_the_whole(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes, fault: list[str]
) -> None:
    s3.put("endless.bin", content, etag=None, length=False, ranges=False)
    if fault:
        s3.fail("endless.bin", *fault)
    with pytest.raises(FetchError, match="no stated length"):
        fetch(client, s3.address("endless.bin"), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_without_a_length_a_known_size_shows_the_end(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    s3.put("endless.bin", content, etag=None, length=False, ranges=False)
    remote = client.head(s3.address("endless.bin"))
    assert remote.size is None
    s3.fail("endless.bin", "drop", "drop", "drop")
    path = tmp_path / "a.bin"
    fetch(client, remote.url, path, proof=Proof(size=len(content)), remote=remote)
    assert path.read_bytes() == content


def test_a_server_that_has_stopped_knowing_ranges_sends_everything(
    s3: S3Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    remote = client.head(s3.address("a.bin"))
    s3.put("a.bin", content, ranges=False)
    fetch(client, remote.url, tmp_path / "a.bin", remote=remote)
    assert (tmp_path / "a.bin").read_bytes() == content


def test_an_upload_in_one_part_has_one_checksum_whatever_its_part_size() -> None:
    assert Checksum("0" * 32, parts=1).sizes(1000) == (1000,)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "wrong.bin").write_bytes(b"x")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
    folder.chmod(0o755)


def _close(folder: Path) -> None:
    if os.geteuid():
        folder.chmod(0o555)
        return
    here = str(folder)
    for command in (["mount", "--bind", here, here], ["mount", "-o", "remount,ro,bind", here]):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("the superuser writes everywhere, and nothing can be mounted here")


def test_a_right_file_in_a_read_only_folder_is_used(
    s3: S3Server, client: Client, read_only: Path, content: bytes
) -> None:
    (read_only / "a.bin").write_bytes(content)
    _close(read_only)
    assert fetch(client, s3.address("a.bin"), read_only / "a.bin").reused


def test_a_wrong_file_in_a_read_only_folder_is_an_error(
    s3: S3Server, client: Client, read_only: Path
) -> None:
    _close(read_only)
    with pytest.raises(NoRoom, match="cannot be written"):
        fetch(client, s3.address("a.bin"), read_only / "wrong.bin")
