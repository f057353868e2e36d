"""The registry of weights: entries, what uses them, location in one folder or several, hashes and pins."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nsdbench import weights
from nsdbench.errors import UsageError, WeightsError
from nsdbench.store import read_json
from nsdbench.weights import records, registry, shelves

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
    monkeypatch.setattr(registry, "REGISTRY", {entry.id: entry})
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
    assert [status.verified for status in weights.verify(tmp_path)] == ["md5 published"]


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
    real = records.sha256_file
    monkeypatch.setattr(records, "sha256_file", lambda path: hashed.append(path) or real(path))
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

    monkeypatch.setattr(records, "write_json", refuse)
    assert weights.locate("demo", tmp_path).sha256 == SHA256


def test_a_repackaged_file_stands_in_for_the_absent_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, other = _entry(), _entry(id="demo-2", filename="demo.safetensors", sha256=None, same_as="demo")
    monkeypatch.setattr(registry, "REGISTRY", {"demo": original, "demo-2": other})
    (tmp_path / "demo.safetensors").write_bytes(b"repackaged")
    assert weights.locate("demo", tmp_path).weights == other
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    assert weights.locate("demo", tmp_path).weights == original


def test_verify_tells_good_bad_and_missing_files_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [_entry(id=name, filename=name) for name in ("good", "bad", "missing")]
    monkeypatch.setattr(registry, "REGISTRY", {entry.id: entry for entry in entries})
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
    monkeypatch.setattr(registry, "REGISTRY", {"demo": original, "demo-2": other})
    assert [(status.id, status.status) for status in weights.verify(tmp_path)] == [("demo", "missing")]
    (tmp_path / "demo.safetensors").write_bytes(b"repackaged")
    assert [(status.id, status.status) for status in weights.verify(tmp_path)] == [("demo-2", "ok")]


# --- sizes, and what comes with nsdbench --------------------------------------------------------------------------


def _listing(name: str) -> int:
    """Return the number of parameters in a listing of a published architecture."""
    shared = Path(os.environ.get("NSDBENCH_SHARED", Path(__file__).parents[2] / "shared"))
    path = shared / "data" / "state_dicts" / f"{name}.json"
    if not path.exists():
        pytest.skip("no listings of architectures here (NSDBENCH_SHARED)")
    return sum(math.prod(shape) for shape in json.loads(path.read_text()).values())


@pytest.mark.parametrize(
    ("id", "listing"),
    [
        ("mindeye1-subj01", "mindeye1_prior_257_final_subj01_bimixco_softclip_byol"),
        ("mindeye1-lowlevel-subj01", "mindeye1_autoencoder_subj01_4x_locont_no_reconst__diffusers013_names"),
        *(
            (f"mindeye2-subj0{n}-40sess", f"mindeye2_final_subj0{n}_pretrained_40sess_24bs")
            for n in (1, 2, 5, 7)
        ),
        *(
            (f"mindeye2-multisubject-without-subj0{n}", f"mindeye2_final_multisubject_subj0{n}")
            for n in (1, 2, 5, 7)
        ),
        ("mindeye2-unclip6", "mindeye2_unclip6_sgm_engine"),
        ("mindeye2-caption-converter", "mindeye2_clip_convert_bigG_to_L_epoch8"),
        ("sd-image-variations-vae", "sd_image_var_autoenc__diffusers013_names"),
        ("vdvae-imagenet64-ema", "vdvae_imagenet64"),
        ("vgg19-caffe", "bdpy_vgg19"),
        ("versatile-diffusion-image-unet", "versatile_diffusion_image_unet_diffusers"),
        ("versatile-diffusion-text-unet", "versatile_diffusion_text_unet_diffusers"),
        ("versatile-diffusion-vae", "versatile_diffusion_vae_diffusers"),
    ],
)
def test_sizes_follow_from_the_listed_architectures(id: str, listing: str) -> None:
    assert weights.REGISTRY[id].about == 4 * _listing(listing)


def test_sizes_of_torchvision_are_the_documented_ones() -> None:
    from torchvision import models

    published = {
        "alexnet-imagenet1k-v1": models.AlexNet_Weights.IMAGENET1K_V1,
        "inception-v3-imagenet1k-v1": models.Inception_V3_Weights.IMAGENET1K_V1,
        "efficientnet-b1-imagenet1k-v2": models.EfficientNet_B1_Weights.IMAGENET1K_V2,
        "efficientnet-b1-imagenet1k-v1": models.EfficientNet_B1_Weights.IMAGENET1K_V1,
    }
    for id, entry in published.items():
        about = weights.REGISTRY[id].about
        assert about is not None
        assert round(about / 2**20, 3) == entry.meta["_file_size"]


def test_every_entry_says_how_large_it_is() -> None:
    for entry in (*weights.REGISTRY.values(), *weights.SHIPPED.values()):
        assert entry.n_bytes, entry.id
        assert entry.size is None or entry.about is None
        assert not entry.at_least or entry.about


def test_what_comes_with_nsdbench_is_listed_as_it_is() -> None:
    for entry in weights.SHIPPED.values():
        content = weights.shipped_path(entry).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)
    files = {
        p.stem for room in ("metrics", "adapters") for p in weights.shipped_folder(room).glob("*.safetensors")
    }
    assert files == weights.SHIPPED.keys()


def test_files_on_the_hub_have_the_addresses_that_the_hub_gives_them() -> None:
    from huggingface_hub import hf_hub_url

    on_hub = [entry for entry in weights.REGISTRY.values() if "huggingface.co" in entry.url]
    assert len(on_hub) > 20
    for entry in on_hub:
        file = entry.hub
        assert file is not None
        endpoint = "https://huggingface.co"
        assert entry.url == hf_hub_url(file.repo, file.path, repo_type=file.kind, endpoint=endpoint)


# --- who uses them ------------------------------------------------------------------------------------------------


def test_the_light_table_of_models_is_that_of_their_classes() -> None:
    from nsdbench.adapters import registry as adapters
    from nsdbench.weights.uses import MODELS

    classes = {name: adapters.load(name) for name in adapters.ADAPTERS}
    declared = {
        name: {preset: set(ids) for preset, ids in found.requires.items() if ids}
        for name, found in classes.items()
        if any(found.requires.values())
    }
    assert {name: {p: set(ids) for p, ids in presets.items()} for name, presets in MODELS.items()} == declared


@pytest.mark.parametrize(("model", "subjects"), [("mindeye1", (1,)), ("mindeye2", (1, 2, 5, 7))])
def test_the_light_table_of_checkpoints_is_that_of_their_classes(
    model: str, subjects: tuple[int, ...]
) -> None:
    from nsdbench.adapters import registry as adapters

    found = adapters.load(model)
    for subject in subjects:
        own = set(found.required("published", subject)) - set(found.requires["published"])
        assert own
        for id in own:
            assert f"{model}-published of subject {subject}" in weights.models_with(id)


def test_every_weight_of_every_model_is_registered_or_comes_with_nsdbench() -> None:
    from nsdbench.adapters import registry as adapters

    needed = {id for name in adapters.ADAPTERS for ids in adapters.load(name).requires.values() for id in ids}
    assert needed <= weights.REGISTRY.keys() | weights.SHIPPED.keys()


def test_every_entry_has_a_use_or_stands_in_for_one_that_has() -> None:
    spare = ("1sess", "-1024")  # MindEye2 trained otherwise, which `convert` and the API can read
    for entry in (*weights.REGISTRY.values(), *weights.SHIPPED.values()):
        used = entry.used_by or weights.models_with(entry.id) or entry.same_as
        assert used or entry.id.endswith(spare), entry.id


def test_a_list_needs_no_heavy_import() -> None:
    code = (
        "import sys; from nsdbench import weights; weights.listed(weights.folder()); "
        "print(sorted({'torch', 'requests', 'huggingface_hub'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- several folders ----------------------------------------------------------------------------------------------


def _path(*folders: Path) -> Path:
    return Path(os.pathsep.join(map(str, folders)))


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that only an administrator can write."""
    folder = tmp_path / "shared"
    folder.mkdir()
    may, write = os.access, records.write_json

    def access(path: Path, mode: int, **options: bool) -> bool:
        return not (folder in (path, *Path(path).parents) and mode & os.W_OK) and may(path, mode, **options)

    def refuse(path: Path, value: object) -> None:
        if path.parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        write(path, value)

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(records, "write_json", refuse)
    return folder


