"""The miniature decoders that generate keep the contract of adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsdbench import conformance


@pytest.mark.slow
@pytest.mark.parametrize("model", ["brain_diffuser", "takagi", "icnn", "mindeye1", "mindeye2"])
def test_a_generative_decoder_keeps_the_contract(model: str, sim_cache: Path) -> None:
    results = conformance.check(model, cache=sim_cache)
    assert {r.check for r in results} == {
        check.__name__.removeprefix("check_").replace("_", " ") for check in conformance.CHECKS
    }
    assert [r for r in results if r.outcome == "failed"] == []
    skipped = {r.check for r in results if r.outcome == "skipped"}
    assert skipped == ({"targets are independent"} if model == "brain_diffuser" else set())
    outputs = next(r.detail for r in results if r.check == "other outputs")
    assert ("retrieval in" in outputs, "captions" in outputs) == (
        model.startswith("mindeye"),
        model == "mindeye2",
    )
