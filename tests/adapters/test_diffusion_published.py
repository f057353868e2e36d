"""The published diffusion networks: names, shapes, preprocessing, and how two UNets become one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nsdbench.adapters.nets import autoencoder, clip, clip_published, versatile
from nsdbench.adapters.nets.autoencoder import present_names, published_autoencoder, published_vae
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.adapters.nets.pixels import from_signed, to_signed
from nsdbench.adapters.nets.unet import pair, transformers
from nsdbench.adapters.nets.versatile import PublishedDenoiser, paired_state, paired_unet
from nsdbench.errors import ReconstructionError, WeightsError

Shapes = dict[str, list[int]]
Listing = Callable[[str], Shapes]
IMAGE_UNET, TEXT_UNET, VAE = (
    f"versatile_diffusion_{part}_diffusers" for part in ("image_unet", "text_unet", "vae")
)


@pytest.fixture
def listing(shared: Path) -> Listing:
    """Return a function that reads a published listing of names and shapes."""
    folder = shared / "data" / "state_dicts"
    return lambda name: json.loads((folder / f"{name}.json").read_text())


def shapes(module: nn.Module) -> Shapes:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def empty(found: Shapes) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in found.items()}


def small_pair(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Two random UNets of one form, standing for the image and the text UNet."""
    torch.manual_seed(seed)
    return small_unet().eval(), small_unet().eval()


def small_unet(**options: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
        **options,
    )


def test_the_unet_has_the_published_names_and_shapes(listing: Listing) -> None:
    found = shapes(on_meta(versatile.unet))
    assert len(found) == 686
    assert found == listing(IMAGE_UNET)


def test_the_autoencoder_has_the_published_names_and_shapes(listing: Listing) -> None:
    found = shapes(on_meta(published_vae))
    assert len(found) == 248
    assert found == listing(VAE)


def test_both_published_unets_fill_the_paired_form_exactly(listing: Listing) -> None:
    network = on_meta(paired_unet)
    state = paired_state(empty(listing(IMAGE_UNET)), empty(listing(TEXT_UNET)))
    assert {name: list(value.shape) for name, value in state.items()} == shapes(network)
    network.load_state_dict(state, assign=True)


def test_a_text_unet_that_lacks_an_attention_site_is_noticed(listing: Listing) -> None:
    text = {name: shape for name, shape in listing(TEXT_UNET).items() if "mid_block.attentions" not in name}
    state = paired_state(empty(listing(IMAGE_UNET)), empty(text))
    with pytest.raises(RuntimeError, match=r"mid_block\.attentions\.0\.text"):
        on_meta(paired_unet).load_state_dict(state, assign=True)


def test_the_first_names_of_the_autoencoders_attention_are_understood(listing: Listing) -> None:
    today = listing(VAE)
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, shape in today.items():
        for part, before in former.items():
            if f".{part}." in name:
                name = name.replace(f".{part}.", f".{before}.")
        old[name] = shape
    assert old != today
    assert {name: list(value.shape) for name, value in present_names(empty(old)).items()} == today
    assert present_names(empty(today)).keys() == today.keys()


