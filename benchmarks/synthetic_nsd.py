"""Writes a generated NSD of one subject at the true grid size, sparse: what fetch, prepare and run are tried on.

Every file has the layout of the release. Betas are written only at the voxels of the mask, so 40 sessions take about
1 GB instead of 41. Each picture is 2 x 2 colours under a texture, and each voxel answers linearly to these colours
under noise, so that a linear decoder learns something. The marker file names the data set ``nsd-synthetic``: results
from it can never pass as results on NSD.

    python benchmarks/synthetic_nsd.py DIR --sessions 40
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from nsd_files import (
    LETTERS,
    RUNS,
    core_path,
    imagery_path,
    roi_path,
    sequences,
    target_names,
    write_design,
    write_responses,
    write_tables,
    write_targets,
    write_volume,
)
from PIL import Image

SUBJECT, GRID, N_VOXELS, TRIALS = 1, (81, 104, 83), 15724, 750
NOISE = {"core": 2.0, "vision": 1.8, "imagery": 1.4, "attention": 1.6}  # percent signal change
GAIN = {"vision": 1.0, "imagery": 0.4, "attention": 0.5}  # of the effect that a picture has in core sessions
_COLOURS = 12  # 2 x 2 places, three channels


@dataclass(frozen=True)
class Plan:
    """Sizes of a generated data set; every image is shown three times, one in ten is shared.

    Attributes
    ----------
    sessions, n_voxels : int
        Core sessions of 750 trials, and voxels of nsdgeneral.
    side : int
        Pixels per side of the core images.
    ncsnr : float
        Standard deviation of a voxel's answer to images over that of its noise, on average over voxels.
    """

    sessions: int = 40
    n_voxels: int = N_VOXELS
    side: int = 64
    ncsnr: float = 0.3
    seed: int = 0

    @property
    def n_images(self) -> int:
        return self.sessions * TRIALS // 3

    @property
    def n_shared(self) -> int:
        return self.n_images // 10


@dataclass(frozen=True)
class World:
    """The truth behind the files; betas are drawn session by session, the same whenever they are asked for."""

    plan: Plan

    def _rng(self, *of: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.plan.seed, *of]))

    @cached_property
    def ordering(self) -> np.ndarray:
        """10k id, 1-based, of every trial."""
        return self._rng(1).permutation(np.repeat(np.arange(1, self.plan.n_images + 1), 3))

    @cached_property
    def ids(self) -> np.ndarray:
        """73k id, 1-based, of every 10k id."""
        return self._rng(2).permutation(self.plan.n_images) + 1

    @cached_property
    def labels(self) -> dict[str, tuple[str, str]]:
        """CONDITION and CUE letters of each run of the NSD-Imagery session."""
        return sequences(self._rng(3))

    @property
    def image(self) -> np.ndarray:
        """``imgBrick`` row, 0-based, of every trial."""
        return self.ids[self.ordering - 1] - 1

    @property
    def shared(self) -> np.ndarray:
        """73k ids, 1-based, of the shared images."""
        return self.ids[: self.plan.n_shared]

    @property
    def names(self) -> dict[str, str]:
        """File stem of each of the 18 targets."""
        return target_names(self.shared)

    @cached_property
    def pictures(self) -> np.ndarray:
        """All core images, uint8 of shape (n_images, side, side, 3)."""
        rng, plan = self._rng(4), self.plan
        colours = rng.integers(30, 226, (plan.n_images, 2, 2, 3), np.int16)
        blocks = np.repeat(np.repeat(colours, plan.side // 2, axis=1), plan.side // 2, axis=2)
        texture = rng.integers(-30, 30, (plan.n_images, plan.side, plan.side, 1), np.int16)
        return np.asarray(blocks + texture, np.uint8)

    @cached_property
    def mask(self) -> np.ndarray:
        """Voxels of nsdgeneral: part of a shell, true on exactly ``n_voxels`` voxels of the grid."""
        x, y, z = np.ogrid[: GRID[0], : GRID[1], : GRID[2]]
        radius = np.sqrt(((x - 40) / 32) ** 2 + ((y - 22) / 24) ** 2 + ((z - 38) / 28) ** 2)
        rank = np.abs(radius - 0.85) + self._rng(5).uniform(0, 0.3, GRID)
        mask = np.zeros(GRID, bool)
        mask.flat[np.argsort(rank, axis=None)[: self.plan.n_voxels]] = True
        return mask

    @cached_property
    def weights(self) -> np.ndarray:
        """Answer of each voxel to each colour, float32 of shape (12, n_voxels)."""
        rng = self._rng(6)
        weights = rng.standard_normal((_COLOURS, self.plan.n_voxels)) * rng.gamma(2, 0.5, self.plan.n_voxels)
        return np.asarray(weights * self.plan.ncsnr * NOISE["core"] / np.sqrt(_COLOURS), np.float32)

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of each voxel in percent signal change."""
        return np.asarray(self._rng(7).normal(0.5, 0.5, self.plan.n_voxels), np.float32)

    def core(self, session: int) -> np.ndarray:
        """Return the stored betas of a session, int16 of shape (750, n_voxels), voxels in C order of (X, Y, Z)."""
        rows = self.image[(session - 1) * TRIALS : session * TRIALS]
        noise = np.full(TRIALS, NOISE["core"], np.float32)
        return self._stored(code(self.pictures[rows]), noise, self._rng(8, session))

    def imagery(self) -> np.ndarray:
        """Return the stored betas of the NSD-Imagery session, int16 of shape (720, n_voxels)."""
        codes, noise = np.zeros((720, _COLOURS), np.float32), np.zeros(720, np.float32)
        for name, _, task, start, n in RUNS:
            letters = self.labels[name][0]
            shown = np.stack([self._target_code(name, k, letter) for k, letter in enumerate(letters)])
            codes[start : start + n] = GAIN[task] * np.repeat(shown, n // len(letters), axis=0)
            noise[start : start + n] = NOISE[task]
        return self._stored(codes, noise, self._rng(9))

    def draw(self, target: str) -> Image.Image:
        """Return the picture of a target of set A or B: bars, core images, or the artwork."""
        number = int(target[1])
        if target[0] == "B" and number < 6:
            return Image.fromarray(self.pictures[int(self.names[target][-5:]) - 1])
        rng = self._rng(10, ord(target[0]), number)
        small = rng.integers(0, 256, (2, 2, 3) if target[0] == "B" else (2, 2, 1), np.uint8)
        side = self.plan.side // 2
        return Image.fromarray(
            np.broadcast_to(small.repeat(side, 0).repeat(side, 1), (2 * side, 2 * side, 3))
        )

    def _target_code(self, run: str, trial: int, letter: str) -> np.ndarray:
        stimulus_set = run[3]
        number = LETTERS[stimulus_set].index(letter)
        if run == "visC":  # another photograph on every trial
            return code(self.pictures[self.shared[[trial % len(self.shared)]] - 1])[0]
        if stimulus_set == "C":
            return self._rng(11, number).uniform(-1, 1, _COLOURS)
        return code(np.asarray(self.draw(f"{stimulus_set}{number + 1}"))[None])[0]

    def _stored(self, codes: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return round(300 x percent) for rows of colours, rounding half away from zero."""
        percent = rng.standard_normal((len(codes), self.plan.n_voxels), np.float32)
        percent *= noise[:, None]
        percent += np.asarray(codes, np.float32) @ self.weights + self.mean
        percent *= 300
        percent += np.copysign(np.float32(0.5), percent)
        return np.clip(percent, -32767, 32767).astype(np.int16)


def code(pictures: np.ndarray) -> np.ndarray:
    """Return the mean colours of the four quarters of pictures, each with deviation of about 1: (n, 12)."""
    n, side, _, _ = pictures.shape
    half = side // 2
    quarters = pictures.reshape(n, 2, half, 2, half, 3).mean(axis=(2, 4)).reshape(n, _COLOURS)
    return np.asarray((quarters - 128) / 56, np.float32)


def write(root: Path, plan: Plan | None = None, report: Callable[[str], None] = lambda line: None) -> World:
    """Write the data set and return the truth behind it."""
    world = World(plan or Plan())
    root.mkdir(parents=True, exist_ok=True)
    _write_marker(root, world.plan)  # first, so that nothing here is ever taken for the real NSD
    _write_volumes(root, world)
    _write_experiment(root, world)
    coordinates = np.argwhere(world.mask)
    write_sparse(imagery_path(root, SUBJECT), world.imagery(), coordinates)
    for session in range(1, world.plan.sessions + 1):
        write_sparse(core_path(root, SUBJECT, session), world.core(session), coordinates)
        report(f"session {session} of {world.plan.sessions}")
    return world


def write_sparse(path: Path, stored: np.ndarray, coordinates: np.ndarray) -> None:
    """Write betas of some voxels in a file of the full grid; the other chunks stay unallocated and read as 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n, (x, y, z) = len(stored), GRID
    courses = np.ascontiguousarray(stored.T)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("betas", (n, z, y, x), np.int16, chunks=(n, 1, 1, 1))
        for column in np.lexsort(coordinates.T).tolist():  # x fastest, as the release has them
            i, j, k = coordinates[column].tolist()
            data.id.write_direct_chunk((0, k, j, i), courses[column])


def _write_marker(root: Path, plan: Plan) -> None:
    facts = {"grid": list(GRID), "nsdgeneral": plan.n_voxels, "sessions": plan.sessions}
    marker = {
        "dataset": "nsd-synthetic",
        "hash": hashlib.sha256(repr(plan).encode()).hexdigest()[:16],
        "version": 1,
        "trials_per_session": TRIALS,
        "n_shared": plan.n_shared,
        "n_images": plan.n_images,
        "beta_versions": ["b3"],
        "subjects": {str(SUBJECT): facts},
        "parameters": asdict(plan),
    }
    (root / "nsdbench-dataset.json").write_text(json.dumps(marker, indent=2))


def _write_volumes(root: Path, world: World) -> None:
    """Write masks with -1 over more than half of the grid, so that ``!= 0`` selects far too much."""
    mask, rng = world.mask, np.random.default_rng(np.random.SeedSequence([world.plan.seed, 12]))
    cortex = mask | (rng.random(GRID) < 0.2)
    areas = np.sort(rng.integers(0, 8, int(mask.sum())))  # 0: in nsdgeneral, but in no early area
    for name, labels in (("nsdgeneral", 1), ("prf-visualrois", areas), ("streams", rng.permutation(areas))):
        volume = np.where(cortex, 0, -1)
        volume[mask] = labels
        write_volume(roi_path(root, SUBJECT, name), volume)
    for name in ("brainmask", "valid_nsdimagery"):
        write_volume(roi_path(root, SUBJECT, name), cortex)


def _write_experiment(root: Path, world: World) -> None:
    subjectim = np.zeros((8, world.plan.n_images), np.int64)
    subjectim[SUBJECT - 1] = world.ids
    write_design(root, world.ordering, subjectim, world.shared)
    _write_stim_info(root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", world)
    images = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    images.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(images, "w") as file:
        file["imgBrick"] = world.pictures
    write_targets(root, world.names, world.draw)
    write_tables(root, SUBJECT, world.labels, world.names, world.shared)
    write_responses(root, SUBJECT, world.ordering, world.image, TRIALS)


def _write_stim_info(path: Path, world: World) -> None:
    repeats = [f"subject{SUBJECT}_rep{k}" for k in range(3)]
    shared = np.zeros(world.plan.n_images, bool)
    shared[world.shared - 1] = True
    trials = np.argsort(world.image, kind="stable").reshape(-1, 3) + 1
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["", "cocoId", "nsdId", "shared1000", f"subject{SUBJECT}", *repeats, "sim_captions"])
        for row, colours in enumerate(code(world.pictures)):
            captions = json.dumps([f"a {_word(colours[:3])} corner", f"{_word(colours[-3:])} below"])
            writer.writerow([row, 100000 + row, row, bool(shared[row]), 1, *trials[row].tolist(), captions])


def _word(colour: np.ndarray) -> str:
    return ("red", "green", "blue")[int(colour.argmax())]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--sessions", type=int, default=Plan.sessions)
    parser.add_argument("--voxels", type=int, default=Plan.n_voxels)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    given = parser.parse_args()
    start = time.perf_counter()
    write(given.directory, Plan(sessions=given.sessions, n_voxels=given.voxels, seed=given.seed))
    size = sum(path.stat().st_size for path in given.directory.rglob("*") if path.is_file())
    print(f"{given.directory}: {size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
