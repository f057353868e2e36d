"""MindEye2's diffusion stages: names of the published networks, sizes as conditions, and what each stage does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsdbench import conversion, weights
from nsdbench.adapters.nets import sdxl
from nsdbench.adapters.nets.autoencoder import Autoencoder, published_vae
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.adapters.nets.euler import EulerSampling, noise_scales, spaced_times
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.sdxl import SizedDenoiser, size_codes, unclip_unet_state, unclip_vae_state
from nsdbench.adapters.nets.unclip import Refiner, Unclip, refine, resized, unclip_images
from nsdbench.errors import ReconstructionError, WeightsError

Shapes = dict[str, list[int]]
SHORT = EulerSampling((999, 500), 3.0)


@pytest.fixture
def engine(shared: Path) -> dict[str, Tensor]:
    """The unCLIP checkpoint without numbers."""
    found: Shapes = json.loads((shared / "data/state_dicts/mindeye2_unclip6_sgm_engine.json").read_text())
    return {name: torch.empty(shape, device="meta") for name, shape in found.items()}


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: list(value.shape) for name, value in state.items()}


def test_the_unclip_unet_has_the_published_names_shapes_and_size(shared: Path) -> None:
    network = on_meta(sdxl.unclip_unet)
    listing = json.loads((shared / "data/state_dicts/mindeye2_unclip6_diffusers_unet.json").read_text())
    assert shapes(network.state_dict()) == listing
    assert sum(value.numel() for value in network.parameters()) == 2_501_272_324
    assert not list(network.buffers())


def test_the_unclip_unet_has_the_published_configuration(shared: Path) -> None:
    listed = json.loads((shared / "data/state_dicts/mindeye2_unclip6_diffusers_unet_config.json").read_text())
    config = on_meta(sdxl.unclip_unet).config
    found = {name: config[name] for name in listed}
    assert json.loads(json.dumps(found)) == listed


def test_sdxl_has_its_size_and_reads_two_text_encoders_and_three_sizes() -> None:
    network = on_meta(sdxl.base_unet)
    state = network.state_dict()
    assert sum(value.numel() for value in network.parameters()) == 2_567_463_684
    assert len(state) == 1680
    assert list(state["add_embedding.linear_1.weight"].shape) == [1280, 2816]
    assert list(state["mid_block.attentions.0.transformer_blocks.9.attn2.to_k.weight"].shape) == [1280, 2048]


def test_every_entry_of_the_checkpoint_but_the_conditioner_goes_to_one_of_the_networks(
    engine: dict[str, Tensor],
) -> None:
    unet, vae = unclip_unet_state(engine), unclip_vae_state(engine)
    assert len(unet) == 1680
    assert len({id(value) for value in unet.values()}) == 1680
    assert shapes(unet) == shapes(on_meta(sdxl.unclip_unet).state_dict())
    assert len(vae) == 248
    assert shapes(vae) == shapes(on_meta(published_vae).state_dict())
    rest = {name for name in engine if not name.startswith((sdxl.UNET_PREFIX, sdxl.VAE_PREFIX))}
    assert {name for name in rest if not name.startswith("conditioner.")} == {sdxl.SIGMAS}


@pytest.mark.parametrize(
    ("published", "here"),
    [
        ("time_embed.2.bias", "time_embedding.linear_2.bias"),
        ("label_emb.0.0.weight", "class_embedding.linear_1.weight"),
        ("input_blocks.0.0.weight", "conv_in.weight"),
        ("input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
        ("input_blocks.4.0.skip_connection.weight", "down_blocks.1.resnets.0.conv_shortcut.weight"),
        ("input_blocks.5.0.emb_layers.1.bias", "down_blocks.1.resnets.1.time_emb_proj.bias"),
        (
            "input_blocks.8.1.transformer_blocks.7.attn2.to_k.weight",
            "down_blocks.2.attentions.1.transformer_blocks.7.attn2.to_k.weight",
        ),
        ("middle_block.2.in_layers.2.weight", "mid_block.resnets.1.conv1.weight"),
        ("middle_block.1.proj_in.weight", "mid_block.attentions.0.proj_in.weight"),
        ("output_blocks.2.2.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        (
            "output_blocks.4.1.transformer_blocks.1.ff.net.0.proj.weight",
            "up_blocks.1.attentions.1.transformer_blocks.1.ff.net.0.proj.weight",
        ),
        ("output_blocks.8.0.out_layers.3.bias", "up_blocks.2.resnets.2.conv2.bias"),
        ("out.2.weight", "conv_out.weight"),
    ],
)
def test_entries_of_the_unet_find_their_place(engine: dict[str, Tensor], published: str, here: str) -> None:
    assert unclip_unet_state(engine)[here] is engine[sdxl.UNET_PREFIX + published]


def test_the_levels_of_the_decoder_are_counted_from_the_other_end(engine: dict[str, Tensor]) -> None:
    found = unclip_vae_state(engine)
    published = engine["first_stage_model.decoder.up.3.block.2.conv1.weight"]
    assert found["decoder.up_blocks.0.resnets.2.conv1.weight"] is published
    published = engine["first_stage_model.encoder.down.3.block.1.conv1.weight"]
    assert found["encoder.down_blocks.3.resnets.1.conv1.weight"] is published


def test_an_entry_of_the_unet_that_has_no_place_is_refused(engine: dict[str, Tensor]) -> None:
    engine[sdxl.UNET_PREFIX + "extra.weight"] = torch.empty(3)
    with pytest.raises(WeightsError, match="1681 entries"):
        unclip_unet_state(engine)


def test_a_checkpoint_that_does_not_read_sizes_is_refused(engine: dict[str, Tensor]) -> None:
    del engine[sdxl.UNET_PREFIX + "label_emb.0.0.weight"]
    with pytest.raises(WeightsError, match=r"no entry model\.diffusion_model\.label_emb"):
        unclip_unet_state(engine)


def test_sizes_become_cosines_then_sines_of_falling_frequencies() -> None:
    codes = size_codes(torch.tensor([[768.0, 0.0]]))
    frequencies = 10000 ** (-np.arange(128) / 128)
    expected = np.concatenate(
        [np.cos(768 * frequencies), np.sin(768 * frequencies), np.ones(128), np.zeros(128)]
    )
    assert codes.shape == (1, 512)
    np.testing.assert_allclose(codes[0], expected, atol=2e-4)


def small_unet(**conditions: Any) -> nn.Module:
    """A UNet with the levels and layers of SDXL, and so with its names, at a fiftieth of its width."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 8, 16),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 1, 2),
        use_linear_projection=True,
        norm_num_groups=4,
        cross_attention_dim=6,
        **conditions,
    ).eval()


