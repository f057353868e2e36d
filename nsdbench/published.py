"""Published results as leaderboards: what papers and authors' files say, with source, profile and known offsets.

Published values are facts with a provenance, never a standard of their own: two sources share a protocol key only if
they are one table of one source. Two-way identification on NSD-Imagery was published 1/11 too low (see
``docs/leaderboards.md``); such rows stay as published, and corrected ones stand beside them as ``<metric>_corrected``.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nsdbench import leaderboard, summary
from nsdbench.compare import twin
from nsdbench.errors import DataError
from nsdbench.schema import ITEMS, LEADERBOARD, Provenance
from nsdbench.store import digest, write_text
from nsdbench.types import SPLITS

RESULTS, SOURCES = "published_results.csv", "sources.csv"
PER_SAMPLE = "nsd_imagery_per_sample_mirage_repo.csv.gz"
ITEMS_FILE = "nsd_imagery_items.parquet"
PER_SAMPLE_SOURCE = "mirage_repo_results"

TWO_WAY = ("alexnet2", "alexnet5", "inception", "clip")
PER_SAMPLE_METRICS = (
    "pixcorr", "ssim", *TWO_WAY, "effnet", "swav", "brain_corr_evc", "brain_corr_higher_vis", "brain_corr_nsdgeneral",
)  # fmt: skip
OFFSET = 1 / 11  # 12 ground truths, 11 distractors
TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
VERIFIED = {"yes": "verified", "secondary": "secondary"}

# How the values of a source were computed, as far as that is known; everything else is "unstated".
_PROFILES = {
    "scotti2024_mindeye2": "mindeye",
    "mindeye2_repo_notebooks": "mindeye",
    "mindeye1_repo_notebooks": "mindeye",
    "mindeye1_project_page": "mindeye",
    "scotti2023_mindeye1": "mindeye",
    "kneeland2025_nsd_imagery": "imagery-asrun",
    PER_SAMPLE_SOURCE: "imagery-asrun",
    "mirage_repo_notebooks": "imagery-fixed",  # run before the offset entered the routine
    "brainhub_leaderboard": "brainhub",
}
_CITED = ("unibrain", "ferrante2023")  # rows of the MindEye2 paper that repeat other papers' own numbers
_SETS = {"simple+complex": "AB", "simple": "A", "complex": "B"}
_UNSTATED_SETS = ("unspecified", "not stated in the note")


def build(source_dir: Path, out: Path) -> list[Path]:
    """Write the published leaderboards, the authors' item scores, and the documents that go with them.

    Parameters
    ----------
    source_dir : Path
        Folder with the tidy results, the list of sources and the authors' per-sample file.
    out : Path
        Folder of the leaderboards; files of the same names are replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    DataError
        If a source file is missing, or a tabulated mean of the per-sample file disagrees with the file.
    """
    items = per_sample_items(_read_csv(source_dir / PER_SAMPLE))
    results = _read_csv(source_dir / RESULTS)
    table = published_rows(items, results)
    files = [out / ITEMS_FILE]
    leaderboard.write_items(files[0], items)
    for split in SPLITS:
        part = table.filter(pc.equal(table["split"], split))
        path = out / f"{split}.parquet"
        leaderboard.write(path, part)
        write_text(path.with_suffix(".md"), twin(part, title=f"Published results: {split}"))
        files += [path, path.with_suffix(".md")]
    documents = {
        "NOTICE.md": NOTICE,
        "SOURCES.md": sources_document(_read_csv(source_dir / SOURCES), results),
    }
    for name, text in documents.items():
        write_text(out / name, text)
    return files + [out / name for name in documents]


def _read_csv(path: Path) -> list[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def per_sample_items(rows: list[dict[str, str]]) -> pa.Table:
    """Return the authors' per-sample scores on NSD-Imagery as item scores.

    Stimulus 0 ... 11 becomes target A1 ... A6, B1 ... B6; the repetition becomes the sample. Scores keep the profile
    ``imagery-asrun``; two-way scores appear once more as ``<metric>_corrected`` in the profile ``imagery-fixed``.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ITEMS.names}
    for metric in PER_SAMPLE_METRICS:
        values = np.array([float(row[metric]) for row in rows])
        _add_items(columns, rows, metric, "imagery-asrun", values)
        if metric in TWO_WAY:
            # scores are whole elevenths, so rounding to them undoes the six digits of the file
            corrected = np.round((values + OFFSET) / OFFSET) * OFFSET
            _add_items(columns, rows, f"{metric}_corrected", "imagery-fixed", corrected)
    return leaderboard.validate_items(pa.table(columns, schema=ITEMS))


