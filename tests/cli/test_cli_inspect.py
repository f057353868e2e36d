"""``nsdbench inspect`` on simulated runs: what it finds, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nsdbench.cli import app
from nsdbench.errors import DataError, NsdbenchError, WeightsError
from nsdbench.inspection import read_checks
from nsdbench.metrics.registry import CHECKS

RETRIEVAL = '''
"""A decoder that answers with the training image whose betas are most alike."""
import numpy as np
from nsdbench.adapters.base import Adapter, training_images
from nsdbench.types import Reconstructions


class Retrieval(Adapter):
    name, paper, stochastic = "retrieval", "Test.", False

    def learn(self, train, stimuli, progress):
        rows = train.average_repeats()
        self.betas, self.images = rows.betas, training_images(stimuli, rows.targets, None, progress)

    def generate(self, trials, n_samples, seed, progress):
        nearest = np.argmax(trials.betas @ self.betas.T, axis=1)
        return Reconstructions(self.images[nearest][:, None], tuple(trials.stimulus.tolist()))

    def save(self, folder):
        np.savez(folder / "all.npz", betas=self.betas, images=self.images, n_voxels=self.n_voxels)

    @classmethod
    def load(cls, folder, preset=None, context=None):
        model = cls(preset, context)
        with np.load(folder / "all.npz") as stored:
            model.betas, model.images = stored["betas"], stored["images"]
            model.n_voxels = int(stored["n_voxels"])
        return model
'''


def nsdbench(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def made(tiny_root: Path, sim_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of three decoders on the vision split."""
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "retrieval_decoder.py").write_text(RETRIEVAL)
    models = "mean_image,takagi,retrieval_decoder:Retrieval"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        done = nsdbench(
            "run", "--model", models, "--subject", 1, "--split", "vision", "--samples", 1, "--metrics",
            "pixcorr", "--data-dir", tiny_root, "--cache", sim_cache, "--out", folder / "runs",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        yield folder / "runs"


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def one(runs: Path, model: str) -> Path:
    (document,) = runs.rglob(f"{model}-*/*/vision/*/run.json")
    return document.parent


def inspected(cache: Path, *arguments: object) -> list[dict[str, Any]]:
    done = nsdbench("inspect", *arguments, "--cache", cache, "--json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return found


def checks(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in run["checks"]}


def refusal(*arguments: object) -> NsdbenchError:
    error = nsdbench("inspect", *arguments).exception
    assert isinstance(error, NsdbenchError), error
    return error


def test_every_run_is_checked_and_says_through_which_network(runs: Path, sim_cache: Path) -> None:
    found = inspected(sim_cache, runs)
    assert [run["model"] for run in found] == ["mean_image", "retrieval", "takagi"]
    for run in found:
        assert (run["status"], run["metric"], run["weights_id"]) == ("simulated", "mini_clip", "mini_clip-v1")
        assert run["pool"] == "AB12" and run["n_train"] > 100
        assert list(checks(run)) == list(CHECKS)


def test_a_decoder_that_retrieves_is_caught(runs: Path, sim_cache: Path) -> None:
    (run,) = inspected(sim_cache, one(runs, "retrieval"))
    baseline, novelty = checks(run)["nn_baseline"], checks(run)["novelty_id"]
    assert (baseline["value"], baseline["low"], baseline["high"]) == (0.0, 0.0, 0.0)
    assert "exactly 0" in baseline["verdict"]
    assert novelty["details"]["top1"] == 0.0


def test_the_mean_image_is_caught(runs: Path, sim_cache: Path) -> None:
    (run,) = inspected(sim_cache, one(runs, "mean_image"))
    found = checks(run)
    assert found["output_rank"]["value"] == 0.0
    assert found["within_cluster_2way"]["value"] == pytest.approx(0.5)
    assert found["novelty_id"]["details"]["excess"] == pytest.approx(0.0)
    assert found["recovery_ceiling"]["unavailable"] == "mean_image makes no images of features"


def test_the_ceiling_of_a_generator_is_far_above_chance(runs: Path, sim_cache: Path) -> None:
    (run,) = inspected(sim_cache, one(runs, "takagi"), "--check", "recovery-ceiling")
    (ceiling,) = run["checks"]
    assert ceiling["reference"] > 0.8 > ceiling["value"]
    assert ceiling["n_targets"] + ceiling["details"]["n_left_out"] == 12


def test_a_decoder_that_is_not_installed_has_no_ceiling_and_its_name_imports_nothing(
    runs: Path, sim_cache: Path
) -> None:
    folder = one(runs, "takagi")
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | {"model": "this:that"}))
    (run,) = inspected(sim_cache, folder)
    reason = checks(run)["recovery_ceiling"]["unavailable"]
    assert "not installed" in reason and "import" not in reason
    assert checks(run)["nn_baseline"]["value"] is not None


