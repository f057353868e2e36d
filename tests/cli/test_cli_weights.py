"""The ``weights`` verbs, through the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsdbench import weights
from nsdbench.cli.weights import app
from nsdbench.errors import UsageError

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to fetch"),
        (["--metrics", "pixcorr"], "nothing to fetch"),
        (["--metrics", "clpi"], "no metric 'clpi'"),
        (["alexnet-imagenet1k-v1", "alexnet"], "no weights 'alexnet'"),
    ],
)
def test_fetch_refuses_what_it_does_not_know(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _run("fetch", *arguments, "--weights-dir", folder)
