"""A run folder on disk: reconstructions in, item scores and similarity matrices out, one manifest over all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from nsdbench import byproducts, flips, leaderboard, similarity
from nsdbench.errors import DataError, LeaderboardError
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.metrics import registry
from nsdbench.scoring import Scored, ScoreSettings, score
from nsdbench.store import locked, sha256_file
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli

MANIFEST = "run.json"
RECONSTRUCTIONS = "reconstructions.h5"
SCORES = "scores.parquet"
GIVEN = "given"  # entry of the manifest's config: what the reconstructions bring besides images


@dataclass(frozen=True)
class StoredRun:
    """A completed run: its manifest and all its item scores."""

    manifest: RunManifest
    items: pa.Table


def require_own(folder: Path, out: Path) -> None:
    """Refuse a run folder that a link puts somewhere else than below ``out``: it is written to, and deleted.

    Raises
    ------
    DataError
        If there is such a link; it can lie at ``out`` itself or above, where the user has put it.
    """
    inside = [place for place in (folder, *folder.parents) if place != out and place.is_relative_to(out)]
    if linked := [place for place in inside if place.is_symlink()]:
        raise DataError(
            f"{linked[-1]} is a link; results are neither written nor deleted behind links",
            remedy="Remove it, or give --out where it leads.",
        )


def stored(folder: Path) -> StoredRun | None:
    """Return the completed run in ``folder``, else None. A damaged file counts as absent and is written again."""
    try:
        manifest = read_manifest(folder)
        if manifest.status != "complete":
            return None
        return StoredRun(manifest, leaderboard.read_items(folder / SCORES))
    except (DataError, LeaderboardError):
        return None


def missing_metrics(run: StoredRun | None, settings: ScoreSettings) -> tuple[str, ...]:
    """Return the metrics of ``settings`` that ``run`` lacks under the same profile and metric version.

    Of those that are wanted where possible, only such as its reconstructions can be scored by.
    """
    if run is None:
        return settings.metrics
    possible = (
        m for m in settings.where_possible if registry.entry(m).feasible(run.manifest.config.get(GIVEN, ()))
    )
    columns = (run.items[name].to_pylist() for name in ("metric", "metric_version", "metric_profile"))
    have = set(zip(*columns, strict=True))
    wanted = dict.fromkeys((*settings.metrics, *possible))
    return tuple(m for m in wanted if (m, registry.entry(m).version, settings.metric_profile) not in have)


def remaining(run: StoredRun | None, settings: ScoreSettings) -> ScoreSettings:
    """Return ``settings`` without the metrics that ``run`` has or cannot have."""
    if run is None:
        return settings
    return replace(settings, metrics=missing_metrics(run, settings), where_possible=())


def score_folder(
    folder: Path,
    manifest: RunManifest,
    before: StoredRun | None,
    recon: Reconstructions,
    stimuli: Stimuli,
    settings: ScoreSettings,
    *,
    progress: Progress | None = None,
) -> StoredRun:
    """Compute what ``before`` lacks and write scores, similarities and the finished manifest into ``folder``.

    Parameters
    ----------
    folder : Path
        Run folder that holds the reconstructions already.
    manifest : RunManifest
        Manifest of the run so far.
    before : StoredRun or None
        Scores that are there already and stay.
    recon, stimuli, settings, progress
        As in :func:`nsdbench.scoring.score`.
    """
    start = time.monotonic()
    fingerprint = sha256_file(folder / RECONSTRUCTIONS)
    if before and before.manifest.reconstructions_sha256 != fingerprint:
        raise DataError(
            f"{folder / RECONSTRUCTIONS} is not the file that the scores beside it were made from",
            remedy="Put the file back, or delete the folder and run again.",
        )
    todo = remaining(before, settings)
    scored = score(recon, stimuli, manifest.key, settings=todo, progress=progress or Silent())
    given = list(byproducts.given(recon, stimuli))
    with locked(folder):
        there = stored(folder)  # read again: another process may have added metrics meanwhile
        if there and there.manifest.reconstructions_sha256 != fingerprint:
            there = None
        items = pa.concat_tables([*([_others(there.items, scored.items)] if there else []), scored.items])
        _save_matrices(folder, there, items, scored, settings.metric_profile)
        finished = replace(
            _finished(there.manifest if there else manifest, scored, items, given, flips.notes(folder)),
            targets=list(recon.targets),
            reconstructions_sha256=fingerprint,
            timings={**manifest.timings, "score": round(time.monotonic() - start, 3)},
        )
        if there:
            # a kill between the two writes must not leave scores whose weights the manifest does not name
            finished.write(folder)
        leaderboard.write_items(folder / SCORES, items, reconstructions=fingerprint)
        if not there:
            finished.write(folder)
        # read back, so that a fresh and a resumed run hand on the same rows in the same order
        return StoredRun(finished, leaderboard.read_items(folder / SCORES))


def _others(items: pa.Table, scored: pa.Table) -> pa.Table:
    """Return the rows of ``items`` whose metric and profile were not scored again, whatever their version."""
    again = set(_definitions(scored))
    return items.filter(pa.array([definition not in again for definition in _definitions(items)], pa.bool_()))


def _definitions(items: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(items["metric"].to_pylist(), items["metric_profile"].to_pylist(), strict=True)


def _finished(
    manifest: RunManifest, scored: Scored, items: pa.Table, given: Sequence[str], flipped: Sequence[str]
) -> RunManifest:
    """Add what a scoring found out to the manifest; what earlier scorings left there stays, but for notes on flips."""
    weights = {**manifest.weights, **scored.weights}
    notes = [note for note in manifest.notes if not note.startswith(flips.PREFIX)]
    return replace(
        manifest,
        status="complete",
        provenance=replace(
            manifest.provenance,
            weights_id=",".join(sorted(weights)) or None,
            n_stimuli=len(scored.pool_ids),
        ),
        weights=weights,
        config={**manifest.config, "metrics": sorted(set(items["metric"].to_pylist())), GIVEN: given},
        notes=list(dict.fromkeys([*notes, *scored.notes, *flipped])),
    )


def _save_matrices(
    folder: Path, there: StoredRun | None, items: pa.Table, scored: Scored, profile: str
) -> None:
    """Write the similarity matrices of one profile and remove those that belong to no score any more."""
    valid = set(_definitions(items))
    for path in folder.glob(similarity.file_name("*")):
        name = path.stem.removeprefix("similarity-")
        if not any(definition[1] == name for definition in valid):
            path.unlink()
    path = folder / similarity.file_name(profile)
    old = similarity.read(path).matrices if there and path.is_file() else {}
    kept = {metric: r for metric, r in old.items() if (metric, profile) in valid}
    found = similarity.Similarities({**kept, **scored.similarity}, scored.pool_ids, scored.targets)
    similarity.write(path, found)
