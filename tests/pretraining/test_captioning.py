"""Training of the captioner, and what the shipped one says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.captioner import (
    MINI,
    describe,
    mini_captioner,
    mini_describer,
)
from nsdbench.adapters.nets.checkpoints import mini
from nsdbench.pretraining import captioning
from nsdbench.pretraining.captioning import Captioning, accuracies, correlated, damaged, start_local
from nsdbench.pretraining.corpus import LABELS, Corpus, corpus
from nsdbench.pretraining.recipes import DECODERS
from nsdbench.pretraining.training import train
from nsdbench.types import Silent


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus("train", 24, 0, tmp_path_factory.mktemp("scenes"), Silent())


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus("held_out", 64, 0, tmp_path_factory.mktemp("held_out"), Silent())


@pytest.fixture(scope="module")
def true_tokens(held_out: Corpus) -> Tensor:
    images = torch.from_numpy(held_out.images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return clip.image_tokens(mini(clip.mini_clip(), "mini_tokens-v1", "cpu"), images)[:, 1:]


@pytest.fixture
def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_captions_are_learnt_from_patch_tokens_without_the_class_token(scenes: Corpus) -> None:
    task = Captioning(scenes, mini_captioner())
    seen: list[tuple[Tensor, Tensor]] = []
    task.trunk.register_forward_pre_hook(lambda _, given: seen.append(given))
    rows = np.array([6, 7])
    expected = torch.from_numpy(task.tokens[rows, 1:].astype(np.float32))
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioning, "TRUE", 1.0)
        task.loss(rows, torch.Generator().manual_seed(0))
    tokens, numbers = seen[0]
    assert torch.equal(tokens, expected)
    words = clip.encode([scenes.captions[3, 0]])[0]
    assert numbers[0].tolist() == numbers[1].tolist() == words[: numbers.shape[1]].tolist()


def test_the_loss_of_a_certain_and_right_captioner_is_zero(
    scenes: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Captioning(scenes, mini_captioner())
    rows = np.arange(8)
    following = clip.encode(scenes.captions[rows // 2, 0].tolist())[:, 1 : MINI.longest]
    sure = 100 * torch.nn.functional.one_hot(following, MINI.vocabulary).float()
    monkeypatch.setattr(task.trunk, "forward", lambda *_: sure)
    assert float(task.loss(rows, torch.Generator())) == pytest.approx(0, abs=1e-6)


def test_an_interrupted_training_ends_with_the_same_weights(scenes: Corpus, tmp_path: Path) -> None:
    recipe = replace(DECODERS["captioner"], steps=3, batch=4)
    whole = train(recipe, scenes, 0, tmp_path / "whole.pt", Silent())
    pieces = [train(recipe, scenes, 0, tmp_path / "pieces.pt", Silent(), seconds=0) for _ in range(3)]
    assert pieces[:2] == [None, None]
    assert whole is not None
    assert pieces[2] is not None
    state = pieces[2].trunk.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.trunk.state_dict().items())


def test_the_decoder_starts_with_the_tokens_of_the_image_and_their_mean() -> None:
    captioner = mini_captioner()
    start_local(captioner)
    with torch.no_grad():
        captioner.converter.linear1.bias.zero_()
        captioner.converter.linear2.weight.copy_(torch.eye(MINI.dim_in))
        captioner.converter.linear2.bias.zero_()
        tokens = torch.randn(2, MINI.tokens_in, MINI.dim_in)
        found = captioner.converter(tokens)
    torch.testing.assert_close(found, torch.cat([tokens, tokens.mean(1, keepdim=True)], dim=1))


def test_a_quarter_of_the_scenes_is_not_damaged(draws: torch.Generator) -> None:
    tokens = torch.randn(4000, 3, 2, generator=draws)
    same = (damaged(tokens, torch.zeros(3, 2), draws) == tokens).flatten(1)
    assert torch.equal(same.any(1), same.all(1))
    assert float(same.all(1).float().mean()) == pytest.approx(captioning.TRUE, abs=0.03)


def test_damage_moves_tokens_around_their_mean(
    draws: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed form: shares of the errors are products of two uniform draws, whose square has the mean 1 / 9."""
    monkeypatch.setattr(captioning, "TRUE", 0.0)
    tokens = 5 + 2 * torch.randn(3000, 4, 3, generator=draws)
    wrong = damaged(tokens, torch.full((4, 3), 5.0), draws) - 5
    assert float(wrong.mean()) == pytest.approx(0, abs=0.05)
    slope = (wrong * (tokens - 5)).mean() / (tokens - 5).square().mean()
    assert float(slope) == pytest.approx((1 + captioning.SHRUNK) / 2, abs=0.03)
    shrunk = (1 + captioning.SHRUNK + captioning.SHRUNK**2) / 3
    errors = sum(most**2 for most in captioning.MOST) / 9
    assert float(wrong.square().mean()) == pytest.approx(4 * (shrunk + errors), rel=0.05)


