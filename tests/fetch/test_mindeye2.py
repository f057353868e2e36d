"""The route over MindEye2's repository on the hub, beside small files from the bucket."""

from __future__ import annotations

import hashlib
import json

import pytest
from local_servers import HubServer

from nsdbench.data.fetched import read_record
from nsdbench.errors import CorruptedObject, MissingObject, RefusedByServer, UsageError
from nsdbench.fetch import routes as routes_module

REPO = "datasets/pscotti/mindeyev2"
FILES = {
    "betas_all_subj01_fp32_renorm.hdf5": bytes(range(256)) * 400,
    "coco_images_224_float16.hdf5": b"images" * 20_000,
    "COCO_73k_subj_indices.hdf5": b"indices" * 1000,
    "shared1000.npy": b"mask" * 100,  # small enough to be stored by git itself
}


@pytest.fixture
def hub():
    with HubServer({REPO: FILES, "datasets/pscotti/naturalscenesdataset": {}}) as server:
        yield server


@pytest.fixture
def real(bucket):
    """The bucket of the real NSD: without a marker."""
    bucket.remove("nsdbench-dataset.json")
    return bucket


@pytest.fixture
def prepared(fetch, real):
    return lambda *more: fetch("--for", "train", "--source", "mindeye2", "--subject", 1, "--json", *more)


def test_prepared_files_arrive_with_the_hash_that_the_hub_states(prepared, tmp_path, real, hub) -> None:
    result = prepared()
    assert result.exception is None, result.exception
    record = read_record(tmp_path / "nsd")
    for name, content in FILES.items():
        assert (tmp_path / "nsd/mindeyev2" / name).read_bytes() == content
        assert record[f"mindeyev2/{name}"].sha256 == hashlib.sha256(content).hexdigest()
    assert record["mindeyev2/betas_all_subj01_fp32_renorm.hdf5"].verified == "sha256"
    assert hub.commit[REPO] in record["mindeyev2/betas_all_subj01_fp32_renorm.hdf5"].url
    assert "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz" in record
    assert not any("betas_session" in key for key in real.served)


def test_a_second_time_nothing_is_left_whatever_the_source_is_called(prepared, fetch) -> None:
    prepared()
    for again in (prepared(), fetch("--for", "train", "--subject", 1, "--json")):
        assert json.loads(again.stdout)["bytes_to_fetch"] == 0


def test_the_plan_states_the_sizes_of_the_hub(prepared) -> None:
    document = json.loads(prepared("--plan").stdout)
    sizes = {entry["file"]: entry["bytes"] for entry in document["files"]}
    assert {sizes[f"mindeyev2/{name}"] for name in FILES} == {len(content) for content in FILES.values()}
    assert document["exact"]


def test_a_flipped_byte_is_noticed(prepared, hub, tmp_path) -> None:
    key = f"{REPO}/coco_images_224_float16.hdf5"
    hub.cdn.fail(key, "flip", always=True)
    assert isinstance(prepared().exception, CorruptedObject)
    hub.cdn.behave()
    assert prepared().exception is None
    assert (tmp_path / "nsd/mindeyev2/coco_images_224_float16.hdf5").read_bytes() == FILES[
        key.rpartition("/")[2]
    ]


def test_a_repository_with_terms_of_its_own_says_what_to_do(prepared, hub, real) -> None:
    hub.gated[REPO] = {"hf_right"}
    error = prepared().exception
    assert isinstance(error, RefusedByServer)
    assert "pscotti/mindeyev2" in f"{error.message} {error.remedy}" and "hf auth login" in error.remedy
    assert not any("betas" in key for key in real.served)


def test_the_token_opens_it_and_goes_to_the_hub_alone(prepared, hub, real, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.gated[REPO] = {"hf_right"}
    assert prepared().exception is None
    assert hub.saw_authorization and not hub.cdn.saw_authorization and not real.saw_authorization


def test_a_file_that_is_not_there_is_named(prepared, hub) -> None:
    hub.cdn.remove(f"{REPO}/betas_all_subj01_fp32_renorm.hdf5")
    error = prepared().exception
    assert isinstance(error, MissingObject) and "betas_all_subj01_fp32_renorm.hdf5" in error.message


@pytest.mark.parametrize("options", [["--beta-version", "b2"]])
def test_other_preparations_are_refused(prepared, options, hub) -> None:
    assert "cannot be made from them" in str(prepared(*options).exception)


def test_prepared_data_of_the_real_nsd_never_go_into_a_generated_data_set(fetch) -> None:
    result = fetch("--for", "train", "--source", "mindeye2", "--subject", 1)
    assert isinstance(result.exception, UsageError) and "different data sets" in str(result.exception)


def test_captions_come_from_the_hub_on_request(fetch, hub, real, tmp_path) -> None:
    hub.put_file("datasets/pscotti/naturalscenesdataset", "COCO_73k_annots_curated.npy", b"text" * 999)
    assert fetch("--for", "captions", "--subject", 1).exception is None
    assert (tmp_path / "nsd/COCO_73k_annots_curated.npy").stat().st_size == 4 * 999


def test_no_token_is_sent_where_there_is_none(monkeypatch) -> None:
    monkeypatch.setattr(routes_module, "token", lambda: None)
    with routes_module.open_routes("http://h", None) as routes:
        assert "Authorization" not in routes.hub.client.headers
