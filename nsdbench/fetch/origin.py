"""Which data set a server holds: the real NSD, or a generated one that says so. The two never share a directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nsdbench.data.facts import MARKER_NAME, Expectations, marker_expectations, nsd_expectations
from nsdbench.data.fetched import RECORD_NAME
from nsdbench.data.layout import Layout
from nsdbench.data.needs import PREPARED_FOLDER, PREPARED_REPO
from nsdbench.data.session import target_names
from nsdbench.errors import DataError, MissingObject, RefusedByServer, UsageError
from nsdbench.fetch.routes import Found, Routes
from nsdbench.store import locked, read_json, write_json
from nsdbench.transfer import fetch
from nsdbench.weights.planning import OFFLINE_VARIABLES, How

_LARGEST = 16 * 2**20  # bytes of a marker or a pair list: they have a few kilobytes
_FOLDERS = ("nsddata", "nsddata_betas", "nsddata_stimuli", PREPARED_FOLDER)
_WRONG_PLACE = "Is it the bucket of NSD or a mirror of it? Check --endpoint, or a proxy in between."


@dataclass(frozen=True)
class Origin:
    """What a server or a directory holds.

    Attributes
    ----------
    expectations : Expectations
        The real NSD, or what the marker declares.
    marker : mapping or None
        Content of the marker file; None for the real NSD.
    names : mapping of str to str, or None
        Target names of a generated data set by target id.
    """

    expectations: Expectations
    marker: Mapping[str, Any] | None = None
    names: Mapping[str, str] | None = None


def ask(routes: Routes, *, prepared: bool) -> Origin:
    """Return what the bucket holds. The public bucket has no marker; that makes it the real NSD.

    Parameters
    ----------
    prepared : bool
        Whether MindEye2's repository is used as well; it then must belong to the same data set.

    Raises
    ------
    FetchError, DataError, UsageError
        If a server does not answer, its marker is damaged, the two hold different data sets, or no connection may be
        tried.
    """
    if How().unconnected:
        raise UsageError(
            f"no connection is tried ({' or '.join(OFFLINE_VARIABLES)})",
            remedy="Unset it; or say what is missing, and how large it is, with `nsdbench data fetch --offline`.",
        )
    with TemporaryDirectory(prefix="nsdbench-") as folder:
        scratch = Path(folder)
        try:
            found: Found | None = routes.bucket.find(MARKER_NAME)
        except (MissingObject, RefusedByServer):  # S3 answers 403 where it may not say 404
            found = None
        marker = _read_marker(found, scratch / MARKER_NAME)
        if prepared and _hub_marker(routes, scratch / "hub.json") != marker:
            raise UsageError(
                f"{routes.bucket.endpoint} and {PREPARED_REPO} on the hub hold different data sets",
                remedy="Leave out --endpoint and --hub-endpoint, or use --source bucket.",
            )
        if marker is None:
            return Origin(nsd_expectations())
        return Origin(marker_expectations(marker), marker, _names(routes, scratch))


def local(root: Path) -> Origin:
    """Return what a directory holds; an empty or absent one counts as the real NSD."""
    marker = _own_marker(root)
    return Origin(nsd_expectations() if marker is None else marker_expectations(marker), marker)


def check_same(root: Path, origin: Origin, endpoint: str) -> None:
    """Raise a UsageError if files of ``origin`` would come to lie beside those of another data set."""
    own = _own_marker(root)
    if own == origin.marker or (own is None and not _holds_files(root)):
        return
    here, there = (_called(marker) for marker in (own, origin.marker))
    raise UsageError(
        f"{root} holds {here}, but {endpoint} holds {there}; they must not be mixed",
        remedy="Give another --data-dir (or another --endpoint).",
    )


def claim(root: Path, origin: Origin, endpoint: str) -> None:
    """Create the directory and mark it as that of ``origin``, before any of its files arrive."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        check_same(root, origin, endpoint)
        if origin.marker is not None and _own_marker(root) is None:
            write_json(root / MARKER_NAME, dict(origin.marker))


def _called(marker: Mapping[str, Any] | None) -> str:
    if marker is None:
        return "the real NSD (no marker file)"
    return f"the generated data set {marker.get('dataset')!r} ({marker.get('hash')})"


def _own_marker(root: Path) -> Mapping[str, Any] | None:
    return _object(root / MARKER_NAME, str(root)) if (root / MARKER_NAME).is_file() else None


def _holds_files(root: Path) -> bool:
    if (root / RECORD_NAME).is_file() or Layout(root).prepared is not None:
        return True
    return any(path.is_file() for name in _FOLDERS for path in (root / name).rglob("*"))


def _read_marker(found: Found | None, path: Path) -> Mapping[str, Any] | None:
    if found is None:
        return None
    _bring(found, path)
    return _object(path, found.url)


def _hub_marker(routes: Routes, path: Path) -> Mapping[str, Any] | None:
    try:
        return _read_marker(routes.hub.find(PREPARED_REPO, MARKER_NAME), path)
    except MissingObject:
        return None


def _object(path: Path, where: str) -> Mapping[str, Any]:
    try:
        value = read_json(path)
    except DataError as error:
        raise DataError(
            f"{where} answers for {MARKER_NAME} with something that is not JSON",
            remedy=_WRONG_PLACE,
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{MARKER_NAME} of {where} is not a JSON object", remedy=_WRONG_PLACE)
    return value


def _names(routes: Routes, scratch: Path) -> Mapping[str, str] | None:
    """Return the target names of a generated data set, or None where its pair lists are not on the server."""
    layout = Layout(scratch)
    for stimulus_set in "ABC":
        path = layout.pair_list(stimulus_set)
        try:
            found = routes.bucket.find(path.relative_to(scratch).as_posix())
        except (MissingObject, RefusedByServer):
            return None
        _bring(found, path)
    return target_names(layout)


def _bring(found: Found, path: Path) -> None:
    """Fetch a small file, which goes to a temporary folder before anybody agreed to its size."""
    meter = _Small(found.url)
    fetch(found.client, found.url, path, proof=found.proof, remote=found.remote, meter=meter, connections=1)


@dataclass
class _Small:
    """Ends a transfer of more than a small file has."""

    url: str
    announced: int = 0
    arrived: int = 0

    def expect(self, n_bytes: int) -> None:
        self.announced += n_bytes
        self._check()

    def advance(self, n_bytes: int) -> None:
        self.arrived += n_bytes
        self._check()

    def _check(self) -> None:
        if max(self.announced, self.arrived) > _LARGEST:
            raise DataError(f"{self.url} is larger than {_LARGEST} bytes", remedy=_WRONG_PLACE)
