from __future__ import annotations

from typing import get_args

import pytest

from nsdbench.errors import UsageError
from nsdbench.sim import SimConfig, parse_config
from nsdbench.sim.config import PRESETS, TRIALS_PER_SESSION, PresetName


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sim", SimConfig()),
        ("sim:tiny", SimConfig(preset="tiny")),
        ("sim:preset=tiny,snr=0,seed=3", SimConfig(preset="tiny", snr=0.0, seed=3)),
        ("sim:tiny,isnr=2.5", SimConfig(preset="tiny", isnr=2.5)),
        ("sim:subjects=1+2", SimConfig(subjects=(1, 2))),
    ],
)
def test_a_configuration_is_read_from_its_text(text: str, expected: SimConfig) -> None:
    assert parse_config(text) == expected


def test_an_unknown_key_is_named_with_near_keys() -> None:
    with pytest.raises(UsageError, match=r"'sede'.*seed"):
        parse_config("sim:sede=3")


@pytest.mark.parametrize(
    "text",
    [
        "nsd",
        "sim:huge",
        "sim:snr=much",
        "sim:snr=-1",
        "sim:snr=nan",
        "sim:seed=-1",
        "sim:seed=1,seed=2",
        "sim:subjects=0",
    ],
)
def test_a_bad_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(text)
    assert caught.value.remedy


def test_naming_the_subjects_of_the_preset_changes_nothing() -> None:
    assert SimConfig(preset="tiny", subjects=(7, 1)).hash() == SimConfig(preset="tiny").hash()


def test_an_integer_factor_is_the_same_configuration_as_a_float() -> None:
    assert SimConfig(snr=0).hash() == parse_config("sim:snr=0").hash()


def test_the_named_presets_are_the_ones_that_exist() -> None:
    assert set(get_args(PresetName)) == set(PRESETS)


def test_every_parameter_changes_the_hash() -> None:
    variants = [
        "sim",
        "sim:tiny",
        "sim:seed=1",
        "sim:snr=2",
        "sim:isnr=2",
        "sim:cue=0",
        "sim:scene_gain=1",
        "sim:subjects=1",
    ]
    assert len({parse_config(text).hash() for text in variants}) == len(variants)


def test_every_preset_fills_whole_sessions_with_three_presentations() -> None:
    assert all(3 * p.n_seen == p.n_sessions * TRIALS_PER_SESSION for p in PRESETS.values())
