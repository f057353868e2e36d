"""Folders of PNG and JPEG files: reconstructions by target and sample, targets by file stem."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nsdbench import imagefiles, reconstructions
from nsdbench.errors import DataError, ReconstructionError

IDS = ("A1", "A2", "B1")


@pytest.fixture
def images(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Three targets, two samples, eight pixels."""
    return rng.integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)


def _png(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("pattern", ["{target}_s{k}.png", "{target}/{k}.png"])
def test_a_folder_of_samples_is_read_by_id(tmp_path: Path, images: NDArray[np.uint8], pattern: str) -> None:
    for row in (2, 0, 1):
        for k in (1, 0):
            _png(tmp_path / pattern.format(target=IDS[row], k=k), images[row, k])
    found = reconstructions.read_any(tmp_path)
    assert found.targets == IDS
    assert np.array_equal(found.images, images)


def test_a_folder_of_single_images_has_one_sample(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    for row, target in enumerate(IDS):
        _png(tmp_path / f"{target}.png", images[row, 0])
    assert np.array_equal(reconstructions.read_any(tmp_path).images, images[:, :1])


def test_samples_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    for k in range(11):
        _png(tmp_path / f"A1_s{k}.png", np.full((4, 4, 3), 10 + k, np.uint8))
    assert reconstructions.read_any(tmp_path).images[0, :, 0, 0, 0].tolist() == list(range(10, 21))


def test_a_known_id_that_looks_like_a_sample_stays_an_id(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    for row, name in enumerate(("photo_s1", "photo_s2")):
        _png(tmp_path / f"{name}.png", images[row, 0])
    assert reconstructions.read_any(tmp_path, ["photo_s1", "photo_s2"]).targets == ("photo_s1", "photo_s2")
    assert reconstructions.read_any(tmp_path).targets == ("photo",)


def test_jpeg_grey_palette_and_opaque_images_are_read_as_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((8, 8), 100, np.uint8))
    for name, mode in (("a.jpg", "RGB"), ("b.jpeg", "L"), ("c.png", "P"), ("d.PNG", "RGBA"), ("e.png", "LA")):
        grey.convert(mode).save(tmp_path / name)
    assert (reconstructions.read_any(tmp_path).images == 100).all()


def test_hidden_files_and_notes_are_ignored(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    _png(tmp_path / "A1.png", images[0, 0])
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "readme.txt").write_text("notes")
    assert reconstructions.read_any(tmp_path).targets == ("A1",)


def _expect(folder: Path, message: str) -> ReconstructionError:
    with pytest.raises(ReconstructionError, match=message) as caught:
        reconstructions.read_any(folder)
    return caught.value


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["A1_s0", "A1_s1", "A2_s0"], r"A1 and A2 differ in their samples \(1\)"),
        (["A1_s0", "A2_s1"], "A1 and A2 differ in their samples"),
        (["A1", "A1_s0", "A2_s0"], "without a number"),
        (["A1_s1", "A1_s01"], "same sample of target A1"),
        (["A1_s0", "A1/0"], "same sample of target A1"),
        (["A1", "A2/0"], "differ in their samples"),
        (["A1/first"], "not named by a sample number"),
    ],
)
def test_unclear_sets_of_samples_are_refused(
    tmp_path: Path, images: NDArray[np.uint8], names: list[str], message: str
) -> None:
    for name in names:
        _png(tmp_path / f"{name}.png", images[0, 0])
    _expect(tmp_path, message)


def test_one_target_in_two_formats_is_refused(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    _png(tmp_path / "A1.png", images[0, 0])
    _png(tmp_path / "A1.jpg", images[0, 0])
    _expect(tmp_path, "same sample of target A1")


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    _png(tmp_path / "A1.png", np.full((8, 8, 3), 9, np.uint8))
    _png(tmp_path / "A2.png", np.full((9, 9, 3), 9, np.uint8))
    _expect(tmp_path, r"A2.png has 9 x 9 pixels, A1.png has 8 x 8")


def test_an_image_that_is_not_square_is_refused(tmp_path: Path) -> None:
    _png(tmp_path / "A1.png", np.full((8, 9, 3), 9, np.uint8))
    _expect(tmp_path, r"A1.png has 9 x 8 pixels; nsdbench never stretches")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    _expect(tmp_path, "holds no PNG or JPEG")


@pytest.mark.parametrize("name", ["A1.webp", "A1.gif", "A1/0.bmp"])
def test_other_image_formats_are_refused_rather_than_skipped(
    tmp_path: Path, images: NDArray[np.uint8], name: str
) -> None:
    _png(tmp_path / "A2.png", images[0, 0])
    _png(tmp_path / name, images[0, 0])
    _expect(tmp_path, "is neither PNG nor JPEG")


def test_a_disguised_format_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "A1.png", format="TIFF")
    _expect(tmp_path, r"A1.png is damaged or not a PNG or JPEG")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5, 0.9])
