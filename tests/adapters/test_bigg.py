"""OpenCLIP's ViT-bigG-14 as MindEye2 reads images with it, and as SDXL reads prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters.nets import bigg, clip, clip_published
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.adapters.nets.prompts import NEGATIVE, MiniPrompts, Prompts
from nsdbench.errors import WeightsError


def small_model(width: int = 16, side: int = 28, embedding: int = 12) -> nn.Module:
    """Both towers at a small size, in the form of :func:`bigg.build`, with every parameter random."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    image = CLIPVisionCfg(
        layers=2, width=width, head_width=8, patch_size=14, image_size=side, output_tokens=True
    )
    model = CustomTextCLIP(embedding, image, CLIPTextCfg(width=width, heads=2, layers=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return small_model()


def test_the_image_tower_has_the_published_names_shapes_and_size(shared: Path) -> None:
    listing = json.loads((shared / "data/state_dicts/mindeye2_unclip6_sgm_engine.json").read_text())
    start = "conditioner.embedders.0.model.visual."
    expected = {name.removeprefix(start): shape for name, shape in listing.items() if name.startswith(start)}
    tower = on_meta(bigg.image_tower)
    assert {name: list(value.shape) for name, value in tower.state_dict().items()} == expected
    assert sum(value.numel() for value in tower.parameters()) == 1_844_907_264


def test_both_towers_have_the_names_of_open_clips_own_model() -> None:
    import open_clip

    config = open_clip.get_model_config("ViT-bigG-14")
    assert config is not None
    own = on_meta(lambda: open_clip.CLIP(**config)).state_dict()
    image, text = on_meta(bigg.image_tower).state_dict(), on_meta(bigg.text_tower).state_dict()
    ours = {f"visual.{name}": value.shape for name, value in image.items()}
    ours |= {name: value.shape for name, value in text.items()}
    assert {name: value.shape for name, value in own.items() if name != "logit_scale"} == ours


def test_each_tower_is_read_from_its_part_of_the_file(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {name.removeprefix("text."): value for name, value in model.state_dict().items()}
    save_file(state, tmp_path / weights.entry(bigg.WEIGHTS_ID).filename)
    monkeypatch.setattr(bigg, "build", small_model)
    images = torch.rand(2, 3, 28, 28)
    numbers = torch.randint(1, 49_000, (2, 77))
    with torch.no_grad():
        seen = clip.normalize((images + 1) / 2)
        torch.testing.assert_close(bigg.load_images(tmp_path)(seen), model.visual(seen))
        torch.testing.assert_close(bigg.load_text(tmp_path)(numbers), model.text(numbers))


def test_images_between_zero_and_one_are_taken_for_images_between_minus_one_and_one(model: nn.Module) -> None:
    seen = []
    tower: nn.Module = model.visual
    tower.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    images = torch.rand(2, 3, 224, 224)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigg, "SIZE", 28)
        small = images[:, :, :28, :28]
        tokens = bigg.image_tokens(tower, small)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    sd = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], ((small + 1) / 2 - mean) / sd)
    assert tokens.shape == (2, 4, 16)