def test_the_table_gives_value_interval_and_a_sentence(runs: Path, sim_cache: Path) -> None:
    done = nsdbench("inspect", one(runs, "retrieval"), "--cache", sim_cache)
    assert "(simulated)" in done.stdout and "weights mini_clip-v1" in done.stdout
    assert "0.773" in done.stdout and "[0.000, 0.000]" in done.stdout
    assert "n = 12" in done.stdout
    assert "not checked, the decoder retrieval is not installed here" in " ".join(done.stdout.split())


def test_several_runs_stand_below_each_other_check_by_check(runs: Path, sim_cache: Path) -> None:
    done = nsdbench("inspect", runs, "--cache", sim_cache, "--check", "output_rank,recovery_ceiling")
    lines = done.stdout.splitlines()
    title = lines.index("output_rank: do reconstructions vary in as many dimensions as their targets?")
    assert [line.split()[0] for line in lines[title + 2 : title + 5]] == [
        "mean_image-standard", "retrieval-standard", "takagi-mini",
    ]  # fmt: skip
    assert lines[title + 2].endswith("below 1.000 (that of the targets)") and "12 x 1" in lines[title + 2]
    assert "not checked, mean_image makes no images of features: mean_image-standard" in lines
    assert "nn_baseline" not in done.stdout


def test_random_networks_are_labelled(runs: Path, sim_cache: Path) -> None:
    (run,) = inspected(
        sim_cache, one(runs, "retrieval"), "--weights", "random", "--network", "alexnet5", "--check",
        "within_cluster_2way",
    )  # fmt: skip
    assert (run["status"], run["network"]) == ("untrained", "alexnet")


# checks.json


def test_answers_are_kept_and_asked_for_once(runs: Path, sim_cache: Path) -> None:
    folder = one(runs, "retrieval")
    inspected(sim_cache, folder, "--check", "nn_baseline")
    before = read_checks(folder)
    assert before is not None and [check.name for check in before.checks] == ["nn_baseline"]
    document = json.loads((folder / "checks.json").read_text())
    document["checks"][0]["verdict"] = "Kept."
    (folder / "checks.json").write_text(json.dumps(document))
    (run,) = inspected(sim_cache, folder)
    assert checks(run)["nn_baseline"]["verdict"] == "Kept."
    assert len(run["checks"]) == len(CHECKS)
    inspected(sim_cache, folder, "--network", "mini_inception", "--check", "set_oracle_floor")
    after = read_checks(folder)
    assert after is not None and after.metric == "mini_inception"
    assert [check.name for check in after.checks] == ["set_oracle_floor"]


def test_what_is_read_back_is_what_was_found(runs: Path, sim_cache: Path) -> None:
    folder = one(runs, "mean_image")
    assert read_checks(folder) is None
    (run,) = inspected(sim_cache, folder)
    found = read_checks(folder)
    assert found is not None and found.document() == run


def test_checks_of_other_reconstructions_are_not_those_of_the_run(runs: Path, sim_cache: Path) -> None:
    folder = one(runs, "retrieval")
    inspected(sim_cache, folder, "--check", "set_oracle_floor")
    with (folder / "reconstructions.h5").open("ab") as file:
        file.write(b"\0")
    assert read_checks(folder) is None
    assert "not the file that the scores beside it were made from" in str(refusal(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "checks/0"}, "schema"),
        ({"run_id": "0123456789abcdef"}, "not the run beside it"),
        ({"checks": [{"name": "astrology", "verdict": "Yes."}]}, "astrology"),
        (
            {"checks": [{"name": "nn_baseline", "value": float("nan"), "verdict": "Yes."}]},
            "NaN is not a number",
        ),
        ({"checks": [{"name": "nn_baseline", "value": "0.5", "verdict": "Yes."}]}, "'0.5'"),
        ({"checks": [{"name": "nn_baseline", "value": 0.5}]}, "neither verdict nor reason"),
        ({"checks": 3}, "damaged"),
        ({"stray": 1}, "stray"),
    ],
)
def test_a_file_of_checks_that_is_damaged_is_refused_and_made_again(
    runs: Path, sim_cache: Path, change: dict[str, Any], message: str
) -> None:
    folder = one(runs, "mean_image")
    inspected(sim_cache, folder, "--check", "output_rank")
    document = json.loads((folder / "checks.json").read_text())
    (folder / "checks.json").write_text(json.dumps(document | change))
    with pytest.raises(DataError, match=message):
        read_checks(folder)
    inspected(sim_cache, folder, "--check", "output_rank")
    assert read_checks(folder) is not None


def test_answers_that_cannot_be_kept_are_an_error_of_that_run(runs: Path, sim_cache: Path) -> None:
    folder = one(runs, "mean_image")
    inspected(sim_cache, folder, "--check", "output_rank")
    found = read_checks(folder)
    assert found is not None
    with pytest.raises(DataError, match="cannot be written"):
        found.write(folder / "run.json")  # a file where a folder should be


def test_a_file_of_checks_that_ends_early_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text('{"schema": "checks/1", "ch')
    with pytest.raises(DataError, match="not valid JSON") as caught:
        read_checks(tmp_path)
    assert caught.value.remedy == "Delete it and run `nsdbench inspect` again."


