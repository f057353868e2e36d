"""Reconstructions on disk: our own file, and arrays and tensors made elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nsdbench import reconstructions
from nsdbench.errors import DataError, ReconstructionError
from nsdbench.types import Reconstructions

IDS = ("A1", "A2", "B1")


@pytest.fixture
def images(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Three targets, two samples, eight pixels."""
    return rng.integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)


# --- our own file ----------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


@st.composite
def _reconstructions(draw: st.DrawFn) -> Reconstructions:
    n, s, side = (draw(st.integers(1, 3)) for _ in range(3))
    pixels = hnp.arrays(np.uint8, (n, s, side, side, 3))
    ids = st.lists(TEXT.filter(lambda name: name and name.isprintable()), min_size=n, max_size=n, unique=True)
    names = TEXT.filter(lambda name: name not in ("", ".") and "/" not in name)
    kinds = st.sampled_from([np.float32, np.float16])
    embedding = kinds.flatmap(lambda kind: hnp.arrays(kind, (n, 2), elements=st.floats(-1e3, 1e3, width=16)))
    true = kinds.flatmap(lambda kind: hnp.arrays(kind, (2, 2), elements=st.floats(-1e3, 1e3, width=16)))
    captions = st.lists(st.lists(TEXT, min_size=s, max_size=s).map(tuple), min_size=n, max_size=n).map(tuple)
    return Reconstructions(
        images=draw(pixels),
        targets=tuple(draw(ids)),
        embeddings=draw(st.dictionaries(names, embedding, max_size=2)),
        captions=draw(st.just(()) | captions),
        attributes=draw(st.dictionaries(TEXT, SCALARS, max_size=3)),
        gallery=draw(st.dictionaries(names, true, max_size=2)),
        gallery_ids=("one", "two"),
        gallery_captions=draw(st.just(()) | st.tuples(TEXT, TEXT)),
    )


@given(recon=_reconstructions())
@settings(max_examples=60, deadline=None)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, recon: Reconstructions) -> None:
    path = tmp_path_factory.mktemp("run") / "reconstructions.h5"
    reconstructions.save(recon, path)
    found = reconstructions.load(path)
    assert np.array_equal(found.images, recon.images)
    assert found.targets == recon.targets
    assert found.captions == recon.captions
    assert found.attributes == recon.attributes
    assert (found.gallery_ids, found.gallery_captions) == (recon.gallery_ids, recon.gallery_captions)
    for theirs, own in ((recon.embeddings, found.embeddings), (recon.gallery, found.gallery)):
        assert own.keys() == theirs.keys()
        for name, values in theirs.items():
            assert own[name].dtype == values.dtype
            assert np.array_equal(own[name], values)