def test_several_folders_are_named_as_in_path(tmp_path: Path) -> None:
    assert weights.folders(_path(tmp_path / "a", tmp_path / "b")) == (tmp_path / "a", tmp_path / "b")
    assert weights.folders(Path("~/a")) == (Path.home() / "a",)


def test_a_folder_with_a_colon_in_its_name_is_one_folder(tmp_path: Path) -> None:
    odd = tmp_path / f"odd{os.pathsep}name"
    odd.mkdir()
    assert weights.folders(odd) == (odd,)


def test_folders_are_looked_through_in_order(tmp_path: Path, demo: weights.Weights) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (second / "demo.bin").write_bytes(CONTENT)
    assert weights.locate("demo", _path(first, second)).path == second / "demo.bin"
    (first / "demo.bin").write_bytes(CONTENT)
    assert weights.locate("demo", _path(first, second)).path == first / "demo.bin"


@pytest.mark.usefixtures("demo")
def test_the_first_writable_folder_is_added_to(tmp_path: Path, shared: Path) -> None:
    mine = tmp_path / "mine" / "weights"
    assert shelves.writable_folder(_path(shared, mine)) == mine
    assert shelves.writable_folder(_path(mine, shared)) == mine
    with pytest.raises(WeightsError, match="not writable") as caught:
        shelves.writable_folder(shared)
    assert f"NSDBENCH_WEIGHTS=/my/weights{os.pathsep}{shared}" in caught.value.remedy