def test_reading_checks_loads_no_network() -> None:
    code = "import sys, nsdbench.inspection; sys.exit('torch' in sys.modules or 'h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# refusals


def test_unknown_names_are_refused_with_those_that_exist(runs: Path) -> None:
    assert "novelty_id" in str(refusal(runs, "--check", "astrology"))
    assert "mini_clip" in str(refusal(runs, "--network", "pixcorr"))
    assert "does not exist" in str(refusal(runs / "nowhere"))
    (runs / "empty").mkdir()
    assert "no complete run" in str(refusal(runs / "empty"))


def test_the_data_set_must_be_that_of_the_run(runs: Path, sim_cache: Path, tmp_path: Path) -> None:
    folder = one(runs, "mean_image")
    document = json.loads((folder / "run.json").read_text())
    root = Path(document["config"]["dataset_root"])
    document["config"]["dataset_root"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(document))
    assert "--data-dir" in refusal(folder, "--cache", sim_cache).remedy
    assert inspected(sim_cache, folder, "--data-dir", root, "--check", "output_rank")
    document["provenance"]["dataset_hash"] = "0123456789abcdef"
    (folder / "run.json").write_text(json.dumps(document))
    assert "0123456789abcdef" in str(refusal(folder, "--data-dir", root, "--cache", sim_cache))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": []}, "misspells a field: config"),
        ({"subject": 1.5}, "1.5 cannot be the subject"),
        ({"subject": 3}, None),  # its training images are not there, but its reconstructions are
        ({"config": {"train_trials": -1}}, "damaged: train_trials"),
        ({"config": {"load": 3}}, "--data-dir"),
        ({"split": "shared1000"}, "other targets"),
    ],
)
def test_a_damaged_record_of_a_run_is_refused_by_name(
    runs: Path, sim_cache: Path, tiny_root: Path, change: dict[str, Any], message: str | None
) -> None:
    folder = one(runs, "mean_image")
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | change))
    if message is None:
        (run,) = inspected(sim_cache, folder, "--check", "nn_baseline,output_rank")
        assert run["n_train"] is None and "subject 3" in checks(run)["nn_baseline"]["unavailable"]
        assert checks(run)["output_rank"]["value"] == 0.0
    else:
        assert message in str(refusal(folder, "--cache", sim_cache))


def test_missing_weights_are_said_once(runs: Path, sim_cache: Path, tmp_path: Path) -> None:
    done = nsdbench("inspect", runs, "--network", "clip", "--weights-dir", tmp_path, "--cache", sim_cache)
    assert isinstance(done.exception, WeightsError) and "clip-vit-l14-openai" in str(done.exception)
    assert "failed" not in done.stderr


def test_a_run_that_is_not_finished_is_left_out_or_refused(runs: Path, sim_cache: Path) -> None:
    folder = one(runs, "takagi")
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | {"status": "failed"}))
    assert "status failed" in str(refusal(folder))
    done = nsdbench("inspect", runs, "--check", "set_oracle_floor", "--cache", sim_cache, "--json")
    assert len(json.loads(done.stdout)["runs"]) == 2 and "left out, failed" in done.stdout


def test_a_damaged_run_does_not_stop_the_others(runs: Path, sim_cache: Path) -> None:
    (one(runs, "mean_image") / "reconstructions.h5").unlink()
    done = nsdbench("inspect", runs, "--check", "set_oracle_floor", "--cache", sim_cache, "--json")
    assert isinstance(done.exception, DataError)
    assert [run["model"] for run in json.loads(done.stdout)["runs"]] == ["retrieval", "takagi"]


def test_reconstructions_made_elsewhere_need_the_data_set_by_name(
    tiny_root: Path, sim_cache: Path, tmp_path: Path
) -> None:
    from nsdbench.data import Dataset

    targets = Dataset.open(tiny_root, cache=sim_cache).stimuli("vision")
    ids = sorted(targets.has_image)
    np.save(tmp_path / "theirs.npy", np.stack([targets.image(name) for name in ids]))
    (tmp_path / "theirs.targets.txt").write_text("\n".join(ids))
    done = nsdbench(
        "score", tmp_path / "theirs.npy", "--split", "vision", "--subject", 1, "--metrics", "pixcorr",
        "--data-dir", tiny_root, "--cache", sim_cache, "--out", tmp_path / "runs",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "--data-dir" in refusal(tmp_path / "runs", "--cache", sim_cache).remedy
    (run,) = inspected(sim_cache, tmp_path / "runs", "--data-dir", tiny_root)
    assert checks(run)["within_cluster_2way"]["value"] == 1.0
    assert "made elsewhere" in checks(run)["recovery_ceiling"]["unavailable"]
    assert any("made elsewhere" in note for note in run["notes"])


def test_the_checks_are_listed_with_the_metrics() -> None:
    listing = json.loads(nsdbench("metrics", "--json").stdout)
    assert {row["check"] for row in listing["checks"]} == set(CHECKS)
    assert "nn_baseline" in nsdbench("metrics").stdout
