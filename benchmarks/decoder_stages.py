"""The stages of the decoders: how their networks are built, and how they are called.

Tensors are made on whatever device is the default; :mod:`decoder_costs` runs all this on shapes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nsdbench.adapters import inversion, takagi
from nsdbench.adapters.mindeye import mindeye1, mindeye2
from nsdbench.adapters.mindeye.encoder import MindEye1
from nsdbench.adapters.mindeye.lowlevel import VoxelLatents
from nsdbench.adapters.mindeye.trunk import MindEye2
from nsdbench.adapters.nets import (
    autoencoder,
    bigg,
    captioner,
    clip,
    clip_published,
    generator,
    sdxl,
    unet,
    vdvae,
    versatile,
    vgg,
    vicregl,
)

VOXELS = {"published": 15_724, "mini": 1_966}
"""Of subject 1: the largest nsdgeneral of the four subjects with all sessions, and that of the simulated one."""
Build = Callable[[], nn.Module]
Call = Callable[[nn.Module, int], object]


@dataclass(frozen=True)
class Plan:
    """A stage to be counted.

    Attributes
    ----------
    model, size, name : str
        Which stage of which model; ``size`` is published or mini.
    network : str
        Stages with the same one share its weights.
    precision : {"half", "single", "mixed"}
        What the adapter uses on a GPU; mixed: weights in single precision, products in bfloat16 (training).
    build : callable
        Makes the network.
    call : callable
        Runs the network for so many items.
    learns : int
        Images per step, if gradients of the weights are taken.
    """

    model: str
    size: str
    name: str
    network: str
    precision: str
    build: Build
    call: Call
    learns: int = 0


class Noise:
    """Draws that have shapes only."""

    def __init__(self, n: int) -> None:
        self.n = n

    def normal(self, *shape: int) -> Tensor:
        return torch.empty(self.n, *shape)


def like(network: nn.Module, *shape: int) -> Tensor:
    """Return numbers as the network holds them."""
    return torch.empty(*shape, dtype=next(network.parameters()).dtype)


# networks


def published_autoencoder() -> nn.Module:
    """Return the published autoencoder with its scale."""
    return autoencoder.Autoencoder(autoencoder.published_vae())


def sd_unet() -> nn.Module:
    """Return Stable Diffusion's denoiser; also that of Versatile Diffusion for images alone."""
    return versatile.PublishedDenoiser(versatile.unet())


def paired_unet() -> nn.Module:
    """Return Versatile Diffusion's denoiser for images and texts."""
    return versatile.PublishedDenoiser(versatile.paired_unet())


def unclip() -> nn.Module:
    """Return the denoiser of MindEye2's first image."""
    return sdxl.SizedDenoiser(sdxl.unclip_unet(), sdxl.UNCLIP_SIZES)


def sdxl_base() -> nn.Module:
    """Return the denoiser of its refinement."""
    return sdxl.SizedDenoiser(sdxl.base_unet(), sdxl.BASE_SIZES)


def clip_text() -> nn.Module:
    """Return the text tower of the published CLIP alone."""
    return clip_published.build().text


def git() -> nn.Module:
    """Return the published captioner."""
    return captioner.Captioner(captioner.GIT_LARGE_COCO)


def published_vdvae() -> nn.Module:
    """Return the published VDVAE."""
    return vdvae.VDVAE(vdvae.PUBLISHED)


def teacher() -> nn.Module:
    """Return the teacher of the published low-level branches."""
    return vicregl.Teacher(vicregl.XLARGE)


class Inversion(nn.Module):
    """Both networks of iCNN."""

    def __init__(self, large: vgg.VggConfig, small: generator.GeneratorConfig) -> None:
        super().__init__()
        self.vgg, self.generator = vgg.Vgg(large), generator.Generator(small)


# calls


def _encode(side: int) -> Call:
    return lambda network, n: network.encode(like(network, n, 3, side, side))


def _decode(side: int) -> Call:
    return lambda network, n: network.decode(like(network, n, *network.latent_shape(side)))


def _denoise(side: int, image: tuple[int, int] | None, text: tuple[int, int] | None, share: float) -> Call:
    def call(network: nn.Module, n: int) -> object:
        known = {k: torch.empty(n, *shape) for k, shape in (("image", image), ("text", text)) if shape}
        return network(
            torch.empty(n, 4, side, side), torch.empty((), dtype=torch.int64), **known, text_share=share
        )

    return call


