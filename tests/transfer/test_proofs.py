"""By what a file is verified, and what is honestly not verified."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from local_servers import LocalServer, S3Server, Thing

from nsdbench.errors import CorruptedObject
from nsdbench.transfer import Client, Proof, fetch
from nsdbench.transfer.proof import PART_SIZES, Checksum, judge

MIB = 2**20
SMALL = b"nsd" * 1000
SHA256, MD5 = hashlib.sha256(SMALL).hexdigest(), hashlib.md5(SMALL).hexdigest()


@pytest.mark.parametrize(
    ("proof", "verified"),
    [
        (Proof(sha256=SHA256), "sha256"),
        (Proof(sha256_prefixes=("00000000", SHA256[:8])), "sha256"),
        (Proof(md5=MD5), "md5"),
        (Proof(size=len(SMALL)), "size"),
        (Proof(), "size"),
    ],
)
def test_a_hash_known_beforehand_verifies(
    client: Client, tmp_path: Path, proof: Proof, verified: str
) -> None:
    with LocalServer({"x": SMALL}) as server:
        assert fetch(client, server.address("x"), tmp_path / "x", proof=proof).verified == verified


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (Proof(sha256="0" * 64), "its sha256 is"),
        (Proof(sha256_prefixes=("00000000",)), r"not 00000000\.\.\."),
        (Proof(md5="0" * 32), "its md5 is"),
    ],
)
def test_another_hash_refuses(client: Client, tmp_path: Path, proof: Proof, words: str) -> None:
    with LocalServer({"x": SMALL}) as server, pytest.raises(CorruptedObject, match=words):
        fetch(client, server.address("x"), tmp_path / "x", proof=proof)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("how", "verified"),
    [
        ({}, "etag"),
        ({"part_size": 1_000_003}, "etag"),  # told
        ({"part_size": 5 * MIB, "tells_parts": False}, "etag"),  # guessed
        ({"part_size": 1_000_003, "tells_parts": False}, "size"),  # cannot be guessed
        ({"encryption": "AES256"}, "etag"),
        ({"encryption": "aws:kms", "etag": "0" * 32}, "size"),  # no checksum of the content
        ({"encryption": "aws:kms:dsse", "etag": f"{'0' * 32}-2"}, "size"),
        (
            {"headers": {"x-amz-server-side-encryption-customer-algorithm": "AES256"}, "etag": "0" * 32},
            "size",
        ),
        ({"etag": "some-other-validator"}, "size"),
        ({"etag": None}, "size"),
    ],
)
def test_the_servers_checksum_verifies_where_it_is_one(
    client: Client, tmp_path: Path, how: Mapping[str, object], verified: str
) -> None:
    content = random.Random(8).randbytes(6 * MIB)
    with S3Server({"x": Thing(content, **how)}) as s3:  # type: ignore[arg-type]
        assert fetch(client, s3.address("x"), tmp_path / "x").verified == verified


@pytest.mark.parametrize("part_size", [None, 1000])
def test_content_with_another_checksum_than_the_server_states_is_refused(
    client: Client, tmp_path: Path, part_size: int | None
) -> None:
    etag = Thing(b"others" * 500, part_size=part_size).s3_etag()
    with S3Server({"x": Thing(SMALL, etag=etag, part_size=part_size)}) as s3, pytest.raises(CorruptedObject):
        fetch(client, s3.address("x"), tmp_path / "x")
    assert not any(tmp_path.iterdir())


def test_a_validator_that_looks_like_a_checksum_proves_nothing_on_other_servers(
    client: Client, tmp_path: Path
) -> None:
    with LocalServer({"x": Thing(SMALL, etag="0" * 32)}) as server:
        assert fetch(client, server.address("x"), tmp_path / "x").verified == "size"


@pytest.mark.parametrize("n_bytes", [1, 999, 1000, 1001, 2000, 2999])
def test_the_checksum_of_an_upload_in_parts_is_that_of_its_parts(tmp_path: Path, n_bytes: int) -> None:
    (tmp_path / "x").write_bytes(SMALL[:n_bytes])
    parts = [SMALL[:n_bytes][at : at + 1000] for at in range(0, n_bytes, 1000)]
    md5 = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    assert judge(tmp_path / "x", Proof(), Checksum(md5, len(parts), 1000)).verified == "etag"


def test_only_part_sizes_that_give_the_number_of_parts_are_tried() -> None:
    assert Checksum("0" * 32, 2).sizes(16 * MIB) == (8 * MIB, 10 * MIB, 15 * MIB)
    assert Checksum("0" * 32, 10_000).sizes(16 * MIB) == ()
    assert all(size >= 5 * MIB for size in PART_SIZES)
