"""A part of a fitted decoder is never taken for the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nsdbench import fits
from nsdbench.errors import DataError

FACTS = {"n_voxels": 3, "n_trials": 5, "provenance": {}}


@pytest.fixture
def fit(tmp_path: Path) -> Path:
    """The folder of a fit with one small and one large file."""
    (tmp_path / "small.npz").write_bytes(b"weights")
    (tmp_path / "large.npy").write_bytes(bytes(range(256)) * (9 * 2**12))
    fits.write(tmp_path, FACTS)
    return tmp_path


def test_a_whole_fit_gives_its_facts(fit: Path) -> None:
    assert fits.read(fit).items() >= FACTS.items()


def _emptied(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-4096] + bytes(4096))


@pytest.mark.parametrize("name", ["small.npz", "large.npy"])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1]), _emptied],
    ids=["missing", "short", "emptied"],
)
def test_a_file_that_is_not_the_one_that_was_written_is_named(
    fit: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(fit / name)
    with pytest.raises(DataError, match=f"not whole: {name}") as caught:
        fits.read(fit)
    assert "fits the model again" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "[]", '{"n_voxels": 3}', json.dumps({**FACTS, "files": 1})])
def test_a_damaged_record_is_named(fit: Path, text: str) -> None:
    (fit / fits.FACTS).write_text(text)
    with pytest.raises(DataError, match=r"fit\.json"):
        fits.read(fit)


def test_a_fit_of_an_earlier_version_has_no_inventory(fit: Path) -> None:
    (fit / fits.FACTS).write_text(json.dumps(FACTS))
    assert fits.read(fit) == FACTS