def small_unclip() -> nn.Module:
    return small_unet(class_embed_type="projection", projection_class_embeddings_input_dim=1024)


def test_sizes_act_as_they_do_in_sdxl_with_an_empty_text() -> None:
    torch.manual_seed(0)
    unclip = small_unclip()
    base = small_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1024,
    )
    base.load_state_dict(
        {
            name.replace("class_embedding", "add_embedding"): value
            for name, value in unclip.state_dict().items()
        }
    )
    latents, tokens, time = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 6), torch.tensor(700)
    as_image = SizedDenoiser(unclip, sdxl.UNCLIP_SIZES)
    as_text = SizedDenoiser(base, sdxl.UNCLIP_SIZES)
    with torch.no_grad():
        found = as_image(latents, time, image=tokens)
        torch.testing.assert_close(found, as_text(latents, time, text=tokens, pooled=torch.empty(2, 0)))
        other = SizedDenoiser(unclip, (512, 512, 0, 0))(latents, time, image=tokens)
    assert not torch.allclose(found, other)


def test_the_published_networks_accept_the_published_conditions() -> None:
    latents, time = torch.empty(2, 4, 96, 96, device="meta"), torch.tensor(700, device="meta")
    unclip = SizedDenoiser(on_meta(sdxl.unclip_unet), sdxl.UNCLIP_SIZES).to("meta")
    base = SizedDenoiser(on_meta(sdxl.base_unet), sdxl.BASE_SIZES).to("meta")
    tokens, text, pooled = (
        torch.empty(2, *shape, device="meta") for shape in ((256, 1664), (77, 2048), (1280,))
    )
    assert unclip(latents, time, image=tokens).shape == latents.shape
    assert base(latents, time, text=text, pooled=pooled).shape == latents.shape


