"""The command that measures every ratio: what it prints and writes, and what it does when a benchmark fails."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nsd_size
import pytest
from ratio import Ratio

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
collector = importlib.import_module("all")


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [
        (3.5, ">= 3.5", True),
        (3.4, ">= 3.5", False),
        (8.1, "<= 8", False),
        (0.0, "<= 8", True),
        (9.0, "", True),
    ],
)
def test_a_ratio_knows_whether_it_reaches_its_target(value: float, target: str, met: bool) -> None:
    assert Ratio("one", "a over b", value, target=target).met is met


@pytest.mark.parametrize(("value", "figure"), [(152.4, "152 x"), (3.456, "3.46 x"), (0.01234, "0.0123 x")])
def test_a_ratio_shows_three_digits(value: float, figure: str) -> None:
    assert Ratio("one", "a over b", value).figure == figure


@pytest.mark.parametrize("name", collector.NAMES)
def test_every_benchmark_offers_ratios(name: str) -> None:
    assert callable(importlib.import_module(name).ratios)


def test_the_table_has_every_ratio_with_its_definition_and_command() -> None:
    ratios = [Ratio("first", "a | b", 2.0, "s", "<= 1", "n 3"), Ratio("second", "c over d", 7.0)]
    lines = collector.table({"some_speed": ratios}, "2026-01-02: a machine").splitlines()
    assert lines[0] == "2026-01-02: a machine"
    assert "`python benchmarks/all.py --only some_speed`" in lines[4]
    assert lines[5] == r"| first | 2 s | <= 1 (missed) | a \| b | n 3 |"
    assert lines[6] == "| second | 7 x |  | c over d |  |"


def test_only_what_is_between_the_markers_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{collector.BEGIN}old\n{collector.END}after\n")
    collector.write(page, "new\n")
    assert page.read_text() == f"before\n{collector.BEGIN}new\n{collector.END}after\n"
    page.write_text("no markers\n")
    with pytest.raises(SystemExit, match="lacks the lines"):
        collector.write(page, "new\n")
    assert page.read_text() == "no markers\n"


def test_the_page_in_the_docs_has_the_markers() -> None:
    page = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    assert page.index(collector.BEGIN) < page.index(collector.END)


def test_a_failing_benchmark_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [Ratio("one", "a over b", 1.0)]
    outcomes: Iterator[list[Ratio] | None] = iter([good, None, good])
    monkeypatch.setattr(collector, "measure", lambda name, short: next(outcomes))
    found, failed = collector.collect(["a", "b", "c"], short=True)
    assert (list(found), failed) == (["a", "c"], ["b"])


def test_a_short_run_prints_the_table_and_refuses_to_write_it(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "all.py"), "--short", "--only", "linear_speed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| ridge, scikit-learn per token |" in done.stdout
    page = tmp_path / "page.md"
    refused = subprocess.run([*command, "--write", str(page)], check=False, capture_output=True, text=True)
    assert refused.returncode == 2 and "short figures mean nothing" in refused.stderr


def test_a_benchmark_that_ends_with_an_error_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "__file__", str(BENCHMARKS / "no_such_file.py"))
    assert collector.measure("linear_speed", short=True) is None


# the operations that nsd_size counts


def test_one_target_and_one_fit_cost_what_the_textbook_says() -> None:
    # 2 voxels, 4 rows, 3 queries: X'X 2 x 2 x 4, factor 8 / 3, X'y and solution and prediction per target
    per_target = 2 * 4 * 2 + 2 * 2 * 2 + 2 * 3 * 2
    assert nsd_size.per_token_operations(4, 2, 3, [1]) == pytest.approx(16 + 8 / 3 + per_target)
    assert nsd_size.per_token_operations(4, 2, 3, [5, 5]) == pytest.approx(2 * (16 + 8 / 3) + 10 * per_target)


def test_rows_and_voxels_change_places_in_sample_space() -> None:
    assert nsd_size.per_token_operations(7, 3, 0, [2]) == nsd_size.per_token_operations(3, 7, 0, [2])


def test_the_shared_fit_forms_one_gram_matrix_whatever_the_number_of_targets() -> None:
    one, two = (nsd_size.shared_operations(40, 20, 8, 3, targets) for targets in (1000, 2000))
    assert two - one == 2 * 3 * 20 * 1000
    gram, factor, solution, crossing = 8 * 8 * 40, 8**3 / 3, 2 * 3 * 8 * 8, 2 * 3 * 40 * 8
    assert one == pytest.approx(gram + 3 * (factor + solution + crossing) + 2 * 3 * 20 * 1000)


def test_dividing_every_dimension_by_ten_leaves_the_ratio_of_operations() -> None:
    found = []
    for scale in (1, 10):
        n, images, v, m, token = 27_000 // scale, 9000 // scale, 15_000 // scale, 1000 // scale, 700 // scale
        fits = [91_000 // scale, *[token] * 334]
        ours = nsd_size.shared_operations(n, images, v, m, sum(fits))
        found.append(nsd_size.per_token_operations(n, v, m, fits) / ours)
    assert found[0] == pytest.approx(found[1])
