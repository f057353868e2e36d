"""Servers on this machine, for tests of downloads: one like S3, one like the hub, both with faults to order.

::

    with S3Server({"nsddata/a.bin": b"..."}) as s3:     # or S3Server(folder): every file below it is an object
        s3.address("nsddata/a.bin")                     # http://127.0.0.1:PORT/nsddata/a.bin; s3.url without the key
        s3.put("big.bin", content, part_size=5_000_000) # ETag "hex-N"; see Thing for all options
        s3.put("secret.bin", content, status=403)       # refused, with S3's XML
        s3.served["nsddata/a.bin"]                      # bytes of content sent (by GET), a Counter
        s3.log                                          # every request, see Asked
        s3.fail("nsddata/a.bin", "drop", "500", "flip") # the next three requests for content fail, in this way
        s3.fail("nsddata/a.bin", "flip", always=True)
        s3.fail_at_random(0.2, seed=1)                  # a fifth of all requests for content, ways from RANDOM
        s3.injected                                     # faults that happened, by kind, a Counter
        s3.versions["big.bin"]                          # SHA-256 of every content that the key ever had

    with HubServer({"org/name": {"w.safetensors": b"..."}, "datasets/org/nsd": {"x.h5": b"..."}}) as hub:
        hub.url                                         # endpoint; works with huggingface_hub.get_hf_file_metadata
        hub.address("org/name", "w.safetensors")        # .../org/name/resolve/main/w.safetensors
        hub.commit["org/name"]                          # 40 hex digits; a valid revision, as is "main"
        hub.gated["org/name"] = {"hf_token"}            # 401 without a token, 403 with another one
        hub.fail(...); hub.cdn.fail("org/name/w.safetensors", "drop")
        hub.cdn.saw_authorization                       # whether the other host ever got the token

Files of at least ``lfs_from`` bytes (default 1024) are redirected to ``hub.cdn``, another port with its own log and faults,
and have the SHA-256 as validator; smaller ones are sent at once, with git's SHA-1 as validator.

Kinds of faults (``KINDS``). "Content" means a GET of more than one byte; ``on="all"`` hits every request.

=================  ====================================================================================================
drop, reset        half of the body, then the connection is closed, or reset
short              half of the body, with the right Content-Length for that half
long               more bytes than were asked for
stall              half of the body, then nothing for ``stall_s`` seconds
slow               the body in small pieces with pauses (complete and right)
500, 503, 429      that status; 503 and 429 with ``Retry-After: retry_after``
flip               one byte of the body is wrong
wrong-range        Content-Range and body begin one byte too late
ignored-range      status 200 and everything
truncated          as if the object were only half as long, with headers that agree
reuploaded         before the answer, the object is uploaded again in other parts: same content, another ETag
replaced           before the answer, the object gets another content of the same size
=================  ====================================================================================================
"""

from __future__ import annotations

import contextlib
import gzip as gzip_format
import hashlib
import random
import re
import socket
import struct
import sys
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

Content = bytes | Path
HARMLESS = ("drop", "reset", "short", "stall", "slow", "500", "503", "429")
RANDOM = (*HARMLESS, "flip", "long", "wrong-range", "ignored-range", "truncated", "reuploaded")
KINDS = (*RANDOM, "replaced")
STATUSES = {"500": 500, "503": 503, "429": 429}
BLOCK = 64 * 2**10