def test_the_file_can_be_read_with_h5py_alone(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    recon = Reconstructions(images, IDS, {"clip": np.ones((3, 4), np.float32)}, attributes={"seed": 3})
    reconstructions.save(recon, tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        assert file.attrs["schema"] == "reconstructions/1"
        assert json.loads(file.attrs["attributes"]) == {"seed": 3}
        assert np.array_equal(file["images"][()], images)
        assert list(file["targets"].asstr()) == list(IDS)
        assert file["embeddings/clip"].shape == (3, 4)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = tmp_path / "r.h5"
    reconstructions.save(Reconstructions(images, IDS), path)
    with pytest.raises(ReconstructionError, match=r"r.h5 cannot hold"):
        reconstructions.save(Reconstructions(images, IDS, captions=(("a", "nul\0"),) * 3), path)
    assert reconstructions.load(path).targets == IDS
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"embeddings": {"e": np.zeros((2, 4), np.float32)}}, "embedding 'e'"),
        ({"embeddings": {"e": np.zeros((3, 4))}}, "embedding 'e'"),
        ({"embeddings": {"e": np.full((3, 4), np.nan, np.float32)}}, "embedding 'e'"),
        ({"embeddings": {"a/b": np.zeros((3, 4), np.float32)}}, "embedding name 'a/b'"),
        ({"captions": (("a", "b"), ("c", "d"))}, "2 captions for each of 3 targets"),
        ({"captions": (("a",), ("b",), ("c",))}, "2 captions for each of 3 targets"),
        (
            {"gallery": {"e": np.zeros((3, 4), np.float32)}},
            "gallery 'e' must be finite .* of shape \\(0, ...\\)",
        ),
        ({"gallery": {"e": np.full((1, 4), np.inf, np.float16)}, "gallery_ids": ("A1",)}, "gallery 'e'"),
        ({"gallery_ids": ("A1", "A1")}, "gallery_ids"),
        ({"gallery_ids": ("A1", "A2"), "gallery_captions": ("a",)}, "1 gallery_captions for 2 gallery_ids"),
        (
            {
                "embeddings": {"e": np.zeros((3, 4), np.float32)},
                "gallery": {"e": np.zeros((1, 5), np.float32)},
                "gallery_ids": ("A1",),
            },
            "'e' has shape \\(4,\\) among the embeddings and \\(5,\\) in the gallery",
        ),
        ({"attributes": {"x": float("nan")}}, "cannot hold"),
    ],
)
def test_extras_that_do_not_fit_are_refused(
    tmp_path: Path, images: NDArray[np.uint8], extras: dict[str, object], message: str
) -> None:
    with pytest.raises(ReconstructionError, match=message):
        reconstructions.save(Reconstructions(images, IDS, **extras), tmp_path / "r.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def saved(tmp_path: Path, images: NDArray[np.uint8]) -> Path:
    """A valid file."""
    path = tmp_path / "r.h5"
    reconstructions.save(Reconstructions(images, IDS, {"e": np.ones((3, 2), np.float32)}), path)
    return path


def test_some_samples_of_some_targets_are_read_in_the_order_asked_for(
    saved: Path, images: NDArray[np.uint8]
) -> None:
    found = reconstructions.load_samples(saved, (IDS[2], IDS[0]), 1)
    assert np.array_equal(found, images[[2, 0], :1])
    assert np.array_equal(reconstructions.load_samples(saved, IDS, 9), images)


def test_samples_of_a_target_that_is_not_there_are_refused(saved: Path) -> None:
    with pytest.raises(ReconstructionError, match="no reconstruction of elsewhere"):
        reconstructions.load_samples(saved, (IDS[0], "elsewhere"), 1)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(saved: Path, fraction: float) -> None:
    saved.write_bytes(saved.read_bytes()[: int(saved.stat().st_size * fraction)])
    with pytest.raises(ReconstructionError, match=r"r.h5 is damaged"):
        reconstructions.load(saved)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match=r"r.h5 does not exist"):
        reconstructions.load(tmp_path / "r.h5")


def _replace(path: Path, name: str, data: object) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if data is not None:
            file[name] = data


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("images", None, "damaged"),
        ("targets", None, "damaged"),
        ("targets", ["A1", "A2"], "2 target ids for 3 rows"),
        ("targets", ["A1", "A2", "A1"], "twice"),
        ("targets", [1, 2, 3], "damaged"),
        ("images", np.zeros((3, 2, 8, 8, 3), np.float32), "float32"),
        ("images", np.zeros((3, 8, 8, 3), np.uint8), "five axes"),
        ("images", np.zeros((3, 2, 8, 9, 3), np.uint8), "never stretches"),
        ("embeddings/e", np.zeros((2, 2), np.float32), "embedding 'e'"),
        ("captions", [["a", "b"]], "captions"),
    ],
)
def test_a_file_that_breaks_its_schema_is_refused(saved: Path, name: str, data: object, message: str) -> None:
    _replace(saved, name, data)
    with pytest.raises(ReconstructionError, match=message):
        reconstructions.load(saved)


@pytest.mark.parametrize(
    ("attribute", "value"), [("schema", "reconstructions/9"), ("attributes", "{"), ("schema", None)]
)
def test_a_file_of_another_schema_is_refused(saved: Path, attribute: str, value: str | None) -> None:
    with h5py.File(saved, "a") as file:
        del file.attrs[attribute]
        if value:
            file.attrs[attribute] = value
    with pytest.raises(ReconstructionError, match=r"r.h5"):
        reconstructions.load(saved)


def test_gigantic_declared_sizes_are_refused_before_reading(saved: Path) -> None:
    with h5py.File(saved, "a") as file:
        del file["images"]
        file.create_dataset(
            "images", (10**6, 10, 4096, 4096, 3), "u1", chunks=(1, 1, 64, 64, 3), compression="gzip"
        )
    with pytest.raises(ReconstructionError, match="declares"):
        reconstructions.load(saved)


