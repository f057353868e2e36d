"""The known truths of the simulated dataset: numbers that a correct benchmark must find.

``python -m nsdbench.sim.truths sim sim:snr=0.5`` prints them for any configurations; docs/sim.md lists ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from nsdbench.data.facts import table
from nsdbench.sim.decoders import (
    BETAS,
    SPACES,
    Floats,
    Ridge,
    SubjectData,
    average,
    correlate,
    read_subject,
    read_volume,
    standardise,
    target_spaces,
    two_way,
    zscore_runs,
)
from nsdbench.store import read_json

TESTS = ("seen", "seen_r", "vision", "imagery", "vision_A", "imagery_A", "vision_B", "imagery_B")


def task_rows(task: str, sets: str = "AB") -> NDArray[np.int64]:
    """Return the beta rows of a task and stimulus sets."""
    blocks = [r for r in table("runs") if r["task"] == task and r["stimulus_set"] in sets]
    return np.concatenate([np.arange(int(r["beta_start0"]), int(r["beta_stop0"])) for r in blocks])


def measure(root: Path, voxels: str = "all", shift: int = 0) -> dict[str, float]:
    """Return two-way identification by the reference decoders, averaged over the subjects.

    Keys are ``<test>/<space>`` with spaces ``pixel``, ``low``, ``sem`` and tests ``seen`` (shared images), ``seen_r``
    (mean correlation with the truth), ``vision`` and ``imagery`` (12 targets of sets A and B), ``vision_A`` ...
    ``imagery_B`` (within a set).

    Parameters
    ----------
    voxels : {"all", "v1", "high"}
        Columns to use.
    shift : int
        Error to commit on purpose: imagery-session rows moved by this many trials.
    """
    spaces = target_spaces(root)
    marker = read_json(root / "nsdbench-dataset.json")
    scores = []
    for subject in map(int, marker["subjects"]):
        data = read_subject(root, subject)
        columns = {"all": np.ones_like(data.early), "v1": data.v1, "high": ~data.early}[voxels]
        session = np.roll(zscore_runs(data.session[:, columns]), shift, axis=0)
        scores.append(_measure(data, data.core[:, columns], session, spaces, marker["n_shared"]))
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}


def _measure(
    data: SubjectData, core: Floats, session: Floats, spaces: dict[str, tuple[Floats, Floats]], n_shared: int
) -> dict[str, float]:
    letters = [r["cue"] for r in table("targets")][:12]
    ridge = Ridge(core[n_shared:])
    scores = {}
    for space, (of_images, of_targets) in spaces.items():
        values = of_images[data.images]
        train = values[n_shared:]
        weights = ridge.weights(standardise(train, train))
        truth, predicted = standardise(values[:n_shared], train), core[:n_shared] @ weights
        scores[f"seen/{space}"] = two_way(predicted, truth)
        scores[f"seen_r/{space}"] = float(np.diag(correlate(predicted, truth)).mean())
        targets = standardise(of_targets, train)
        for task in ("vision", "imagery"):
            rows = task_rows(task)
            decoded = average(session[rows], data.condition[rows], letters) @ weights
            scores[f"{task}/{space}"] = two_way(decoded, targets)
            scores[f"{task}_A/{space}"] = two_way(decoded[:6], targets[:6])
            scores[f"{task}_B/{space}"] = two_way(decoded[6:], targets[6:])
    return scores


def six_way(root: Path, stimulus_set: str, region: str) -> dict[str, float]:
    """Return single-trial identification among the six targets of a set by the nearest class mean.

    Keys: ``vision`` (half of the trials of the run against the other half), ``imagery`` (run 1 against run 2),
    ``transfer`` (vision means against imagery trials). ``region`` is ``all``, ``early`` or ``high``. Chance is 1/6.
    """
    marker = read_json(root / "nsdbench-dataset.json")
    scores = [_six_way(read_subject(root, int(s)), stimulus_set, region) for s in marker["subjects"]]
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}


def _six_way(data: SubjectData, stimulus_set: str, region: str) -> dict[str, float]:
    columns = {"all": np.ones_like(data.early), "early": data.early, "high": ~data.early}[region]
    session = zscore_runs(data.session[:, columns])
    letters = [r["cue"] for r in table("targets") if r["stimulus_set"] == stimulus_set]
    vision, imagery = task_rows("vision", stimulus_set), task_rows("imagery", stimulus_set)
    first, second = imagery[:48], imagery[48:]

    def hits(train: NDArray[np.int64], test: NDArray[np.int64]) -> float:
        r = correlate(session[test], average(session[train], data.condition[train], letters))
        return float(np.mean(np.array(letters)[r.argmax(axis=1)] == data.condition[test]))

    rng = np.random.Generator(np.random.PCG64(0))
    halves = []
    for _ in range(10):
        shuffled = rng.permutation(vision)
        half = np.concatenate([shuffled[data.condition[shuffled] == c][:4] for c in letters])
        other = np.setdiff1d(vision, half)
        halves += [hits(half, other), hits(other, half)]
    return {
        "vision": float(np.mean(halves)),
        "imagery": (hits(first, second) + hits(second, first)) / 2,
        "transfer": hits(vision, imagery),
    }


def floors(root: Path) -> dict[str, float]:
    """Return the mean pixel correlation that needs no brain: mean training image, random training images.

    The mean is over the shared images; subject by subject, then over subjects.
    """
    marker = read_json(root / "nsdbench-dataset.json")
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        images = file["imgBrick"][:].reshape(marker["n_images"], -1)
    rng = np.random.Generator(np.random.PCG64(0))
    scores = []
    for subject in map(int, marker["subjects"]):
        rows = read_subject(root, subject).images
        test, train = rows[: marker["n_shared"]], rows[marker["n_shared"] :]
        mean = images[train].mean(axis=0, dtype=np.float64)[None].astype(np.float32)
        truth, chosen = (
            images[test].astype(np.float32),
            images[rng.choice(train, len(test))].astype(np.float32),
        )
        scores.append((correlate(mean, truth).mean(), np.diag(correlate(chosen, truth)).mean()))
    mean_image, random_image = np.mean(scores, axis=0)
    return {"mean_image": float(mean_image), "random_image": float(random_image)}


def ncsnr_recovery(root: Path) -> dict[str, float]:
    """Return how well ncsnr.nii.gz agrees with the true values: correlation, and median ratio where ncsnr > 0.15."""
    true, estimated = [], []
    for subject in map(int, read_json(root / "nsdbench-dataset.json")["subjects"]):
        key = f"subj{subject:02d}"
        general = read_volume(root / f"nsddata/ppdata/{key}/func1pt8mm/roi/nsdgeneral.nii.gz") == 1
        path = root / f"nsddata_betas/ppdata/{key}/func1pt8mm/{BETAS}/ncsnr.nii.gz"
        estimated.append(read_volume(path)[general])
        true.append(np.load(root / f"sim_truth/{key}.npz")["ncsnr"])
    a, b = np.concatenate(true), np.concatenate(estimated)
    return {"r": float(np.corrcoef(a, b)[0, 1]), "ratio": float(np.median((b / a)[a > 0.15]))}


def encoding(root: Path, subject: int) -> dict[str, float]:
    """Return the accuracy of a linear encoder from low-level and semantic features: correlations over test images."""
    data, spaces = read_subject(root, subject), target_spaces(root)
    n_shared = read_json(root / "nsdbench-dataset.json")["n_shared"]
    features = np.concatenate([values[data.images] for values, _ in spaces.values()], axis=1)
    features = standardise(features, features[n_shared:])
    predicted = features[:n_shared] @ Ridge(features[n_shared:]).weights(data.core[n_shared:])
    r = np.diag(correlate(predicted.T, data.core[:n_shared].T))
    return {
        "all": float(r.mean()),
        "early": float(r[data.early].mean()),
        "high": float(r[~data.early].mean()),
    }


def main(specs: list[str]) -> None:
    """Print the truths of each configuration."""
    from nsdbench.sim import ensure, parse_config

    for spec in specs or ["sim"]:
        root = ensure(parse_config(spec))
        scores = measure(root)
        print(f"{spec}\n  {'two-way identification':24s}{''.join(f'{space:>8s}' for space in SPACES)}")
        for test in TESTS:
            columns = "".join(f"{scores[f'{test}/{space}']:8.3f}" for space in SPACES)
            print(f"  {test:24s}{columns}")
        for name, values in (("floors", floors(root)), ("ncsnr", ncsnr_recovery(root))):
            print(f"  {name:24s}{'  '.join(f'{key} {value:.3f}' for key, value in values.items())}")
        for stimulus_set in "AB":
            for region in ("all", "early", "high"):
                values = six_way(root, stimulus_set, region)
                text = "  ".join(f"{key} {value:.3f}" for key, value in values.items())
                print(f"  six-way {stimulus_set} {region:14s}{text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