@dataclass(frozen=True)
class Thing:
    """An object and how its server behaves.

    ``etag``: "md5" computes S3's (with ``part_size`` of an upload in parts), None sends none, anything else is sent as it
    is. ``ranges``/``length`` False: the server knows no ranges / states no length; ``gzip``: sends it compressed, asked or
    not. ``tells_parts``: answers ``?partNumber=1``. ``encryption``: the header of that name, such as "aws:kms".
    """

    content: Content
    etag: str | None = "md5"
    part_size: int | None = None
    tells_parts: bool = True
    ranges: bool = True
    length: bool = True
    gzip: bool = False
    encryption: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            for at in range(start, stop, BLOCK):
                yield self.content[at : min(at + BLOCK, stop)]
            return
        with self.content.open("rb") as handle:
            handle.seek(start)
            for at in range(start, stop, BLOCK):
                yield handle.read(min(BLOCK, stop - at))

    def digest(self, algorithm: str) -> str:
        digest = hashlib.new(algorithm)
        for block in self.blocks(0, self.size):
            digest.update(block)
        return digest.hexdigest()

    @property
    def parts(self) -> int:
        return -(-self.size // self.part_size) if self.part_size else 1

    def s3_etag(self) -> str:
        if not self.part_size:
            return self.digest("md5")
        joined = b""
        for start in range(0, self.size, self.part_size):
            part = hashlib.md5()
            for block in self.blocks(start, min(start + self.part_size, self.size)):
                part.update(block)
            joined += part.digest()
        return f"{hashlib.md5(joined).hexdigest()}-{self.parts}"


@dataclass
class Asked:
    """One request and what became of it."""

    method: str
    key: str
    range: str | None
    headers: Mapping[str, str]  # names in lower case
    peer: int  # port of the client: one per connection
    status: int = 0
    fault: str | None = None
    sent: int = 0  # bytes of content
    done: bool = False


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError, ValueError)):
            super().handle_error(request, client_address)


