"""What stands on a page, and what must never stand there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from nsdbench import leaderboard, report
from nsdbench.compare import compare
from nsdbench.comparison.tables import number
from nsdbench.data import Dataset
from nsdbench.errors import DataError, LeaderboardError, ReconstructionError, UsageError
from nsdbench.inspection import Check, Inspection
from nsdbench.manifest import read_manifest
from nsdbench.report import Choice
from nsdbench.store import sha256_file

MakeRun = Callable[..., Path]
VOID = {"meta", "link", "img", "wbr", "path", "use", "rect"}


class Page(HTMLParser):
    """A page as a browser would see it: elements with their attributes, text by element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(paths: Path | list[Path], out: Path, *, published: bool = False, **choice: object) -> Page:
    paths = [paths] if isinstance(paths, Path) else paths
    return Page(report.write(paths, out, published=published, choice=Choice(**choice)).path)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(runs: Path, target_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(runs, tmp_path_factory.mktemp("page"))


def test_tables_hold_the_values_of_compare(page: Page, runs: Path) -> None:
    shown = [row for row in compare([runs]).rows if row["subject"] == "mean" and row["stimulus_set"] == "AB"]
    assert len(shown) == 24
    for row in shown:
        assert row["model"] in page.text
        assert number(row["value"]) in page.text


def test_conclusions_and_notes_of_compare_stand_on_the_page(page: Page, runs: Path) -> None:
    found = compare([runs])
    assert found.conclusions
    for sentence in (*found.conclusions, *found.notes):
        assert sentence in page.text


def test_headings_come_in_order_and_links_lead_somewhere(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"].removeprefix("#") for link in page.all("a")]
    assert links and set(links) <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    assert not page.all("script")
    sources = [a[name] for _, a in page.elements for name in ("src", "href") if name in a]
    assert all(source.startswith(("data:", "#")) for source in sources)
    handlers = [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not handlers


def test_every_plot_says_what_it_shows_in_numbers(page: Page) -> None:
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert all(labels)
    (vision,) = [label for label in labels if label.startswith("mini_clip, vision. ")]
    assert re.search(r"icnn \.\d{3} \[\.\d\d,[.\d]+\]", vision)
    assert "subject 1 ." in vision and "subject 2 ." in vision
    (scatter,) = [label for label in labels if label.startswith("mini_clip, seen against imagined")]
    assert re.search(r"ridge seen \.\d{3} \[.*\], imagined \.\d{3} \[.*\], gap", scatter)
    (slope,) = [label for label in labels if label.startswith("Mean rank over 3 metrics")]
    assert re.search(r"icnn mean rank [\d.]+ seen, [\d.]+ imagined", slope)
    curves = [label for label in labels if "share identified" in label]
    assert len(curves) == 2 and all("chance .500 of 2, .083 of 12" in label for label in curves)


def test_one_subject_gets_no_points_of_subjects(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    found = write(tmp_path / "runs", tmp_path / "out")
    assert not any("subject 1 ." in svg["aria-label"] for svg in found.all("svg"))
    assert "single subjects" not in found.text


def test_one_split_has_no_section_about_the_gap(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", split="imagery")
    found = write(tmp_path / "runs", tmp_path / "out")
    assert {"imagery", "curves", "gallery"} <= {a.get("id") for _, a in found.elements}
    assert not {"vision", "gap"} & {a.get("id") for _, a in found.elements}


def test_equal_input_gives_equal_bytes(runs: Path, tmp_path: Path) -> None:
    first, second = (report.write([runs], tmp_path / name).path.read_bytes() for name in "ab")
    assert first == second


def test_simulated_results_are_announced(page: Page) -> None:
    assert "Simulated data." in page.text


def test_measured_results_are_not_called_simulated(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", dataset="target-folder")
    assert "Simulated data." not in write(tmp_path / "runs", tmp_path / "out").text


def test_untrained_and_incomplete_results_are_announced(make_run: MakeRun, tmp_path: Path) -> None:
    few = ("A1", "A2", "A3", "B1", "B2")
    make_run(tmp_path / "runs", targets=few, origin={"weights_id": "random-mini_clip", "n_stimuli": 12})
    found = write(tmp_path / "runs", tmp_path / "out")
    assert "Untrained networks." in found.text and "Incomplete." in found.text


# stimuli


def pictures(page: Page) -> list[str]:
    return [image["alt"] for image in page.all("img")]


def test_targets_come_from_the_folder_that_was_named(
    make_run: MakeRun, target_folder: Path, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs", dataset="target-folder")
    found = write(tmp_path / "runs", tmp_path / "out", data_dir=target_folder)
    assert [alt for alt in pictures(found) if alt.startswith("target ")] == [
        f"target {letter}{n}" for letter in "AB" for n in range(1, 7)
    ]


def test_targets_come_from_the_data_set_that_the_run_names_even_by_a_relative_path(
    make_run: MakeRun, tiny_root: Path, tmp_path: Path
) -> None:
    data = tmp_path / "project" / "data"
    data.parent.mkdir()
    data.symlink_to(tiny_root)
    truth = Dataset.open(tiny_root).stimuli("vision").content_hash
    make_run(tmp_path / "project" / "runs", origin={"stimulus_hash": truth}, config={"dataset_root": "data"})
    found = write(tmp_path / "project" / "runs", tmp_path / "out")
    assert "target A1" in pictures(found)


def test_a_missing_data_set_is_named_and_the_page_goes_on(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", config={"dataset_root": "nowhere/at/all"})
    found = write(tmp_path / "runs", tmp_path / "out")
    assert "Target images are missing: nowhere/at/all is not a directory" in found.text
    assert not any(alt.startswith("target ") for alt in pictures(found))
    assert any(alt.startswith("A1 by ridge") for alt in pictures(found))


def test_other_targets_than_the_scored_ones_are_not_shown(
    make_run: MakeRun, tiny_root: Path, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs")
    found = write(tmp_path / "runs", tmp_path / "out", data_dir=tiny_root)
    assert "holds other targets than the ones that were scored" in found.text
    assert not any(alt.startswith("target ") for alt in pictures(found))


def test_real_nsd_stimuli_come_with_a_warning(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", dataset="nsd")
    assert "Keep this file on this computer." in write(tmp_path / "runs", tmp_path / "out").text


def test_without_stimuli_neither_targets_nor_floors_are_shown(
    make_run: MakeRun, target_folder: Path, tmp_path: Path
) -> None:
    for model in ("ridge", "random_image", "mean_image"):
        make_run(tmp_path / "runs", model, dataset="target-folder")
    shown = write(tmp_path / "runs", tmp_path / "all", data_dir=target_folder)
    bare = write(tmp_path / "runs", tmp_path / "out", data_dir=target_folder, stimuli=False)
    assert {alt.split(" by ")[-1].split(",")[0] for alt in pictures(bare)} == {"ridge"}
    assert len(pictures(shown)) == 12 + 3 * len(pictures(bare))
    assert "Target images left out" in bare.text
    assert "mean_image and random_image left out: their pictures are stimuli." in bare.text


def test_floors_alone_leave_an_explanation_and_no_picture(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "mean_image")
    found = write(tmp_path / "runs", tmp_path / "out", stimuli=False)
    assert not found.all("img")
    assert "mean_image left out: their pictures are stimuli." in found.text


def test_runs_whose_reconstructions_were_deleted_keep_their_scores(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "icnn")
    (make_run(tmp_path / "runs", "ridge") / "reconstructions.h5").unlink()
    found = write(tmp_path / "runs", tmp_path / "out")
    assert "No reconstructions.h5 in the run folder of ridge." in found.text
    assert all(" by icnn," in alt for alt in pictures(found)) and pictures(found)


def test_real_nsd_without_stimuli_says_that_they_are_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", dataset="nsd")
    found = write(tmp_path / "runs", tmp_path / "out", stimuli=False)
    assert "Stimuli left out." in found.text
    assert "Keep this file on this computer." not in found.text


# gallery


def test_each_picture_names_its_scores(page: Page, runs: Path) -> None:
    folder = next((runs / "sim" / "icnn" / "subj01" / "vision").iterdir())
    items = leaderboard.read_items(folder).to_pylist()
    (ssim,) = [r["value"] for r in items if (r["stimulus"], r["sample"], r["metric"]) == ("B3", 1, "ssim")]
    alts = [alt for alt in pictures(page) if alt.startswith("B3 by icnn, sample 1: ")]
    assert len(alts) == 2  # vision and imagery
    assert any(f"ssim {number(ssim)}," in alt for alt in alts)


def test_as_many_targets_and_samples_as_asked_for(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    found = write(tmp_path / "runs", tmp_path / "out", n_targets=3, n_samples=1)
    assert [alt.split(" by ")[0] for alt in pictures(found)] == ["A1", "B1", "B6"]
    assert "3 of 12 targets, chosen evenly by id." in found.text


def test_the_subject_of_the_gallery_can_be_chosen(runs: Path, tmp_path: Path) -> None:
    first = write(runs, tmp_path / "1")
    second = write(runs, tmp_path / "2", subject=2)
    assert "Subject 1; --gallery-subject shows others: 2." in first.text
    assert "Subject 2; --gallery-subject shows others: 1." in second.text
    assert first.all("img") != second.all("img")


def test_a_subject_that_is_not_there_is_said_to_be_missing(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    found = write(tmp_path / "runs", tmp_path / "out", subject=3)
    assert "There is no subject 3 here (--gallery-subject); shown is subject 1." in found.text


def test_runs_scored_without_networks_have_plots_too(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", metrics=(("ssim", "none"), ("gabor_2way", "AB12")))
    found = write(tmp_path / "runs", tmp_path / "out")
    labels = [svg["aria-label"] for svg in found.all("svg")]
    assert any(label.startswith("gabor_2way, vision. ridge") for label in labels)
    assert any(label.startswith("gabor_2way, vision: share identified") for label in labels)


def test_runs_without_similarities_have_no_curves_and_say_so(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "ridge")
    make_run(tmp_path / "runs", "icnn", matrices=False)
    found = write(tmp_path / "runs", tmp_path / "out")
    (curves,) = [svg["aria-label"] for svg in found.all("svg") if "share identified" in svg["aria-label"]]
    assert "ridge" in curves and "icnn" not in curves
    assert "icnn has no curves" in found.text


# checks of nsdbench inspect


def inspection(folder: Path, **changes: object) -> Inspection:
    key = read_manifest(folder).key
    facts: dict[str, object] = {
        "run_id": key.run_id, "dataset": key.dataset, "model": key.model, "preset": key.preset,
        "subject": key.subject, "split": key.split, "status": "simulated", "metric": "mini_clip",
        "metric_profile": "nsdbench-v1", "network": "mini_clip", "weights_id": "mini_clip-v1", "weights_sha256": "0",
        "reconstructions_sha256": sha256_file(folder / "reconstructions.h5"), "dataset_hash": "data",
        "stimulus_hash": "targets", "training_hash": "none", "n_train": 10, "pool": "AB12", "version": 1,
    }  # fmt: skip
    return Inspection(**facts | changes)  # type: ignore[arg-type]


def test_checks_stand_beside_what_they_are_compared_with(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs")
    said, why = "Nothing more than the set.", "no generator"
    checks = (
        Check("within_cluster_2way", 0.61, 0.5, 0.7, 0.5, "chance", "open", 12, 2, verdict=said),
        Check(
            "output_rank",
            0.4,
            0.3,
            0.5,
            1.0,
            "that of the targets",
            "below",
            12,
            2,
            verdict="Few dimensions.",
        ),
        Check("recovery_ceiling", unavailable=why),
    )
    inspection(folder, checks=checks, notes=("slow",)).write(folder)
    found = write(tmp_path / "runs", tmp_path / "out")
    assert ".610 [.50,.70] ~ .500" in found.text
    assert ".400 [.30,.50] < 1.00" in found.text
    assert said in found.text and f"Not available: {why}." in found.text and "slow" in found.text


def test_runs_that_were_not_inspected_have_no_section_about_it(page: Page) -> None:
    assert "checks" not in {a.get("id") for _, a in page.elements}


def test_a_damaged_file_of_checks_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs")
    (folder / "checks.json").write_text("{}")
    with pytest.raises(DataError, match=r"checks\.json"):
        report.write([folder], tmp_path / "out")


# hostile input


EVIL = "<img src=x onerror=alert(1)>\"'&$x_1$"


def test_hostile_names_of_models_are_text_in_tables_and_plots(make_run: MakeRun, tmp_path: Path) -> None:
    for split in ("vision", "imagery"):
        for model in ("ridge", "icnn"):
            make_run(tmp_path / "runs", model, split=split)
    rows = leaderboard.read(sorted(file.parent for file in (tmp_path / "runs").rglob("run.json")))
    names = [EVIL if name == "ridge" else name for name in rows["model"].to_pylist()]
    place = rows.schema.get_field_index("model")
    leaderboard.write(tmp_path / "rows.parquet", rows.set_column(place, "model", pa.array(names)))
    found = write(tmp_path / "rows.parquet", tmp_path / "out")
    assert not [image for image in found.all("img") if image.get("src") == "x"]
    assert EVIL in found.text
    assert any(EVIL in svg["aria-label"] for svg in found.all("svg"))


def test_hostile_ids_notes_and_facts_are_text(make_run: MakeRun, tmp_path: Path) -> None:
    targets = (EVIL, *(f"{n}</table>" for n in range(3)))
    make_run(
        tmp_path / "runs", targets=targets, matrices=False, notes=[f"note {EVIL}"], origin={"source": f"source {EVIL}"},
        config={"seed": f"seed {EVIL}"}, environment={"libraries": {EVIL: EVIL}},
    )  # fmt: skip
    found = write(tmp_path / "runs", tmp_path / "out")
    assert not [image for image in found.all("img") if not image["src"].startswith("data:")]
    for text in (f"note {EVIL}", f"source {EVIL}", f"seed {EVIL}", f"{EVIL} {EVIL}", EVIL):
        assert text in found.text
    assert any(alt.startswith(f"{EVIL} by ridge") for alt in pictures(found))


def test_formulas_in_names_are_not_typeset(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    rows = leaderboard.read(sorted(file.parent for file in (tmp_path / "runs").rglob("run.json")))
    place = rows.schema.get_field_index("model")
    renamed = rows.set_column(place, "model", pa.array([r"$\frac{a}{b}$"] * len(rows)))
    leaderboard.write(tmp_path / "rows.parquet", renamed)
    report.write([tmp_path / "rows.parquet"], tmp_path / "out")
    assert r">$\frac{a}{b}$</text>" in (tmp_path / "out" / "index.html").read_text()


# other inputs


def test_leaderboards_without_run_folders_make_a_page_without_pictures(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "runs")
    leaderboard.write(tmp_path / "rows.parquet", leaderboard.read(folder))
    found = write(tmp_path / "rows.parquet", tmp_path / "out")
    assert "ridge" in found.text
    assert not found.all("img")
    assert not {"gallery", "curves", "provenance"} & {a.get("id") for _, a in found.elements}


def test_published_results_alone_make_a_page(tmp_path: Path) -> None:
    found = write([], tmp_path / "out", published=True)
    assert {"vision", "imagery", "shared1000", "gap"} <= {a.get("id") for _, a in found.elements}
    assert "mindbridge" in found.text and "Scores, published" in found.text
    assert not found.all("details")  # nothing of one's own to fold them beside


def test_no_results_are_an_error_and_no_page(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(UsageError):
        report.write([tmp_path / "runs"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_reconstructions_are_named_and_the_old_page_stays(
    damaged: Path, runs: Path, tmp_path: Path
) -> None:
    before = report.write([runs], tmp_path / "out").path.read_bytes()
    with pytest.raises(ReconstructionError, match=re.escape(str(damaged))):
        report.write([damaged], tmp_path / "out")
    assert (tmp_path / "out" / "index.html").read_bytes() == before


@pytest.mark.parametrize("text", ["{", '{"status": "complete", "run_id": "ridge1vision", "provenance": {}}'])
def test_a_damaged_run_document_is_named(make_run: MakeRun, tmp_path: Path, text: str) -> None:
    folder = make_run(tmp_path / "runs")
    (folder / "run.json").write_text(text)
    with pytest.raises((DataError, LeaderboardError), match=r"run\.json"):
        report.write([tmp_path / "runs"], tmp_path / "out")
