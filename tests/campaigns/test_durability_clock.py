"""A clock that jumps, forwards or backwards, changes no result, breaks no lock and gives no negative time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fragile import Ended, Forks, Kill
from run_content import SMALL, command, content, left_behind

Place = Callable[[str], Path]
WORDS = command("short_decoder:Trained", "imagery")
YEAR = 365.25 * 24 * 3600
JUMPS = (0.0, 10 * YEAR, -10 * YEAR, 3600.0, -3600.0)


def _require_times(folder: Path) -> None:
    """Check that no record says that something took less than no time."""
    for path in folder.rglob("run.json"):
        assert all(0 <= seconds < 600 for seconds in json.loads(path.read_text())["timings"].values())


def _date(folder: Path, seconds: float) -> None:
    """Give every file below ``folder`` another date."""
    for path in folder.rglob("*"):
        stat = path.stat()
        os.utime(path, (stat.st_atime + seconds, stat.st_mtime + seconds))


def test_a_clock_that_jumps_with_every_look_at_it_changes_no_result(
    place: Place, finished: Path, forks: Forks
) -> None:
    folder = place("jumping")
    ended = forks.run(SMALL, folder, clock=JUMPS)
    assert ended.code == 0, ended.err
    assert content(folder / "runs") == content(finished / "runs")
    _require_times(folder / "runs")
    assert "in -" not in ended.err  # "done in 0.3 s"


@pytest.mark.slow
def test_a_run_killed_before_the_clock_was_set_goes_on_after_it(place: Place, forks: Forks) -> None:
    first = place("undisturbed")
    undisturbed = forks.run(WORDS, first)
    assert undisturbed.code == 0, undisturbed.err
    expected, changes = content(first / "runs"), undisturbed.changes
    cases = [(jump, changes * part // 6) for jump in JUMPS[1:] for part in range(1, 6)]
    for jump, change in cases:
        folder = place(f"{jump:.0f}-{change}")
        assert forks.run(WORDS, folder, kill=Kill(change=change)).killed
        ended = forks.run(WORDS, folder, clock=[jump])
        assert ended.code == 0, ended.err
        assert content(folder / "runs") == expected
        assert not left_behind(folder)
        _require_times(folder / "runs")
    print(
        f"\nclock: {len(cases)} kills, each resumed up to ten years before or after, none with another result"
    )


@pytest.mark.slow
@pytest.mark.parametrize("years", [-30, 30])
def test_files_of_another_date_are_used_all_the_same(place: Place, forks: Forks, years: int) -> None:
    folder = place("redated")
    assert forks.run(WORDS, folder).code == 0
    before = content(folder / "runs")
    _date(folder, years * YEAR)
    again = forks.run(WORDS, folder)
    assert again.code == 0 and "1 reused" in again.err, again.err
    (scores,) = (folder / "runs").rglob("scores.parquet")
    scores.unlink()
    assert forks.run(WORDS, folder).code == 0
    assert content(folder / "runs") == before


@pytest.mark.slow
def test_of_two_runs_the_one_that_says_it_is_newer_counts_and_the_other_is_mentioned(
    place: Place, forks: Forks
) -> None:
    folder, words = place("seeds"), command("random_image", "imagery")
    assert forks.run(words, folder, clock=[30 * YEAR]).code == 0
    alone = _rows(_compare(forks, folder))
    assert forks.run([*words, "--seed", "1"], folder).code == 0
    both = _compare(forks, folder)
    assert _rows(both) == alone
    assert "1 older run(s)" in both.out
    assert "dated in the future" in both.out


def _compare(forks: Forks, folder: Path) -> Ended:
    ended = forks.run(["compare", "runs/sim", "--json"], folder)
    assert ended.code == 0, ended.err
    return ended


def _rows(compared: Ended) -> list[tuple[str, float]]:
    return [(row["run_id"], row["value"]) for row in json.loads(compared.out)["rows"]]
