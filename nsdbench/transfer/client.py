"""The HTTP client of all downloads: no session in two threads at once, faults told apart by what helps against them."""

from __future__ import annotations

import contextlib
import queue
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

import requests
import urllib3

from nsdbench import __version__
from nsdbench.errors import FetchError, MissingObject, RefusedByServer, Unreachable, UsageError
from nsdbench.transfer.proof import Checksum

T = TypeVar("T")
TRANSIENT = (408, 425, 429)
LONGEST_PAUSE_S = 60.0
BREAKS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What a connection raises that cannot be had, or breaks in the middle."""
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
_ENCRYPTED = ("aws:kms", "aws:kms:dsse")


@dataclass(frozen=True)
class Remote:
    """What a server says of a file.

    Attributes
    ----------
    url : str
    size : int or None
        Bytes; None if the server does not say.
    etag : str or None
        Strong validator; None if there is none.
    ranges : bool
        Whether parts of the file can be asked for.
    checksum : Checksum or None
        The checksum of the content, where the validator is one (S3).
    """

    url: str
    size: int | None
    etag: str | None
    ranges: bool
    checksum: Checksum | None = None


class Interrupted(Exception):
    """An attempt failed in a way that another attempt may not; ``pause`` is what the server asked for, in seconds."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


class Changed(Interrupted):
    """The file on the server is not the one of which parts are here."""


class Client:
    """Asks servers for files. One client serves many threads.

    Parameters
    ----------
    headers : mapping, optional
        Sent with every request; ``Authorization`` is never sent on to another host.
    timeout_s : float
        For a connection, and for each pause of the server while it sends.
    pause_s : float
        Before the second fruitless attempt; it doubles with each further one.
    patience : int
        Fruitless attempts in a row before giving up.
    """

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        pause_s: float = 1.0,
        patience: int = 5,
    ) -> None:
        self.headers = {
            "User-Agent": f"nsdbench/{__version__}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        self.timeout_s, self.pause_s, self.patience = timeout_s, pause_s, patience
        self._idle: queue.LifoQueue[requests.Session] = queue.LifoQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections that are not in use."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def head(self, url: str) -> Remote:
        """Return what the server says of a file.

        It is asked for one byte rather than by HEAD: signed addresses are often good for GET alone, and the answer shows
        whether ranges work.

        Raises
        ------
        MissingObject, RefusedByServer, Unreachable
        """
        if not re.match(r"https?://[^/]", url):
            raise UsageError(
                f"{url} is not a web address", remedy="Give an address such as https://host/folder."
            )
        remote = self.persist(lambda: self._ask(url), url)
        if remote.checksum and remote.checksum.parts:
            return self._with_part_size(remote, remote.checksum)
        return remote

    def persist(self, attempt: Callable[[], T], url: str) -> T:
        """Return what ``attempt`` returns, trying again while it is interrupted.

        Raises
        ------
        Unreachable
            After ``patience`` attempts.
        """
        failed = 0
        while True:
            try:
                return attempt()
            except Interrupted as error:
                failed += 1
                self.rest(failed, error, url)

    def rest(self, failed: int, error: Interrupted, url: str, ended: threading.Event | None = None) -> None:
        """Wait before the next attempt after so many fruitless ones in a row, until ``ended`` is set; or give up.

        Raises
        ------
        Unreachable
            If there were enough.
        """
        if failed >= self.patience:
            raise Unreachable(
                f"{url} cannot be had: {error}",
                remedy="Check the connection and run the same command again: it continues from what has arrived.",
            ) from error
        pause = min(self.pause_s * 2 ** max(failed - 1, 0), LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
        pause = min(max(pause, error.pause or 0.0), LONGEST_PAUSE_S)
        (ended or threading.Event()).wait(pause)

    @contextlib.contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], *, method: str = "GET"
    ) -> Iterator[requests.Response]:
        """Open a response of status 200, 206 or 416; everything else becomes an error.

        Raises
        ------
        Interrupted
            For faults that may pass.
        MissingObject, RefusedByServer, FetchError
            For those that do not.
        """
        session = self._session()
        try:
            with self._response(session, method, url, headers) as response:
                _judge(response, url)
                yield response
        finally:
            self._idle.put(session)

    def _session(self) -> requests.Session:
        """Return a session that nobody uses: they keep connections open, but are not made for two threads at once."""
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        session = requests.Session()
        session.headers.update(self.headers)
        return session

    def _response(
        self, session: requests.Session, method: str, url: str, headers: Mapping[str, str]
    ) -> requests.Response:
        try:
            return session.request(
                method, url, headers=dict(headers), stream=True, timeout=self.timeout_s, allow_redirects=True
            )
        except _NO_ADDRESS as error:
            raise FetchError(f"{url} is not a web address ({error})") from error
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE" not in str(error):
                raise Interrupted("the secure connection broke") from error
            raise Unreachable(
                f"{url}: no secure connection ({error})",
                remedy="Behind a proxy that inspects traffic, REQUESTS_CA_BUNDLE names its certificates.",
            ) from error
        except BREAKS as error:
            raise Interrupted(_in_short(error)) from error

    def _ask(self, url: str) -> Remote:
        with self.get(url, {"Range": "bytes=0-0"}) as response:
            etag = strong(response.headers.get("ETag"))
            if packed(response):
                return Remote(url, None, etag, ranges=False)
            if response.status_code == 206:
                response.raw.drain_conn()  # so that the connection can be used again
            size, ranges = stated_size(response), response.status_code == 206
            return Remote(url, size, etag, ranges, _checksum(response, etag))

    def _with_part_size(self, remote: Remote, checksum: Checksum) -> Remote:
        """Ask for the size of the first part of an upload in parts; many servers do not tell."""
        separator = "&" if "?" in remote.url else "?"
        try:
            with self.get(f"{remote.url}{separator}partNumber=1", {}, method="HEAD") as response:
                told = response.headers.get("Content-Length", "")
                if response.status_code == 206 and told.isdigit():
                    checksum = Checksum(checksum.md5, checksum.parts, int(told))
        except (Interrupted, FetchError):
            pass  # the usual sizes are tried instead
        return Remote(remote.url, remote.size, remote.etag, remote.ranges, checksum)