def test_images_in_another_file_are_not_followed(
    saved: Path, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["images"] = images
    _replace(saved, "images", h5py.ExternalLink("other.h5", "images"))
    with pytest.raises(ReconstructionError, match="not a plain dataset"):
        reconstructions.load(saved)


def test_raw_bytes_of_another_file_are_not_read(
    saved: Path, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    (tmp_path / "secret").write_bytes(images.tobytes())
    with h5py.File(saved, "a") as file:
        del file["images"]
        file.create_dataset(
            "images", images.shape, "u1", external=[(str(tmp_path / "secret"), 0, images.nbytes)]
        )
    with pytest.raises(ReconstructionError, match="not a plain dataset"):
        reconstructions.load(saved)


def test_a_run_folder_is_read_when_it_is_complete(saved: Path, images: NDArray[np.uint8]) -> None:
    saved.rename(saved.with_name("reconstructions.h5"))
    (saved.parent / "run.json").write_text('{"status": "complete"}')
    assert np.array_equal(reconstructions.read_any(saved.parent).images, images)


@pytest.mark.parametrize("manifest", ['{"status": "started"}', '{"status": "failed"}', "{}", "[]"])
def test_an_unfinished_run_folder_is_refused(saved: Path, manifest: str) -> None:
    saved.rename(saved.with_name("reconstructions.h5"))
    (saved.parent / "run.json").write_text(manifest)
    with pytest.raises(ReconstructionError, match="not complete"):
        reconstructions.read_any(saved.parent)


# --- arrays and tensors ----------------------------------------------------------------------------------------


def _layout(images: NDArray[np.uint8], layout: str) -> NDArray[np.uint8]:
    return {
        "n,s,H,W,3": images,
        "n,s,3,H,W": np.moveaxis(images, 4, 2),
        "n,H,W,3": images[:, 0],
        "n,3,H,W": np.moveaxis(images[:, 0], 3, 1),
    }[layout]


def _write(path: Path, array: NDArray[np.generic]) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        torch.save(torch.from_numpy(np.ascontiguousarray(array)), path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
@pytest.mark.parametrize("layout", ["n,s,H,W,3", "n,s,3,H,W", "n,H,W,3", "n,3,H,W"])
def test_all_layouts_give_the_same_images(
    tmp_path: Path, images: NDArray[np.uint8], suffix: str, layout: str
) -> None:
    path = _write(tmp_path / f"recons{suffix}", _layout(images, layout))
    found = reconstructions.read_any(path, IDS)
    assert np.array_equal(found.images, images if "s" in layout else images[:, :1])
    assert found.targets == IDS


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_grey_level_survives_as_a_float(tmp_path: Path, kind: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    path = _write(tmp_path / "levels.npy", (levels / 255).astype(kind))
    assert np.array_equal(reconstructions.read_any(path, ["A1"]).images[0], levels)


def test_bfloat16_tensors_are_read(tmp_path: Path) -> None:
    torch.save(torch.full((1, 3, 4, 4), 0.5, dtype=torch.bfloat16), tmp_path / "r.pt")
    assert (reconstructions.read_any(tmp_path / "r.pt", ["A1"]).images == 128).all()  # 127.5 rounds to even


@given(values=hnp.arrays(np.float64, 48, elements=st.floats(-1e-3, 1 + 1e-3)))
@settings(max_examples=50, deadline=None)
def test_floats_are_clipped_and_rounded_once(
    tmp_path_factory: pytest.TempPathFactory, values: NDArray[np.float64]
) -> None:
    values[:3] = 1  # an all-black set is refused
    path = _write(tmp_path_factory.mktemp("f") / "r.npy", values.reshape(1, 4, 4, 3))
    found = reconstructions.read_any(path, ["A1"]).images.ravel()
    exact = [min(max(value, 0.0), 1.0) * 255 for value in values]
    assert all(abs(int(level) - value) <= 0.5 for level, value in zip(found, exact, strict=True))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (1.002, "from 0.5 to 1.002"),
        (-0.002, "from -0.002 to 0.5"),
        (255.0, "save 0...255 as uint8"),
        (-1.0, "Rescale"),
    ],
)
def test_floats_that_are_no_intensities_are_refused_by_row(
    tmp_path: Path, value: float, message: str
) -> None:
    array = np.full((2, 4, 4, 3), 0.5)
    array[1, 0, 0, 0] = value
    with pytest.raises(ReconstructionError) as caught:
        reconstructions.read_any(_write(tmp_path / "r.npy", array), ["A1", "A2"])
    assert message in str(caught.value)
    assert "row 1 (A2)" in caught.value.message


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3, 3, 3), np.uint8), "two axes could be the colours"),
        (np.zeros((1, 2, 3, 3, 3), np.uint8), "two axes could be the colours"),
        (np.zeros((1, 8, 8, 4), np.uint8), "no axis of three colours"),
        (np.zeros((1, 8, 8), np.uint8), "has shape"),
        (np.ones((1, 8, 9, 3), np.uint8) * 9, "8 x 9 pixels"),
        (np.ones((1, 3, 8, 9), np.uint8) * 9, "8 x 9 pixels"),
        (np.zeros((1, 0, 8, 8, 3), np.float32), "empty"),
        (np.zeros((0, 8, 8, 3), np.float32), "empty"),
        (np.ones((1, 8, 8, 3), np.int64), "type int64"),
        (np.ones((1, 8, 8, 3), bool), "type bool"),
        (np.ones((1, 8, 8, 3), np.complex64), "type complex64"),
        (np.ones((1, 8, 8, 3), np.uint8), "every value is 0 or 1 of 255"),
        (np.zeros((1, 8, 8, 3), np.float32), "every value is 0 or 1 of 255"),
    ],
)
def test_arrays_that_cannot_be_images_are_refused(
    tmp_path: Path, array: NDArray[np.generic], message: str
) -> None:
    with pytest.raises(ReconstructionError, match=message) as caught:
        reconstructions.read_any(_write(tmp_path / "recons.npy", array), ["A1"])
    assert "recons.npy" in caught.value.message


