"""The part of ``nsdbench data prepare`` that concerns features of training images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, say
from nsdbench.errors import UsageError

if TYPE_CHECKING:
    from nsdbench.data import Dataset, LoadOptions
    from nsdbench.preparation.features import FeaturesPlan, FeaturesRequest

PANEL = "Features of training images"
Models = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME,NAME",
        rich_help_panel=PANEL,
        help="Also compute what the fits of these models need of training images.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=PANEL, help="With --model: preset. Default: that of a run."),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="K/N",
        rich_help_panel=PANEL,
        help="With --model: this is job K of N, each of which computes a part of the features, and no betas.",
    ),
]


def requested(
    dataset: Dataset,
    subjects: tuple[int, ...],
    chosen: LoadOptions,
    *,
    models: str | None,
    preset: str | None,
    shard: str | None,
    device: str,
    weights_dir: Path | None,
    cache: Path | None,
) -> FeaturesRequest | None:
    """Return what the options ask for, None without ``--model``, and refuse here what would fail later."""
    if models is None:
        if shard or preset:
            raise UsageError(
                "--shard and --preset say how features are computed, and there is no --model to compute them for",
                remedy="Add --model NAME.",
            )
        return None
    from nsdbench.adapters import registry
    from nsdbench.adapters.base import Context
    from nsdbench.preparation.features import FeaturesRequest, Share, require_preparable

    folder = options.features_folder(True, cache)
    request = FeaturesRequest(
        registry.expand(models),
        subjects,
        chosen,
        Context(options.pick_device(device), weights_dir, features=folder),
        preset,
        Share() if shard is None else Share.parse(shard),
    )
    require_preparable(dataset, request)
    return request


def prepare(dataset: Dataset, request: FeaturesRequest) -> list[dict[str, Any]]:
    """Compute features and return what was done as JSON."""
    from nsdbench.preparation.features import prepare_features

    plans = prepare_features(dataset, request, progress=Bars(), report=_announce)
    context = request.context
    say(f"features of training images are in {context.features}, where fits on {context.device} find them")
    return [_document(plan) for plan in plans]


def _announce(plan: FeaturesPlan) -> None:
    size = f", {plan.n_bytes / 1e9:.1f} GB in all" if plan.n_bytes >= 50e6 else ""
    say(f"{plan.model}-{plan.preset}, subject {plan.subject}: features of {len(plan.ids)} images{size}")


def _document(plan: FeaturesPlan) -> dict[str, Any]:
    return {
        "model": plan.model,
        "preset": plan.preset,
        "subject": plan.subject,
        "images": len(plan.ids),
        "bytes": plan.n_bytes,
    }