def test_clip_has_the_size_of_vit_l_14_under_openais_names() -> None:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    image, text = CLIPVisionCfg(24, 1024, 64, patch_size=14), CLIPTextCfg(width=768, heads=12)
    original = on_meta(lambda: CLIP(768, image, text, quick_gelu=True))
    ours = on_meta(clip_published.build)
    assert sum(value.numel() for value in ours.state_dict().values()) == 427_616_513
    settings = {name: torch.tensor(0) for name in ("input_resolution", "context_length", "vocab_size")}
    ours.load_state_dict(clip_published.tower_names(original.state_dict() | settings), assign=True)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_paired_form_is_the_dual_form_of_diffusers(share: float) -> None:
    from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel

    class Accepting(DualTransformer2DModel):
        """diffusers' class does not know an argument that its blocks pass since 0.17."""

        def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **kw: Any) -> Any:
            return super().forward(
                hidden_states, encoder_hidden_states, return_dict=kw.get("return_dict", True)
            )

    image, text = small_pair()
    dual = small_unet(dual_cross_attention=True).eval()
    renamed = {name.replace(".image.", ".transformers.0.").replace(".text.", ".transformers.1."): value
               for name, value in paired_state(image.state_dict(), text.state_dict()).items()}  # fmt: skip
    dual.load_state_dict(renamed)
    for module in dual.modules():
        if isinstance(module, DualTransformer2DModel):
            module.__class__ = Accepting
            module.mix_ratio, module.condition_lengths = share, [3, 5]
    x, tokens, words = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 32), torch.randn(2, 3, 32)
    ours = PublishedDenoiser(pair(image, transformers(text))).eval()
    with torch.no_grad():
        expected = dual(x, torch.tensor(7), torch.cat([words, tokens], dim=1)).sample
        found = ours(x, torch.tensor(7), tokens, words, share)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_shares_of_zero_and_one_are_the_single_conditions() -> None:
    image, text = small_pair()
    text.load_state_dict(
        image.state_dict() | {k: v for k, v in text.state_dict().items() if ".attentions." in k}
    )
    x, tokens, words = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 32), torch.randn(2, 3, 32)
    with torch.no_grad():
        alone = [unet(x, 7, given).sample for unet, given in ((image, tokens), (text, words))]
        both = PublishedDenoiser(pair(image, transformers(text)))
        for share, expected in zip((0.0, 1.0), alone, strict=True):
            torch.testing.assert_close(both(x, torch.tensor(7), tokens, words, share), expected)


def test_a_plain_unet_reads_the_text() -> None:
    unet, _ = small_pair()
    x, words = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 32)
    with torch.no_grad():
        expected = unet(x, 7, words).sample
        found = PublishedDenoiser(unet)(x, torch.tensor(7), text=words, text_share=1.0)
    torch.testing.assert_close(found, expected)


def test_weights_files_become_a_paired_denoiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = small_pair()
    for name, unet in (("image", image), ("text", text)):
        torch.save(unet.state_dict(), tmp_path / f"versatile-diffusion-{name}-unet.bin")
    monkeypatch.setattr(versatile, "unet", small_unet)
    found = versatile.versatile_diffusion(tmp_path, dtype=torch.bfloat16)
    assert found.paired
    expected = paired_state(image.state_dict(), text.state_dict())
    assert found.unet.state_dict().keys() == expected.keys()
    for name, value in found.unet.state_dict().items():
        torch.testing.assert_close(value, expected[name].bfloat16())
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        prediction = found(x, torch.tensor(3), torch.randn(1, 5, 32), torch.randn(1, 3, 32), 0.4)
    assert prediction.dtype == torch.float32


def test_the_published_autoencoder_scales_latents_by_one_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def build() -> nn.Module:
        from diffusers import AutoencoderKL

        return AutoencoderKL(block_out_channels=(16,), norm_num_groups=4)

    torch.manual_seed(0)
    vae = build().eval()
    former = {name.replace(".to_q.", ".query."): value for name, value in vae.state_dict().items()}
    torch.save(former, tmp_path / "versatile-diffusion-vae.bin")
    monkeypatch.setattr(autoencoder, "published_vae", build)
    found = published_autoencoder("versatile-diffusion-vae", tmp_path)
    images = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    noise = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        signed = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        posterior = vae.encode(signed).latent_dist
        expected = 0.18215 * (posterior.mean + posterior.std * noise)
        torch.testing.assert_close(found.encode_pixels(images, noise), expected, atol=1e-5, rtol=1e-4)
        pixels = ((vae.decode(expected / 0.18215).sample + 1) / 2).clamp(0, 1) * 255
    difference = found.decode_pixels(expected).astype(int) - pixels.permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(difference).max() <= 1
    assert found.latent_shape(16) == (4, 16, 16)
    several = found.encode_pixels(images[:1], noise)
    torch.testing.assert_close(several[1] - several[0], 0.18215 * posterior.std[0] * (noise[1] - noise[0]))


