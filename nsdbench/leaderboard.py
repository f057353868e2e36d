"""Item scores and leaderboards on disk: checked, sorted, written atomically, upgraded when old.

A leaderboard is either a directory with one Parquet file per run (nothing is shared, so any number of processes may
write at once) or one merged file. Content is deterministic: equal tables give equal bytes with one pyarrow version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nsdbench import groups, summary
from nsdbench.errors import DataError, LeaderboardError
from nsdbench.schema import ITEMS, LEADERBOARD, SCHEMA_KEY, Provenance, require_types
from nsdbench.stats import N_RESAMPLES
from nsdbench.store import atomic_path, read_json
from nsdbench.summary import protocol_key
from nsdbench.types import SPLITS

# metadata of item scores: JSON object, run id -> SHA-256 of the scored reconstructions
RECONSTRUCTIONS_KEY = b"nsdbench.reconstructions"
MAX_ROWS = 20_000_000
MAX_TEXT_BYTES = 8 * 2**30
STATUSES = ("measured", "published", "simulated", "untrained")
DIRECTIONS = ("higher", "lower")
LEADERBOARD_KEY = (
    "split", "stimulus_set", "pool", "metric", "metric_profile", "metric_version", "dataset", "model", "preset",
    "subject", "protocol_key", "source", "run_id",
)  # fmt: skip
# schema.ITEMS_UNIQUE in the order in which rows are sorted
ITEMS_KEY = ("run_id", "metric", "metric_profile", "metric_version", "pool", "stimulus", "sample")

# Old schema id -> function that turns a table of it into the next version ("scores/1" -> "scores/2").
# Every version ever released keeps a fixture file in the tests.
UPGRADES: dict[str, Callable[[pa.Table], pa.Table]] = {}


def validate_items(table: pa.Table) -> pa.Table:
    """Return item scores cast to the schema and sorted.

    Raises
    ------
    LeaderboardError
        For wrong columns or types, NaN, a missing value without reason, or a repeated key.
    """
    table = _conform(table, ITEMS)
    _allowed(table, "split", SPLITS)
    unexplained = pc.and_(pc.is_null(table["value"]), pc.is_null(table["reason"]))
    if pc.any(unexplained, min_count=0).as_py():
        raise LeaderboardError(
            f"item scores: {_describe(table, ITEMS_KEY, unexplained)} has neither a value nor a reason",
            remedy="Say in `reason` why the value is undefined.",
        )
    return _sorted_unique(table, ITEMS_KEY)


def validate(table: pa.Table) -> pa.Table:
    """Return leaderboard rows cast to the schema and sorted.

    Raises
    ------
    LeaderboardError
        For wrong columns or types, NaN, unknown status, split or direction, a row that names neither its run nor
        its source, or a repeated key.
    """
    table = _conform(table, LEADERBOARD)
    for name, allowed in (("split", SPLITS), ("status", STATUSES), ("direction", DIRECTIONS)):
        _allowed(table, name, allowed)
    orphan = pc.and_(pc.is_null(table["run_id"]), pc.is_null(table["source"]))
    if pc.any(orphan, min_count=0).as_py():
        raise LeaderboardError(
            f"leaderboard: {_describe(table, LEADERBOARD_KEY, orphan)} has no run_id and no source"
        )
    return _sorted_unique(table, LEADERBOARD_KEY)


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Select and cast the columns of ``schema``; refuse extra, missing, null and NaN ones."""
    kind = schema.metadata[SCHEMA_KEY].decode()
    _require_columns(table.column_names, schema)
    for field in schema:
        if not field.nullable and (empty := table[field.name].null_count):
            raise LeaderboardError(f"{kind}: column {field.name} has {empty} empty cells")
    kept = {k: v for k, v in (table.schema.metadata or {}).items() if k == RECONSTRUCTIONS_KEY}
    try:
        cast = table.select(schema.names).cast(schema).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise LeaderboardError(f"table does not have the types of {kind}: {error}") from error
    for field in schema:
        column = cast[field.name]
        if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(column), min_count=0).as_py():
            raise LeaderboardError(
                f"{kind}: column {field.name} holds NaN or infinity",
                remedy="Undefined values are null, with a reason.",
            )
        if pa.types.is_string(field.type):
            _printable(column, f"{kind}: column {field.name}")
    return cast.replace_schema_metadata({**schema.metadata, **kept})


