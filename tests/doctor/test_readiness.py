"""What each model lacks, on empty, partial and complete data directories."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nsdbench import weights
from nsdbench.data import Dataset, LoadOptions
from nsdbench.doctor import Question, Report, examine
from nsdbench.errors import UsageError
from nsdbench.preparation.betas import prepare_betas


def report(**asked: object) -> Report:
    return examine(Question(**asked))  # type: ignore[arg-type]


def missing(found: Report) -> set[str]:
    return {file.name for summary in found.summaries for file in summary.files}


def test_on_a_complete_data_set_every_model_is_ready_and_no_command_is_left(sound: Path) -> None:
    found = report(data_dir=sound, splits="all")
    assert {summary.state for summary in found.summaries} == {"ready"}
    assert not any(summary.commands for summary in found.summaries)
    assert not found.steps


def test_exactly_the_file_that_was_taken_away_is_missing(copy: Path) -> None:
    key = "nsddata/bdata/nsdimagery/nsdimagery_subj02_imgA_2.tsv"
    (copy / key).unlink()
    found = report(models="ridge", data_dir=copy)
    assert missing(found) == {key}
    (summary,) = found.summaries
    assert {(cell.subject, cell.state) for cell in summary.cells} == {(1, "ready"), (2, "missing")}
    assert summary.commands == (f"nsdbench data fetch --for imagery,train --subject 2 --data-dir {copy}",)


def test_a_core_session_is_asked_for_by_models_that_learn_and_by_shared1000_only(copy: Path) -> None:
    key = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session03.hdf5"
    (copy / key).unlink()
    learns = report(models="ridge", splits="vision", subjects="1", data_dir=copy)
    assert missing(learns) == {key}
    found = report(models="mindeye2", splits="vision", subjects="1", preset="published", data_dir=copy)
    assert key not in missing(found)
    found = report(models="mindeye2", splits="shared1000", subjects="1", preset="published", data_dir=copy)
    assert key in missing(found)


def test_only_takagi_cannot_do_without_the_regions(copy: Path) -> None:
    (copy / "nsddata/ppdata/subj01/func1pt8mm/roi/streams.nii.gz").unlink()
    found = report(models="takagi,brain_diffuser", subjects="1", data_dir=copy)
    assert {summary.model: summary.state for summary in found.summaries} == {
        "takagi": "missing",
        "brain_diffuser": "ready",
    }


def test_a_nifti_twin_is_as_good_as_the_hdf5(copy: Path) -> None:
    folder = copy / "nsddata_betas/ppdata/subj01/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR"
    (folder / "betas_nsdimagery.hdf5").rename(folder / "betas_nsdimagery.nii.gz")
    assert not missing(report(models="ridge", splits="imagery", subjects="1", data_dir=copy))


def test_an_empty_directory_lacks_everything_of_the_real_nsd(tmp_path: Path) -> None:
    found = report(models="ridge", subjects="1", data_dir=tmp_path)
    (summary,) = found.summaries
    betas = [file for gap in summary.gaps if gap.what == "core betas" for file in gap.files]
    assert len(betas) == 40
    assert sum(file.size or 0 for file in betas) == pytest.approx(
        40 * 1.0948e9, rel=0.01
    )  # 40.8 GiB as released
    assert {"NSD-Imagery betas", "trial labels", "core images", "metric networks"} <= {
        gap.what for gap in summary.gaps
    }
    assert found.ok


def test_a_published_checkpoint_is_asked_for_by_subject_and_one_that_was_never_published_is_impossible(
    tmp_path: Path,
) -> None:
    found = report(models="mindeye1", subjects="1,2", data_dir=tmp_path)
    (summary,) = found.summaries
    own = {f.name for gap in summary.gaps if gap.what == "checkpoint of the subject" for f in gap.files}
    assert own == {"mindeye1-subj01", "mindeye1-lowlevel-subj01"}
    (cell,) = {cell.subject: cell for cell in summary.impossible}.values()
    assert cell.subject == 2 and "not published" in cell.reason


def test_weights_that_are_here_are_not_missing(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / weights.entry("vgg19-caffe").filename).write_bytes(b"x")
    found = report(models="icnn", subjects="1", data_dir=tmp_path, weights_dir=shelf)
    assert "vgg19-caffe" not in missing(found) and "fc7-generator" in missing(found)


def test_splits_that_lack_the_same_are_one_row(tmp_path: Path) -> None:
    found = report(models="ridge", splits="all", subjects="1", data_dir=tmp_path)
    assert [summary.splits for summary in found.summaries] == [("vision", "imagery"), ("shared1000",)]


def test_without_a_directory_the_way_to_a_first_row_has_four_steps() -> None:
    found = report(models="ridge", subjects="1")
    verbs = [step.split()[1:3] for step in found.steps]
    assert verbs[:3] == [["data", "fetch"], ["data", "prepare"], ["weights", "fetch"]]
    assert verbs[3][0] == "run" and len(verbs) == 4
    assert 0 < found.step_bytes["mindeye2"] < found.step_bytes["bucket"]


def test_a_subject_or_preset_that_does_not_exist_is_refused(sound: Path) -> None:
    with pytest.raises(UsageError, match="no subject 5"):
        report(data_dir=sound, subjects="5")
    with pytest.raises(UsageError, match="preset 'huge'"):
        report(preset="huge")


def test_a_preset_that_some_models_lack_leaves_them_their_own() -> None:
    found = report(models="ridge,mindeye2", preset="retrained")
    assert {(s.model, s.preset) for s in found.summaries} == {
        ("ridge", "standard"),
        ("mindeye2", "retrained"),
    }


def test_every_model_is_looked_at_whatever_preset_is_asked_for() -> None:
    found = report(preset="retrained")
    assert {s.model: s.preset for s in found.summaries}["takagi"] == "published"


def test_a_variant_is_called_as_it_was_named_and_counted_with_its_own_settings() -> None:
    name = "nsdbench.adapters.takagi:TakagiCoarse"
    found = report(models=f"takagi,{name}", subjects="1")
    assert f"--model {name} --preset published" in found.summaries[1].commands[1]
    usual, coarse = found.estimates
    assert coarse.model == name and coarse.splits[0].seconds < usual.splits[0].seconds / 10


def test_sessions_in_a_compact_store_need_no_raw_files(copy: Path) -> None:
    prepare_betas(Dataset.open(copy), 1, LoadOptions(), prune=True)
    assert not list(copy.glob("nsddata_betas/ppdata/subj01/**/betas_session*"))
    assert not missing(report(models="ridge", splits="all", subjects="1", data_dir=copy))


def test_a_damaged_file_that_tells_which_others_are_needed_is_a_problem(copy: Path) -> None:
    (copy / "nsddata/experiments/nsdimagery/A_pair_list.mat").write_bytes(b"no longer a list")
    found = report(models="ridge", splits="imagery", subjects="1", data_dir=copy)
    assert not found.ok
    assert any("A_pair_list.mat" in f.finding for f in found.findings if f.state == "problem")


def test_a_file_of_another_size_than_published_is_a_problem(tmp_path: Path) -> None:
    sized = next(w for w in weights.REGISTRY.values() if w.size is not None)
    (tmp_path / sized.filename).write_bytes(b"cut off")
    found = report(models="ridge", weights_dir=tmp_path)
    assert [f.what for f in found.findings if f.state == "problem"] == [sized.id]
    assert not found.ok


def test_disks_are_compared_with_all_that_goes_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)

    def with_free(gigabytes: int) -> dict[str, str]:
        free = usage._replace(free=gigabytes * 10**9)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
        found = report(models="mindeye2", subjects="1", data_dir=tmp_path, weights_dir=tmp_path / "shelf")
        assert found.ok
        return {f.what: f.state for f in found.findings if f.what.startswith("disk")}

    # about 1.1 GB of data and 52.0 GB of weights, here on one disk
    assert with_free(50) == {"disk for data": "warning", "disk for weights": "warning"}
    assert with_free(60) == {"disk for data": "ok", "disk for weights": "ok"}
