"""Arrow schemas of the two tables nsdbench writes: item scores and leaderboards."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
