"""The ``weights`` verbs, through the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from nsdbench import weights
from nsdbench.cli.weights import app
from nsdbench.errors import UsageError, WeightsError

CONTENT = b"weights"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder in which AlexNet is present; its registered hash is that of our file."""
    known = weights.REGISTRY["alexnet-imagenet1k-v1"]
    faked = dataclasses.replace(known, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(weights, "REGISTRY", {**weights.REGISTRY, known.id: faked})
    (tmp_path / known.filename).write_bytes(CONTENT)
    return tmp_path


def _run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_list_shows_ids_addresses_and_what_is_present(folder: Path) -> None:
    code, text = _run("list", "--weights-dir", folder)
    assert code == 0
    assert "present  alexnet-imagenet1k-v1" in text
    assert "missing  clip-vit-l14-openai\n" in text
    assert all(entry.url in text for entry in weights.REGISTRY.values())


def test_list_prints_one_json_document(folder: Path) -> None:
    _, text = _run("list", "--json", "--weights-dir", folder)
    document = json.loads(text)
    assert document["folder"] == str(folder)
    assert {row["id"]: row["present"] for row in document["weights"]} == {
        id: id == "alexnet-imagenet1k-v1" for id in weights.REGISTRY
    }


def test_verify_accepts_good_and_missing_files(folder: Path) -> None:
    code, text = _run("verify", "--json", "--weights-dir", folder)
    document = json.loads(text)
    assert code == 0
    assert document["ok"] is True
    assert {row["status"] for row in document["weights"]} == {"ok", "missing"}


def test_verify_exits_with_1_when_a_file_is_wrong(folder: Path) -> None:
    (folder / "alexnet-owt-7be5be79.pth").write_bytes(b"altered")
    code, text = _run("verify", "--weights-dir", folder)
    assert code == 1
    assert "bad      alexnet-imagenet1k-v1" in text


def test_fetch_prints_the_path_of_a_file_that_is_there(folder: Path) -> None:
    _, text = _run("fetch", "alexnet-imagenet1k-v1", "--metrics", "alexnet2,lpips", "--weights-dir", folder)
    assert text.splitlines() == [str(folder / "alexnet-owt-7be5be79.pth")]


def test_fetch_hands_the_mirror_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        weights, "fetch", lambda id, folder, *, progress, base_url: asked.append((id, base_url))
    )
    _run("fetch", "--metrics", "clip,swav", "--mirror", "https://mirror.example/w", "--weights-dir", folder)
    assert asked == [
        ("clip-vit-l14-openai", "https://mirror.example/w"),
        ("swav-resnet50-800ep", "https://mirror.example/w"),
    ]


def test_fetch_gets_the_networks_of_a_model_and_the_checkpoints_of_subjects(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(weights, "fetch", lambda id, folder, *, progress, base_url: asked.append(id))
    _run("fetch", "--model", "mindeye2,ridge", "--subject", "1,7", "--weights-dir", folder)
    assert {"mindeye2-unclip6", "mindeye2-subj01-40sess", "mindeye2-subj07-40sess"} < set(asked)
    assert len(asked) == len(set(asked))


def test_fetch_says_which_subjects_have_no_published_checkpoint(folder: Path) -> None:
    with pytest.raises(WeightsError, match="mindeye1-subj03 are not published"):
        _run("fetch", "--model", "mindeye1", "--subject", "3", "--weights-dir", folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to fetch"),
        (["--model", "ridge"], "nothing to fetch"),
        (["--model", "mindeye1", "--subject", "one"], "subject"),
        (["--metrics", "pixcorr"], "nothing to fetch"),
        (["--metrics", "clpi"], "no metric 'clpi'"),
        (["alexnet-imagenet1k-v1", "alexnet"], "no weights 'alexnet'"),
    ],
)
def test_fetch_refuses_what_it_does_not_know(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _run("fetch", *arguments, "--weights-dir", folder)


@pytest.fixture
def unclip(tmp_path: Path) -> Path:
    """A weights folder with a small file in place of the unCLIP checkpoint."""
    state = {f"{part}.weight": torch.full((2, 2), 1 / 3) for part in ("model", "conditioner.clip")}
    path = tmp_path / "unclip6_epoch0_step110000.ckpt"
    torch.save({"state_dict": state, "callbacks": {"code": print}}, path)
    return path


def test_convert_writes_beside_registered_weights_what_is_needed_of_them(unclip: Path) -> None:
    code, text = _run("convert", "mindeye2-unclip6", "--half", "--weights-dir", unclip.parent)
    path = unclip.with_name("unclip6_epoch0_step110000.ckpt.safetensors")
    assert (code, text.splitlines()) == (0, [str(path)])
    found = load_file(path)
    assert {name: value.dtype for name, value in found.items()} == {"model.weight": torch.float16}
    assert weights.locate("mindeye2-unclip6", unclip.parent).path == path


def test_convert_writes_any_checkpoint_to_any_place(unclip: Path, tmp_path: Path) -> None:
    out = tmp_path / "there" / "net.safetensors"
    _, text = _run("convert", unclip, "--out", out, "--json")
    document = json.loads(text)
    assert document == {
        "path": str(out),
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "source_sha256": hashlib.sha256(unclip.read_bytes()).hexdigest(),
        "half": False,
    }
    assert load_file(out)["conditioner.clip.weight"][0, 0] == torch.tensor(1 / 3)


def test_convert_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mindeye3 is neither the id of weights nor a file"):
        _run("convert", "mindeye3", "--weights-dir", tmp_path)


def test_convert_says_how_to_get_what_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nsdbench weights fetch mindeye2-unclip6"):
        _run("convert", "mindeye2-unclip6", "--weights-dir", tmp_path)


def test_convert_needs_the_original(unclip: Path) -> None:
    _run("convert", "mindeye2-unclip6", "--weights-dir", unclip.parent)
    unclip.unlink()
    with pytest.raises(UsageError, match="only another form"):
        _run("convert", "mindeye2-unclip6", "--half", "--weights-dir", unclip.parent)


def test_convert_refuses_a_folder_of_shards(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    with pytest.raises(WeightsError, match="is a folder"):
        _run("convert", tmp_path / "last")


def test_list_counts_weights_as_present_that_are_only_there_in_converted_form(unclip: Path) -> None:
    _run("convert", "mindeye2-unclip6", "--weights-dir", unclip.parent)
    unclip.unlink()
    _, text = _run("list", "--weights-dir", unclip.parent)
    assert "present  mindeye2-unclip6\n" in text