def test_truncated_images_are_named(
    tmp_path: Path, rng: np.random.Generator, suffix: str, fraction: float
) -> None:
    path = _png(tmp_path / f"A1{suffix}", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    _expect(tmp_path, rf"A1\{suffix} is damaged")


def _declared_png(side: int) -> bytes:
    """A tiny PNG file whose header declares ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [imagefiles.MAX_SIDE + 1, 12_000, 60_000])
def test_gigantic_images_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "A1.png").write_bytes(_declared_png(side))
    assert "A1.png" in _expect(tmp_path, "limit").message


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (8, 8), 99)
    image.putalpha(200)
    image.save(tmp_path / "A1.png")
    _expect(tmp_path, "transparent")


@pytest.mark.parametrize("mode", ["I;16", "CMYK"])
def test_pixels_that_are_not_8_bit_grey_or_rgb_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8), 99).save(tmp_path / ("A1.jpg" if mode == "CMYK" else "A1.png"))
    _expect(tmp_path, "not a still 8-bit")


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200)]
    frames[0].save(tmp_path / "A1.png", save_all=True, append_images=frames[1:])
    _expect(tmp_path, "not a still")


def test_links_out_of_the_folder_are_refused(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    outside = _png(tmp_path / "outside" / "secret.png", images[0, 0])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "A1.png").symlink_to(outside)
    _expect(tmp_path / "set", "leads out of")


def test_linked_folders_out_of_the_folder_are_refused(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    _png(tmp_path / "outside" / "0.png", images[0, 0])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "A1").symlink_to(tmp_path / "outside")
    _expect(tmp_path / "set", "leads out of")


def test_links_within_the_folder_are_followed(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    _png(tmp_path / "A1.png", images[0, 0])
    (tmp_path / "A2.png").symlink_to("A1.png")
    found = reconstructions.read_any(tmp_path)
    assert np.array_equal(found.images[0], found.images[1])


@pytest.mark.parametrize("target", ["A1.png", "nowhere.png"], ids=["loop", "dangling"])
def test_links_that_lead_nowhere_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "A1.png").symlink_to(target)
    _expect(tmp_path, r"A1.png is not a regular file")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "A1.png")
    _expect(tmp_path, r"A1.png is not a regular file")


def test_targets_are_known_by_their_file_stems(tmp_path: Path) -> None:
    big, small = (np.full((side, side, 3), side, np.uint8) for side in (30, 20))
    _png(tmp_path / "B1_W.png", big)
    _png(tmp_path / "A1.jpg", small)
    _png(tmp_path / "cat_s1.png", small)
    stimuli = reconstructions.read_targets(tmp_path)
    assert stimuli.ids == ("A1", "B1_W", "cat_s1")
    assert stimuli.stimulus_set == ("A", "B", "external")
    assert stimuli.has_image == {"A1", "B1_W", "cat_s1"}
    assert np.array_equal(stimuli.image("B1_W"), big)


def test_the_hash_of_targets_covers_ids_and_pixels_but_not_the_encoding(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    def hash_of(name: str, pixels: NDArray[np.uint8], **options: int) -> str:
        folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        Image.fromarray(pixels).save(folder / f"{name}.png", **options)
        return reconstructions.read_targets(folder).content_hash

    reference = hash_of("A1", images[0, 0])
    assert hash_of("A1", images[0, 0], compress_level=0) == reference
    assert hash_of("A2", images[0, 0]) != reference
    assert hash_of("A1", images[0, 1]) != reference


def test_bad_targets_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no PNG or JPEG"):
        reconstructions.read_targets(tmp_path)
    _png(tmp_path / "A1.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"A1.png has 9 x 8 pixels"):
        reconstructions.read_targets(tmp_path)


def test_two_targets_with_one_stem_are_refused(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    _png(tmp_path / "A1.png", images[0, 0])
    _png(tmp_path / "A1.jpg", images[0, 0])
    with pytest.raises(DataError, match="same image id"):
        reconstructions.read_targets(tmp_path)


def test_published_reconstructions_are_read_with_their_ids(shared: Path) -> None:
    tiles = shared / "data" / "real" / "nsdimagery-recons" / "tiles"
    folders = sorted(tiles.glob("*/*/*"))
    counts = {folder.relative_to(tiles).parts[0]: reconstructions.read_any(folder) for folder in folders}
    assert len(folders) == 12
    assert {name: recon.images.shape for name, recon in counts.items()} == {
        "braindiffuser": (12, 1, 150, 150, 3),
        "mindeye1": (12, 1, 150, 150, 3),
        "mindeye2": (18, 1, 150, 150, 3),
    }
    assert counts["mindeye1"].targets[:2] == ("A1_H", "A2_R")


def test_target_folder_of_published_reconstructions_is_read(shared: Path) -> None:
    stimuli = reconstructions.read_targets(shared / "data" / "real" / "nsdimagery-recons" / "groundtruth")
    assert stimuli.ids == ("A1_H", "A2_R", "A3_V", "A4_L", "A5_P", "A6_E")
    assert set(stimuli.stimulus_set) == {"A"}
    assert stimuli.image("A1_H").shape == (714, 714, 3)


@pytest.mark.parametrize("name", ["A1\x1b[2J.png", "A\udcff.png"])
def test_a_file_name_that_cannot_be_shown_is_refused(
    tmp_path: Path, images: NDArray[np.uint8], name: str
) -> None:
    _png(tmp_path / name, images[0, 0])
    with pytest.raises(ReconstructionError, match="cannot be shown"):
        reconstructions.read_any(tmp_path)
    with pytest.raises(DataError, match="cannot be shown"):
        reconstructions.read_targets(tmp_path)