def test_tokens_come_after_the_final_norm_without_the_class_token(model: nn.Module) -> None:
    tower: nn.Module = model.visual
    states: list[Tensor] = []
    tower.transformer.register_forward_hook(lambda *call: states.append(call[2]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigg, "SIZE", 28)
        tokens = bigg.image_tokens(tower, torch.rand(2, 3, 28, 28))
    x = states[0][:, 1:]
    normed = (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = normed * tower.ln_post.weight + tower.ln_post.bias
    torch.testing.assert_close(tokens, expected.detach(), rtol=1e-4, atol=1e-5)


def test_the_published_tower_gives_one_token_for_every_patch() -> None:
    tokens = on_meta(bigg.image_tower)(torch.empty(2, 3, bigg.SIZE, bigg.SIZE, device="meta"))[1]
    assert tokens.shape == (2, 256, 1664)


class BeforeTheNorm(nn.Module):
    """A tower as open_clip had it before 2.23."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_post = nn.LayerNorm(3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = images.flatten(2).transpose(1, 2) + torch.arange(3)
        return self.ln_post(tokens)[:, 0], tokens


def test_an_open_clip_that_gives_tokens_before_the_final_norm_is_refused() -> None:
    bigg.require_normed_tokens()
    with pytest.raises(WeightsError, match="before the final norm"):
        bigg.require_normed_tokens(BeforeTheNorm)


def cubic(distance: float) -> float:
    """The interpolation kernel of Keys 1981 with a = -0.75."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def shrunk_line(line: np.ndarray, side: int) -> np.ndarray:
    """Gaussian blur and cubic interpolation of one line, number by number."""
    n = len(line)
    if n > side:
        sd = (n / side - 1) / 2
        width = int(max(4 * sd, 3)) | 1
        offsets = np.arange(width) - width // 2
        kernel = np.exp(-0.5 * (offsets / sd) ** 2)
        kernel /= kernel.sum()
        mirrored = [[abs(k) if k < n else 2 * (n - 1) - k for k in i + offsets] for i in range(n)]
        line = np.array([kernel @ line[places] for places in mirrored])
    found = []
    for k in range(side):
        place = k * (n - 1) / (side - 1)
        near = range(int(place) - 1, int(place) + 3)
        found.append(sum(cubic(place - i) * line[min(max(i, 0), n - 1)] for i in near))
    return np.array(found)


@pytest.mark.parametrize(("size", "side"), [(12, 5), (30, 7), (9, 8), (5, 9)])
def test_images_are_shrunk_by_a_gaussian_and_aligned_cubics(size: int, side: int) -> None:
    image = np.random.default_rng(0).random((size, size))
    rows = np.array([shrunk_line(row, side) for row in image])
    expected = np.array([shrunk_line(column, side) for column in rows.T]).T
    found = bigg.shrunk(torch.from_numpy(image)[None, None], side)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = torch.rand(1, 3, 224, 224)
    assert bigg.shrunk(image, 224) is image


@pytest.fixture
def prompts() -> Prompts:
    """Both text encoders, small; the pooled state is projected from 16 to 12 channels."""
    torch.manual_seed(1)
    return Prompts(small_model(8, embedding=20).text, small_model(16).text)


def layer_by_layer(tower: nn.Module, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """States before the last layer, and the pooled state at the end token."""
    x = tower.token_embedding(numbers) + tower.positional_embedding
    *first, last = tower.transformer.resblocks
    for block in first:
        x = block(x, attn_mask=tower.attn_mask)
    ends = numbers.argmax(dim=1)
    states = tower.ln_final(last(x, attn_mask=tower.attn_mask))
    return x, states[torch.arange(len(x)), ends] @ tower.text_projection


def test_a_prompt_is_the_states_before_the_last_layer_and_one_pooled_state(prompts: Prompts) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    captions = ["a dog on a beach", NEGATIVE, ""]
    found = prompts(captions)
    assert found["text"].shape == (3, 77, 24)
    assert found["pooled"].shape == (3, 12)
    padded_with_zeros = SimpleTokenizer(context_length=77)(captions)
    with torch.no_grad():
        narrow, _ = layer_by_layer(prompts.small, clip_published.encode(captions))
        wide, pooled = layer_by_layer(prompts.large, padded_with_zeros)
    torch.testing.assert_close(found["text"], torch.cat([narrow, wide], dim=2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["pooled"], pooled, rtol=1e-4, atol=1e-5)


def test_the_two_encoders_get_differently_padded_prompts() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    numbers = SimpleTokenizer(context_length=77)(["a dog"])[0].tolist()
    assert numbers[:4] == clip_published.encode(["a dog"])[0, :4].tolist()
    assert numbers[4:] == [0] * 73
    assert clip_published.encode(["a dog"])[0, 4:].tolist() == [clip_published.END] * 73


def test_the_published_encoders_give_what_sdxl_reads() -> None:
    small: Callable[[], nn.Module] = lambda: clip_published.build().text
    towers = [on_meta(small), on_meta(bigg.text_tower)]
    assert sum(int(tower.width) for tower in towers) == 2048
    assert [len(tower.transformer.resblocks) for tower in towers] == [12, 32]
    assert tuple(towers[1].text_projection.shape) == (1280, 1280)


def test_the_negative_prompt_has_its_twenty_three_terms() -> None:
    terms = NEGATIVE.split(", ")
    assert len(terms) == len(set(terms)) == 23
    assert (terms[0], terms[7], terms[-1]) == ("painting", "blurry", "anime")


def test_the_miniature_reads_prompts_with_its_one_text_tower(small_clip: nn.Module) -> None:
    class Reader:
        def text_condition(self, tokens: Tensor, *, states: bool) -> Tensor:
            assert states
            return tokens * 2

    found = MiniPrompts(small_clip, Reader())(["a red ball", ""])
    torch.testing.assert_close(found["text"], 2 * clip.text_states(small_clip, ["a red ball", ""]))
