"""S13 of the simulation: what differs by chance is told from what has lost half of its signal."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nsdbench import leaderboard, stats, summary
from nsdbench.adapters import registry
from nsdbench.adapters.base import item_rng
from nsdbench.adapters.ridge import SIZE, Ridge
from nsdbench.check import Report, check
from nsdbench.cli import app
from nsdbench.types import Progress, Reconstructions, Trials

pytestmark = pytest.mark.slow

METRICS = 8
# the tests of a model share its runs, so one process has to do them
SAMPLER, TAKAGI = (pytest.param(m, marks=pytest.mark.xdist_group(f"s13-{m}")) for m in ("sampler", "takagi"))
Run = Callable[[float, int], Path]


class Sampler(Ridge):
    """Ridge regression whose samples differ by a drawn tint of every eighth of the image."""

    name = "sampler"
    stochastic = True

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        plain = super().generate(trials, 1, seed, progress)
        block = np.ones((SIZE // 8, SIZE // 8, 1))
        tints = [
            [np.kron(item_rng(seed, target, k).normal(0, 25, (8, 8, 3)), block) for k in range(n_samples)]
            for target in plain.targets
        ]
        images = np.clip(np.rint(plain.images + np.array(tints)), 0, 255).astype(np.uint8)
        return Reconstructions(images, plain.targets)


@pytest.fixture(scope="module")
def runs(sim_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    """Return a function from a model to its runs, made when they are first asked for, by SNR and seed.

    One subject, the 100 images that are simulated of those that all subjects saw, two samples of each.
    """
    out = tmp_path_factory.mktemp("runs")

    def run(model: str, snr: float, seed: int) -> Path:
        folder = out / f"{model}-{snr}-{seed}"
        if not folder.exists():
            where = [
                "--dataset",
                f"sim:subjects=1,snr={snr}",
                "--cache",
                str(sim_cache),
                "--out",
                str(folder),
            ]
            what = ["--model", model, "--split", "shared1000", "--subject", "1", "--samples", "2"]
            done = CliRunner().invoke(
                app, ["run", *what, "--seed", str(seed), *where], catch_exceptions=False
            )
            assert done.exit_code == 0, done.stderr
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "s13", types.SimpleNamespace(Sampler=Sampler))
        patch.setitem(registry.ADAPTERS, Sampler.name, registry.Entry("s13:Sampler", "for a test"))
        yield lambda model: lambda snr, seed: run(model, snr, seed)


def scores(folder: Path) -> dict[str, np.ndarray]:
    """Return the sample-averaged scores of every metric, sorted by target, larger is better."""
    found: dict[str, dict[str, list[float]]] = {}
    (path,) = folder.rglob("scores.parquet")
    for row in leaderboard.read_items(path).to_pylist():
        sign = -1 if summary.direction(row["metric"]) == "lower" else 1
        found.setdefault(row["metric"], {}).setdefault(row["stimulus"], []).append(sign * row["value"])
    return {m: np.array([np.mean(v) for _, v in sorted(by.items())]) for m, by in sorted(found.items())}


def corrected_p(old: Path, new: Path) -> np.ndarray:
    """Return the two-sided p of every metric by sign flips over targets, corrected by Holm."""
    before, after = scores(old), scores(new)
    assert before.keys() == after.keys()
    differences = np.array([after[m] - before[m] for m in before])
    assert differences.shape == (METRICS, 100)
    return stats.holm(stats.sign_flips(differences[:, None]).p_two_sided())


def checked(old: Path, new: Path) -> Report:
    """Check one run against another, which cannot have the same reconstructions."""
    (baseline,) = old.rglob("scores.parquet")
    found = check([new], baseline.parent)
    assert found.cells == METRICS
    return found


@pytest.mark.parametrize(
    ("model", "snr"),
    [
        pytest.param(*one.values, snr, marks=one.marks)
        for one, snr in ((SAMPLER, 1), (SAMPLER, 0.5), (TAKAGI, 1))
    ],
)
def test_s13_two_seeds_of_one_decoder_do_not_differ(
    runs: Callable[[str], Run], model: str, snr: float
) -> None:
    run = runs(model)
    for old, new in itertools.permutations([run(snr, seed) for seed in (0, 1)]):
        assert corrected_p(old, new).min() > 0.05
        assert checked(old, new).ok


@pytest.mark.parametrize("model", [SAMPLER, TAKAGI])
def test_s13_half_the_signal_differs_and_fails(runs: Callable[[str], Run], model: str) -> None:
    old, new = runs(model)(1, 0), runs(model)(0.5, 1)
    assert corrected_p(old, new).min() < 0.001
    report = checked(old, new)
    assert {failure.kind for failure in report.failures} == {"worse"}
    assert len(report.failures) >= METRICS // 2


@pytest.mark.parametrize("model", [SAMPLER, TAKAGI])
def test_s13_twice_the_signal_differs_and_passes(runs: Callable[[str], Run], model: str) -> None:
    report = checked(runs(model)(0.5, 1), runs(model)(1, 0))
    assert report.ok
    assert sum(change.verdict == "better" for _, change in report.moved) >= METRICS // 2
