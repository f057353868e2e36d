"""What ``nsdbench data fetch`` brought: a record beside the files of how each was verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nsdbench.errors import DataError
from nsdbench.store import locked, read_json, sha256_file, write_json

RECORD_NAME = ".nsdbench-fetched.json"
_FORMAT = 1
_VERIFIED = ("sha256", "md5", "etag", "size")


@dataclass(frozen=True)
class FetchedFile:
    """What is known of one fetched file.

    Attributes
    ----------
    size, mtime_ns : int
        As the file was when it was verified.
    sha256 : str
        Of its content.
    verified : {"sha256", "md5", "etag", "size"}
        What the content was held against: a hash known beforehand, the server's checksum, or only the size.
    etag : str or None
        The server's entity tag.
    url : str
        Where it came from, or what it was compared with.
    fetched_at : str
        Time in UTC (ISO 8601).
    """

    size: int
    mtime_ns: int
    sha256: str
    verified: str
    etag: str | None
    url: str
    fetched_at: str

    def __post_init__(self) -> None:
        numbers, words = (self.size, self.mtime_ns), (self.sha256, self.verified, self.url, self.fetched_at)
        sound = all(isinstance(n, int) for n in numbers) and all(isinstance(w, str) for w in words)
        if not sound or self.verified not in _VERIFIED:
            raise ValueError(f"an entry is damaged: {asdict(self)}")

    def fits(self, path: Path) -> bool:
        """Return True if the file has not been touched since: same size and time of change."""
        if not path.is_file():
            return False
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


def read_record(root: Path) -> dict[str, FetchedFile]:
    """Return the record of a data root by key; empty where nothing was fetched.

    Raises
    ------
    DataError
        If the record is damaged.
    """
    path = root / RECORD_NAME
    if not path.exists():
        return {}
    try:
        return {key: FetchedFile(**entry) for key, entry in read_json(path)["files"].items()}
    except (DataError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} is not a record of fetched files ({error})",
            remedy="Delete it: `nsdbench data fetch` then checks the files again and writes a new one.",
        ) from error


def note(root: Path, files: Mapping[str, FetchedFile]) -> None:
    """Add files to the record; several processes may do so at once."""
    with locked(root):
        known = read_record(root) | dict(files)
        write_json(
            root / RECORD_NAME,
            {"format": _FORMAT, "files": {key: asdict(file) for key, file in known.items()}},
        )


def states(root: Path) -> dict[str, int]:
    """Return how many of the fetched files that are still there were verified in which way."""
    record = read_record(root)
    return dict(sorted(Counter(f.verified for key, f in record.items() if (root / key).is_file()).items()))


def changed(root: Path) -> list[str]:
    """Return the keys of files whose content is not what was fetched; files that are gone do not count.

    A file whose size and time are unchanged is not read.
    """
    found = []
    for key, file in sorted(read_record(root).items()):
        path = root / key
        if not path.is_file() or file.fits(path):
            continue
        if path.stat().st_size != file.size or sha256_file(path) != file.sha256:
            found.append(key)
    return found
