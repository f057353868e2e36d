"""What is known of one weights file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class HubFile:
    """Where a file lies on the Hugging Face hub.

    Attributes
    ----------
    repo : str
        ``owner/name``.
    path : str
        Path in the repository.
    kind : {"model", "dataset"}
        Type of the repository.
    revision : str
        Branch, tag or commit.
    """

    repo: str
    path: str
    kind: Literal["model", "dataset"] = "model"
    revision: str = "main"

    def page(self, endpoint: str = HUB) -> str:
        """Return the page of the repository, where its terms are."""
        return f"{endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"

    def url(self, endpoint: str = HUB, revision: str | None = None) -> str:
        """Return the address of the file, of ``revision`` if given."""
        return f"{self.page(endpoint)}/resolve/{quote(revision or self.revision, safe='')}/{quote(self.path)}"


def size_text(n_bytes: int | None, *, exact: bool = True, at_least: bool = False) -> str:
    """Return a size in words: ``8.91 GB``, ``~8.91 GB`` if estimated, ``>4.01 GB`` if that is a part of it."""
    if n_bytes is None:
        return "? GB"
    value, unit = float(n_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    digits = f"{value:.0f}" if unit == "B" or value >= 100 else f"{value:.3g}"
    return f"{'' if exact else '>' if at_least else '~'}{digits} {unit}"


@dataclass(frozen=True)
class Weights:
    """One weights file.

    Attributes
    ----------
    id : str
        Name in nsdbench; results made with the file carry it (or ``same_as``).
    filename : str
        Name in the weights folder.
    origin : str or HubFile
        Where the authors publish it: an address, or a file on the hub.
    licence : str
        Licence or terms, as far as the authors state them.
    source : str
        What it is: architecture, training data, publication.
    used_by : tuple of str
        Metrics that need it under their canonical profile.
    sha256 : str or None
        Full hash, or None if nobody published one: then the first file seen is pinned.
    sha256_prefixes : tuple of str
        First hex digits that the hash may have, for files that carry them in their name.
    md5 : str or None
        Full MD5, where the authors publish that alone; compared before the SHA-256 is pinned.
    size : int or None
        Size in bytes, where it is known exactly.
    about : int or None
        Roughly the size in bytes where it is not.
    at_least : bool
        Whether ``about`` counts only a part of what is in the file.
    same_as : str or None
        Id of the weights that this file repackages in another format; it is used when that one is absent.
    unused : tuple of str
        Beginnings of the names in the file that no model needs; conversion leaves them out.
    """

    id: str
    filename: str
    origin: str | HubFile
    licence: str
    source: str
    used_by: tuple[str, ...] = ()
    sha256: str | None = None
    sha256_prefixes: tuple[str, ...] = ()
    md5: str | None = None
    size: int | None = None
    about: int | None = None
    at_least: bool = False
    same_as: str | None = None
    unused: tuple[str, ...] = ()

    @property
    def hub(self) -> HubFile | None:
        """Where it is on the hub, if it is."""
        return self.origin if isinstance(self.origin, HubFile) else None

    @property
    def url(self) -> str:
        """Where the authors publish it."""
        return self.origin.url() if isinstance(self.origin, HubFile) else self.origin

    @property
    def n_bytes(self) -> int | None:
        """Size in bytes, exactly or roughly; None where nothing is known of it."""
        return self.size if self.size is not None else self.about

    @property
    def size_text(self) -> str:
        """Size in words."""
        return size_text(self.n_bytes, exact=self.size is not None, at_least=self.at_least)

    @property
    def published(self) -> Literal["sha256", "md5", "sha256 digits", ""]:
        """What the authors published that can prove a file to be theirs."""
        if self.sha256:
            return "sha256"
        return "md5" if self.md5 else "sha256 digits" if self.sha256_prefixes else ""

    def accepts(self, sha256: str) -> bool:
        """Whether a file with this hash can be the published one."""
        return sha256.startswith((self.sha256,) if self.sha256 else self.sha256_prefixes or "")

    @property
    def expected(self) -> str:
        """The published hash in words."""
        return self.sha256 or " or ".join(f"{prefix}..." for prefix in self.sha256_prefixes)
