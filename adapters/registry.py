"""Which models exist: a static table, third-party entry points, and ``package.module:Class``."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points

from nsdbench.adapters.base import Adapter
from nsdbench.errors import UsageError

GROUP = "nsdbench.adapters"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the model table."""

    target: str  # "package.module:Class"
    summary: str
    baseline: bool = False


ADAPTERS: dict[str, Entry] = {
    "ridge": Entry("nsdbench.adapters.ridge:Ridge", "ridge regression from betas to pixels"),
    "mindeye1": Entry(
        "nsdbench.adapters.mindeye.mindeye1:MindEye1",
        "CLIP tokens of a diffusion prior, best of several images by Versatile Diffusion (Scotti et al. 2023)",
    ),
    "mindeye2": Entry(
        "nsdbench.adapters.mindeye.mindeye2:MindEye2",
        "trunk shared by subjects, unCLIP, redrawn under a decoded caption (Scotti et al. 2024)",
    ),
    "brain_diffuser": Entry(
        "nsdbench.adapters.brain_diffuser:BrainDiffuser",
        "VDVAE picture redrawn by Versatile Diffusion (Ozcelik & VanRullen 2023)",
    ),
    "takagi": Entry(
        "nsdbench.adapters.takagi:Takagi",
        "coarse image redrawn by Stable Diffusion under decoded text (Takagi & Nishimoto 2023)",
    ),
    "icnn": Entry(
        "nsdbench.adapters.icnn:Icnn",
        "image optimised until its VGG19 features are the decoded ones (Shen et al. 2019)",
    ),
    "mean_image": Entry(
        "nsdbench.adapters.floors:MeanImage", "floor: the mean training image", baseline=True
    ),
    "random_image": Entry(
        "nsdbench.adapters.floors:RandomImage", "floor: a random training image", baseline=True
    ),
}


def table() -> dict[str, Entry]:
    """Return all known models, built-in first, then those of installed plug-ins."""
    plugins = {
        point.name: Entry(point.value, f"plug-in from {point.dist.name if point.dist else 'unknown package'}")
        for point in entry_points(group=GROUP)
    }
    clash = ADAPTERS.keys() & plugins.keys()
    if clash:
        raise UsageError(
            f"plug-in {plugins[min(clash)].target} calls itself {min(clash)!r}, which is a built-in model",
            remedy="Uninstall the plug-in or ask its authors to rename it.",
        )
    return ADAPTERS | plugins


def expand(names: str) -> tuple[str, ...]:
    """Turn ``"ridge,mean-image"`` or ``"all"`` into model ids; hyphens and underscores are the same."""
    if names == "all":
        return tuple(table())
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UsageError("no model was named", remedy=f"Choose from: {', '.join(table())}, or all.")
    return tuple(dict.fromkeys(name if ":" in name else name.replace("-", "_") for name in wanted))


def one(name: str) -> str:
    """Return the one model id that ``name`` stands for.

    Raises
    ------
    UsageError
        If it names several.
    """
    names = expand(name)
    if len(names) > 1:
        raise UsageError(f"this takes one model, not {len(names)}", remedy="Take them one by one.")
    return names[0]


def load(name: str) -> type[Adapter]:
    """Import and return the adapter class called ``name`` or located at ``package.module:Class``.

    Raises
    ------
    UsageError
        If the name is unknown, or the object is no usable adapter. An error while a plug-in is imported is shown
        as itself.
    """
    known = table()
    target = name if ":" in name else known[name].target if name in known else None
    if target is None:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"there is no model called {name!r}", remedy=f"{hint}Models: {', '.join(known)}.")
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise UsageError(
            f"{name!r} is not package.module:Class", remedy="Write a colon between module and class."
        )
    if ":" in name and "" not in sys.path:
        sys.path.append("")  # a file in the working directory, last: it hides nothing that is installed
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"model {name} could not be imported from {target}: {type(error).__name__}: {error}",
            remedy="The module must be importable here: install its package, or go to the folder that holds it.",
        ) from error
    if not (inspect.isclass(found) and issubclass(found, Adapter)):
        raise UsageError(f"{target} is not a subclass of nsdbench.adapters.base.Adapter")
    _require_complete(found, target)
    return found


def _require_complete(found: type[Adapter], target: str) -> None:
    """Refuse a class that lacks a part of the contract or takes the name of a built-in model."""
    lacking = [*found.__abstractmethods__, *(a for a in ("name", "paper") if not hasattr(found, a))]
    if lacking:
        raise UsageError(f"{target} lacks {', '.join(sorted(lacking))}", remedy="See docs/adapters.md.")
    owner = ADAPTERS.get(found.name)
    if owner and owner.target != target:
        raise UsageError(
            f"{target} calls itself {found.name!r}, which is a built-in model",
            remedy="Give the class a `name` of its own: results are filed under it.",
        )
