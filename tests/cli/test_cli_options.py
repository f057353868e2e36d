"""What the scoring options of the command line stand for."""

from __future__ import annotations

import pytest

from nsdbench.cli.options import Scoring
from nsdbench.metrics.registry import HEADLINE, METRICS, SIM_DEFAULT, WHERE_POSSIBLE


def scoring(metrics: str | None, weights: str = "pretrained") -> Scoring:
    return Scoring(metrics, "nsdbench-v1", weights, None, "cpu", None)


@pytest.mark.parametrize(("simulated", "expected"), [(True, SIM_DEFAULT), (False, HEADLINE)])
def test_the_default_adds_what_only_some_models_give(simulated: bool, expected: tuple[str, ...]) -> None:
    settings = scoring(None).settings(simulated=simulated)
    assert settings.metrics == expected
    assert settings.where_possible == WHERE_POSSIBLE


def test_all_means_what_a_model_can_be_scored_by() -> None:
    settings = scoring("all").settings(simulated=True)
    assert settings.wanted == tuple(METRICS)
    assert settings.where_possible == tuple(name for name in METRICS if METRICS[name].needs)


def test_what_is_named_must_be_there() -> None:
    settings = scoring("retrieval-image-top1,caption_rougeL").settings(simulated=True)
    assert settings.metrics == ("retrieval_image_top1", "caption_rougeL")
    assert settings.where_possible == ()
