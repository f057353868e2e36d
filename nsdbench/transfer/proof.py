"""What proves that a file is the right one: hashes known beforehand, or the server's own checksum."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

Verified = Literal["sha256", "md5", "etag", "size"]
"""By what a file was verified; ``"size"`` means that its content was compared with nothing."""
MIB = 2**20
PART_SIZES = tuple(
    n * MIB for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 250, 256, 500, 512, 1024)
)
"""Part sizes that upload tools use, for multipart checksums of servers that do not tell theirs."""
_BLOCK = MIB


@dataclass(frozen=True)
class Proof:
    """What is known of a file's content before it is there.

    Attributes
    ----------
    size : int or None
        Bytes.
    sha256 : str or None
        64 hex digits.
    sha256_prefixes : tuple of str
        First digits that the SHA-256 may have, for files that carry them in their name.
    md5 : str or None
        32 hex digits.
    """

    size: int | None = None
    sha256: str | None = None
    sha256_prefixes: tuple[str, ...] = ()
    md5: str | None = None

    @property
    def hashed(self) -> bool:
        """Whether a hash is known."""
        return bool(self.sha256 or self.sha256_prefixes or self.md5)


@dataclass(frozen=True)
class Checksum:
    """The checksum by which an S3 server names the content of an object.

    Attributes
    ----------
    md5 : str
        Of the content; with ``parts``, of the MD5s of its parts one after the other.
    parts : int or None
        Number of parts of an upload in parts.
    part_size : int or None
        Bytes of a part as the server says; None if it does not.
    """

    md5: str
    parts: int | None = None
    part_size: int | None = None

    @classmethod
    def of(cls, etag: str) -> Checksum | None:
        """Read an ETag of S3; None if it is no checksum."""
        found = re.fullmatch(r"([0-9a-f]{32})(?:-(\d+))?", etag)
        if not found:
            return None
        return cls(found[1], int(found[2]) if found[2] else None)

    @property
    def certain(self) -> bool:
        """Whether content that differs from it is surely wrong: a part size that is only guessed may be another."""
        return self.parts in (None, 1) or self.part_size is not None

    def sizes(self, size: int) -> tuple[int, ...]:
        """Return the part sizes that the object of ``size`` bytes can have been uploaded in."""
        if self.parts in (None, 1):
            return (max(size, 1),)
        candidates = (self.part_size,) if self.part_size else PART_SIZES
        return tuple(n for n in candidates if -(-size // n) == self.parts)


@dataclass(frozen=True)
class Judgement:
    """What reading a whole file showed: its SHA-256, by what it was verified, and what is wrong with it (or nothing)."""

    sha256: str
    verified: Verified
    wrong: str = ""


def judge(path: Path, proof: Proof, checksum: Checksum | None) -> Judgement:
    """Read ``path`` once and compare it with what is known of it."""
    size = path.stat().st_size
    checksum = None if proof.hashed else checksum  # what is known beforehand says more
    by_parts = {n: _Parts(n) for n in (checksum.sizes(size) if checksum else ())}
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        for block in _blocks(handle):
            sha256.update(block)
            if proof.md5:
                md5.update(block)
            for parts in by_parts.values():
                parts.update(block)
    found = sha256.hexdigest()
    wrong = _mismatch(proof, size, found, md5.hexdigest())
    if wrong:
        return Judgement(found, "size", wrong)
    if proof.hashed:
        return Judgement(found, "sha256" if proof.sha256 or proof.sha256_prefixes else "md5")
    etag, wrong = _compare(checksum, by_parts.values())
    return Judgement(found, "etag" if etag else "size", wrong)


def _mismatch(proof: Proof, size: int, sha256: str, md5: str) -> str:
    if proof.size is not None and size != proof.size:
        return f"it has {size} bytes instead of {proof.size}"
    if proof.sha256 and sha256 != proof.sha256:
        return f"its sha256 is {sha256}, not {proof.sha256}"
    if proof.sha256_prefixes and not sha256.startswith(proof.sha256_prefixes):
        return f"its sha256 is {sha256}, not {' or '.join(f'{p}...' for p in proof.sha256_prefixes)}"
    if proof.md5 and md5 != proof.md5:
        return f"its md5 is {md5}, not {proof.md5}"
    return ""


def _compare(checksum: Checksum | None, found: Iterable[_Parts]) -> tuple[bool, str]:
    """Say whether the content has the checksum of the server, and what is wrong if it surely has not."""
    if checksum is None:
        return False, ""
    wanted = checksum.md5
    digests = [parts.digest(whole=checksum.parts is None) for parts in found]
    if wanted in digests:
        return True, ""
    if not digests or not checksum.certain:
        return False, ""
    return False, f"the server's checksum is {wanted}, that of the file {digests[0]}"


class _Parts:
    """MD5s of the parts of a stream."""

    def __init__(self, size: int) -> None:
        self.size, self.filled = size, 0
        self.current = hashlib.md5(usedforsecurity=False)
        self.done: list[bytes] = []

    def update(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            if self.filled == self.size:
                self._close()
            piece = view[: self.size - self.filled]
            self.current.update(piece)
            self.filled += len(piece)
            view = view[len(piece) :]

    def digest(self, *, whole: bool) -> str:
        """Return the MD5 of everything, or of the MD5s of the parts."""
        if whole:
            return self.current.hexdigest()
        return hashlib.md5(b"".join([*self.done, self.current.digest()]), usedforsecurity=False).hexdigest()

    def _close(self) -> None:
        self.done.append(self.current.digest())
        self.current, self.filled = hashlib.md5(usedforsecurity=False), 0


def _blocks(handle: BinaryIO) -> Iterator[bytes]:
    while block := handle.read(_BLOCK):
        yield block
