"""The metric table is light, consistent, and helps with misspelt names."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from nsdbench.errors import UsageError
from nsdbench.metrics import registry
from nsdbench.metrics.metric import ByCorrelation, ByEmbedding, ByPair
from nsdbench.metrics.nets import NETS
from nsdbench.metrics.profiles import PROFILES, profile
from nsdbench.metrics.registry import HEADLINE, METRICS, WEIGHTS_FREE, WHERE_POSSIBLE, Entry


def plug_in(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    points = [EntryPoint(name, value, registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])


@pytest.mark.parametrize("name", METRICS)
def test_the_table_says_what_the_metric_is(name: str) -> None:
    entry, metric = METRICS[name], registry.load(name)
    if not isinstance(metric, ByCorrelation | ByPair):
        assert entry.kind == ("retrieval" if isinstance(metric, ByEmbedding) else "caption")
        assert entry.needs and not entry.nets and entry.chance is None
        return
    needs_net = metric.features.extract is None
    assert entry.nets == ((metric.features.source,) if needs_net else ())
    assert set(entry.nets) <= NETS.keys()
    if isinstance(metric, ByPair):
        assert entry.kind in ("pixel", "perceptual")
    else:
        assert isinstance(metric, ByCorrelation)
        assert len(metric.features.nodes) == 1
        assert metric.rule == {"pixel": "correlation"}.get(entry.kind, entry.kind)
    assert entry.chance == (0.5 if entry.kind == "identification" else None)


def test_lower_is_better_exactly_for_distances_and_errors() -> None:
    assert {name for name, entry in METRICS.items() if entry.direction == "lower"} == {
        "effnet",
        "swav",
        "rmse",
        "lpips",
        "mini_effnet",
        "mini_swav",
    }


def test_default_tuples_name_known_metrics_and_the_free_ones_need_no_network() -> None:
    assert len(HEADLINE) == 8
    assert set(HEADLINE) | set(WEIGHTS_FREE) <= METRICS.keys()
    assert not any(METRICS[name].nets for name in WEIGHTS_FREE)
    assert all(METRICS[name].needs and not METRICS[name].weights for name in WHERE_POSSIBLE)


def test_a_misspelt_name_suggests_the_right_one() -> None:
    with pytest.raises(UsageError, match="Did you mean pixcorr"):
        registry.entry("pixcor")
    with pytest.raises(UsageError, match="Did you mean mindeye"):
        profile("mindey")


def test_a_list_of_names_is_split_checked_and_freed_of_hyphens_and_repeats() -> None:
    assert registry.expand("pixel-2way, ssim,ssim") == ("pixel_2way", "ssim")
    assert registry.expand("all")[: len(METRICS)] == tuple(METRICS)
    with pytest.raises(UsageError, match="no metric 'dream'"):
        registry.expand("ssim,dream")


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "extra", "plugged_in:ENTRY")
    entry = Entry("nsdbench.metrics.pixel:SSIM", "an alias", "higher", "pixel")
    monkeypatch.setitem(sys.modules, "plugged_in", type("module", (), {"ENTRY": entry}))
    assert registry.table()["extra"] is entry
    assert registry.load("extra") is registry.load("ssim")


def test_a_broken_plug_in_shows_its_own_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "broken", "package_that_is_not_installed:ENTRY")
    with pytest.raises(ModuleNotFoundError, match="package_that_is_not_installed"):
        registry.entry("broken")
    assert registry.entry("ssim") is METRICS["ssim"]


def test_a_plug_in_cannot_replace_a_built_in_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "ssim", "plugged_in:ENTRY")
    with pytest.raises(UsageError, match="built-in metric"):
        registry.table()


def test_table_profiles_and_scoring_import_nothing_heavy() -> None:
    code = "import sys, nsdbench.metrics.registry, nsdbench.metrics.profiles, nsdbench.scoring; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "torchvision", "pandas", "skimage", "lpips", "open_clip"} & set(loaded)


def test_every_published_evaluation_has_its_profile() -> None:
    assert set(PROFILES) == {
        "nsdbench-v1",
        "mindeye",
        "mindeye-aa",
        "brain-diffuser",
        "brain-diffuser-sk20",
        "imagery-asrun",
        "imagery-fixed",
    }


def test_only_the_imagery_notebook_as_run_subtracts_the_self_comparison() -> None:
    assert [name for name, p in PROFILES.items() if p.self_comparison] == ["imagery-asrun"]


def test_only_the_canonical_profile_gives_ties_half_credit() -> None:
    assert [name for name, p in PROFILES.items() if p.ties == "half"] == ["nsdbench-v1"]


def test_only_brain_diffuser_uses_the_first_efficientnet_weights() -> None:
    assert {name for name, p in PROFILES.items() if p.variants.get("effnet") == "v1"} == {
        "brain-diffuser",
        "brain-diffuser-sk20",
    }
    assert "v1" in NETS["effnet"].weights