def _require_columns(names: list[str], schema: pa.Schema) -> None:
    wrong = [f"{n} is missing" for n in schema.names if n not in names]
    wrong += [f"{n} is unknown" for n in names if n not in schema.names]
    if wrong or len(names) != len(schema.names):
        kind = schema.metadata[SCHEMA_KEY].decode()
        raise LeaderboardError(
            f"table does not have the columns of {kind}: {', '.join(wrong[:5]) or 'repeated names'}"
        )


def _printable(column: pa.ChunkedArray, where: str) -> None:
    """Refuse texts that would steer the terminal they are shown on: control characters, reversed writing."""
    for text in pc.unique(column).to_pylist():
        if text is not None and not text.isprintable():
            raise LeaderboardError(f"{where} holds {text!r}, which has characters that cannot be shown")


def _allowed(table: pa.Table, name: str, allowed: Iterable[str]) -> None:
    unknown = sorted(set(pc.unique(table[name]).to_pylist()) - set(allowed))
    if unknown:
        raise LeaderboardError(
            f"column {name} holds {unknown[0]!r}", remedy=f"Allowed: {', '.join(allowed)}."
        )


def _sorted_unique(table: pa.Table, key: tuple[str, ...]) -> pa.Table:
    table = groups.sort(table, key)
    repeats = np.setdiff1d(np.arange(len(table)), groups.starts(table, key))
    if len(repeats):
        row = table.slice(repeats[0], 1).select(key).to_pylist()[0]
        raise LeaderboardError(f"{len(repeats)} rows repeat the key of another one, first: {_named(row)}")
    return table


def _named(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())


def _describe(table: pa.Table, key: tuple[str, ...], mask: pa.ChunkedArray) -> str:
    return _named(table.filter(mask).slice(0, 1).select(key).to_pylist()[0])


def write_items(
    path: Path, table: pa.Table, *, reconstructions: str | Mapping[str, str] | None = None
) -> None:
    """Write item scores, atomically.

    Parameters
    ----------
    path : Path
        Parquet file.
    table : pa.Table
        Item scores; see :data:`nsdbench.schema.ITEMS`.
    reconstructions : str or mapping, optional
        SHA-256 of the scored reconstructions, by run id where the table holds several runs. It travels with the
        table, and ``nsdbench check`` uses it to tell identical reconstructions from regenerated ones.
    """
    table = validate_items(table)
    if reconstructions is not None:
        if isinstance(reconstructions, str):
            reconstructions = dict.fromkeys(pc.unique(table["run_id"]).to_pylist(), reconstructions)
        table = _with_reconstructions(table, reconstructions)
    _write(path, table)


def write(path: Path, table: pa.Table) -> None:
    """Write leaderboard rows into one file, atomically."""
    _write(path, validate(table))


def _write(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", compression_level=9, version="2.6", write_page_index=False
        )


def reconstructions(table: pa.Table) -> dict[str, str]:
    """Return the SHA-256 of the reconstructions behind item scores by run id, as far as it is known."""
    stored = (table.schema.metadata or {}).get(RECONSTRUCTIONS_KEY)
    return dict(json.loads(stored)) if stored else {}


def _with_reconstructions(table: pa.Table, hashes: Mapping[str, str]) -> pa.Table:
    metadata = {
        **(table.schema.metadata or {}),
        RECONSTRUCTIONS_KEY: json.dumps(dict(sorted(hashes.items()))),
    }
    return table.replace_schema_metadata(metadata)


def read_items(path: Path) -> pa.Table:
    """Read item scores from a Parquet file or from the ``scores.parquet`` of a complete run folder.

    Raises
    ------
    LeaderboardError
        If the file is missing, is not Parquet, has another schema, or the run is not complete.
    """
    if not path.is_dir():
        return validate_items(_load(path, ITEMS))
    document = run_document(path)
    if document.get("status") != "complete":
        raise LeaderboardError(
            f"{path} is a run with status {document.get('status')!r}, only complete runs count",
            remedy="Run the same command again; it continues where it stopped.",
        )
    table = validate_items(_load(path / "scores.parquet", ITEMS))
    sha256 = document.get("reconstructions_sha256")
    if not sha256:
        return table
    known = dict.fromkeys(pc.unique(table["run_id"]).to_pylist(), str(sha256))
    return _with_reconstructions(table, known | reconstructions(table))


