"""``nsdbench run``, ``score`` and the catalogue verbs, as a user types them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from nsdbench.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    stdout: str
    stderr: str


def nsdbench(*args: str | Path, expect: int = 0) -> Done:
    """Run a command as ``main`` does, but in this process: importing torch for each would take minutes in all."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["nsdbench", *map(str, args)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert end.value.code == expect, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return Done(out.getvalue(), err.getvalue())


@pytest.fixture
def tiny(tiny_root: Path, sim_cache: Path, tmp_path: Path) -> list[str]:
    return ["--data-dir", str(tiny_root), "--cache", str(sim_cache), "--out", str(tmp_path / "runs")]


def test_run_writes_rows_for_both_splits_and_says_they_are_simulated(tiny: list[str], tmp_path: Path) -> None:
    done = nsdbench("run", "--model", "mean-image", "--subject", "1", *tiny, "--json")
    rows = json.loads(done.stdout)["rows"]
    assert {row["split"] for row in rows} == {"vision", "imagery"}
    assert {row["status"] for row in rows} == {"simulated"}
    assert {row["metric"] for row in rows} >= {"pixcorr", "ssim"}
    assert all(row["n_targets"] in (6, 12) for row in rows)
    assert list((tmp_path / "runs" / "leaderboard").rglob("*.parquet"))


def test_plan_computes_nothing(tiny: list[str], tmp_path: Path) -> None:
    done = nsdbench("run", "--model", "ridge", "--subject", "1,7", *tiny, "--plan", "--json")
    cells = json.loads(done.stdout)["cells"]
    assert [(c["subject"], c["split"], c["state"]) for c in cells] == [
        (1, "vision", "new"), (1, "imagery", "new"), (7, "vision", "new"), (7, "imagery", "new"),
    ]  # fmt: skip
    assert not (tmp_path / "runs").exists()


def test_plan_says_what_is_there_and_what_lacks_scores(tiny: list[str]) -> None:
    run = ["run", "--model", "mean_image", "--subject", "1", *tiny, "--metrics"]
    nsdbench(*run, "pixcorr", "--split", "vision")

    def states(*args: str) -> list[str]:
        return [
            cell["state"] for cell in json.loads(nsdbench(*run, *args, "--plan", "--json").stdout)["cells"]
        ]

    assert states("pixcorr") == ["complete", "fitted"]
    assert states("pixcorr,ssim") == ["unscored", "fitted"]
    assert states("pixcorr", "--fresh") == ["new", "new"]


def test_scores_of_random_networks_are_labelled_untrained_and_no_others(tiny: list[str]) -> None:
    done = nsdbench(
        "run", "--model", "mean_image", "--split", "vision", "--subject", "1", *tiny,
        "--metrics", "alexnet2,pixcorr", "--weights", "random", "--json",
    )  # fmt: skip
    labels = {(row["metric"], row["status"], row["weights_id"]) for row in json.loads(done.stdout)["rows"]}
    assert labels == {("alexnet2", "untrained", "random-alexnet"), ("pixcorr", "simulated", None)}


def test_missing_weights_name_file_address_and_remedy(tiny: list[str], tmp_path: Path) -> None:
    done = nsdbench(
        "run", "--model", "mean_image", "--split", "vision", "--subject", "1", *tiny,
        "--metrics", "alexnet2", "--weights-dir", tmp_path / "none", expect=2,
    )  # fmt: skip
    assert "alexnet-owt-7be5be79.pth" in done.stderr
    assert "https://" in done.stderr
    assert "nsdbench weights fetch" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model", "rigde"], "ridge"),
        (["--model", "ridge", "--split", "seen"], "shared1000"),
        (["--model", "ridge", "--subject", "4"], "Subjects present: 1, 7"),
        (["--model", "ridge", "--subject", "one"], "--subject takes numbers"),
        (["--model", "ridge", "--metrics", "pixcor"], "pixcorr"),
        (["--model", "ridge", "--preset", "huge"], "standard"),
        (["--model", "ridge", "--device", "tpu"], "cpu"),
        (["--model", "ridge", "--profile", "mindseye"], "mindeye"),
        (["--model", "ridge", "--imagery-norm", "zscore"], "run_z"),
        (["--model", "ridge", "--core-norm", "zscore"], "train_stats"),
        (["--model", "ridge", "--shared", "907"], "982"),
        (["--model", "ridge", "--label-source", "letter"], "condition"),
        (["--model", "ridge", "--dataset", "nsd"], "not the real NSD"),
    ],
)
def test_misuse_is_answered_with_the_remedy_and_exit_code_2(
    tiny: list[str], args: list[str], words: str
) -> None:
    assert words in nsdbench("run", *args, *tiny, expect=2).stderr


