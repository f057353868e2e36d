"""Core sessions one at a time, as `data prepare --fetch --prune` asks for them."""

from __future__ import annotations

import pytest

from nsdbench.data import Dataset, LoadOptions
from nsdbench.data.needs import missing, needs
from nsdbench.errors import DataError, UsageError
from nsdbench.fetch import session_fetcher, terms
from nsdbench.preparation.betas import prepare_betas
from nsdbench.transfer import Client


@pytest.fixture
def fetcher(bucket, impatient, tmp_path):
    terms.accept()
    with Client() as client:
        yield session_fetcher(tmp_path / "nsd", 1, endpoint=bucket.url, client=client)


def test_a_session_arrives_when_it_is_asked_for(fetcher, bucket, built, tmp_path, nsd_fixture) -> None:
    assert not any("betas_session" in key or "stimuli" in key for key in bucket.served)
    path = fetcher(2)
    assert path == nsd_fixture.core_path(tmp_path / "nsd", 1, 2)
    assert path.read_bytes() == nsd_fixture.core_path(built.root, 1, 2).read_bytes()
    assert not nsd_fixture.core_path(tmp_path / "nsd", 1, 1).exists()


def test_a_session_that_is_there_is_not_fetched_and_one_that_was_deleted_is(fetcher, bucket) -> None:
    path = fetcher(1)
    bucket.log.clear()
    fetcher(1)
    assert not bucket.served
    path.unlink()
    assert fetcher(1).is_file() and sum(bucket.served.values()) > 1000


def test_the_small_files_of_core_trials_are_there_from_the_start(fetcher, tmp_path) -> None:
    root = tmp_path / "nsd"
    wanted = needs(root, Dataset.open(root, may_be_empty=True).expectations, ["train"], 1)
    absent = [need.key for need in missing(root, wanted) if not need.optional]
    assert all("betas_session" in key or "nsd_stimuli" in key for key in absent)


def test_a_session_that_the_subject_does_not_have_is_refused(fetcher) -> None:
    with pytest.raises(DataError, match="no session 5"):
        fetcher(5)


def test_nothing_is_fetched_before_the_terms_are_accepted(bucket, tmp_path) -> None:
    with Client() as client, pytest.raises(UsageError, match="not accepted"):
        session_fetcher(tmp_path / "nsd", 1, endpoint=bucket.url, client=client)
    assert not bucket.log


def test_sessions_of_a_store_are_neither_missing_nor_fetched_again(fetcher, bucket, fetch, tmp_path) -> None:
    root = tmp_path / "nsd"
    fetch("--subject", 1)
    prepare_betas(Dataset.open(root), 1, LoadOptions(), prune=True, fetch=fetcher)
    assert not list(root.rglob("betas_session*"))
    wanted = needs(root, Dataset.open(root).expectations, ["train"], 1)
    assert [need.key for need in missing(root, wanted) if not need.optional] == [
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    ]
    bucket.log.clear()
    assert fetch("--for", "train", "--subject", 1).exception is None
    assert not any("betas_session" in key for key in bucket.served)
    assert not list(root.rglob("betas_session*"))


def test_what_is_odd_about_a_session_is_told(bucket, impatient, tmp_path, monkeypatch) -> None:
    terms.accept()
    told: list[str] = []
    with Client() as client:
        fetcher = session_fetcher(tmp_path / "nsd", 1, endpoint=bucket.url, client=client, warn=told.append)
        monkeypatch.setattr("nsdbench.fetch.run._Keeper._judge", lambda self, key, fetched: ("etag", "odd"))
        fetcher(1)
    assert told == ["odd"]
