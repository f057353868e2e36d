"""What a server, a record or an environment says is not believed where it would do harm."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scipy.io
from local_servers import S3Server

from nsdbench.data.fetched import read_record
from nsdbench.data.layout import Layout
from nsdbench.data.needs import PREPARED_FOLDER
from nsdbench.errors import DataError, UsageError
from nsdbench.fetch import Request
from nsdbench.fetch.origin import local
from nsdbench.fetch.plan import wanted_files

MARKER = "nsdbench-dataset.json"
RECORD = ".nsdbench-fetched.json"
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR/betas_nsdimagery.hdf5"


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "nsd"


@pytest.mark.parametrize("name", ["../../../../../../../out", "/tmp/out", "a\\b", "a\nb"])
def test_a_name_from_the_server_does_not_lead_out_of_the_directory(
    fetch, bucket, built, tmp_path, name
) -> None:
    path = Layout(built.root).pair_list("A")
    pairs = scipy.io.loadmat(path)["pair_list"]
    pairs[0, 1] = name
    scipy.io.savemat(tmp_path / "pairs.mat", {"pair_list": pairs})
    bucket.put(path.relative_to(built.root).as_posix(), tmp_path / "pairs.mat")
    error = fetch("--subject", 1).exception
    assert isinstance(error, DataError) and "no file name" in error.message


@pytest.mark.parametrize("change", [{"sessions": 10**12}, {"sessions": -1}, {"grid": [float("inf"), 1, 1]}])
def test_a_marker_with_impossible_numbers_is_refused(fetch, bucket, built, change) -> None:
    marker = json.loads((built.root / MARKER).read_text())
    marker["subjects"]["1"] |= change
    bucket.put(MARKER, json.dumps(marker).encode())
    error = fetch("--subject", 1, "--plan").exception
    assert isinstance(error, DataError) and MARKER in error.message


@pytest.mark.parametrize("how", [{}, {"length": False, "ranges": False}])
def test_a_marker_without_end_does_not_fill_the_temporary_folder(fetch, bucket, monkeypatch, how) -> None:
    monkeypatch.setattr("nsdbench.fetch.origin._LARGEST", 10_000)
    bucket.put(MARKER, b" " * 3_000_000, **how)
    assert isinstance(fetch("--subject", 1, "--plan").exception, DataError)
    assert bucket.served[MARKER] < 3_000_000


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "\xff", "<html>"])
def test_a_marker_that_is_none_says_where_to_look(fetch, bucket, content) -> None:
    bucket.put(MARKER, content.encode("latin-1"))
    error = fetch("--subject", 1, "--plan").exception
    assert isinstance(error, DataError) and "--endpoint" in error.remedy


ENTRY = {
    "size": 1,
    "mtime_ns": 1,
    "sha256": "",
    "verified": "etag",
    "etag": None,
    "url": "",
    "fetched_at": "",
}


@pytest.mark.parametrize(
    "content",
    ["{", "[" * 100_000, "[]", *(json.dumps({"files": {"a": ENTRY | wrong}}) for wrong in (
        {"verified": ["etag"]}, {"verified": "surely"}, {"size": "1"}, {"url": None}))],
)  # fmt: skip
def test_a_record_that_cannot_be_understood_says_what_to_do(tmp_path, content) -> None:
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(DataError) as caught:
        read_record(tmp_path)
    assert "Delete it" in caught.value.remedy


@pytest.mark.parametrize("below", [".", "nsd"])
def test_a_file_is_no_directory(fetch, tmp_path, below, bucket) -> None:
    (tmp_path / "file").touch()
    error = fetch("--subject", 1, "--data-dir", tmp_path / "file" / below).exception
    assert isinstance(error, UsageError) and "is a file" in error.message
    assert not bucket.log


@pytest.mark.parametrize("variable", ["NSDBENCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_no_server_is_asked_where_no_connection_may_be_tried(fetch, bucket, monkeypatch, variable) -> None:
    monkeypatch.setenv(variable, "1")
    error = fetch("--subject", 1).exception
    assert isinstance(error, UsageError) and "--offline" in error.remedy
    assert not bucket.log
    assert fetch("--subject", 1, "--offline").exception is None


def test_a_file_that_the_server_does_not_have_is_not_called_verified(fetch, bucket, built, root) -> None:
    for key in (BETAS, MARKER):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built.root / key, root / key)
    bucket.remove(BETAS)
    result = fetch("--subject", 1, "--json")
    entries = {entry["file"]: entry for entry in json.loads(result.stdout)["files"]}
    assert (entries[BETAS]["state"], entries[BETAS]["verified"]) == ("unchecked", None)
    assert BETAS not in read_record(root)
    assert f"so unverified: {BETAS}" in fetch("--subject", 1).stdout


def test_a_complete_directory_need_not_be_written_to(fetch, root, monkeypatch) -> None:
    fetch("--subject", 1)
    (root / ".lock").unlink()

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("nsdbench.fetch.origin.locked", refuse)
    assert fetch("--subject", 1).exception is None


def test_what_one_subject_requires_is_required_though_it_is_optional_for_another(root) -> None:
    (root / PREPARED_FOLDER).mkdir(parents=True)
    (root / PREPARED_FOLDER / "betas_all_subj01_fp32_renorm.hdf5").touch()
    design = Layout(root).design.relative_to(root).as_posix()
    needs = {need.key: need for need in wanted_files(Request(root, ("train",), (1, 2)), local(root))}
    assert not needs[design].optional


def test_ctrl_c_does_not_wait_for_a_server_that_does_not_answer(tmp_path) -> None:
    code = (
        "import sys\nfrom nsdbench.transfer import Client, ask_all\n"
        "with Client() as client: ask_all(client.head, [sys.argv[1] + name for name in 'ab'])"
    )
    with S3Server({"a": b"a", "b": b"b"}, latency_s=60) as server:
        child = subprocess.Popen([sys.executable, "-c", code, server.url + "/"], stderr=subprocess.DEVNULL)
        while len(server.log) < 2:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=20) == -signal.SIGINT