def test_a_place_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert not shelves.is_writable(tmp_path / "file" / "weights")


def test_a_file_in_a_shared_folder_is_pinned_in_a_folder_of_ones_own(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(monkeypatch, _entry(sha256=None))
    mine = tmp_path / "mine"
    (shared / "demo.bin").write_bytes(CONTENT)
    assert weights.locate("demo", _path(mine, shared)).path == shared / "demo.bin"
    assert read_json(mine / "pins.json") == {"demo.bin": SHA256}
    (shared / "demo.bin").write_bytes(b"the administrator took another one")
    with pytest.raises(WeightsError, match=f"but {mine / 'pins.json'} holds {SHA256}"):
        weights.locate("demo", _path(mine, shared))


def test_pins_of_an_administrator_count(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(monkeypatch, _entry(sha256=None))
    (shared / "demo.bin").write_bytes(CONTENT)
    (shared / "pins.json").write_text(json.dumps({"demo.bin": {"sha256": "0" * 64, "commit": "abc"}}))
    with pytest.raises(WeightsError, match=f"but {shared / 'pins.json'} holds 0000"):
        weights.locate("demo", _path(tmp_path / "mine", shared))


@pytest.mark.usefixtures("demo")
def test_a_file_in_a_shared_folder_is_hashed_once(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / "demo.bin").write_bytes(CONTENT)
    where = _path(tmp_path / "mine", shared)
    weights.locate("demo", where)
    monkeypatch.setattr(records, "sha256_file", lambda path: pytest.fail("hashed again"))
    assert weights.locate("demo", where).sha256 == SHA256


@pytest.mark.usefixtures("demo")
def test_verify_looks_at_every_copy(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, content in ((first, CONTENT), (second, b"?")):
        folder.mkdir()
        (folder / "demo.bin").write_bytes(content)
    found = weights.verify(_path(first, second))
    assert [(status.path, status.status) for status in found] == [
        (first / "demo.bin", "ok"),
        (second / "demo.bin", "bad"),
    ]


# --- records ------------------------------------------------------------------------------------------------------


def _put(folder: Path, name: str) -> None:
    records.pin(folder, name, records.Pin("0" * 64))


def test_pins_written_by_many_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: _put(tmp_path, f"{n}.bin"), range(40)))
    assert len(read_json(tmp_path / "pins.json")) == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a table"),
        ('{"demo.bin": {"commit": "abc"}}', "has no sha256"),
        ('{"demo.bin": "abc"}', "has no sha256"),  # a download would only fail at its end
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
@pytest.mark.usefixtures("demo")
def test_pins_that_cannot_be_understood_are_a_named_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    (tmp_path / "pins.json").write_text(content)
    with pytest.raises(WeightsError, match=message) as caught:
        weights.locate("demo", tmp_path)
    assert "Delete" in caught.value.remedy


@pytest.mark.parametrize("entry", ["x", {}, {"sha256": None}])
@pytest.mark.usefixtures("demo")
def test_a_remembered_hash_that_is_none_is_computed_again(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "demo.bin"
    path.write_bytes(CONTENT)
    stamp = {"stamp": [path.stat().st_size, path.stat().st_mtime_ns]}
    known = {**stamp, **entry} if isinstance(entry, dict) else entry
    (tmp_path / ".hashes.json").write_text(json.dumps({"demo.bin": known}))
    assert weights.locate("demo", tmp_path).sha256 == SHA256


def test_a_file_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [_entry(id=name, filename=name) for name in ("closed", "good")]
    monkeypatch.setattr(registry, "REGISTRY", {entry.id: entry for entry in entries})
    for entry in entries:
        (tmp_path / entry.filename).write_bytes(CONTENT)
    real = records.sha256_file

    def read(path: Path) -> str:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(records, "sha256_file", read)
    closed, good = weights.verify(tmp_path)
    assert (closed.status, good.status) == ("bad", "ok")
    assert "Permission denied" in closed.detail


# --- what is listed -----------------------------------------------------------------------------------------------


def test_a_list_tells_estimates_from_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, _entry(about=5_000))
    (row,) = weights.listed(tmp_path, ["demo"])
    assert (row.state, row.size, row.exact, row.path) == ("missing", 5_000, False, None)
    (tmp_path / "demo.bin").write_bytes(CONTENT)
    (row,) = weights.listed(tmp_path, ["demo"])
    assert (row.state, row.size, row.exact, row.path) == (
        "present",
        len(CONTENT),
        True,
        tmp_path / "demo.bin",
    )


@pytest.mark.parametrize(
    ("changes", "pinned", "expected"),
    [
        ({}, None, "sha256 published"),
        ({"sha256": None, "md5": "0" * 32}, None, "md5 published"),
        ({"sha256": None, "sha256_prefixes": ("abcd",)}, None, "sha256 digits published"),
        ({"sha256": None}, None, "not pinned yet"),
        ({"sha256": None}, SHA256, "pinned"),
        ({"sha256": None}, {"sha256": SHA256, "hub_sha256": SHA256}, "sha256 from hub"),
        ({"sha256": None}, {"sha256": SHA256, "hub_sha256": "0" * 64}, "pinned"),
    ],
)
def test_a_list_says_what_proves_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], pinned: object, expected: str
) -> None:
    _register(monkeypatch, _entry(**changes))
    if pinned:
        (tmp_path / "pins.json").write_text(json.dumps({"demo.bin": pinned}))
    (row,) = weights.listed(tmp_path, ["demo"])
    assert row.verified == expected