def _add_items(
    columns: dict[str, list[Any]],
    rows: list[dict[str, str]],
    metric: str,
    profile: str,
    values: np.ndarray[Any, Any],
) -> None:
    n = len(rows)
    targets = [TARGETS[int(row["stimulus"])] for row in rows]
    constant = {
        "dataset": "nsd",
        "preset": "published",
        "metric": metric,
        "metric_version": 0,  # not computed by nsdbench
        "metric_profile": profile,
        "pool": "AB12" if summary.base_name(metric) in TWO_WAY else "none",
        "floor": None,
        "reason": None,
    }
    varying = {
        "run_id": [
            f"{PER_SAMPLE_SOURCE}-{r['model']}-subj{int(r['subject']):02d}-{r['split']}" for r in rows
        ],
        "model": [row["model"] for row in rows],
        "subject": [int(row["subject"]) for row in rows],
        "split": [row["split"] for row in rows],
        "stimulus_set": [target[0] for target in targets],
        "stimulus": targets,
        "sample": [int(row["repetition"]) for row in rows],
        "value": values.tolist(),
    }
    for name in ITEMS.names:
        columns[name] += varying.get(name) or [constant[name]] * n


def published_rows(items: pa.Table, results: list[dict[str, str]]) -> pa.Table:
    """Return all published leaderboard rows: summaries of the item scores, and the tabulated values of the rest."""
    tabulated = [row for row in results if row["source_id"] == PER_SAMPLE_SOURCE]
    others = [row for row in results if row["source_id"] != PER_SAMPLE_SOURCE]
    unknown = {row["verified"] for row in results} - set(VERIFIED)
    if unknown:
        raise DataError(f"{RESULTS}: rows marked {sorted(unknown)} are neither verified nor secondary")
    summarized = leaderboard.summarize(items, _provenance(_source(tabulated[0]))).to_pylist()
    _attach_printed(summarized, tabulated)
    quoted = [_row(row) for row in others]
    rows = [
        *summarized,
        *quoted,
        *(
            _corrected(row)
            for row in quoted
            if row["metric_profile"] == summary.OFFSET_PROFILE and row["metric"] in TWO_WAY
        ),
    ]
    return leaderboard.validate(pa.Table.from_pylist(rows, schema=LEADERBOARD))


def _attach_printed(rows: list[dict[str, Any]], tabulated: list[dict[str, str]]) -> None:
    """Fill ``value_printed`` with the value on the source's own scale and check the tabulated means against ours."""
    as_run = {_cell(row): round(row["value"], 4) for row in rows}
    for row in rows:
        row["value_printed"] = as_run[(*_cell(row)[:-1], summary.base_name(row["metric"]))]
    ours = {_cell(row): row["value"] for row in rows}
    for row in tabulated:
        cell = (row["model"], row["split"], _stimulus_set(row), _subject(row), row["metric"])
        if abs(ours[cell] - float(row["value"])) > 1e-4:
            raise DataError(
                f"{RESULTS}: {'/'.join(cell)} says {row['value']}, the per-sample file gives {ours[cell]:.4f}"
            )


def _cell(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["model"], row["split"], row["stimulus_set"], row["subject"], row["metric"])


def _stimulus_set(row: dict[str, str]) -> str:
    stated = row["stimulus_set"]
    return "unstated" if stated in _UNSTATED_SETS else _SETS.get(stated, stated)


def _subject(row: dict[str, str]) -> str:
    return (
        str(int(row["subjects"].removeprefix("subj"))) if row["subjects"].startswith("subj") else summary.MEAN
    )


def _source(row: dict[str, str]) -> str:
    return f"{row['source_id']} | {row['table_or_figure']} | {VERIFIED[row['verified']]}"


def _provenance(source: str) -> Provenance:
    return Provenance("published", stimulus_hash="as published", dataset_hash="as published", source=source)