def strong(etag: str | None) -> str | None:
    """Return a validator without its quotes; None if it is weak or absent."""
    return None if not etag or etag.startswith("W/") else etag.strip('"')


def packed(response: requests.Response) -> bool:
    """Say whether a server compresses although it was asked not to; S3 sends what was stored, whatever it says."""
    return "Content-Encoding" in response.headers and not _is_s3(response)


def _is_s3(response: requests.Response) -> bool:
    return "x-amz-request-id" in response.headers


def stated_size(response: requests.Response) -> int | None:
    """Return the size of the whole file; None if the answer does not state it."""
    if packed(response):
        return None
    if response.status_code in (206, 416):
        found = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    told = response.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def _checksum(response: requests.Response, etag: str | None) -> Checksum | None:
    """Read the checksum of an S3 server; keys that encrypt the object make its ETag something else."""
    encryption = response.headers.get("x-amz-server-side-encryption", "")
    customer = "x-amz-server-side-encryption-customer-algorithm" in response.headers
    if etag is None or not _is_s3(response) or encryption in _ENCRYPTED or customer:
        return None
    return Checksum.of(etag)


def _judge(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    words = f"HTTP {status} {response.reason or ''}".strip()
    if status == 412:
        raise Changed("the file on the server has changed")
    if status >= 500 or status in TRANSIENT:
        after = response.headers.get("Retry-After", "")
        raise Interrupted(words, float(after) if after.isdigit() else None)
    if status in (404, 410):
        raise MissingObject(
            f"there is no {url} ({words})", remedy="Check the address; the file may have moved."
        )
    if status in (401, 402, 403, 407, 451):
        raise RefusedByServer(
            f"{url} is refused ({words})",
            remedy="The file may need an account or an agreement, or not exist.",
        )
    raise FetchError(f"{url} answers {words}", remedy="Is this the right address?")


def _in_short(error: Exception) -> str:
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "the server did not answer in time"
    if isinstance(error, requests.ConnectionError) and "IncompleteRead" not in text:
        reason = text.rpartition(": ")[2].strip("'\")> ") or type(error).__name__
        reason += ")" * (reason.count("(") - reason.count(")"))
        proxy = isinstance(error, requests.exceptions.ProxyError)
        return f"no connection {'to the proxy that the environment names ' if proxy else ''}({reason})"
    return f"the connection broke ({type(error).__name__})"
