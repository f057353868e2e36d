"""Where files come from: the public bucket, and the repositories on the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from nsdbench.data.needs import Need
from nsdbench.errors import MissingObject, RefusedByServer, WeightsError
from nsdbench.transfer import Client, Proof, Remote
from nsdbench.weights.entry import HubFile
from nsdbench.weights.hub import endpoint, inquire, token


@dataclass(frozen=True)
class Found:
    """One object on a server: its address, its size, what is known of its content.

    ``remote`` is what the server said; None where the transfer should ask for itself.
    """

    url: str
    size: int | None
    proof: Proof
    remote: Remote | None
    client: Client


@dataclass(frozen=True)
class Bucket:
    """The public bucket over plain HTTPS, anonymously, or a mirror with the same keys."""

    client: Client
    endpoint: str

    def url(self, key: str) -> str:
        """Return the address of a key."""
        return f"{self.endpoint.rstrip('/')}/{quote(key)}"

    def find(self, key: str) -> Found:
        """Ask the server for one object.

        Raises
        ------
        FetchError
            ``MissingObject``, ``RefusedByServer`` or ``Unreachable``.
        """
        remote = self.client.head(self.url(key))
        return Found(self.url(key), remote.size, Proof(), remote, self.client)


@dataclass(frozen=True)
class Hub:
    """Data set repositories on the hub; addresses are pinned to the commit that the metadata name."""

    client: Client
    endpoint: str | None

    def find(self, repo: str, name: str) -> Found:
        """Ask the hub for one file; raises as :meth:`Bucket.find`."""
        try:
            facts = inquire(HubFile(repo, name, kind="dataset"), endpoint(self.endpoint))
        except WeightsError as error:
            raise RefusedByServer(error.message, remedy=error.remedy) from error
        except MissingObject as error:
            raise MissingObject(error.message, remedy="It may have moved; use --source bucket.") from error
        proof = Proof(size=facts.size, sha256=facts.sha256)
        return Found(facts.url, facts.size, proof, None, self.client)


@dataclass(frozen=True)
class Routes:
    """All places at once."""

    bucket: Bucket
    hub: Hub

    def find(self, need: Need) -> Found:
        """Ask for one file wherever it lies."""
        if need.repo is None:
            return self.bucket.find(need.key)
        return self.hub.find(need.repo, PurePosixPath(need.key).name)


@contextlib.contextmanager
def open_routes(bucket: str, hub: str | None) -> Iterator[Routes]:
    """Open the connections of both places. The hub's token goes to the hub only."""
    known_as = token()
    headers = {"Authorization": f"Bearer {known_as}"} if known_as else {}
    with Client() as anonymous, Client(headers=headers) as known:
        yield Routes(Bucket(anonymous, bucket), Hub(known, hub))
