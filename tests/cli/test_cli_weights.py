"""The ``weights`` verbs, through the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from local_servers import HubServer
from safetensors.torch import load_file
from typer.testing import CliRunner

from nsdbench import weights
from nsdbench.cli import weights_text
from nsdbench.cli.weights import app
from nsdbench.errors import MissingObject, UsageError, WeightsError
from nsdbench.weights import planning, shelves
from nsdbench.weights.planning import How

CONTENT = b"weights"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder in which AlexNet is present; its registered hash is that of our file."""
    known = weights.REGISTRY["alexnet-imagenet1k-v1"]
    faked = dataclasses.replace(known, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(weights.registry, "REGISTRY", {**weights.REGISTRY, known.id: faked})
    (tmp_path / known.filename).write_bytes(CONTENT)
    return tmp_path


def _run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_list_shows_states_sizes_users_licences_and_totals(folder: Path) -> None:
    code, text = _run("list", "--weights-dir", folder)
    lines = text.splitlines()
    assert code == 0
    assert ["present", "alexnet-imagenet1k-v1", "7", "B", "sha256", "published"] in [
        line.split() for line in lines
    ]
    unclip = next(n for n, line in enumerate(lines) if line.split()[:2] == ["missing", "mindeye2-unclip6"])
    assert lines[unclip].split()[2:] == ["~18", "GB", "not", "pinned", "yet"]
    assert "used by: mindeye2-published, mindeye2-retrained" in lines[unclip + 2]
    assert "licence: CreativeML Open RAIL++-M" in lines[unclip + 2]
    assert "shipped  mini_clip-v1" in text
    assert lines[-1].startswith("total    present 1 (7 B), missing ")
    assert lines[-1].endswith("shipped 14 (56.4 MB)")


def test_list_prints_one_json_document(folder: Path) -> None:
    _, text = _run("list", "--json", "--weights-dir", folder)
    document = json.loads(text)
    assert document["folder"] == str(folder)
    present = {row["id"] for row in document["weights"] if row["state"] == "present"}
    assert present == {"alexnet-imagenet1k-v1"}
    assert {row["id"] for row in document["weights"]} == weights.REGISTRY.keys() | weights.SHIPPED.keys()


def _listed(*arguments: str | Path) -> list[str]:
    return [row["id"] for row in json.loads(_run("list", "--json", *arguments)[1])["weights"]]


def test_list_shows_what_a_metric_or_a_model_needs(folder: Path) -> None:
    assert _listed("--metrics", "clip,mini_clip", "--weights-dir", folder) == [
        "clip-vit-l14-openai",
        "mini_clip-v1",
    ]
    found = _listed("--model", "mindeye1", "--subject", "1", "--weights-dir", folder)
    assert {"versatile-diffusion-vae", "mindeye1-subj01", "mindeye1-lowlevel-subj01"} < set(found)
    assert _listed("--model", "icnn", "--preset", "mini", "--weights-dir", folder) == [
        "mini_vgg-v1",
        "mini_generator-v1",
    ]
    assert _listed("--model", "ridge", "--weights-dir", folder) == []


def test_list_shows_what_is_missing_without_other_forms_of_it(folder: Path) -> None:
    found = _listed("--missing", "--weights-dir", folder)
    assert "alexnet-imagenet1k-v1" not in found
    assert "clip-vit-l14-openai" in found
    assert "clip-vit-l14-openai-transformers" not in found
    assert not set(found) & weights.SHIPPED.keys()


@pytest.mark.parametrize(
    ("downloader", "expected"),
    [
        ("curl", ["location", 'continue-at = "-"', 'url = "{url}"', 'output = "{name}"']),
        ("aria2", ["{url}", "  out={name}"]),
        ("wget", ["wget -c -O '{name}' '{url}'"]),
    ],
)
def test_list_prints_addresses_for_another_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch, downloader: str, expected: list[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    _, text = _run("list", "--model", "mindeye1", "--subject", "1", "--missing", "--urls",
                   "--downloader", downloader, "--weights-dir", folder)  # fmt: skip
    lines = text.splitlines()
    url = "https://hub.example/datasets/pscotti/naturalscenesdataset/resolve/main/mindeye_models/"
    url += "prior_257_final_subj01_bimixco_softclip_byol/last.pth"
    for line in expected:
        assert line.format(url=url, name="mindeye1-subj01.pth") in lines
    assert len(lines) == len(expected) * 5 - (8 if downloader == "curl" else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--urls", "--downloader", "ftp"], "no list for ftp"),
        (["--subject", "1"], "belong to a model"),
        (["--model", "takagi", "--preset", "retrained"], "no preset 'retrained'"),
    ],
)
def test_list_refuses_what_makes_no_sense(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _run("list", *arguments, "--weights-dir", folder)


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


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], How]]:
    """What was asked to be planned; nothing is planned."""
    asked: list[tuple[list[str], How]] = []

    def record(ids: list[str], where: Path, how: How) -> tuple[()]:
        asked.append((ids, how))
        return ()

    monkeypatch.setattr(planning, "plan", record)
    return asked