def test_half_precision_is_the_network_s_own_affair() -> None:
    torch.manual_seed(0)
    unet = small_unclip()
    latents, tokens, time = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 6), torch.tensor(700)
    with torch.no_grad():
        full = SizedDenoiser(unet, sdxl.UNCLIP_SIZES)(latents, time, image=tokens)
        half = SizedDenoiser(unet.half(), sdxl.UNCLIP_SIZES)(latents, time, image=tokens)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=0.01)


@pytest.mark.parametrize("converted", [False, True])
def test_the_unet_is_read_from_the_checkpoint_under_its_published_names(
    engine: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted: bool
) -> None:
    torch.manual_seed(0)
    original = small_unclip()
    names = unclip_unet_state({name: name for name in engine})
    state = {names[name]: value for name, value in original.state_dict().items()}
    state[sdxl.SIGMAS] = torch.tensor(noise_scales(range(1000)))
    state["conditioner.embedders.0.weight"] = torch.full((3,), torch.nan)  # would be refused if it were read
    known = weights.entry(sdxl.UNCLIP)
    torch.save({"epoch": 0, "state_dict": state, "callbacks": {}}, tmp_path / known.filename)
    if converted:
        conversion.convert(tmp_path / known.filename, drop=known.unused)
        (tmp_path / known.filename).unlink()
    monkeypatch.setattr(sdxl, "unclip_unet", small_unclip)
    latents, tokens, time = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 6), torch.tensor(700)
    with torch.no_grad():
        found = sdxl.unclip_denoiser(tmp_path)(latents, time, image=tokens)
        expected = SizedDenoiser(original, sdxl.UNCLIP_SIZES)(latents, time, image=tokens)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_with_other_noise_levels_is_not_loaded(tmp_path: Path) -> None:
    state = {
        sdxl.SIGMAS: torch.tensor(noise_scales(range(1000))).flip(0),
        sdxl.UNET_PREFIX + "out.2.bias": torch.zeros(4),
    }
    torch.save({"state_dict": state}, tmp_path / weights.entry(sdxl.UNCLIP).filename)
    with pytest.raises(WeightsError, match="other noise levels"):
        sdxl.unclip_denoiser(tmp_path)


def test_a_checkpoint_with_other_noise_levels_is_refused() -> None:
    own = torch.tensor(noise_scales(range(1000)))
    sdxl.require_schedule(own.half())
    with pytest.raises(WeightsError, match="other noise levels"):
        sdxl.require_schedule(own.flip(0))
    with pytest.raises(WeightsError, match="other noise levels"):
        sdxl.require_schedule(own[:-1])


