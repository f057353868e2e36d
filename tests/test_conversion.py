"""Converted checkpoints: faithful numbers, facts beside them, and when they stand in for the original."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from nsdbench import conversion, weights
from nsdbench.conversion import conversion_of, convert, converted_path, facts_path
from nsdbench.errors import UsageError, WeightsError
from nsdbench.store import read_json
from nsdbench.weights.fetching import fetch

STATE = {
    "a.weight": torch.tensor([[1.0, 1 / 3], [1e-6, 4.0]]),
    "a.bias": torch.tensor([0.1, 0.2, 0.3]),
    "half": torch.tensor([[1.5]]).half(),
    "brain": torch.tensor([[2.5]], dtype=torch.bfloat16),
    "double": torch.tensor(1 / 3, dtype=torch.float64),
    "count": torch.tensor([[7, 8]]),
    "mask": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).t(),
}


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value)
        for name, value in expected.items()
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "last.pth"
    torch.save({"model_state_dict": STATE, "lr_scheduler": conversion.convert}, path)
    return path


def test_all_numbers_are_kept_in_their_precision(source: Path) -> None:
    converted = convert(source)
    assert converted.path == source.with_name("last.pth.safetensors")
    assert _same(load_file(converted.path), STATE)


@given(
    sizes=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(
            st.integers(0, 5), st.sampled_from(["float64", "float32", "float16", "uint8", "int64", "bool"])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_names_and_types_come_back_from_the_reference_reader(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    state = {name: torch.arange(size).to(getattr(torch, kind)) for name, (size, kind) in sizes.items()}
    conversion._write(folder / "any.safetensors", state, False, conversion.Silent())
    assert _same(load_file(folder / "any.safetensors"), state)


def test_long_tensors_are_written_in_blocks(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "BLOCK", 2)
    assert _same(load_file(convert(source).path), STATE)


def test_half_precision_rounds_matrices_and_keeps_vectors_and_integers(source: Path) -> None:
    found = load_file(convert(source, half=True).path)
    assert torch.equal(found["a.weight"], STATE["a.weight"].half())
    assert found["turned"].dtype == torch.float16
    unchanged = {name: value for name, value in STATE.items() if name not in ("a.weight", "turned", "empty")}
    assert _same({name: found[name] for name in unchanged}, unchanged)


def test_numbers_that_half_precision_cannot_hold_are_named_and_nothing_is_kept(tmp_path: Path) -> None:
    torch.save({"a": torch.full((2, 2), 1e5)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="a holds values that half precision cannot"):
        convert(tmp_path / "net.pth", half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_numbers_that_are_not_finite_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([torch.nan])}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="a holds a value that is not finite"):
        convert(tmp_path / "net.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_the_facts_say_where_it_comes_from(source: Path) -> None:
    converted = convert(
        source, half=True, drop=("a.",), prepare=lambda state: (dict(state), {"model": "demo"})
    )
    assert read_json(facts_path(converted.path)) == {
        "source": "last.pth",
        "source_sha256": _sha256(source),
        "sha256": _sha256(converted.path),
        "half": True,
        "left_out": ["a."],
        "tensors": len(STATE) - 2,
        "model": "demo",
    }
    assert conversion_of(source) == converted


def test_the_output_may_be_elsewhere(source: Path, tmp_path: Path) -> None:
    converted = convert(source, tmp_path / "there" / "net.safetensors")
    assert _same(load_file(tmp_path / "there" / "net.safetensors"), STATE)
    assert facts_path(converted.path).name == "net.safetensors.json"
    assert conversion_of(source) is None


def test_a_conversion_never_replaces_its_source(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(UsageError, match="cannot replace it"):
        convert(source, source.parent / "." / source.name)
    assert source.read_bytes() == before


def test_safetensors_can_be_halved_too(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 2)}, tmp_path / "net.safetensors")
    converted = convert(tmp_path / "net.safetensors", half=True)
    assert load_file(converted.path)["a"].dtype == torch.float16


@pytest.mark.parametrize("facts", ["{", "[]", "{}", '{"sha256": "ab", "source_sha256": "cd", "half": false}'])
def test_facts_that_cannot_be_understood_are_an_error(source: Path, facts: str) -> None:
    facts_path(convert(source).path).write_text(facts)
    with pytest.raises(WeightsError, match=r"last.pth.safetensors.json does not say"):
        conversion_of(source)


def test_verify_names_facts_that_cannot_be_understood(source: Path, registered: weights.Weights) -> None:
    facts_path(convert(source).path).write_text("{")
    (status,) = weights.verify(source.parent)
    assert status.status == "bad"
    assert "last.pth.safetensors.json" in status.detail


def test_without_facts_a_file_is_not_taken_for_a_conversion(source: Path) -> None:
    facts_path(convert(source).path).unlink()
    assert conversion_of(source) is None


@pytest.fixture
def registered(source: Path, monkeypatch: pytest.MonkeyPatch) -> weights.Weights:
    """The registry holds the source, without a published hash."""
    entry = weights.Weights("demo", source.name, "https://example.org/last.pth", "MIT", "a demo")
    monkeypatch.setattr(weights.registry, "REGISTRY", {"demo": entry})
    return entry


def test_a_conversion_is_preferred_and_counts_as_the_original(
    source: Path, registered: weights.Weights
) -> None:
    original = weights.locate("demo", source.parent)
    converted = convert(source)
    located = weights.locate("demo", source.parent)
    assert located.path == converted.path
    assert located.sha256 == original.sha256 == _sha256(source)


def test_a_rounded_conversion_counts_as_a_file_of_its_own(source: Path, registered: weights.Weights) -> None:
    converted = convert(source, half=True)
    assert weights.locate("demo", source.parent).sha256 == _sha256(converted.path)


def test_a_conversion_is_enough(source: Path, registered: weights.Weights) -> None:
    converted = convert(source)
    sha256 = _sha256(source)
    source.unlink()
    weights.require(["demo"], source.parent)
    assert weights.locate("demo", source.parent) == weights.Located(registered, converted.path, sha256)
    assert fetch("demo", source.parent) == converted.path  # nothing is downloaded
    (status,) = weights.verify(source.parent)
    assert (status.status, status.sha256) == ("ok", sha256)
    assert "last.pth.safetensors" in status.detail


def test_the_conversion_of_another_file_is_not_used(source: Path, registered: weights.Weights) -> None:
    convert(source)
    torch.save({"model_state_dict": {"a": torch.ones(1)}}, source)
    assert weights.locate("demo", source.parent).path == source


def test_the_conversion_of_another_file_than_the_pinned_one_is_refused(
    source: Path, registered: weights.Weights
) -> None:
    weights.locate("demo", source.parent)  # pins it
    torch.save({"model_state_dict": {"a": torch.ones(1)}}, source)
    convert(source)
    source.unlink()
    with pytest.raises(WeightsError, match=r"but .*pins.json holds"):
        weights.locate("demo", source.parent)


def test_the_conversion_of_another_file_than_the_published_one_is_refused(
    source: Path, registered: weights.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = dataclasses.replace(registered, sha256="0" * 64)
    monkeypatch.setattr(weights.registry, "REGISTRY", {"demo": published})
    convert(source)
    source.unlink()
    with pytest.raises(WeightsError, match="the published file has 0000"):
        weights.locate("demo", source.parent)
    assert [status.status for status in weights.verify(source.parent)] == ["bad"]


def test_a_conversion_that_was_altered_is_refused(source: Path, registered: weights.Weights) -> None:
    path = convert(source).path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match="the conversion wrote"):
        weights.locate("demo", source.parent)


def test_the_header_is_padded_so_that_numbers_are_aligned(source: Path) -> None:
    content = converted_path(source)
    convert(source)
    length = int.from_bytes(content.read_bytes()[:8], "little")
    header = json.loads(content.read_bytes()[8 : 8 + length])
    assert length % 8 == 0
    for name, entry in header.items():
        assert entry["data_offsets"][0] % STATE[name].dtype.itemsize == 0
