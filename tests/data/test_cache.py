"""The cache: keyed by content, rebuilt when damaged, equal to a fresh build."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from nsdbench.data import Dataset, LoadOptions, cache
from nsdbench.data.cache import fingerprint, load_or_build
from nsdbench.errors import IntegrityError
from nsdbench.types import Silent


class Counting(Silent):
    """Notes which loops ran: a cache hit reads no session."""

    def __init__(self):
        self.labels = []

    def track(self, items, label, total=None):
        self.labels.append(label)
        yield from items


@pytest.fixture
def cached(built, tmp_path):
    return Dataset.open(built.root, cache=tmp_path)


def test_a_second_open_reads_no_session(built, cached, tmp_path):
    first, second = Counting(), Counting()
    a = cached.train(1, progress=first)
    b = Dataset.open(built.root, cache=tmp_path).train(1, progress=second)
    assert any("sessions" in label for label in first.labels)
    assert second.labels == []
    np.testing.assert_array_equal(a.betas, b.betas)
    assert a.provenance == b.provenance
    assert {k: v.tolist() for k, v in a.rois.items()} == {k: v.tolist() for k, v in b.rois.items()}


def test_a_moved_data_set_hits_the_same_entry(cached, copied, tmp_path):
    cached.train(1)
    again = Counting()
    Dataset.open(copied, cache=tmp_path).train(1, progress=again)
    assert again.labels == []


@pytest.mark.parametrize(
    "options", [LoadOptions(core_norm="none"), LoadOptions(voxel_order="zyx_c"), LoadOptions(roi="streams")]
)
def test_other_options_never_meet_the_entry(cached, options):
    cached.train(1)
    again = Counting()
    cached.train(1, options, again)
    assert again.labels


def test_changed_betas_never_meet_the_entry(built, cached, copied, tmp_path, nsd_fixture):
    before = cached.trials(1, "vision")
    nsd_fixture.write_hdf5(nsd_fixture.imagery_path(copied, 1), np.roll(built.imagery[1], 1, axis=0))
    after = Dataset.open(copied, cache=tmp_path).trials(1, "vision")
    assert not np.array_equal(before.betas, after.betas)


def test_a_large_file_changed_in_place_is_read_again(built, copied, tmp_path, nsd_fixture, monkeypatch):
    monkeypatch.setattr(cache, "_WHOLE", 100_000)  # sampled from here on
    data = Dataset.open(copied, cache=tmp_path)
    path, key = nsd_fixture.imagery_path(copied, 1), data.key(1, "vision")
    before = data.trials(1, "vision")
    x, y, z = np.argwhere(built.volumes[1]["nsdgeneral"] == 1)[0]
    with h5py.File(path, "r+") as file:
        file["betas"][0, z, y, x] += 3000
    after = data.trials(1, "vision")
    assert data.key(1, "vision") == key  # no sampled block lies there
    assert not np.array_equal(before.betas[:, 0], after.betas[:, 0])


@pytest.mark.parametrize("damage", ["truncate", "delete", "reshape", "inventory"])
def test_a_damaged_entry_is_rebuilt(cached, tmp_path, damage):
    expected = np.array(cached.train(1).betas)
    array = next((tmp_path / "trials").glob("*/train_betas.npy"))
    if damage == "truncate":
        array.write_bytes(array.read_bytes()[:-100])
    elif damage == "delete":
        array.unlink()
    elif damage == "reshape":
        np.save(array, expected[:-1])
    else:
        (array.parent / "entry.json").write_text("{")
    np.testing.assert_array_equal(cached.train(1).betas, expected)


def test_a_refused_data_set_leaves_no_entry(copied, tmp_path, built, nsd_fixture):
    nsd_fixture.write_hdf5(nsd_fixture.imagery_path(copied, 1), built.imagery[1][:719])
    with pytest.raises(IntegrityError):
        Dataset.open(copied, cache=tmp_path / "c").trials(1, "vision")
    assert list((tmp_path / "c" / "trials").iterdir()) == []


def test_fingerprints_see_content_and_size_but_not_names(tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    a.write_bytes(b"x" * 1000)
    shutil.copy(a, b)
    c.write_bytes(b"x" * 999 + b"y")
    assert fingerprint(a) == fingerprint(b) != fingerprint(c)


def test_fingerprints_of_large_files_see_both_ends(tmp_path):
    content = bytearray(9 * 2**20)
    path = tmp_path / "large"
    found = set()
    for at in (None, 0, len(content) - 1):
        changed = bytearray(content)
        if at is not None:
            changed[at] = 1
        path.write_bytes(changed)
        found.add(fingerprint(path))
    assert len(found) == 3


def test_entries_come_back_as_read_only_maps(tmp_path):
    def build(directory):
        np.save(directory / "a.npy", np.arange(3))
        return {"note": "x"}

    entry = load_or_build(tmp_path, "key", build)
    assert entry.facts == {"note": "x"}
    assert entry.arrays["a"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        entry.arrays["a"][0] = 5
