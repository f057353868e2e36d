"""A disk may become full, or be read-only: one sentence says so, nothing is lost, and the command goes on later."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fragile import STAGES, Ended, Fill, Forks
from run_content import SMALL, command, content, left_behind

Place = Callable[[str], Path]
WORDS = command("short_decoder:Trained", "imagery")


def _mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """Give a disk of its own to a folder."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write into a folder, not even root."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("a folder that root cannot write to needs a mount, and so root")
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def require_one_sentence(ended: Ended, *words: str) -> str:
    """Check that a command ended with exit code 2 and one error message, which says one of ``words``; return it."""
    assert ended.code == 2, (ended.code, ended.err)
    assert "Traceback" not in ended.err and "unexpected" not in ended.err, ended.err
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err
    assert any(word in ended.err for word in words), ended.err
    return errors[0]


def _full_disk(
    forks: Forks, words: list[str], folder: Path, full: tuple[str, int], expected: dict[str, str]
) -> str:
    """Let the disk become full as a stage begins, free it, and go on; return the message."""
    if full[0] == "simulate":
        shutil.rmtree(folder / "cache")
    ballast = folder / "ballast"
    ended = forks.run(words, folder, fill=Fill(*full, str(ballast)))
    if ended.code == 0 and full[1]:  # what was left was enough
        assert content(folder / "runs") == expected
        return "no message: there was room enough"
    message = require_one_sentence(ended, "space", "room", "full")
    assert not left_behind(folder), "half a file takes room on the full disk"
    ballast.unlink()
    again = forks.run(words, folder)
    assert again.code == 0, again.err
    assert content(folder / "runs") == expected
    return message


def test_a_disk_that_is_full_before_the_scores_are_written_costs_nothing_but_a_second_call(
    tmp_path: Path, simulated: Path, finished: Path, forks: Forks
) -> None:
    with disk(tmp_path / "disk", "64m") as own:
        shutil.copytree(simulated, own / "cache")
        _full_disk(forks, SMALL, own, ("score", 0), content(finished / "runs"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_disk_that_becomes_full_in_any_stage_costs_nothing_but_a_second_call(
    tmp_path: Path, place: Place, simulated: Path, forks: Forks, stage: str
) -> None:
    first = place("undisturbed")
    assert forks.run(WORDS, first).code == 0
    expected, messages = content(first / "runs"), []
    for left in (0, 4096, 12288):
        with disk(tmp_path / "disk", "128m") as own:
            shutil.copytree(simulated, own / "cache")
            messages.append(_full_disk(forks, WORDS, own, (stage, left), expected))
    print(
        f"\nfull disk as the stage {stage} begins: {len(messages)} cases", *sorted(set(messages)), sep="\n  "
    )


def test_a_read_only_cache_with_what_is_needed_does_not_matter(
    tmp_path: Path, finished: Path, forks: Forks
) -> None:
    shutil.copytree(finished / "cache", tmp_path / "fixed" / "cache")
    with read_only(tmp_path / "fixed" / "cache"):
        ended = forks.run(SMALL, tmp_path / "fixed")
    assert ended.code == 0, ended.err
    assert content(tmp_path / "fixed" / "runs") == content(finished / "runs")


@pytest.mark.slow
def test_a_read_only_cache_that_lacks_something_is_named(place: Place, forks: Forks) -> None:
    folder, messages = place("fixed"), []
    for needed in ("sim", "trials", "features"):  # each is lacking in turn
        shutil.rmtree(folder / "cache")
        (folder / "cache").mkdir()
        with contextlib.ExitStack() as stack:
            if needed == "sim":
                stack.enter_context(read_only(folder / "cache"))
            else:
                assert forks.run(command("mean_image", "imagery"), folder).code == 0
                shutil.rmtree(folder / "cache" / needed)
                shutil.rmtree(folder / "runs")
                stack.enter_context(read_only(folder / "cache"))
            ended = forks.run(WORDS, folder)
        message = require_one_sentence(ended, "Read-only")
        assert "--cache" in ended.err and "cache/" in message, ended.err
        messages.append(message)
    print("\nread-only cache:", *messages, sep="\n  ")


def test_read_only_results_are_named_and_can_still_be_read(
    tmp_path: Path, finished: Path, forks: Forks
) -> None:
    folder = tmp_path / "fixed"
    shutil.copytree(finished, folder)
    with read_only(folder / "runs"):
        ended = forks.run(command("random_image", "imagery", "pixcorr"), folder)
        compared = forks.run(["compare", "--json"], folder)
    require_one_sentence(ended, "Read-only")
    assert compared.code == 0, compared.err
    assert content(folder / "runs") == content(finished / "runs")


@pytest.mark.slow
def test_a_read_only_leaderboard_loses_no_scores(tmp_path: Path, finished: Path, forks: Forks) -> None:
    folder, words = tmp_path / "fixed", [*SMALL, "--leaderboard", "board"]
    shutil.copytree(finished / "cache", folder / "cache")
    (folder / "board").mkdir()
    with read_only(folder / "board"):
        ended = forks.run(words, folder)
    assert "--leaderboard" in ended.err
    require_one_sentence(ended, "Read-only")
    again = forks.run(words, folder)
    assert again.code == 0 and "1 reused" in again.err, again.err
    assert len(list((folder / "board").rglob("*.parquet"))) == 1
