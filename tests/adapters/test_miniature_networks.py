"""The shared parts of the miniature decoders: attention sites for two conditions, tokens, words, the autoencoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip, unet
from nsdbench.adapters.nets.autoencoder import Autoencoder, mini_autoencoder
from nsdbench.adapters.nets.shipped import FOLDER, SHIPPED, shipped_state
from nsdbench.errors import DataError, WeightsError
from nsdbench.store import sha256_file


class _Scale(nn.Module):
    """Stands in for a transformer: adds ``factor`` times the mean of its tokens."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.calls = factor, 0

    def forward(self, hidden: Tensor, tokens: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.calls += 1
        return (hidden + self.factor * tokens.mean(dim=(1, 2))[:, None, None, None],)


def _tiny_unet(seed: int) -> nn.Module:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return clip.mini_clip().eval()


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_site_averages_the_changes_of_its_two_transformers(share: float) -> None:
    image, text = _Scale(2.0), _Scale(-1.0)
    hidden, tokens = (
        torch.zeros(1, 3, 2, 2),
        torch.cat([torch.full((1, 5, 4), 1.0), torch.full((1, 2, 4), 3.0)], 1),
    )
    mix = {"text_share": share, "image_tokens": 5}
    result = unet.Site(image, text)(hidden, tokens, cross_attention_kwargs=mix)[0]
    assert torch.allclose(result, torch.full_like(hidden, (1 - share) * 2.0 * 1.0 + share * -1.0 * 3.0))
    assert (image.calls, text.calls) == (int(share < 1), int(share > 0))


@pytest.mark.parametrize("share", [0.0, 1.0])
@torch.no_grad()
def test_a_paired_unet_with_one_condition_is_the_unet_with_those_transformers(share: float) -> None:
    latents, times, tokens = torch.randn(2, 4, 8, 8), torch.tensor([5, 900]), torch.randn(2, 7, 12)
    lone, donor = _tiny_unet(0), _tiny_unet(1)
    blocks = unet.transformers(donor)
    if share:  # the text UNet of the pair: residual blocks of the first, transformers of the second
        state = lone.state_dict() | {
            f"{name}.{key}": value
            for name, block in blocks.items()
            for key, value in block.state_dict().items()
        }
        lone.load_state_dict(state)
    expected = lone(latents, times, tokens).sample
    paired = unet.pair(_tiny_unet(0), blocks)
    mix = {"text_share": share, "image_tokens": 0 if share else 7}
    found = paired(latents, times, tokens, cross_attention_kwargs=mix).sample
    assert torch.allclose(found, expected, atol=1e-6)


def test_position_codes_of_the_same_place_fit_best() -> None:
    codes = unet.position_codes(8, 8).reshape(64, unet.CODE)
    products = codes @ codes.T
    assert torch.equal(products.argmax(1), torch.arange(64))
    assert torch.allclose(products.diagonal(), torch.full((64,), 2.0 * unet.FREQUENCIES))


def test_inner_products_of_position_codes_depend_on_the_distance_only() -> None:
    codes = unet.position_codes(8, 8)
    assert float(codes[0, 0] @ codes[2, 3]) == pytest.approx(float(codes[4, 1] @ codes[6, 4]), abs=1e-5)
    angles = np.pi * np.arange(1, 9) / 8
    closed = np.cos(2 * angles).sum() + np.cos(3 * angles).sum()
    assert float(codes[0, 0] @ codes[2, 3]) == pytest.approx(closed, abs=1e-5)


def test_noise_levels_are_those_of_the_scheduler() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert torch.allclose(unet.noise_levels(), scheduler.alphas_cumprod, atol=1e-6)


@torch.no_grad()
def test_the_denoiser_reads_a_share_of_zero_as_no_text_at_all() -> None:
    torch.manual_seed(0)
    denoiser = unet.MiniDenoiser().eval()
    latents, times = torch.randn(2, 4, 16, 16), torch.tensor(500)
    image = denoiser.image_condition(torch.randn(2, clip.IMAGE_TOKENS, clip.WIDTH))
    text = denoiser.text_condition(torch.randn(2, clip.CONTEXT, clip.WIDTH))
    alone = denoiser(latents, times, image)
    assert torch.allclose(alone, denoiser(latents, times, image, text, 0.0), atol=1e-6)
    assert not torch.allclose(alone, denoiser(latents, times, image, text, 0.5), atol=1e-3)
    assert alone.shape == latents.shape


def test_image_tokens_carry_the_place_of_their_patch_and_text_tokens_none() -> None:
    denoiser = unet.MiniDenoiser()
    image = denoiser.image_condition(torch.zeros(1, clip.IMAGE_TOKENS, clip.WIDTH))[0, :, clip.WIDTH :]
    assert torch.equal(image[1:], unet.position_codes(8, 8).reshape(64, -1))
    assert not image[0].any()
    assert not denoiser.text_condition(torch.ones(1, clip.CONTEXT, clip.WIDTH))[..., clip.WIDTH :].any()


@torch.no_grad()
def test_image_tokens_are_projected_in_units_of_the_class_token(model: nn.Module) -> None:
    images = torch.rand(2, 3, 64, 64)
    tokens = clip.image_tokens(model, images)
    assert tokens.shape == (2, clip.IMAGE_TOKENS, clip.WIDTH)
    assert torch.allclose(tokens[:, 0].norm(dim=1), torch.ones(2))
    visual = model.visual
    assert isinstance(visual, nn.Module)
    hidden = visual.ln_post(visual.transformer(visual._embeds(clip.normalize(images))))
    projected = hidden @ visual.proj
    assert torch.allclose(tokens, projected / projected[:, :1].norm(dim=2, keepdim=True), atol=1e-5)


@torch.no_grad()
def test_text_tokens_are_text_states_in_units_of_the_end_token(model: nn.Module) -> None:
    captions = ["a red car", "a picture of a black cat"]
    states, tokens = clip.text_states(model, captions), clip.text_tokens(model, captions)
    ends = [4, 7]
    for row, end in enumerate(ends):
        assert torch.allclose(tokens[row] * states[row, end].norm(), states[row], atol=1e-4)


def test_captions_become_numbers_between_a_start_and_an_end() -> None:
    numbers = clip.encode(["a red car", ""])
    red, car, a = (clip.WORDS.index(word) + 1 for word in ("red", "car", "a"))
    assert numbers[0].tolist() == [clip.START, a, red, car, clip.END, *[clip.PAD] * 11]
    assert numbers[1].tolist() == [clip.START, clip.END, *[clip.PAD] * 14]


@pytest.mark.parametrize("caption", ["a red unicorn", "a " * 15])
def test_captions_of_another_world_are_refused(caption: str) -> None:
    with pytest.raises(DataError, match="caption"):
        clip.encode([caption])


def test_all_words_of_simulated_captions_are_known() -> None:
    from nsdbench.sim.scenes import captions, sample_scene

    said = {
        w for i in range(400) for c in captions(sample_scene(np.random.default_rng(i))) for w in c.split()
    }
    assert said <= set(clip.WORDS)
    assert list(clip.WORDS) == sorted(set(clip.WORDS))


def test_latents_leave_the_autoencoder_in_units_of_their_sd_and_return_unchanged() -> None:
    torch.manual_seed(0)
    autoencoder = mini_autoencoder().eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        plain, before = autoencoder.encode(images), autoencoder.decode(autoencoder.encode(images))
        autoencoder.latent_mean.fill_(0.5)
        autoencoder.latent_sd.fill_(2.0)
        scaled = autoencoder.encode(images)
        assert torch.allclose(scaled, (plain - 0.5) / 2, atol=1e-6)
        assert torch.allclose(autoencoder.decode(scaled), before, atol=1e-5)
    assert plain.shape == (2, 4, 16, 16)


def test_noise_moves_latents_by_the_sd_of_the_posterior() -> None:
    torch.manual_seed(0)
    autoencoder = mini_autoencoder().eval()
    images, noise = torch.rand(1, 3, 64, 64), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        moved = autoencoder.encode(images, noise) - autoencoder.encode(images)
        sd = autoencoder.vae.encode(images).latent_dist.std  # type: ignore[operator]
    assert torch.allclose(moved, sd * noise, atol=1e-5)


def test_a_published_scale_multiplies_latents() -> None:
    vae = mini_autoencoder().vae
    assert Autoencoder(vae, scale=0.18215).latent_sd.tolist() == pytest.approx([1 / 0.18215] * 4)


@pytest.mark.parametrize("weights_id", SHIPPED)
def test_shipped_files_are_the_recorded_ones(weights_id: str) -> None:
    assert sha256_file(FOLDER / f"{weights_id}.safetensors") == SHIPPED[weights_id]
    assert all(v.dtype is not torch.float16 for v in shipped_state(weights_id).values())


def test_every_file_of_the_weights_folder_is_recorded() -> None:
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == set(SHIPPED)


def test_all_shipped_weights_together_stay_below_sixty_megabytes() -> None:
    metrics = Path(__file__).parents[2] / "metrics" / "weights"
    files = [*FOLDER.glob("*.safetensors"), *metrics.glob("*.safetensors")]
    assert sum(path.stat().st_size for path in files) < 60e6


def test_altered_shipped_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights_id = next(iter(SHIPPED))
    (tmp_path / f"{weights_id}.safetensors").write_bytes(b"other")
    monkeypatch.setattr("nsdbench.adapters.nets.shipped.FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="sha256"):
        shipped_state(weights_id)
