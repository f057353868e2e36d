"""Getting weights from a hub and from plain addresses, over servers on this machine that fail on demand."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_servers import Asked, HubServer, LocalServer

from nsdbench import weights
from nsdbench.errors import (
    CorruptedObject,
    MissingObject,
    NoRoom,
    NsdbenchError,
    Unreachable,
    UsageError,
    WeightsError,
)
from nsdbench.store import read_json
from nsdbench.transfer import Client
from nsdbench.weights import HubFile, fetching, hub, planning, records, registry
from nsdbench.weights.fetching import carry_out, fetch
from nsdbench.weights.planning import How, plan

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WORDS = b"one\nword\na line\n"
PAGE = "datasets/owner/demo"
MODEL, TOKEN = f"{PAGE}/model.bin", "hf_right"


@dataclass
class Site:
    """A hub with a large and a small file, which its other host holds, and a plain server."""

    hub: HubServer
    plain: LocalServer

    @property
    def commit(self) -> str:
        return self.hub.commit[PAGE]

    @property
    def requests(self) -> list[Asked]:
        """All that was asked of the three hosts."""
        return [*self.hub.log, *self.hub.cdn.log, *self.plain.log]

    def content_sent(self) -> int:
        """Return how many bytes of content were sent, without the single ones that only ask what there is."""
        return sum(asked.sent for asked in [*self.hub.cdn.log, *self.plain.log] if asked.sent > 1)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """Servers whose files are registered; nobody is logged in."""
    import huggingface_hub.constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "NSDBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    quick = functools.partial(Client, pause_s=0.0, patience=3)
    for module in (fetching, planning):
        monkeypatch.setattr(module, "Client", quick)
    monkeypatch.setattr(hub, "PAUSE_S", 0.0)
    files = {"model.bin": CONTENT, "words.txt": WORDS}
    with HubServer({PAGE: files}) as at_hub, LocalServer({"plain.bin": CONTENT}) as plain:
        monkeypatch.setenv("HF_ENDPOINT", at_hub.url)
        entries = [
            _entry("demo", HubFile("owner/demo", "model.bin", "dataset"), "demo.bin"),
            _entry("words", HubFile("owner/demo", "words.txt", "dataset"), "words.txt"),
            _entry("plain", plain.address("plain.bin"), "plain.bin", sha256=SHA256),
        ]
        monkeypatch.setattr(registry, "REGISTRY", {entry.id: entry for entry in entries})
        yield Site(at_hub, plain)


def _entry(id: str, origin: str | HubFile, filename: str, **known: object) -> weights.Weights:
    return weights.Weights(id, filename, origin, "MIT", "a demo", **known)  # type: ignore[arg-type]


def _change(monkeypatch: pytest.MonkeyPatch, id: str, **changes: object) -> None:
    changed = dataclasses.replace(registry.REGISTRY[id], **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "REGISTRY", {**registry.REGISTRY, id: changed})


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", ".hashes.json"} if folder.exists() else set()


# --- whole ---------------------------------------------------------------------------------------------------------


def test_a_file_of_the_hub_arrives_proven_by_the_hub_and_recorded(site: Site, tmp_path: Path) -> None:
    path = fetch("demo", tmp_path / "w")
    assert path.read_bytes() == CONTENT
    assert _names(tmp_path / "w") == {"demo.bin", "pins.json"}
    recorded = read_json(tmp_path / "w" / "pins.json")["demo.bin"]
    assert recorded.pop("date").startswith("20")
    assert recorded == {
        "sha256": SHA256,
        "hub_sha256": SHA256,
        "commit": site.commit,
        "url": f"{site.hub.url}/{PAGE}/resolve/{site.commit}/model.bin",
        "size": len(CONTENT),
        "verified": "sha256",
    }
    (status,) = weights.verify(tmp_path / "w", ["demo"])
    assert (status.status, status.verified) == ("ok", "sha256 from hub")


def test_what_is_downloaded_is_the_commit_that_was_planned(site: Site, tmp_path: Path) -> None:
    items = plan(["demo"], tmp_path)
    assert carry_out(items) == []
    recorded = read_json(tmp_path / "pins.json")["demo.bin"]["url"]
    assert recorded == items[0].url == site.hub.address(PAGE, "model.bin", site.commit)


def test_a_small_file_of_the_hub_is_proven_by_the_hash_of_git(site: Site, tmp_path: Path) -> None:
    assert fetch("words", tmp_path).read_bytes() == WORDS
    assert read_json(tmp_path / "pins.json")["words.txt"]["verified"] == "git sha1"
    (tmp_path / "words.txt").unlink()
    (tmp_path / "pins.json").unlink()
    site.hub.fail(f"{PAGE}/words.txt", "flip")
    with pytest.raises(WeightsError, match="another file than the hub announced"):
        fetch("words", tmp_path)
    assert _names(tmp_path) == set()


def test_a_plain_file_is_proven_by_its_published_hash(site: Site, tmp_path: Path) -> None:
    assert fetch("plain", tmp_path).read_bytes() == CONTENT
    assert read_json(tmp_path / "pins.json")["plain.bin"]["verified"] == "sha256"


def test_an_address_of_the_hub_that_is_none_is_refused_at_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub.example.org")
    with pytest.raises(UsageError, match=r"hub.example.org is not a web address"):
        fetch("demo", tmp_path)


def test_a_few_digits_of_a_hash_are_not_called_the_hash(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, "plain", sha256=None, sha256_prefixes=(SHA256[:8],))
    fetch("plain", tmp_path)
    assert read_json(tmp_path / "pins.json")["plain.bin"]["verified"] == "sha256 digits"


def test_a_plain_file_without_a_published_hash_is_pinned(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, "plain", sha256=None)
    fetch("plain", tmp_path)
    recorded = read_json(tmp_path / "pins.json")["plain.bin"]
    assert (recorded["sha256"], recorded["verified"]) == (SHA256, "size")
    assert [status.verified for status in weights.verify(tmp_path, ["plain"])] == ["pinned"]


def test_a_file_that_is_here_is_checked_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plain.bin").write_bytes(CONTENT)
    assert fetch("plain", tmp_path) == tmp_path / "plain.bin"
    assert site.requests == []
    (tmp_path / "plain.bin").write_bytes(b"?")
    with pytest.raises(WeightsError, match="not the right file"):
        fetch("plain", tmp_path)


def test_a_download_is_not_hashed_a_second_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "sha256_file", lambda path: pytest.fail("hashed again"))
    fetch("demo", tmp_path)
    assert weights.locate("demo", tmp_path).sha256 == SHA256


def test_files_are_as_open_as_the_user_wants(site: Site, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        fetch("demo", tmp_path / "w")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "w").iterdir()}
    assert (modes["demo.bin"], modes["pins.json"]) == (0o640, 0o640)


# --- plans --------------------------------------------------------------------------------------------------------


def test_a_plan_says_sizes_and_hashes_and_writes_nothing(site: Site, tmp_path: Path) -> None:
    items = plan(["demo", "plain", "words"], tmp_path / "w")
    assert [(item.state, item.size, item.exact) for item in items] == [
        ("download", len(CONTENT), True),
        ("download", len(CONTENT), True),
        ("download", len(WORDS), True),
    ]
    assert items[0].proof.sha256 == SHA256
    assert not (tmp_path / "w").exists()
    assert site.content_sent() == 0


def test_a_full_disk_is_noticed_before_anything_is_downloaded(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = type(shutil.disk_usage(tmp_path))(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    with pytest.raises(NoRoom):
        carry_out(plan(["demo", "plain"], tmp_path))
    assert site.content_sent() == 0
    # without a connection, the disk is not the first obstacle
    with pytest.raises(WeightsError, match="no connection is tried"):
        carry_out(plan(["demo", "plain"], tmp_path, How(offline=True)), How(offline=True))


def test_unknown_ids_and_addresses_are_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights 'demos'"):
        plan(["demos"], tmp_path)
    with pytest.raises(UsageError, match="not a web address"):
        plan(["demo"], tmp_path, How(mirror="file:///etc"))


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_broken_connection_is_continued(site: Site, tmp_path: Path) -> None:
    site.hub.cdn.fail(MODEL, "drop", "503", "drop", "429")
    assert fetch("demo", tmp_path).read_bytes() == CONTENT


def test_a_later_run_continues_without_reading_anything_twice(site: Site, tmp_path: Path) -> None:
    site.hub.cdn.fail(MODEL, "drop", *["503"] * 20)
    with pytest.raises(Unreachable):
        fetch("demo", tmp_path)
    assert "demo.bin" not in _names(tmp_path)
    site.hub.cdn.behave()
    before = site.content_sent()
    assert before == len(CONTENT) // 2
    assert fetch("demo", tmp_path).read_bytes() == CONTENT
    assert site.content_sent() == len(CONTENT)


def test_a_corrupted_file_is_fetched_once_more(site: Site, tmp_path: Path) -> None:
    site.hub.cdn.fail(MODEL, "flip")
    assert fetch("demo", tmp_path).read_bytes() == CONTENT
    assert site.content_sent() == 2 * len(CONTENT)


def test_a_file_that_is_always_corrupted_is_not_kept(site: Site, tmp_path: Path) -> None:
    site.hub.cdn.fail(MODEL, "flip", always=True)
    with pytest.raises(CorruptedObject):
        fetch("demo", tmp_path)
    assert _names(tmp_path) == set()
    assert site.content_sent() == 2 * len(CONTENT)


def test_a_file_of_another_size_than_published_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, "plain", size=5)
    with pytest.raises(CorruptedObject, match="has 3000000 bytes, the file that is wanted has 5"):
        fetch("plain", tmp_path)
    assert site.content_sent() == 0


@pytest.mark.parametrize("id", ["demo", "plain"])
def test_a_file_that_is_not_there_is_reported(site: Site, tmp_path: Path, id: str) -> None:
    site.hub.cdn.remove(MODEL)
    site.plain.remove("plain.bin")
    with pytest.raises(MissingObject):
        fetch(id, tmp_path)


def test_where_one_file_fails_the_others_go_on(site: Site, tmp_path: Path) -> None:
    site.hub.remove(f"{PAGE}/words.txt")
    failures = carry_out(plan(["words", "demo", "plain"], tmp_path))
    assert [(item.weights.id, error.kind) for item, error in failures] == [("words", "MissingObject")]
    assert {"demo.bin", "plain.bin"} <= _names(tmp_path)


def test_a_hub_that_cannot_be_reached_is_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:9 could not be asked about model.bin") as caught:
        fetch("demo", tmp_path)
    assert "HF_ENDPOINT" in caught.value.remedy


def test_a_failing_hub_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.hub.fail(MODEL, "500", "429", on="all")
    assert fetch("demo", tmp_path).read_bytes() == CONTENT


# --- terms and tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "reason"), [(None, "it asks who you are"), ("hf_wrong", "the token does not open it")]
)
def test_a_gated_repository_says_what_to_accept_and_how_to_log_in(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, reason: str
) -> None:
    site.hub.gated[PAGE] = {TOKEN}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(WeightsError, match=reason) as caught:
        fetch("demo", tmp_path)
    for part in (f"accept the terms on {site.hub.url}/{PAGE};", "hf auth login", "HF_TOKEN"):
        assert part in caught.value.remedy


def test_a_token_opens_a_gated_repository_and_is_sent_to_the_hub_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.hub.gated[PAGE] = {TOKEN}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert carry_out(plan(["demo", "words", "plain"], tmp_path)) == []
    assert {asked.headers.get("authorization") for asked in site.hub.log} == {f"Bearer {TOKEN}"}
    assert site.hub.cdn.log
    assert not site.hub.cdn.saw_authorization
    assert not site.plain.saw_authorization


def test_a_repository_closed_during_the_download_says_the_same(site: Site, tmp_path: Path) -> None:
    items = plan(["demo"], tmp_path)
    site.hub.gated[PAGE] = {TOKEN}
    ((_, error),) = carry_out(items)
    assert isinstance(error, WeightsError)
    assert "accept the terms" in error.remedy


# --- mirrors ------------------------------------------------------------------------------------------------------


def test_a_mirror_holds_files_under_our_names_and_gets_no_token(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    site.plain.put("demo.bin", CONTENT)
    fetch("demo", tmp_path, How(mirror=f"{site.plain.url}/"))
    assert site.hub.log == []
    assert not site.plain.saw_authorization
    assert read_json(tmp_path / "pins.json")["demo.bin"]["url"] == f"{site.plain.url}/demo.bin"


def test_a_mirror_of_the_hub_can_be_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch("demo", tmp_path, How(endpoint=f"{site.hub.url}/")).read_bytes() == CONTENT


# --- pins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", ["0" * 64, {"sha256": "0" * 64}])
def test_another_file_than_the_pinned_one_is_refused_before_the_download(
    site: Site, tmp_path: Path, pinned: object
) -> None:
    (tmp_path / "pins.json").write_text(json.dumps({"demo.bin": pinned}))
    with pytest.raises(WeightsError, match=f"now another file: its sha256 is {SHA256}, expected 0000"):
        fetch("demo", tmp_path)
    assert site.content_sent() == 0


def test_a_pin_proves_a_download_from_a_server_that_says_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, "plain", sha256=None)
    (tmp_path / "pins.json").write_text(json.dumps({"plain.bin": "0" * 64}))
    with pytest.raises(CorruptedObject):
        fetch("plain", tmp_path)
    assert "plain.bin" not in _names(tmp_path)


# --- without a connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [None, "NSDBENCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_everything_said(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    _change(monkeypatch, "demo", about=3_000_000)
    if variable:
        monkeypatch.setenv(variable, "1")
    how = How(offline=variable is None)
    with pytest.raises(WeightsError, match="no connection is tried") as caught:
        carry_out(plan(["demo", "plain"], tmp_path, how), how)
    assert f"demo.bin (~3 MB): {site.hub.url}/{PAGE}/resolve/main/model.bin" in caught.value.remedy
    assert f"plain.bin (? GB): {site.plain.url}/plain.bin" in caught.value.remedy
    assert "nsdbench weights list --missing --urls" in caught.value.remedy
    assert site.requests == []


def test_offline_what_is_here_is_enough(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plain.bin").write_bytes(CONTENT)
    assert fetch("plain", tmp_path, How(offline=True)) == tmp_path / "plain.bin"


def test_files_carried_over_by_hand_are_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    (status,) = weights.verify(tmp_path, ["demo"])
    assert (status.status, status.verified) == ("ok", "pinned")


# --- the cache of huggingface_hub ---------------------------------------------------------------------------------


def _cache(home: Path, path: str, content: bytes, *, name: str | None = None, commit: str = "d" * 40) -> Path:
    """Lay a file into a cache as huggingface_hub does, and return its content."""
    repo = home / "hub" / "datasets--owner--demo"
    sha1 = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    blob = repo / "blobs" / (name or (hashlib.sha256(content).hexdigest() if len(content) > 1000 else sha1))
    link = repo / "snapshots" / commit / path
    for folder in (blob.parent, link.parent, repo / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    (repo / "refs" / "main").write_text(commit)
    return blob


def test_a_file_in_the_cache_of_the_hub_is_linked_without_a_connection(site: Site, tmp_path: Path) -> None:
    blob = _cache(tmp_path / "hf", "model.bin", CONTENT)
    _cache(tmp_path / "hf", "words.txt", WORDS)
    how = How(offline=True)
    assert carry_out(plan(["demo", "words"], tmp_path / "w", how), how) == []
    assert site.requests == []
    assert (tmp_path / "w" / "demo.bin").samefile(blob)
    recorded = read_json(tmp_path / "w" / "pins.json")
    assert (recorded["demo.bin"]["commit"], recorded["demo.bin"]["hub_sha256"]) == ("d" * 40, SHA256)
    assert recorded["words.txt"]["verified"] == "git sha1"


def test_where_no_link_can_be_made_the_cache_is_copied(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = _cache(tmp_path / "hf", "model.bin", CONTENT)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = fetch("demo", tmp_path / "w")
    assert path.read_bytes() == CONTENT
    assert not path.samefile(blob)
    assert site.requests == []


def test_a_damaged_cache_is_passed_over(site: Site, tmp_path: Path) -> None:
    _cache(tmp_path / "hf", "model.bin", CONTENT[:-1] + b"x", name=SHA256)
    assert fetch("demo", tmp_path / "w").read_bytes() == CONTENT
    assert site.content_sent() == len(CONTENT)


def test_a_cache_that_holds_another_version_than_the_pinned_one_is_passed_over(
    site: Site, tmp_path: Path
) -> None:
    _cache(tmp_path / "hf", "model.bin", b"older" * 1000)
    (tmp_path / "pins.json").write_text(json.dumps({"demo.bin": SHA256}))
    assert fetch("demo", tmp_path).read_bytes() == CONTENT


def test_offline_a_damaged_cache_is_an_error(site: Site, tmp_path: Path) -> None:
    _cache(tmp_path / "hf", "model.bin", CONTENT[:-1] + b"x", name=SHA256)
    with pytest.raises(WeightsError, match="no connection is tried"):
        fetch("demo", tmp_path / "w", How(offline=True))


# --- several folders and processes --------------------------------------------------------------------------------


def test_a_download_goes_to_the_first_writable_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    where = Path(os.pathsep.join([str(tmp_path / "file" / "w"), str(tmp_path / "mine")]))
    assert fetch("demo", where) == tmp_path / "mine" / "demo.bin"
    assert weights.locate("demo", where).path == tmp_path / "mine" / "demo.bin"


def test_without_a_writable_folder_nothing_is_asked(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WeightsError, match="not writable"):
        fetch("demo", tmp_path / "file" / "w")
    assert site.requests == []


def test_a_file_in_a_later_folder_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "plain.bin").write_bytes(CONTENT)
    where = Path(os.pathsep.join([str(tmp_path / "mine"), str(tmp_path / "shared")]))
    assert fetch("plain", where) == tmp_path / "shared" / "plain.bin"
    assert site.requests == []


def test_pins_of_a_later_folder_bind_downloads(site: Site, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "pins.json").write_text(json.dumps({"demo.bin": "0" * 64}))
    where = Path(os.pathsep.join([str(tmp_path / "mine"), str(tmp_path / "shared")]))
    with pytest.raises(WeightsError, match="expected 0000"):
        fetch("demo", where)


PROCESS = """
import sys
from pathlib import Path
from nsdbench.weights import registry, HubFile, Weights
from nsdbench.weights.fetching import fetch
registry.REGISTRY = {"demo": Weights("demo", "demo.bin", HubFile("owner/demo", "model.bin", "dataset"), "MIT", "a demo")}
print(fetch("demo", Path(sys.argv[1])))
"""


def test_two_processes_download_a_file_once(site: Site, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(tmp_path / "demo.bin")] * 2
    assert (tmp_path / "demo.bin").read_bytes() == CONTENT
    assert site.content_sent() == len(CONTENT)


@pytest.mark.parametrize("seed", range(4))
def test_with_faults_at_random_nothing_wrong_is_kept(site: Site, tmp_path: Path, seed: int) -> None:
    site.hub.cdn.fail_at_random(
        0.5, kinds=("drop", "reset", "short", "500", "503", "flip", "long"), seed=seed
    )
    for n in range(4):
        folder = tmp_path / str(n)
        try:
            found = fetch("demo", folder)
        except NsdbenchError:
            assert "demo.bin" not in _names(folder)
        else:
            assert found.read_bytes() == CONTENT
    assert site.hub.cdn.injected
