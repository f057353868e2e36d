"""Training of the networks that latent diffusion consists of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.autoencoder import mini_autoencoder
from nsdbench.adapters.nets.clip import mini_clip
from nsdbench.adapters.nets.unet import CODE, MiniDenoiser, Site, position_codes
from nsdbench.pretraining.alignment import align
from nsdbench.pretraining.autoencoding import Autoencoding, distance
from nsdbench.pretraining.corpus import Corpus, corpus
from nsdbench.pretraining.denoising import Denoising, encode
from nsdbench.pretraining.recipes import DECODERS
from nsdbench.pretraining.shipping import finished, ship
from nsdbench.pretraining.training import train
from nsdbench.types import Silent


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """24 scenes, and an autoencoder and a contrastive model that were trained on them for two steps."""
    folder = tmp_path_factory.mktemp("scenes")
    found = replace(corpus("train", 24, 0, folder, Silent()), weights=folder / "weights")
    for name in ("autoencoder", "tokens"):
        recipe = replace(DECODERS[name], steps=2, batch=8)
        task = train(recipe, found, 0, folder / f"{name}.pt", Silent())
        assert task is not None
        ship(task, recipe, 0, found.weights)
    return found


def test_latents_of_the_trained_autoencoder_have_unit_scale(scenes: Corpus) -> None:
    autoencoder = finished(mini_autoencoder(), "mini_autoencoder-v1", scenes.weights)
    images = torch.from_numpy(scenes.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        z = autoencoder.encode(images)  # type: ignore[operator]
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(4), atol=0.02)
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(4), atol=0.02)


def test_the_distance_of_shifted_grey_is_its_closed_form() -> None:
    grey = torch.zeros(1, 3, 8, 8)
    assert float(distance(grey, grey)) == 0
    assert float(distance(grey, grey + 0.1)) == pytest.approx(3 * (0.1 + 2 * 0.01), rel=1e-5)


def test_the_distance_counts_edges_beyond_their_pixels() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1  # half of the pixels at every scale, one of seven differences in each row
    assert float(distance(edge, torch.zeros_like(edge))) == pytest.approx(3 * 1.5 + 0.3 / 7, rel=1e-5)


def test_the_autoencoder_sees_crops_and_sometimes_whole_scenes(scenes: Corpus) -> None:
    task = Autoencoding(scenes, mini_autoencoder())
    rng = torch.Generator().manual_seed(0)
    shapes = {tuple(task._views(task.images(np.arange(8)), rng).shape) for _ in range(40)}
    assert shapes == {(8, 3, 32, 32), (2, 3, 64, 64)}


def test_encoded_scenes_alternate_with_their_mirror_images(scenes: Corpus) -> None:
    model = finished(mini_clip(), "mini_tokens-v1", scenes.weights)
    autoencoder = finished(mini_autoencoder(), "mini_autoencoder-v1", scenes.weights)
    found = encode(scenes, model)
    images = torch.from_numpy(scenes.images[3:4]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for row, image in ((6, images), (7, images.flip(3))):
            latents, tokens = autoencoder.encode(image * 2 - 1), clip.image_tokens(model, image)  # type: ignore[operator]
            assert np.allclose(found.latents[row], latents[0], atol=0.02)
            assert np.allclose(found.tokens[row], tokens[0], atol=0.02)


def test_encoded_scenes_are_computed_once(scenes: Corpus) -> None:
    model = finished(mini_clip(), "mini_tokens-v1", scenes.weights)
    encode(scenes, model)
    before = sorted(scenes.folder.glob("encoded-*"))
    stamps = [path.stat().st_mtime_ns for path in before]
    encode(scenes, model)
    assert sorted(scenes.folder.glob("encoded-*")) == before
    assert [path.stat().st_mtime_ns for path in before] == stamps


def test_an_interrupted_training_of_the_denoiser_ends_with_the_same_weights(
    scenes: Corpus, tmp_path: Path
) -> None:
    recipe = replace(DECODERS["denoiser"], steps=3, batch=4)
    whole = train(recipe, scenes, 0, tmp_path / "whole.pt", Silent())
    pieces = [train(recipe, scenes, 0, tmp_path / "pieces.pt", Silent(), seconds=0) for _ in range(3)]
    assert pieces[:2] == [None, None]
    assert whole is not None
    assert pieces[2] is not None
    state = pieces[2].trunk.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.trunk.state_dict().items())


def test_the_shipped_denoiser_is_the_average_of_its_steps(scenes: Corpus) -> None:
    task = Denoising(scenes, MiniDenoiser())
    task.pick(4, np.random.default_rng(0))
    first = {name: value.clone() for name, value in task.average.named_parameters()}
    with torch.no_grad():
        for value in task.trunk.parameters():
            value += 1
    task.stepped()
    keep = 2 / 11
    for name, value in task.average.named_parameters():
        torch.testing.assert_close(value, first[name] + (1 - keep), rtol=1e-4, atol=1e-5)
    task.finish()
    assert torch.equal(next(task.trunk.parameters()), next(task.average.parameters()))


def test_the_loss_of_a_perfect_prediction_is_zero(scenes: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Denoising(scenes, MiniDenoiser())
    rows = np.arange(6)
    latents = torch.from_numpy(task.encoded.latents[rows]).float()

    def perfect(noisy: Tensor, times: Tensor, *_: object) -> Tensor:
        alpha = task.alphas[times].view(-1, 1, 1, 1)
        noise = (noisy - alpha.sqrt() * latents) / (1 - alpha).sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents

    monkeypatch.setattr(task.trunk, "forward", perfect)
    assert float(task.loss(rows, torch.Generator().manual_seed(0))) == pytest.approx(0, abs=1e-6)


def test_every_flow_of_conditions_comes_up(scenes: Corpus) -> None:
    task = Denoising(scenes, MiniDenoiser())
    rng = torch.Generator().manual_seed(0)
    seen = {"image": 0, "text": 0, "both": 0}
    for _ in range(60):
        image, text, share = task._conditions(np.arange(4), rng)
        flow = "both" if image is not None and text is not None else "image" if text is None else "text"
        assert {"image": share == 0, "text": share == 1, "both": 0.2 <= share <= 0.8}[flow]
        seen[flow] += 1
    assert min(seen["image"], seen["text"]) > seen["both"] > 0


@torch.no_grad()
def test_an_aligned_denoiser_starts_by_looking_at_the_token_of_each_place() -> None:
    torch.manual_seed(0)
    denoiser = MiniDenoiser().eval()
    align(denoiser)
    site = next(module for module in denoiser.unet.modules() if isinstance(module, Site))
    block = site.image.transformer_blocks[0]  # type: ignore[index, union-attr]
    seen: list[Tensor] = []
    block.attn2.register_forward_hook(  # type: ignore[union-attr]
        lambda module, args, kwargs, out: seen.append(
            _attention(module, args[0], kwargs["encoder_hidden_states"])
        ),
        with_kwargs=True,
    )
    tokens = denoiser.image_condition(torch.randn(1, clip.IMAGE_TOKENS, clip.WIDTH))
    denoiser(torch.randn(1, 4, 16, 16), torch.tensor(500), tokens)
    own = seen[0][:, 1:].argmax(1)
    assert (own == torch.arange(64)).float().mean() > 0.9


def _attention(module: nn.Module, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Mean attention over the heads, (places, tokens)."""
    heads = module.heads
    q = module.to_q(hidden)[0].unflatten(1, (heads, -1)).transpose(0, 1)  # type: ignore[operator, arg-type]
    k = module.to_k(tokens)[0].unflatten(1, (heads, -1)).transpose(0, 1)  # type: ignore[operator, arg-type]
    return (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(2).mean(0)


@torch.no_grad()
def test_aligned_convolutions_hand_the_position_on() -> None:
    torch.manual_seed(0)
    denoiser = MiniDenoiser().eval()
    align(denoiser)
    conv = denoiser.unet.conv_in
    assert isinstance(conv, nn.Module)
    latents = torch.cat([torch.randn(1, 4, 16, 16), denoiser.grid[None]], dim=1)
    assert torch.allclose(conv(latents)[:, :CODE], denoiser.grid[None], atol=1e-6)
    halved = denoiser.unet.down_blocks[0].downsamplers[0].conv  # type: ignore[index, union-attr]
    wide = torch.cat([denoiser.grid, torch.zeros(32, 16, 16)])[None]
    coarse = position_codes(8, 8).permute(2, 0, 1)
    found = halved(wide)[0, :CODE]  # type: ignore[operator]
    cosine = nn.functional.cosine_similarity(found, coarse, dim=0)
    assert cosine.min() > 0.8
