"""Features of training images: the same with and without a store, never computed twice, never lost, never read whole."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import resource
import runpy
import signal
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nsdbench.adapters import featurefiles, featurestore
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.brain_diffuser import BrainDiffuser
from nsdbench.adapters.featurestore import FeatureStore, Kind, prepared_images
from nsdbench.adapters.icnn import Icnn
from nsdbench.adapters.mindeye.decoder import MindEye
from nsdbench.adapters.mindeye.mindeye1 import MindEye1
from nsdbench.adapters.mindeye.mindeye2 import MindEye2
from nsdbench.adapters.nets.pixels import BICUBIC, resized
from nsdbench.adapters.rows import Rows
from nsdbench.adapters.takagi import Takagi
from nsdbench.adapters.targets import Targets
from nsdbench.data import Dataset
from nsdbench.errors import DataError, NoRoom
from nsdbench.types import Silent, Stimuli

FORK = multiprocessing.get_context("fork")
KIND = Kind("numbers", 1)


def stimuli(n: int = 50, offset: int = 0, source: str = "file") -> Stimuli:
    """Images of one grey value each."""
    ids = tuple(f"img{k:05d}" for k in range(n))

    def read(stimulus: str) -> np.ndarray:
        return np.full((8, 8, 3), (int(stimulus[3:]) + offset) % 256, np.uint8)

    captions = {stimulus: (f"number {stimulus}",) for stimulus in ids}
    return Stimuli(ids, ("core",) * n, frozenset(ids), read, f"all of {source}", captions, source=source)


def compute(some: Sequence[str]) -> dict[str, np.ndarray]:
    numbers = np.array([int(stimulus[3:]) for stimulus in some])
    return {
        "flat": numbers[:, None] + np.arange(5, dtype=np.float16),
        "deep": np.broadcast_to(numbers[:, None, None] * 3.0, (len(some), 2, 3)).astype(np.float32),
    }


class Counting:
    """Remembers which images were computed; without the copies that fill a batch."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, some: tuple[str, ...]) -> dict[str, np.ndarray]:
        assert len(some) == featurefiles.BATCH
        self.ids += dict.fromkeys(some)
        return compute(some)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurefiles, "SHARD", 20)


def read(
    folder: Path | None,
    ids: Sequence[str],
    computing: Callable[..., Any] = compute,
    kind: Kind = KIND,
    of: Stimuli | None = None,
) -> Any:
    return FeatureStore(folder).read(kind, of or stimuli(), ids, computing, Silent())


def require_right(found: Any, ids: Sequence[str]) -> None:
    for name, expected in compute(ids).items():
        assert found[name].dtype == expected.dtype
        assert np.array_equal(found[name], expected)


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.npy"))


# the same with and without


@pytest.fixture(scope="module")
def dataset(tiny_root: Path, sim_cache: Path) -> Dataset:
    return Dataset.open(tiny_root, cache=sim_cache)


def training_features(adapter: Adapter, of: Stimuli, ids: Sequence[str]) -> dict[str, Any]:
    """What a fit learns from, by name."""
    if isinstance(adapter, MindEye):
        found: Any = adapter.targets(of, ids, Silent())
    elif isinstance(adapter, Icnn):
        store = FeatureStore.of(adapter.context)
        return {"images": adapter._training_features(store, of, ids, Silent()).images}
    else:
        found = adapter._training_features(of, ids, Silent())  # type: ignore[attr-defined]
    return dict(found) if isinstance(found, dict) else {f.name: getattr(found, f.name) for f in fields(found)}


