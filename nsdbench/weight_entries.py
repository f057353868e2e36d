"""Every weights file that nsdbench knows: what it is, where it is published, under which terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TORCHVISION = "https://download.pytorch.org/models/"
BSD = "BSD-3-Clause (torchvision); trained on ImageNet-1k"
HUGGING_FACE = "https://huggingface.co/"
FIGSHARE = "https://figshare.com/ndownloader/files/"


@dataclass(frozen=True)
class Weights:
    """One weights file.

    Attributes
    ----------
    id : str
        Name in nsdbench; results made with the file carry it (or ``same_as``).
    filename : str
        Name in the weights folder.
    url : str
        Where the authors publish it.
    licence : str
        Licence or terms, as far as the authors state them.
    source : str
        What it is: architecture, training data, publication.
    used_by : tuple of str
        Metrics that need it under their canonical profile.
    sha256 : str or None
        Full hash, or None if nobody published one: then the first file seen is pinned.
    sha256_prefixes : tuple of str
        First hex digits that the hash may have, for files that carry them in their name.
    md5 : str or None
        Full MD5, where the authors publish that alone; compared before the SHA-256 is pinned.
    size : int or None
        Size in bytes, where known.
    same_as : str or None
        Id of the weights that this file repackages in another format; it is used when that one is absent.
    unused : tuple of str
        Beginnings of the names in the file that no model needs; conversion leaves them out.
    """

    id: str
    filename: str
    url: str
    licence: str
    source: str
    used_by: tuple[str, ...] = ()
    sha256: str | None = None
    sha256_prefixes: tuple[str, ...] = ()
    md5: str | None = None
    size: int | None = None
    same_as: str | None = None
    unused: tuple[str, ...] = ()

    def accepts(self, sha256: str) -> bool:
        """Whether a file with this hash can be the published one."""
        return sha256.startswith((self.sha256,) if self.sha256 else self.sha256_prefixes or "")

    @property
    def expected(self) -> str:
        """The published hash in words."""
        return self.sha256 or " or ".join(f"{prefix}..." for prefix in self.sha256_prefixes)


def _torchvision(id: str, filename: str, source: str, used_by: tuple[str, ...] = ()) -> Weights:
    prefix = Path(filename).stem.rpartition("-")[2]
    return Weights(id, filename, TORCHVISION + filename, BSD, source, used_by, sha256_prefixes=(prefix,))


def _hub(id: str, path: str, licence: str, source: str, used_by: tuple[str, ...] = ()) -> Weights:
    return Weights(id, id + Path(path).suffix, HUGGING_FACE + path, licence, source, used_by)


def _captions(name: str) -> tuple[str, str]:
    """Return both metrics of one comparison of captions: with those of people, and with those of a captioner."""
    return f"caption_{name}", f"caption_{name}_git"


def _mindeye(id: str, path: str, source: str) -> Weights:
    return _hub(id, f"datasets/pscotti/{path}", _MINDEYE_LICENCE, source)


def _mindeye2_of(subject: int) -> tuple[Weights, ...]:
    """Return the three published trainings around one subject."""
    logs, paper = "mindeyev2/resolve/main/train_logs", "(arXiv 2403.11207)"
    return (
        _mindeye(
            f"mindeye2-subj0{subject}-40sess",
            f"{logs}/final_subj0{subject}_pretrained_40sess_24bs/last.pth",
            f"MindEye2 {paper}, subject {subject}, tuned on all sessions; 8.9 GB",
        ),
        _mindeye(
            f"mindeye2-subj0{subject}-1sess",
            f"{logs}/final_subj0{subject}_pretrained_1sess_24bs/last.pth",
            f"MindEye2 {paper}, subject {subject}, tuned on the first session; 8.9 GB",
        ),
        _mindeye(
            f"mindeye2-multisubject-without-subj0{subject}",
            f"{logs}/final_multisubject_subj0{subject}/last.pth",
            f"MindEye2 {paper}, trained on all subjects but subject {subject}, to be tuned; 10.3 GB",
        ),
    )


_NSD_TERMS = "trained on NSD, whose terms apply (naturalscenesdataset.org)"
_MINDEYE_LICENCE = f"MIT for the code (MedARC-AI), not stated for the weights; {_NSD_TERMS}"
_OPENRAIL = "CreativeML OpenRAIL-M; the hub may ask for its acceptance"
_OPENRAIL_XL = "CreativeML Open RAIL++-M"
_VERSATILE_LICENCE = "MIT (shi-labs/versatile-diffusion)"
_CLIP_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_CLIP_B_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_MINILM_LICENCE = "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)"
_ENTRIES = (
    _torchvision(
        "alexnet-imagenet1k-v1",
        "alexnet-owt-7be5be79.pth",
        "torchvision AlexNet, ImageNet-1k classification",
        ("alexnet2", "alexnet5", "lpips"),
    ),
    _torchvision(
        "inception-v3-imagenet1k-v1",
        "inception_v3_google-0cc3c7bd.pth",
        "torchvision Inception-v3, ImageNet-1k classification (converted from TensorFlow)",
        ("inception",),
    ),
    _torchvision(
        "efficientnet-b1-imagenet1k-v2",
        "efficientnet_b1-c27df63c.pth",
        "torchvision EfficientNet-B1, ImageNet-1k classification, second recipe",
        ("effnet",),
    ),
    _torchvision(
        "efficientnet-b1-imagenet1k-v1",
        "efficientnet_b1_rwightman-bac287d4.pth",
        "torchvision EfficientNet-B1, ImageNet-1k classification, ported from timm; profile brain-diffuser",
    ),
    Weights(
        "efficientnet-b1-imagenet1k-v1-old-name",
        "efficientnet_b1_rwightman-533bc792.pth",
        TORCHVISION + "efficientnet_b1_rwightman-533bc792.pth",
        BSD,
        "the same under its name before torchvision 0.16",
        # torchvision renamed these files because the old names did not match their content (pytorch/vision 8036)
        sha256_prefixes=("bac287d4", "533bc792"),
        same_as="efficientnet-b1-imagenet1k-v1",
    ),
    Weights(
        "clip-vit-l14-openai",
        "ViT-L-14.pt",
        f"https://openaipublic.azureedge.net/clip/models/{_CLIP_SHA256}/ViT-L-14.pt",
        "MIT (openai/CLIP)",
        "OpenAI CLIP ViT-L/14, 400 million image-text pairs; TorchScript archive",
        ("clip", *_captions("clip_l")),
        sha256=_CLIP_SHA256,
    ),
    Weights(
        "clip-vit-l14-openai-open-clip",
        "clip-vit-l14-openai.open_clip.safetensors",
        HUGGING_FACE + "timm/vit_large_patch14_clip_224.openai/resolve/main/open_clip_model.safetensors",
        "MIT (openai/CLIP)",
        "the same in open_clip's layout",
        same_as="clip-vit-l14-openai",
    ),
    Weights(
        "clip-vit-l14-openai-transformers",
        "clip-vit-l14-openai.transformers.safetensors",
        HUGGING_FACE + "openai/clip-vit-large-patch14/resolve/main/model.safetensors",
        "MIT (openai/CLIP)",
        "the same in the layout of Hugging Face transformers",
        same_as="clip-vit-l14-openai",
    ),
    Weights(
        "swav-resnet50-800ep",
        "swav_800ep_pretrain.pth.tar",
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        "CC BY-NC 4.0 (facebookresearch/swav)",
        "SwAV ResNet-50, 800 epochs on ImageNet-1k without labels (arXiv 2006.09882)",
        ("swav",),
    ),
    Weights(
        "vdvae-imagenet64-ema",
        "imagenet64-iter-1600000-model-ema.th",
        "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets-2/"
        "imagenet64-iter-1600000-model-ema.th",
        "MIT for the code (openai/vdvae); not stated for the weights",
        "VDVAE on ImageNet at 64 x 64 pixels, running mean of the weights (arXiv 2011.10650); 500 MB",
    ),
    Weights(
        "vgg19-caffe",
        "VGG_ILSVRC_19_layers.zip",
        FIGSHARE + "38225868",
        "not stated",
        "VGG19 as trained in Caffe (arXiv 1409.1556), and the contrast of its features; Kamitani Lab",
        md5="49f4d6dbf1024f33149352dfd309dc4d",
    ),
    Weights(
        "fc7-generator",
        "bvlc_reference_caffenet_generator_ILSVRC2012_Training.zip",
        FIGSHARE + "38361230",
        "not stated",
        "image generators of Dosovitskiy & Brox 2016 (arXiv 1602.02644); Kamitani Lab",
        md5="bf9d4de43782cb019de733ed7cf84926",
    ),
    _hub(
        "stable-diffusion-v1-4-unet",
        "CompVis/stable-diffusion-v1-4/resolve/main/unet/diffusion_pytorch_model.safetensors",
        _OPENRAIL,
        "Stable Diffusion 1.4, denoiser of image latents under a text (arXiv 2112.10752)",
    ),
    _hub(
        "stable-diffusion-v1-4-vae",
        "CompVis/stable-diffusion-v1-4/resolve/main/vae/diffusion_pytorch_model.safetensors",
        _OPENRAIL,
        "Stable Diffusion 1.4, autoencoder",
    ),
    _hub(
        "versatile-diffusion-image-unet",
        "shi-labs/versatile-diffusion/resolve/main/image_unet/diffusion_pytorch_model.bin",
        _VERSATILE_LICENCE,
        "Versatile Diffusion, denoiser of image latents under an image (arXiv 2211.08332); 3.4 GB",
    ),
    _hub(
        "versatile-diffusion-text-unet",
        "shi-labs/versatile-diffusion/resolve/main/text_unet/diffusion_pytorch_model.bin",
        _VERSATILE_LICENCE,
        "Versatile Diffusion, its counterpart under a text; only the attention layers are used; 6.8 GB",
    ),
    _hub(
        "versatile-diffusion-vae",
        "shi-labs/versatile-diffusion/resolve/main/vae/diffusion_pytorch_model.bin",
        _VERSATILE_LICENCE,
        "Versatile Diffusion, autoencoder",
    ),
    _mindeye(
        "mindeye1-subj01",
        "naturalscenesdataset/resolve/main/mindeye_models/prior_257_final_subj01_bimixco_softclip_byol/last.pth",
        "MindEye1 (arXiv 2305.18274), subject 1: voxels to CLIP tokens, and diffusion prior; at least 4 GB",
    ),
    _mindeye(
        "mindeye1-lowlevel-subj01",
        "naturalscenesdataset/resolve/main/mindeye_models/autoencoder_subj01_4x_locont_no_reconst/epoch120.pth",
        "MindEye1, subject 1: voxels to latents of a blurry image; at least 0.8 GB",
    ),
    *(entry for subject in (1, 2, 5, 7) for entry in _mindeye2_of(subject)),
    _mindeye(
        "mindeye2-multisubject-without-subj01-1024",
        "mindeyev2/resolve/main/train_logs/multisubject_subj01_1024hid_nolow_300ep/last.pth",
        "MindEye2, trained on subjects 2 to 8, width 1024 and no low-level branch; 2.9 GB",
    ),
    Weights(
        "sd-image-variations-vae",
        "sd_image_var_autoenc.pth",
        HUGGING_FACE + "datasets/pscotti/mindeyev2/resolve/main/sd_image_var_autoenc.pth",
        _OPENRAIL,
        "Stable Diffusion Image Variations, autoencoder: what MindEye's low-level latents are latents of; 0.3 GB",
    ),
    Weights(
        "mindeye2-caption-converter",
        "bigG_to_L_epoch8.pth",
        HUGGING_FACE + "datasets/pscotti/mindeyev2/resolve/main/bigG_to_L_epoch8.pth",
        "MIT for the code (MedARC-AI), not stated for the weights",
        "MindEye2, linear maps from OpenCLIP bigG tokens to the CLIP L tokens that GIT reads; 7 MB",
    ),
    Weights(
        "mindeye2-unclip6",
        "unclip6_epoch0_step110000.ckpt",
        HUGGING_FACE + "datasets/pscotti/mindeyev2/resolve/main/unclip6_epoch0_step110000.ckpt",
        _OPENRAIL_XL + ", assumed: the weights derive from Stable Diffusion XL",
        "MindEye2, Stable Diffusion XL tuned to draw what OpenCLIP bigG tokens describe; 18 GB, see "
        "`nsdbench weights convert`",
        unused=("conditioner.",),
    ),
    _hub(
        "openclip-vit-bigg14",
        "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k/resolve/main/open_clip_pytorch_model.safetensors",
        "MIT (laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)",
        "OpenCLIP ViT-bigG/14, laion2b_s39b_b160k; 10.2 GB",
    ),
    Weights(
        "openclip-vit-bigg14-pickle",
        "openclip-vit-bigg14.bin",
        HUGGING_FACE + "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k/resolve/main/open_clip_pytorch_model.bin",
        "MIT (laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)",
        "the same as a pickle, the file that MindEye2 and its forks use",
        same_as="openclip-vit-bigg14",
    ),
    _hub(
        "sdxl-base-1.0-unet",
        "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/unet/diffusion_pytorch_model.safetensors",
        _OPENRAIL_XL,
        "Stable Diffusion XL base 1.0, denoiser (arXiv 2307.01952); 10.3 GB",
    ),
    _hub(
        "sdxl-base-1.0-vae",
        "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/vae/diffusion_pytorch_model.safetensors",
        _OPENRAIL_XL,
        "Stable Diffusion XL base 1.0, autoencoder, which needs single precision; 0.3 GB",
    ),
    _hub(
        "git-large-coco",
        "microsoft/git-large-coco/resolve/main/pytorch_model.bin",
        "MIT (microsoft/git-large-coco)",
        "GIT large, tuned to caption COCO (arXiv 2205.14100)",
    ),
    _hub(
        "git-large-coco-vocab",
        "microsoft/git-large-coco/resolve/main/vocab.txt",
        "MIT (microsoft/git-large-coco)",
        "the words of GIT, one a line",
    ),
    Weights(
        "vicregl-convnext-xl-alpha0.75",
        "convnext_xlarge_alpha0.75_fullckpt.pth",
        "https://dl.fbaipublicfiles.com/vicregl/convnext_xlarge_alpha0.75_fullckpt.pth",
        "CC BY-NC 4.0 (facebookresearch/VICRegL)",
        "VICRegL ConvNeXt-XL, alpha 0.75 (arXiv 2210.01571): teacher of MindEye's low-level maps; 6.6 GB",
    ),
    Weights(
        "clip-vit-b32-openai",
        "ViT-B-32.pt",
        f"https://openaipublic.azureedge.net/clip/models/{_CLIP_B_SHA256}/ViT-B-32.pt",
        "MIT (openai/CLIP)",
        "OpenAI CLIP ViT-B/32, 400 million image-text pairs; TorchScript archive",
        _captions("clip_b"),
        sha256=_CLIP_B_SHA256,
    ),
    _hub(
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2/resolve/main/model.safetensors",
        _MINILM_LICENCE,
        "MiniLM with 6 layers, tuned to place sentences of one meaning close together; 91 MB",
        _captions("sentence"),
    ),
    _hub(
        "all-minilm-l6-v2-vocab",
        "sentence-transformers/all-MiniLM-L6-v2/resolve/main/vocab.txt",
        _MINILM_LICENCE,
        "its words, one a line",
        _captions("sentence"),
    ),
    Weights(
        "nltk-wordnet",
        "wordnet.zip",
        "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/wordnet.zip",
        "WordNet 3.0 licence (Princeton University)",
        "WordNet 3.0, synonyms of English words, as packed for NLTK",
        _captions("meteor"),
    ),
)
REGISTRY: Mapping[str, Weights] = {entry.id: entry for entry in _ENTRIES}