def test_published_latents_have_an_eighth_of_the_side() -> None:
    network = autoencoder.Autoencoder(on_meta(published_vae), scale=autoencoder.PUBLISHED_SCALE)
    assert network.latent_shape(320) == (4, 40, 40)
    assert network.latent_shape(512) == (4, 64, 64)
    torch.testing.assert_close(network.latent_sd, torch.full((4,), 1 / 0.18215))


def test_levels_are_cut_off_as_the_originals_do() -> None:
    values = torch.tensor([-1.5, -1.0, 0.0, 0.999, 1.0, 2.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert from_signed(values)[0, 0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


def test_every_level_survives_the_way_there_and_back_within_one() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    again = from_signed(to_signed(levels))
    assert set((levels.astype(int) - again).flatten()) <= {0, 1}


def test_images_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ReconstructionError, match="1 of 48 values are not finite"):
        images = torch.zeros(1, 3, 4, 4)
        images[0, 0, 0, 0] = torch.nan
        from_signed(images)


def test_weights_of_another_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, _ = small_pair()
    save_file(dict(list(unet.state_dict().items())[:-1]), tmp_path / "stable-diffusion-v1-4-unet.safetensors")
    monkeypatch.setattr(versatile, "unet", small_unet)
    with pytest.raises(WeightsError, match="do not fit UNet2DConditionModel"):
        versatile.stable_diffusion(tmp_path)


def test_missing_weights_are_named_with_the_command_that_gets_them(tmp_path: Path) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("stable-diffusion-v1-4-unet", lambda: versatile.stable_diffusion(tmp_path)),
        ("versatile-diffusion-image-unet", lambda: versatile.versatile_diffusion(tmp_path)),
        ("versatile-diffusion-vae", lambda: published_autoencoder("versatile-diffusion-vae", tmp_path)),
        ("clip-vit-l14-openai", lambda: clip_published.load(tmp_path)),
    ]
    for name, load in calls:
        with pytest.raises(WeightsError) as error:
            load()
        assert f"nsdbench weights fetch {name}" in error.value.remedy


def test_clip_in_the_layout_of_hugging_face_is_refused_by_name(tmp_path: Path) -> None:
    save_file(
        {"visual_projection.weight": torch.zeros(1)},
        tmp_path / "clip-vit-l14-openai.transformers.safetensors",
    )
    with pytest.raises(WeightsError, match="layout of Hugging Face"):
        clip_published.load(tmp_path)


# CLIP's inputs


def test_the_empty_image_is_the_grey_that_the_original_saw() -> None:
    levels = clip_published.processed(torch.zeros(1, 3, 512, 512))
    assert levels.shape == (1, 224, 224, 3)
    assert (levels == 127).all()
    seen = clip.normalize(torch.from_numpy(levels[:, :1, :1]).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(seen.flatten().numpy(), (0.0617, 0.1539, 0.3257), atol=5e-5)


def test_the_way_through_floats_lowers_some_values_by_one_level(rng: np.random.Generator) -> None:
    levels = rng.integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    signed = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    through = ((signed + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy().astype(int)
    lowered = levels.astype(int) - through
    assert set(np.unique(lowered)) == {0, 1}
    assert 0.1 < lowered.mean() < 0.3
    from PIL import Image

    direct = np.asarray(
        Image.fromarray(through[0].astype(np.uint8)).resize((224, 224), Image.Resampling.BICUBIC)
    )
    np.testing.assert_array_equal(clip_published.processed(signed)[0], direct)


def test_captions_are_padded_with_the_end_token() -> None:
    found = clip_published.encode(["a photo of a cat", ""])
    assert found.shape == (2, 77)
    assert found[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (found[0, 7:] == 49407).all()
    assert found[1, 0] == 49406
    assert (found[1, 1:] == 49407).all()


def test_long_captions_keep_their_end() -> None:
    found = clip_published.encode(["cat " * 100])[0]
    assert found[:76].tolist() == [49406] + [2368] * 75
    assert found[76] == 49407


@pytest.fixture
def tower() -> nn.Module:
    """CLIP in the published form, with one small layer per tower."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    image = CLIPVisionCfg(1, 32, 16, patch_size=56, image_size=224, output_tokens=True)
    text = CLIPTextCfg(width=24, heads=2, layers=1, pool_type="eos", eos_id=49407, output_tokens=True)
    torch.manual_seed(0)
    model: nn.Module = CustomTextCLIP(16, image, text, quick_gelu=True).eval()
    return model


def test_text_tokens_are_projected_states_in_units_of_the_pooled_norm(tower: Any) -> None:
    captions = ["a cat", "two dogs on a table"]
    states = clip_published.text_states(tower, captions)
    assert states.shape == (2, 77, 24)
    projected = states @ tower.text.text_projection
    ends = torch.tensor([3, 6])  # start, words, end
    norms = projected[torch.arange(2), ends].norm(dim=1)
    expected = projected / norms[:, None, None]
    torch.testing.assert_close(clip_published.text_tokens(tower, captions), expected)


def test_image_tokens_are_all_tokens_in_units_of_the_first(tower: Any, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (2, 425, 425, 3), dtype=np.uint8)
    tokens = clip_published.image_tokens(tower, images)
    assert tokens.shape == (2, 17, 16)
    torch.testing.assert_close(tokens[:, 0].norm(dim=1), torch.ones(2))
    assert clip_published.empty_image(tower).shape == (1, 17, 16)


def test_a_mask_survives_loading_from_a_file(
    tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {name.removeprefix("text."): value.half() for name, value in tower.state_dict().items()}
    save_file(state, tmp_path / "clip-vit-l14-openai.open_clip.safetensors")

    def build() -> nn.Module:
        return type(tower)(
            16,
            {
                "layers": 1,
                "width": 32,
                "head_width": 16,
                "patch_size": 56,
                "image_size": 224,
                "output_tokens": True,
            },
            {
                "width": 24,
                "heads": 2,
                "layers": 1,
                "pool_type": "eos",
                "eos_id": 49407,
                "output_tokens": True,
            },
            quick_gelu=True,
        )

    monkeypatch.setattr(clip_published, "build", build)
    loaded = clip_published.load(tmp_path)
    tower.load_state_dict({name: value.half().float() for name, value in tower.state_dict().items()})
    torch.testing.assert_close(
        clip_published.text_tokens(loaded, ["a cat"]), clip_published.text_tokens(tower, ["a cat"])
    )


# full size, once


@pytest.mark.slow
def test_the_published_denoiser_runs_at_full_size() -> None:
    network = PublishedDenoiser(paired_unet().eval().requires_grad_(False))
    with torch.no_grad():
        found = network(
            torch.randn(1, 4, 64, 64),
            torch.tensor(721),
            torch.randn(1, 257, 768),
            torch.randn(1, 77, 768),
            0.4,
        )
    assert found.shape == (1, 4, 64, 64)
    assert torch.isfinite(found).all()


@pytest.mark.slow
def test_the_published_clip_runs_at_full_size(rng: np.random.Generator) -> None:
    network = clip_published.build().eval().requires_grad_(False)
    images = rng.integers(0, 256, (1, 425, 425, 3), dtype=np.uint8)
    assert clip_published.image_tokens(network, images).shape == (1, 257, 768)
    assert clip_published.text_tokens(network, ["a cat"]).shape == (1, 77, 768)
    assert clip_published.text_states(network, ["a cat"]).shape == (1, 77, 768)