def _refine(network: nn.Module, n: int) -> object:
    latents, time_ = torch.empty(n, 4, 96, 96), torch.empty((), dtype=torch.int64)
    return network(latents, time_, text=torch.empty(n, 77, 2048), pooled=torch.empty(n, 1280))


def _clip_image(network: nn.Module, n: int) -> object:
    side = network.visual.image_size[0]
    return clip.image_tokens(network, torch.empty(n, 3, side, side))


def _clip_text(network: nn.Module, n: int) -> object:
    return network.text(torch.empty(n, network.text.context_length, dtype=torch.int64))


def _tower(network: nn.Module, n: int) -> object:
    return network.forward_intermediates(
        torch.empty(n, clip_published.CONTEXT, dtype=torch.int64), indices=[1], output_fmt="NLC"
    )


def _vdvae_encode(network: nn.Module, n: int) -> object:
    config = network.config
    return network.posterior_pass(torch.empty(n, 3, config.image, config.image), Noise(n), config.regressed)


def _vdvae_decode(network: nn.Module, n: int) -> object:
    config = network.config
    sides = [resolution for resolution, _, _ in vdvae.layers(config.decoder)][: config.regressed]
    return network.manual_pass([torch.empty(n, config.zdim, r, r) for r in sides], Noise(n))


def _caption(network: nn.Module, n: int) -> object:
    """The longest caption."""
    config = network.config
    memory = network.decoder.read(network.converter(torch.empty(n, config.tokens_in, config.dim_in)))
    for place in range(config.longest - 1):
        _, memory = network.decoder.write(torch.empty(n, 1, dtype=torch.int64), memory, place)
    return memory


def _prior(network: nn.Module, n: int) -> object:
    prior = getattr(network, "diffusion_prior", network)
    shape = (n, prior.config.tokens, prior.config.dim)
    return prior.predict(torch.empty(shape), torch.empty(n, dtype=torch.int64), torch.empty(shape))


def _voxels1(network: nn.Module, n: int) -> object:
    return network.voxel2clip(torch.empty(n, network.voxel2clip.voxels))


def _low1(network: nn.Module, n: int) -> object:
    return network(torch.empty(n, network.lin0[0].in_features))


def _voxels2(network: nn.Module, n: int) -> object:
    out = network.backbone(network.ridge(torch.empty(n, network.ridge.voxels[0])))
    return out.backbone, out.retrieval, out.latents


def _learn_high1(network: nn.Module, n: int) -> object:
    backbone, wanted = _voxels1(network, n)  # type: ignore[misc]
    return wanted, network.predict(torch.empty_like(backbone), torch.empty(n, dtype=torch.int64), backbone)


def _learn_low1(network: nn.Module, n: int) -> object:
    return network(torch.empty(n, network.lin0[0].in_features), maps=True)


def _learn2(network: nn.Module, n: int) -> object:
    out = network.backbone(network.ridge(torch.empty(n, network.ridge.voxels[0])), maps=True)
    times = torch.empty(n, dtype=torch.int64)
    predicted = network.diffusion_prior.predict(torch.empty_like(out.backbone), times, out.backbone)
    return predicted, out.retrieval, out.latents, out.maps


def _features(network: nn.Module, n: int) -> object:
    side = network.vgg.config.size
    return network.vgg(torch.empty(n, 3, side, side))


def _invert(network: nn.Module, n: int) -> object:
    """One iteration."""
    wanted = {name: torch.empty(1, *shape) for name, shape in network.vgg.config.shapes.items()}
    code = torch.empty(n, network.generator.config.dense[0])
    with torch.enable_grad():
        return inversion._descend(network.generator, network.vgg, wanted, code, inversion.Descent(1))


def _mini_teacher(network: nn.Module, n: int) -> object:
    return network(torch.empty(n, 3, vgg.MINI.size, vgg.MINI.size), ("conv4_2",))


