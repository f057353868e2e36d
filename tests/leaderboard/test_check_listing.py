"""The regression check in words: order, grouping, Markdown."""

from __future__ import annotations

from dataclasses import replace

from nsdbench.check import Change, Failure, Item, Name, Report, listing


def name(model: str = "ridge", metric: str = "pixcorr", split: str = "vision") -> Name:
    return Name("sim", model, "mini", split, metric, "nsdbench-v1", "none")


def change(value: float, *, low: float | None = -1.0, high: float | None = 1.0, p: float = 1.0) -> Change:
    return Change(value, low, high, p, n_metrics=8, n_targets=12, n_subjects=1, tolerated=0.01)


def worse(model: str, value: float, metric: str = "pixcorr") -> Failure:
    return Failure("worse", name(model, metric), f"worse by {-value}", change=change(value))


def test_the_most_severe_result_comes_first_and_its_failures_together() -> None:
    failures = (worse("a", -0.1), worse("b", -0.02), worse("b", -0.3, "ssim"))
    text = listing.text(Report(failures, compared=5, cells=3))
    assert text.splitlines() == [
        "FAILED sim b-mini vision",
        "  ssim (nsdbench-v1): worse by 0.3",
        "  pixcorr (nsdbench-v1): worse by 0.02",
        "FAILED sim a-mini vision",
        "  pixcorr (nsdbench-v1): worse by 0.1",
        "FAILED: 3 failure(s) in 2 result(s), first b-mini vision; 5 item scores compared in 3 cells",
    ]


def test_metrics_that_fail_alike_share_a_line() -> None:
    failures = tuple(Failure("missing", name(metric=m), "no scores at all") for m in ("pixcorr", "ssim"))
    assert "  pixcorr (nsdbench-v1), ssim (nsdbench-v1): no scores at all\n" in listing.text(Report(failures))


def test_metrics_that_lose_the_same_on_other_targets_have_lines_of_their_own() -> None:
    failures = tuple(
        replace(worse("a", -0.3, metric), worst=(Item(1, target, None, 0.9, 0.6),))
        for metric, target in (("pixcorr", "A1"), ("ssim", "B2"))
    )
    lines = listing.text(Report(failures)).splitlines()
    assert lines[2] == "    most: subject 1: A1 .900 -> .600"
    assert lines[4] == "    most: subject 1: B2 .900 -> .600"


def test_changed_scores_of_identical_reconstructions_come_before_losses() -> None:
    failures = (worse("a", -0.9), Failure("changed", name("b"), "changed", (Item(1, "A1", 3, 0.5, None),)))
    lines = listing.text(Report(failures)).splitlines()
    assert lines[0] == "FAILED sim b-mini vision"
    assert lines[2] == "    most: subject 1: A1 sample 3 .500 -> \N{EN DASH}"


def test_changes_are_listed_suspects_first_then_the_certain_then_the_uncertain() -> None:
    moved = {
        "uncertain": change(-0.5),
        "better": change(0.3, low=0.2),
        "suspect": change(-0.04, high=-0.02, p=0.3),
        "worse": change(-0.2, high=-0.001),
    }
    report = Report(moved=tuple((name(metric=m), c) for m, c in moved.items()), cells=6)
    lines = listing.text(report).splitlines()
    assert lines[0] == "Moved without failing: 4 of 6"
    assert [line.split()[3] for line in lines[2:6]] == ["suspect", "worse", "better", "uncertain"]
    assert lines[2].endswith(
        "-.040 [-1.00,-.020] (12 targets): maybe a loss, p = .300 among 8 metrics and pools"
    )


def test_subjects_are_counted_where_there_are_several() -> None:
    one = change(0.1)
    assert one.sizes == "12 targets"
    assert replace(one, n_subjects=4).sizes == "12 targets, 4 subjects"
    assert replace(one, n_targets=1).sizes == "1 target"


def test_the_list_of_changes_is_short_and_says_what_it_leaves_out() -> None:
    report = Report(moved=tuple((name(metric=f"m{i:02}"), change(0.1)) for i in range(20)), cells=20)
    lines = listing.text(report).splitlines()
    assert "about 2 exclude zero by chance" in lines[1]
    assert lines[-2] == "  and 12 more"


def test_markdown_says_the_same_as_the_text_and_escapes_names() -> None:
    report = Report((worse("<b>", -0.1),), ((name(), change(0.02, low=0.01)),), ("a note",), 9, 2)
    found = listing.markdown(report)
    assert found.startswith(
        "## nsdbench check\n\n**FAILED: 1 failure(s) in 1 result(s), first &lt;b&gt;-mini vision;"
    )
    assert "\n### FAILED sim &lt;b&gt;-mini vision\n\n- pixcorr (nsdbench-v1): worse by 0.1\n" in found
    assert found.endswith("### Notes\n\n- a note\n\n")
