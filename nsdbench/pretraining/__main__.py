"""``python -m nsdbench.pretraining``: train the miniature networks of the simulated world, or see what they can do."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from nsdbench.adapters.nets import shipped
from nsdbench.adapters.nets.captioner import mini_describer
from nsdbench.errors import NsdbenchError, UsageError
from nsdbench.metrics.nets import mini
from nsdbench.pretraining import captioning
from nsdbench.pretraining.ceilings import Judge, ceilings, oracle_images
from nsdbench.pretraining.corpus import corpus, held_out_stimuli, native
from nsdbench.pretraining.evaluation import report, retrieval
from nsdbench.pretraining.recipes import METRICS, RECIPES
from nsdbench.pretraining.sheet import contact_sheet
from nsdbench.pretraining.shipping import ship
from nsdbench.pretraining.tasks import Contrast
from nsdbench.pretraining.training import train
from nsdbench.store import atomic_path, cache_root

T = TypeVar("T")
SCENES = {"metrics": 32_000, "decoders": 64_000}
FOLDERS = {"metrics": mini.FOLDER, "decoders": shipped.FOLDER}
TO_FIT, HELD_OUT, ON_LADDERS, ON_SHEET, SEED = 4_000, 2_000, 40, 12, 0


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
    for group, recipes in RECIPES.items():
        make = verbs.add_parser(group, help=f"train the networks of the {group} and write their weights")
        make.add_argument("--out", type=Path, default=FOLDERS[group], help="folder of the weights files")
        make.add_argument("--only", default=",".join(recipes), help="some of the networks")
        make.add_argument("--minutes", type=float, default=math.inf, help="stop then; the next call goes on")
    verbs.add_parser("scores", help="print what the shipped networks can do on held-out scenes, as JSON")
    verbs.add_parser("captions", help="print how right captions of held-out scenes are, as JSON")
    sheet = verbs.add_parser(
        "ceilings", help="decode true features of held-out scenes: accuracies as JSON, a picture"
    )
    sheet.add_argument("--out", type=Path, required=True, help="PNG file of the contact sheet")
    sheet.add_argument("--scenes", type=int, default=100, help="how many")
    for verb in verbs.choices.values():
        verb.add_argument("--cache", type=Path, help="where scenes and checkpoints are kept")
    return parser.parse_args()


def _train(arguments: argparse.Namespace, cache: Path) -> None:
    recipes, chosen = RECIPES[arguments.verb], arguments.only.split(",")
    unknown = [name for name in chosen if name not in recipes]
    if unknown:
        raise UsageError(f"there is no network {unknown[0]!r}", remedy=f"Choose from {', '.join(recipes)}.")
    deadline = time.monotonic() + 60 * arguments.minutes
    scenes = replace(corpus("train", SCENES[arguments.verb], SEED, cache, Lines()), weights=arguments.out)
    for name in chosen:
        recipe = recipes[name]
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
        scenes = corpus("train", SCENES["metrics"], SEED, cache, Lines())
        task = train(METRICS["mini_clip"], scenes, SEED, checkpoint, Lines())
        assert isinstance(task, Contrast)
        found["mini_clip"]["caption retrieval"] = retrieval(task, held_out)
    return found


def _ceilings(cache: Path, n: int, out: Path) -> dict[str, Any]:
    held_out = corpus("held_out", HELD_OUT, SEED, cache, Lines())
    judge = Judge.of(corpus("train", TO_FIT, SEED, cache, Lines()))
    stages = oracle_images(held_out_stimuli(n, SEED), SEED, Lines())
    with atomic_path(out) as temporary:
        contact_sheet({"scene": held_out.images[:n], **stages}, ON_SHEET).save(
            temporary, "PNG", optimize=True
        )
    return ceilings(judge, held_out, stages)


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _arguments()
    torch.set_num_threads(1)  # two runs side by side use two cores better than one run with two threads
    cache = cache_root(arguments.cache) / "pretraining"
    try:
        if arguments.verb == "scores":
            print(json.dumps(_scores(cache), indent=2))
        elif arguments.verb == "captions":
            held_out = corpus("held_out", HELD_OUT, SEED, cache, Lines())
            print(json.dumps(captioning.ladder(mini_describer(), held_out), indent=2))
        elif arguments.verb == "ceilings":
            print(json.dumps(_ceilings(cache, arguments.scenes, arguments.out), indent=2))
        else:
            _train(arguments, cache)
    except NsdbenchError as error:
        print(f"{error.message}\n{error.remedy}", file=sys.stderr)
        return 2
    return 0


sys.exit(main())