def _takagi() -> Iterator[Plan]:
    plan, side = functools.partial(Plan, "takagi", "published"), 512
    coarse = takagi.Takagi.settings["published"].coarse_side
    for name, call in (
        ("coarse image decoded", _decode(coarse)),
        ("coarse image encoded", _encode(coarse)),
        ("image encoded", _encode(side)),
        ("image decoded", _decode(side)),
    ):
        yield plan(name, "autoencoder", "half", published_autoencoder, call)
    yield plan("denoising", "denoiser", "half", sd_unet, _denoise(64, None, (77, 768), 1.0))
    yield plan("text encoded", "clip", "single", clip_published.build, _clip_text)
    plan = functools.partial(Plan, "takagi", "mini")
    coarse = takagi.Takagi.settings["mini"].coarse_side
    for name, call in (
        ("coarse image decoded", _decode(coarse)),
        ("coarse image encoded", _encode(coarse)),
        ("image encoded", _encode(64)),
        ("image decoded", _decode(64)),
    ):
        yield plan(name, "autoencoder", "single", autoencoder.mini_autoencoder, call)
    yield plan("denoising", "denoiser", "single", unet.MiniDenoiser, _denoise(16, None, (16, 160), 1.0))
    yield plan("text encoded", "clip", "single", clip.mini_clip, _clip_text)


def _brain_diffuser() -> Iterator[Plan]:
    plan = functools.partial(Plan, "brain_diffuser", "published")
    yield plan("image encoded", "autoencoder", "half", published_autoencoder, _encode(512))
    yield plan("image decoded", "autoencoder", "half", published_autoencoder, _decode(512))
    both = _denoise(64, (257, 768), (77, 768), 0.4)
    yield plan("denoising", "denoiser", "half", paired_unet, both)
    yield plan("latents read", "vdvae", "single", published_vdvae, _vdvae_encode)
    yield plan("first picture", "vdvae", "single", published_vdvae, _vdvae_decode)
    yield plan("image tokens", "clip", "single", clip_published.build, _clip_image)
    yield plan("text encoded", "clip", "single", clip_published.build, _clip_text)
    plan = functools.partial(Plan, "brain_diffuser", "mini")
    yield plan("image encoded", "autoencoder", "single", autoencoder.mini_autoencoder, _encode(64))
    yield plan("image decoded", "autoencoder", "single", autoencoder.mini_autoencoder, _decode(64))
    yield plan("denoising", "denoiser", "single", unet.MiniDenoiser, _denoise(16, (65, 160), (16, 160), 0.4))
    yield plan("latents read", "vdvae", "single", vdvae.mini_vdvae, _vdvae_encode)
    yield plan("first picture", "vdvae", "single", vdvae.mini_vdvae, _vdvae_decode)
    yield plan("image tokens", "clip", "single", clip.mini_clip, _clip_image)
    yield plan("text encoded", "clip", "single", clip.mini_clip, _clip_text)


def _icnn() -> Iterator[Plan]:
    for size, large, small in (
        ("published", vgg.PUBLISHED, generator.PUBLISHED),
        ("mini", vgg.MINI, generator.MINI),
    ):
        build = functools.partial(Inversion, large, small)
        yield Plan("icnn", size, "one iteration", "vgg and generator", "single", build, _invert)
        yield Plan("icnn", size, "features", "vgg and generator", "single", build, _features)


def _mindeye1() -> Iterator[Plan]:
    for size in ("published", "mini"):
        chosen = mindeye1.MindEye1.settings[size]
        voxels = VOXELS[size]
        high = functools.partial(MindEye1, voxels, chosen.model)
        low = functools.partial(VoxelLatents, voxels, chosen.low_hidden, chosen.low_blocks, chosen.low_level)
        plan = functools.partial(Plan, "mindeye1", size)
        yield plan("tokens decoded", "high level", "single", high, _voxels1)
        yield plan("rough image decoded", "low level", "single", low, _low1)
        yield plan("prior", "high level", "single", high, _prior)
        yield plan("high level learns", "high level", "mixed", high, _learn_high1, learns=chosen.plan.batch)
        yield plan("low level learns", "low level", "mixed", low, _learn_low1, learns=chosen.low_plan.batch)
    plan = functools.partial(Plan, "mindeye1", "published")
    yield plan("image encoded", "autoencoder", "half", published_autoencoder, _encode(512))
    yield plan("image decoded", "autoencoder", "half", published_autoencoder, _decode(512))
    yield plan("denoising", "denoiser", "half", sd_unet, _denoise(64, (257, 768), None, 0.0))
    yield plan("image tokens", "clip", "single", clip_published.build, _clip_image)
    yield plan("rough latents read", "rough autoencoder", "single", published_autoencoder, _encode(512))
    yield plan(
        "teacher", "teacher", "single", teacher, lambda network, n: network(torch.empty(n, 3, 512, 512))
    )
    plan = functools.partial(Plan, "mindeye1", "mini")
    yield plan("image encoded", "autoencoder", "single", autoencoder.mini_autoencoder, _encode(64))
    yield plan("image decoded", "autoencoder", "single", autoencoder.mini_autoencoder, _decode(64))
    yield plan("denoising", "denoiser", "single", unet.MiniDenoiser, _denoise(16, (65, 160), None, 0.0))
    yield plan("image tokens", "clip", "single", clip.mini_clip, _clip_image)
    yield plan("rough latents read", "autoencoder", "single", autoencoder.mini_autoencoder, _encode(64))
    yield plan("teacher", "teacher", "single", vgg.mini_vgg, _mini_teacher)


