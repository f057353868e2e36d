"""What is asked for: purposes, subjects, options, and where files come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nsdbench.data.needs import PURPOSES, SOURCES, Purpose, Source
from nsdbench.data.options import LoadOptions
from nsdbench.errors import UsageError
from nsdbench.store import nearest

PUBLIC_ENDPOINT = "https://natural-scenes-dataset.s3.amazonaws.com"
_OF_SPLIT: dict[str, Purpose] = {"vision": "imagery", "imagery": "imagery", "shared1000": "shared1000"}


@dataclass(frozen=True)
class Request:
    """What should lie under ``root`` afterwards.

    Attributes
    ----------
    root : Path
        Directory of the data set; created if absent.
    purposes, options
        As in :func:`nsdbench.data.needs.needs`.
    subjects : tuple of int or None
        None means those of the protocol, as far as the data set has them.
    source : {"bucket", "mindeye2"} or None
        Where core trials come from; None means the bucket, unless MindEye2's prepared betas are there already.
    endpoint : str
        The bucket or a mirror of it.
    hub_endpoint : str or None
        The hub or a mirror of it; None means the usual one.
    """

    root: Path
    purposes: tuple[Purpose, ...]
    subjects: tuple[int, ...] | None = None
    options: LoadOptions = field(default_factory=LoadOptions)
    source: Source | None = None
    endpoint: str = PUBLIC_ENDPOINT
    hub_endpoint: str | None = None

    def __post_init__(self) -> None:
        existing = nearest(self.root)
        if not existing.is_dir():
            raise UsageError(f"{existing} is a file, not a directory", remedy="Give another --data-dir.")
        for address in filter(None, (self.endpoint, self.hub_endpoint)):
            if not re.match(r"https?://[^/]", address):
                raise UsageError(
                    f"{address} is not a web address", remedy="Give a mirror as https://host/folder."
                )
        if self.source not in (None, *SOURCES):
            raise UsageError(
                f"there is no source {self.source!r}", remedy=f"Choose from: {', '.join(SOURCES)}."
            )


def purposes_of(names: str | None, splits: tuple[str, ...]) -> tuple[Purpose, ...]:
    """Return the purposes that ``--for`` and ``--split`` name together; nothing named means ``imagery``.

    Raises
    ------
    UsageError
        If a purpose does not exist.
    """
    wanted = {_OF_SPLIT[split] for split in splits}
    for name in filter(None, (part.strip() for part in (names or "").split(","))):
        if name == "all":
            wanted |= {"imagery", "train", "shared1000"}
            continue
        if name not in PURPOSES:
            raise UsageError(
                f"there is nothing to fetch for {name!r}",
                remedy=f"Choose from: {', '.join(PURPOSES)}, all (the first three).",
            )
        wanted.add(name)
    return tuple(p for p in PURPOSES if p in (wanted or {"imagery"}))
