"""Archives that want to write elsewhere: single files are taken out under names of ours, or read in place."""

from __future__ import annotations

import io
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path

import hostile_files as hostile
import numpy as np
import pytest

from nsdbench import archives
from nsdbench.archives import unpacked
from nsdbench.data.prepared import read_behaviour
from nsdbench.errors import DataError, WeightsError

NAME = "net.pt"


def zip_entry(name: str, *, link: bool = False) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK if link else stat.S_IFREG) << 16
    return entry


def files_beside(ground: Path) -> list[Path]:
    return sorted(path for path in ground.parent.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("name", [f"../../{NAME}", f"/{NAME}", f"C:\\..\\{NAME}/{NAME}", f"a/../../{NAME}"])
def test_a_zip_entry_that_climbs_is_written_nowhere_else(name: str, ground: Path) -> None:
    with zipfile.ZipFile(ground / "x.zip", "w") as archive:
        archive.writestr(zip_entry(name), b"content")
    before = files_beside(ground)
    with unpacked(ground / "x.zip", NAME) as path:
        assert (path.name, path.read_bytes()) == (NAME, b"content")
        assert files_beside(ground) == before
    assert not path.exists()


def test_a_zip_entry_that_is_a_link_becomes_a_file(ground: Path) -> None:
    with zipfile.ZipFile(ground / "x.zip", "w") as archive:
        archive.writestr(zip_entry(NAME, link=True), str(ground.parent / "outside" / "precious"))
    with unpacked(ground / "x.zip", NAME) as path:
        assert not path.is_symlink()
        assert path.read_text().endswith("precious")  # where it led to, not what is there


def test_a_zip_entry_behind_a_link_does_not_follow_it(ground: Path) -> None:
    with zipfile.ZipFile(ground / "x.zip", "w") as archive:
        archive.writestr(zip_entry("folder", link=True), str(ground.parent / "outside"))
        archive.writestr(zip_entry(f"folder/{NAME}"), b"content")
    before = files_beside(ground)
    with unpacked(ground / "x.zip", NAME):
        assert files_beside(ground) == before


def test_one_name_for_two_zip_entries_is_refused(ground: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(ground / "x.zip", "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(NAME, b"1")
        archive.writestr(NAME, b"2")
    with pytest.raises(WeightsError, match="holds 2 files called"), unpacked(ground / "x.zip", NAME):
        pass


def test_a_zip_that_unpacks_to_too_much_is_refused(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    with zipfile.ZipFile(ground / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, bytes(2**24))
    with pytest.raises(WeightsError, match="claims to have 16777216 bytes"), unpacked(ground / "x.zip", NAME):
        pass


def test_a_zip_entry_that_is_larger_than_it_claims_is_refused(ground: Path) -> None:
    with zipfile.ZipFile(ground / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, bytes(2**24))
    text = (ground / "x.zip").read_bytes()
    (ground / "x.zip").write_bytes(text.replace((2**24).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(WeightsError, match="cannot be read"), unpacked(ground / "x.zip", NAME):
        pass


def tar_of(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


ROW = "0.behav.npy"


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE], ids=["link", "hard", "device", "pipe"]
)  # fmt: skip
def test_a_tar_member_that_is_no_file_is_not_read(kind: bytes, ground: Path) -> None:
    tar_of(ground / "x.tar", special(ROW, kind, str(ground.parent / "outside" / "precious")))
    before = files_beside(ground)
    with pytest.raises(DataError, match="no readable behav rows"):
        read_behaviour(ground / "x.tar")
    assert files_beside(ground) == before


@pytest.mark.parametrize("name", [f"../../{ROW}", f"/{ROW}"])
def test_a_tar_member_that_climbs_is_read_in_place(name: str, ground: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(17))
    tar_of(ground / "x.tar", (tarfile.TarInfo(name), buffer.getvalue()))
    before = files_beside(ground)
    assert read_behaviour(ground / "x.tar").shape == (1, 17)
    assert files_beside(ground) == before


def test_a_tar_member_that_runs_code_or_never_ends_is_refused(ground: Path) -> None:
    canary = ground.parent / "canary"
    rows = (hostile.pickled(canary), hostile.npy_header((10**12, 17)), bytes(2**21))
    for content in rows:
        tar_of(ground / "x.tar", (tarfile.TarInfo(ROW), content))
        with pytest.raises(DataError, match="no readable behav rows"):
            read_behaviour(ground / "x.tar")
    assert not canary.exists()
