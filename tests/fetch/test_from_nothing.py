"""From an empty directory and an empty cache to scored rows, through the same commands as with the real NSD."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import local_servers
import pyarrow.parquet as pq
import pytest
import synthetic_nsd

pytestmark = pytest.mark.xdist_group("from-nothing")  # one way, walked once
SESSIONS, VOXELS = 3, 300


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with the full grid."""
    folder = tmp_path_factory.mktemp("origin")
    synthetic_nsd.write(folder, synthetic_nsd.Plan(sessions=SESSIONS, n_voxels=VOXELS, side=32))
    return folder


@pytest.fixture(scope="module")
def bucket(origin: Path) -> Iterator[local_servers.S3Server]:
    """A server like S3 that holds it, and fails at every fifth request."""
    with local_servers.S3Server(origin) as server:
        server.fail_at_random(0.2, seed=6)
        yield server


class Laptop:
    """A person's machine: nothing on it but nsdbench."""

    def __init__(self, home: Path) -> None:
        self.data, self.out = home / "nsd", home / "runs"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "NSDBENCH_DATA": str(self.data),
            "OMP_NUM_THREADS": "1",
        }

    def nsdbench(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nsdbench", *map(str, words)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(tmp_path_factory.mktemp("laptop"))


@pytest.fixture(scope="module")
def fetched(laptop: Laptop, bucket: local_servers.S3Server) -> dict[str, object]:
    refused = laptop.nsdbench("data", "fetch", "--for", "all", "--endpoint", bucket.url, code=2)
    assert "terms" in refused.stderr.lower()
    assert not any("betas_session" in key for key in bucket.served)
    words = ["data", "fetch", "--for", "all", "--endpoint", bucket.url, "--accept-terms", "--json"]
    return json.loads(laptop.nsdbench(*words).stdout)


@pytest.fixture(scope="module")
def prepared(laptop: Laptop, fetched: object) -> Path:
    laptop.nsdbench("data", "prepare", "--prune")
    return laptop.data


@pytest.fixture(scope="module")
def rows(laptop: Laptop, prepared: Path) -> list[dict[str, object]]:
    words = ["run", "--dataset", "nsd", "--model", "ridge", "--split", "both", "--metrics", "pixcorr,ssim"]
    done = laptop.nsdbench(*words, "--out", laptop.out, "--leaderboard", laptop.out / "leaderboard", "--json")
    return json.loads(done.stdout)["rows"]


def test_every_file_arrives_whole_from_a_server_that_keeps_failing(
    fetched: dict[str, object], bucket: local_servers.S3Server, origin: Path, laptop: Laptop
) -> None:
    assert sum(bucket.injected.values()) > 3
    arrived = {path.relative_to(laptop.data) for path in laptop.data.rglob("*") if path.is_file()}
    own = {name for name in arrived if name.name.startswith(".")}
    assert own == {Path(".nsdbench-fetched.json"), Path(".lock")}
    marker = Path("nsdbench-dataset.json")
    assert json.loads((laptop.data / marker).read_text()) == json.loads((origin / marker).read_text())
    files = arrived - own - {marker}
    wrong = [name for name in files if (laptop.data / name).read_bytes() != (origin / name).read_bytes()]
    assert not wrong and len(files) > 40


def test_preparation_replaces_the_raw_sessions(prepared: Path) -> None:
    assert not list(prepared.glob("nsddata_betas/ppdata/subj01/func1pt8mm/betas_*/betas_session*"))
    array = prepared / "nsdbench_prepared/subj01/b3-nsdgeneral/betas.npy"
    assert array.stat().st_size == pytest.approx(2 * SESSIONS * 750 * VOXELS, abs=256)


def test_the_data_are_right_by_every_check(laptop: Laptop, prepared: Path) -> None:
    checks = json.loads(laptop.nsdbench("data", "verify", "--json").stdout)
    assert checks["ok"], [check for check in checks["checks"] if check["status"] == "failed"]


def test_results_can_never_pass_as_results_on_nsd(rows: list[dict[str, object]], laptop: Laptop) -> None:
    assert {row["dataset"] for row in rows} == {"nsd-synthetic"}
    assert {row["status"] for row in rows} == {"simulated"}
    assert {row["split"] for row in rows} == {"vision", "imagery"}
    stored = [pq.read_table(path).to_pylist() for path in laptop.out.rglob("leaderboard/*/*.parquet")]
    assert {row["dataset"] for table in stored for row in table} == {"nsd-synthetic"}


def test_the_decoder_has_learnt_from_what_was_fetched(rows: list[dict[str, object]]) -> None:
    found = {row["split"]: row for row in rows if row["metric"] == "pixcorr" and row["subject"] == "1"}
    assert float(found["vision"]["value"]) > 0.1


def test_doctor_calls_the_split_ready(laptop: Laptop, rows: list[dict[str, object]]) -> None:
    done = laptop.nsdbench("doctor", "--model", "ridge", "--split", "both", "--subject", "1", "--json")
    assert [model["state"] for model in json.loads(done.stdout)["models"]] == ["ready"]
