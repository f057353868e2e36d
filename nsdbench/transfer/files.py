"""One file: its parts side by side, its content checked, its name last."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from nsdbench.errors import CorruptedObject, FetchError
from nsdbench.transfer.client import BREAKS, Changed, Client, Interrupted, Remote, packed, stated_size, strong
from nsdbench.transfer.journal import Part, Span, discard
from nsdbench.transfer.lock import held
from nsdbench.transfer.meter import SILENT, Meter
from nsdbench.transfer.proof import Judgement, Proof, Verified, judge
from nsdbench.transfer.room import disk_error, require_room
from nsdbench.transfer.workers import Lanes, for_each

RANGE = 16 * 2**20
"""Bytes that are asked for at once: what a killed process loses of each connection at most."""
CHUNK = 2**20


class RangesIgnored(Interrupted):
    """The server sends everything, although it was asked for a range."""


@dataclass(frozen=True)
class Job:
    """A file that is wanted: where from, where to, what is known of it, and what the server says if it was asked."""

    url: str
    path: Path
    proof: Proof = field(default_factory=Proof)
    remote: Remote | None = None

    @property
    def size(self) -> int:
        """Bytes, 0 where unknown."""
        return (self.remote.size if self.remote else None) or self.proof.size or 0


@dataclass(frozen=True)
class Fetched:
    """A whole file.

    Attributes
    ----------
    path : Path
    size : int
        Bytes.
    sha256 : str
        As read from the disk after the last byte was written.
    verified : {"sha256", "md5", "etag", "size"}
        By what: a hash known beforehand, the server's checksum, or its size alone.
    etag : str or None
        The server's validator.
    reused : bool
        Whether the file was there already.
    """

    path: Path
    size: int
    sha256: str
    verified: Verified
    etag: str | None
    reused: bool


def fetch(
    client: Client,
    url: str,
    path: Path,
    *,
    proof: Proof | None = None,
    remote: Remote | None = None,
    meter: Meter = SILENT,
    connections: int = 4,
) -> Fetched:
    """Bring a file to ``path``, continuing an earlier attempt; a right one that is there is kept.

    Wrong content is thrown away and fetched once more from its first byte. Processes that want the same file wait for
    each other. Until everything is checked, nothing is visible under the name of the file.

    Parameters
    ----------
    client : Client
    url : str
    path : Path
    proof : Proof, optional
        What is known of the content.
    remote : Remote, optional
        What the server says, if it was asked already.
    meter : Meter
    connections : int
        Ranges that are asked for at the same time.

    Raises
    ------
    MissingObject, RefusedByServer, Unreachable, CorruptedObject, NoRoom, FetchError
    """
    job = Job(url, path, proof or Proof(), remote)
    meter.expect(job.size)
    return bring(client, job, meter, Lanes(connections), threading.Event())


def bring(client: Client, job: Job, meter: Meter, lanes: Lanes, stop: threading.Event) -> Fetched:
    """Do what :func:`fetch` does until ``stop`` is set; then end with an error and keep what has arrived.

    ``job.size`` has been announced to ``meter``.
    """
    remote = job.remote or client.head(job.url)
    _require_size(remote, job.proof)
    meter.expect((remote.size or 0) - job.size)
    with held(job.path):
        try:
            if job.path.is_file() and (there := _right(job.path, job.proof, remote)):
                with contextlib.suppress(OSError):  # a shared folder that others fill
                    discard(job.path)
                meter.advance(there.size)
                return there
            return _Transfer(client, remote, job.path, job.proof, meter, lanes, stop).run()
        except OSError as error:
            raise disk_error(error, job.path) from error


def _right(path: Path, proof: Proof, remote: Remote) -> Fetched | None:
    """Return the file that is there, if it is the right one."""
    size = path.stat().st_size
    if remote.size not in (None, size) or proof.size not in (None, size):
        return None
    verdict = judge(path, proof, remote.checksum)
    if verdict.wrong:
        return None
    return Fetched(path, size, verdict.sha256, verdict.verified, remote.etag, reused=True)


def _require_size(remote: Remote, proof: Proof) -> None:
    if proof.size is not None and remote.size not in (None, proof.size):
        raise CorruptedObject(
            f"{remote.url} has {remote.size} bytes, the file that is wanted has {proof.size}",
            remedy="The server holds another file, or another version of it. Nothing was downloaded.",
        )


@dataclass
class _Transfer:
    """A file on its way."""

    client: Client
    remote: Remote
    path: Path
    proof: Proof
    meter: Meter
    lanes: Lanes
    stop: threading.Event

    def run(self) -> Fetched:
        verdict = self._attempt()
        if verdict.wrong:  # a fault on the way, or of the disk: once more, from the first byte
            verdict = self._attempt()
        if verdict.wrong:
            raise CorruptedObject(
                f"{self.remote.url} delivered another file than expected, twice: {verdict.wrong}",
                remedy="Nothing was kept. Try again later, or another server.",
            )
        size = self.path.stat().st_size
        return Fetched(self.path, size, verdict.sha256, verdict.verified, self.remote.etag, reused=False)

    def _attempt(self) -> Judgement:
        """Download, judge and name the file; a wrong one is thrown away."""
        with self._part() as part:
            self._fill(part)
            verdict = judge(part.path, self.proof, self.remote.checksum)
            if verdict.wrong:
                self.meter.advance(-part.path.stat().st_size)
                discard(self.path)
            else:
                part.become(self.path)
        return verdict

    @contextlib.contextmanager
    def _part(self) -> Iterator[Part]:
        part = Part(self.path, self.remote, provable=self.proof.hashed)
        try:
            yield part
        finally:
            part.close()

    def _fill(self, part: Part) -> None:
        """Download what is missing; begin anew when the file on the server changes.

        A file is put together from ranges only if something shows that they belong together.
        """
        require_room(self.path.parent, (self.remote.size or self.proof.size or 0) - part.arrived)
        self.meter.advance(part.arrived)
        changes = 0
        while True:
            try:
                if self.remote.ranges and self.remote.size is not None and self._joinable:
                    return self._in_ranges(part)
                return self._from_start_to_end(part)
            except RangesIgnored:
                self.meter.advance(-part.forget())
                self.remote = part.remote = replace(self.remote, ranges=False)
            except Changed as error:
                changes += 1  # a file that keeps changing must not hold us for ever
                self.meter.advance(-part.forget())
                self.client.rest(changes, error, self.remote.url, self.stop)
                self._ask_again(part)

    def _ask_again(self, part: Part) -> None:
        """Take the server's new file instead of the one of which parts were here."""
        before = self.remote.size or 0
        self.remote = part.remote = self.client.head(self.remote.url)
        self.meter.expect((self.remote.size or 0) - before)
        _require_size(self.remote, self.proof)

    @property
    def _joinable(self) -> bool:
        return self.remote.etag is not None or self.proof.hashed

    # in ranges

    def _in_ranges(self, part: Part) -> None:
        """Download the gaps over several connections."""
        ended = threading.Event()
        for_each(part.gaps(RANGE), lambda gap: self._one_gap(part, gap, ended), self.lanes.n, ended)

    def _one_gap(self, part: Part, gap: Span, ended: threading.Event) -> None:
        """Download one gap, again and again while something new arrives."""
        at, stop = gap
        fruitless = 0
        while at < stop and not ended.is_set():
            before = at
            with self.lanes.free:
                at, interruption = self._stretch(part, (at, stop), ended)
            if self.stop.is_set():
                raise FetchError("the transfer was stopped")
            if interruption is not None:
                fruitless = 0 if at > before else fruitless + 1
                if fruitless > 1 and isinstance(interruption, RangesIgnored):
                    raise interruption
                self.client.rest(fruitless, interruption, self.remote.url, ended)

    def _stretch(self, part: Part, gap: Span, ended: threading.Event) -> tuple[int, Interrupted | None]:
        """Ask for a gap once; return how far it got and what came between."""
        at, stop = gap
        try:
            with self._answer(gap) as chunks:
                for chunk in chunks:
                    if ended.is_set() or self.stop.is_set():
                        return at, None
                    if at + len(chunk) > stop:
                        raise Interrupted("the server sent more than was asked for")
                    part.write(chunk, at)
                    at += len(chunk)
                    self.meter.advance(len(chunk))
            return at, Interrupted(f"{stop - at} bytes are missing at the end") if at < stop else None
        except Changed:
            raise
        except Interrupted as error:
            return at, error
        finally:
            part.keep((gap[0], at))

    @contextlib.contextmanager
    def _answer(self, gap: Span) -> Iterator[Iterator[bytes]]:
        """Open the answer that holds the very bytes of the very file."""
        with self.client.get(self.remote.url, {"Range": f"bytes={gap[0]}-{gap[1] - 1}"}) as response:
            if response.status_code == 416:
                raise Changed("the file on the server has become shorter")
            if response.status_code == 200:
                raise RangesIgnored("the server sent everything instead of a range")
            stated = re.match(r"bytes (\d+)-(\d+)/", response.headers.get("Content-Range", ""))
            if not stated or (int(stated[1]), int(stated[2]) + 1) != gap:
                raise Interrupted("the server sent another range than was asked for")
            self._require_same(response)
            yield _chunks(response, unpack=False)

    def _require_same(self, response: requests.Response) -> None:
        """Check that the answer is about the file that was asked for at first."""
        etag, size = strong(response.headers.get("ETag")), stated_size(response)
        if self.remote.etag and etag and etag != self.remote.etag:
            raise Changed("the file on the server has changed")
        if None not in (size, self.remote.size) and size != self.remote.size:
            raise Changed("the file on the server has another size now")

    # in one stream

    def _from_start_to_end(self, part: Part) -> None:
        """Download a file whose server knows no ranges or no size; each attempt begins at the first byte."""
        for failed in itertools.count(1):
            at = 0
            try:
                with self.lanes.free, self.client.get(self.remote.url, {}) as response:
                    self._require_same(response)
                    self._require_an_end(response)
                    for chunk in _chunks(response, unpack=packed(response)):
                        self._may_go_on(at + len(chunk))
                        part.write(chunk, at)
                        at += len(chunk)
                        self.meter.advance(len(chunk))
                if (size := self.proof.size if self.remote.size is None else self.remote.size) in (None, at):
                    break
                raise Interrupted(f"{at} bytes arrived instead of {size}")
            except Changed:
                raise
            except Interrupted as error:
                self.meter.advance(-at)
                part.forget()
                self.client.rest(failed, error, self.remote.url, self.stop)
        if self.remote.size is None:
            self.meter.expect(at)

    def _require_an_end(self, response: requests.Response) -> None:
        """Check that something will show whether the whole file has arrived."""
        stated = "Content-Length" in response.headers or getattr(response.raw, "chunked", False)
        checksum = self.remote.checksum
        known = self.proof.size is not None or self.proof.hashed or (checksum and checksum.certain)
        if not stated and not known:
            raise FetchError(
                f"{self.remote.url} has no stated length, so that half of it could pass for the whole",
                remedy="Download it from another server, or compare it with a known hash.",
            )

    def _may_go_on(self, n_bytes: int) -> None:
        """Check that the stream may go on: nobody has stopped it, and it is not longer than the file."""
        if self.stop.is_set():
            raise FetchError("the transfer was stopped")
        if self.proof.size is not None and n_bytes > self.proof.size:
            raise Interrupted(f"more than the {self.proof.size} bytes of the file arrive")


def _chunks(response: requests.Response, *, unpack: bool) -> Iterator[bytes]:
    """Yield the bytes as they arrive; a broken connection is an interruption."""
    while True:
        try:
            chunk = response.raw.read1(CHUNK, decode_content=unpack)
        except BREAKS as error:
            raise Interrupted(f"the connection broke ({type(error).__name__})") from error
        if not chunk:
            return
        yield chunk
