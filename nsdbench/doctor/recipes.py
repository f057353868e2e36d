"""How the stages of each decoder make up its fits and reconstructions, and what its regressions take on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from nsdbench.adapters import floors, ridge
from nsdbench.adapters.base import Adapter
from nsdbench.adapters.nets import clip, vdvae, vgg
from nsdbench.adapters.stimuli import BATCH
from nsdbench.adapters.unit_files import BATCH as IMAGES
from nsdbench.doctor.costs import Cell, Costs, Host, Recipe, Sizes, Use, counted, held

CAPTIONS = 5
"""Captions per image of COCO."""
STREAMS = {"z": 0.377, "c": 0.484}
"""Voxels of Takagi's two regions per voxel of nsdgeneral: 5,917 and 7,604 of subject 1's streams. An upper bound, because
the default takes those that lie in nsdgeneral."""
EIGH = 5
"""Operations of an eigendecomposition per cube of its size: 15 Cholesky factors, see :mod:`nsdbench.adapters.linear`."""


def costs_of(adapter: type[Adapter], preset: str, samples: int = 10, repeats: int = 16) -> Costs | None:
    """Return what is known about a decoder; None if it was not counted, as those of plug-ins.

    Parameters
    ----------
    adapter : type of Adapter
        Variants of a built-in decoder are counted with their own settings.
    preset : str
    samples : int
        Per target; they bound how many are computed together.
    repeats : int
        Of a target.
    """
    size = "mini" if preset == "mini" else "published"
    for ancestor in adapter.__mro__:
        name = getattr(ancestor, "name", "")
        if name in _RECIPES and ancestor.__module__.startswith("nsdbench.adapters."):
            settings = getattr(adapter, "settings", {}).get(preset)
            recipe = _RECIPES[name](settings, samples, repeats)
            return Costs(counted().get((name, size), {}), recipe, adapter.learns(preset))
    return None


# recipes, one per decoder


def _guided(steps: int, guidance: float) -> int:
    return steps * (1 if guidance == 1 else 2)


def _takagi(s: Any, samples: int, repeats: int) -> Recipe:
    n = min(s.at_once, samples)
    steps = s.sampling.steps if s.use == "c" else int(s.sampling.strength * s.sampling.steps)
    calls = _guided(steps, s.sampling.guidance)
    sample: tuple[Use, ...] = ()
    if s.use != "z":
        sample = (Use("denoising", calls, n * min(calls // steps, 2)), Use("image decoded", 1, n))
    coarse = (s.coarse_side // 8) ** 2 if s.side > 64 else (s.coarse_side // 4) ** 2
    words = 77 * 768 if s.side > 64 else clip.CONTEXT * clip.WIDTH
    outputs = {"z": 4 * coarse, "c": words}

    def fit(sizes: Sizes) -> Host:
        parts = [
            _cross_validated(sizes.trials, round(sizes.voxels * share), outputs[name], len(s.penalties))
            for name, share in STREAMS.items()
        ]
        features = 4 * sizes.images * sum(outputs.values())
        memory = features + 4 * sizes.trials * sizes.voxels + max(part.memory for part in parts)
        return Host(sum(part.flop for part in parts), memory, sum(part.disk for part in parts))

    pieces = math.ceil(samples / n)
    return Recipe(
        target=(Use("coarse image decoded", pieces), Use("image encoded", pieces), held("text encoded")),
        sample=sample,
        image=lambda sizes: (
            Use("coarse image encoded", 1, BATCH),
            Use("text encoded", CAPTIONS, BATCH * CAPTIONS),
        ),
        fit=fit,
        side=s.side,
    )


def _brain_diffuser(s: Any, samples: int, repeats: int) -> Recipe:
    n = min(s.at_once, samples)
    steps = int(s.sampling.strength * s.sampling.steps)
    calls = _guided(steps, s.sampling.guidance)
    outputs = vdvae.MINI.n_latents + (clip.IMAGE_TOKENS + clip.CONTEXT) * clip.WIDTH
    if s.side > 64:
        outputs = vdvae.PUBLISHED.n_latents + (257 + 77) * 768

    def fit(sizes: Sizes) -> Host:
        kept = 2 * outputs * sizes.images
        return Host(_gram(sizes.images, sizes.voxels), kept + _gram_memory(sizes.images, sizes.voxels), kept)

    def test(sizes: Sizes, cell: Cell) -> Host:
        flop = _smoothers(sizes.images, sizes.voxels, cell.targets, len(s.penalties))
        flop += 2 * cell.targets * sizes.images * outputs
        memory = 2 * outputs * sizes.images + _gram_memory(sizes.images, sizes.voxels)
        return Host(flop, memory)

    return Recipe(
        target=(held("text encoded"),),
        sample=(
            Use("first picture", 1, n),
            Use("image encoded", 1, n),
            Use("denoising", calls, 2 * n),
            Use("image decoded", 1, n),
        ),
        image=lambda sizes: (
            Use("latents read", 1, BATCH),
            Use("image tokens", 1, BATCH),
            Use("text encoded", CAPTIONS, BATCH * CAPTIONS),
        ),
        fit=fit,
        test=test,
        side=s.side,
    )


def _icnn(s: Any, samples: int, repeats: int) -> Recipe:
    config = vgg.MINI if s.layers == vgg.MINI.layers else vgg.PUBLISHED
    units: int = sum(math.prod(config.shapes[name]) for name in s.layers)

    def passes(sizes: Sizes) -> int:
        width: int = max(1, s.memory // (4 * sizes.images))
        return math.ceil(units / width)

    def fit(sizes: Sizes) -> Host:
        n, v, r = sizes.trials, sizes.voxels, sizes.images
        k = min(s.n_selected, v) + 1
        flop = n * v**2 + 2.0 * r * v * units + units * k**3 / 3
        memory = 8 * n * v + 8 * v**2 + 8 * r * v + 8192 * (4 * r + 6 * v) + 16384 * max(n, v)
        memory += s.memory + 3 * config.size**2 * r
        return Host(flop, memory, (6 if v <= 65536 else 8) * units * (k - 1))

    return Recipe(
        sample=(Use("one iteration", s.loop.iterations, min(s.at_once, samples)),),
        image=lambda sizes: (Use("features", passes(sizes), IMAGES),),
        fit=fit,
        test=lambda sizes, cell: Host(2.0 * cell.targets * units * s.n_selected, 4 * units * cell.targets),
        side=config.size,
    )


def _mindeye1(s: Any, samples: int, repeats: int) -> Recipe:
    n, many = min(s.at_once, samples), s.candidates
    calls = _guided(s.sampling.steps - s.sampling.first, s.sampling.guidance)
    pieces = math.ceil(samples / n)
    return Recipe(
        target=(
            Use("tokens decoded", 1),
            Use("rough image decoded", 1),
            Use("image tokens", 1, BATCH),
            Use("image decoded", pieces),
            Use("image encoded", pieces),
        ),
        sample=(
            Use("prior", many * s.model.prior.steps, n * many),
            Use("denoising", many * calls, 2 * n * many),
            Use("image decoded", many, n * many),
            Use("image tokens", many, n * many),
        ),
        image=lambda sizes: (
            Use("image tokens", 1 + s.plan.epochs * s.altered, max(BATCH, s.plan.batch * s.altered)),
            Use("rough latents read", 1, BATCH),
            Use("teacher", 2, BATCH),
            Use("high level learns", s.plan.epochs, s.plan.batch),
            Use("low level learns", s.low_plan.epochs, s.low_plan.batch),
        ),
        fit=lambda sizes: Host(memory=_targets1(s, sizes)),
        side=s.side,
        embedded=s.model.encoder.tokens * s.model.encoder.dim,
    )


def _mindeye2(s: Any, samples: int, repeats: int) -> Recipe:
    n = min(s.at_once, samples)
    pieces = math.ceil(samples / n)
    sample = [Use("prior", s.prior_points - 1, n), Use("caption", 1, n)]
    if s.use != "blurry":
        calls = _guided(len(s.unclip.times), s.unclip.guidance)
        sample += [Use("denoising", calls, 2 * n), Use("image decoded", 1, n)]
    if s.use == "refined":
        calls = _guided(len(s.refinement.times), s.refinement.guidance)
        sample += [Use("image encoded", 1, n), Use("small prompt", 1, n), Use("refinement", calls, 2 * n)]
        sample += [Use("refined image decoded", 1, n)]
        sample += [Use("large prompt", 1, n)] if s.side > 64 else []
    return Recipe(
        target=(
            Use("tokens decoded", repeats, repeats),
            Use("rough image decoded", pieces),
            Use("image tokens", 1, BATCH),
        ),
        sample=tuple(sample),
        image=lambda sizes: (
            Use("image tokens", 1, BATCH),
            Use("rough latents read", 1, BATCH),
            Use("teacher", 2, BATCH),
            Use("brain learns", s.plan.epochs, s.plan.batch),
        ),
        fit=lambda sizes: Host(memory=_targets2(s, sizes)),
        held_by_fit=False,
        side=s.side,
        embedded=s.model.trunk.tokens * s.model.trunk.dim,
    )


def _ridge(s: Any, samples: int, repeats: int) -> Recipe:
    outputs, coarse = 3 * ridge.SIZE**2, 3 * ridge.COARSE**2

    def fit(sizes: Sizes) -> Host:
        n, v = sizes.images, sizes.voxels
        d = min(n, v)
        flop = _gram(n, v) + EIGH * d**3 + 2.0 * d * n * coarse * (1 + len(ridge.RELATIVE_PENALTIES))
        flop += d**3 / 3 + 2.0 * d**2 * outputs + 2.0 * n * v * outputs
        weights = 4 * v * outputs
        return Host(flop, 4 * n * v + 40 * d**2 + 16 * n * outputs + weights, weights)

    return Recipe(
        fit=fit, test=lambda sizes, cell: Host(2.0 * cell.targets * sizes.voxels * outputs), side=ridge.SIZE
    )


def _mean(s: Any, samples: int, repeats: int) -> Recipe:
    image = 3 * floors.FLOOR_SIZE**2
    return Recipe(fit=lambda sizes: Host(0, image * sizes.images, image), side=floors.FLOOR_SIZE)


def _random(s: Any, samples: int, repeats: int) -> Recipe:
    image = 3 * floors.FLOOR_SIZE**2

    def fit(sizes: Sizes) -> Host:
        kept = image * min(floors.RandomImage.keep, sizes.images)
        return Host(0, kept, kept)

    return Recipe(fit=fit, side=floors.FLOOR_SIZE)


_RECIPES: Mapping[str, Callable[[Any, int, int], Recipe]] = {
    "takagi": _takagi,
    "brain_diffuser": _brain_diffuser,
    "icnn": _icnn,
    "mindeye1": _mindeye1,
    "mindeye2": _mindeye2,
    "ridge": _ridge,
    "mean_image": _mean,
    "random_image": _random,
}


# regressions; n rows, v voxels, d the smaller, D outputs


def _gram(n: int, v: int) -> float:
    """Operations of the Gram matrix, of which one triangle is formed."""
    return float(n * v * min(n, v))


def _gram_memory(n: int, v: int) -> float:
    return 4 * n * v + 16 * min(n, v) ** 2 + 33 * 1024 * n + 16384 * max(n, v)


def _smoothers(n: int, v: int, m: int, penalties: int) -> float:
    d = min(n, v)
    return penalties * (d**3 / 3 + 2.0 * m * n * v + 2.0 * m * d**2)


def _cross_validated(n: int, v: int, outputs: int, penalties: int, folds: int = 5) -> Host:
    """Penalties by :mod:`nsdbench.adapters.ridge_cv`, then the weights."""
    rest = n * (folds - 1) // folds
    d = min(rest, v)
    fold = _gram(rest, v) + EIGH * d**3 + 2.0 * d**2 * outputs
    fold += 2.0 * rest * v * outputs + 2.0 * penalties * (n / folds) * d * outputs
    weights = _gram(n, v) + penalties * d**3 / 3 + 2.0 * d**2 * outputs + 2.0 * n * v * outputs
    stored = 4 * v * outputs
    memory = 8 * n * v + 24 * d**2 + 16 * (n // folds) * (n + v) + 8192 * (6 * n + 3 * v) + 16384 * max(n, v)
    return Host(folds * fold + weights, memory + stored, stored)


# what training keeps in memory per image


def _targets1(s: Any, sizes: Sizes) -> float:
    encoder, low = s.model.encoder, s.low_level
    return sizes.images * _target_bytes(encoder.tokens * encoder.dim, low)


def _targets2(s: Any, sizes: Sizes) -> float:
    trunk = s.model.trunk
    return sizes.images * _target_bytes(trunk.tokens * trunk.dim, trunk.low_level)


def _target_bytes(tokens: int, low: Any) -> int:
    """Tokens and maps in half precision, latents in single."""
    maps: int = 2 * low.map_side**2 * (low.maps_dim or 0)
    latents: int = low.latent_channels * low.latent_side**2
    return 2 * tokens + 4 * latents + 2 * maps
