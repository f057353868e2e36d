"""``nsdbench pretrain`` and the options of ``run`` that use what it leaves, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nsdbench.cli import app
from nsdbench.errors import NsdbenchError

DECODER = '''
import json
import numpy as np
from nsdbench.adapters.floors import MeanImage

class Sharing(MeanImage):
    """The shared part is a level of grey, with which every fit from it answers."""
    name = "sharing"
    def learn_shared(self, parts, folder, progress):
        np.save(folder / "grey.npy", np.uint8(77))
        facts = {"model": self.name, "preset": self.preset, "sha256": "abcdef0123",
                 "subjects": [trials.subject for trials, _ in parts]}
        (folder / "start.json").write_text(json.dumps(facts))
    def learn(self, train, stimuli, progress):
        super().learn(train, stimuli, progress)
        if self.context.start:
            self.images[:] = np.load(self.context.start / "grey.npy")
'''
MODEL = "sharing_decoder:Sharing"


def nsdbench(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    """Message and remedy with which a command is refused."""
    error = nsdbench(*arguments).exception
    assert isinstance(error, NsdbenchError), error
    return f"{error.message} {error.remedy}"


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sharing_decoder.py").write_text(DECODER)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def tiny(tiny_root: Path, sim_cache: Path) -> list[str]:
    return ["--data-dir", str(tiny_root), "--cache", str(sim_cache)]


def test_a_run_from_a_pretraining_is_told_apart_in_every_output(tiny: list[str], tmp_path: Path) -> None:
    done = nsdbench("pretrain", "--model", MODEL, "--subject", "7", "--out", tmp_path / "start", *tiny)
    assert done.exit_code == 0, done.output
    assert f"--start {tmp_path / 'start'}" in done.stderr
    run = ["run", "--model", MODEL, "--subject", "1", "--split", "vision", "--metrics", "pixcorr", *tiny]
    run += ["--out", str(tmp_path / "runs")]
    assert nsdbench(*run).exit_code == 0
    tuned = [*run, "--start", str(tmp_path / "start"), "--train-trials", "20"]
    rows = json.loads(nsdbench(*tuned, "--json").stdout)["rows"]
    assert {(row["preset"], row["decoder_train_trials"]) for row in rows} == {
        ("standard+20trials+pretrained-7-abcdef", 20)
    }
    table = nsdbench("compare", tmp_path / "runs").stdout
    assert table.count("sharing") == 2
    assert table.count("20trials") == table.count("pretrained-7-abcdef") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "mindey2"], "mindeye2"),
        (["--model", "mindeye2,mindeye1"], "one by one"),
        (["--model", "ridge"], "no part that subjects share"),
        (["--model", "mindeye2", "--preset", "huge"], "retrained"),
        (["--model", "mindeye2", "--preset", "published"], "Choose --preset retrained or mini"),
        (["--model", "mindeye2", "--core-norm", "zscore"], "train_stats"),
        (["--model", "mindeye2", "--subject", "one"], "--subject takes numbers"),
        (["--model", "mindeye2", "--device", "tpu"], "cpu"),
        (["--model", "mindeye2", "--out", "."], "exists already"),
    ],
)
def test_misuse_of_pretrain_is_answered_before_a_data_set_is_simulated(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    cache = tmp_path / "cache"
    rest = ["--dataset", "sim:tiny", "--cache", str(cache)]
    rest += [] if "--out" in arguments else ["--out", str(tmp_path / "start")]
    rest += [] if "--subject" in arguments else ["--subject", "1"]
    assert words in refusal("pretrain", *arguments, *rest)
    assert not cache.exists()


def test_subjects_and_trials_that_are_not_there_are_refused(tiny: list[str], tmp_path: Path) -> None:
    pretrain = ["pretrain", "--model", MODEL, "--out", tmp_path / "start", *tiny]
    assert "Subjects present: 1, 7" in refusal(*pretrain, "--subject", "2")
    assert "training trials, not 99999" in refusal(*pretrain, "--subject", "7", "--train-trials", "99999")
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "mindeye2", "--start", "nowhere"], "nowhere holds no pretraining"),
        (["--model", "ridge", "--start", "nowhere"], "ridge cannot begin"),
        (["--model", "ridge", "--subject", "one"], "--subject takes numbers"),
        (["--model", "mindeye2", "--preset", "published", "--train-trials", "5"], "nothing is fitted"),
    ],
)
def test_misuse_of_run_is_answered_before_a_data_set_is_simulated(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    cache = tmp_path / "cache"
    assert words in refusal("run", *arguments, "--dataset", "sim:tiny", "--cache", cache)
    assert not cache.exists()


def test_a_pretraining_is_trained_or_taken_as_published_but_not_both(tmp_path: Path) -> None:
    out = tmp_path / "start"
    for choice in ([], ["--subject", "1,2", "--published-without", "1"]):
        assert "either" in refusal("pretrain", "--model", "mindeye2", *choice, "--out", out)
    assert "mindeye2-multisubject-without-subj01" in refusal(
        "pretrain", "--model", "mindeye2", "--published-without", 1, "--out", out, "--weights-dir", tmp_path
    )
    assert not out.exists()