def run_document(folder: Path) -> dict[str, Any]:
    """Return the content of ``run.json`` of a run folder."""
    try:
        document = read_json(folder / "run.json")
    except DataError as error:
        raise LeaderboardError(
            f"{folder} is not a run folder: {error.message}", remedy=error.remedy
        ) from error
    if not isinstance(document, dict):
        raise LeaderboardError(f"{folder / 'run.json'} is not a JSON object")
    return document


def merge_items(tables: Iterable[pa.Table]) -> pa.Table:
    """Join item scores of several runs; a run that is there twice must be equal both times."""
    tables = list(tables)
    hashes: dict[str, str] = {}
    runs: list[str] = []
    for table in tables:
        hashes |= reconstructions(table)
        runs += pc.unique(table["run_id"]).to_pylist()
    joined = pa.concat_tables(
        [t.replace_schema_metadata(ITEMS.metadata) for t in tables or [ITEMS.empty_table()]]
    )
    if len(set(runs)) < len(runs):
        joined = validate_items(groups.distinct(joined, ITEMS_KEY))
    return _with_reconstructions(joined, hashes) if hashes else joined


def read_file(path: Path) -> pa.Table:
    """Read one Parquet file, whichever of the two tables it holds; only item scores have a column ``stimulus``."""
    return read_items(path) if schema_id(path).startswith("scores/") else validate(_load(path, LEADERBOARD))


def read(paths: Path | Iterable[Path]) -> pa.Table:
    """Read leaderboards: merged files, directories of run files, or run folders.

    Run folders have their leaderboard rows computed from their item scores. Temporary files of writers at work
    (names starting with a dot) are left out.

    Raises
    ------
    LeaderboardError
        If a path is missing or holds something else.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    return merge(_read_one(path) for path in paths)


def _read_one(path: Path) -> pa.Table:
    if not path.is_dir():
        return validate(_load(path, LEADERBOARD))
    if (path / "run.json").is_file():
        return summarize(read_items(path), run_provenance(path))
    return merge(validate(_load(file, LEADERBOARD)) for file in parquet_files(path))


def run_provenance(folder: Path) -> Provenance:
    """Return what ``run.json`` says about the origin of a run's scores."""
    try:
        origin = Provenance(**run_document(folder).get("provenance", {}))
        require_types(origin)
    except TypeError as error:
        raise LeaderboardError(f"{folder / 'run.json'}: provenance is unreadable ({error})") from error
    if origin.status not in STATUSES:
        raise LeaderboardError(f"{folder / 'run.json'}: unknown status {origin.status!r} of the scores")
    return origin