class LocalServer:
    """A server of objects by key; the base of both faces.

    Parameters
    ----------
    things : mapping of str to bytes, Path or Thing, or a folder
    latency_s : float
        Before every answer.
    bytes_per_s : float, optional
        Of one connection.
    stall_s : float
        How long a stall lasts; longer than the client's patience.
    retry_after : int
        Seconds, with 503 and 429.
    """

    amazon = False

    def __init__(
        self,
        things: Mapping[str, Content | Thing] | Path | None = None,
        *,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
        stall_s: float = 30.0,
        retry_after: int = 0,
    ) -> None:
        self.latency_s, self.bytes_per_s, self.stall_s = latency_s, bytes_per_s, stall_s
        self.retry_after = retry_after
        self.things: dict[str, Thing] = {}
        self.versions: defaultdict[str, list[str]] = defaultdict(list)
        self.log: list[Asked] = []
        self.injected: Counter[str] = Counter()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._etags: dict[str, str] = {}
        self._reuploads: Counter[str] = Counter()
        self._planned: defaultdict[str, deque[tuple[str, str]]] = defaultdict(deque)
        self._always: dict[str, tuple[str, str]] = {}
        self._random: tuple[float, tuple[str, ...], random.Random, int | None] | None = None
        if isinstance(things, Path):
            things = {p.relative_to(things).as_posix(): p for p in things.rglob("*") if p.is_file()}
        for key, thing in (things or {}).items():
            self._set(key, thing if isinstance(thing, Thing) else Thing(thing))
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; stalled answers end."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def address(self, key: str) -> str:
        return f"{self.url}/{quote(key)}"

    def put(self, key: str, content: Content, **how: Any) -> None:
        """Add or replace an object; ``how`` as in :class:`Thing`."""
        self._set(key, Thing(content, **how))

    def remove(self, key: str) -> None:
        with self._lock:
            self.things.pop(key, None)

    def _set(self, key: str, thing: Thing) -> None:
        with self._lock:
            self.things[key] = thing
            self._etags.pop(key, None)
            if isinstance(thing.content, bytes):
                self.versions[key].append(thing.digest("sha256"))

    def etag(self, key: str) -> str | None:
        """Return the validator of an object, without quotes."""
        thing = self.things[key]
        if thing.etag != "md5":
            return thing.etag
        if key not in self._etags:
            self._etags[key] = thing.s3_etag()
        return self._etags[key]

    @property
    def served(self) -> Counter[str]:
        """Bytes of content that were sent, by key."""
        counted: Counter[str] = Counter()
        for asked in list(self.log):
            counted[asked.key] += asked.sent
        return counted

    def requests(self, key: str, method: str = "GET") -> list[Asked]:
        """Return the requests for one key, in order."""
        return [asked for asked in list(self.log) if (asked.key, asked.method) == (key, method)]

    @property
    def saw_authorization(self) -> bool:
        return any("authorization" in asked.headers for asked in list(self.log))

    # faults

    def fail(self, key: str, *kinds: str, on: str = "content", always: bool = False) -> None:
        """Let the next requests for ``key`` fail, one after the other in these ways; or all in the first way."""
        assert kinds and set(kinds) <= set(KINDS) and on in ("content", "all"), (kinds, on)
        with self._lock:
            if always:
                self._always[key] = (kinds[0], on)
            else:
                self._planned[key].extend((kind, on) for kind in kinds)

    def fail_at_random(
        self, rate: float, *, kinds: tuple[str, ...] = RANDOM, seed: int = 0, most: int | None = None
    ) -> None:
        """Let a share of all requests for content fail; at most so many."""
        with self._lock:
            self._random = (rate, kinds, random.Random(seed), most)

    def behave(self) -> None:
        """Inject no more faults."""
        with self._lock:
            self._planned.clear()
            self._always.clear()
            self._random = None

    def _fault(self, key: str, *, content: bool) -> str | None:
        with self._lock:
            kind = self._choose(key, content)
            if kind:
                self.injected[kind] += 1
            return kind

    def _choose(self, key: str, content: bool) -> str | None:
        planned = self._planned.get(key)
        if planned and (content or planned[0][1] == "all"):
            return planned.popleft()[0]
        if key in self._always and (content or self._always[key][1] == "all"):
            return self._always[key][0]
        if self._random and content:
            rate, kinds, generator, most = self._random
            if (most is None or sum(self.injected.values()) < most) and generator.random() < rate:
                return generator.choice(kinds)
        return None

    # answers

    def answer(self, handler: _Handler, asked: Asked, query: Mapping[str, list[str]]) -> None:
        """Answer one request for an object."""
        thing = self.things.get(asked.key)
        if thing is None:
            return handler.refuse(404, "NoSuchKey", "The specified key does not exist.")
        if thing.status != 200:
            return handler.refuse(thing.status, "AccessDenied", "Access Denied")
        if "partNumber" in query and thing.part_size and thing.tells_parts:
            return self._part(handler, asked, thing)
        self._content(handler, asked, thing)

    def _part(self, handler: _Handler, asked: Asked, thing: Thing) -> None:
        end = min(thing.part_size or thing.size, thing.size)
        headers = self.headers(asked.key, thing) | {
            "Content-Length": str(end),
            "Content-Range": f"bytes 0-{end - 1}/{thing.size}",
            "x-amz-mp-parts-count": str(thing.parts),
        }
        handler.start(206, headers)
        if asked.method == "GET":
            handler.body(asked, thing.blocks(0, end))

    def headers(self, key: str, thing: Thing) -> dict[str, str]:
        """Return the headers that every answer about an object has."""
        headers = {"Accept-Ranges": "bytes"} if thing.ranges else {}
        etag = self.etag(key)
        if etag is not None:
            headers["ETag"] = etag if etag.startswith(("W/", '"')) else f'"{etag}"'
        if thing.encryption:
            headers["x-amz-server-side-encryption"] = thing.encryption
        return headers | dict(thing.headers)

    def _content(self, handler: _Handler, asked: Asked, thing: Thing) -> None:
        span = _span(asked.range, thing.size) if thing.ranges and not thing.gzip else None
        n_wanted = thing.size if span is None else span[1] - span[0]
        kind = asked.fault = self._fault(asked.key, content=asked.method == "GET" and n_wanted > 1)
        if kind in STATUSES:
            headers = {} if kind == "500" else {"Retry-After": str(self.retry_after)}
            return handler.refuse(STATUSES[kind], "SlowDown", "Please reduce your request rate.", headers)
        if kind in ("reuploaded", "replaced"):
            thing = self._put_again(asked.key, thing, kind)
        match = asked.headers.get("if-match")
        if match and match.strip('"') != self.etag(asked.key):
            return handler.refuse(412, "PreconditionFailed", "At least one precondition did not hold.")
        if span is not None and span[0] >= thing.size:
            return handler.refuse(
                416,
                "InvalidRange",
                "The requested range is not satisfiable",
                {"Content-Range": f"bytes */{thing.size}"},
            )
        self._send(handler, asked, thing, span, kind)

    def _put_again(self, key: str, thing: Thing, kind: str) -> Thing:
        if kind == "replaced":
            content = random.Random(sum(self.injected.values())).randbytes(thing.size)
            thing = replace(thing, content=content)
        else:  # the same in more parts than ever before
            parts = self._reuploads[key] = self._reuploads[key] + 1
            thing = replace(thing, part_size=max(thing.size // parts, 1))
        self._set(key, thing)
        return thing

    def _send(
        self, handler: _Handler, asked: Asked, thing: Thing, span: tuple[int, int] | None, kind: str | None
    ) -> None:
        headers, total = self.headers(asked.key, thing), thing.size
        if kind == "truncated" and span:
            total = max(total // 2, 1)
            span = (min(span[0], total - 1), min(span[1], total))
        if kind == "ignored-range":
            span = None
        start, stop = span or (0, total)
        if kind == "wrong-range" and span and stop - start > 1:
            start += 1
        blocks, length = self._blocks(thing, start, stop, kind)
        if thing.gzip:
            packed = gzip_format.compress(b"".join(blocks))
            blocks, length = iter([packed]), len(packed)
            headers["Content-Encoding"] = "gzip"
        if span:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        if thing.length:
            headers["Content-Length"] = str(length)
        handler.start(206 if span else 200, headers)
        if asked.method == "HEAD":
            return
        handler.body(asked, blocks, half=stop - start if kind in ("drop", "reset", "stall") else None)
        if not thing.length:
            handler.close_connection = True

    def _blocks(self, thing: Thing, start: int, stop: int, kind: str | None) -> tuple[Iterator[bytes], int]:
        if kind == "short":
            stop = start + (stop - start) // 2
        blocks = thing.blocks(start, stop)
        if kind == "flip":
            return _flipped(blocks, (stop - start) // 2), stop - start
        if kind == "long":
            return _more(blocks, b"more than was asked for"), stop - start + 23
        return blocks, stop - start


class S3Server(LocalServer):
    """Objects by key, as S3 serves them to everybody."""

    amazon = True


class HubServer(LocalServer):
    """Repositories as the hub serves them, and the other host (``cdn``) that holds large files.

    Parameters
    ----------
    repositories : mapping
        Files by ``org/name`` or ``datasets/org/name``.
    lfs_from : int
        Files of so many bytes lie on the other host.
    **how
        As for :class:`LocalServer`, for both hosts.
    """

    def __init__(
        self,
        repositories: Mapping[str, Mapping[str, Content]],
        *,
        lfs_from: int = 1024,
        **how: Any,
    ) -> None:
        self.lfs_from = lfs_from
        self.cdn = LocalServer(**how)
        self.commit: dict[str, str] = {}
        self.gated: dict[str, set[str]] = {}
        super().__init__(**how)
        for repo, files in repositories.items():
            self.commit[repo] = hashlib.sha1(repo.encode()).hexdigest()
            for path, content in files.items():
                self.put_file(repo, path, content)

    def put_file(self, repo: str, path: str, content: Content, **how: Any) -> None:
        """Add or replace one file of a repository."""
        key, thing = f"{repo}/{path}", Thing(content, **how)
        if thing.size >= self.lfs_from:
            self.cdn.put(key, content, **{"etag": thing.digest("sha256"), **how})
        else:
            blob = b"".join(thing.blocks(0, thing.size))
            sha1 = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
            self.put(key, content, **{"etag": sha1, **how})

    def close(self) -> None:
        super().close()
        self.cdn.close()

    def address(self, key: str, path: str | None = None, revision: str = "main") -> str:
        """Return the address of file ``path`` in repository ``key``."""
        assert path is not None
        return f"{self.url}/{key}/resolve/{revision}/{quote(path)}"

    def answer(self, handler: _Handler, asked: Asked, query: Mapping[str, list[str]]) -> None:
        found = re.fullmatch(r"((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", asked.key)
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if not found or found[1] not in self.commit:
            code = "RepoNotFound"
            return handler.refuse(404 if token else 401, code, "Repository not found", _hub_error(code))
        repo, revision, path = found.groups()
        asked.key = key = f"{repo}/{path}"
        if repo in self.gated and token not in self.gated[repo]:
            return handler.refuse(403 if token else 401, "GatedRepo", "gated", _hub_error("GatedRepo"))
        if revision not in ("main", self.commit[repo]):
            code = "RevisionNotFound"
            return handler.refuse(404, code, "Invalid rev id", _hub_error(code))
        if key in self.things:
            return super().answer(handler, asked, query)
        if key not in self.cdn.things:
            return handler.refuse(404, "EntryNotFound", "Entry not found", _hub_error("EntryNotFound"))
        self._redirect(handler, asked)

    def headers(self, key: str, thing: Thing) -> dict[str, str]:
        repo = next(repo for repo in self.commit if key.startswith(f"{repo}/"))
        return super().headers(key, thing) | {"X-Repo-Commit": self.commit[repo]}

    def _redirect(self, handler: _Handler, asked: Asked) -> None:
        asked.fault = kind = self._fault(asked.key, content=False)
        if kind in STATUSES:
            return handler.refuse(STATUSES[kind], "SlowDown", "busy", {"Retry-After": str(self.retry_after)})
        thing = self.cdn.things[asked.key]
        handler.start(
            302,
            self.headers(asked.key, replace(thing, etag=None))
            | {
                "Location": f"{self.cdn.address(asked.key)}?Signature=abc&Expires=99",
                "X-Linked-Size": str(thing.size),
                "X-Linked-Etag": f'"{self.cdn.etag(asked.key)}"',
                "Content-Length": "0",
            },
        )

    def etag(self, key: str) -> str | None:
        return super().etag(key) if key in self.things else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "Local"
    owner: LocalServer

    def setup(self) -> None:
        super().setup()
        # little is under way when a client hangs up, so that counts mean something
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)

    def do_GET(self) -> None:
        owner, parts = self.owner, urlsplit(self.path)
        asked = Asked(
            self.command,
            unquote(parts.path).lstrip("/"),
            self.headers.get("Range"),
            {name.lower(): value for name, value in self.headers.items()},
            self.client_address[1],
        )
        owner.log.append(asked)
        self.asked = asked
        if owner.latency_s:
            owner.closing.wait(owner.latency_s)
        try:
            owner.answer(self, asked, parse_qs(parts.query))
            self.wfile.flush()
        except (ConnectionError, TimeoutError, ValueError):  # the client hung up
            self.close_connection = True
        finally:
            asked.done = True

    do_HEAD = do_GET

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.asked.status = status
        self.send_response(status)
        if self.owner.amazon:
            self.send_header("x-amz-request-id", f"{len(self.owner.log):016X}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def refuse(self, status: int, code: str, words: str, headers: Mapping[str, str] | None = None) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{words}</Message></Error>'
        told = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **(headers or {})}
        self.start(status, told)
        if self.command == "GET":
            self.wfile.write(body.encode())

    def body(self, asked: Asked, blocks: Iterator[bytes], *, half: int | None = None) -> None:
        """Send content; with ``half`` (its size) only half of it, and then the ordered fault."""
        limit = None if half is None else half // 2
        pause = 0.002 if asked.fault == "slow" else 0.0
        for block in blocks:
            piece = block if limit is None else block[: limit - asked.sent]
            asked.sent += len(piece)  # first: who has read it all may look at once
            self.wfile.write(piece)
            rate = self.owner.bytes_per_s
            if rate or pause:
                self.owner.closing.wait(pause + (len(piece) / rate if rate else 0))
            if limit is not None and asked.sent >= limit:
                return self._break(asked.fault)

    def _break(self, kind: str | None) -> None:
        self.close_connection = True
        if kind == "stall":
            self.owner.closing.wait(self.owner.stall_s)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                self.connection.close()
            return
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _handler(owner: LocalServer) -> type[_Handler]:
    return type("Handler", (_Handler,), {"owner": owner})


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", header or "")
    if not found:
        return None
    start = int(found[1])
    return start, min(int(found[2]) + 1 if found[2] else size, size) if start < size else start + 1


def _flipped(blocks: Iterator[bytes], at: int) -> Iterator[bytes]:
    for block in blocks:
        if 0 <= at < len(block):
            block = block[:at] + bytes([block[at] ^ 0xFF]) + block[at + 1 :]
        at -= len(block)
        yield block


def _more(blocks: Iterator[bytes], rest: bytes) -> Iterator[bytes]:
    yield from blocks
    yield rest


def _hub_error(code: str) -> dict[str, str]:
    return {"X-Error-Code": code, "X-Error-Message": code}
