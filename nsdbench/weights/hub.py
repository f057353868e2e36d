"""The Hugging Face hub: what it says of a file before the download, and what its own cache already holds."""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsdbench.errors import FetchError, MissingObject, NsdbenchError, Unreachable, UsageError, WeightsError
from nsdbench.weights.entry import HUB, HubFile

ENDPOINT_VARIABLE = "HF_ENDPOINT"
ATTEMPTS = 4
TIMEOUT_S = 30.0
PAUSE_S = 1.0  # before the second attempt; doubles after each
_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFacts:
    """What the hub says of a file.

    Attributes
    ----------
    url : str
        Where this very content stays, whatever happens to the branch.
    size : int or None
        In bytes.
    commit : str or None
        Commit of the repository.
    sha256 : str or None
        Hash of the content, for large files.
    git_sha1 : str or None
        Git's hash of the content, for small ones.
    """

    url: str
    size: int | None
    commit: str | None
    sha256: str | None
    git_sha1: str | None


def endpoint(given: str | None = None) -> str:
    """Return the address of the hub: ``given``, else ``$HF_ENDPOINT``, else huggingface.co.

    Raises
    ------
    UsageError
        If it is no web address.
    """
    address = (given or os.environ.get(ENDPOINT_VARIABLE) or HUB).rstrip("/")
    if not address.startswith(("https://", "http://")):
        raise UsageError(
            f"{address} is not a web address",
            remedy=f"Give a mirror of the hub as https://host, also in {ENDPOINT_VARIABLE}.",
        )
    return address


def token() -> str | None:
    """Return the user's token: ``$HF_TOKEN``, or what ``hf auth login`` has left."""
    from huggingface_hub import get_token

    return get_token()


def inquire(file: HubFile, at: str) -> HubFacts:
    """Ask the hub about a file, with the user's token if there is one; it is sent to that host only.

    Parameters
    ----------
    file : HubFile
    at : str
        Address of the hub or a mirror of it; see :func:`endpoint`.

    Raises
    ------
    WeightsError
        If the terms of the repository have to be accepted first, or the token does not open it.
    FetchError
        If there is no such file, or the hub cannot be reached.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _facts(file, at)
        except Unreachable:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError


def _facts(file: HubFile, at: str) -> HubFacts:
    from huggingface_hub import get_hf_file_metadata

    try:
        found = get_hf_file_metadata(file.url(at), token=token() or False, timeout=TIMEOUT_S)
    except (
        Exception
    ) as error:  # its errors derive from those of the HTTP library, which differs between versions
        raise _judged(error, file, at) from error
    etag = found.etag or ""
    return HubFacts(
        file.url(at, found.commit_hash),
        found.size,
        found.commit_hash,
        etag if _SHA256.fullmatch(etag) else None,
        etag if _SHA1.fullmatch(etag) else None,
    )


def _judged(error: Exception, file: HubFile, at: str) -> NsdbenchError:
    """Return the error that says what went wrong in terms of what the user can do."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        return refused(file, at)
    if isinstance(error, errors.RepositoryNotFoundError):
        return refused(file, at) if status != 404 else _absent(file, at)
    if isinstance(error, (errors.EntryNotFoundError, errors.RevisionNotFoundError)) or status == 404:
        return _absent(file, at)
    reason = f"HTTP {status}" if status else (str(error).strip().splitlines() or [type(error).__name__])[0]
    if status is not None and status < 500 and status != 429:
        return FetchError(f"{file.url(at)} answers {reason}", remedy="Try again later, or another endpoint.")
    return Unreachable(
        f"{at} could not be asked about {file.path} of {file.repo} ({reason})",
        remedy="Check the connection. A mirror of the hub can be named in HF_ENDPOINT.",
    )


def refused(file: HubFile, at: str) -> WeightsError:
    """Return the error for a repository that the user may not read, or not yet."""
    known = "the token does not open it" if token() else "it asks who you are"
    return WeightsError(
        f"the hub does not give out {file.path} of {file.repo}: {known}",
        remedy=f"Log in and accept the terms on {file.page(at)}; then `hf auth login`, or set HF_TOKEN to a token "
        "that may read this repository, and run the same command again.",
    )


def _absent(file: HubFile, at: str) -> MissingObject:
    return MissingObject(
        f"{file.page(at)} has no {file.path} ({file.revision})",
        remedy="It may have moved: get it elsewhere and put it into the weights folder, or use --mirror.",
    )


@dataclass(frozen=True)
class Cached:
    """A file in the cache of huggingface_hub, which names content by its hash; that hash is not checked yet."""

    content: Path
    commit: str | None

    @property
    def sha256(self) -> str | None:
        """The hash that the hub gave for the content, if it is a large file."""
        return self.content.name if _SHA256.fullmatch(self.content.name) else None

    def is_content(self, path: Path, sha256: str) -> bool:
        """Whether ``path``, a copy whose hash was computed, is what the hub calls by this name."""
        name = self.content.name
        return sha256 == name or (bool(_SHA1.fullmatch(name)) and git_sha1(path) == name)


def cached(file: HubFile) -> Cached | None:
    """Return the file in the cache of huggingface_hub, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found: Any = try_to_load_from_cache(
            file.repo, file.path, cache_dir=_cache(), revision=file.revision, repo_type=file.kind
        )
    except (OSError, ValueError):
        return None
    if not isinstance(found, str) or not Path(found).is_file():
        return None
    _, _, below = found.rpartition(f"{os.sep}snapshots{os.sep}")
    return Cached(Path(found).resolve(), below.partition(os.sep)[0] or None)


def _cache() -> str | None:
    """Return where the cache is by today's environment; None for huggingface_hub's own default."""
    home = os.environ.get("HF_HOME")
    return os.environ.get("HF_HUB_CACHE") or (str(Path(home) / "hub") if home else None)


def git_sha1(path: Path) -> str:
    """Return the hash that git gives the content of a file."""
    hasher = hashlib.sha1(usedforsecurity=False)
    hasher.update(f"blob {path.stat().st_size}\0".encode())
    hasher.update(path.read_bytes())
    return hasher.hexdigest()
