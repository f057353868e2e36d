"""The regression check: what fails, what only counts as noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nsdbench import leaderboard
from nsdbench.check import Report, Rules, check
from nsdbench.errors import LeaderboardError, UsageError

ALL_TARGETS = tuple(f"{letter}{number}" for letter in "AB" for number in range(1, 7))
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
    assert [failure.name.metric for failure in report.failures] == ["pixcorr"]


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
    # losses evenly spread around .085, standard error .038: the bounds are -.017 (one-sided) and -.002 (two-sided)
    def lost(target: str, sample: int, subject: int) -> float:
        place = 6 * "AB".index(target[0]) + int(target[1]) - 6.5
        return float(noisy(target, sample, subject)) - 0.085 + 0.2 * place / 5.5

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
    assert [failure.name.metric for failure in report.failures] == ["pixcorr"]


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
    assert report.failures[0].worst[0].new is None


def test_more_than_the_baseline_has_is_no_failure(run_check: Compare, make_items: Make) -> None:
    assert run_check(make_items(subjects=(1,)), make_items(subjects=(1, 2)), same=True).ok


def test_a_new_metric_version_asks_for_a_new_baseline(run_check: Compare, make_items: Make) -> None:
    report = run_check(make_items(), make_items(metric_version=2))
    assert kinds(report) == ["version", "version"]


def test_the_worst_items_are_listed_first(run_check: Compare, make_items: Make, noisy: Any) -> None:
    lost = {"A3": 0.9, "B5": 0.8}
    report = run_check(make_items(noisy), make_items(lambda t, k, s: noisy(t, k, s) - lost.get(t, 0.1)))
    assert [item.stimulus for item in report.failures[0].worst[:2]] == ["A3", "B5"]


@pytest.mark.parametrize(("n", "ok"), [(1, True), (4, True), (5, False)])
def test_a_loss_on_fewer_than_five_targets_is_never_certain_and_a_note_says_so(
    run_check: Compare, make_items: Make, n: int, ok: bool
) -> None:
    targets = tuple(f"A{i + 1}" for i in range(n))
    report = run_check(make_items(0.5, targets=targets), make_items(0.4, targets=targets))
    assert (report.ok, len(report.notes)) == (ok, int(ok))
    assert [change.value for _, change in report.moved] == pytest.approx([-0.1, -0.1] if ok else [])


def test_leaderboards_cannot_be_checked(tmp_path: Path, make_items: Make, origin: Any) -> None:
    leaderboard.write_items(tmp_path / "old.parquet", make_items())
    leaderboard.append(tmp_path / "board", leaderboard.summarize(make_items(), origin))
    with pytest.raises(LeaderboardError, match="no item scores"):
        check([tmp_path / "board"], tmp_path / "old.parquet")


TWELVE = tuple((f"m{i}", "none") for i in range(12))


def by_metric(
    make_items: Make, values: dict[str, Callable[[str, int, int], float]], **kwargs: Any
) -> pa.Table:
    """Return one item table with other values for every metric."""
    return pa.concat_tables([make_items(v, metrics=((m, "none"),), **kwargs) for m, v in values.items()])


def test_a_loss_that_is_certain_alone_is_suspect_among_many_metrics(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    rng = np.random.default_rng(4)
    noise = {m: {t: float(rng.normal(0, 0.1)) for t in ALL_TARGETS} for m, _ in TWELVE}
    loss = {t: -0.08 + 0.1 * (-1) ** k for k, t in enumerate(ALL_TARGETS)}

    def new(metrics: int) -> pa.Table:
        moves = {f"m{i}": noise[f"m{i}"] if i else loss for i in range(metrics)}
        return by_metric(
            make_items, {m: lambda t, k, s, d=d: noisy(t, k, s) + d[t] for m, d in moves.items()}
        )

    def old(metrics: int) -> pa.Table:
        return make_items(noisy, metrics=TWELVE[:metrics])

    assert kinds(run_check(old(1), new(1))) == ["worse"]
    report = run_check(old(12), new(12))
    assert report.ok
    assert {name.metric: change.verdict for name, change in report.moved}["m0"] == "suspect"


def test_the_p_value_counts_sign_patterns_of_the_loss_beyond_the_tolerated_one(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    loss = dict(zip(ALL_TARGETS, np.random.default_rng(1).normal(-0.03, 0.04, size=12), strict=True))
    metrics = (("pixcorr", "none"),)
    old, new = (
        make_items(noisy, metrics=metrics),
        make_items(lambda t, k, s: noisy(t, k, s) + loss[t], metrics=metrics),
    )
    report = run_check(old, new)
    changes = [*(change for _, change in report.moved), *(failure.change for failure in report.failures)]
    beyond = np.array([*loss.values()]) + 0.01
    sums = np.array([*itertools.product((-1, 1), repeat=12)]) @ beyond
    assert changes[0] is not None
    assert changes[0].p == pytest.approx((sums <= beyond.sum() + 1e-9).mean())
    assert changes[0].value == pytest.approx(np.mean([*loss.values()]))
    assert (changes[0].n_targets, changes[0].n_subjects, changes[0].n_metrics) == (12, 1, 1)


def test_models_and_splits_are_families_of_their_own(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    def both(value: Any) -> pa.Table:
        return pa.concat_tables([make_items(value, model="one"), make_items(value, model="two")])

    report = run_check(both(noisy), both(shifted(noisy, -0.05, 0.01)))
    assert [failure.change and failure.change.n_metrics for failure in report.failures] == [2] * 4


def test_smaller_changes_are_listed_with_their_sign_turned_for_distances(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    metrics = (("pixcorr", "none"), ("effnet", "none"))
    report = run_check(
        make_items(noisy, metrics=metrics), make_items(shifted(noisy, 0.006, 0.001), metrics=metrics)
    )
    assert report.ok
    assert {n.metric: (round(c.value, 6), c.verdict) for n, c in report.moved} == {
        "pixcorr": (0.006, "better"),
        "effnet": (-0.006, "worse"),
    }


def test_what_did_not_move_is_not_listed(run_check: Compare, make_items: Make, noisy: Any) -> None:
    assert run_check(make_items(noisy), make_items(noisy), same=False).moved == ()


def test_metrics_of_few_targets_have_intervals_over_their_own(
    run_check: Compare, make_items: Make, noisy: Any
) -> None:
    def caption(value: Any) -> pa.Table:
        return make_items(value, metrics=(("caption_rouge1", "none"),), targets=ALL_TARGETS[6:11])

    def items(value: Any) -> pa.Table:
        return pa.concat_tables([make_items(value), caption(value)])

    new = shifted(noisy, 0.004, 0.003)
    together, alone = run_check(items(noisy), items(new)), run_check(caption(noisy), caption(new))
    change = {name.metric: change for name, change in together.moved}["caption_rouge1"]
    assert change.n_targets == 5
    assert (change.low, change.high) == (alone.moved[0][1].low, alone.moved[0][1].high)


def one_flip(targets: tuple[str, ...], size: float = 1 / 11) -> Callable[[str, int, int], float]:
    """Return 6/11 everywhere but in sample 0 of some targets, which are ``size`` lower."""
    return lambda t, k, s: 6 / 11 - (size if k == 0 and t in targets else 0.0)


@pytest.mark.parametrize("size", [1 / 11, 0.5 / 11])
def test_one_flipped_comparison_of_identical_reconstructions_is_noted(
    run_check: Compare, make_items: Make, size: float
) -> None:
    metrics = (("mini_alexnet2", "AB12"),)
    old, new = (make_items(one_flip(t, size), metrics=metrics) for t in ((), ("A2",)))
    report = run_check(old, new, same=True)
    assert report.ok
    assert report.notes[0].endswith(
        f"{size * 11:g} of 264 comparisons of identical reconstructions flipped (near ties)"
    )


@pytest.mark.parametrize(
    ("metric", "pool", "targets", "size"),
    [
        ("alexnet2", "AB12", ("A2", "B3"), 1 / 11),
        ("alexnet2", "AB12", ("A2",), 2 / 11),
        ("alexnet2", "AB12", ("A2",), 0.7 / 11),
        ("retrieval_image_top1", "AB12", ("A2",), 1.0),
        ("pixcorr", "none", ("A2",), 1 / 11),
    ],
    ids=["two items", "two comparisons of one item", "not a count", "retrieval", "no comparisons"],
)
def test_anything_more_than_a_flip_of_identical_reconstructions_fails(
    run_check: Compare, make_items: Make, metric: str, pool: str, targets: tuple[str, ...], size: float
) -> None:
    old, new = (make_items(one_flip(t, size), metrics=((metric, pool),)) for t in ((), targets))
    assert kinds(run_check(old, new, same=True)) == ["changed"]


@pytest.mark.parametrize(
    ("flips", "each", "ok"), [(60, 1, True), (61, 1, False), (1, 2, False)], ids=["few", "many", "one item"]
)
def test_large_pools_allow_one_flip_in_a_thousand_comparisons_and_in_a_hundred_of_an_item(
    run_check: Compare, make_items: Make, flips: int, each: int, ok: bool
) -> None:
    targets = tuple(f"t{i:03}" for i in range(301))  # 301 * 2 samples * 100 comparisons
    old, new = (
        make_items(
            one_flip(moved, each / 100),
            metrics=(("alexnet2", "pool101"),),
            targets=targets,
            split="shared1000",
        )
        for moved in ((), targets[:flips])
    )
    assert run_check(old, new, same=True).ok == ok


def test_an_unchanged_noisy_decoder_rarely_fails(run_check: Compare, make_items: Make) -> None:
    # the bound of one metric alone would stop one in ten of these
    failed = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        old, new = (
            by_metric(
                make_items,
                {m: lambda t, k, s, rng=rng: 0.5 + float(rng.normal(0, 0.2)) for m, _ in TWELVE},
                n_samples=3,
            )
            for _ in range(2)
        )
        failed += not run_check(old, new).ok
    assert failed <= 3
