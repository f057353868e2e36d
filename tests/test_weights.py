"""The registry of weights: entries, location, hashes and pins, downloads from a server of our own."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsdbench import download, weights
from nsdbench.errors import UsageError, WeightsError
from nsdbench.store import read_json

CONTENT = bytes(range(256)) * 12_000  # 3 MiB and a bit: four chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def _entry(**changes: object) -> weights.Weights:
    plain = weights.Weights(
        "demo", "demo.bin", "https://example.org/demo.bin", "MIT", "a demo", sha256=SHA256
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> weights.Weights:
    """The registry holds one file, whose full hash is known."""
    return _register(monkeypatch, _entry())


def _register(monkeypatch: pytest.MonkeyPatch, entry: weights.Weights) -> weights.Weights:
    monkeypatch.setattr(weights, "REGISTRY", {entry.id: entry})
    return entry


def test_ids_and_file_names_are_unique() -> None:
    entries = list(weights.REGISTRY.values())
    assert [entry.id for entry in entries] == list(weights.REGISTRY)
    assert len({entry.filename for entry in entries}) == len(entries)


def test_every_entry_is_published_over_https_with_licence_and_source() -> None:
    for entry in weights.REGISTRY.values():
        assert entry.url.startswith("https://")
        assert entry.licence
        assert entry.source


def test_the_files_are_those_of_the_metric_definitions() -> None:
    names = {id: entry.filename for id, entry in weights.REGISTRY.items() if entry.same_as is None}
    expected = {
        "alexnet-imagenet1k-v1": "alexnet-owt-7be5be79.pth",
        "inception-v3-imagenet1k-v1": "inception_v3_google-0cc3c7bd.pth",
        "efficientnet-b1-imagenet1k-v2": "efficientnet_b1-c27df63c.pth",
        "efficientnet-b1-imagenet1k-v1": "efficientnet_b1_rwightman-bac287d4.pth",
        "clip-vit-l14-openai": "ViT-L-14.pt",
        "swav-resnet50-800ep": "swav_800ep_pretrain.pth.tar",
    }
    assert names.items() >= expected.items()


def test_torchvision_publishes_its_files_at_these_addresses() -> None:
    from torchvision import models

    published = {
        "alexnet-imagenet1k-v1": models.AlexNet_Weights.IMAGENET1K_V1,
        "inception-v3-imagenet1k-v1": models.Inception_V3_Weights.IMAGENET1K_V1,
        "efficientnet-b1-imagenet1k-v2": models.EfficientNet_B1_Weights.IMAGENET1K_V2,
        "efficientnet-b1-imagenet1k-v1": models.EfficientNet_B1_Weights.IMAGENET1K_V1,
    }
    for id, entry in published.items():
        assert weights.REGISTRY[id].url == entry.url


def test_hash_prefixes_are_those_in_the_file_names() -> None:
    for entry in weights.REGISTRY.values():
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", entry.filename)
        if in_name:
            assert in_name[1] in entry.sha256_prefixes


def test_openai_puts_the_hash_of_clip_into_its_address() -> None:
    entry = weights.REGISTRY["clip-vit-l14-openai"]
    assert entry.sha256 == "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    assert f"/{entry.sha256}/" in entry.url


def test_openai_puts_the_hash_of_the_small_clip_into_its_address() -> None:
    entry = weights.REGISTRY["clip-vit-b32-openai"]
    assert entry.sha256 is not None
    assert f"/{entry.sha256}/" in entry.url


def test_mindeye_is_published_in_these_two_data_sets() -> None:
    hub = "https://huggingface.co/datasets/pscotti/"
    models = f"{hub}naturalscenesdataset/resolve/main/mindeye_models"
    logs = f"{hub}mindeyev2/resolve/main/train_logs"
    published = {
        "mindeye1-subj01": f"{models}/prior_257_final_subj01_bimixco_softclip_byol/last.pth",
        "mindeye1-lowlevel-subj01": f"{models}/autoencoder_subj01_4x_locont_no_reconst/epoch120.pth",
        "mindeye2-subj07-40sess": f"{logs}/final_subj07_pretrained_40sess_24bs/last.pth",
        "mindeye2-subj02-1sess": f"{logs}/final_subj02_pretrained_1sess_24bs/last.pth",
        "mindeye2-multisubject-without-subj05": f"{logs}/final_multisubject_subj05/last.pth",
        "mindeye2-multisubject-without-subj01-1024": f"{logs}/multisubject_subj01_1024hid_nolow_300ep/last.pth",
        "mindeye2-unclip6": f"{hub}mindeyev2/resolve/main/unclip6_epoch0_step110000.ckpt",
    }
    assert {id: weights.REGISTRY[id].url for id in published} == published


def test_weights_that_were_trained_on_nsd_say_whose_terms_apply() -> None:
    trained = [
        entry
        for id, entry in weights.REGISTRY.items()
        if id.startswith(("mindeye1-", "mindeye2-")) and "subj" in id
    ]
    assert len(trained) == 15
    assert all("NSD, whose terms apply" in entry.licence for entry in trained)


def test_metrics_are_translated_into_the_weights_they_need() -> None:
    assert weights.for_metrics(["clip", "alexnet2", "alexnet5"]) == (
        "alexnet-imagenet1k-v1",
        "clip-vit-l14-openai",
    )
    assert weights.for_metrics(["pixcorr", "ssim"]) == ()


def test_every_metric_with_a_network_has_weights_to_fetch() -> None:
    from nsdbench.metrics.nets import NETS
    from nsdbench.metrics.registry import METRICS

    for name, metric in METRICS.items():
        ids = {
            NETS[net].weights[""] for net in metric.nets if not net.startswith("mini_")
        }  # those come along
        assert set(weights.for_metrics([name])) == ids | set(metric.weights)


def test_the_light_table_of_weights_is_that_of_the_networks() -> None:
    from nsdbench.metrics.nets import NETS
    from nsdbench.metrics.registry import NET_WEIGHTS

    assert {name: dict(net.weights) for name, net in NETS.items()} == {
        k: dict(v) for k, v in NET_WEIGHTS.items()
    }


def test_all_missing_files_are_named_at_once_with_one_command(tmp_path: Path) -> None:
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"there")
    ids = ["alexnet-imagenet1k-v1", "clip-vit-l14-openai", "swav-resnet50-800ep"]
    with pytest.raises(WeightsError) as caught:
        weights.require(ids, tmp_path)
    assert "ViT-L-14.pt, swav_800ep_pretrain.pth.tar" in caught.value.message
    assert "alexnet" not in str(caught.value)
    command = f"nsdbench weights fetch clip-vit-l14-openai swav-resnet50-800ep --weights-dir {tmp_path}"
    assert command in caught.value.remedy


def test_a_repackaged_file_counts_as_present(tmp_path: Path) -> None:
    (tmp_path / "clip-vit-l14-openai.transformers.safetensors").write_bytes(b"there")
    weights.require(["clip-vit-l14-openai"], tmp_path)


def test_the_folder_is_the_option_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSDBENCH_CACHE", str(tmp_path / "cache"))
    assert weights.folder() == tmp_path / "cache" / "weights"
    monkeypatch.setenv("NSDBENCH_WEIGHTS", str(tmp_path / "shelf"))
    assert weights.folder() == tmp_path / "shelf"
    assert weights.folder(tmp_path / "given") == tmp_path / "given"


def test_an_unknown_id_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no weights 'clip'") as caught:
        weights.entry("clip")
    assert "clip-vit-l14-openai" in caught.value.remedy


def test_a_file_with_the_published_hash_is_located(tmp_path: Path, demo: weights.Weights) -> None:
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    assert weights.locate("demo", tmp_path) == weights.Located(demo, tmp_path / "demo.bin", SHA256)


def test_missing_weights_say_file_folder_address_and_command(tmp_path: Path, demo: weights.Weights) -> None:
    with pytest.raises(WeightsError) as caught:
        weights.locate("demo", tmp_path)
    assert "demo.bin" in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert demo.url in caught.value.remedy
    assert "nsdbench weights fetch demo" in caught.value.remedy


@pytest.mark.usefixtures("demo")
def test_a_file_with_another_hash_is_refused_with_both_hashes(tmp_path: Path) -> None:
    (tmp_path / "demo.bin").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"demo.bin is not the right file") as caught:
        weights.locate("demo", tmp_path)
    assert SHA256 in caught.value.message
    assert hashlib.sha256(b"something else").hexdigest() in caught.value.message


def test_a_hash_must_start_with_the_digits_in_the_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    _register(monkeypatch, _entry(sha256=None, sha256_prefixes=(SHA256[:8],)))
    assert weights.locate("demo", tmp_path).sha256 == SHA256
    _register(monkeypatch, _entry(sha256=None, sha256_prefixes=("00000000", "11111111")))
    with pytest.raises(WeightsError, match=r"has 00000000\.\.\. or 11111111\.\.\."):
        weights.locate("demo", tmp_path)


def test_a_published_md5_is_compared_before_the_file_is_pinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = hashlib.md5(CONTENT).hexdigest()
    _register(monkeypatch, _entry(sha256=None, md5="0" * 32))
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=f"its md5 is {right}, the published file has 0000"):
        weights.locate("demo", tmp_path)
    assert not (tmp_path / "pins.json").exists()
    _register(monkeypatch, _entry(sha256=None, md5=right))
    assert weights.locate("demo", tmp_path).sha256 == SHA256
    assert read_json(tmp_path / "pins.json") == {"demo.bin": SHA256}
    assert [status.detail.split(", ")[1] for status in weights.verify(tmp_path)] == ["as published"]


def test_weights_without_a_published_hash_are_pinned_on_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(monkeypatch, _entry(sha256=None))
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    weights.locate("demo", tmp_path)
    assert read_json(tmp_path / "pins.json") == {"demo.bin": SHA256}
    (tmp_path / "demo.bin").write_bytes(b"a later and different file")
    with pytest.raises(WeightsError, match=r"pins.json holds " + SHA256):
        weights.locate("demo", tmp_path)


@pytest.mark.usefixtures("demo")
def test_a_file_is_hashed_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = weights.sha256_file
    monkeypatch.setattr(weights, "sha256_file", lambda path: hashed.append(path) or real(path))
    path = tmp_path / "demo.bin"
    path.write_bytes(CONTENT)
    weights.locate("demo", tmp_path)
    weights.locate("demo", tmp_path)
    assert len(hashed) == 1
    os.utime(path, ns=(1, 1))
    weights.locate("demo", tmp_path)
    assert len(hashed) == 2


@pytest.mark.usefixtures("demo")
def test_a_change_of_the_content_is_noticed_despite_the_remembered_hash(tmp_path: Path) -> None:
    path = tmp_path / "demo.bin"
    path.write_bytes(CONTENT)
    weights.locate("demo", tmp_path)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(WeightsError, match="not the right file"):
        weights.locate("demo", tmp_path)


@pytest.mark.usefixtures("demo")
def test_a_folder_that_cannot_be_written_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo.bin").write_bytes(CONTENT)

    def refuse(path: Path, value: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(weights, "write_json", refuse)
    assert weights.locate("demo", tmp_path).sha256 == SHA256


def test_a_repackaged_file_stands_in_for_the_absent_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, other = _entry(), _entry(id="demo-2", filename="demo.safetensors", sha256=None, same_as="demo")
    monkeypatch.setattr(weights, "REGISTRY", {"demo": original, "demo-2": other})
    (tmp_path / "demo.safetensors").write_bytes(b"repackaged")
    assert weights.locate("demo", tmp_path).weights == other
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    assert weights.locate("demo", tmp_path).weights == original


def test_verify_tells_good_bad_and_missing_files_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [_entry(id=name, filename=name) for name in ("good", "bad", "missing")]
    monkeypatch.setattr(weights, "REGISTRY", {entry.id: entry for entry in entries})
    (tmp_path / "good").write_bytes(CONTENT)
    (tmp_path / "bad").write_bytes(b"?")
    found = {status.id: status for status in weights.verify(tmp_path)}
    assert {id: status.status for id, status in found.items()} == {
        "good": "ok",
        "bad": "bad",
        "missing": "missing",
    }
    assert found["good"].sha256 == SHA256
    assert "not the right file" in found["bad"].detail


def test_verify_asks_for_the_original_or_a_repackaged_file_not_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, other = _entry(), _entry(id="demo-2", filename="demo.safetensors", sha256=None, same_as="demo")
    monkeypatch.setattr(weights, "REGISTRY", {"demo": original, "demo-2": other})
    assert [(status.id, status.status) for status in weights.verify(tmp_path)] == [("demo", "missing")]
    (tmp_path / "demo.safetensors").write_bytes(b"repackaged")
    assert [(status.id, status.status) for status in weights.verify(tmp_path)] == [("demo-2", "ok")]


# --- downloads -------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves one content; can break off, refuse ranges, or answer with errors."""

    content = CONTENT
    breaks: list[int]  # how many bytes of the next answers are sent
    ranges = True
    errors: list[int]
    requests: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with the content of the server, from the start of the requested range on."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.errors:
            self.send_error(self.server.errors.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        total = len(self.server.content)
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        limit = self.server.breaks.pop(0) if self.server.breaks else None
        self.wfile.write(self.server.content[start:][:limit])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server; retries do not wait."""
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    running = Server(("127.0.0.1", 0), Handler)
    running.errors, running.requests, running.breaks = [], [], []
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def _fetch(server: Server, folder: Path) -> Path:
    return weights.fetch("demo", folder, base_url=f"http://127.0.0.1:{server.server_port}/")


@pytest.mark.usefixtures("demo")
def test_fetch_downloads_the_file_and_leaves_nothing_else(tmp_path: Path, server: Server) -> None:
    assert _fetch(server, tmp_path / "new").read_bytes() == CONTENT
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".hashes.json", "demo.bin"]


@pytest.mark.usefixtures("demo")
def test_fetch_keeps_a_file_that_is_already_right(tmp_path: Path, server: Server) -> None:
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    _fetch(server, tmp_path)
    assert server.requests == []


@pytest.mark.usefixtures("demo")
def test_a_broken_connection_is_resumed_where_it_ended(tmp_path: Path, server: Server) -> None:
    server.breaks = [1_000_000]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-"]


@pytest.mark.usefixtures("demo")
def test_a_connection_may_break_as_often_as_it_brings_something_new(tmp_path: Path, server: Server) -> None:
    server.breaks = [1000] * (2 * download.FRUITLESS_ATTEMPTS)
    assert _fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.usefixtures("demo")
def test_an_earlier_process_is_continued(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".demo.bin.part").write_bytes(CONTENT[:500])
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=500-"]


@pytest.mark.usefixtures("demo")
def test_a_download_that_was_whole_but_not_named_is_finished(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".demo.bin.part").write_bytes(CONTENT)
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.usefixtures("demo")
def test_a_partial_file_longer_than_the_original_is_dropped(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".demo.bin.part").write_bytes(CONTENT + b"more")
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] is None


@pytest.mark.usefixtures("demo")
def test_a_server_without_ranges_starts_over(tmp_path: Path, server: Server) -> None:
    server.ranges = False
    (tmp_path / ".demo.bin.part").write_bytes(b"x" * 500)
    assert _fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.usefixtures("demo")
def test_a_file_with_the_wrong_hash_is_refused_and_removed(tmp_path: Path, server: Server) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match="delivered another file"):
        _fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_wrong_size_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(monkeypatch, _entry(size=5))
    with pytest.raises(WeightsError, match="bytes instead of 5"):
        _fetch(server, tmp_path)


@pytest.mark.usefixtures("demo")
def test_a_missing_page_is_reported_at_once(tmp_path: Path, server: Server) -> None:
    server.errors = [404]
    with pytest.raises(WeightsError, match="HTTP 404"):
        _fetch(server, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("demo")
def test_a_busy_server_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.errors = [503, 429]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.usefixtures("demo")
def test_after_several_fruitless_attempts_what_arrived_is_kept(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".demo.bin.part").write_bytes(CONTENT[:500])
    server.errors = [503] * 10
    with pytest.raises(WeightsError, match="500 bytes have arrived"):
        _fetch(server, tmp_path)
    assert len(server.requests) == download.FRUITLESS_ATTEMPTS
    assert (tmp_path / ".demo.bin.part").read_bytes() == CONTENT[:500]


@pytest.mark.usefixtures("demo")
def test_an_unreachable_server_is_a_named_error(tmp_path: Path, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError, match="could not be downloaded"):
        _fetch(server, tmp_path)


def test_without_any_published_hash_halves_are_never_joined(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(monkeypatch, _entry(sha256=None))
    (tmp_path / ".demo.bin.part").write_bytes(b"x" * 500)
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert read_json(tmp_path / "pins.json") == {"demo.bin": SHA256}


def test_a_download_that_differs_from_the_pin_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(monkeypatch, _entry(sha256=None))
    _fetch(server, tmp_path).unlink()
    server.content = b"another file"
    with pytest.raises(WeightsError, match="delivered another file"):
        _fetch(server, tmp_path)
    assert not (tmp_path / "demo.bin").exists()


@pytest.mark.usefixtures("demo")
def test_addresses_that_are_not_web_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a web address"):
        weights.fetch("demo", tmp_path, base_url="file:///etc")


@pytest.mark.usefixtures("demo")
def test_progress_counts_mebibytes(tmp_path: Path, server: Server) -> None:
    seen: list[tuple[str, int | None, int]] = []

    class Recorder:
        def track(self, items, label, total=None):  # type: ignore[no-untyped-def]
            listed = list(items)
            seen.append((label, total, len(listed)))
            yield from listed

    weights.fetch("demo", tmp_path, progress=Recorder(), base_url=f"http://127.0.0.1:{server.server_port}")
    assert seen == [("demo.bin [MiB]", 3, 3)]
