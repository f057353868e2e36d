"""``python -m nsdbench.pretraining metrics``: train the metric networks of the simulated world, or score them."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from nsdbench.errors import NsdbenchError, UsageError
from nsdbench.metrics.nets.mini import FOLDER
from nsdbench.pretraining.corpus import corpus, native
from nsdbench.pretraining.evaluation import report, retrieval
from nsdbench.pretraining.shipping import ship
from nsdbench.pretraining.tasks import Contrast
from nsdbench.pretraining.training import RECIPES, train
from nsdbench.store import cache_root

T = TypeVar("T")
SCENES, TO_FIT, HELD_OUT, ON_LADDERS, SEED = 32_000, 4_000, 2_000, 40, 0


class Lines:
    """A progress report in lines on stderr, one per tenth of the work."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` unchanged; see :class:`nsdbench.types.Progress`."""
        todo = list(items)
        start, shown = time.monotonic(), 0
        for done, item in enumerate(todo, 1):
            yield item
            if 10 * done // len(todo) > shown:
                shown = 10 * done // len(todo)
                seconds = time.monotonic() - start
                print(f"{label}: {done} of {len(todo)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nsdbench.pretraining",
        description=__doc__,
        epilog="Example: python -m nsdbench.pretraining metrics --out metrics/weights",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("metrics", help="train the metric networks and write their weights")
    make.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights files")
    make.add_argument("--only", default=",".join(RECIPES), help="some of the networks")
    make.add_argument("--minutes", type=float, default=math.inf, help="stop then; the next call goes on")
    verbs.add_parser("scores", help="print what the shipped networks can do on held-out scenes, as JSON")
    for verb in verbs.choices.values():
        verb.add_argument("--cache", type=Path, help="where scenes and checkpoints are kept")
    return parser.parse_args()


def _metrics(arguments: argparse.Namespace, cache: Path) -> None:
    chosen = arguments.only.split(",")
    unknown = [name for name in chosen if name not in RECIPES]
    if unknown:
        raise UsageError(f"there is no network {unknown[0]!r}", remedy=f"Choose from {', '.join(RECIPES)}.")
    deadline = time.monotonic() + 60 * arguments.minutes
    scenes = corpus("train", SCENES, SEED, cache, Lines())
    for name in chosen:
        recipe = RECIPES[name]
        left = deadline - time.monotonic()
        task = train(recipe, scenes, SEED, cache / f"{name}.pt", Lines(), seconds=left)
        if task is None:
            print(f"{name}: time is up; run the command again to go on", file=sys.stderr)
            return
        print(f"{recipe.weights_id}: {ship(task, recipe, SEED, arguments.out)}")


def _scores(cache: Path) -> dict[str, Any]:
    held_out = corpus("held_out", HELD_OUT, SEED, cache, Lines())
    images = np.stack([native("held_out", i, SEED)[1] for i in range(ON_LADDERS)])
    found = report(corpus("train", TO_FIT, SEED, cache, Lines()), held_out, images)
    checkpoint = cache / "mini_clip.pt"
    if checkpoint.exists():  # the text tower is not shipped
        scenes = corpus("train", SCENES, SEED, cache, Lines())
        task = train(RECIPES["mini_clip"], scenes, SEED, checkpoint, Lines())
        assert isinstance(task, Contrast)
        found["mini_clip"]["caption retrieval"] = retrieval(task, held_out)
    return found


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _arguments()
    torch.set_num_threads(1)  # two runs side by side use two cores better than one run with two threads
    cache = cache_root(arguments.cache) / "pretraining"
    try:
        if arguments.verb == "metrics":
            _metrics(arguments, cache)
        else:
            print(json.dumps(_scores(cache), indent=2))
    except NsdbenchError as error:
        print(f"{error.message}\n{error.remedy}", file=sys.stderr)
        return 2
    return 0


sys.exit(main())