class Drawing(nn.Module):
    """A denoiser that always sees one clean image, and remembers what it was told."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents
        self.seen: list[tuple[Tensor, dict[str, Tensor]]] = []

    def image_condition(self, tokens: Tensor) -> Tensor:
        return tokens + 10

    def text_condition(self, tokens: Tensor, *, states: bool = False) -> Tensor:
        return tokens

    def forward(self, latents: Tensor, times: Tensor, text_share: float, **told: Tensor) -> Tensor:
        self.seen.append((latents, told))
        sigma = noise_scales([int(times)])[0]
        return (latents * (1 + sigma**2) ** 0.5 - self.latents) / sigma


def noise_of(n: int) -> ItemNoise:
    return ItemNoise([np.random.default_rng(k) for k in range(n)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def unclip(small_autoencoder: Autoencoder) -> Unclip:
    """The published stage at 16 pixels, with a denoiser that draws one picture whatever it is told."""
    return Unclip(Drawing(normal(1, 4, 8, 8)), small_autoencoder, SHORT, 16)


@pytest.fixture
def refiner(small_autoencoder: Autoencoder) -> Refiner:
    sampling = EulerSampling(spaced_times(25)[-3:], 5.0)
    nothing = {"text": normal(1, 3, 6, seed=5), "pooled": normal(1, 7, seed=6)}
    return Refiner(Drawing(normal(1, 4, 8, 8)), small_autoencoder, sampling, 16, nothing)


def test_the_stage_draws_a_picture_whose_pale_colours_are_made_full(unclip: Unclip) -> None:
    decoded = unclip.autoencoder.decode(unclip.denoiser.latents)
    found = unclip_images(unclip, normal(1, 5, 3), noise_of(2))
    expected = (0.8 * decoded + 0.2).clamp(0, 1).expand(2, -1, -1, -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_without_a_condition_there_is_new_noise_for_every_image(unclip: Unclip) -> None:
    tokens = normal(1, 5, 3)
    unclip_images(unclip, tokens, noise_of(2))
    (_, first), (_, second) = unclip.denoiser.seen
    nothing, given = first["image"].chunk(2)
    torch.testing.assert_close(given, tokens.expand(2, -1, -1) + 10)
    assert not torch.allclose(nothing[0], nothing[1])
    assert abs(float(nothing.mean()) - 10) < 1
    torch.testing.assert_close(second["image"], first["image"])


def test_tokens_that_stand_for_no_image_can_be_given(unclip: Unclip, small_autoencoder: Autoencoder) -> None:
    grey = normal(1, 5, 3, seed=9)
    stage = Unclip(unclip.denoiser, small_autoencoder, SHORT, 16, grey)
    unclip_images(stage, normal(2, 5, 3), noise_of(2))
    told = unclip.denoiser.seen[0][1]["image"]
    torch.testing.assert_close(told[:2], grey.expand(2, -1, -1) + 10)


def test_an_image_does_not_depend_on_its_companions(unclip: Unclip) -> None:
    tokens = normal(1, 5, 3)
    both, alone = unclip_images(unclip, tokens, noise_of(2)), unclip_images(unclip, tokens, noise_of(1))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


def test_refinement_begins_with_the_noised_latents_of_the_enlarged_image(refiner: Refiner) -> None:
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    refine(refiner, images, {"text": normal(1, 3, 6), "pooled": normal(1, 7)}, noise_of(2))
    draws = noise_of(2)
    large = nn.functional.interpolate(images, (16, 16), mode="bilinear")
    latents = refiner.autoencoder.encode(2 * large - 1, draws.normal(4, 8, 8))
    sigma = noise_scales(refiner.sampling.times)[0]
    expected = (latents + sigma * draws.normal(4, 8, 8)) / (1 + sigma**2) ** 0.5
    torch.testing.assert_close(refiner.denoiser.seen[0][0][:2], expected)


def test_refinement_is_guided_away_from_the_negative_prompt(refiner: Refiner) -> None:
    prompt = {"text": normal(1, 3, 6), "pooled": normal(1, 7)}
    refine(refiner, torch.rand(2, 3, 16, 16), prompt, noise_of(2))
    told = refiner.denoiser.seen[0][1]
    for name, nothing in refiner.nothing.items():
        without, under = told[name].chunk(2)
        torch.testing.assert_close(without, nothing.expand_as(without))
        torch.testing.assert_close(under, prompt[name].expand_as(under))


def test_refined_images_have_the_colours_of_the_autoencoder(refiner: Refiner) -> None:
    prompt = {"text": normal(1, 3, 6), "pooled": normal(1, 7)}
    found = refine(refiner, torch.rand(2, 3, 16, 16), prompt, noise_of(2))
    decoded = refiner.autoencoder.decode(refiner.denoiser.latents)
    expected = (decoded / 2 + 0.5).clamp(0, 1).expand(2, -1, -1, -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_images_are_made_smaller_without_smoothing() -> None:
    line = torch.arange(9.0).expand(1, 1, 9, 9)
    # the centres of three pixels lie on the old pixels 1, 4 and 7
    torch.testing.assert_close(resized(line, 3)[0, 0, 0], torch.tensor([1.0, 4.0, 7.0]))
    striped = (torch.arange(9) % 3 == 1).float().expand(1, 1, 9, 9)
    torch.testing.assert_close(resized(striped, 3), torch.ones(1, 1, 3, 3))


def test_images_that_are_not_finite_are_refused(unclip: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(unclip.autoencoder), "decode", lambda _, latents: latents / 0)
    with pytest.raises(ReconstructionError, match="decoded images"):
        unclip_images(unclip, normal(1, 5, 3), noise_of(1))