def test_an_altered_file_of_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsdbench.weights import survey

    assert {status.status for status in weights.verify(tmp_path, list(weights.SHIPPED))} == {"ok"}
    monkeypatch.setattr(survey, "shipped_path", lambda entry: tmp_path / entry.filename)
    (tmp_path / "mini_clip-v1.safetensors").write_bytes(b"?")
    found = weights.verify(tmp_path, ["mini_clip-v1", "mini_swav-v1"])
    assert ["has sha256" in found[0].detail, "is missing" in found[1].detail] == [True, True]
    assert [status.status for status in found] == ["bad", "bad"]


@pytest.mark.parametrize(
    ("n_bytes", "options", "expected"),
    [
        (None, {}, "? GB"),
        (999, {}, "999 B"),
        (231_508, {"exact": False}, "~232 kB"),
        (8_909_184_896, {"exact": False}, "~8.91 GB"),
        (4_014_545_872, {"exact": False, "at_least": True}, ">4.01 GB"),
        (999_999, {}, "1000 kB"),
    ],
)
def test_sizes_in_words(n_bytes: int | None, options: dict[str, bool], expected: str) -> None:
    assert weights.size_text(n_bytes, **options) == expected


def test_the_name_of_a_model_in_place_of_an_id_gets_the_right_hint() -> None:
    with pytest.raises(UsageError) as caught:
        weights.entry("brain-diffuser")
    assert "--model brain_diffuser" in caught.value.remedy
