"""Which weights the built-in models need: what their classes declare, readable without importing their networks."""

from __future__ import annotations

from collections.abc import Mapping

_VERSATILE = ("versatile-diffusion-image-unet", "versatile-diffusion-vae", "clip-vit-l14-openai")
_UNCLIP = (
    "mindeye2-unclip6",
    "sdxl-base-1.0-unet",
    "sdxl-base-1.0-vae",
    "openclip-vit-bigg14",
    "clip-vit-l14-openai",
    "mindeye2-caption-converter",
    "git-large-coco",
    "git-large-coco-vocab",
    "sd-image-variations-vae",
)
_MINI = ("mini_denoiser-v1", "mini_autoencoder-v1", "mini_tokens-v1")
_TEACHER = "vicregl-convnext-xl-alpha0.75"

MODELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mindeye1": {
        "published": _VERSATILE,
        "retrained": (*_VERSATILE, "sd-image-variations-vae", _TEACHER),
        "mini": (*_MINI, "mini_mindeye1_prior-v1", "mini_vgg-v1"),
    },
    "mindeye2": {
        "published": _UNCLIP,
        "retrained": (*_UNCLIP, _TEACHER),
        "mini": (*_MINI, "mini_mindeye2_prior-v1", "mini_captioner-v1", "mini_vgg-v1"),
    },
    "brain_diffuser": {
        "published": ("vdvae-imagenet64-ema", *_VERSATILE, "versatile-diffusion-text-unet"),
        "mini": ("mini_vdvae-v1", *_MINI),
    },
    "takagi": {
        "published": ("stable-diffusion-v1-4-unet", "stable-diffusion-v1-4-vae", "clip-vit-l14-openai"),
        "mini": _MINI,
    },
    "icnn": {
        "published": ("vgg19-caffe", "fc7-generator"),
        "mini": ("mini_vgg-v1", "mini_generator-v1"),
    },
}
"""Weights of models by preset; models without pretrained networks are absent."""

CHECKPOINTS: Mapping[str, tuple[str, ...]] = {
    "mindeye1-published": ("mindeye1-subj{:02d}", "mindeye1-lowlevel-subj{:02d}"),
    "mindeye2-published": ("mindeye2-subj{:02d}-40sess",),
}
"""Published checkpoints of one subject each; not every subject has one."""

OTHER_USES: Mapping[str, tuple[str, ...]] = {
    "pretrain --published-without": tuple(
        f"mindeye2-multisubject-without-subj{subject:02d}" for subject in (1, 2, 5, 7)
    ),
    "profile brain-diffuser": ("efficientnet-b1-imagenet1k-v1",),
}
"""Weights of a form of a verb or a metric rather than of a preset."""
