"""Preparing core betas: nothing lost, nothing read twice, nothing deleted too early, whatever happens on the way."""

from __future__ import annotations

import errno
import functools
import http.server
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nsdbench.cli.data import app
from nsdbench.data import Dataset, LoadOptions
from nsdbench.data.stored import StoredCore
from nsdbench.data.voxelstore import VoxelStore, open_store
from nsdbench.errors import DataError, IntegrityError, NoRoom, UsageError
from nsdbench.fetch import terms
from nsdbench.preparation import betas
from nsdbench.preparation.betas import SessionOutcome, plan_betas, prepare_betas, require_space

OPTIONS = LoadOptions()


@pytest.fixture(scope="session")
def built(nsd_fixture: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sound data set of one subject and its truth. Never written to."""
    plan = nsd_fixture.Plan(grids={1: (12, 14, 10)})
    return nsd_fixture.build(tmp_path_factory.mktemp("nsd"), plan)


@pytest.fixture(scope="session")
def truth(built: Any) -> np.ndarray:
    """What the store must hold."""
    return np.asarray(built.core[1][:, built.volumes[1]["nsdgeneral"] == 1])


@pytest.fixture
def root(built: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.root, tmp_path / "copy"))


@pytest.fixture
def data(root: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(root, cache=tmp_path / "cache")


@pytest.fixture
def raw(nsd_fixture: ModuleType, root: Path) -> Callable[[int], Path]:
    """Where the raw file of a session lies."""
    return lambda session: nsd_fixture.core_path(root, 1, session)


def store_of(data: Dataset) -> VoxelStore:
    found = open_store(data.layout.store(1, "b3", "nsdgeneral"))
    assert found is not None
    return found


def assert_holds(data: Dataset, truth: np.ndarray, sessions: tuple[int, ...] = (1, 2, 3, 4)) -> None:
    store = store_of(data)
    assert tuple(sorted(store.blocks)) == sessions
    for session in sessions:
        np.testing.assert_array_equal(store.read(session), truth[(session - 1) * 30 : session * 30])


def read_now(outcomes: list[SessionOutcome]) -> list[int]:
    return [outcome.session for outcome in outcomes if outcome.added]


# killed at any point


def _prepare_until(root: Path, cache: Path, step: int) -> None:
    """Prepare and prune, but end the process like a power cut at the given step that touches the disk."""
    steps = itertools.count(1)

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for owner, name in ((os, "fsync"), (os, "posix_fallocate"), (Path, "replace"), (Path, "unlink")):
        setattr(owner, name, dying(getattr(owner, name)))
    prepare_betas(Dataset.open(root, cache=cache), 1, OPTIONS, prune=True)


def in_process(function: Callable[..., None], *arguments: Any) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def test_a_process_killed_at_any_step_loses_nothing_and_is_continued(
    built: Any, truth: np.ndarray, tmp_path: Path, nsd_fixture: ModuleType
) -> None:
    killed = 0
    for step in itertools.count(1):
        root = Path(shutil.copytree(built.root, tmp_path / str(step)))
        child = in_process(_prepare_until, root, tmp_path / "cache", step)
        child.join()
        data = Dataset.open(root, cache=tmp_path / "cache")
        found = open_store(data.layout.store(1, "b3", "nsdgeneral"))
        counted = tuple(sorted(found.blocks)) if found else ()
        for session in range(1, 5):  # every session is in one place at least, whole
            assert session in counted or nsd_fixture.core_path(root, 1, session).is_file()
        if found:
            assert_holds(data, truth, counted)
        outcomes: list[SessionOutcome] = []
        prepare_betas(data, 1, OPTIONS, prune=True, report=outcomes.append)
        assert read_now(outcomes) == [k for k in range(1, 5) if k not in counted]
        assert_holds(data, truth)
        assert not any(nsd_fixture.core_path(root, 1, session).exists() for session in range(1, 5))
        assert sorted(path.name for path in store_of(data).folder.iterdir()) == [
            ".lock",
            "betas.npy",
            "store.json",
        ]
        shutil.rmtree(root)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
    assert killed > 20  # several steps per session


def _prepare_and_note(root: Path, cache: Path, notes: Path) -> None:
    def report(outcome: SessionOutcome) -> None:
        if outcome.added:
            with notes.open("a") as handle:
                handle.write(f"{outcome.session}\n")

    prepare_betas(Dataset.open(root, cache=cache), 1, OPTIONS, prune=True, report=report)


def test_processes_that_prepare_together_read_every_session_once(
    root: Path, data: Dataset, truth: np.ndarray, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    children = [in_process(_prepare_and_note, root, tmp_path / "cache", notes) for _ in range(4)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert sorted(notes.read_text().split()) == ["1", "2", "3", "4"]
    assert_holds(data, truth)


# pruning


def test_pruning_deletes_raw_core_sessions_and_nothing_else(
    root: Path, data: Dataset, nsd_fixture: ModuleType, built: Any, raw: Callable[[int], Path]
) -> None:
    other = raw(1).parent.with_name("betas_fithrf")
    shutil.copytree(raw(1).parent, other)
    nsd_fixture.write_nifti(raw(2).with_name("betas_session02.nii.gz"), built.core[1][30:60], step=4 / 3)
    before = {path for path in root.rglob("*") if path.is_file()}
    outcomes: list[SessionOutcome] = []
    sizes = [raw(session).stat().st_size for session in range(1, 5)]
    prepare_betas(data, 1, OPTIONS, prune=True, report=outcomes.append)
    assert before - {path for path in root.rglob("*") if path.is_file()} == {raw(k) for k in range(1, 5)}
    assert [outcome.pruned_bytes for outcome in outcomes] == sizes


def test_sessions_prepared_before_are_pruned_later_without_reading_them_again(
    data: Dataset, truth: np.ndarray, raw: Callable[[int], Path]
) -> None:
    prepare_betas(data, 1, OPTIONS)
    assert all(raw(session).is_file() for session in range(1, 5))
    outcomes: list[SessionOutcome] = []
    prepare_betas(data, 1, OPTIONS, prune=True, report=outcomes.append)
    assert read_now(outcomes) == []
    assert not any(raw(session).exists() for session in range(1, 5))
    assert_holds(data, truth)


def test_nothing_is_pruned_where_the_store_reads_back_wrong(
    data: Dataset, raw: Callable[[int], Path]
) -> None:
    store = prepare_betas(data, 1, OPTIONS)
    path = store.folder / "betas.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in session 4
    path.write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        prepare_betas(data, 1, OPTIONS, prune=True)
    assert caught.value.check == "prepared_store"
    assert [raw(session).exists() for session in range(1, 5)] == [False, False, False, True]


def test_nothing_is_pruned_that_differs_from_what_was_prepared(
    data: Dataset, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType
) -> None:
    prepare_betas(data, 1, OPTIONS)
    nsd_fixture.write_hdf5(raw(1), built.core[1][:30] + np.int16(1))
    with pytest.raises(IntegrityError, match="is not the file"):
        prepare_betas(data, 1, OPTIONS, prune=True)
    assert raw(1).is_file()


def test_raw_files_behind_a_link_belong_to_somebody_else_and_stay(
    data: Dataset, raw: Callable[[int], Path], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "shared" / raw(1).parent.name
    shutil.move(raw(1).parent, elsewhere)
    raw(1).parent.symlink_to(elsewhere)
    outcomes: list[SessionOutcome] = []
    prepare_betas(data, 1, OPTIONS, prune=True, report=outcomes.append)
    assert sum(outcome.pruned_bytes for outcome in outcomes) == 0
    assert len(list(elsewhere.iterdir())) == 4
    assert plan_betas(data, 1, OPTIONS).prunable_bytes == 0


# damaged, absent, odd raw files


def test_a_damaged_session_stops_without_loss_and_the_rest_follows(
    data: Dataset, truth: np.ndarray, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType
) -> None:
    sound = raw(3).read_bytes()
    raw(3).write_bytes(sound[:100_000])
    with pytest.raises(IntegrityError, match="session03"):
        prepare_betas(data, 1, OPTIONS, prune=True)
    assert_holds(data, truth, (1, 2))
    assert [raw(session).is_file() for session in range(1, 5)] == [False, False, True, True]
    raw(3).write_bytes(sound)
    outcomes: list[SessionOutcome] = []
    prepare_betas(data, 1, OPTIONS, prune=True, report=outcomes.append)
    assert read_now(outcomes) == [3, 4]
    assert_holds(data, truth)


@pytest.mark.parametrize(
    ("poison", "check"),
    [
        (lambda stored: stored[:29], "beta_rows"),
        (lambda stored: stored.transpose(0, 3, 2, 1), "beta_grid"),
        (lambda stored: stored.astype(np.int32), "beta_file"),
    ],
)
def test_a_session_that_fails_a_check_neither_counts_nor_is_pruned(
    data: Dataset, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType, poison: Any, check: str
) -> None:
    nsd_fixture.write_hdf5(raw(1), poison(built.core[1][:30]))
    with pytest.raises(IntegrityError) as caught:
        prepare_betas(data, 1, OPTIONS, prune=True)
    assert caught.value.check == check
    assert raw(1).is_file()
    assert store_of(data).blocks == {}


def test_warnings_of_values_are_reported_with_their_session(
    data: Dataset, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType
) -> None:
    nsd_fixture.write_hdf5(raw(2), np.zeros_like(built.core[1][:30]))
    outcomes: list[SessionOutcome] = []
    prepare_betas(data, 1, OPTIONS, report=outcomes.append)
    assert [len(outcome.warnings) for outcome in outcomes] == [0, 2, 0, 0]
    assert any("dead_voxels" in warning and "session 2" in warning for warning in outcomes[1].warnings)


def test_nifti_sessions_are_prepared_too(
    data: Dataset, truth: np.ndarray, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType
) -> None:
    for session in range(1, 5):
        stored = built.core[1][(session - 1) * 30 : session * 30]
        nsd_fixture.write_nifti(raw(session).with_suffix(".nii.gz"), stored, step=4 / 3)
        raw(session).unlink()
    key = data.key(1, "train")
    prepare_betas(data, 1, OPTIONS, prune=True)
    assert_holds(data, truth)
    assert not list(raw(1).parent.iterdir())
    assert data.key(1, "train") == key


def test_values_that_are_no_whole_numbers_are_refused(
    data: Dataset, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType
) -> None:
    path = raw(1).with_suffix(".nii.gz")
    nsd_fixture.write_nifti(path, built.core[1][:30].astype(np.float32) / 7, step=4 / 3)
    raw(1).unlink()
    with pytest.raises(IntegrityError, match="whole numbers"):
        prepare_betas(data, 1, OPTIONS, prune=True)
    assert path.is_file()


def test_a_file_that_grows_while_it_is_read_does_not_count(
    data: Dataset, raw: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = betas.check_session_values

    def meanwhile(*arguments: Any) -> Any:
        with raw(1).open("ab") as handle:
            handle.write(b"more")
        return check(*arguments)

    monkeypatch.setattr(betas, "check_session_values", meanwhile)
    with pytest.raises(DataError, match="changed while it was read"):
        prepare_betas(data, 1, OPTIONS)
    assert store_of(data).blocks == {}


def test_absent_sessions_are_named_after_the_others_are_prepared(
    data: Dataset, truth: np.ndarray, raw: Callable[[int], Path]
) -> None:
    away = {session: raw(session).read_bytes() for session in (1, 3)}
    for session in away:
        raw(session).unlink()
    assert plan_betas(data, 1, OPTIONS).absent == (1, 3)
    with pytest.raises(DataError, match=r"2 of 4 sessions .*session01") as caught:
        prepare_betas(data, 1, OPTIONS, prune=True)
    assert "--fetch" in caught.value.remedy
    assert_holds(data, truth, (2, 4))
    for session, content in away.items():
        raw(session).write_bytes(content)
    prepare_betas(data, 1, OPTIONS, prune=True)
    assert_holds(data, truth)


def test_nothing_is_reserved_where_no_session_is_there(data: Dataset, raw: Callable[[int], Path]) -> None:
    for session in range(1, 5):
        raw(session).unlink()
    with pytest.raises(DataError, match="4 of 4 sessions"):
        prepare_betas(data, 1, OPTIONS)
    assert not data.layout.store(1, "b3", "nsdgeneral").exists()


def test_a_missing_design_is_found_before_any_session_is_read(data: Dataset) -> None:
    data.layout.design.unlink()
    with pytest.raises(DataError, match="expdesign"):
        prepare_betas(data, 1, OPTIONS)
    assert not data.layout.store(1, "b3", "nsdgeneral").exists()


# fetching


def test_with_fetch_and_prune_one_raw_file_is_on_disk_at_a_time(
    data: Dataset, truth: np.ndarray, raw: Callable[[int], Path], built: Any, nsd_fixture: ModuleType
) -> None:
    for session in (1, 2, 3, 4):
        raw(session).unlink()
    fetched = []

    def fetch(session: int) -> Path:
        assert not any(raw(k).exists() for k in range(1, 5))
        fetched.append(session)
        shutil.copyfile(nsd_fixture.core_path(built.root, 1, session), raw(session))
        return raw(session)

    prepare_betas(data, 1, OPTIONS, prune=True, fetch=fetch)
    assert fetched == [1, 2, 3, 4]
    assert_holds(data, truth)
    prepare_betas(data, 1, OPTIONS, prune=True, fetch=fetch)
    assert fetched == [1, 2, 3, 4]  # what counts is not fetched again


def test_a_fetch_that_fails_leaves_what_is_prepared(
    data: Dataset, truth: np.ndarray, raw: Callable[[int], Path]
) -> None:
    def fetch(session: int) -> Path:
        if session == 2:
            raise DataError("the server is gone")
        return raw(session)

    with pytest.raises(DataError, match="server"):
        prepare_betas(data, 1, OPTIONS, fetch=fetch)
    assert_holds(data, truth, (1,))


# space


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """What was asked of which disk."""
    calls: list[tuple[Path, int]] = []
    monkeypatch.setattr(betas, "require_room", lambda folder, n_bytes: calls.append((folder, n_bytes)))
    return calls


def test_store_and_trials_are_asked_for_together_on_one_disk(
    data: Dataset, asked: list[Any], truth: np.ndarray
) -> None:
    plan = plan_betas(data, 1, OPTIONS)
    assert (plan.store_bytes, plan.cache_bytes) == (truth.nbytes, 2 * truth.nbytes)
    require_space([plan], data, prune=False, fetch=False)
    assert max(n_bytes for _, n_bytes in asked) == 3 * truth.nbytes


def test_pruned_files_make_room_for_the_trials(data: Dataset, asked: list[Any], truth: np.ndarray) -> None:
    plan = plan_betas(data, 1, OPTIONS)
    assert plan.prunable_bytes > 2 * truth.nbytes
    require_space([plan], data, prune=True, fetch=False)
    assert max(n_bytes for _, n_bytes in asked) == truth.nbytes


def test_nothing_is_asked_for_where_all_is_done(data: Dataset, asked: list[Any]) -> None:
    prepare_betas(data, 1, OPTIONS)
    data.train(1)
    plan = plan_betas(data, 1, OPTIONS)
    assert (plan.done, plan.new_bytes, plan.cache_bytes) == ((1, 2, 3, 4), 0, 0)
    require_space([plan], data, prune=False, fetch=False)
    assert sum(n_bytes for _, n_bytes in asked) == 0


def test_a_complete_store_needs_no_right_to_write(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_betas(data, 1, OPTIONS)

    def refuse(*arguments: Any) -> Iterator[None]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(betas, "exclusive", refuse)
    prepare_betas(data, 1, OPTIONS)
    assert isinstance(data.core_source(1), StoredCore)


# the verb


def invoke(root: Path, *arguments: str) -> Any:
    return CliRunner().invoke(
        app, ["prepare", "--data-dir", str(root), "--cache", str(root / "cache"), *arguments]
    )


def test_the_verb_prepares_prunes_and_says_how_much(root: Path, data: Dataset, truth: np.ndarray) -> None:
    size = sum(path.stat().st_size for path in root.rglob("betas_session*.hdf5"))
    result = invoke(root, "--prune", "--json")
    assert result.exit_code == 0, result.output
    (subject,) = json.loads(result.stdout)["betas"]
    assert (subject["subject"], subject["sessions"], subject["sessions_read"]) == (1, 4, 4)
    assert (subject["pruned_bytes"], subject["train_trials"]) == (size, 90)
    assert result.stderr.index("--prune deletes 0.9 MB") < result.stderr.index("deleted 0.9 MB")
    assert_holds(data, truth)


def test_the_verb_says_what_could_be_deleted_and_deletes_nothing(root: Path) -> None:
    result = invoke(root)
    assert "(0.9 MB) are not read any more" in result.stderr
    assert len(list(root.rglob("betas_session*.hdf5"))) == 4
    again = invoke(root, "--json")
    (subject,) = json.loads(again.stdout)["betas"]
    assert (subject["sessions"], subject["sessions_read"]) == (4, 0)
    assert "(0.9 MB) are not read any more" in again.stderr


def test_the_verb_says_that_mindeye2_data_need_no_preparation(
    root: Path, built: Any, nsd_fixture: ModuleType
) -> None:
    nsd_fixture.write_prepared(root / "mindeyev2", built)
    for path in root.rglob("betas_session*.hdf5"):
        path.unlink()
    result = invoke(root)
    assert result.exit_code == 0
    assert "need no preparation" in result.stderr
    assert not (root / "nsdbench_prepared").exists()


def test_the_verb_stops_before_reading_where_there_is_no_room(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, n_bytes: int) -> None:
        raise NoRoom("no room")

    monkeypatch.setattr(betas, "require_room", full)
    assert isinstance(invoke(root).exception, NoRoom)
    assert not (root / "nsdbench_prepared").exists()


@pytest.fixture
def server(built: Any) -> Iterator[str]:
    """A plain web server with the files of the data set."""
    handler = functools.partial(QuietHandler, directory=str(built.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_the_verb_fetches_prepares_and_prunes_into_an_empty_directory(
    server: str, truth: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    terms.accept()
    root = tmp_path / "new"
    arguments = ("--subject", "1", "--fetch", "--prune", "--endpoint", server, "--json")
    result = invoke(root, *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["betas"][0]["sessions_read"] == 4
    assert_holds(Dataset.open(root), truth)
    assert not list(root.rglob("betas_session*"))
    again = invoke(root, *arguments)
    assert json.loads(again.stdout)["betas"][0]["sessions_read"] == 0


def test_fetching_without_a_named_subject_is_refused(root: Path) -> None:
    assert isinstance(invoke(root, "--fetch").exception, UsageError)
