"""Files out of foreign zip archives: the one that was asked for, under its own name, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from nsdbench import archives
from nsdbench.archives import unpacked
from nsdbench.errors import WeightsError


def make(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "weights.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def test_a_file_is_found_in_any_folder_and_goes_away_afterwards(tmp_path: Path) -> None:
    archive = make(tmp_path, {"deep/er/net.pt": b"tensors", "deep/other.pt": b""})
    with unpacked(archive, "net.pt") as path:
        assert (path.name, path.read_bytes()) == ("net.pt", b"tensors")
    assert not path.exists()


def test_a_name_that_climbs_out_writes_nothing_there(tmp_path: Path) -> None:
    archive = make(tmp_path, {"../../climbed.pt": b"x"})
    with unpacked(archive, "climbed.pt") as path:
        assert path.read_bytes() == b"x"
        assert not (path.parent.parent / "climbed.pt").exists()
    assert not (tmp_path.parent / "climbed.pt").exists()


@pytest.mark.parametrize(
    ("members", "count"), [({"a/net.pt": b"1", "b/net.pt": b"2"}, 2), ({"net.pth": b""}, 0)]
)
def test_there_must_be_exactly_one(tmp_path: Path, members: dict[str, bytes], count: int) -> None:
    with (
        pytest.raises(WeightsError, match=f"holds {count} files called net.pt"),
        unpacked(make(tmp_path, members), "net.pt"),
    ):
        pass


def test_a_file_that_claims_to_be_huge_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 10)
    with (
        pytest.raises(WeightsError, match="claims to have 11 bytes"),
        unpacked(make(tmp_path, {"net.pt": bytes(11)}), "net.pt"),
    ):
        pass


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path, {"net.pt": bytes(range(256)) * 100})
    content = bytearray(archive.read_bytes())
    content[60:80] = bytes(20)
    archive.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read"), unpacked(archive, "net.pt"):
        pass
    archive.write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="cannot be read"), unpacked(archive, "net.pt"):
        pass


def test_an_error_of_the_caller_is_not_taken_for_a_damaged_archive(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), unpacked(make(tmp_path, {"net.pt": b"1"}), "net.pt"):
        raise RuntimeError("mine")
