"""Whole fetches against a server on this machine: complete, interrupted, resumed, damaged, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nsdbench.data import Dataset, verify
from nsdbench.data.fetched import read_record
from nsdbench.errors import (
    CorruptedObject,
    DataError,
    FetchError,
    MissingObject,
    NoRoom,
    RefusedByServer,
    Unreachable,
    UsageError,
)
from nsdbench.fetch.run import _Keeper

BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR/betas_nsdimagery.hdf5"
SESSION = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session02.hdf5"
TABLE = "nsddata/bdata/nsdimagery/nsdimagery_subj01_visA.tsv"
BRAINMASK = "nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz"


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "nsd"


def sound(result) -> dict:
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def test_what_was_fetched_is_the_bucket_byte_for_byte_and_the_loader_takes_it(fetch, built, root) -> None:
    document = sound(fetch("--for", "imagery,train", "--subject", 1, "--json"))
    assert document["ok"] and document["dataset"] == "nsd-synthetic"
    for entry in document["files"]:
        if entry["state"] != "absent":
            assert (root / entry["file"]).read_bytes() == (built.root / entry["file"]).read_bytes()
    data = Dataset.open(root, cache=root.parent / "cache")
    assert (data.id, data.subjects) == ("nsd-synthetic", (1,))
    assert len(data.train(1).stimulus) and len(data.trials(1, "imagery").stimulus) == 18
    assert not [check for check in verify(root) if check.status in ("failed", "warning")]
    assert not [path for path in root.rglob(".*") if "part" in path.name]


def test_only_what_was_asked_for_is_fetched(fetch, root) -> None:
    fetch("--for", "imagery", "--subject", 2)
    assert (root / BETAS.replace("subj01", "subj02")).is_file()
    assert not (root / BETAS).exists() and not (root / "nsddata_stimuli").exists()


def test_the_same_command_again_asks_for_the_marker_and_pair_lists_alone(fetch, bucket) -> None:
    fetch("--subject", 1)
    bucket.log.clear()
    assert sound(fetch("--subject", 1, "--json"))["bytes_to_fetch"] == 0
    assert {Path(key).name for key in bucket.served} == {
        "nsdbench-dataset.json", "A_pair_list.mat", "B_pair_list.mat", "C_pair_list.mat",
        "valid_nsdimagery.nii.gz",  # optional, and asked for again because the server had none
    }  # fmt: skip


def test_every_file_is_recorded_with_hash_and_how_it_was_verified(fetch, root, built) -> None:
    fetch("--subject", 1)
    record = read_record(root)
    assert {file.verified for file in record.values()} == {"etag"}
    assert record[BETAS].fits(root / BETAS)
    assert record[BETAS].size == (built.root / BETAS).stat().st_size


def test_a_server_without_checksums_leaves_files_honestly_unverified(fetch, bucket) -> None:
    for key, thing in list(bucket.things.items()):
        bucket.put(key, thing.content, etag=None)
    result = fetch("--subject", 1)
    assert "unverified (size only)" in result.stdout
    assert "verified by" not in result.stdout


def test_an_interrupted_fetch_continues_without_fetching_twice(
    fetch, bucket, built, root, monkeypatch
) -> None:
    monkeypatch.setattr("nsdbench.transfer.files.RANGE", 2**18)
    bucket.fail(BETAS, *["slow"] * 4)  # arrives
    bucket.fail(BETAS, "503", always=True)
    result = fetch("--subject", 1)
    assert isinstance(result.exception, Unreachable) and BETAS in str(result.exception)
    assert not (root / BETAS).exists()
    arrived = bucket.served[BETAS]
    assert arrived > 0
    bucket.behave()
    planned = sound(fetch("--subject", 1, "--plan", "--json"))
    (entry,) = (entry for entry in planned["files"] if entry["file"] == BETAS)
    assert entry["state"] == "partial"
    assert 0 < entry["bytes_to_fetch"] < entry["bytes"]
    bucket.log.clear()
    sound(fetch("--subject", 1, "--json"))
    assert (root / BETAS).read_bytes() == (built.root / BETAS).read_bytes()
    # one byte more per question about the file
    assert entry["bytes_to_fetch"] <= bucket.served[BETAS] <= entry["bytes_to_fetch"] + 4


def test_one_failing_file_does_not_stop_the_others_and_is_named(fetch, bucket, root) -> None:
    bucket.fail(TABLE, "503", always=True)
    bucket.fail(SESSION, "503", always=True)
    result = fetch("--for", "imagery,train", "--subject", 1)
    assert isinstance(result.exception, Unreachable)
    assert TABLE in result.exception.message and SESSION in result.exception.message
    assert "2 of " in result.exception.message
    assert "same command" in result.exception.remedy
    assert (root / BETAS).is_file() and BETAS in read_record(root)
    assert TABLE not in read_record(root)


def test_a_corrupted_file_is_fetched_once_more(fetch, bucket, built, root) -> None:
    bucket.fail(BETAS, "flip")
    sound(fetch("--subject", 1, "--json"))
    assert (root / BETAS).read_bytes() == (built.root / BETAS).read_bytes()
    assert bucket.served[BETAS] >= 2 * (root / BETAS).stat().st_size


def test_a_file_that_stays_corrupted_is_refused_and_nothing_of_it_kept(fetch, bucket, root) -> None:
    bucket.fail(BETAS, "flip", always=True)
    result = fetch("--subject", 1)
    assert isinstance(result.exception, CorruptedObject)
    assert not [path for path in (root / BETAS).parent.iterdir() if path.stat().st_size]


def test_all_missing_objects_are_named_before_anything_is_fetched(fetch, bucket, root) -> None:
    bucket.remove(TABLE)
    bucket.remove(SESSION)
    result = fetch("--for", "imagery,train", "--subject", 1)
    assert isinstance(result.exception, MissingObject)
    assert TABLE in result.exception.message and SESSION in result.exception.message
    assert not root.exists()


def test_a_missing_optional_object_is_only_noted(fetch, bucket) -> None:
    bucket.remove(BRAINMASK)
    bucket.put("nsddata/experiments/nsdimagery/designmatrixGLMsingle.mat", b"", status=403)
    result = fetch("--subject", 1)
    assert result.exception is None
    assert BRAINMASK in result.stdout and "designmatrixGLMsingle.mat" in result.stdout


def test_a_refused_object_is_an_error(fetch, bucket) -> None:
    bucket.put(BETAS, b"", status=403)
    assert isinstance(fetch("--subject", 1).exception, RefusedByServer)


def test_files_brought_by_other_means_are_checked_and_recorded_and_not_fetched(
    fetch, bucket, built, root
) -> None:
    for key in (BETAS, "nsdbench-dataset.json"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built.root / key, root / key)
    document = sound(fetch("--subject", 1, "--json"))
    assert bucket.served[BETAS] <= 2  # asked about
    assert {entry["file"]: entry for entry in document["files"]}[BETAS]["verified"] == "etag"
    assert read_record(root)[BETAS].fits(root / BETAS)


@pytest.mark.parametrize("damage", ["shorter", "changed"])
def test_a_damaged_file_brought_by_other_means_is_replaced(fetch, built, root, damage: str) -> None:
    content = bytearray((built.root / BETAS).read_bytes())
    (root / BETAS).parent.mkdir(parents=True)
    shutil.copy(built.root / "nsdbench-dataset.json", root)
    content[-1] ^= 1
    (root / BETAS).write_bytes(content[:-1] if damage == "shorter" else content)
    planned = sound(fetch("--subject", 1, "--plan", "--json"))
    state = {entry["file"]: entry["state"] for entry in planned["files"]}[BETAS]
    assert state == {"shorter": "differs", "changed": "unchecked"}[damage]
    sound(fetch("--subject", 1, "--json"))
    assert (root / BETAS).read_bytes() == (built.root / BETAS).read_bytes()


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_fetched(
    fetch, bucket, root, monkeypatch
) -> None:
    usage, small = shutil.disk_usage, type("usage", (), {"free": 10**6})
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: small if root.is_relative_to(path) or path == root else usage(path)
    )
    assert "NOT ENOUGH" in fetch("--subject", 1, "--plan").stdout
    assert isinstance(fetch("--subject", 1).exception, NoRoom)
    assert bucket.served[BETAS] <= 2 and not (root / BETAS).exists()


def test_a_server_that_is_not_there_is_named(fetch, root) -> None:
    result = fetch("--subject", 1, "--endpoint", "http://127.0.0.1:9")
    assert isinstance(result.exception, Unreachable) and "127.0.0.1:9" in str(result.exception)
    assert not root.exists()


# terms


@pytest.mark.parametrize("answer", [None, "no\n", "\n", ""])
def test_without_acceptance_no_server_is_asked_for_anything(fetch, bucket, root, answer) -> None:
    result = fetch("--subject", 1, terms=False, input=answer)
    assert isinstance(result.exception, UsageError)
    assert "naturalscenesdataset.org" in result.stderr
    assert not bucket.log and not root.exists()


@pytest.mark.parametrize(("answer", "accepted"), [("accept\n", True), ("yes\n", False), ("", False)])
def test_the_word_typed_on_a_terminal_accepts_the_terms_once(fetch, monkeypatch, answer, accepted) -> None:
    monkeypatch.setattr("nsdbench.cli.data_fetch._on_terminal", lambda: True)
    result = fetch("--subject", 1, terms=False, input=answer)
    assert isinstance(result.exception, UsageError) is not accepted
    if accepted:
        again = fetch("--subject", 1, terms=False)
        assert again.exception is None and "naturalscenesdataset.org" not in again.stderr


def test_a_plan_needs_no_acceptance_and_writes_nothing(fetch, bucket, root, person) -> None:
    document = sound(fetch("--for", "all", "--subject", 1, "--plan", "--json", terms=False))
    sizes = {entry["file"]: entry["bytes"] for entry in document["files"]}
    assert sizes[BETAS] == bucket.things[BETAS].size
    assert document["exact"] and document["bytes"] == document["bytes_to_fetch"] == sum(sizes.values())
    assert document["bytes_free"] > 0
    assert not root.exists() and not person.exists()


def test_an_offline_plan_asks_nobody_and_marks_sizes_as_expected(fetch, bucket) -> None:
    document = sound(fetch("--offline", "--subject", "1,2,5,7", "--json", terms=False))
    assert not bucket.log
    assert document["dataset"] == "nsd" and not document["exact"]
    betas = [e["bytes"] for e in document["files"] if e["file"].endswith("betas_nsdimagery.hdf5")]
    assert sum(betas) / 2**30 == pytest.approx(3.68, abs=0.01)
    assert "about 1.05 GB" in fetch("--offline", "--subject", 1, terms=False).stdout


def test_a_plan_for_core_trials_compares_both_routes(fetch) -> None:
    result = fetch("--offline", "--for", "train", "--subject", 1, terms=False)
    assert "--source bucket about 83.3" in result.stdout
    assert "--source mindeye2 about 23.8" in result.stdout


# what is chosen


def test_the_default_is_said_and_what_it_is_not_enough_for(fetch) -> None:
    result = fetch("--offline", terms=False)
    assert "--for imagery" in result.stderr and "--for train" in result.stderr


@pytest.mark.parametrize(
    ("options", "purposes"),
    [
        ([], ["imagery"]),
        (["--split", "both"], ["imagery"]),
        (["--split", "all"], ["imagery", "shared1000"]),
        (["--split", "shared1000", "--for", "train"], ["train", "shared1000"]),
        (["--for", "all"], ["imagery", "train", "shared1000"]),
    ],
)
def test_purposes_come_from_for_and_split(fetch, options, purposes) -> None:
    assert sound(fetch("--offline", "--json", *options, terms=False))["purposes"] == purposes


@pytest.mark.parametrize(
    "options", [["--for", "imagry"], ["--split", "seen"], ["--source", "web"], ["--endpoint", "ftp://x"]]
)
def test_what_makes_no_sense_is_refused(fetch, options) -> None:
    assert isinstance(fetch(*options).exception, UsageError)


# two data sets in one directory


def test_the_marker_arrives_before_any_betas(fetch, bucket, root) -> None:
    bucket.fail(BETAS, "503", always=True)
    fetch("--subject", 1)
    assert (root / "nsdbench-dataset.json").is_file()


def test_a_generated_bucket_never_goes_beside_real_files(fetch, root) -> None:
    (root / TABLE).parent.mkdir(parents=True)
    (root / TABLE).touch()
    result = fetch("--subject", 1)
    assert isinstance(result.exception, UsageError) and "must not be mixed" in str(result.exception)


def test_a_bucket_without_a_marker_never_goes_into_a_generated_data_set(fetch, bucket, root) -> None:
    fetch("--subject", 1)
    bucket.remove("nsdbench-dataset.json")
    result = fetch("--subject", 1)
    assert isinstance(result.exception, UsageError) and "must not be mixed" in str(result.exception)


def test_another_generated_data_set_is_refused(fetch, bucket, built, root, tmp_path) -> None:
    fetch("--subject", 1)
    other = tmp_path / "other.json"
    marker = json.loads((built.root / "nsdbench-dataset.json").read_text())
    other.write_text(json.dumps(marker | {"hash": "another"}))
    bucket.put("nsdbench-dataset.json", other)
    assert isinstance(fetch("--subject", 1).exception, UsageError)


@pytest.mark.parametrize("content", ["<html>", "[]", '{"dataset": "nsd"}', '{"dataset": "x"}'])
def test_a_marker_that_is_none_is_a_named_error(fetch, bucket, root, content) -> None:
    bucket.put("nsdbench-dataset.json", content.encode())
    assert isinstance(fetch("--subject", 1).exception, DataError)
    assert not (root / BETAS).exists()


def test_small_files_under_the_names_of_real_betas_are_refused(fetch, bucket, root) -> None:
    """A mirror that lost its marker, or serves truncated files."""
    bucket.remove("nsdbench-dataset.json")
    result = fetch("--subject", 1)
    assert isinstance(result.exception, FetchError)
    assert "betas_nsdimagery.hdf5" in str(result.exception)
    assert not root.exists()


# hashes that others reported


@pytest.mark.parametrize(("verified", "words"), [("etag", "as the server has it"), ("size", "no checksum")])
def test_a_hash_that_others_reported_confirms_or_warns_and_never_refuses(root, verified, words) -> None:
    from nsdbench.transfer import Fetched, Job

    path = root / TABLE
    path.parent.mkdir(parents=True)
    path.write_text("x")
    job, fetched = Job("http://h/x", path), Fetched(path, 1, "ab" * 32, verified, None, False)
    for reported, expected in (("ab" * 32, "sha256"), ("cd" * 32, verified)):
        keeper = _Keeper(root, {TABLE: reported})
        keeper.keep(job, fetched)
        (outcome,) = keeper.outcomes
        assert outcome.verified == expected
        assert (words in outcome.warning) is (expected == verified)


# afterwards


def test_verify_and_info_say_what_became_of_fetched_files(fetch, root) -> None:
    fetch("--subject", 1)
    (root / BRAINMASK).unlink()  # gone is not changed
    checks = {check.check: check for check in verify(root)}
    assert checks["fetched"].status == "ok"
    (root / TABLE).touch()  # another time, same content
    assert {c.check: c for c in verify(root)}["fetched"].status == "ok"
    (root / TABLE).write_text((root / TABLE).read_text() + "\n")
    found = {c.check: c for c in verify(root)}["fetched"]
    assert found.status == "warning" and TABLE in found.message
    sound(fetch("--subject", 1, "--json"))
    assert {c.check: c for c in verify(root)}["fetched"].status == "ok"


def test_a_damaged_record_is_a_named_error(fetch, root) -> None:
    fetch("--subject", 1)
    (root / ".nsdbench-fetched.json").write_text('{"files": {"a": {"b": 1}}}')
    assert isinstance(fetch("--subject", 1).exception, DataError)
