"""A run may be killed at any moment: the same command then ends in the results of a run that was never disturbed."""

from __future__ import annotations

import itertools
import queue
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fragile import STAGES, Ended, Forks, Kill
from run_content import SMALL, command, content, left_behind

Place = Callable[[str], Path]
FLOORS = command("mean_image,random_image")
FITTED = command("ridge,short_decoder:Trained")
ONE_CELL = command("short_decoder:Trained", "imagery")


@dataclass
class Campaign:
    """One command line, what it gives undisturbed, and how attempts to disturb it ended."""

    words: Sequence[str]
    folder: Path
    undisturbed: Ended
    expected: dict[str, str]
    hits: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, words: Sequence[str], folder: Path, forks: Forks) -> Campaign:
        """Run a command undisturbed in ``folder``, which holds the data set."""
        ended = forks.run(words, folder)
        assert ended.code == 0, ended.err
        return cls(words, folder, ended, content(folder / "runs"))

    def attempt(self, forks: Forks, folder: Path, kill: Kill, *, first: Sequence[str] = ()) -> None:
        """Kill a run, let it finish, and compare; the folder is removed if all is well.

        ``first`` are options of the first call only.
        """
        ended = forks.run([*self.words, *first], folder, kill=kill)
        self.hits[ended.stage if ended.killed else "none"] += 1
        again = forks.run(self.words, folder)
        found = content(folder / "runs")
        if again.code or found != self.expected:
            names = [n for n in found.keys() | self.expected.keys() if found.get(n) != self.expected.get(n)]
            self.wrong.append(
                f"{kill} in {ended.stage}: exit {again.code}, {sorted(names)}, {again.err[-300:]}"
            )
        elif litter := left_behind(folder):
            self.wrong.append(f"{kill} in {ended.stage}: left behind {litter}")
        else:
            shutil.rmtree(folder)


def attempt_all(pool: Sequence[Forks], jobs: Iterable[Callable[[Forks], None]]) -> None:
    """Let every process that forks take one job after the other."""
    free: queue.SimpleQueue[Forks] = queue.SimpleQueue()
    for forks in pool:
        free.put(forks)

    def do(job: Callable[[Forks], None]) -> None:
        forks = free.get()
        try:
            job(forks)
        finally:
            free.put(forks)

    with ThreadPoolExecutor(len(pool)) as threads:
        for result in [threads.submit(do, job) for job in jobs]:
            result.result()


def drawn(spans: Sequence[tuple[str, int, float]], n: int, seed: int) -> list[Kill]:
    """Draw moments: a kind of stage evenly, one of its kind, and a moment in it."""
    generator, kills = random.Random(seed), []
    by_stage = {stage: [span for span in spans if span[0] == stage] for stage, _, _ in spans}
    for stage in itertools.islice(itertools.cycle(by_stage), n):
        _, nth, seconds = generator.choice(by_stage[stage])
        kills.append(Kill(stage, nth, generator.uniform(0, seconds)))
    return kills


def _random_kills(words: Sequence[str], place: Place, pool: Sequence[Forks], n: int, seed: int) -> Campaign:
    first = place(f"undisturbed{seed}")
    shutil.rmtree(first / "cache")  # the whole way, with the simulation
    campaign = Campaign.begin(words, first, pool[0])
    spans = [span for span in campaign.undisturbed.spans if span[0] != "start"]

    def job(number: int, kill: Kill) -> Callable[[Forks], None]:
        def do(forks: Forks) -> None:
            folder = place(f"kill{seed}-{number}")
            if kill.stage == "simulate":
                shutil.rmtree(folder / "cache")
            campaign.attempt(forks, folder, kill)

        return do

    attempt_all(pool, (job(i, kill) for i, kill in enumerate(drawn(spans, n, seed))))
    return campaign


def _kills_before_changes(
    words: Sequence[str], place: Place, pool: Sequence[Forks], step: int = 1
) -> Campaign:
    campaign = Campaign.begin(words, place("undisturbed"), pool[0])

    def job(change: int) -> Callable[[Forks], None]:
        return lambda forks: campaign.attempt(forks, place(f"change{change}"), Kill(change=change))

    attempt_all(pool, (job(k) for k in range(1, campaign.undisturbed.changes + 1, step)))
    return campaign


def _report(what: str, campaigns: Sequence[Campaign]) -> None:
    hits: Counter[str] = sum((campaign.hits for campaign in campaigns), Counter())
    shares = ", ".join(f"{stage} {hits[stage]}" for stage in (*STAGES, "none") if hits[stage])
    wrong = sum(len(campaign.wrong) for campaign in campaigns)
    print(f"\n{what}: {hits.total() - hits['none']} kills ({shares}), {wrong} with another result")


def test_a_run_killed_before_some_of_its_changes_ends_as_if_nothing_had_happened(
    place: Place, forks: Forks
) -> None:
    campaign = _kills_before_changes(SMALL, place, [forks], step=60)
    _report("every 60th change of one cell", [campaign])
    assert not campaign.wrong, campaign.wrong[0]
    assert campaign.hits.total() >= 2 and not campaign.hits["none"]


@pytest.mark.slow
def test_two_hundred_random_kills_over_all_stages_change_no_result(
    place: Place, two_forks: tuple[Forks, Forks]
) -> None:
    campaigns = [
        _random_kills(words, place, two_forks, n=104, seed=seed)
        for seed, words in enumerate((FLOORS, FITTED))
    ]
    _report("random moments", campaigns)
    for campaign in campaigns:
        assert not campaign.wrong, campaign.wrong[0]
    hits = sum((campaign.hits for campaign in campaigns), Counter())
    assert hits.total() - hits["none"] >= 200
    assert all(hits[stage] >= 15 for stage in STAGES[1:]), hits


@pytest.mark.slow
def test_a_run_killed_before_any_of_its_changes_ends_as_if_nothing_had_happened(
    place: Place, two_forks: tuple[Forks, Forks]
) -> None:
    campaign = _kills_before_changes(ONE_CELL, place, two_forks)
    _report("every change of one cell", [campaign])
    assert not campaign.wrong, campaign.wrong[0]
    assert campaign.hits.total() >= campaign.undisturbed.changes


@pytest.mark.slow
def test_a_fresh_start_that_is_killed_leaves_nothing_that_the_next_call_stumbles_over(
    place: Place, two_forks: tuple[Forks, Forks]
) -> None:
    campaign = Campaign.begin(ONE_CELL, place("undisturbed"), two_forks[0])
    fresh = two_forks[0].run([*ONE_CELL, "--fresh"], campaign.folder)
    assert fresh.code == 0 and content(campaign.folder / "runs") == campaign.expected

    def job(change: int) -> Callable[[Forks], None]:
        def do(forks: Forks) -> None:
            folder = campaign.folder.with_name(f"fresh{change}")
            shutil.copytree(campaign.folder, folder)
            campaign.attempt(forks, folder, Kill(change=change), first=["--fresh"])

        return do

    attempt_all(two_forks, (job(k) for k in range(1, fresh.changes + 1, 3)))
    _report("every third change of a fresh start", [campaign])
    assert not campaign.wrong, campaign.wrong[0]
