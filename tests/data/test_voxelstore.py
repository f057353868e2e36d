"""The compact store: the numbers, warnings and keys of the raw session files, and no others."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

from nsdbench.data import Dataset, LoadOptions, cache, verify, voxelstore
from nsdbench.data.overview import describe
from nsdbench.data.stored import StoredCore
from nsdbench.data.voxelstore import VoxelStore, open_store
from nsdbench.errors import DataError, IntegrityError, NoRoom
from nsdbench.preparation.betas import prepare_betas
from nsdbench.types import Silent

Open = Callable[[], Dataset]


class Reading(Silent):
    """Notes which loops ran."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def track(self, items, label, total=None):
        self.labels.append(label)
        yield from items


def folder_of(root: Path) -> Path:
    return root / "nsdbench_prepared/subj01/b3-nsdgeneral"


@pytest.fixture
def prepared(copied: Path, open_copy: Open) -> Path:
    """A copy of the data set with all sessions of subject 1 in the store, raw files kept."""
    prepare_betas(open_copy(), 1, LoadOptions())
    return copied


@pytest.fixture
def pruned(copied: Path, open_copy: Open) -> Path:
    """The same without raw session files."""
    prepare_betas(open_copy(), 1, LoadOptions(), prune=True)
    return copied


@pytest.fixture(scope="module")
def long_pair(nsd_fixture: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of 33 sessions, which every test-set definition applies to: raw, and pruned."""
    root = tmp_path_factory.mktemp("long")
    plan = nsd_fixture.Plan(grids={1: (12, 14, 10)}, sessions=33, trials_per_session=12, n_shared=12)
    nsd_fixture.build(root / "raw", plan)
    shutil.copytree(root / "raw", root / "pruned")
    data = Dataset.open(root / "pruned", cache=root / "unused")
    for roi in ("nsdgeneral", "streams"):
        prepare_betas(data, 1, LoadOptions(roi=roi), prune=roi == "streams")  # type: ignore[arg-type]
    return root / "raw", root / "pruned"


def assert_equal_trials(pair: tuple[Path, Path], cache_folder: Path, options: LoadOptions) -> None:
    raw, stored = (Dataset.open(root, cache=cache_folder / root.name) for root in pair)
    assert isinstance(stored.core_source(1, options), StoredCore)
    assert not isinstance(raw.core_source(1, options), StoredCore)
    assert raw.key(1, "train", options) == stored.key(1, "train", options)
    for load in ("train", "shared1000"):
        a, b = (d.train(1, options) if load == "train" else d.trials(1, load, options) for d in (raw, stored))
        assert a.betas.tobytes() == b.betas.tobytes()
        assert a.stimulus.tolist() == b.stimulus.tolist()
        assert a.provenance == b.provenance


@pytest.mark.parametrize("voxel_order", ["xyz_c", "zyx_c"])
@pytest.mark.parametrize("shared", [1000, 982, 515])
@pytest.mark.parametrize("core_norm", ["train_stats", "session_z", "none"])
def test_trials_keys_and_warnings_equal_those_of_raw_files_bit_for_bit(
    long_pair: tuple[Path, Path], tmp_path: Path, core_norm: Any, shared: Any, voxel_order: Any
) -> None:
    options = LoadOptions(core_norm=core_norm, shared=shared, voxel_order=voxel_order, average="none")
    assert_equal_trials(long_pair, tmp_path, options)


def test_another_region_has_a_store_of_its_own(long_pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert_equal_trials(long_pair, tmp_path, LoadOptions(roi="streams", voxel_order="zyx_c", average="none"))


def test_imagery_by_core_statistics_is_the_same_from_the_store(
    long_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    options = LoadOptions(imagery_norm="core_train_stats")
    raw, stored = (Dataset.open(root, cache=tmp_path / root.name) for root in long_pair)
    assert raw.key(1, "imagery", options) == stored.key(1, "imagery", options)
    a, b = (data.trials(1, "imagery", options) for data in (raw, stored))
    assert a.betas.tobytes() == b.betas.tobytes()


def test_the_array_file_holds_the_stored_integers_in_xyz_order(prepared: Path, built) -> None:
    rows = np.load(folder_of(prepared) / "betas.npy")
    assert rows.dtype == np.int16
    np.testing.assert_array_equal(rows, built.core[1][:, built.volumes[1]["nsdgeneral"] == 1])


def test_warnings_of_headers_come_back_from_the_store(copied: Path, built, nsd_fixture, tmp_path) -> None:
    path = nsd_fixture.core_path(copied, 1, 2)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["betas"] = built.core[1][30:60].transpose(0, 3, 2, 1)
    before = Dataset.open(copied, cache=tmp_path / "a").train(1).provenance
    assert any("beta_chunks" in warning for warning in before["warnings"])
    prepare_betas(Dataset.open(copied, cache=tmp_path / "b"), 1, LoadOptions(), prune=True)
    assert Dataset.open(copied, cache=tmp_path / "b").train(1).provenance == before


def test_pruning_keeps_keys_and_cached_trials(
    copied: Path, open_copy: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_WHOLE", 100_000)  # session files are sampled, so their times count too
    key = open_copy().key(1, "train")
    open_copy().train(1)
    prepare_betas(open_copy(), 1, LoadOptions(), prune=True)
    again = Reading()
    open_copy().train(1, progress=again)
    assert again.labels == []
    assert open_copy().key(1, "train") == key


def test_a_store_without_any_raw_file_makes_a_data_set(pruned: Path, built, tmp_path: Path) -> None:
    shutil.rmtree(pruned / "nsddata_betas")
    data = Dataset.open(pruned, cache=tmp_path / "c")
    assert data.subjects == (1,)
    assert data.train(1).betas.shape == (90, int((built.volumes[1]["nsdgeneral"] == 1).sum()))


def test_an_incomplete_store_is_not_read(prepared: Path, open_copy: Open) -> None:
    sidecar = folder_of(prepared) / "store.json"
    document = json.loads(sidecar.read_text())
    del document["sessions"]["4"]
    sidecar.write_text(json.dumps(document))
    assert not isinstance(open_copy().core_source(1), StoredCore)
    (subject,) = [s for s in describe(open_copy()) if s.subject == 1]
    assert (subject.stored_sessions, subject.core_layout, subject.core_trials) == (3, "nsd", 120)
    notes = [r for r in verify(prepared, [1]) if r.check == "prepared_store"]
    assert [(r.status, r.message) for r in notes] == [("warning", "3 of 4 sessions are prepared")]


def test_an_incomplete_store_without_raw_files_asks_to_be_completed(pruned: Path, open_copy: Open) -> None:
    sidecar = folder_of(pruned) / "store.json"
    document = json.loads(sidecar.read_text())
    del document["sessions"]["4"]
    sidecar.write_text(json.dumps(document))
    with pytest.raises(DataError, match="holds only 3 of 4") as caught:
        open_copy().train(1)
    assert "nsdbench data prepare" in caught.value.remedy


def test_the_overview_counts_stored_sessions_once(pruned: Path, open_copy: Open) -> None:
    (subject,) = [s for s in describe(open_copy()) if s.subject == 1]
    assert (subject.core_layout, subject.core_trials, subject.stored_sessions) == ("store", 120, 4)
    assert subject.stored_bytes == (folder_of(pruned) / "betas.npy").stat().st_size


# raw files that come back


def test_a_raw_file_with_other_values_is_refused(prepared: Path, built, nsd_fixture, open_copy: Open) -> None:
    nsd_fixture.write_hdf5(nsd_fixture.core_path(prepared, 1, 2), built.core[1][30:60] + np.int16(1))
    for use in (lambda d: d.train(1), lambda d: d.key(1, "train")):
        with pytest.raises(IntegrityError, match="is not the file") as caught:
            use(open_copy())
        assert caught.value.check == "prepared_store"
    failed = [r.check for r in verify(prepared, [1]) if r.status == "failed"]
    assert failed == ["prepared_store"]


def test_a_raw_file_that_comes_back_unchanged_is_welcome(
    pruned: Path, built, open_copy: Open, nsd_fixture
) -> None:
    key, before = open_copy().key(1, "train"), np.array(open_copy().train(1).betas)
    source = nsd_fixture.core_path(built.root, 1, 2)
    shutil.copyfile(source, nsd_fixture.core_path(pruned, 1, 2))  # as downloaded again: another time
    assert open_copy().key(1, "train") == key
    np.testing.assert_array_equal(open_copy().train(1).betas, before)
    assert not [r for r in verify(pruned, [1]) if r.status == "failed"]


def test_a_raw_file_that_is_pruned_while_it_is_looked_at_is_as_good_as_absent(
    prepared: Path, open_copy: Open, nsd_fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = open_copy().core_source(1), nsd_fixture.core_path(prepared, 1, 2)
    assert isinstance(source, StoredCore)
    seen = voxelstore.fingerprint

    def pruning(found: Path) -> str:
        path.unlink(missing_ok=True)  # by another process, at the worst moment
        return seen(found)

    before = source.fingerprints()
    monkeypatch.setattr(voxelstore, "fingerprint", pruning)
    assert source.source(2) == source.store.blocks[2].source
    assert not path.exists()
    assert source.fingerprints() == before


def test_a_change_that_no_fingerprint_sees_is_found_by_its_time(
    prepared: Path, built, open_copy: Open, nsd_fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_WHOLE", 100_000)
    shutil.rmtree(folder_of(prepared))
    prepare_betas(open_copy(), 1, LoadOptions())
    open_copy().train(1)
    x, y, z = np.argwhere(built.volumes[1]["nsdgeneral"] == 1)[0]
    path = nsd_fixture.core_path(prepared, 1, 3)
    key = open_copy().key(1, "train")
    with h5py.File(path, "r+") as file:
        file["betas"][0, z, y, x] += 3000
    assert open_copy().key(1, "train") == key  # no sampled block lies there
    with pytest.raises(IntegrityError) as caught:
        open_copy().train(1)
    assert caught.value.check == "prepared_store"


# damage to the store


def flip(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.seek(-1000, os.SEEK_END)
        byte = handle.read(1)
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte[0] ^ 1]))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def narrow(path: Path) -> None:
    np.save(path, np.load(path)[:, 1:])


def widen(path: Path) -> None:
    np.save(path, np.load(path).astype(np.int32))


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = {
    "flipped bit": flip,
    "cut off": cut,
    "narrowed": narrow,
    "another type": widen,
    "empty": empty,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_betas_are_refused_by_loader_and_verification(
    pruned: Path, open_copy: Open, damage: str
) -> None:
    DAMAGE[damage](folder_of(pruned) / "betas.npy")
    with pytest.raises(IntegrityError) as caught:
        open_copy().train(1)
    assert caught.value.check == "prepared_store"
    assert "run `nsdbench data prepare` again" in caught.value.remedy
    assert "prepared_store" in {r.check for r in verify(pruned, [1]) if r.status == "failed"}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {},
        lambda d: [],
        lambda d: d | {"format": 2},
        lambda d: d | {"outline": d["outline"] | {"n_voxels": 7}},
        lambda d: d | {"outline": d["outline"] | {"unknown": 7}},
        lambda d: d | {"sessions": d["sessions"] | {"5": d["sessions"]["4"]}},
        lambda d: d | {"sessions": d["sessions"] | {"4": {}}},
        lambda d: d | {"outline": d["outline"] | {"content_hash": "of another generated data set"}},
        lambda d: d | {"outline": d["outline"] | {"mask": "of other voxels"}},
    ],
)
def test_a_sidecar_that_contradicts_the_data_is_refused(pruned: Path, open_copy: Open, change) -> None:
    sidecar = folder_of(pruned) / "store.json"
    sidecar.write_text(json.dumps(change(json.loads(sidecar.read_text()))))
    with pytest.raises(IntegrityError) as caught:
        open_copy().train(1)
    assert caught.value.check == "prepared_store"


def test_the_mask_of_other_voxels_is_refused(pruned: Path, built, open_copy: Open, nsd_fixture) -> None:
    moved = np.roll(built.volumes[1]["nsdgeneral"], 1, axis=1)
    nsd_fixture.write_volume(nsd_fixture.roi_path(pruned, 1, "nsdgeneral"), moved)
    with pytest.raises(IntegrityError, match="mask") as caught:
        open_copy().train(1)
    assert caught.value.check == "prepared_store"


def test_a_store_of_real_nsd_outlives_new_facts_about_it(prepared: Path) -> None:
    store = open_store(folder_of(prepared))
    assert store is not None
    generated = store.outline
    real = voxelstore.replace(generated, dataset="nsd")
    assert real.difference(voxelstore.replace(real, content_hash="of the next version")) is None
    other = voxelstore.replace(generated, content_hash="of another draw")
    assert generated.difference(other) == "content_hash"


# writing


def test_a_disk_that_gives_back_other_bytes_lets_no_session_count(
    copied: Path, open_copy: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = VoxelStore._rows
    monkeypatch.setattr(VoxelStore, "_rows", lambda self, session: rows(self, session) ^ np.int16(1))
    with pytest.raises(IntegrityError, match="reads back differently"):
        prepare_betas(open_copy(), 1, LoadOptions(), prune=True)
    store = open_store(folder_of(copied))
    assert store is not None
    assert store.blocks == {}


def test_a_full_disk_is_named_before_anything_is_read(
    copied: Path, open_copy: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoRoom, match="full"):
        prepare_betas(open_copy(), 1, LoadOptions())
    assert sorted(path.name for path in folder_of(copied).iterdir()) == [".lock"]


def test_a_file_system_that_cannot_reserve_space_is_used_without(
    copied: Path, open_copy: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    prepare_betas(open_copy(), 1, LoadOptions())
    assert isinstance(open_copy().core_source(1), StoredCore)


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EROFS])
def test_a_directory_that_may_not_be_written_is_named_with_a_way_out(
    copied: Path, open_copy: Open, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    data = open_copy()

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(refusal, os.strerror(refusal), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match="cannot be written") as caught:
        prepare_betas(data, 1, LoadOptions())
    assert "ln -s" in caught.value.remedy
