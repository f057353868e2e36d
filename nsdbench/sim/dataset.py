"""From a configuration to the complete file set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np

from nsdbench.data.facts import MARKER_NAME
from nsdbench.sim.config import SIM_VERSION, TRIALS_PER_SESSION, SimConfig
from nsdbench.sim.design import CoreDesign, ImageryDesign, core_design, imagery_design
from nsdbench.sim.features import Features, concatenate
from nsdbench.sim.files import cell, write_document, write_images, write_mat, write_png, write_truth
from nsdbench.sim.imagery import make_extras
from nsdbench.sim.stiminfo import write_stim_info
from nsdbench.sim.stimuli import N_SET_B, SHARED, ImageKey, Rendered, brick_order, render_block
from nsdbench.sim.subject import World, make_subject
from nsdbench.types import Progress

_BLOCK = 50
_IN_PROCESS = 500  # images; below this a pool costs more than it saves
_IDLE_S = 5  # worker processes end this long after their last task
_EXPERIMENTS = "nsddata/experiments"


def write_dataset(config: SimConfig, root: Path, progress: Progress, workers: int) -> None:
    """Write all files below ``root`` (an empty directory); the marker comes last."""
    brick = brick_order(config)
    core = core_design(config, brick)
    imagery = imagery_design(config, core)
    pool = joblib.Parallel(
        n_jobs=workers if config.n_images > _IN_PROCESS else 1,
        return_as="generator",
        idle_worker_timeout=_IDLE_S,
    )
    rendered = _render(config, brick, pool, progress)
    world = World(config, core, imagery, make_extras(config.seed, imagery))
    subjects = _subjects(root, world, rendered, pool, progress)
    _write_core(root, brick, rendered, core)
    _write_targets(root, world, rendered)
    _write_truth(root, config, rendered.features)
    write_document(root / MARKER_NAME, _marker(config, subjects))


def _render(config: SimConfig, brick: list[ImageKey], pool: Any, progress: Progress) -> Rendered:
    starts = range(0, len(brick), _BLOCK)
    jobs = (joblib.delayed(render_block)(config.seed, brick[i : i + _BLOCK]) for i in starts)
    blocks: Iterable[Rendered] = pool(jobs)
    parts = list(progress.track(blocks, "sim: scenes", total=len(starts)))
    return Rendered(
        np.concatenate([p.images for p in parts]),
        concatenate([p.features for p in parts]),
        tuple(scene for p in parts for scene in p.scenes),
    )


def _subjects(root: Path, world: World, rendered: Rendered, pool: Any, progress: Progress) -> dict[str, Any]:
    numbers = world.config.effective_subjects
    jobs = (
        joblib.delayed(make_subject)(root, world, s, rendered.features[world.core.images[s - 1] - 1])
        for s in numbers
    )
    entries: Iterator[dict[str, Any]] = progress.track(pool(jobs), "sim: subjects", total=len(numbers))
    return dict(zip(map(str, numbers), entries, strict=True))


def _write_core(root: Path, brick: list[ImageKey], rendered: Rendered, core: CoreDesign) -> None:
    write_images(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", rendered.images)
    experiment = root / _EXPERIMENTS / "nsd"
    write_stim_info(experiment / "nsd_stim_info_merged.csv", brick, list(rendered.scenes), core)
    n_shared = sum(key.owner == SHARED for key in brick)
    present = np.flatnonzero(core.images[:, 0])[0]
    write_mat(
        experiment / "nsd_expdesign.mat",
        {
            "masterordering": core.order[None].astype(np.float64),
            "subjectim": core.images.astype(np.float64),
            "sharedix": core.images[present, :n_shared][None].astype(np.float64),
        },
    )


def _write_targets(root: Path, world: World, rendered: Rendered) -> None:
    folder = root / _EXPERIMENTS / "nsdimagery"
    design, extras = world.imagery, world.extras
    for key in "ABC":
        rows = ((float(t.number + 1), t.name, t.cue) for t in design.of_set(key))
        write_mat(folder / f"{key}_pair_list.mat", {"pair_list": cell(rows)})
    first = world.config.effective_subjects[0] - 1
    scenes = rendered.images[world.core.images[first, :N_SET_B] - 1]
    pictures = {"A": extras.images[:6], "B": np.concatenate([scenes, extras.images[6:]])}
    for key, images in pictures.items():
        for target, image in zip(design.of_set(key), images, strict=True):
            write_png(folder / "rawtargetimages" / f"set{key}" / target.name, image)
    write_mat(folder / "designmatrixGLMsingle.mat", {"stimulus": cell([_design_matrices(design)])})


def _write_truth(root: Path, config: SimConfig, features: Features) -> None:
    content = {"coverage": features.semantic.mean(axis=2), "background": features.background}
    write_truth(root / "sim_truth/stimuli.npz", content)
    write_document(root / "sim_truth/params.json", {"version": SIM_VERSION, "config": config.parameters()})


def _design_matrices(design: ImageryDesign) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Return one onset matrix (seconds, 36) per run: 6 columns of vision, 12 of attention, 18 of imagery."""
    matrices = []
    for run in design.runs:
        attention = run.task == "attention"
        matrix = np.zeros((480 if attention else 240, 36))
        if attention:
            matrix[run.onsets, 6 + run.target] = 1
            matrix[run.onsets + 4, 12 + run.target] = 1
        else:
            first = 0 if run.task == "vision" else 18 + 6 * "ABC".index(run.stimulus_set)
            matrix[run.onsets, first + run.target] = 1
        matrices.append(matrix)
    return matrices


def _marker(config: SimConfig, subjects: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": "sim",
        "hash": config.hash(),
        "version": SIM_VERSION,
        "config": config.parameters(),
        "beta_versions": ["b3"],
        "trials_per_session": TRIALS_PER_SESSION,
        "n_shared": config.sizes.n_shared,
        "n_images": config.n_images,
        "subjects": subjects,
    }
