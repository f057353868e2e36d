"""Arrow schemas of the two tables nsdbench writes: item scores and leaderboards."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import pyarrow as pa

from nsdbench.errors import UsageError

ITEMS_ID = "scores/1"
LEADERBOARD_ID = "leaderboard/1"
SCHEMA_KEY = b"nsdbench.schema"
VARIANT = "+"
"""Stands in the column ``preset`` between a preset and what is unusual about the fit (``mini+195trials``)."""

# One row per (run_id, stimulus, sample, metric, metric_version, metric_profile, pool).
ITEMS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("preset", pa.string(), nullable=False),
        pa.field("subject", pa.int16(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("stimulus_set", pa.string(), nullable=False),
        pa.field("stimulus", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("metric_version", pa.int32(), nullable=False),
        pa.field("metric_profile", pa.string(), nullable=False),
        # which ground truths a reconstruction was compared with: "AB12", "within6", "all1000", ... ;
        # "none" for metrics that look at one pair only
        pa.field("pool", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=True),
        # the same reconstruction scored against wrong targets: what no information would give
        pa.field("floor", pa.float64(), nullable=True),
        # why the value is null or had to be defined (constant image, ...); null when nothing is to be said
        pa.field("reason", pa.string(), nullable=True),
    ],
    metadata={SCHEMA_KEY: ITEMS_ID.encode()},
)
ITEMS_UNIQUE = ("run_id", "stimulus", "sample", "metric", "metric_version", "metric_profile", "pool")

LEADERBOARD = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("preset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),  # "1" ... "8" or "mean"
        pa.field("stimulus_set", pa.string(), nullable=False),  # "AB", "A", "B", "shared1000", ...
        pa.field("metric", pa.string(), nullable=False),
        pa.field("metric_version", pa.int32(), nullable=False),
        pa.field("metric_profile", pa.string(), nullable=False),
        pa.field("direction", pa.string(), nullable=False),
        pa.field("chance", pa.float64(), nullable=True),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("n_targets", pa.int32(), nullable=True),
        pa.field("n_samples", pa.int32(), nullable=True),
        pa.field("n_subjects", pa.int32(), nullable=True),
        pa.field("n_items_null", pa.int32(), nullable=True),
        pa.field("value", pa.float64(), nullable=True),
        pa.field("value_printed", pa.float64(), nullable=True),
        pa.field("ci_low", pa.float64(), nullable=True),
        pa.field("ci_high", pa.float64(), nullable=True),
        pa.field("ci_level", pa.float64(), nullable=True),
        pa.field("ci_method", pa.string(), nullable=True),
        pa.field("ci_unit", pa.string(), nullable=True),
        pa.field("n_resamples", pa.int32(), nullable=True),
        pa.field("stats_seed", pa.int64(), nullable=True),
        pa.field("protocol_key", pa.string(), nullable=False),
        pa.field("weights_id", pa.string(), nullable=True),
        pa.field("beta_version", pa.string(), nullable=True),
        pa.field("normalization", pa.string(), nullable=True),
        pa.field("averaging", pa.string(), nullable=True),
        pa.field("label_source", pa.string(), nullable=True),
        pa.field("status", pa.string(), nullable=False),  # measured | published | simulated | untrained
        pa.field("source", pa.string(), nullable=True),
        pa.field("run_id", pa.string(), nullable=True),
        pa.field("supersedes", pa.string(), nullable=True),
        pa.field("nsdbench_version", pa.string(), nullable=True),
        pa.field("git_commit", pa.string(), nullable=True),
        pa.field("created_at", pa.string(), nullable=True),
        pa.field("n_voxels", pa.int32(), nullable=True),
        pa.field("decoder_train_trials", pa.int32(), nullable=True),
    ],
    metadata={SCHEMA_KEY: LEADERBOARD_ID.encode()},
)


# letters, digits and ordinary punctuation: nothing that leaves a folder, hides a file or steers a terminal
_PLAIN = re.compile(r"[\w(][\w .,:=+@()-]*")
_LONGEST = 120


@dataclass(frozen=True)
class RunKey:
    """What every item score of one run has in common. All of it becomes part of file names.

    Raises
    ------
    UsageError
        If a text could not be a file name, for example because it leads into another folder.
    """

    run_id: str
    dataset: str
    model: str
    preset: str
    subject: int
    split: str

    def __post_init__(self) -> None:
        for name in ("run_id", "dataset", "model", "preset", "split"):
            text = getattr(self, name)
            if not isinstance(text, str) or not _PLAIN.fullmatch(text) or len(text) > _LONGEST:
                raise UsageError(
                    f"{text!r} cannot be the {name.replace('_', ' ')} of a run",
                    remedy="Use letters, digits, blanks and . , : = + @ ( ) _ -, and begin with a letter or digit; "
                    f"at most {_LONGEST} characters (`nsdbench score` takes --name).",
                )
        if not fits(self.subject, int) or not 0 <= self.subject < 1000:  # 0: nobody, as in the oracle
            raise UsageError(f"{self.subject!r} cannot be the subject of a run")


@dataclass(frozen=True)
class Provenance:
    """What a leaderboard row needs besides the item scores.

    ``stimulus_hash`` and ``dataset_hash`` are not columns; they enter the ``protocol_key``. Nor is ``n_stimuli``, the
    number of targets that could have been scored: what is missing of them is counted in ``n_items_null``.
    """

    status: str
    stimulus_hash: str
    dataset_hash: str
    n_stimuli: int | None = None
    weights_id: str | None = None  # ids of all metric weights used, comma separated; None if none
    beta_version: str | None = None
    normalization: str | None = None
    averaging: str | None = None
    label_source: str | None = None
    source: str | None = None
    supersedes: str | None = None
    nsdbench_version: str | None = None
    git_commit: str | None = None
    created_at: str | None = None
    n_voxels: int | None = None
    decoder_train_trials: int | None = None


def require_types(record: object) -> None:
    """Check the fields of a record that was read from a file.

    Raises
    ------
    TypeError
        If one has another type than it is declared with, or a number no column could hold.
    """
    for name, kind in get_type_hints(type(record)).items():
        if not fits(getattr(record, name), kind):
            raise TypeError(f"{name} is {reprlib.repr(getattr(record, name))}")


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a kind: a class, ``Literal``, ``X | None``, or a list or dict of such."""
    members = get_args(kind)
    match get_origin(kind):
        case None:
            return kind is Any or _is(value, kind)
        case origin if origin is Literal:
            return value in members
        case origin if origin is list:
            return isinstance(value, list) and all(fits(item, members[0]) for item in value)
        case origin if origin is dict:
            return isinstance(value, dict) and all(
                fits(k, members[0]) and fits(v, members[1]) for k, v in value.items()
            )
        case _:
            return any(fits(value, member) for member in members)


def _is(value: object, kind: type) -> bool:
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and (kind is float or abs(cast(int, value)) < 2**31)
    return isinstance(value, kind)