def parquet_files(directory: Path) -> list[Path]:
    """Return the finished Parquet files below ``directory`` in ascending order."""
    return sorted(p for p in directory.rglob("*.parquet") if not p.name.startswith("."))


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Join leaderboards; rows that are equal in every column count once."""
    joined = pa.concat_tables(list(tables) or [LEADERBOARD.empty_table()])
    return validate(groups.distinct(joined, LEADERBOARD_KEY))


def append(directory: Path, table: pa.Table) -> list[Path]:
    """Add rows to a leaderboard directory: one file per run id, written beside and renamed.

    Appending a run again replaces its file. Nothing else is touched, so processes need no lock.

    Returns
    -------
    list of Path
        The files written.
    """
    table = validate(table)
    if table["run_id"].null_count:
        raise LeaderboardError("rows without run_id cannot be appended to a leaderboard directory")
    files = []
    for run_id in pc.unique(table["run_id"]).to_pylist():
        if not run_id or Path(run_id).name != run_id or run_id.startswith("."):
            raise LeaderboardError(f"run id {run_id!r} cannot be a file name")
        files.append(directory / f"{run_id}.parquet")
        write(files[-1], table.filter(pc.equal(table["run_id"], run_id)))
    return files


def _load(path: Path, schema: pa.Schema) -> pa.Table:
    """Read one Parquet file and bring it to the present version of ``schema``."""
    wanted = schema.metadata[SCHEMA_KEY].decode()
    found = schema_id(path)
    kind, _, version = found.partition("/")
    if kind != wanted.partition("/")[0] or not re.fullmatch("[0-9]{1,6}", version):
        raise LeaderboardError(f"{path} holds {found[:50] or 'a table of unknown schema'}, not {wanted}")
    if int(version) > int(wanted.partition("/")[2]):
        raise LeaderboardError(
            f"{path} was written by a newer nsdbench ({found}; this one knows {wanted})",
            remedy="Upgrade nsdbench.",
        )
    try:
        table = _read_bounded(path, schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LeaderboardError(f"{path} is damaged: {error}") from error
    while found != wanted:
        if found not in UPGRADES:
            raise LeaderboardError(f"{path}: no upgrade from {found} to {wanted} is known")
        table = UPGRADES[found](table)
        found = f"{kind}/{int(found.partition('/')[2]) + 1}"
    return table


def _read_bounded(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table whose columns are known before they are read, and which cannot take all memory."""
    found = pq.read_schema(path)
    if schema.metadata[SCHEMA_KEY] == found.metadata[SCHEMA_KEY]:
        _require_columns(found.names, schema)
    texts = [field.name for field in found if pa.types.is_string(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        if file.metadata.num_rows > MAX_ROWS:
            raise LeaderboardError(f"{path} declares {file.metadata.num_rows} rows; the limit is {MAX_ROWS}")
        table = file.read()
    for column in table.columns:
        # each text is stored once, however many rows repeat it
        repeated = [chunk for chunk in column.chunks if isinstance(chunk, pa.DictionaryArray)]
        longest = max((pc.max(pc.binary_length(c.dictionary)).as_py() or 0 for c in repeated), default=0)
        if longest * len(table) > MAX_TEXT_BYTES:
            raise LeaderboardError(f"{path} repeats a text of {longest} characters in {len(table)} rows")
    return table


def schema_id(path: Path) -> str:
    """Return the nsdbench schema id of a Parquet file, empty if it has none.

    Raises
    ------
    LeaderboardError
        If the file is missing or is not Parquet.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise LeaderboardError(f"{path} is not a regular file")
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise LeaderboardError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LeaderboardError(
            f"{path} is not a Parquet file: {error}",
            remedy="In a run folder, delete it: `nsdbench score` makes it again from the reconstructions.",
        ) from error
    return str(metadata.get(SCHEMA_KEY, b"").decode(errors="backslashreplace"))


def summarize(
    items: pa.Table,
    provenance: Provenance | Mapping[str, Provenance],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> pa.Table:
    """Turn item scores into leaderboard rows.

    Per metric, profile, pool and stimulus set ("AB", "A" and "B" on NSD-Imagery) there is one row per subject and,
    where the items hold several subjects, a row "mean" over them. Samples are averaged first, then targets, then
    subjects; the interval is BCa over targets, drawn jointly for all subjects (:func:`nsdbench.stats.bca`).

    Parameters
    ----------
    items : pa.Table
        Item scores, at most one run per model, subject and split.
    provenance : Provenance or mapping of str to Provenance
        Origin of the scores, by run id if it differs between runs.
    seed, n_resamples : int
        Seed and number of bootstrap resamples.

    Raises
    ------
    LeaderboardError
        If two runs of the same model, subject and split are mixed.
    """
    items = validate_items(items)
    if isinstance(provenance, Provenance):
        provenance = dict.fromkeys(pc.unique(items["run_id"]).to_pylist(), provenance)
    rows = summary.summarize(items, provenance, seed=seed, n_resamples=n_resamples)
    try:
        table = pa.Table.from_pylist(rows, schema=LEADERBOARD)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LeaderboardError(
            f"the provenance of the scores has a field of the wrong type: {error}"
        ) from error
    return validate(table)


__all__ = [
    "append", "merge", "merge_items", "protocol_key", "read", "read_file", "read_items", "reconstructions", "schema_id", "summarize",
    "validate", "validate_items", "write", "write_items",
]  # fmt: skip
