"""``nsdbench data info|verify``: what is printed, and the exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from nsdbench.cli.data import app
from nsdbench.errors import DataError


@pytest.fixture
def run(tmp_path):
    def invoke(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments), "--cache", str(tmp_path / "cache")])

    return invoke


def test_info_lists_subjects_trials_voxels_and_sizes(run, built):
    document = json.loads(run("info", "--data-dir", built.root, "--json").stdout)
    assert document["dataset"] == "nsd-synthetic"
    first = document["subjects"][0]
    assert (first["subject"], first["core_trials"], first["imagery_rows"]) == (1, 120, 720)
    assert first["n_voxels"] == int((built.volumes[1]["nsdgeneral"] == 1).sum())
    assert first["n_bytes"] > 720 * 12 * 14 * 10 * 2


def test_info_says_that_real_nsd_must_not_be_passed_on(run, copied):
    (copied / "nsdbench-dataset.json").unlink()
    assert "must not be passed on" in run("info", "--data-dir", copied).stdout


def test_info_counts_the_sessions_on_disk(run, copied, nsd_fixture):
    nsd_fixture.core_path(copied, 1, 4).unlink()
    first = json.loads(run("info", "--data-dir", copied, "--json").stdout)["subjects"][0]
    assert (first["core_trials"], first["core_trials_total"]) == (90, 120)


def test_verify_prints_every_check_and_exits_0(run, built):
    result = run("verify", "--data-dir", built.root, "--subject", "2")
    assert result.exit_code == 0
    assert "run_order" in result.stdout
    assert "subject 1," not in result.stdout


def test_verify_exits_1_and_names_the_failed_check(run, copied, built, nsd_fixture):
    nsd_fixture.write_hdf5(nsd_fixture.imagery_path(copied, 1), built.imagery[1][:719])
    result = run("verify", "--data-dir", copied, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert [c["check"] for c in document["checks"] if c["status"] == "failed"] == ["beta_rows"]


def test_verify_refuses_a_beta_version_that_the_data_set_never_has(run, built):
    result = run("verify", "--data-dir", built.root, "--beta-version", "b2")
    assert isinstance(result.exception, DataError)


def test_info_says_which_files_are_absent(run, copied):
    (copied / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    assert "(absent)" in run("info", "--data-dir", copied).stdout


def test_a_wrong_directory_is_a_named_error(run, tmp_path):
    result = run("info", "--data-dir", tmp_path)
    assert isinstance(result.exception, DataError)