def test_fetch_hands_mirror_and_endpoint_on(folder: Path, planned: list[tuple[list[str], How]]) -> None:
    _run("fetch", "--metrics", "clip,swav", "--mirror", "https://mirror.example/w", "--endpoint", "https://hub.example",
         "--offline", "--parallel", "2", "--weights-dir", folder)  # fmt: skip
    how = How("https://mirror.example/w", "https://hub.example", True, 2)
    assert planned == [(["clip-vit-l14-openai", "swav-resnet50-800ep"], how)]


def test_fetch_gets_the_networks_of_a_model_and_the_checkpoints_of_subjects(
    folder: Path, planned: list[tuple[list[str], How]]
) -> None:
    _run("fetch", "--model", "mindeye2,ridge", "--subject", "1,7", "--weights-dir", folder)
    ((ids, _),) = planned
    assert {"mindeye2-unclip6", "mindeye2-subj01-40sess", "mindeye2-subj07-40sess"} < set(ids)
    assert len(ids) == len(set(ids))


def test_fetch_says_which_subjects_have_no_published_checkpoint(folder: Path) -> None:
    with pytest.raises(WeightsError, match="mindeye1-subj03 are not published"):
        _run("fetch", "--model", "mindeye1", "--subject", "3", "--weights-dir", folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to fetch"),
        (["mini_clip-v1"], "nothing to fetch"),
        (["--model", "takagi", "--preset", "mini"], "nothing to fetch"),
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


def test_convert_writes_what_lies_in_a_shared_folder_into_ones_own(
    unclip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelves, "is_writable", lambda folder: folder != unclip.parent)
    where = f"{unclip.parent}{os.pathsep}{tmp_path / 'mine'}"
    _, text = _run("convert", "mindeye2-unclip6", "--weights-dir", where)
    path = tmp_path / "mine" / f"{unclip.name}.safetensors"
    assert text.splitlines() == [str(path)]
    unclip.unlink()
    assert weights.locate("mindeye2-unclip6", Path(where)).path == path


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
    assert "present  mindeye2-unclip6 " in text
    assert "(unclip6_epoch0_step110000.ckpt.safetensors)" in text


# --- downloads ----------------------------------------------------------------------------------------------------

LARGE = bytes(range(256)) * 20


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub that holds the caption converter and the words of GIT, each under the path that is registered."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    files = {
        "datasets/pscotti/mindeyev2": {"bigG_to_L_epoch8.pth": LARGE},
        "microsoft/git-large-coco": {"vocab.txt": b"a\nb\n"},
    }
    with HubServer(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


IDS = ("mindeye2-caption-converter", "git-large-coco-vocab")


def test_fetch_prints_a_path_for_every_file(hub: HubServer, tmp_path: Path) -> None:
    code, text = _run("fetch", *IDS, "--weights-dir", tmp_path / "w")
    assert code == 0
    assert text.splitlines() == [
        str(tmp_path / "w" / "bigG_to_L_epoch8.pth"),
        str(tmp_path / "w" / "git-large-coco-vocab.txt"),
    ]


def test_a_plan_prints_sizes_and_downloads_nothing(hub: HubServer, tmp_path: Path) -> None:
    code, text = _run("fetch", *IDS, "--plan", "--weights-dir", tmp_path / "w")
    lines = text.splitlines()
    assert code == 0
    assert lines[0].split() == ["download", "5.12", "kB", "mindeye2-caption-converter"]
    assert lines[2].startswith(f"2 to download into {tmp_path / 'w'}: 5.12 kB; ")
    _, text = _run("fetch", *IDS, "--plan", "--json", "--weights-dir", tmp_path / "w")
    first = json.loads(text)["files"][0]
    assert (first["state"], first["size"], first["size_is_exact"]) == ("download", len(LARGE), True)
    assert first["sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert not (tmp_path / "w").exists()


def test_a_plan_says_which_terms_have_to_be_accepted(hub: HubServer, tmp_path: Path) -> None:
    hub.gated["datasets/pscotti/mindeyev2"] = {"hf_right"}
    code, text = _run("fetch", *IDS, "--plan", "--json", "--weights-dir", tmp_path / "w")
    found = json.loads(text)["files"]
    assert (code, [row["state"] for row in found]) == (2, ["failed", "download"])
    assert f"{hub.url}/datasets/pscotti/mindeyev2" in found[0]["error"]["remedy"]


def test_a_file_that_fails_does_not_stop_the_others(hub: HubServer, tmp_path: Path) -> None:
    hub.cdn.remove("datasets/pscotti/mindeyev2/bigG_to_L_epoch8.pth")
    code, text = _run("fetch", *IDS, "--json", "--weights-dir", tmp_path / "w")
    first, second = json.loads(text)["files"]
    assert (code, json.loads(text)["ok"]) == (2, False)
    assert (first["state"], first["error"]["kind"]) == ("failed", "MissingObject")
    assert (second["state"], second["error"]) == ("here", None)
    assert Path(second["path"]).read_bytes() == b"a\nb\n"
    with pytest.raises(MissingObject, match=r"has no bigG_to_L_epoch8\.pth"):
        _run("fetch", *IDS, "--weights-dir", tmp_path / "w")


def test_after_a_large_pickle_fetch_points_to_its_conversion(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights_text, "LARGE", 1000)
    result = CliRunner().invoke(app, ["fetch", *IDS, "--weights-dir", str(tmp_path / "w")])
    assert "`nsdbench weights convert mindeye2-caption-converter`" in result.stderr
    assert "convert git-large-coco-vocab" not in result.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_takes_the_list_of_addresses(hub: HubServer, tmp_path: Path) -> None:
    _, text = _run("list", "--model", "mindeye2", "--missing", "--urls", "--weights-dir", tmp_path / "w")
    blocks = text.split("url = ")
    wanted = [block for block in blocks[1:] if any(name in block for name in ("bigG_to_L", "vocab"))]
    (tmp_path / "list").write_text(blocks[0] + "".join(f"url = {block}" for block in wanted))
    (tmp_path / "w").mkdir()
    subprocess.run(["curl", "-s", "-K", str(tmp_path / "list")], cwd=tmp_path / "w", check=True)
    code, text = _run("verify", *IDS, "--json", "--weights-dir", tmp_path / "w")
    assert (code, {row["status"] for row in json.loads(text)["weights"]}) == (0, {"ok"})


def test_verify_says_against_what_and_looks_at_what_comes_along(folder: Path) -> None:
    _, text = _run("verify", "alexnet-imagenet1k-v1", "mini_clip-v1", "--weights-dir", folder)
    first, second = text.splitlines()
    assert first.endswith("sha256 published")
    assert second.endswith("comes with nsdbench")
    with pytest.raises(UsageError, match="no weights 'alexnet'"):
        _run("verify", "alexnet", "--weights-dir", folder)
