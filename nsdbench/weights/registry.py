"""All weights by id: those to be fetched, those that come with nsdbench, and which metrics and models use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nsdbench.errors import UsageError
from nsdbench.weights.entry import Weights
from nsdbench.weights.published import PUBLISHED
from nsdbench.weights.shipped import SHIPPED
from nsdbench.weights.uses import CHECKPOINTS, MODELS, OTHER_USES

REGISTRY: Mapping[str, Weights] = {entry.id: entry for entry in PUBLISHED}
"""Weights that lie in a weights folder. What comes with nsdbench is in :data:`~nsdbench.weights.shipped.SHIPPED`."""


def entry(id: str) -> Weights:
    """Return the registered weights ``id``.

    Raises
    ------
    UsageError
        If there are none.
    """
    if id not in REGISTRY:
        model = id.replace("-", "_")
        known = f"Known ids: {', '.join(REGISTRY)}."
        remedy = f"What a model needs is fetched with `--model {model}`." if model in MODELS else known
        raise UsageError(f"there are no weights {id!r}", remedy=remedy)
    return REGISTRY[id]


def for_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the weights that these metrics need, without repeats; pixel metrics need none."""
    wanted = set(metrics)
    return tuple(w.id for w in REGISTRY.values() if wanted.intersection(w.used_by))


def shipped_for_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the weights of miniature metrics, which come with nsdbench."""
    wanted = set(metrics)
    return tuple(w.id for w in SHIPPED.values() if wanted.intersection(w.used_by))


def models_with(id: str) -> tuple[str, ...]:
    """Return what uses weights ``id`` besides metrics: ``model-preset``, with the subject where it belongs to one.

    Plug-ins are not looked at, and nothing is imported.
    """
    networks = (
        f"{model}-{preset}"
        for model, presets in MODELS.items()
        for preset, needed in presets.items()
        if id in needed
    )
    subjects = (
        f"{model} of subject {subject}"
        for model, templates in CHECKPOINTS.items()
        for subject in range(1, 9)
        if id in (template.format(subject) for template in templates)
    )
    return (*networks, *subjects, *(use for use, ids in OTHER_USES.items() if id in ids))
