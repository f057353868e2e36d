"""Downloads one file over HTTP, continuing where an earlier attempt stopped."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nsdbench import __version__
from nsdbench.errors import WeightsError
from nsdbench.types import Progress

CHUNK = 2**20
TIMEOUT_S = 60.0
FRUITLESS_ATTEMPTS = 3
PAUSE_S = 1.0  # before the second fruitless attempt; doubles after each


def download(url: str, part: Path, *, progress: Progress) -> None:
    """Download ``url`` into ``part``, appending to what is there, and flush it to disk.

    Broken connections are retried; only attempts in a row that bring nothing new count towards giving up, and
    ``part`` then keeps what has arrived. The caller checks the content.

    Raises
    ------
    WeightsError
        If the server refuses, the connection keeps breaking, or the disk is too small.
    """
    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is not a web address", remedy="Give a mirror as https://host/folder.")
    part.parent.mkdir(parents=True, exist_ok=True)
    fruitless = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, progress)
        except _Interrupted as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise WeightsError(
                    f"{url} could not be downloaded ({error}); {_size(part)} bytes have arrived",
                    remedy="Check the connection and run the same command again: it continues from there. "
                    "A mirror can be given with --mirror.",
                ) from error
            time.sleep(PAUSE_S * 2**fruitless)


class _Interrupted(Exception):
    """The attempt failed in a way that another attempt may not."""


def _attempt(url: str, part: Path, progress: Progress) -> None:
    have = _size(part)
    headers = {"User-Agent": f"nsdbench/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S
        ) as response:
            _receive(response, part, have, progress)
    except urllib.error.HTTPError as error:
        _judge(error, url, part)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise WeightsError(f"{part} cannot be written ({error.strerror})") from error
        raise _Interrupted(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _receive(response: Any, part: Path, have: int, progress: Progress) -> None:
    start = have if response.status == 206 else 0  # a plain 200 sends the file from its beginning
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    if total is not None and total - start > shutil.disk_usage(part.parent).free:
        raise WeightsError(
            f"{part.parent} has no room for {total - start} bytes", remedy="Free some disk space."
        )
    chunks = None if total is None else -(-(total - start) // CHUNK)
    with part.open("r+b" if start else "wb") as handle:
        handle.seek(start)
        for chunk in progress.track(_chunks(response), f"{part.stem.removeprefix('.')} [MiB]", chunks):
            handle.write(chunk)
        handle.flush()
        os.fsync(handle.fileno())
    if total is not None and _size(part) < total:
        raise _Interrupted(f"the connection ended {total - _size(part)} bytes too early")


def _chunks(response: Any) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk


def _judge(error: urllib.error.HTTPError, url: str, part: Path) -> None:
    """Decide what an HTTP error means; returns if the partial file turns out to be whole."""
    if error.code == 416:  # nothing lies beyond what we have
        if error.headers.get("Content-Range", "").endswith(f"/{_size(part)}"):
            return
        part.unlink(missing_ok=True)
        raise _Interrupted("the partial file did not fit and was dropped") from error
    if error.code >= 500 or error.code == 429:
        raise _Interrupted(f"HTTP {error.code} {error.reason}") from error
    raise WeightsError(
        f"{url} answers HTTP {error.code} {error.reason}",
        remedy="The file may have moved: get it elsewhere and put it into the weights folder, or use --mirror.",
    ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
