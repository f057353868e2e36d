"""A run folder that was copied half-way: what is damaged is named or computed again, and no wrong number is shown."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fragile import Ended, Forks
from run_content import DATA, SMALL, command, content

Place = Callable[[str], Path]
WORDS = command("short_decoder:Trained", "imagery")
READERS = {
    "compare": ["compare", "runs", "--json"],
    "report": ["report", "runs", "--json", "--out", "page"],
    "check": ["check", "runs", "--baseline", "baseline.parquet"],
    "inspect": ["inspect", "runs", "--json", "--cache", "cache"],
    "score": ["score", "RUN", "--dataset", DATA, "--metrics", "pixcorr,ssim", "--cache", "cache", "--json"],
}
RUN, FIT = (
    ("run.json", "scores.parquet", "similarity-nsdbench-v1.npz", "reconstructions.h5"),
    ("fit.json", "network.pt"),
)


def _missing(path: Path) -> None:
    path.unlink()


def _cut(share: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return cut


def _one_byte_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty_end(path: Path) -> None:
    """As of a copy that reserved the room first."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4].ljust(len(content), b"\0"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": _missing,
    "empty": _cut(0),
    "a quarter": _cut(0.25),
    "half": _cut(0.5),
    "one byte short": _one_byte_short,
    "an empty end": _empty_end,
}


@dataclass
class Copies:
    """A finished run, and what each command says about it and about damaged copies."""

    forks: Forks
    words: Sequence[str]
    folder: Path
    said: dict[str, Any] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def damaged(self, name: str, how: str) -> tuple[Path, Path]:
        """Return a copy of the finished run with one damaged file, and that file."""
        copy = self.folder.with_name(f"{self.folder.name}-{name}-{how}".replace(" ", "_"))
        shutil.copytree(self.folder, copy, symlinks=True)
        (path,) = (copy / "runs").rglob(name)
        DAMAGES[how](path)
        return copy, path

    def resumed(self, name: str, how: str, *, scored: bool = True) -> None:
        """Give the same command to a damaged copy, and do what its message says until it is satisfied."""
        copy, path = self.damaged(name, how)
        if not scored:  # the copy stopped before the scores came
            _unscore(path)
        ended, told = self.forks.run(self.words, copy), False
        if ended.code == 2 and name in ended.err:
            told, again = True, path if name in RUN else path.parent
            shutil.rmtree(again) if again.is_dir() else again.unlink(missing_ok=True)
            ended = self.forks.run(self.words, copy)
        numbers = [content(folder / "runs", "*.parquet") for folder in (copy, self.folder)]
        self.outcomes["named" if told else "as if whole"] += 1
        if ended.code or numbers[0] != numbers[1]:
            self.wrong.append(f"run, {name} {how}, {scored=}: exit {ended.code}, {ended.err[-500:]}")
        shutil.rmtree(copy)

    def read(self, name: str, how: str, reader: str) -> None:
        """Let one command read a damaged copy."""
        copy, _ = self.damaged(name, how)
        ended = self.ask(reader, copy)
        if ended.code == 0 and _numbers(reader, ended, copy) != self.said[reader]:
            self.wrong.append(f"{reader}, {name} {how}: other numbers, {ended.err[-300:]}")
        elif ended.code and not _is_named(ended):
            self.wrong.append(f"{reader}, {name} {how}: exit {ended.code}, {ended.err[-600:]}")
        self.outcomes["named" if ended.code else "as if whole"] += 1
        shutil.rmtree(copy)

    def ask(self, reader: str, folder: Path) -> Ended:
        """Run one of the commands that read results."""
        run = next((folder / "runs" / "sim").glob("*/subj01/imagery/*"))
        words = [str(run.relative_to(folder)) if word == "RUN" else word for word in READERS[reader]]
        return self.forks.run(words, folder)


def _unscore(path: Path) -> None:
    for scores in path.parents[2].rglob("scores.parquet"):
        scores.unlink()


def _is_named(ended: Ended) -> bool:
    texts = (ended.err, ended.out)
    return ended.code in (1, 2) and not any(
        word in text for text in texts for word in ("Traceback", "unexpected")
    )


def _numbers(reader: str, ended: Ended, folder: Path) -> Any:
    """Return what must be the same whenever a command ends well."""
    if reader == "check":
        return ended.code
    document = json.loads(ended.out)
    if reader == "report":
        return document["models"]
    if reader == "score":
        return [{k: v for k, v in row.items() if k != "created_at"} for row in document["rows"]]
    if reader == "compare":
        return [
            {k: row.get(k) for k in ("model", "metric", "pool", "value", "ci_low", "ci_high")}
            for row in document["rows"]
        ]
    return document


@pytest.fixture
def copies(place: Place, forks: Forks) -> Copies:
    """A finished run."""
    folder = place("whole")
    assert forks.run(WORDS, folder).code == 0
    assert forks.run(["check", "runs", "--baseline", "baseline.parquet", "--update"], folder).code == 0
    return Copies(forks, WORDS, folder)


def _all(copies: Copies, damages: Sequence[str], readers: Sequence[str]) -> None:
    for reader in readers:
        (asked := copies.folder.with_name("asked")).mkdir()
        shutil.copytree(copies.folder, asked, dirs_exist_ok=True)
        ended = copies.ask(reader, asked)
        assert ended.code == 0, ended.err
        copies.said[reader] = _numbers(reader, ended, asked)
        shutil.rmtree(asked)
        for name in RUN:
            for how in damages:
                copies.read(name, how, reader)


def test_a_half_copied_run_is_completed(finished: Path, tmp_path: Path, forks: Forks) -> None:
    shutil.copytree(finished, tmp_path / "whole")
    copies = Copies(forks, SMALL, tmp_path / "whole")
    copies.resumed("scores.parquet", "half")
    copies.resumed("images.npz", "half", scored=False)
    assert not copies.wrong, copies.wrong[0]


@pytest.mark.slow
def test_any_damaged_file_is_named_or_made_again(copies: Copies) -> None:
    for name in (*RUN, *FIT):
        for how in DAMAGES:
            copies.resumed(name, how)
            if name != "scores.parquet":
                copies.resumed(name, how, scored=False)
    print(
        f"\ndamaged copies, resumed: {copies.outcomes.total()} ({dict(copies.outcomes)}), {len(copies.wrong)} wrong"
    )
    assert not copies.wrong, "\n".join(copies.wrong)


@pytest.mark.slow
def test_no_reader_shows_a_wrong_number_of_a_damaged_copy(copies: Copies) -> None:
    _all(copies, ("missing", "half", "an empty end"), tuple(READERS))
    print(
        f"\ndamaged copies, read: {copies.outcomes.total()} ({dict(copies.outcomes)}), {len(copies.wrong)} wrong"
    )
    assert not copies.wrong, "\n".join(copies.wrong)
