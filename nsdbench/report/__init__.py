"""A self-contained HTML page of results: tables, plots, gallery, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsdbench import store
from nsdbench.report.content import gather
from nsdbench.report.gallery import Choice, walls
from nsdbench.report.page import page
from nsdbench.types import Progress

PAGE = "index.html"


@dataclass(frozen=True)
class Report:
    """A page on disk.

    Attributes
    ----------
    path : Path
        The page.
    models : tuple of str
        Models on it, in ascending order.
    notes : tuple of str
        What a reader must know.
    """

    path: Path
    models: tuple[str, ...]
    notes: tuple[str, ...]


def write(
    paths: Sequence[Path],
    out: Path,
    *,
    published: bool = False,
    choice: Choice | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write ``out/index.html``, atomically. Equal input gives equal bytes.

    Parameters
    ----------
    paths : sequence of Path
        Run folders, folders of runs, leaderboard directories or files.
    out : Path
        Folder of the page.
    published : bool
        Whether to add the published results that ship with nsdbench.
    choice : Choice, optional
        What the gallery shows.
    progress : Progress, optional

    Raises
    ------
    UsageError
        If there are no results.
    LeaderboardError, DataError, ReconstructionError
        If something is damaged.
    """
    choice = choice or Choice()
    content = gather(paths, published=published, progress=progress)
    gallery = walls(content, choice)
    store.write_text(out / PAGE, page(content, gallery, choice))
    models = sorted({row["model"] for row in content.comparison.rows})
    notes = (*content.comparison.notes, *dict.fromkeys(note for wall in gallery for note in wall.notes))
    return Report(out / PAGE, tuple(models), notes)


__all__ = ["Choice", "Report", "write"]
