"""``nsdbench oracle``: near copies without a brain, and what is said when there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from nsdbench.adapters.base import Context
from nsdbench.adapters.floors import MeanImage
from nsdbench.cli import app
from nsdbench.errors import NsdbenchError
from nsdbench.oracle import read_images
from nsdbench.pretraining.sheet import MARGIN, TILE


def oracle(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["oracle", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    """Message and remedy with which the command is refused."""
    error = oracle(*arguments).exception
    assert isinstance(error, NsdbenchError), error
    return f"{error.message} {error.remedy}"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three noise images; the first two have captions."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("a red dog on grass\n\nan animal\n")
    return folder


@pytest.mark.parametrize("model", ["mindeye1", "mindeye2", "brain_diffuser", "takagi", "icnn"])
def test_miniatures_give_back_scenes_that_they_have_never_seen(model: str) -> None:
    done = oracle("--model", model, "--n", "3", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["ok"] and document["preset"] == "mini"
    assert [copy["image"] for copy in document["copies"]] == ["scene0000", "scene0001", "scene0002"]
    for copy in document["copies"]:
        assert copy["pixcorr"] > copy["other"] + 0.3
    assert document["mean"]["pixcorr"] == pytest.approx(np.mean([c["pixcorr"] for c in document["copies"]]))


def test_too_little_likeness_fails_and_the_picture_shows_why(tmp_path: Path) -> None:
    done = oracle("--model", "takagi", "--n", "2", "--at-least", "0.999", "--out", tmp_path / "sheet.png")
    assert done.exit_code == 1
    assert "pixcorr" in done.stdout and "mean" in done.stdout
    assert "at least 0.999; too unlike" in done.stderr
    assert Image.open(tmp_path / "sheet.png").size == (MARGIN + 2 * TILE, 2 * TILE)


def test_a_folder_of_images_can_be_shown_instead(photographs: Path) -> None:
    done = oracle(
        "--model", "mindeye2", "--preset", "mini", "--images", photographs, "--json", "--at-least", -1
    )
    assert [copy["image"] for copy in json.loads(done.stdout)["copies"]] == ["a", "b", "c"]


def test_captions_lie_beside_the_images(photographs: Path) -> None:
    stimuli = read_images(photographs, 2)
    assert stimuli.ids == ("a", "b")
    assert stimuli.captions["a"] == ("a red dog on grass", "an animal")


def test_a_missing_caption_is_an_error_for_models_that_read_text(photographs: Path) -> None:
    words = refusal("--model", "takagi", "--preset", "mini", "--images", photographs)
    assert "stimulus c has no caption" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "mindey1"], "mindeye1"),
        (["--model", "mindeye1,mindeye2"], "one by one"),
        (["--model", "ridge"], "ridge makes no images of features"),
        (["--model", "mindeye2", "--preset", "huge"], "retrained"),
        (["--model", "mindeye2", "--preset", "published"], "--images"),
        (["--model", "mindeye2", "--device", "tpu"], "cpu"),
        (["--model", "mindeye2", "--images", "nowhere"], "nowhere cannot be read"),
    ],
)
def test_misuse_is_answered_with_what_to_do(arguments: list[str], words: str) -> None:
    assert words in refusal(*arguments)


def test_one_image_alone_cannot_be_compared_with_others(photographs: Path) -> None:
    for name in ("b", "c"):
        (photographs / f"{name}.png").unlink()
    assert "at least two" in refusal("--model", "mindeye2", "--images", photographs)


def test_a_damaged_image_is_named(photographs: Path) -> None:
    (photographs / "b.png").write_bytes(b"\x89PNG\r\n")
    assert "b.png" in refusal("--model", "mindeye2", "--images", photographs)


def test_the_published_networks_are_asked_for_and_no_checkpoint_of_a_subject(
    photographs: Path, tmp_path: Path
) -> None:
    words = refusal("--model", "mindeye1", "--images", photographs, "--weights-dir", tmp_path / "empty")
    assert "weights fetch" in words
    assert "versatile" in words and "subj" not in words


def test_a_model_that_makes_no_copies_says_so_in_python_too() -> None:
    with pytest.raises(NsdbenchError, match="no images of features"):
        MeanImage("standard", Context()).copies(read_images(None, 2), ("scene0000",))


def test_captions_that_are_no_text_are_named(photographs: Path) -> None:
    (photographs / "a.txt").write_bytes(b"\xff\xfe")
    assert "a.txt cannot be read" in refusal("--model", "takagi", "--images", photographs)


def test_only_the_images_that_are_shown_are_read(photographs: Path) -> None:
    (photographs / "c.png").write_bytes(b"\x89PNG\r\n")
    assert read_images(photographs, 2).ids == ("a", "b")