def test_misuse_is_answered_before_a_data_set_is_simulated(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for args in (["--model", "rigde"], ["--model", "ridge", "--split", "seen"], ["--model", "ridge", "--average", "x"],
                 ["--model", "ridge", "--weights", "none"], ["--model", "ridge", "--profile", "x"]):  # fmt: skip
        nsdbench("run", *args, "--dataset", "sim:tiny", "--cache", cache, expect=2)
    assert not cache.exists()


def test_places_that_cannot_be_written_are_named_in_one_sentence(tiny: list[str], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    run = ["run", "--model", "mean_image", "--split", "vision", "--subject", "1", *tiny, "--fresh"]
    for option in ("--out", "--leaderboard", "--cache"):
        message = nsdbench(*run, option, taken, expect=2).stderr
        assert str(taken) in message and option in message


def test_an_unexpected_error_shows_where_it_came_from_on_request(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buggy_decoder.py").write_text(
        "from nsdbench.adapters.floors import MeanImage\n"
        "class Buggy(MeanImage):\n"
        "    name = 'buggy'\n"
        "    def learn(self, train, stimuli, progress):\n"
        "        raise ZeroDivisionError('one bug')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = [sys.executable, "-m", "nsdbench", "run", "--model", "buggy_decoder:Buggy", "--subject", "1", *tiny]
    quiet, verbose = (
        subprocess.run([*run, *more], capture_output=True, text=True, check=False) for more in ([], ["-v"])
    )
    assert quiet.returncode == verbose.returncode == 2
    assert "ZeroDivisionError: one bug" in quiet.stderr and "Traceback" not in quiet.stderr
    assert 'buggy_decoder.py", line 5' in verbose.stderr


def test_a_reader_that_has_seen_enough_causes_no_complaint() -> None:
    done = subprocess.run(
        f"{sys.executable} -m nsdbench compare --published --format csv | head -1", shell=True,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("dataset,") and done.stderr == ""


def test_a_reader_that_leaves_early_does_not_turn_the_exit_code_into_success() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "nsdbench", "compare", "--published", "--format", "csv"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 141


def test_mistyped_options_are_json_where_json_was_asked_for() -> None:
    done = nsdbench("run", "--model", "ridge", "--samples", "0", "--json", expect=2)
    assert json.loads(done.stderr)["error"]["kind"] == "UsageError"
    assert "nsdbench run --help" in json.loads(done.stderr)["error"]["remedy"]


def test_errors_are_json_where_json_was_asked_for(tiny: list[str]) -> None:
    done = nsdbench("run", "--model", "rigde", *tiny, "--json", expect=2)
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["kind"] == "UsageError"
    assert "ridge" in error["remedy"]
    assert done.stdout == ""


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    done = nsdbench("run", "--model", "ridge", "--data-dir", tmp_path, expect=2)
    assert str(tmp_path) in done.stderr


def test_models_and_metrics_are_listed() -> None:
    models = {row["model"]: row for row in json.loads(nsdbench("models", "--json").stdout)["models"]}
    assert models["mean_image"]["baseline"] and not models["ridge"]["baseline"]
    listing = json.loads(nsdbench("metrics", "--json").stdout)
    directions = {row["metric"]: row["direction"] for row in listing["metrics"]}
    assert (
        directions["pixcorr"] == "higher"
        and directions["effnet"] == "lower"
        and directions["swav"] == "lower"
    )
    assert {"nsdbench-v1", "mindeye", "imagery-asrun"} <= {row["profile"] for row in listing["profiles"]}


@pytest.mark.parametrize("name", ["ridge", "mean_image", "random_image"])
def test_check_adapter_passes_for_the_built_in_models(sim_cache: Path, name: str) -> None:
    done = nsdbench("check-adapter", name, "--cache", sim_cache, "--json")
    document = json.loads(done.stdout)
    assert document["ok"] and {c["outcome"] for c in document["checks"]} <= {"passed", "skipped"}


def test_check_adapter_takes_one_model_and_a_preset_that_exists(sim_cache: Path) -> None:
    assert "one by one" in nsdbench("check-adapter", "ridge,mean_image", expect=2).stderr
    done = nsdbench("check-adapter", "ridge", "--preset", "huge", "--cache", sim_cache, expect=2)
    assert "standard" in done.stderr


LEAKY = '''
import numpy as np
from nsdbench.adapters.floors import RandomImage

class Leaky(RandomImage):
    """Learns from anything, draws from a hidden generator, mixes targets, and breaks on odd voxels."""
    name = "leaky"
    def fit(self, train, stimuli, *, progress=None):
        from nsdbench.types import Silent
        if train.split == "train":
            self.learn(train, stimuli, Silent())
        self.n_voxels = train.n_voxels
    def generate(self, trials, n_samples, seed, progress):
        trials.betas[:] = 0
        return super().generate(trials, n_samples, int(np.random.default_rng().integers(1000)), progress)
'''


def test_check_adapter_finds_leaks_hidden_state_and_changed_input(
    sim_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaky_decoder.py").write_text(LEAKY)
    monkeypatch.syspath_prepend(tmp_path)
    done = nsdbench("check-adapter", "leaky_decoder:Leaky", "--cache", sim_cache, "--json", expect=1)
    failed = {c["check"] for c in json.loads(done.stdout)["checks"] if c["outcome"] == "failed"}
    assert failed >= {
        "same seed same images",
        "input is left alone",
        "refuses test trials",
        "save and load",
    }


def test_external_reconstructions_equal_to_their_targets_score_perfectly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("A1", "A2", "B1"):
        picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).resize((100, 100))
        for folder in ("recon", "truth"):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{name}.png")
    done = nsdbench(
        "score", tmp_path / "recon", "--targets", tmp_path / "truth", "--split", "vision", "--name", "copy",
        "--metrics", "pixcorr,ssim,pixel_2way", "--out", tmp_path / "runs", "--json",
    )  # fmt: skip
    values = {row["metric"]: row["value"] for row in json.loads(done.stdout)["rows"]}
    assert values == pytest.approx({"pixcorr": 1.0, "ssim": 1.0, "pixel_2way": 1.0})


def test_rows_that_assume_a_subject_say_so(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "A1.png")
    score = [
        "score",
        tmp_path,
        "--targets",
        tmp_path,
        "--split",
        "vision",
        "--name",
        "x",
        "--metrics",
        "pixcorr",
    ]
    score += ["--out", tmp_path / "runs", "--json"]
    assert any("subject 1" in note for note in json.loads(nsdbench(*score).stdout)["notes"])
    assert not any("--subject" in n for n in json.loads(nsdbench(*score, "--subject", "1").stdout)["notes"])


def test_a_name_or_data_set_that_makes_no_sense_is_refused_before_scoring(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "A1.png")
    score = ["score", tmp_path, "--targets", tmp_path, "--split", "vision", "--metrics", "pixcorr"]
    nsdbench(*score, "--name", "../../elsewhere", "--out", tmp_path / "a" / "b" / "runs", expect=2)
    assert "takes the place" in nsdbench(*score, "--dataset", "sim:tiny", expect=2).stderr
    assert [p.name for p in tmp_path.iterdir()] == ["A1.png"]


def test_scoring_without_a_split_or_with_foreign_targets_is_refused(tmp_path: Path) -> None:
    for folder, name in (("recon", "X9"), ("truth", "A1")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32), "red").save(tmp_path / folder / f"{name}.png")
    base = [
        "score",
        tmp_path / "recon",
        "--targets",
        tmp_path / "truth",
        "--metrics",
        "pixcorr",
        "--out",
        tmp_path / "r",
    ]
    assert "--split" in nsdbench(*base, expect=2).stderr
    assert "X9" in nsdbench(*base, "--split", "vision", expect=2).stderr


def test_every_published_tile_folder_is_scored_and_mismatched_targets_are_said_out_loud(
    shared: Path, tmp_path: Path
) -> None:
    root = shared / "data" / "real" / "nsdimagery-recons"
    with (root / "expected_metrics.csv").open() as handle:
        cells = [(row["method"], row["subject"], row["mode"]) for row in csv.DictReader(handle)]
    paths = [root / "tiles" / method / subject / mode for method, subject, mode in cells if mode == "vision"]
    done = nsdbench(
        "score", *paths, "--targets", root / "groundtruth", "--split", "vision", "--metrics", "pixcorr,ssim",
        "--out", tmp_path, "--json",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert len(document["rows"]) == 2 * len(paths)
    assert all(row["n_targets"] == 6 for row in document["rows"])
    assert any("B1_W" in note for note in document["notes"])


def test_miniature_networks_score_simulated_runs_and_nothing_else(tiny: list[str], tmp_path: Path) -> None:
    common = ["--model", "mean_image", "--subject", "1", "--split", "vision"]
    nsdbench("run", *common, *tiny, "--metrics", "pixcorr")
    (run,) = (path.parent for path in (tmp_path / "runs").rglob("run.json"))
    done = nsdbench("score", run, *tiny, "--metrics", "mini_clip", "--json")
    assert {row["metric"] for row in json.loads(done.stdout)["rows"]} == {"mini_clip"}
    Image.new("RGB", (32, 32), "red").save(tmp_path / "A1.png")
    folder = ["score", tmp_path, "--targets", tmp_path, "--split", "vision", "--out", tmp_path / "other"]
    assert "know only simulated scenes" in nsdbench(*folder, "--metrics", "mini_clip", expect=2).stderr
