"""The terms are shown, accepted by a person, remembered for that person, and asked for again when they change."""

from __future__ import annotations

import json

import pytest

from nsdbench.errors import UsageError
from nsdbench.fetch import terms


def test_nobody_has_accepted_anything_at_first() -> None:
    assert terms.accepted() is None
    with pytest.raises(UsageError, match="nothing was fetched"):
        terms.require()


def test_an_acceptance_is_remembered_with_date_wording_and_version(person) -> None:
    terms.accept()
    terms.require()
    written = json.loads((person / "nsdbench" / "nsd-terms.json").read_text())
    assert written["terms"] == terms.version()
    assert written["nsdbench_version"]
    assert written["accepted_at"].endswith("+00:00")


def test_another_wording_is_asked_for_again(monkeypatch) -> None:
    terms.accept()
    monkeypatch.setattr(terms, "TEXT", terms.TEXT + "One more condition.\n")
    assert terms.accepted() is None


@pytest.mark.parametrize("content", ["", "[]", '{"terms": 1}', "not json"])
def test_a_damaged_acceptance_counts_as_none(person, content: str) -> None:
    terms.accept()
    (person / "nsdbench" / "nsd-terms.json").write_text(content)
    assert terms.accepted() is None


def test_the_usual_place_is_below_the_home_directory(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert terms.place() == tmp_path / ".config" / "nsdbench" / "nsd-terms.json"


def test_the_text_names_what_counts() -> None:
    for part in (
        "naturalscenesdataset.org",
        "access form",
        "COCO",
        "research and education",
        "pass on",
        "cite",
    ):
        assert part in terms.TEXT
    assert max(map(len, terms.TEXT.splitlines())) <= 120