def _row(row: dict[str, str]) -> dict[str, Any]:
    """Return the leaderboard row of one tabulated value."""
    metric, profile = row["metric"], _profile(row)
    stimulus_set = _stimulus_set(row)
    pool, level = _pool(metric, profile, stimulus_set)
    subject = _subject(row)
    cell: dict[str, Any] = {
        "dataset": "nsd",
        "model": row["model"],
        "preset": "published",
        "split": "shared1000" if row["dataset"] == "NSD" else row["split"],
        "subject": subject,
        "stimulus_set": stimulus_set,
        "metric": metric,
        "metric_version": 0,
        "metric_profile": profile,
        "direction": row["direction"],
        "chance": level,
        "pool": pool,
        "n_targets": int(float(row["n_test"])) if row["n_test"] else None,
        "n_subjects": len(row["subjects"].split(",")),
        "value": float(row["value"]),
        "value_printed": float(row["value"]),
        "status": "published",
        "source": _source(row),
    }
    cell["protocol_key"] = summary.protocol_key(
        cell, _provenance(cell["source"]), dict.fromkeys(row["subjects"].split(","), ())
    )
    return cell


def _corrected(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a two-way score on 12 targets without the offset that its source left in."""
    cell = row | {"metric": f"{row['metric']}_corrected", "metric_profile": "imagery-fixed", "chance": 0.5}
    cell["value"] = round(row["value"] + OFFSET, 4)
    cell["protocol_key"] = digest(row["protocol_key"], "corrected")
    return cell


def _profile(row: dict[str, str]) -> str:
    if row["metric"].startswith("human_"):
        return "human"
    if row["metric"].endswith("_corrected"):
        return "imagery-fixed"
    return "unstated" if row["model"] in _CITED else _PROFILES.get(row["source_id"], "unstated")


def _pool(metric: str, profile: str, stimulus_set: str) -> tuple[str, float | None]:
    """Return the pool of an identification or retrieval metric and the score of a guess."""
    if summary.base_name(metric) in TWO_WAY:
        pool = {"AB": "AB12", "shared1000": "all1000", "shared982": "all982"}.get(stimulus_set, "unstated")
        # whether a score of unknown routine on 12 targets carries the offset is unknown, so is its chance level
        return pool, None if stimulus_set == "unstated" else summary.chance(profile, pool)
    if metric.startswith("retrieval_"):
        size = int(metric.rpartition("of")[2])
        return f"gallery{size}", 1 / size
    if metric.startswith("human_2afc"):
        return "pair2", 0.5
    return "none", None


def sources_document(sources: list[dict[str, str]], results: list[dict[str, str]]) -> str:
    """Return SOURCES.md: every source that has rows in the leaderboards, where it is and how it was read."""
    counts = Counter((row["source_id"], row["verified"]) for row in results)
    return "".join(_source_lines(sources, counts))


def _source_lines(sources: list[dict[str, str]], counts: Counter[tuple[str, str]]) -> Iterator[str]:
    yield SOURCES_HEAD
    for source in sources:
        name = source["source_id"]
        verified, secondary = counts[name, "yes"], counts[name, "secondary"]
        if not verified + secondary:
            continue
        yield f"\n## {name}\n\n{source['title']}. {source['authors_short']}, {source['year']}.\n\n"
        yield f"- rows: {verified} verified, {secondary} secondary\n"
        for label, column in (("identifier", "arxiv_or_doi"), ("code", "code_url"), ("licence", "licence")):
            if source[column]:
                yield f"- {label}: {source[column]}\n"
        yield f"- seen: {source['how_seen']}\n"


SOURCES_HEAD = """# Sources of the published rows

Generated by `nsdbench.published.build`; do not edit by hand. The column `source` of a row reads
`source id | table or file | verified or secondary`: *verified* values were read in the paper, in the authors' file or
in the authors' notebook, *secondary* ones are quoted by somebody else.

Retrieval rows keep the direction that the source prints. The MindEye code calls `fwd` (printed as image retrieval)
what takes an image as query and picks among brain embeddings, and `bwd` the reverse.
"""

NOTICE = """# Notice

`nsd_imagery_items.parquet`, and the rows of `vision.parquet` and `imagery.parquet` whose source is
`mirage_repo_results`, derive from `combined_table.csv` of https://github.com/MedARC-AI/MIRAGE (branch
`hypatia_working`, commit 036c915d38a5cd14909ba6869a9f53f124196c62), which is distributed under the MIT licence below.

Changes: one row per score instead of one per image; columns renamed; the repetition and the target (A1 ... B6) added
from the order of the rows; values rounded to six digits; the additional AlexNet layers of three systems left out.
Two-way identification scores are kept as published (1/11 too low, because the self comparison was subtracted twice)
and repeated with that offset removed under the names `alexnet2_corrected`, `alexnet5_corrected`,
`inception_corrected` and `clip_corrected`. Means and confidence intervals were computed by nsdbench.

All other rows quote single results with their source; see SOURCES.md.

---

MIT License

Copyright (c) 2023 MedARC

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