def _mindeye2() -> Iterator[Plan]:
    for size in ("published", "mini"):
        plan = functools.partial(Plan, "mindeye2", size)
        chosen = mindeye2.MindEye2.settings[size]
        brain = functools.partial(MindEye2, [VOXELS[size]], chosen.model)
        yield plan("tokens decoded", "brain", "single", brain, _voxels2)
        yield plan("prior", "brain", "single", brain, _prior)
        yield plan("brain learns", "brain", "mixed", brain, _learn2, learns=chosen.plan.batch)
    plan = functools.partial(Plan, "mindeye2", "published")
    yield plan("denoising", "unclip", "half", unclip, _denoise(96, (256, 1664), None, 0.0))
    yield plan("image decoded", "unclip autoencoder", "single", published_autoencoder, _decode(768))
    yield plan("refinement", "refiner", "half", sdxl_base, _refine)
    yield plan("image encoded", "refiner autoencoder", "single", published_autoencoder, _encode(768))
    yield plan("refined image decoded", "refiner autoencoder", "single", published_autoencoder, _decode(768))
    yield plan("small prompt", "clip text", "half", clip_text, _tower)
    yield plan("large prompt", "bigg text", "half", bigg.text_tower, _tower)
    yield plan("caption", "captioner", "single", git, _caption)
    yield plan("rough image decoded", "rough autoencoder", "single", published_autoencoder, _decode(224))
    yield plan("rough latents read", "rough autoencoder", "single", published_autoencoder, _encode(224))
    yield plan(
        "image tokens",
        "bigg images",
        "half",
        bigg.image_tower,
        lambda network, n: network(like(network, n, 3, 224, 224)),
    )
    yield plan(
        "teacher", "teacher", "single", teacher, lambda network, n: network(torch.empty(n, 3, 224, 224))
    )
    plan = functools.partial(Plan, "mindeye2", "mini")
    image, text = _denoise(16, (64, 160), None, 0.0), _denoise(16, None, (16, 160), 1.0)
    small = autoencoder.mini_autoencoder
    yield plan("denoising", "denoiser", "single", unet.MiniDenoiser, image)
    yield plan("image decoded", "autoencoder", "single", small, _decode(64))
    yield plan("refinement", "denoiser", "single", unet.MiniDenoiser, text)
    yield plan("image encoded", "autoencoder", "single", small, _encode(64))
    yield plan("refined image decoded", "autoencoder", "single", small, _decode(64))
    yield plan("small prompt", "clip", "single", clip.mini_clip, _clip_text)
    yield plan("caption", "captioner", "single", captioner.mini_captioner, _caption)
    yield plan("rough image decoded", "autoencoder", "single", small, _decode(32))
    yield plan("rough latents read", "autoencoder", "single", small, _encode(32))
    yield plan("image tokens", "clip", "single", clip.mini_clip, _clip_image)
    yield plan("teacher", "teacher", "single", vgg.mini_vgg, _mini_teacher)


def plans() -> tuple[Plan, ...]:
    """Return every stage of every decoder."""
    return (*_takagi(), *_brain_diffuser(), *_icnn(), *_mindeye1(), *_mindeye2())
