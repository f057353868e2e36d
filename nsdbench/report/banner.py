"""What must be said before any number: simulated data, untrained networks, incomplete targets, images under terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nsdbench.comparison.blocks import Record
from nsdbench.report.content import Content
from nsdbench.summary import MEAN
from nsdbench.types import SPLITS


@dataclass(frozen=True)
class Notice:
    """One line of the banner; a strict one forbids something."""

    title: str
    text: str
    strict: bool = False


_LABELS = {
    "simulated": Notice(
        "Simulated data",
        "Brains, images and scores were generated. They show that the benchmark works and say nothing about how well "
        "a model decodes real brains.",
    ),
    "untrained": Notice(
        "Untrained networks",
        "Some metrics look through networks with random weights; their values mean nothing and rank nobody.",
    ),
    "partial": Notice(
        "Incomplete", "Some results lack targets or single scores; the tables mark them as partial."
    ),
    "retrained": Notice(
        "Retrained models",
        "Results marked as retrained are not those of the checkpoints that the authors published.",
    ),
}
_NSD = "nsd"


def notices(content: Content, *, stimuli: bool) -> tuple[Notice, ...]:
    """Return what a reader must know first, the most binding first."""
    rows = content.comparison.rows
    labels = {label for row in rows for label in row["labels"]}
    return (*_terms(content, stimuli=stimuli), *(text for name, text in _LABELS.items() if name in labels))


def _terms(content: Content, *, stimuli: bool) -> Iterator[Notice]:
    if not any(run.manifest.key.dataset == _NSD for run in content.runs.values()):
        return
    if stimuli:
        yield Notice(
            "Keep this file on this computer",
            "It contains stimuli of the Natural Scenes Dataset, whose terms do not allow passing them on. "
            "For a page to share, write it again with --no-stimuli.",
            strict=True,
        )
    else:
        yield Notice(
            "Stimuli left out",
            "Target images, and models that show stimuli themselves, are not on this page. Reconstructions are made "
            "from data of the Natural Scenes Dataset: read its terms before you share them.",
        )


def summary(content: Content) -> str:
    """Return one sentence about what the page compares."""
    own = [row for row in content.comparison.rows if row["status"] != "published"]
    parts = []
    if own:
        models, subjects, datasets = (_distinct(own, name) for name in ("model", "subject", "dataset"))
        splits = [split for split in SPLITS if any(row["split"] == split for row in own)]
        subjects = [subject for subject in subjects if subject != MEAN]
        parts.append(
            f"{_count(models, 'model')} on {_listed(datasets)}, {_plural(subjects, 'subject')} {_listed(subjects)}, "
            f"{_plural(splits, 'split')} {_listed(splits)}"
        )
    if len(own) < len(content.comparison.rows):
        quoted = [row for row in content.comparison.rows if row["status"] == "published"]
        parts.append(f"published results of {_count(_distinct(quoted, 'model'), 'model')}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _distinct(rows: Sequence[Record], name: str) -> list[str]:
    return sorted({row[name] for row in rows})


def _plural(names: Sequence[str], what: str) -> str:
    return what if len(names) == 1 else f"{what}s"


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {_plural(names, what)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
