"""Identities of runs are texts that can be parts of file names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nsdbench.errors import UsageError
from nsdbench.schema import RunKey

KEY = RunKey("0f1e", "sim", "mindeye2", "mini", 1, "vision")


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".x", "", "/etc", "a/b", "a\\b", "a\x1b[2J", "-x", "a" * 121, "<b>"]
)
@pytest.mark.parametrize("field", ["run_id", "dataset", "model", "preset", "split"])
def test_what_leads_out_of_a_folder_is_no_identity(field: str, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the"):
        replace(KEY, **{field: name})


@pytest.mark.parametrize("name", ["my model", "sim:snr=0,seed=3", "(a) v1.2+x", "Müller-2024", "x" * 120])
def test_ordinary_names_are_fine(name: str) -> None:
    assert replace(KEY, model=name).model == name
