"""What is prepared ahead comes in order, in bounds, and gives the same scores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nsdbench import features
from nsdbench.features import Pace, pace
from nsdbench.prefetch import prefetched
from nsdbench.schema import RunKey
from nsdbench.scoring import ScoreSettings, score
from nsdbench.types import Reconstructions, Stimuli


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_everything_comes_once_and_in_order(ahead: int) -> None:
    assert list(prefetched(lambda i: i * i, range(20), ahead=ahead)) == [i * i for i in range(20)]


def test_no_more_than_asked_is_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            taken.append(i)
            yield i

    for used, _ in enumerate(prefetched(lambda i: i, items(), ahead=2), start=1):
        assert len(taken) <= used + 2


def test_work_is_done_in_one_other_thread_while_the_caller_is_busy() -> None:
    threads: list[int] = []
    started = threading.Event()

    def make(i: int) -> int:
        threads.append(threading.get_ident())
        if i == 1:
            started.set()
        return i

    stream = prefetched(make, range(3), ahead=1)
    assert next(stream) == 0
    assert started.wait(10)  # the second is made although nobody has asked for it
    assert list(stream) == [1, 2]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_is_raised_when_its_turn_comes(ahead: int) -> None:
    stream = prefetched(lambda i: 1 // (2 - i), range(5), ahead=ahead)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_whoever_stops_early_does_not_wait_for_the_rest() -> None:
    made: list[int] = []

    def make(i: int) -> int:
        made.append(i)
        time.sleep(0.05)
        return i

    stream = prefetched(make, range(100), ahead=90)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(made) < 50


def test_a_cpu_gets_small_batches_and_a_gpu_what_was_asked_with_work_ahead() -> None:
    assert pace("cpu", 64) == Pace(8)
    assert pace("cpu", 3) == Pace(3)
    assert (pace("cuda:0", 64).batch_size, pace("cuda:0", 64).pinned) == (64, True)
    assert pace("cuda", 64).ahead > 0


def test_scores_do_not_depend_on_how_far_ahead_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    ids = ("a", "b", "c", "d", "e")
    images = {name: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for name in ids}
    stimuli = Stimuli(ids, ("s",) * 5, frozenset(ids), images.__getitem__, "hash")
    recon = Reconstructions(rng.integers(0, 256, (5, 3, 48, 48, 3), dtype=np.uint8), ids)
    key = RunKey("run", "sim", "model", "mini", 1, "shared1000")
    found = []
    for ahead in (0, 2):
        monkeypatch.setattr(features, "pace", lambda device, batch_size, n=ahead: Pace(2, n))
        settings = ScoreSettings(
            metrics=("pixcorr", "ssim", "mini_alexnet2", "mini_effnet"), cache=tmp_path / str(ahead)
        )
        found.append(score(recon, stimuli, key, settings=settings).items)
    assert found[0].equals(found[1])
