"""The regression check: what fails, what only counts as noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nsdbench import leaderboard
from nsdbench.check import Report, Rules, check
from nsdbench.errors import LeaderboardError, UsageError

Make = Callable[..., pa.Table]
Compare = Callable[..., Report]


@pytest.fixture
def run_check(tmp_path: Path) -> Compare:
    """Write two item tables and check the second against the first."""

    def run(old: pa.Table, new: pa.Table, *, same: bool | None = None, **rules: Any) -> Report:
        hashes = {True: ("a", "a"), False: ("a", "b"), None: (None, None)}[same]
        for name, table, sha256 in zip(("old", "new"), (old, new), hashes, strict=True):
            leaderboard.write_items(tmp_path / f"{name}.parquet", table, reconstructions=sha256)
        return check([tmp_path / "new.parquet"], tmp_path / "old.parquet", Rules(**rules))

    return run


def kinds(report: Report) -> list[str]:
    return [failure.kind for failure in report.failures]


def shifted(noisy: Any, by: float, noise: float = 0.0) -> Callable[[str, int, int], float]:
    """Return the noisy values moved by ``by``, every second target a bit more, every other a bit less."""
    return lambda t, k, s: noisy(t, k, s) + by + noise * (1 if int(t[1]) % 2 else -1)


def test_equal_scores_pass_and_are_counted(run_check: Compare, make_items: Make, noisy: Any) -> None:
    report = run_check(make_items(noisy), make_items(noisy), same=True)
    assert (report.ok, report.compared, report.cells) == (True, 48, 2)


def test_identical_reconstructions_must_score_the_same(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    report = run_check(make_items(noisy), make_items(shifted(noisy, 1e-4)), same=True)
    assert kinds(report) == ["changed", "changed"]
    assert "24 of 24 scores" in report.failures[0].message


def test_an_improvement_of_identical_reconstructions_fails_too(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    assert not run_check(make_items(noisy), make_items(shifted(noisy, 0.3)), same=True).ok


def test_rounding_differences_of_identical_reconstructions_pass(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    assert run_check(make_items(noisy), make_items(shifted(noisy, 5e-7)), same=True).ok


def test_ssim_has_a_wider_rounding_tolerance(run_check: Compare, make_items: Make, noisy: Any) -> None:
    metrics = (("ssim", "none"), ("pixcorr", "none"))
    report = run_check(
        make_items(noisy, metrics=metrics), make_items(shifted(noisy, 5e-6), metrics=metrics), same=True
    )
    assert [failure.cell.split()[3] for failure in report.failures] == ["pixcorr"]


@pytest.mark.parametrize("same", [False, None])
def test_regenerated_reconstructions_may_differ_a_little(
    run_check: Compare, make_items: Make, noisy: Any, same: bool | None
) -> None:
    assert run_check(make_items(noisy), make_items(shifted(noisy, -0.005, 0.003)), same=same).ok


def test_a_certain_loss_beyond_the_tolerance_fails(run_check: Compare, make_items: Make, noisy: Any) -> None:
    report = run_check(make_items(noisy), make_items(shifted(noisy, -0.05, 0.01)))
    assert kinds(report) == ["worse", "worse"]
    assert "worse by .050" in report.failures[0].message


def test_an_uncertain_loss_passes(run_check: Compare, make_items: Make, noisy: Any) -> None:
    assert run_check(make_items(noisy), make_items(shifted(noisy, -0.05, 0.4))).ok


def test_the_interval_is_one_sided(run_check: Compare, make_items: Make, noisy: Any) -> None:
    # losses evenly spread around .075, standard error .036: the bounds are -.015 (one-sided) and -.004 (two-sided)
    def lost(target: str, sample: int, subject: int) -> float:
        place = 6 * "AB".index(target[0]) + int(target[1]) - 6.5
        return float(noisy(target, sample, subject)) - 0.075 + 0.2 * place / 5.5

    old, new = (make_items(v, metrics=(("pixcorr", "none"),)) for v in (noisy, lost))
    assert kinds(run_check(old, new)) == ["worse"]


def test_improvements_of_regenerated_reconstructions_pass(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    assert run_check(make_items(noisy), make_items(shifted(noisy, 0.3))).ok


def test_a_distance_that_grows_is_a_loss(run_check: Compare, make_items: Make, noisy: Any) -> None:
    metrics = (("effnet", "none"),)
    old = make_items(noisy, metrics=metrics)
    assert kinds(run_check(old, make_items(shifted(noisy, 0.05), metrics=metrics))) == ["worse"]
    assert run_check(old, make_items(shifted(noisy, -0.05), metrics=metrics)).ok


def test_identification_tolerates_two_points_and_the_rest_one(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    report = run_check(make_items(noisy), make_items(shifted(noisy, -0.015)))
    assert [failure.cell.split()[3] for failure in report.failures] == ["pixcorr"]


def test_a_tolerance_can_be_set_per_metric(run_check: Compare, make_items: Make, noisy: Any) -> None:
    old, new = make_items(noisy), make_items(shifted(noisy, -0.015))
    assert run_check(old, new, losses={"pixcorr": 0.02}).ok
    assert not run_check(old, new, losses={"pixcorr": 0.02, "alexnet2": 0.01}).ok


def test_a_tolerance_for_an_unknown_metric_is_misuse(run_check: Compare, make_items: Make) -> None:
    with pytest.raises(UsageError, match="'pixcor'"):
        run_check(make_items(), make_items(), losses={"pixcor": 0.1})


def test_exact_demands_equality_without_known_hashes(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    old, new = make_items(noisy), make_items(shifted(noisy, 1e-4))
    assert run_check(old, new).ok
    assert kinds(run_check(old, new, exact=True)) == ["changed", "changed"]


@pytest.mark.parametrize("same", [True, None])
@pytest.mark.parametrize(
    "less",
    [{"metrics": (("pixcorr", "none"),)}, {"targets": ("A1", "A2", "B1")}, {"subjects": (1,)}],
    ids=["metric", "target", "subject"],
)
def test_whatever_is_missing_fails_unless_allowed(
    run_check: Compare, make_items: Make, noisy: Any, less: dict[str, Any], same: bool | None
) -> None:
    old, new = make_items(noisy, subjects=(1, 2)), make_items(noisy, **({"subjects": (1, 2)} | less))
    assert set(kinds(run_check(old, new, same=same))) == {"missing"}
    assert run_check(old, new, same=same, allow_missing=True).ok


def test_a_missing_sample_matters_only_to_identical_reconstructions(
    run_check: Compare, make_items: Make
) -> None:
    old, new = make_items(0.5, n_samples=3), make_items(0.5, n_samples=2)
    assert kinds(run_check(old, new, same=True)) == ["missing", "missing"]
    assert run_check(old, new, same=False).ok


def test_a_value_that_became_undefined_fails(run_check: Compare, make_items: Make) -> None:
    rows = make_items().to_pylist()
    rows[0] |= {"value": None, "reason": "constant image"}
    report = run_check(make_items(), pa.Table.from_pylist(rows), same=True)
    assert kinds(report) == ["changed"]
    assert report.failures[0].worst[0]["new"] is None


def test_more_than_the_baseline_has_is_no_failure(run_check: Compare, make_items: Make) -> None:
    assert run_check(make_items(subjects=(1,)), make_items(subjects=(1, 2)), same=True).ok


def test_a_new_metric_version_asks_for_a_new_baseline(run_check: Compare, make_items: Make) -> None:
    report = run_check(make_items(), make_items(metric_version=2))
    assert kinds(report) == ["version", "version"]


def test_the_worst_items_are_listed_first(run_check: Compare, make_items: Make, noisy: Any) -> None:
    lost = {"A3": 0.9, "B5": 0.8}
    report = run_check(make_items(noisy), make_items(lambda t, k, s: noisy(t, k, s) - lost.get(t, 0.1)))
    assert [item["stimulus"] for item in report.failures[0].worst[:2]] == ["A3", "B5"]


def test_a_single_target_is_judged_by_its_difference(run_check: Compare, make_items: Make) -> None:
    old, new = make_items(0.5, targets=("A1",)), make_items(0.4, targets=("A1",))
    assert kinds(run_check(old, new)) == ["worse", "worse"]


def test_leaderboards_cannot_be_checked(tmp_path: Path, make_items: Make, origin: Any) -> None:
    leaderboard.write_items(tmp_path / "old.parquet", make_items())
    leaderboard.append(tmp_path / "board", leaderboard.summarize(make_items(), origin))
    with pytest.raises(LeaderboardError, match="no item scores"):
        check([tmp_path / "board"], tmp_path / "old.parquet")


def test_noise_of_regenerated_samples_rarely_fails(run_check: Compare, make_items: Make) -> None:
    failed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        old, new = (
            make_items(lambda t, k, s, rng=rng: 0.5 + float(rng.normal(0, 0.05)), n_samples=10)
            for _ in range(2)
        )
        failed += not run_check(old, new).ok
    assert failed <= 2
