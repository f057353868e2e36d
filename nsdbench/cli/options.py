"""Options that several verbs share, and what their values mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsdbench.errors import UsageError

if TYPE_CHECKING:
    from nsdbench.scoring import ScoreSettings

RUNS = Path("runs")  # where `nsdbench run` leaves its results by default
# headings of groups of options in --help
DATA, FITS, SCORING, FILES = "Data and its preparation", "Fits", "Scoring", "Files"
EXECUTION = "Processes and machines"

DatasetName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=DATA,
        help="auto (NSD where a directory is given, else simulated), nsd, sim, sim:tiny, or sim:snr=0.5.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", rich_help_panel=DATA, help="Root of NSD on disk. Default: $NSDBENCH_DATA."),
]
BetaVersion = Annotated[
    str,
    typer.Option(metavar="VERSION", rich_help_panel=DATA, help="b1, b2 or b3 (GLMdenoise_RR)."),
]
CoreNorm = Annotated[
    str,
    typer.Option(metavar="NORM", rich_help_panel=DATA, help="Core NSD: train_stats, session_z or none."),
]
MetricIds = Annotated[
    str | None,
    typer.Option(
        metavar="ID,ID",
        rich_help_panel=SCORING,
        help="Metric ids. Default: the eight; on sim with miniature networks (mini_*). Also retrieval and ROUGE of "
        "models that give embeddings or captions.",
    ),
]
ProfileName = Annotated[
    str,
    typer.Option(metavar="NAME", rich_help_panel=SCORING, help="Metric profile, see `nsdbench metrics`."),
]
WeightsKind = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        rich_help_panel=SCORING,
        help="pretrained, or random (rows are then labelled untrained).",
    ),
]
PrecisionName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=SCORING,
        help="fp32, or bf16: networks in bfloat16, faster, filed under a metric profile of its own.",
    ),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        rich_help_panel=SCORING,
        help="Folder with weights, or several as in PATH. Default: $NSDBENCH_WEIGHTS.",
    ),
]
TrainTrials = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=FITS,
        help="Fit on the first N training trials of a subject. Default: all.",
    ),
]
KeepFeatures = Annotated[
    bool,
    typer.Option(
        "--keep-features/--no-keep-features",
        rich_help_panel=FITS,
        help="Keep features of training images in the cache for other fits (NSD: 1 to 9 GB per subject and model).",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Out = Annotated[Path, typer.Option(metavar="DIR", rich_help_panel=FILES, help="Where run folders go.")]
Board = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", rich_help_panel=FILES, help="Leaderboard directory. Default: OUT/leaderboard."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        rich_help_panel=FILES,
        help="Cache directory. Default: $NSDBENCH_CACHE or ~/.cache/nsdbench.",
    ),
]
RowsAsJson = Annotated[bool, typer.Option("--json", help="Print leaderboard rows as JSON.")]


@dataclass(frozen=True)
class Scoring:
    """The scoring options as given; ``metrics`` is None where the default applies."""

    metrics: str | None
    profile: str
    weights: str
    weights_dir: Path | None
    device: str
    cache: Path | None
    precision: str = "fp32"

    def check(self) -> None:
        """Refuse unknown names before any data is touched."""
        from nsdbench.metrics import registry

        self._settings(registry.HEADLINE if self.metrics is None else registry.expand(self.metrics))

    def settings(self, *, simulated: bool) -> ScoreSettings:
        """Return the settings for real or simulated data; the latter has miniature networks of its own."""
        from nsdbench.metrics import registry

        if self.metrics is not None:
            chosen = registry.for_data(self.metrics, simulated=simulated)
            if self.metrics != "all":
                return self._settings(chosen)
            # what a model does not give is not missing from "all"
            extra = tuple(name for name in chosen if registry.entry(name).needs)
            return self._settings(tuple(name for name in chosen if name not in extra), extra)
        miniature = simulated and self.weights == "pretrained"
        metrics = registry.SIM_DEFAULT if miniature else registry.HEADLINE
        return self._settings(metrics, registry.WHERE_POSSIBLE)

    def _settings(self, metrics: tuple[str, ...], where_possible: tuple[str, ...] = ()) -> ScoreSettings:
        from nsdbench.scoring import ScoreSettings

        kind: Any = self.weights  # ScoreSettings refuses unknown values
        precision: Any = self.precision
        return ScoreSettings(
            metrics,
            self.profile,
            weights=kind,
            weights_dir=self.weights_dir,
            device=self.device,
            cache=self.cache,
            where_possible=where_possible,
            precision=precision,
        )


def features_folder(keep: bool, cache: Path | None) -> Path | None:
    """Return where features of training images are kept, or None."""
    from nsdbench.store import cache_root

    return cache_root(cache) / "features" if keep else None


def pick_device(name: str) -> str:
    """Turn ``auto`` into ``cuda`` where a GPU is usable, else ``cpu``; refuse a device that is not there."""
    if name == "cpu":
        return name
    if name.partition(":")[0] not in ("auto", "cuda"):
        raise UsageError(f"there is no device {name!r}", remedy="Choose auto, cpu or cuda.")
    import torch

    if torch.cuda.is_available():
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise UsageError(
        f"no usable GPU was found for --device {name}", remedy="Use --device cpu, or run nsdbench doctor."
    )


def result_paths(paths: list[Path] | None, verb: str, *, published: bool = False) -> list[Path]:
    """Return the given paths, else ``./runs`` if it is there; nothing is fine together with ``--published``.

    Raises
    ------
    UsageError
        If there is nothing to look at; the message names the verb.
    """
    if paths:
        return paths
    if RUNS.is_dir():
        return [RUNS]
    if published:
        return []
    raise UsageError(
        f"nothing to {verb}: no path was given and there is no folder ./{RUNS}",
        remedy="Run `nsdbench run` first, or give a path; compare and report also take --published.",
    )
