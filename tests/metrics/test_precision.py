"""Scores of networks in bfloat16 are close to those in full precision and never taken for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nsdbench import flips, leaderboard, reconstructions, runfolder
from nsdbench.errors import UsageError
from nsdbench.manifest import RunManifest, read_manifest
from nsdbench.metrics.nets import load_net
from nsdbench.metrics.profiles import PROFILES, find, profile
from nsdbench.runfolder import StoredRun
from nsdbench.schema import Provenance, RunKey
from nsdbench.scoring import Scored, ScoreSettings, score
from nsdbench.similarity import Similarities
from nsdbench.types import Reconstructions, Stimuli

IDS = tuple(f"img{i}" for i in range(6))
KEY = RunKey("run", "sim", "model", "mini", 1, "shared1000")
NETWORKS = ("mini_alexnet2", "mini_clip", "mini_swav")
FREE = ("pixcorr", "ssim", "gabor_2way")


@pytest.fixture(scope="module")
def stimuli() -> Stimuli:
    rng = np.random.default_rng(1)
    images = {name: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for name in IDS}
    return Stimuli(IDS, ("core",) * 6, frozenset(IDS), images.__getitem__, "hash")


@pytest.fixture(scope="module")
def recon(stimuli: Stimuli) -> Reconstructions:
    rng = np.random.default_rng(2)
    truth = np.stack([stimuli.image(name) for name in IDS])[:, None] // 2
    return Reconstructions((truth + rng.integers(0, 128, (6, 2, 64, 64, 3))).astype(np.uint8), IDS)


@pytest.fixture(scope="module")
def both(
    stimuli: Stimuli, recon: Reconstructions, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Scored]:
    """The same images scored in both precisions, with one cache."""
    cache = tmp_path_factory.mktemp("cache")
    full = ScoreSettings(metrics=(*NETWORKS, *FREE), cache=cache)
    reduced = ScoreSettings(metrics=(*NETWORKS, *FREE), cache=cache, precision="bf16")
    return {s.precision: score(recon, stimuli, KEY, settings=s) for s in (full, reduced)}


def values(scored: Scored, metric: str) -> list[float]:
    return [row["value"] for row in scored.items.to_pylist() if row["metric"] == metric]


@pytest.mark.parametrize("metric", NETWORKS)
def test_similarities_in_bf16_are_near_those_in_fp32_but_not_the_same(
    metric: str, both: Mapping[str, Scored]
) -> None:
    difference = np.abs(both["bf16"].similarity[metric] - both["fp32"].similarity[metric]).max()
    assert 1e-6 < difference < 0.05  # bfloat16 has eight significant bits


@pytest.mark.parametrize("metric", FREE)
def test_metrics_without_networks_do_not_depend_on_precision(metric: str, both: Mapping[str, Scored]) -> None:
    assert values(both["bf16"], metric) == values(both["fp32"], metric)


def test_every_row_in_bf16_says_so_in_its_profile(both: Mapping[str, Scored]) -> None:
    assert set(both["bf16"].items["metric_profile"].to_pylist()) == {"nsdbench-v1+bf16"}
    assert set(both["fp32"].items["metric_profile"].to_pylist()) == {"nsdbench-v1"}


def test_values_of_two_precisions_have_different_protocol_keys(both: Mapping[str, Scored]) -> None:
    provenance = Provenance("simulated", "s", "d")
    keys = [
        set(leaderboard.summarize(scored.items, provenance)["protocol_key"].to_pylist())
        for scored in both.values()
    ]
    assert keys[0].isdisjoint(keys[1])


@pytest.mark.parametrize("name", ["alexnet", "mini_clip"])
def test_a_network_in_bf16_computes_in_bf16(name: str) -> None:
    net = load_net(name, weights="random", precision="bf16")
    assert {x.dtype for x in net(torch.rand(1, 3, 64, 64)).values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_a_variant_in_bf16_that_differs_in_nothing_else(name: str) -> None:
    rules, reduced = vars_of(name), vars_of(f"{name}+bf16")
    assert {key for key in rules if rules[key] != reduced[key]} == {"name", "precision"}


def vars_of(name: str) -> dict[str, object]:
    rules = profile(name)
    return {key: getattr(rules, key) for key in rules.__dataclass_fields__}


@pytest.mark.parametrize("name", ["nsdbench-v2+bf16", "nsdbench-v1+fp16", "nsdbench-v1+bf16+bf16", "+bf16"])
def test_other_names_with_a_plus_are_no_profiles(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize(
    "wrong", [{"precision": "fp16"}, {"profile": "nsdbench-v1+bf16"}], ids=["unknown", "in the profile"]
)
def test_settings_refuse_a_precision_that_is_none_or_in_the_wrong_place(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        ScoreSettings(**wrong)  # type: ignore[arg-type]
    assert "bf16" in caught.value.remedy


def test_a_processor_without_bf16_is_named(
    stimuli: Stimuli, recon: Reconstructions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    settings = ScoreSettings(metrics=("mini_clip",), cache=tmp_path, precision="bf16")
    notes = score(recon, stimuli, KEY, settings=settings).notes
    assert any("cpu has no arithmetic for bfloat16" in note for note in notes)


R = np.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.5], [0.3, 0.6, 0.3]])


def similarities(**matrices: NDArray[np.float64]) -> Similarities:
    return Similarities({k: r.reshape(3, 3, 1) for k, r in matrices.items()}, IDS[:3], IDS[:3])


@pytest.mark.parametrize(
    ("place", "value", "flipped"),
    [
        ((1, 0), 0.89, 0),  # still below the target
        ((1, 0), 0.91, 1),  # beats it now
        ((1, 0), 0.9, 1),  # ties with it now
        ((1, 0), 0.9 + 1e-10, 1),  # as good as tied
        ((2, 2), 0.6, 2),  # the target beats both instead of losing
        ((1, 1), 0.5, 1),  # the target loses against one of two
    ],
)
def test_a_comparison_is_flipped_if_it_ends_otherwise(
    place: tuple[int, int], value: float, flipped: int
) -> None:
    other = R.copy()
    other[place] = value
    found = flips.count(similarities(mini_clip=other), similarities(mini_clip=R))
    assert found == {"mini_clip": flips.Flips(flipped, 6)}


def test_only_identification_by_networks_is_counted_where_both_have_it() -> None:
    reduced = similarities(mini_clip=R, clip=R, gabor_2way=R, mini_effnet=R, somebodys_metric=R)
    full = similarities(mini_clip=R, inception=R, gabor_2way=R, mini_effnet=R, somebodys_metric=R)
    assert set(flips.count(reduced, full)) == {"mini_clip"}


def test_similarities_of_other_targets_are_not_compared() -> None:
    other = Similarities({"mini_clip": R.reshape(3, 3, 1)}, IDS[1:4], IDS[1:4])
    assert flips.count(other, similarities(mini_clip=R)) == {}


class Folder:
    """A run folder that is scored step by step."""

    def __init__(self, path: Path, stimuli: Stimuli, recon: Reconstructions) -> None:
        self.path, self._stimuli, self._recon = path, stimuli, recon
        reconstructions.save(recon, path / runfolder.RECONSTRUCTIONS)

    def score(self, precision: str, *metrics: str) -> StoredRun:
        before = runfolder.stored(self.path)
        start = RunManifest(KEY, "started", Provenance("simulated", "s", "d"), {})
        settings = ScoreSettings(metrics=metrics, cache=self.path.parent, precision=precision)  # type: ignore[arg-type]
        manifest = before.manifest if before else start
        return runfolder.score_folder(self.path, manifest, before, self._recon, self._stimuli, settings)

    @property
    def notes(self) -> list[str]:
        return [note for note in read_manifest(self.path).notes if note.startswith(flips.PREFIX)]


@pytest.fixture
def folder(tmp_path: Path, stimuli: Stimuli, recon: Reconstructions) -> Folder:
    return Folder(tmp_path / "run", stimuli, recon)


def test_a_run_folder_scored_in_both_precisions_says_how_many_comparisons_flipped(folder: Folder) -> None:
    folder.score("fp32", "mini_clip")
    folder.score("bf16", "mini_clip")
    (note,) = folder.notes
    assert "of 60 " in note  # 12 reconstructions, five other ground truths
    assert "two-way comparisons end otherwise than in fp32: mini_clip " in note


def test_without_full_precision_the_note_says_what_is_not_known_until_it_is(folder: Folder) -> None:
    folder.score("bf16", "mini_clip")
    (before,) = folder.notes
    assert "is not known; `nsdbench score --precision fp32`" in before
    folder.score("fp32", "mini_clip")
    (after,) = folder.notes
    assert "not known" not in after


def test_a_metric_without_full_precision_is_named_beside_the_known_ones(folder: Folder) -> None:
    folder.score("fp32", "mini_clip")
    folder.score("bf16", "mini_clip", "mini_alexnet2")
    (note,) = folder.notes
    assert "comparisons of mini_alexnet2 end otherwise than in fp32 is not known" in note


def test_there_is_no_note_on_metrics_that_do_not_depend_on_precision(folder: Folder) -> None:
    folder.score("bf16", "pixcorr", "gabor_2way")
    assert folder.notes == []


def test_scores_of_both_precisions_stay_side_by_side(folder: Folder) -> None:
    folder.score("fp32", "mini_clip")
    run = folder.score("bf16", "mini_clip")
    assert set(run.items["metric_profile"].to_pylist()) == {"nsdbench-v1", "nsdbench-v1+bf16"}
    asked = ScoreSettings(metrics=("mini_clip", "mini_swav"), precision="bf16")
    assert runfolder.missing_metrics(run, asked) == ("mini_swav",)
