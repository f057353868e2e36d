"""A small world for the decoders that generate: images, captions, betas, and random networks of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.unet import pair, transformers
from nsdbench.adapters.nets.versatile import PublishedDenoiser
from nsdbench.types import Stimuli, Trials

N_IMAGES, REPEATS, N_VOXELS, REGION = 200, 3, 300, 120
CHANNELS = 32
COLOURS = ("red", "blue", "green", "white")


@dataclass(frozen=True)
class SmallWorld:
    """Training trials with their stimuli, and eight test targets."""

    train: Trials
    stimuli: Stimuli
    test: Trials


@pytest.fixture(scope="session")
def small_world() -> SmallWorld:
    """200 images, three trials each; betas are a linear map of coarse pixels plus noise."""
    rng = np.random.default_rng(5)
    ids = tuple(f"img{i:05d}" for i in range(N_IMAGES))
    coarse = rng.integers(0, 256, (N_IMAGES, 4, 4, 3), dtype=np.uint8)
    images = dict(zip(ids, coarse.repeat(16, axis=1).repeat(16, axis=2), strict=True))
    captions = {
        i: (f"a {COLOURS[k % 4]} ball", "", f"a picture of a {COLOURS[k % 4]} ball")
        for k, i in enumerate(ids)
    }
    mixing = rng.standard_normal((48, N_VOXELS))
    signal = ((coarse.reshape(N_IMAGES, -1) - 127.5) / 74) @ mixing / 7
    rows = rng.permutation(np.arange(N_IMAGES * REPEATS) % N_IMAGES)
    betas = signal[rows] + rng.standard_normal((len(rows), N_VOXELS))
    regions = {name: np.zeros(N_VOXELS, bool) for name in ("stream_early", "stream_ventral")}
    regions["stream_early"][:REGION] = True
    regions["stream_ventral"][REGION : 2 * REGION] = True
    train = Trials(
        betas=betas.astype(np.float32),
        stimulus=np.array(ids)[rows],
        split="train",
        stimulus_set=np.full(len(rows), "core"),
        repeat=np.zeros(len(rows), np.int64),
        run=np.ones(len(rows), np.int64),
        subject=1,
        rois=regions,
    )
    stimuli = Stimuli(ids, ("core",) * N_IMAGES, frozenset(ids), images.__getitem__, "hash", captions)
    test = replace(train.select(np.arange(8)), stimulus=np.array([f"B{k}" for k in range(8)]), split="vision")
    return SmallWorld(train, stimuli, test)


def random_network(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return what ``build`` makes, with reproducible random parameters, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_autoencoder() -> Autoencoder:
    """Images to latents of half their side."""
    from diffusers import AutoencoderKL

    def build() -> nn.Module:
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, 64),
            norm_num_groups=8,
        )
        return Autoencoder(vae, scale=0.5)

    network = random_network(build)
    assert isinstance(network, Autoencoder)
    return network


def small_unet() -> nn.Module:
    """4 channels, two resolutions, cross-attention to 32 channels."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=CHANNELS,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@pytest.fixture(scope="session")
def small_denoiser() -> PublishedDenoiser:
    """The paired form, as published, small."""
    network = random_network(
        lambda: PublishedDenoiser(pair(small_unet(), transformers(small_unet()))), seed=1
    )
    assert isinstance(network, PublishedDenoiser)
    return network


@pytest.fixture(scope="session")
def small_clip() -> nn.Module:
    """A contrastive model of 64 px in four by four patches, 32 channels, sixteen words."""

    def build() -> nn.Module:
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

        image = CLIPVisionCfg(
            layers=1, width=CHANNELS, head_width=16, patch_size=16, image_size=64, output_tokens=True
        )
        text = CLIPTextCfg(
            context_length=clip.CONTEXT,
            vocab_size=clip.END + 1,
            width=CHANNELS,
            heads=2,
            layers=1,
            proj_type="none",
            output_tokens=True,
        )
        model: nn.Module = CustomTextCLIP(CHANNELS, image, text)
        return model

    return random_network(build, seed=2)


@pytest.fixture(scope="session")
def text_states(small_clip: nn.Module) -> Callable[[Sequence[str]], Tensor]:
    """Captions to hidden states."""
    return lambda captions: clip.text_states(small_clip, captions)