@pytest.mark.parametrize("kind", [Takagi, BrainDiffuser, MindEye1, MindEye2, Icnn])
def test_decoders_learn_from_the_same_bits_whether_features_are_kept_or_not(
    kind: type[Adapter], dataset: Dataset, tmp_path: Path
) -> None:
    of = dataset.stimuli("train", 1)
    ids, some = of.ids[:22], of.ids[5:8]  # neither fills its batches or files
    keeping = kind("mini", Context(features=tmp_path))
    keeping.prepare(of, ids)
    assert sum(file.stat().st_size for file in shard_files(tmp_path)) > 22 * keeping.prepared_bytes(1)
    for chosen in (ids, some):
        computed = training_features(kind("mini"), of, chosen)
        for name, kept in training_features(keeping, of, chosen).items():
            assert isinstance(kept, Rows) and isinstance(computed[name], np.ndarray)
            assert kept.dtype == computed[name].dtype
            assert np.array_equal(kept, computed[name]), name
    assert keeping.prepared_bytes(22) == sum(values.nbytes // 3 * 22 for values in computed.values())


def test_images_are_kept_as_they_are_resized(dataset: Dataset, tmp_path: Path) -> None:
    of = dataset.stimuli("train", 1)
    found = prepared_images(FeatureStore(tmp_path), of, of.ids[:18], 40, BICUBIC, Silent())
    expected = resized(np.stack([of.image(stimulus) for stimulus in of.ids[:18]]), 40, BICUBIC)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    other = prepared_images(FeatureStore(tmp_path), of, of.ids[:18], 40, Image.Resampling.BOX, Silent())
    assert not np.array_equal(other, expected)


def test_a_fit_from_kept_features_needs_no_network(dataset: Dataset, tmp_path: Path) -> None:
    train, of = dataset.train(1), dataset.stimuli("train", 1)
    train = train.of_stimuli(train.targets[:20])
    plain = Takagi("mini")
    plain.fit(train, of)
    Takagi("mini", Context(features=tmp_path)).prepare(of, train.targets)
    kept = Takagi("mini", Context(features=tmp_path))
    kept.fit(train, of)
    assert "networks" not in vars(kept)
    for name, decoder in plain.decoders.items():
        assert np.array_equal(decoder.coef, kept.decoders[name].coef)
        assert np.array_equal(decoder.y_mean, kept.decoders[name].y_mean)


# never computed twice


def test_what_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    ids, counting = stimuli().ids, Counting()
    for _ in range(2):
        require_right(read(tmp_path, ids, counting), ids)
    assert counting.ids == list(ids)
    assert len(shard_files(tmp_path)) == 3


def test_a_part_of_what_is_kept_and_other_selections_of_the_data_set_find_it(tmp_path: Path) -> None:
    of, counting = stimuli(), Counting()
    read(tmp_path, of.ids)
    some = [of.ids[k] for k in (44, 3, 21, 4)]
    require_right(read(tmp_path, some, counting, of=of.of(some)), some)
    assert counting.ids == []


def test_what_is_missing_is_computed_beside_what_is_kept(tmp_path: Path) -> None:
    ids, counting = stimuli().ids, Counting()
    read(tmp_path, ids[7:12], counting)
    require_right(read(tmp_path, ids, counting), ids)
    assert sorted(counting.ids) == list(ids)


@pytest.mark.parametrize(
    "other",
    [
        replace(KIND, version=2),
        replace(KIND, settings={"side": 3}),
        replace(KIND, captions=True),
        Kind("others", 1),
    ],
)
def test_features_of_another_kind_are_others(other: Kind, tmp_path: Path) -> None:
    ids, counting = stimuli().ids[:3], Counting()
    read(tmp_path, ids)
    read(tmp_path, ids, counting, other)
    assert counting.ids == list(ids)


def test_other_weights_another_kind_of_device_or_another_file_of_images_need_other_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, ids, hashes = Kind("numbers", 1, ("weights",)), stimuli().ids[:3], {"weights": "a" * 64}
    monkeypatch.setattr(featurestore, "located", lambda ids, folder: {id: hashes[id] for id in ids})
    counting = Counting()

    def computed(device: str = "cpu", source: str = "file") -> bool:
        before = len(counting.ids)
        store = FeatureStore(tmp_path, device=device)
        store.read(kind, stimuli(source=source), ids, counting, Silent())
        return len(counting.ids) > before

    assert computed()
    assert computed("cuda:0") and not computed("cuda:1")
    assert computed(source="another file")
    assert not computed()
    hashes["weights"] = "b" * 64
    assert computed()


def test_images_are_the_same_on_every_device(dataset: Dataset, tmp_path: Path) -> None:
    of = dataset.stimuli("train", 1)
    for device in ("cpu", "cuda"):
        prepared_images(FeatureStore(tmp_path, device=device), of, of.ids[:2], 40, BICUBIC, Silent())
    assert len(shard_files(tmp_path)) == 1


def test_captions_count_where_features_depend_on_them(tmp_path: Path) -> None:
    kind, of, counting = replace(KIND, captions=True), stimuli(), Counting()
    changed = replace(of, captions={**of.captions, of.ids[1]: ("something else",)})
    for one in (of, changed):
        read(tmp_path, of.ids[:3], counting, kind, one)
    assert counting.ids == [*of.ids[:3], of.ids[1]]


def test_the_documented_methods_work_as_they_stand_there(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "adapters.md").read_text()
    (block,) = re.findall(r"```python\n(from nsdbench.adapters.featurestore .*?)```", page, re.DOTALL)
    (tmp_path / "block.py").write_text(block)
    names = runpy.run_path(str(tmp_path / "block.py"), {"ENCODER": "0" * 64})
    counting: list[int] = []

    def encode(images: list[np.ndarray]) -> np.ndarray:
        counting.append(len(images))
        return np.stack([image[:4, 0, 0] for image in images])

    class Documented:
        tokens, prepare = names["tokens"], names["prepare"]
        context = Context(features=tmp_path / "features")

        def __init__(self) -> None:
            self.encode = encode

    model, of = Documented(), stimuli()
    model.prepare(of, of.ids)
    assert model.tokens(of, of.ids[7:9], Silent())[:].tolist() == [[7] * 4, [8] * 4]
    assert counting == [16] * 5  # of 20, 20 and 10 images


# never lost


def _in_a_process(target: Callable[[], None]) -> int:
    """Run ``target`` in a process of its own, and return its exit code."""
    process = FORK.Process(target=target)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def test_a_killed_process_is_continued_from_the_file_it_was_writing(tmp_path: Path) -> None:
    ids = stimuli(90).ids

    def killed_at(some: tuple[str, ...]) -> Any:
        if some[0] == ids[56]:  # the second batch of the third file
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(some)

    assert _in_a_process(lambda: read(tmp_path, ids, killed_at, of=stimuli(90))) == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.tmp.npy"))) == 1
    counting = Counting()
    require_right(read(tmp_path, ids, counting, of=stimuli(90)), ids)
    assert counting.ids == list(ids[40:])
    assert not list(tmp_path.rglob("*.tmp.*"))


def test_processes_at_once_share_the_work(tmp_path: Path) -> None:
    of, folder = stimuli(200), tmp_path / "features"

    def work() -> None:
        counting = Counting()
        require_right(read(folder, of.ids, counting, of=of), of.ids)
        (tmp_path / f"{os.getpid()}.json").write_text(json.dumps(counting.ids))

    processes = [FORK.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    computed = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(computed) == 4
    assert sorted(itertools.chain(*computed)) == list(of.ids)


def test_nobody_waits_for_a_file_while_others_are_left(tmp_path: Path) -> None:
    ids = stimuli().ids
    order: list[str] = []

    def watch(some: tuple[str, ...]) -> Any:
        order.append(some[0])
        return compute(some)

    read(tmp_path, ids[:1])  # makes the folder
    folder = next(tmp_path.iterdir())
    for path in folder.iterdir():
        path.unlink()
    busy = featurefiles.FeatureFiles(folder, KIND, stimuli(), ids)
    name = busy._name(ids[:20])
    ready, done = FORK.Event(), FORK.Event()

    def hold() -> None:
        with busy._claimed(name, wait=True):
            ready.set()
            done.wait(30)

    holder = FORK.Process(target=hold)
    holder.start()
    ready.wait(30)

    def release_at_the_end(some: tuple[str, ...]) -> Any:
        if some[0] == ids[40]:
            done.set()
        return watch(some)

    require_right(read(tmp_path, ids, release_at_the_end), ids)
    holder.join(30)
    assert order == [ids[20], ids[36], ids[40], ids[0], ids[16]]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").unlink(),
    ],
    ids=["one bit", "cut", "empty", "gone", "no JSON", "other JSON", "unfinished"],
)
def test_a_damaged_file_is_named_and_made_again_and_no_other(
    damage: Callable[[Path], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids, counting = stimuli().ids, Counting()
    read(tmp_path, ids)
    path = next(
        path
        for path in shard_files(tmp_path)
        if json.loads(path.with_suffix(".json").read_text())["ids"] == list(ids[20:40])
    )
    damage(path)
    unfinished = not path.with_suffix(".json").exists()
    with caplog.at_level("INFO", "nsdbench"):
        require_right(read(tmp_path, ids, counting), ids)
    assert counting.ids == list(ids[20:40])
    assert (path.name in caplog.text) != unfinished
    require_right(read(tmp_path, ids, counting), ids)
    assert counting.ids == list(ids[20:40])


def test_images_that_changed_behind_the_same_hash_are_noticed(tmp_path: Path) -> None:
    ids, counting = stimuli().ids, Counting()
    read(tmp_path, ids)
    read(tmp_path, ids, counting, of=stimuli(offset=1))
    assert counting.ids == list(ids)


def test_one_image_edited_in_a_large_file_is_noticed_by_its_time(tmp_path: Path) -> None:
    """A fingerprint of a large file does not see it, and it is neither the first nor the last image of its features."""
    ids, counting, of = stimuli().ids, Counting(), stimuli()

    def edited(stimulus: str) -> np.ndarray:
        return of.image(stimulus) + np.uint8(stimulus == ids[25])

    read(tmp_path, ids, of=of)
    read(tmp_path, ids, counting, of=replace(of, source_changed=1))  # copied, say
    assert counting.ids == []
    read(tmp_path, ids, counting, of=replace(of, source_changed=1, read_image=edited))
    assert counting.ids == list(ids[20:40])


def test_features_that_do_not_fit_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    counting = Counting()
    with pytest.raises(NoRoom, match=r"they take .* GB") as caught:
        read(tmp_path, stimuli().ids, counting, replace(KIND, item_bytes=10**18))
    assert "--no-keep-features" in caught.value.remedy
    assert counting.ids == []


def test_a_disk_that_fills_up_is_named_and_complete_files_stay(tmp_path: Path) -> None:
    ids = stimuli().ids
    before = read(tmp_path, ids[:3])
    size = shard_files(tmp_path)[0].stat().st_size

    def fail() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
        try:
            read(tmp_path, ids[:20])
        except NoRoom as error:
            os._exit(7 if str(tmp_path) in error.message else 8)
        os._exit(9)

    assert _in_a_process(fail) == 7
    require_right(before, ids[:3])
    assert [path.suffix for path in sorted(tmp_path.rglob("*.*")) if path.name != ".lock"] == [
        ".json",
        ".npy",
    ]
    counting = Counting()
    require_right(read(tmp_path, ids, counting), ids)
    assert counting.ids == list(ids[3:])


@pytest.mark.parametrize("kept", [True, False])
def test_features_that_are_not_finite_are_refused_and_not_kept(kept: bool, tmp_path: Path) -> None:
    ids = stimuli().ids[:18]

    def overflowing(some: tuple[str, ...]) -> dict[str, np.ndarray]:
        found = compute(some)
        found["deep"][[one == ids[17] for one in some], 1, 2] = np.inf
        return found

    with pytest.raises(DataError, match=f"deep of training image {ids[17]}"):
        read(tmp_path if kept else None, ids, overflowing)
    assert shard_files(tmp_path) == []


def test_no_images_are_an_error_and_not_an_empty_array(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(DataError, match="no training images"):
            read(folder, [])


# never read whole


def test_rows_are_mapped_and_not_read(tmp_path: Path) -> None:
    of, width = stimuli(128), 100_000

    def large(some: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {"large": np.repeat(compute(some)["flat"][:, :1], width, axis=1)}

    read(tmp_path, of.ids, large, of=of)
    tracemalloc.start()
    try:
        rows = read(tmp_path, of.ids, large, of=of)["large"]
        batch = rows[np.array([100, 3, 77])]
        block = next(Targets(rows).blocks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows.shape == (128, width)
    assert batch[:, 0].tolist() == [100, 3, 77]
    assert block.shape == (128, 1024) and np.array_equal(block[:, 5], np.arange(128))
    assert peak < 128 * width * 2 / 4


@st.composite
def selections(draw: st.DrawFn) -> Any:
    rows = draw(
        st.one_of(
            st.integers(-12, 11),
            st.slices(12),
            st.lists(st.integers(-12, 11), min_size=1).map(np.array),
            st.lists(st.booleans(), min_size=12, max_size=12).map(np.array),
        )
    )
    inner = draw(st.lists(st.one_of(st.slices(3), st.integers(0, 2)), max_size=2))
    return (rows, *inner) if inner else rows


@given(selections())
def test_rows_slice_like_an_array(key: Any) -> None:
    values = np.random.default_rng(0).standard_normal((12, 3, 4)).astype(np.float32)
    order = np.random.default_rng(1).permutation(12)
    places = np.stack([order // 5, order % 5], axis=1)
    rows = Rows([values[start : start + 5] for start in (0, 5, 10)], places)
    expected = values[order]
    assert np.array_equal(rows[key], expected[key])
    assert rows[key].dtype == np.float32
    assert np.array_equal(rows.reshape(12, -1)[:, 2:5], expected.reshape(12, -1)[:, 2:5])
    assert np.array_equal(np.asarray(rows, np.float64), expected)
    assert (len(rows), rows.shape, rows.ndim) == (12, (12, 3, 4), 3)