@pytest.mark.parametrize("r", [0.0, 0.6, 1.0])
def test_correlated_tokens_correlate_and_vary_as_asked(r: float, draws: torch.Generator) -> None:
    low_rank = torch.randn(1500, 3, generator=draws) @ torch.randn(3, 8, generator=draws)
    tokens = 2 + low_rank.view(1500, 4, 2)
    found = correlated(tokens, r, draws)
    both = np.corrcoef((tokens - tokens.mean(0)).flatten(), (found - tokens.mean(0)).flatten())
    assert both[0, 1] == pytest.approx(r, abs=0.06)
    true, made = (np.cov(values.flatten(1).numpy().T) for values in (tokens, found))
    assert np.allclose(made, true, atol=0.15 * np.abs(true).max())


def test_right_captions_are_right_and_each_error_counts_for_its_question(
    held_out: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(
        held_out, captions=held_out.captions[:2], labels={k: v[:2] for k, v in held_out.labels.items()}
    )
    said = few.captions[:, 0].tolist()
    monkeypatch.setattr(captioning, "describe", lambda *_: said)
    assert set(accuracies(mini_describer(), torch.zeros(2, 1, 1), few).values()) == {1.0}
    size, *rest = said[0].split()[1:]
    colour = next(word for word in rest if word in LABELS["colour"])
    other = "black" if colour == "white" else "white"
    said[0] = said[0].replace(colour, other)
    found = accuracies(mini_describer(), torch.zeros(2, 1, 1), few)
    assert found == {"category": 1.0, "background": 1.0, "colour": 0.5, "whole caption": 0.5}
    said[0] = f"a {size}"
    found = accuracies(mini_describer(), torch.zeros(2, 1, 1), few)
    assert set(found.values()) == {0.5}


def test_an_orange_that_is_named_as_a_colour_is_no_orange() -> None:
    words = ["a", "large", "orange", "car", "by", "the", "sea"]
    assert captioning._answer(words, "category") == "car"
    assert captioning._answer(["a", "large", "orange", "orange", "on", "a", "table"], "category") == "orange"
    assert captioning._answer(["a", "large", "orange"], "category") is None
    assert captioning._answer(words, "background") == "sea"


def test_the_shipped_captioner_names_what_held_out_scenes_show(held_out: Corpus, true_tokens: Tensor) -> None:
    found = accuracies(mini_describer(), true_tokens, held_out)
    assert found["category"] > 0.8
    assert found["background"] > 0.95
    assert found["colour"] > 0.9


def test_captions_get_worse_with_the_tokens_but_stay_sentences(held_out: Corpus, true_tokens: Tensor) -> None:
    said = []
    for r in (0.8, 0.4, 0.0):
        tokens = correlated(true_tokens, r, torch.Generator().manual_seed(0))
        said.append(accuracies(mini_describer(), tokens, held_out))
        for caption in describe(mini_describer(), tokens):
            assert captioning._answer(caption.split(), "category")
            assert captioning._answer(caption.split(), "background")
    assert said[0]["category"] > said[1]["category"] > said[2]["category"]
    assert said[2]["category"] < 0.3


def test_shrunken_tokens_are_still_described(held_out: Corpus, true_tokens: Tensor) -> None:
    mean = true_tokens.mean(0)
    found = accuracies(mini_describer(), mean + 0.3 * (true_tokens - mean), held_out)
    assert found["category"] > 0.7
    assert found["background"] > 0.9