def test_ids_beside_the_array_win_over_the_declared_order(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = _write(tmp_path / "r.v2.npy", images)
    (tmp_path / "r.v2.targets.txt").write_text("B1\n A2 \n\nA1\n")
    assert reconstructions.read_any(path, IDS).targets == ("B1", "A2", "A1")


def test_ids_beside_the_array_can_be_json(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = _write(tmp_path / "r.pt", images)
    (tmp_path / "r.targets.json").write_text('["B1", "A2", "A1"]')
    assert reconstructions.read_any(path).targets == ("B1", "A2", "A1")


@pytest.mark.parametrize("content", ["{}", "[1, 2, 3]", "["])
def test_a_bad_list_of_ids_is_named(tmp_path: Path, images: NDArray[np.uint8], content: str) -> None:
    (tmp_path / "r.targets.json").write_text(content)
    with pytest.raises((ReconstructionError, DataError), match=r"r.targets.json"):
        reconstructions.read_any(_write(tmp_path / "r.npy", images))


@pytest.mark.parametrize(("ids", "message"), [(None, "no target is named"), (["A1"], "1 targets are named")])
def test_a_wrong_number_of_ids_says_where_to_list_them(
    tmp_path: Path, images: NDArray[np.uint8], ids: list[str] | None, message: str
) -> None:
    with pytest.raises(ReconstructionError, match=message) as caught:
        reconstructions.read_any(_write(tmp_path / "r.npy", images), ids)
    assert "r.targets.txt" in caught.value.remedy


def test_an_id_that_is_listed_twice_is_refused(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    with pytest.raises(ReconstructionError, match=r"r.npy: targets appear twice: A1"):
        reconstructions.read_any(_write(tmp_path / "r.npy", images), ["A1", "A2", "A1"])


class Hostile:
    """Runs a command when an unguarded loader meets it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_files_that_would_run_code_are_refused(tmp_path: Path, suffix: str) -> None:
    path, touched = tmp_path / f"r{suffix}", tmp_path / "touched"
    if suffix == ".npy":
        np.save(path, np.array([Hostile(touched)], dtype=object), allow_pickle=True)
    else:
        torch.save(Hostile(touched), path)
    with pytest.raises(ReconstructionError, match=rf"r\{suffix}"):
        reconstructions.read_any(path, ["A1"])
    assert not touched.exists()


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.8])
def test_truncated_arrays_are_named(
    tmp_path: Path, images: NDArray[np.uint8], suffix: str, fraction: float
) -> None:
    path = _write(tmp_path / f"r{suffix}", images)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(ReconstructionError, match=rf"r\{suffix} is damaged"):
        reconstructions.read_any(path, IDS)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "content",
    [{"images": torch.zeros(1, 3, 4, 4)}, [torch.zeros(1)], torch.zeros(1, 3, 4, 4).to_sparse()],
    ids=["mapping", "list", "sparse"],
)
def test_a_tensor_file_must_hold_one_dense_tensor(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "r.pt")
    with pytest.raises(ReconstructionError, match="not one dense tensor"):
        reconstructions.read_any(tmp_path / "r.pt", ["A1"])


def test_a_tensor_of_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(1, 3, 4, 4, dtype=torch.float8_e4m3fn), tmp_path / "r.pt")
    with pytest.raises(ReconstructionError, match=r"r.pt has type torch.float8"):
        reconstructions.read_any(tmp_path / "r.pt", ["A1"])


def test_a_tensor_that_is_expanded_to_a_gigantic_size_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(1, 1, 1, 3).expand(10**6, 4096, 4096, 3), tmp_path / "r.pt")
    with pytest.raises(ReconstructionError, match=r"a tensor of shape .* on 12 bytes"):
        reconstructions.read_any(tmp_path / "r.pt", ["A1"])


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.pkl").write_bytes(b"")
    with pytest.raises(ReconstructionError, match="no known kind"):
        reconstructions.read_any(tmp_path / "r.pkl")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match="gone does not exist"):
        reconstructions.read_any(tmp_path / "gone")
